"""Attempts in a small internet of loopback sockets: DNS, policy hosts, MX hosts; each cell is a domain of its own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from mta.clock import SystemClock
from mta.config import Config
from mta.delivery.attempt import Attempter
from mta.delivery.plans import Plans
from mta.delivery.policy import StsPolicy
from mta.delivery.protection import Protection
from mta.delivery.resolver import Resolver
from mta.delivery.sources import Sources
from mta.delivery.sts_policies import KIND, Kept, StsPolicies
from mta.delivery.tlsrpt import TlsResults
from mta.lab.ca import PrivateCa
from mta.lab.dns import DnsServer, Failure, Zone
from mta.lab.policy_host import DEAF_HOST, HOST, Hosting, PolicyHost
from mta.mail.result import Outcome, Verdict
from mta.queue.limits import Limits
from mta.queue.shaping import Shaping
from tests.downgrade.receivers import Receivers
from tests.downgrade.rules import Cache, Cell, Dane, End, Https, Mode, Mx, Tls, Tlsa, Txt
from tests.interop.processes import free_ports
from tests.simulation.memory import MemorySpool, Stored
from tests.unit.delivery.peers import Contents, NoKeys, job

TIMEOUT = 3.0  # seconds that a policy host has; all that is here shares one loop
_AT_ONCE = 50
_MAX_AGE = 86400
_HOSTING = {
    Https.OK: Hosting.GOOD,
    Https.MISSING: Hosting.ABSENT,
    Https.REDIRECT: Hosting.REDIRECT,
    Https.SELF_SIGNED: Hosting.SELF_SIGNED,
    Https.WRONG_HOST: Hosting.WRONG_HOST,
    Https.EXPIRED: Hosting.EXPIRED,
    Https.TOO_LONG: Hosting.TOO_BIG,
    Https.WRONG_TYPE: Hosting.WRONG_TYPE,
    Https.SLOW: Hosting.SLOW,
    Https.REFUSED: Hosting.DEAF,
}
_OLD, _NEW = "20260101", "20260202"  # ids of policies


class Met(msgspec.Struct, frozen=True):
    """What came of a cell: by the attempt's own words, and over what mail came to the MX host ("" in the clear)."""

    end: End
    outcome: Outcome
    came: str | None


