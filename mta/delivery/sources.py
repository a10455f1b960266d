"""The configured sources: which one an attempt leaves from, where each is parked, what its warm-up has counted.

`choose` decides in one turn of the loop (mta.delivery.source) and counts at once; `secure` has to be awaited before
anybody is dialled, and `ended` follows exactly once. What is counted for a warm-up is on disk before it is used, a few
ahead: a crash costs some of the day's cap and never adds to it.
"""

import errno
import logging
import socket
from collections.abc import Callable, Collection, Iterator

import msgspec

from mta.accounts.tenants import pool_of
from mta.clock import Clock
from mta.config import DEFAULT_POOL, Config
from mta.delivery import source_records
from mta.delivery.source import DAY, OPEN, OTHER, Source, Standing, Wait, Want, WarmUp, begin, choose, standing
from mta.delivery.source_records import Counted, Parked
from mta.queue.shares import Shares
from mta.spool.interface import Spool, SpoolError

log = logging.getLogger(__name__)

PROVIDERS = 200  # that a source's warm-up counts one by one in a day
POOLS_INTERVAL = 10.0  # seconds after which another pool of a tenant is known
BROKEN = 60.0  # seconds for which an address that could not be used is left alone
_AHEAD = 25  # a write to disk for this part of a day's cap
_TURNS = 4096  # pools at providers whose turns are remembered
_DAY_0 = 719_163  # 1970-01-01, as datetime counts


class Choice(msgspec.Struct, frozen=True):
    """The source of an attempt, and how many recipients its warm-up counts under which provider and day; 0: none."""

    source: Source
    provider: str = ""
    recipients: int = 0
    day: int = 0


class _Tally:
    """What the warm-up of a source has counted on a day: recipients by provider."""

    def __init__(self, day: int, counted: dict[str, int]) -> None:
        self.day = day
        self.taken = dict(counted)
        self.ahead = dict(counted)  # that is on its way to disk
        self.on_disk = dict(counted)

    def provider(self, name: str) -> str:
        """Return under which name a provider is counted."""
        return name if name in self.taken or len(self.taken) < PROVIDERS else OTHER


class WarmUpRow(msgspec.Struct, frozen=True):
    """How far a warm-up is: its day (from 1; less: not begun) of so many, today's cap, and what is counted of it."""

    day: int
    days: int
    cap: int
    today: dict[str, int]


class ParkedRow(msgspec.Struct, frozen=True):
    """For whom a source is parked, until when and why."""

    provider: str
    ends_at: float
    reason: str


class SourceRow(msgspec.Struct, frozen=True, kw_only=True):
    """A source as operators see it. `pools` has its weight in each; no `warm_up`: it is warm."""

    source: str
    addresses: tuple[str, ...]
    hostname: str
    pools: dict[str, int]
    warm_up: WarmUpRow | None
    parked: tuple[ParkedRow, ...]
    trouble: str


def _anywhere(_: str) -> bool:
    return True


