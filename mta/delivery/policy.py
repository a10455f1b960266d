"""What a next hop has to show before mail goes over a session (decision 20). Pure.

`demand_of` says what a next hop has to meet, from what is known of it and what the message needs; `judge` holds a
session against that. Nobody else decides.
"""

from collections.abc import Iterator
from enum import Enum, IntEnum, StrEnum, auto
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from mta.delivery.route import TlsMode
from mta.delivery.trouble import Fault


class Level(IntEnum):
    """How well a session is protected, in order."""

    CLEAR = 0
    ENCRYPTED = 1  # TLS, and with whom is not known
    VERIFIED = 2  # TLS, and the certificate is the host's, by an authority or by TLSA


class Failure(StrEnum):
    """What was wrong with a session, or with a policy, in the words of RFC 8460 4.3."""

    STARTTLS_NOT_SUPPORTED = "starttls-not-supported"
    CERTIFICATE_HOST_MISMATCH = "certificate-host-mismatch"
    CERTIFICATE_EXPIRED = "certificate-expired"
    CERTIFICATE_NOT_TRUSTED = "certificate-not-trusted"
    VALIDATION_FAILURE = "validation-failure"  # whatever has no name of its own
    TLSA_INVALID = "tlsa-invalid"
    DNSSEC_INVALID = "dnssec-invalid"
    DANE_REQUIRED = "dane-required"
    STS_POLICY_FETCH_ERROR = "sts-policy-fetch-error"
    STS_POLICY_INVALID = "sts-policy-invalid"
    STS_WEBPKI_INVALID = "sts-webpki-invalid"


class Tlsa(msgspec.Struct, frozen=True):
    """A TLSA record (RFC 6698 2.1)."""

    usage: int
    selector: int
    matching_type: int
    data: bytes


