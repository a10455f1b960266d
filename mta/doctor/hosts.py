"""What a delivery would demand of the hosts of a domain, and what it would find there (decision 20).

The decision is that of deliveries: `demand_of` and `judge`. Single messages and tenants can want more.
"""

import asyncio
from collections.abc import Mapping, Sequence

import msgspec
from cryptography import x509

from mta.delivery import certificates, sts
from mta.delivery.certificates import Roots
from mta.delivery.dane import dane_of
from mta.delivery.policy import (
    Dane,
    DaneState,
    Demand,
    Known,
    Level,
    Needs,
    Refusal,
    Shown,
    StsPolicy,
    demand_of,
    judge,
    level_of,
    rehearse,
)
from mta.delivery.resolver import Resolver
from mta.delivery.route import Target
from mta.doctor.findings import Finding, ok, problem, shown, warning
from mta.doctor.ourselves import SOON, Leaving
from mta.doctor.probe import Seen, look
from mta.doctor.receiver import Host, Way

PROBED = 5  # hosts that are connected to
_TELL = "tell whoever runs the domain"
_DAY = 86_400.0
_NO_DANE = Dane()
_NO_NEEDS = Needs()


class Expected(msgspec.Struct, frozen=True):
    """A host, what is known of it, and what a delivery demands of it, or why it does not go there."""

    host: Host
    known: Known
    demand: Demand | Refusal


async def expected_of(
    domain: str,
    way: Way,
    policy: StsPolicy | None,
    remembered: Mapping[str, Level],
    resolver: Resolver,
    needs: Needs = _NO_NEEDS,
) -> list[Expected]:
    """Find out what deliveries to a domain demand of each of its hosts; `remembered` are levels by `host:port`.

    `needs` are those of a message, beside what the domain and the host are held to.
    """
    site = way.site
    if site is None:
        return []
    asked = way.secure and not site.routed
    danes = await asyncio.gather(*(_dane(host, resolver, asked=asked) for host in way.hosts))
    applies = None if site.routed or policy is None or policy.mode == "none" else policy
    found = []
    for host, dane in zip(way.hosts, danes, strict=True):
        name = host.hop.host
        known = Known(
            host=name,
            domain=domain,
            mode=site.tls,
            routed=site.routed,
            secure=way.secure,
            sts=applies,
            listed=applies is None or sts.matches(applies, name),
            dane=dane,
            remembered=remembered.get(f"{name}:{host.hop.port}", Level.CLEAR),
        )
        found.append(Expected(host, known, demand_of(known, needs)))
    return found


async def _dane(host: Host, resolver: Resolver, *, asked: bool) -> Dane:
    return await dane_of(host.hop.host, host.hop.port, resolver) if asked else _NO_DANE


def of_expected(expected: Expected) -> list[Finding]:
    """Tell what a host has to show, and what of the policies for it is not as it should be."""
    about = shown(expected.host.hop.host)
    known, demand = expected.known, expected.demand
    found = []
    if known.dane.state is DaneState.UNUSABLE:
        found.append(warning(f"{about} tlsa", "there are records, and none can be used: TLS with anybody", _TELL))
    elif known.dane.state is DaneState.USABLE:
        found.append(ok(f"{about} tlsa", f"{len(known.dane.records)} usable"))
    if isinstance(demand, Refusal):
        said = f"nothing goes to it: {shown(demand.flaw.text)} ({demand.flaw.failure})"
        found.append(problem(f"{about} policy", said, _TELL))
    else:
        found.append(ok(f"{about} policy", _WANTED[demand.least].format(demand.words)))
    return found


_WANTED = {
    Level.CLEAR: "asks for nothing: TLS if it can be, in the clear if not",
    Level.ENCRYPTED: "TLS, with whoever it is: {}",
    Level.VERIFIED: "TLS with a certificate that is proved to be the host's: {}",
}


