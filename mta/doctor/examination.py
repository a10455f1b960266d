"""A domain examined: what receivers see of us as its sender, and what we see of it as a receiver. Never raises.

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
from mta.delivery.https import Https
from mta.delivery.resolver import Resolver
from mta.doctor import ourselves, policies, receiver, sender
from mta.doctor.findings import Finding, Section, ok
from mta.doctor.ourselves import Leaving
from mta.doctor.sender import Sender
from mta.spool.interface import Spool


class Patient(msgspec.Struct, frozen=True):
    """Who is examined: a domain (normal form), the registered one that signs for it, and where its mail leaves from."""

    domain: str
    registered: Domain | None
    leavings: tuple[Leaving, ...]


async def patient_of(domain: str, spool: Spool, config: Config, seen: Sequence[str]) -> Patient:
    """Find out what is on record of a domain. `seen` are addresses that receivers see instead of the machine's own."""
    registered = await domains.owner_of(spool, domain)
    sources: Sequence[str] | None = None
    if registered is not None and config.pools:
        pool = await pool_of(spool, registered.tenant) or DEFAULT_POOL
        sources = tuple(config.pools.get(pool, config.pools[DEFAULT_POOL]))
    return Patient(domain, registered, tuple(ourselves.leavings(config, sources, seen)))


async def examine(patient: Patient, config: Config, resolver: Resolver, clock: Clock) -> list[Section]:
    """Look at all there is."""
    host, as_sender, as_receiver = await asyncio.gather(
        _this_host(patient, config, resolver, clock),
        _as_sender(patient, resolver),
        _as_receiver(patient, config, resolver, clock),
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
    return await sender.findings(Sender(patient.domain, patient.registered, patient.leavings), resolver)


async def _as_receiver(patient: Patient, config: Config, resolver: Resolver, clock: Clock) -> list[Finding]:
    domain = patient.domain
    https = Https(resolver, config.delivery.ca_file, private=config.delivery.allow_private_targets)
    way, (sts, policy), tlsrpt = await asyncio.gather(
        receiver.way_of(domain, resolver, config),
        policies.of_sts(domain, resolver, https, config.sts, clock.now()),
        policies.of_tlsrpt(domain, resolver),
    )
    if not way.hosts:
        return list(way.findings)
    return [*way.findings, sts, *policies.of_hosts(policy, way), tlsrpt]