class StsPolicy(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """A domain's MTA-STS policy (RFC 8461 3.2), and the id of the record that announced it."""

    version: int = 1
    domain: str
    id: str
    mode: str  # enforce, testing or none
    mx: tuple[str, ...]
    max_age: int
    fetched_at: float  # absolute seconds
    text: tuple[str, ...] = ()  # its lines, as reports quote them (RFC 8460 4.4, policy-string)


class Flaw(msgspec.Struct, frozen=True):
    """What is wrong with a session, a next hop or a policy, and the words for it."""

    failure: Failure
    text: str


class Refusal(msgspec.Struct, frozen=True):
    """Why a message does not go to a next hop: the flaw, which fault that is of an attempt, and who refuses."""

    flaw: Flaw
    fault: Fault
    by: str = ""


class DaneState(Enum):
    """What is known of a host's TLSA records (RFC 7672 2.1.1, 2.2)."""

    NONE = auto()  # it has none, or its DNS is not signed: no DANE
    USABLE = auto()  # one of them has to match
    UNUSABLE = auto()  # it has some, and none says anything to us: TLS is mandatory, and with whom is not known
    FAILED = auto()  # bogus, or no answer: the host must not be used


class Dane(msgspec.Struct, frozen=True):
    """TLSA records of a host; only usable ones, if any is. Without anything: there is no DANE.

    `base` is the name they stand at (the TLSA base domain), which goes into SNI (RFC 7672 8.1) and is one that a
    certificate may be for, beside the host and the domain that mail is for (RFC 7672 3.2.2). `text` says what failed,
    in words for a reply.
    """

    state: DaneState = DaneState.NONE
    records: tuple[Tlsa, ...] = ()
    base: str = ""
    text: str = ""


class Needs(msgspec.Struct, frozen=True):
    """What a message asks of each next hop: its tenant's least level, REQUIRETLS, or that policies be ignored."""

    least: Level = Level.CLEAR
    required: bool = False
    waived: bool = False  # TLS-Required: No


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a next hop before it is dialled.

    `secure`: DNSSEC proves that it is one of its domain. `listed`: its name is in the domain's MTA-STS policy.
    `remembered` is the best level that was seen of it.
    """

    host: str
    domain: str = ""
    mode: TlsMode = "opportunistic"
    routed: bool = False
    secure: bool = False
    sts: StsPolicy | None = None
    listed: bool = True
    dane: Dane = Dane()
    remembered: Level = Level.CLEAR


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """What a next hop has to meet.

    A certificate may be for any of `names`; the first is the one to ask for. With `tlsa` one of these has to match and
    no authority is asked. `by` says who wants it whatever the message is, as events do; `words` who wants the most, as
    replies do: with `own` the message alone. One whose `required` demand nobody meets fails, and is not tried again.
    """

    least: Level = Level.CLEAR
    names: tuple[str, ...]
    tlsa: tuple[Tlsa, ...] = ()
    by: str = ""
    words: str = ""
    own: bool = False
    required: bool = False


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """What a session showed: its version of TLS ("" in the clear), and what is wrong with its certificate.

    `old`: it came of a hello that takes whatever there is, and that nobody who asks for TLS would say.
    `by_authority` None: an authority gave it for the next hop's name; `by_tlsa` None: it matches a TLSA record, if the
    demand has any.
    """

    version: str = ""
    old: bool = False
    by_authority: Flaw | None = None
    by_tlsa: Flaw | None = None


class _Wish(NamedTuple):
    least: Level
    by: str  # "" for the message's own
    words: str


_OLD = frozenset({"SSLv3", "TLSv1", "TLSv1.1"})
_ROUTED = {"require": Level.ENCRYPTED, "verify": Level.VERIFIED, "implicit": Level.VERIFIED}


def demand_of(known: Known, needs: Needs) -> Demand | Refusal:
    """Say what a next hop has to meet for a message, or why it does not go there whatever is shown."""
    refusal = _refusal(known, needs)
    if refusal is not None:
        return refusal
    wishes = list(_wishes(known, needs))
    least = max((wish.least for wish in wishes), default=Level.CLEAR)
    # a route that says what it wants is taken at its word
    if known.remembered > least and known.mode == "opportunistic" and not needs.waived:
        least = known.remembered
        wishes.append(_Wish(least, "memory", f"TLS as {known.host} had it before"))
    tlsa = known.dane.records if _by_dane(known, needs) else ()
    # RFC 7672 3.2.2: the TLSA base domain, and the names that securely led to it
    names = (known.dane.base, known.host, known.domain) if tlsa else (known.host,)
    return Demand(
        least=least,
        names=tuple(dict.fromkeys(each for each in names if each)),
        tlsa=tlsa,
        by=", ".join(wish.by for wish in wishes if wish.by),
        words=", ".join(wish.words for wish in wishes if wish.least is least),
        own=least is not Level.CLEAR and not any(wish.by for wish in wishes if wish.least is least),
        required=needs.required,
    )


def _refusal(known: Known, needs: Needs) -> Refusal | None:
    if _asks_dane(known, needs) and known.dane.state is DaneState.FAILED:
        # RFC 7672 2.1.3: as good as a host that is down, whatever else its domain says
        return Refusal(Flaw(Failure.DNSSEC_INVALID, f"DANE: {known.dane.text}"), Fault.FORBIDDEN, "dane")
    if needs.waived or known.routed or _by_dane(known, needs):
        return None
    flaw = _unlisted(known)
    if flaw is not None and known.sts is not None and known.sts.mode == "enforce":
        return Refusal(flaw, Fault.NEEDS_TLS if needs.required else Fault.FORBIDDEN, "sts enforce")
    if needs.required and not proven(known):
        text = f"REQUIRETLS: nothing proves that {known.host} is a next hop of {known.domain}"
        return Refusal(Flaw(Failure.VALIDATION_FAILURE, text), Fault.NEEDS_TLS)
    return None


def proven(known: Known) -> bool:
    """Tell whether more than the DNS names a host as a next hop: a route, DNSSEC, or MTA-STS (RFC 8689 4.2.1)."""
    return known.routed or known.secure or (known.sts is not None and known.listed)


def _unlisted(known: Known) -> Flaw | None:
    if known.sts is None or known.listed:
        return None
    text = f"{_sts_words(known.sts)}: {known.host} is none of its MX hosts"
    return Flaw(Failure.VALIDATION_FAILURE, text)


def _sts_words(policy: StsPolicy) -> str:
    return f"MTA-STS policy of {policy.domain}"


def _asks_dane(known: Known, needs: Needs) -> bool:
    """Tell whether TLSA records have a say: not where anybody may have named the host (RFC 7672 2.2.1)."""
    return known.secure and not known.routed and not needs.waived


def _by_dane(known: Known, needs: Needs) -> bool:
    return _asks_dane(known, needs) and known.dane.state is DaneState.USABLE


def _wishes(known: Known, needs: Needs) -> Iterator[_Wish]:
    """List who wants more than nothing. With usable TLSA records these alone judge (RFC 8461 2)."""
    if known.mode in _ROUTED:
        yield _Wish(_ROUTED[known.mode], f"route {known.mode}", "its route")
    if _by_dane(known, needs):
        yield _Wish(Level.VERIFIED, "dane", "DANE")
    elif _asks_dane(known, needs) and known.dane.state is DaneState.UNUSABLE:
        yield _Wish(Level.ENCRYPTED, "dane", "DANE")  # RFC 7672 2.2: TLS, with whoever it is
    enforced = known.sts is not None and known.sts.mode == "enforce"
    if known.sts is not None and enforced and not (needs.waived or known.routed or _by_dane(known, needs)):
        yield _Wish(Level.VERIFIED, "sts enforce", _sts_words(known.sts))
    if needs.required:
        yield _Wish(Level.VERIFIED, "", "REQUIRETLS")
    if needs.least:
        yield _Wish(needs.least, "", "the sender's tenant")


def level_of(demand: Demand, shown: Shown) -> Level:
    """Say how well a session is protected."""
    if not shown.version:
        return Level.CLEAR
    flaw = shown.by_tlsa if demand.tlsa else shown.by_authority
    # RFC 8996: what is old can be broken, and proves nothing
    return Level.VERIFIED if flaw is None and not _is_old(shown) else Level.ENCRYPTED


def dependable(demand: Demand, shown: Shown) -> Level:
    """Say which level of a session other messages may count on: of old TLS none, for who asks for TLS asks for 1.2."""
    return Level.CLEAR if _is_old(shown) else level_of(demand, shown)


def memorable(demand: Demand, shown: Shown, *, pinned: bool) -> Level:
    """Say which level of a session is to be remembered: what the host can be asked for again, whoever asks.

    Of old TLS nothing, for that would not do. By TLSA or by a `pinned` authority a host is verified for nobody else.
    """
    level = dependable(demand, shown)
    return min(level, Level.ENCRYPTED) if demand.tlsa or pinned else level


def _is_old(shown: Shown) -> bool:
    return shown.old or shown.version in _OLD


def judge(demand: Demand, shown: Shown) -> Refusal | None:
    """Hold a session against a demand; None if it meets it."""
    flaw = _flaw(demand, shown)
    if flaw is None:
        return None
    if demand.required:
        fault = Fault.NEEDS_TLS
    elif demand.own:
        fault = Fault.NEEDS_LEVEL
    elif demand.tlsa and flaw.failure is Failure.CERTIFICATE_HOST_MISMATCH:
        fault = Fault.MISNAMED  # RFC 7672 3.2.2: each domain with these hosts may have one for its own name
    else:
        fault = Fault.UNENCRYPTED if flaw.failure is Failure.STARTTLS_NOT_SUPPORTED else Fault.UNVERIFIED
    return Refusal(Flaw(flaw.failure, f"{demand.words}: {flaw.text}"), fault)


def _flaw(demand: Demand, shown: Shown) -> Flaw | None:
    if demand.least is Level.CLEAR:
        return None
    if not shown.version:
        return Flaw(Failure.STARTTLS_NOT_SUPPORTED, f"{demand.names[0]} does not offer STARTTLS")
    if shown.version in _OLD:  # RFC 8461 2 and RFC 8996: TLS 1.2 at least
        return Flaw(Failure.VALIDATION_FAILURE, f"{shown.version} of {demand.names[0]} is older than TLS 1.2")
    if demand.least is Level.ENCRYPTED:
        return None
    return shown.by_tlsa if demand.tlsa else shown.by_authority


def rehearse(known: Known, demand: Demand, shown: Shown) -> Flaw | None:
    """Say what is wrong with a session that will do, for the report.

    An MTA-STS policy in testing mode would have refused it (RFC 8461 5.1); or there is no policy, and it is in the
    clear (RFC 8460 4.2): so a domain learns that somebody strips TLS before it asks for any.
    """
    if known.sts is None and not demand.tlsa and not shown.version:
        return Flaw(Failure.STARTTLS_NOT_SUPPORTED, f"{known.host} does not offer STARTTLS")
    if known.sts is None or known.sts.mode != "testing" or demand.tlsa:
        return None
    words = _sts_words(known.sts)
    refusal = judge(Demand(least=Level.VERIFIED, names=(known.host,), words=words), shown)
    return _unlisted(known) or (refusal.flaw if refusal is not None else None)


def told(by: str, needs: Needs, sts: StsPolicy | None) -> str:
    """Say in an event who asked for what: who demanded it, the message, and a policy that only tests."""
    said = [by] if by else []
    if sts is not None and sts.mode == "testing" and "dane" not in by.split(", ") and not needs.waived:
        said.append("sts testing")
    if needs.required:
        said.append("requiretls")
    if needs.least:
        said.append(f"tenant {needs.least.name.lower()}")
    return ", ".join(said)


def sts_class(policy: StsPolicy | None) -> str:
    """Name what an enforced policy asks of hosts, the same for all domains that ask the same; "" for no such policy."""
    if policy is None or policy.mode != "enforce":
        return ""
    patterns = "\n".join(sorted({each.lower() for each in policy.mx}))
    # nobody finds patterns with another's digest, by which their domain would share another's connections
    return blake2b(patterns.encode(), digest_size=16).hexdigest()