class Sources:
    """All sources and pools of the delivery role. Without configured ones there is one, which costs nothing."""

    def __init__(self, config: Config, spool: Spool, clock: Clock) -> None:
        self._spool = spool
        self._clock = clock
        self._only = None if config.sources else Choice(Source("", config.hostname))
        self._sources = {each.name: each for each in _sources(config)}
        self._pools = config.pools or {DEFAULT_POOL: dict.fromkeys(self._sources, 1)}
        self._pool_of: dict[str, tuple[float, str]] = {}  # by tenant: until when (monotonic)
        self._turns: dict[tuple[str, str], Shares[str]] = {}  # by pool and provider
        self._parked: dict[tuple[str, str], Parked] = {}  # by source and provider
        self._to_keep: dict[tuple[str, str], Parked] = {}  # of these, what is not on disk yet
        self._tallies: dict[str, _Tally] = {}
        self._unable: dict[tuple[str, str], float] = {}  # by source and site: until when (monotonic)
        self._broken: dict[str, tuple[float, str]] = {}  # by address: until when (monotonic), and why

    async def start(self) -> None:
        """Take over what was kept, and say which addresses this machine does not have."""
        await self.recall()
        for source in self._sources.values():
            for address in source.addresses:
                if trouble_of(address):
                    self.broken(source, address)

    async def recall(self) -> None:
        """Take over what was kept."""
        await self.reread()
        for counted in await source_records.counts(self._spool):
            self._tallies[counted.source] = _Tally(counted.day, counted.recipients)

    async def reread(self) -> None:
        """Read again where sources are parked: somebody has changed it."""
        found = await source_records.parked_now(self._spool, self._clock.now())
        self._parked = {(each.source, each.provider): each for each in found} | self._to_keep

    @property
    def only(self) -> Choice | None:
        """The one source there is where none is configured."""
        return self._only

    @property
    def pools(self) -> Collection[str]:
        """The names of all pools."""
        return self._pools

    def known_pool(self, tenant: str) -> str:
        """Name the pool of a tenant as far as it is known."""
        return self._pool_of.get(tenant, (0.0, DEFAULT_POOL))[1]

    async def pool_of(self, tenant: str) -> str:
        """Name the pool that a tenant's mail leaves from: its own, or else the default one."""
        if self._only is not None:
            return DEFAULT_POOL
        now = self._clock.monotonic()
        until, known = self._pool_of.get(tenant, (now, DEFAULT_POOL))
        if now < until:
            return known
        found = await pool_of(self._spool, tenant) or DEFAULT_POOL
        if found not in self._pools:
            log.error("tenant=%s pool=%s error=not-configured instead=%s", tenant, found, DEFAULT_POOL)
            found = DEFAULT_POOL
        self._pool_of[tenant] = now + POOLS_INTERVAL, found
        return found

    def choose(self, pool: str, want: Want, room: Callable[[str], bool] = _anywhere) -> Choice | Wait:
        """Choose the source for an attempt; `room` tells whether limits let one more begin from a source now."""
        if self._only is not None:
            return self._only
        now = self._clock.now()
        chosen = choose(self.standings(pool, want), self._turns_of(pool, want), want, now, room)
        if isinstance(chosen, Wait):
            return chosen
        source, day = self._sources[chosen], int(now // DAY)
        if not want.counts or source.warm_up is None or source.warm_up.cap(day) is None:
            return Choice(source)
        tally = self._tally(chosen, day)
        provider = tally.provider(want.provider)
        tally.taken[provider] = tally.taken.get(provider, 0) + want.recipients
        return Choice(source, provider, want.recipients, tally.day)

    def standings(self, pool: str, want: Want) -> dict[str, Standing]:
        """Tell of each source of a pool from when on it may be used, if limits let it."""
        now = self._clock.now()
        return {name: self._standing(name, want, now) for name in self._pools[pool]}

    async def secure(self, choice: Choice) -> None:
        """Have what a warm-up counts on disk; SpoolError if that fails, and then nobody may be dialled."""
        if not choice.recipients:
            return
        name, provider = choice.source.name, choice.provider
        tally = self._tallies[name]
        taken = tally.taken.get(provider, 0)
        if taken <= tally.on_disk.get(provider, 0):
            return
        assert choice.source.warm_up is not None  # or nothing would be counted
        more = (choice.source.warm_up.cap(choice.day) or 0) // _AHEAD
        tally.ahead[provider] = max(tally.ahead.get(provider, 0), taken + more)
        written = dict(tally.ahead)
        await source_records.count(self._spool, Counted(source=name, day=tally.day, recipients=written))
        for each, recipients in written.items():
            tally.on_disk[each] = max(tally.on_disk.get(each, 0), recipients)

    def ended(self, choice: Choice, delivered: int) -> None:
        """Hear to how many recipients an attempt delivered; what it did not may be used by others."""
        tally = self._tallies.get(choice.source.name)
        if choice.recipients and tally is not None and tally.day == choice.day:
            tally.taken[choice.provider] -= choice.recipients - delivered

    def local(self, source: Source, peer: str) -> str | None:
        """Return the address to reach a peer from; None if the source has none of that family that can be used."""
        address = source.local(peer)
        if address and self._broken.get(address, (0.0, ""))[0] > self._clock.monotonic():
            return None
        return address

    def cannot_reach(self, source: Source, site: str) -> None:
        """Hear that a source has no address that can be used towards a site, and pass it over there for a while."""
        if len(self._unable) >= _TURNS:
            del self._unable[next(iter(self._unable))]
        self._unable[source.name, site] = self._clock.monotonic() + BROKEN

    def unable(self, site: str) -> set[str]:
        """Name the sources that cannot reach a site, as far as it is known."""
        if not self._unable:
            return set()
        now = self._clock.monotonic()
        return {name for name in self._sources if self._unable.get((name, site), now) > now}

    def broken(self, source: Source, address: str) -> None:
        """Hear that an address could not be used, say why, and leave it alone for a while."""
        why = trouble_of(address) or "could not be used"
        log.error("source=%s address=%s error=%r again_in=%g", source.name, address, why, BROKEN)
        self._broken[address] = self._clock.monotonic() + BROKEN, why

    def park(self, parked: Parked) -> None:
        """Use a source no more for a provider, until then or what was said before; `keep` makes it durable."""
        key = parked.source, parked.provider
        if key in self._parked and self._parked[key].ends_at >= parked.ends_at:
            return
        self._parked[key] = self._to_keep[key] = parked
        log.warning("source=%s provider=%r doing=park reason=%r", parked.source, parked.provider, parked.reason)

    async def keep(self) -> None:
        """Put on disk what has been parked; SpoolError: not all of it is."""
        for key, parked in list(self._to_keep.items()):
            await source_records.park(self._spool, parked)
            if self._to_keep.get(key) is parked:
                del self._to_keep[key]

    def rows(self) -> list[SourceRow]:
        """Show all sources, in the order of the configuration."""
        now = self._clock.now()
        return [self._row(each, now) for each in self._sources.values()]

    async def close(self) -> None:
        """Put on disk what was counted, without what was counted ahead. Attempts must have ended."""
        for name, tally in self._tallies.items():
            if tally.taken != tally.on_disk:
                try:
                    await source_records.count(self._spool, Counted(source=name, day=tally.day, recipients=tally.taken))
                except SpoolError as error:
                    log.error("source=%s warm-up=more-counted-than-used error=%s", name, error)

    def _standing(self, name: str, want: Want, now: float) -> Standing:
        parked = self._parked.get((name, want.whose))
        source = self._sources[name]
        counted = 0
        if source.warm_up is not None:
            tally = self._tally(name, int(now // DAY))
            counted = tally.taken.get(tally.provider(want.provider), 0)
        state = OPEN if parked is None else Standing(parked.ends_at, f"parked: {parked.reason}")
        return standing(source, want, counted, state, now)

    def _tally(self, name: str, day: int) -> _Tally:
        """Return what is counted on a day; on the one before, what was counted by a clock that has been put back."""
        tally = self._tallies.get(name)
        if tally is None or tally.day not in (day, day + 1):
            tally = self._tallies[name] = _Tally(day, {})
        return tally

    def _turns_of(self, pool: str, want: Want) -> Shares[str]:
        turns = self._turns.get((pool, want.whose))
        if turns is None:
            if len(self._turns) >= _TURNS:
                del self._turns[next(iter(self._turns))]
            turns = self._turns[pool, want.whose] = begin(self._pools[pool], pool, want)
        return turns

    def _row(self, source: Source, now: float) -> SourceRow:
        return SourceRow(
            source=source.name,
            addresses=source.addresses,
            hostname=source.hostname,
            pools={pool: members[source.name] for pool, members in self._pools.items() if source.name in members},
            warm_up=self._warm_up_row(source, int(now // DAY)),
            parked=tuple(
                ParkedRow(each.provider, each.ends_at, each.reason)
                for each in self._parked.values()
                if each.source == source.name and each.ends_at > now
            ),
            trouble="; ".join(f"{each}: {found}" for each in source.addresses if (found := self._trouble(each))),
        )

    def _warm_up_row(self, source: Source, day: int) -> WarmUpRow | None:
        cap = source.warm_up.cap(day) if source.warm_up is not None else None
        if source.warm_up is None or cap is None:
            return None
        counted = self._tally(source.name, day).taken
        today = {provider: recipients for provider, recipients in sorted(counted.items()) if recipients}
        return WarmUpRow(day - source.warm_up.first_day + 1, len(source.warm_up.caps), cap, today)

    def _trouble(self, address: str) -> str:
        until, why = self._broken.get(address, (0.0, ""))
        return why if until > self._clock.monotonic() else ""


def _sources(config: Config) -> Iterator[Source]:
    for each in config.sources:
        plan = each.warm_up
        warm_up = None if plan is None else WarmUp(plan.started_on.toordinal() - _DAY_0, plan.plan)
        yield Source(each.name, each.hostname or config.hostname, each.address, warm_up)


def trouble_of(address: str) -> str:
    """Tell why this machine cannot send from an address; "" if it can."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.bind((address, 0))
    except OSError as error:
        return "not an address of this machine" if error.errno == errno.EADDRNOTAVAIL else str(error.strerror)
    return ""
