"""DKIM signatures (RFC 6376, RFC 8463), made at each attempt and never stored.

The pure half says what is signed: header fields and body in relaxed form, in time linear in the message
whatever it holds. `Signer` knows the domains, looks for changes of a domain's record at most once a second, and
has the digests signed by the process that has the keys (signatory.py).

A domain signs for its tenant alone, which is asked again here (promise 9). Lines of content end with
CRLF; SMTP out sends nothing else, so nothing else needs a signature that holds.
"""

import asyncio
import hashlib
import logging
import re
from base64 import b64encode
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import msgspec

from mta.accounts import domains
from mta.accounts.dkim_keys import Algorithm
from mta.accounts.domains import Domain, Selector
from mta.clock import Clock
from mta.delivery.signatory import SigningError, Wanted
from mta.mail import headers
from mta.spool.interface import Spool, SpoolError
from mta.spool.records import Message
from mta.spool.sealing import SealBroken

log = logging.getLogger(__name__)

# named once more than they stand there, so that nobody can add one (RFC 6376 8.15)
_OVERSIGNED = (b"from", b"to", b"subject", b"date")
_SIGNED = frozenset(_OVERSIGNED) | {
    b"cc",
    b"content-transfer-encoding",
    b"content-type",
    b"in-reply-to",
    b"list-archive",
    b"list-help",
    b"list-id",
    b"list-owner",
    b"list-post",
    b"list-subscribe",
    b"list-unsubscribe",
    b"list-unsubscribe-post",
    b"message-id",
    b"mime-version",
    b"references",
    b"reply-to",
    b"sender",
    b"tls-report-domain",  # RFC 8460 5.3
    b"tls-report-submitter",
}
SIGNED_FIELDS_LIMIT = 500  # each is named in the signature, and no honest message has as many
HEADER_LIMIT = 256 * 1024  # octets
_BLANKS = re.compile(rb"  +")
_PIECE = 64 * 1024  # octets canonicalised in one go: what may hold up the event loop, or the GIL on a thread
_THREADS = 2  # at work on larger contents; with more, they and the loop would take the GIL from each other
_LINE = 72
_CHECK_INTERVAL = 1.0
_DOMAINS_CACHED = 4096


class Signed(NamedTuple):
    """Signature fields to put before the content (b"": none), and `domain:selectors` or why there are none."""

    header: bytes
    note: str


class Canonical(NamedTuple):
    """What is signed of a message: the h= tag's names, their fields in relaxed form and order, the body's hash."""

    names: tuple[bytes, ...]
    fields: bytes
    body_hash: bytes


class _Known(NamedTuple):
    """A sender domain's record as last seen (None: not registered), and what it says (None: it cannot be read)."""

    record: bytes | None
    domain: Domain | None = None


class _Unsignable(Exception):
    """The header cannot be signed; the message says why."""


class Signatory(Protocol):
    """Has the keys; mta.delivery.signatory."""

    async def sign(self, wanted: Sequence[Wanted]) -> list[bytes]:
        """Make the signatures of one message; SigningError if one of them cannot be made."""


class Signer:
    """Signs messages with the keys of their sender domains."""

    def __init__(self, spool: Spool, signatory: Signatory, clock: Clock) -> None:
        self._spool = spool
        self._signatory = signatory
        self._clock = clock
        self._threads = asyncio.Semaphore(_THREADS)
        self._domains: dict[str, tuple[float, _Known]] = {}  # with when they were checked; oldest check first

    async def sign(self, message: Message, content: bytes) -> Signed:
        """Sign `content` for the message's sender domain with every key the domain has.

        Unsigned, with the reason in the note, when there is no key to sign with or the header is
        malformed. SigningError when there are keys but they cannot be had.
        """
        name = message.sign_domain
        if not name:
            return Signed(b"", "no sender domain")
        known = await self._known(name)
        if known.record is None:
            return Signed(b"", f"{name} is not registered")
        domain = known.domain
        if domain is None:
            raise SigningError("the record of the sender domain cannot be read")
        if domain.tenant != message.tenant:
            return Signed(b"", f"{name} belongs to another tenant")
        if not domain.selectors:
            return Signed(b"", f"no key for {name}")
        try:
            canonical = await self._canonical(content)
        except _Unsignable as reason:
            return Signed(b"", str(reason))
        header = await self._signatures(domain, canonical)
        return Signed(header, f"{name}:{','.join(each.name for each in domain.selectors)}")

    async def _canonical(self, content: bytes) -> Canonical:
        if len(content) <= _PIECE:
            return canonical_form(content)
        async with self._threads:
            return await asyncio.to_thread(canonical_form, content)

    async def _signatures(self, domain: Domain, canonical: Canonical) -> bytes:
        at = int(self._clock.now())
        unsigned = [signature_field(domain.name, each, at, canonical) for each in domain.selectors]
        # RFC 6376 3.7: the signature field itself comes last, with b= empty and without its line end
        digests = [hashlib.sha256(canonical.fields + _relaxed(field)).digest() for field in unsigned]
        wanted = [
            Wanted(domain.name, each.name, each.algorithm, each.sealed, digest)
            for each, digest in zip(domain.selectors, digests, strict=True)
        ]
        values = await self._signatory.sign(wanted)
        return b"".join([field + _folded(value) + b"\r\n" for field, value in zip(unsigned, values, strict=True)])

    async def _known(self, name: str) -> _Known:
        now = self._clock.monotonic()
        checked_at, known = self._domains.get(name, (now, None))
        if known is not None and now - checked_at < _CHECK_INTERVAL:
            return known
        try:
            record = await self._spool.get_record(domains.KIND, name)
        except (SpoolError, SealBroken) as error:
            raise SigningError(f"the record of {name} cannot be read") from error
        if known is None or known.record != record:
            known = _read(record)
        self._domains.pop(name, None)
        self._domains[name] = now, known
        if len(self._domains) > _DOMAINS_CACHED:
            del self._domains[next(iter(self._domains))]
        return known