async def of_probes(
    expected: Sequence[Expected], leavings: Sequence[Leaving], hostname: str, roots: Roots, now: float
) -> list[Finding]:
    """Connect to the first hosts, one address of each family, and judge what they show."""
    targets = [(each, target) for each in expected[:PROBED] for target in _targets(each.host)]
    looks = [_probe(each, target, leavings, hostname, roots, now) for each, target in targets]
    return [finding for found in await asyncio.gather(*looks) for finding in found]


def _targets(host: Host) -> list[Target]:
    firsts = {":" in address: address for address in reversed(host.addresses)}
    return [Target(host.hop.host, address, host.hop.port) for address in firsts.values()]


async def _probe(
    expected: Expected, target: Target, leavings: Sequence[Leaving], hostname: str, roots: Roots, now: float
) -> list[Finding]:
    leaving = next(
        (each for each in leavings if each.source and (":" in each.address) is (":" in target.address)), None
    )
    demand = expected.demand
    sni = demand.names[0] if isinstance(demand, Demand) else target.host
    name, source = (leaving.hostname, leaving.address) if leaving is not None else (hostname, "")
    seen = await look(target, name, source=source, sni=sni, implicit=expected.known.mode == "implicit")
    return of_seen(expected, target, seen, roots, now)


def of_seen(expected: Expected, target: Target, seen: Seen, roots: Roots, now: float) -> list[Finding]:
    """Judge what an address of a host showed, by what a delivery demands."""
    about = f"{shown(target.host)} {target.address}"
    if not seen.greeting:
        return [problem(about, shown(seen.trouble), "if it is so for all hosts: does something block port 25 here?")]
    demand = expected.demand
    if seen.trouble:
        unasked = isinstance(demand, Demand) and demand.least is Level.CLEAR
        if unasked and seen.starttls and not seen.tls:
            return [warning(about, f"{shown(seen.trouble)}: mail may go in the clear", _TELL)]
        return [problem(about, shown(seen.trouble), _TELL)]
    if isinstance(demand, Refusal):
        return [ok(about, f"answers: {shown(seen.greeting)}")]
    chain = seen.chain
    session = Shown(
        version=seen.tls,
        by_authority=certificates.by_authority(chain, target.host, roots, now) if seen.tls else None,
        by_tlsa=certificates.by_tlsa(chain, demand.tlsa, demand.names, now) if seen.tls and demand.tlsa else None,
    )
    found = [_judged(about, expected, demand, session), *_dates(about, chain, now)]
    return [*found, ok(f"{about} REQUIRETLS", "offered")] if seen.requiretls else found


def _judged(about: str, expected: Expected, demand: Demand, session: Shown) -> Finding:
    refusal = judge(demand, session)
    if refusal is not None:
        said = f"nothing is delivered: {shown(refusal.flaw.text)} ({refusal.flaw.failure})"
        forget = f"; if it has really gone back: fairlead tls forget {shown(expected.known.host)}"
        return problem(about, said, _TELL + (forget if demand.by == "memory" else ""))
    level = level_of(demand, session)
    if level is Level.CLEAR:
        return warning(about, "no STARTTLS: mail goes in the clear", _TELL)
    testing = rehearse(expected.known, demand, session)
    if testing is not None:
        said = f"{session.version}; its policy in testing mode would refuse it: {shown(testing.text)}"
        return warning(about, f"{said} ({testing.failure})", _TELL)
    if level is Level.VERIFIED:
        return ok(about, f"{session.version}, {'matches its TLSA records' if demand.tlsa else 'certificate verified'}")
    why = f": {shown(session.by_authority.text)}" if session.by_authority is not None else ""
    return ok(about, f"{session.version}, with whom is not known{why}")


def _dates(about: str, chain: Sequence[bytes], now: float) -> list[Finding]:
    """Judge how long a certificate is still good for."""
    try:
        ends = x509.load_der_x509_certificate(chain[0]).not_valid_after_utc
    except (IndexError, ValueError, OverflowError, x509.InvalidVersion):  # which is no ValueError
        return []
    days = (ends.timestamp() - now) / _DAY
    if 0 < days < SOON:
        said = f"expires on {ends:%Y-%m-%d}, in {days:.0f} days"
        return [warning(f"{about} certificate", said, f"{_TELL}, if it is not renewed by then")]
    return []
