"""A domain examined: what receivers see of us as its sender, and what we see of it as a receiver.

The parts ask side by side; each is bounded by itself, in look-ups and in time.
"""

import asyncio
from collections.abc import Sequence

import msgspec

from mta.accounts import domains
from mta.accounts.domains import Domain
from mta.accounts.tenants import pool_of
from mta.clock import Clock
from mta.config import DEFAULT_POOL, Config
from mta.delivery.certificates import Roots
from mta.delivery.https import Https
from mta.delivery.policy import Level
from mta.delivery.remembered import stored
from mta.delivery.resolver import Resolver
from mta.doctor import hosts, ourselves, policies, receiver, sender
from mta.doctor.findings import Finding, Section, ok
from mta.doctor.ourselves import Leaving
from mta.doctor.sender import Sender
from mta.spool.interface import Spool


class Patient(msgspec.Struct, frozen=True):
    """Who is examined: a domain (normal form), the registered one that signs for it, and where its mail leaves from.

    `remembered` are the best levels that delivery has seen of hosts, by `host:port`.
    """

    domain: str
    registered: Domain | None
    leavings: tuple[Leaving, ...]
    remembered: dict[str, Level]


async def patient_of(domain: str, spool: Spool, config: Config, seen: Sequence[str], now: float) -> Patient:
    """Find out what is on record of a domain. `seen` are addresses that receivers see instead of the machine's own."""
    registered = await domains.owner_of(spool, domain)
    sources: Sequence[str] | None = None
    if registered is not None and config.pools:
        pool = await pool_of(spool, registered.tenant) or DEFAULT_POOL
        sources = tuple(config.pools.get(pool, config.pools[DEFAULT_POOL]))
    oldest = now - config.delivery.tls_memory
    remembered = {each.name: each.level for each in await stored(spool) if each.seen_at > oldest}
    return Patient(domain, registered, tuple(ourselves.leavings(config, sources, seen)), remembered)


async def examine(
    patient: Patient, config: Config, resolver: Resolver, clock: Clock, *, connect: bool
) -> list[Section]:
    """Look at all there is; `connect`: at what its hosts show, too. OSError if delivery.ca_file cannot be used."""
    host, as_sender, as_receiver = await asyncio.gather(
        _this_host(patient, config, resolver, clock),
        _as_sender(patient, resolver),
        _as_receiver(patient, config, resolver, clock, connect=connect),
    )
    return [
        Section("this relay, as receivers see it", tuple(host)),
        Section(f"{patient.domain} as a sender", tuple(as_sender)),
        Section(f"{patient.domain} as a receiver", tuple(as_receiver)),
    ]


async def _this_host(patient: Patient, config: Config, resolver: Resolver, clock: Clock) -> list[Finding]:
    parts = await asyncio.gather(*(ourselves.of_address(each, resolver) for each in patient.leavings))
    found = [each for part in parts for each in part]
    return [*found, ourselves.certificate(config.tls, config.hostname, clock.now())]


async def _as_sender(patient: Patient, resolver: Resolver) -> list[Finding]:
    if patient.registered is None:
        return [ok("sender", "not a sender domain here (fairlead domains add): nobody's mail is signed for it")]
    seen = tuple(each for each in patient.leavings if each.seen)
    return await sender.findings(Sender(patient.domain, patient.registered, seen), resolver)


async def _as_receiver(
    patient: Patient, config: Config, resolver: Resolver, clock: Clock, *, connect: bool
) -> list[Finding]:
    domain = patient.domain
    https = Https(resolver, config.delivery.ca_file, private=config.delivery.allow_private_targets)
    way, (sts, policy), tlsrpt = await asyncio.gather(
        receiver.way_of(domain, resolver, config),
        policies.of_sts(domain, resolver, https, config.sts, clock.now()),
        policies.of_tlsrpt(domain, resolver),
    )
    if not way.hosts:
        return list(way.findings)
    found = [*way.findings, sts, *policies.of_hosts(policy, way), tlsrpt]
    expected = await hosts.expected_of(domain, way, policy, patient.remembered, resolver)
    found += [finding for each in expected for finding in hosts.of_expected(each)]
    if connect:
        pinned = way.site.ca_file if way.site is not None else None
        roots = Roots(pinned, only=True) if pinned is not None else Roots(config.delivery.ca_file)
        found += await hosts.of_probes(expected, patient.leavings, config.hostname, roots, clock.now())
    return found
