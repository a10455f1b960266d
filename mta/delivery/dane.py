"""DANE for SMTP (RFC 7672): which TLSA records a host has, where its DNS is signed, and which of them can be used.

Whether a certificate matches them is for `certificates.py`, what follows for `policy.py`. A host whose TLSA records
cannot be had is not one without any: whoever can suppress an answer could else switch DANE off.
"""

import ipaddress
from collections.abc import Iterable

from mta.delivery.der import is_sequence
from mta.delivery.policy import Dane, DaneState, Tlsa
from mta.delivery.resolver import NoAnswer, Resolver

_USAGES = (2, 3)  # RFC 7672 3.1.3: PKIX-TA and PKIX-EE are of no use, for which authorities would be meant
_SELECTORS = (0, 1)
_DIGEST_SIZES = {1: 32, 2: 64}  # octets: SHA-256, SHA-512; the stronger has the higher number (RFC 7671 9)
_NO_DANE = Dane()


def usable(records: Iterable[Tlsa]) -> tuple[Tlsa, ...]:
    """Return the records that can match anything, in the strongest digests that there are (RFC 7671 9)."""
    known = [each for each in records if each.usage in _USAGES and each.selector in _SELECTORS and _whole(each)]
    strongest: dict[tuple[int, int], int] = {}
    for each in known:
        kind = each.usage, each.selector
        strongest[kind] = max(each.matching_type, strongest.get(kind, 0))
    # a key that is published as a whole counts beside any digest
    return tuple([each for each in known if each.matching_type in (0, strongest[each.usage, each.selector])])


def _whole(record: Tlsa) -> bool:
    """Tell whether what a record says has the form that its matching type wants (RFC 6698 2.1.3)."""
    if record.matching_type == 0:
        return is_sequence(record.data)
    return len(record.data) == _DIGEST_SIZES.get(record.matching_type)


async def dane_of(host: str, port: int, resolver: Resolver) -> Dane:
    """Look up the TLSA records of a host (in A-labels) for a port. Never raises.

    Whether the MX records that named the host were secure is for the caller to say: if not, there is no DANE
    (RFC 7672 2.2.1).
    """
    if not resolver.validating or _is_address(host):
        return _NO_DANE
    try:
        bases = await _bases(host, resolver)
    except NoAnswer:
        return Dane(DaneState.FAILED, text=f"the addresses of {host} cannot be had")
    for base in bases:
        try:
            answer = await resolver.tlsa(f"_{port}._tcp.{base}")
        except NoAnswer:
            return Dane(DaneState.FAILED, base=base, text=f"the TLSA records of {base} cannot be had")
        if answer.secure and answer.tlsa:
            records = usable(answer.tlsa)
            return Dane(DaneState.USABLE, records, base) if records else Dane(DaneState.UNUSABLE, answer.tlsa, base)
    return _NO_DANE


async def _bases(host: str, resolver: Resolver) -> Iterable[str]:
    """Return the names that TLSA records of a host may stand at, in order (RFC 7672 2.2.2). NoAnswer."""
    found = await resolver.addresses(host)
    if not found.addresses:
        return ()
    if found.secure:
        return dict.fromkeys((found.canonical or host, host))  # where CNAMEs lead to, and then where they began
    # who does not sign addresses is not asked for TLSA, at which some servers fail; but an alias may be signed that
    # leads to where nothing is
    if found.canonical and (await resolver.alias(host)).secure:
        return (host,)
    return ()


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
