"""What has to come of mail to a domain, whatever of its policy, its DNS and its hosts has been tampered with.

Written from RFC 8461 and RFC 7672, and from nothing of what it is held against: it imports no part of the product. A
`Cell` is one combination of what a sender can meet; `expected` says what must come of it; `impossible` names those that
cannot be.
"""

from collections.abc import Iterator, Sequence
from enum import StrEnum
from itertools import combinations, product
from random import Random
from typing import NamedTuple, TypeVar


class Cache(StrEnum):
    """What the sender knows of the domain's policy from before. What is expired was of the same policy."""

    NONE = "no policy cached"
    VALID = "policy cached"
    EXPIRED = "expired policy cached"


class Txt(StrEnum):
    """What `_mta-sts.DOMAIN` says."""

    ABSENT = "no record"
    SAME = "same id"
    NEW = "new id"
    TWO = "two records"
    MALFORMED = "malformed record"
    SERVFAIL = "SERVFAIL"


class Https(StrEnum):
    """What the policy host says."""

    OK = "200"
    MISSING = "404"
    REDIRECT = "redirect"
    SELF_SIGNED = "bad certificate"
    WRONG_HOST = "certificate of another host"
    EXPIRED = "expired certificate"
    TOO_LONG = "64 KiB + 1"
    WRONG_TYPE = "text/html"
    SLOW = "slow"
    REFUSED = "connection refused"


class Mode(StrEnum):
    """The mode of the domain's policy, cached or served."""

    ENFORCE = "enforce"
    TESTING = "testing"
    NONE = "none"


class Mx(StrEnum):
    """How the MX host stands to the policy's patterns."""

    EXACT = "listed"
    WILDCARD = "one label below a wildcard"
    TWO_LABELS = "two labels below a wildcard"
    ALIAS = "listed, and a CNAME"
    UNLISTED = "not listed"


class Tls(StrEnum):
    """How the MX host does TLS."""

    OK = "good certificate"
    NOT_OFFERED = "no STARTTLS"
    REFUSED = "STARTTLS refused"
    SELF_SIGNED = "self-signed certificate"
    OTHER_NAME = "certificate of another host"
    EXPIRED = "expired certificate"
    FAILS = "handshake fails"
    OLD = "TLS 1.0"


class Tlsa(StrEnum):
    """What the DNS says of the MX host's TLSA records, where its zone is signed."""

    NONE = "none"
    MATCHES = "3 1 1 of its key"
    OTHER = "3 1 1 of another key"
    UNUSABLE = "only records nobody can use"
    SERVFAIL = "SERVFAIL"
    UNSIGNED = "matching records, not signed"


class Cell(NamedTuple):
    """A combination for MTA-STS."""

    cache: Cache
    txt: Txt
    https: Https
    mode: Mode
    mx: Mx
    tls: Tls


class Dane(NamedTuple):
    """A combination for DANE: what MTA-STS would want of the same host, and whether the MX records are signed."""

    signed_mx: bool
    tlsa: Tlsa
    sts: bool  # an enforced policy is cached
    mx: Mx
    tls: Tls


class End(StrEnum):
    """What comes of it: over which kind of session mail went, or that it waits."""

    VERIFIED = "verified"
    ENCRYPTED = "encrypted"
    CLEAR = "in the clear"
    DEFERRED = "deferred"


Axes = Sequence[type[StrEnum] | tuple[bool, bool]]
STS_AXES: Axes = (Cache, Txt, Https, Mode, Mx, Tls)
DANE_AXES: Axes = ((True, False), Tlsa, (True, False), Mx, Tls)
_LISTED = (Mx.EXACT, Mx.WILDCARD, Mx.ALIAS)
_CERTIFICATE = (Tls.OK, Tls.SELF_SIGNED, Tls.OTHER_NAME, Tls.EXPIRED)  # sessions that are encrypted, with whomever


def sts_cells() -> list[Cell]:
    """List all combinations for MTA-STS."""
    return [Cell(*values) for values in product(*STS_AXES)]


def dane_cells() -> list[Dane]:
    """List all combinations for DANE."""
    return [Dane(*values) for values in product(*DANE_AXES)]


def impossible(cell: Cell | Dane) -> bool:
    """Tell whether nobody can meet this: the same id as that of a policy that was never there."""
    return isinstance(cell, Cell) and cell.cache is Cache.NONE and cell.txt is Txt.SAME


def applies(cell: Cell) -> bool:
    """Tell whether a policy applies to the domain, which has the cell's mode."""
    if cell.mode is Mode.NONE:
        return False
    if cell.cache is Cache.VALID:
        return True  # RFC 8461 5.1: whatever becomes of record and host
    return cell.txt in (Txt.SAME, Txt.NEW) and cell.https is Https.OK


def expected(cell: Cell | Dane) -> End:
    """Say what must come of a combination."""
    if isinstance(cell, Cell):
        enforced = applies(cell) and cell.mode is Mode.ENFORCE
        return _by_policy(enforced, cell.mx, cell.tls)
    return _with_dane(cell)


def _by_policy(enforced: bool, mx: Mx, tls: Tls) -> End:
    if enforced:
        return End.VERIFIED if mx in _LISTED and tls is Tls.OK else End.DEFERRED
    if tls is Tls.OK:
        return End.VERIFIED
    # nobody asks for more, and an old TLS is better than none (RFC 7435 3)
    return End.ENCRYPTED if tls in _CERTIFICATE or tls is Tls.OLD else End.CLEAR


def _with_dane(cell: Dane) -> End:
    asked = cell.signed_mx and cell.tlsa not in (Tlsa.NONE, Tlsa.UNSIGNED)
    if not asked:
        return _by_policy(cell.sts, cell.mx, cell.tls)
    if cell.tlsa is Tlsa.SERVFAIL or cell.tls not in _CERTIFICATE:
        return End.DEFERRED
    if cell.tlsa is Tlsa.MATCHES:
        return End.VERIFIED  # RFC 7672 3.1.1: names, dates and authorities do not count; nor does MTA-STS
    if cell.tlsa is Tlsa.OTHER:
        return End.DEFERRED
    end = _by_policy(cell.sts, cell.mx, cell.tls)
    return End.ENCRYPTED if end is End.CLEAR else end


_Cell = TypeVar("_Cell", Cell, Dane)


def some(cells: Sequence[_Cell], least: int, rng: Random) -> list[_Cell]:
    """Draw cells at random so that every pair of values of two axes is in one of them, and at least so many."""
    possible = [each for each in cells if not impossible(each)]
    missing = {pair for each in possible for pair in _pairs(each)}
    chosen: list[_Cell] = []
    while missing or len(chosen) < least:
        drawn = rng.sample(possible, min(60, len(possible)))
        best = max(drawn, key=lambda each: len(missing.intersection(_pairs(each))))
        if missing.isdisjoint(_pairs(best)) and missing:
            best = next(each for each in possible if not missing.isdisjoint(_pairs(each)))
        chosen.append(best)
        missing.difference_update(_pairs(best))
    return chosen


def _pairs(cell: Cell | Dane) -> Iterator[tuple[tuple[int, object], tuple[int, object]]]:
    yield from combinations(enumerate(cell), 2)