def _read(record: bytes | None) -> _Known:
    if record is None:
        return _Known(None)
    try:
        domain = domains.decode(record)
        for each in domain.selectors:
            Algorithm(each.algorithm)
    except (msgspec.DecodeError, ValueError) as error:
        log.error("the record of a sender domain cannot be read: %s", error)
        return _Known(record)
    return _Known(record, domain)


def canonical_form(content: bytes) -> Canonical:
    """Bring a message into the form that is signed, the same for all keys; _Unsignable if that cannot be done."""
    length = headers.header_length(content)
    signed = _signed_fields(content[:length])
    names = (*[field.name for field in signed], *_OVERSIGNED)
    fields = b"".join([_relaxed(field.raw) + b"\r\n" for field in signed])
    return Canonical(names, fields, body_hash(content, length + 2))  # behind the empty line


def _signed_fields(header: bytes) -> list[headers.Field]:
    """Choose the fields to sign, those of one name from the bottom up (RFC 6376 5.4.2)."""
    if len(header) > HEADER_LIMIT:
        raise _Unsignable(f"header of more than {HEADER_LIMIT} octets")
    fields = list(headers.fields(header))
    if sum(len(field.raw) for field in fields) != len(header):  # lines that are no field: no two readers agree
        raise _Unsignable("malformed header")
    signed = [field for field in reversed(fields) if field.name in _SIGNED]
    if not any(field.name == b"from" for field in signed):  # RFC 6376 5.4: it must be signed
        raise _Unsignable("no From field")
    if len(signed) > SIGNED_FIELDS_LIMIT:
        raise _Unsignable(f"more than {SIGNED_FIELDS_LIMIT} header fields to sign")
    return signed


def _relaxed(field: bytes) -> bytes:
    """Bring a field into relaxed form, without its line end (RFC 6376 3.4.2)."""
    name, _, value = field.partition(b":")
    return b"%b:%b" % (name.rstrip(b" \t").lower(), _single_blanks(value.replace(b"\r\n", b"")).strip(b" "))


def body_hash(content: bytes, start: int) -> bytes:
    """Return the SHA-256 of the body from `start` in relaxed form (RFC 6376 3.4.4)."""
    digest = hashlib.sha256()
    line_ends = 0  # seen and not hashed yet: those at the very end count for one, or none without any text
    text_seen = False
    for piece in _pieces(content, start):
        lines = _single_blanks(piece).replace(b" \r\n", b"\r\n").removesuffix(b" ")
        text = _without_line_ends(lines)
        if text:
            digest.update(b"\r\n" * line_ends)
            digest.update(text)
            line_ends, text_seen = 0, True
        line_ends += (len(lines) - len(text)) // 2
    if text_seen:
        digest.update(b"\r\n")
    return digest.digest()


def _pieces(content: bytes, start: int) -> Iterator[bytes]:
    """Cut content behind line ends into pieces of at most _PIECE octets; a longer line is one piece."""
    while len(content) - start > _PIECE:
        cut = content.rfind(b"\r\n", start, start + _PIECE)
        if cut < 0:
            cut = content.find(b"\r\n", start + _PIECE - 1)
        if cut < 0:
            break
        yield content[start : cut + 2]
        start = cut + 2
    yield content[start:]


def _without_line_ends(lines: bytes) -> bytes:
    text = lines.rstrip(b"\r\n")
    tail = lines[len(text) :]
    # a tail of CR and LF has no blanks, so they can stand for its CRLFs: a bare CR or LF is text
    return text + tail.replace(b"\r\n", b" ").rstrip(b" ").replace(b" ", b"\r\n")


def _single_blanks(text: bytes) -> bytes:
    return _BLANKS.sub(b" ", text.replace(b"\t", b" "))


def signature_field(domain: str, selector: Selector, at: int, canonical: Canonical) -> bytes:
    """Write a DKIM-Signature field up to its empty b= tag (RFC 6376 3.5)."""
    algorithm = b"ed25519-sha256" if selector.algorithm == Algorithm.ED25519 else b"rsa-sha256"
    lines = (
        b"DKIM-Signature: v=1; a=%b; c=relaxed/relaxed; t=%d;" % (algorithm, at),
        b"d=%b;" % domain.encode("ascii"),
        b"s=%b;" % selector.name.encode("ascii"),
        b"h=" + b":\r\n\t".join([b":".join(group) for group in _groups(canonical.names)]) + b";",
        b"bh=%b;" % b64encode(canonical.body_hash),
        b"b=",
    )
    return b"\r\n\t".join(lines)


def _groups(names: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Divide names into lines; a single one may be longer."""
    first = width = 0
    for number, name in enumerate(names):
        if width + len(name) > _LINE and number > first:
            yield names[first:number]
            first, width = number, 0
        width += len(name) + 1
    yield names[first:]


def _folded(value: bytes) -> bytes:
    text = b64encode(value)
    return b"\r\n\t".join([text[start : start + _LINE] for start in range(0, len(text), _LINE)])