class World:
    """Where cells are met."""

    def __init__(self, config: Config, zone: Zone, policies: PolicyHost, receivers: Receivers) -> None:
        clock = SystemClock()
        self._zone = zone
        self._policy_host = policies
        self._receivers = receivers
        self._now = clock.now()
        self._spool = MemorySpool(Stored(), clock.now)
        self._resolver = Resolver(config.dns, clock)
        self._policies = StsPolicies(config, self._resolver, self._spool, clock)
        protection = Protection(config, self._resolver, self._spool, clock, TlsResults(self._spool, clock))
        plans = Plans(config, self._resolver, self._policies, clock)
        sources = Sources(config, self._spool, clock)
        limits = Limits(Shaping(), config.delivery.connections_per_site)
        self._attempter = Attempter(config, plans, protection, NoKeys(), Contents(), sources, clock, limits)
        self._port = config.delivery.port
        self._signed: set[str] = set()
        self._met = 0
        self._room = asyncio.Semaphore(_AT_ONCE)

    async def close(self) -> None:
        await self._attempter.close()
        await self._policies.close()
        await self._resolver.close()

    async def meet(self, cell: Cell | Dane) -> Met:
        """Make one attempt for a domain of which all is as the cell says."""
        self._met += 1
        domain = f"c{self._met}.test"
        unsigned = isinstance(cell, Dane) and cell.tlsa is Tlsa.UNSIGNED
        home = f"hosts-of-{domain}" if unsigned else domain  # where its MX hosts are
        async with self._room:
            host = self._publish_mx(domain, home, cell.mx, cell.tls)
            patterns = _patterns(home, host, cell.mx)
            if isinstance(cell, Cell):
                await self._publish_policy(domain, patterns, cell)
            else:
                await self._sign(domain, host, patterns, cell)
            outcome = await self._attempter.attempt(job(domain=domain))
        came = self._receivers.came.get(f"r@{domain}")
        return Met(_end(outcome), outcome, came)

    def _publish_mx(self, domain: str, home: str, mx: Mx, tls: Tls) -> str:
        host = f"a.mx.{home}" if mx is Mx.TWO_LABELS else f"mx.{home}"
        self._zone.set(domain, "MX", f"10 {host}.")
        named = host
        if mx is Mx.ALIAS:
            named = f"real.{home}"
            self._zone.set(host, "CNAME", f"{named}.")
        self._zone.set(named, "A", self._receivers.address(tls))
        return host

    async def _publish_policy(self, domain: str, patterns: tuple[str, ...], cell: Cell) -> None:
        if cell.cache is not Cache.NONE:
            age = 1 if cell.cache is Cache.VALID else _MAX_AGE + 1
            await self._remember(domain, patterns, cell.mode, self._now - age)
        record, said = f"_mta-sts.{domain}", {Txt.SAME: _OLD, Txt.NEW: _NEW}.get(cell.txt)
        if said:
            self._zone.set_txt(record, f"v=STSv1; id={said};")
        elif cell.txt is Txt.TWO:
            self._zone.set_txt(record, f"v=STSv1; id={_OLD};", f"v=STSv1; id={_NEW};")
        elif cell.txt is Txt.MALFORMED:
            self._zone.set_txt(record, f"v=STSv1; id={_NEW}!;")
        elif cell.txt is Txt.SERVFAIL:
            self._zone.fail(record, Failure.SERVFAIL)
        self._zone.set(f"mta-sts.{domain}", "A", DEAF_HOST if cell.https is Https.REFUSED else HOST)
        lines = ["version: STSv1", f"mode: {cell.mode}", *[f"mx: {each}" for each in patterns], f"max_age: {_MAX_AGE}"]
        self._policy_host.put(domain, "\r\n".join([*lines, ""]), _HOSTING[cell.https])

    async def _remember(self, domain: str, patterns: tuple[str, ...], mode: Mode, fetched_at: float) -> None:
        policy = StsPolicy(
            domain=domain, id=_OLD, mode=mode.value, mx=patterns, max_age=_MAX_AGE, fetched_at=fetched_at
        )
        kept = msgspec.msgpack.encode(Kept(policy=policy, used_at=fetched_at))
        await self._spool.put_record(KIND, domain, kept, replace=True)

    async def _sign(self, domain: str, host: str, patterns: tuple[str, ...], cell: Dane) -> None:
        if cell.sts:
            await self._remember(domain, patterns, Mode.ENFORCE, self._now - 1)
        named = host.replace("mx.", "real.", 1) if cell.mx is Mx.ALIAS else host  # the TLSA base domain, RFC 7672 2.2.2
        record = f"_{self._port}._tcp.{named}"
        if cell.tlsa is Tlsa.SERVFAIL:
            self._zone.fail(record, Failure.SERVFAIL)
        elif cell.tlsa is not Tlsa.NONE:
            self._zone.set(record, "TLSA", *self._records(named, cell))
        if cell.signed_mx:
            self._signed.add(domain)
        if cell.tlsa is not Tlsa.UNSIGNED:
            self._signed.add(named)
            self._signed.add(host)
        self._zone.secure(*self._signed)

    def _records(self, named: str, cell: Dane) -> list[str]:
        if cell.tlsa is Tlsa.UNUSABLE:
            return ["0 0 1 " + "ab" * 32, "3 1 1 abcd", "3 7 1 " + "ab" * 32]
        return ["3 1 1 " + ("cd" * 32 if cell.tlsa is Tlsa.OTHER else self._receivers.key_digest(named, cell.tls))]


def _patterns(home: str, host: str, mx: Mx) -> tuple[str, ...]:
    if mx in (Mx.WILDCARD, Mx.TWO_LABELS):
        return (f"*.{home}",)
    return (f"other.{home}",) if mx is Mx.UNLISTED else (host,)


def _end(outcome: Outcome) -> End:
    result = outcome.results[0]
    if result.verdict is not Verdict.DELIVERED:
        return End.DEFERRED
    if not outcome.tls:
        return End.CLEAR
    return End.ENCRYPTED if outcome.tls.endswith(":unverified") else End.VERIFIED


@asynccontextmanager
async def world(directory: Path) -> AsyncIterator[World]:
    """Start everything in a directory; stop it."""
    clock = SystemClock()
    ca = PrivateCa(directory / "tls")
    zone = Zone()
    dns, policies, receivers = DnsServer(zone), PolicyHost(ca, clock), Receivers(ca)
    (port,) = free_ports(1)
    await dns.start()
    await policies.start()
    await receivers.start(port)
    config = Config.model_validate(
        {
            "hostname": "relay.test",
            "dns": {"servers": [str(dns.address)], "timeout": 5.0},
            "sts": {"port": policies.address.port, "timeout": TIMEOUT},
            "delivery": {
                "port": port,
                "allow_private_targets": True,
                "ca_file": str(ca.ca_file),
                "connections_per_site": 1000,
                "command_timeout": 5.0,
                "greeting_timeout": 5.0,
            },
        }
    )
    found = World(config, zone, policies, receivers)
    try:
        yield found
    finally:
        await found.close()
        await receivers.close()
        await policies.close()
        await dns.close()
