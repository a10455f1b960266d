"""Whether an attempt may start now, and when to ask again: the limits (mta.queue.limits), with a clock.

Limits are by source and site. Where sources are configured, an attempt may start if any of its tenant's pool has room;
it is booked on one of those, and leaves from the one whose turn it is when its recipients are known
(mta.delivery.attempt). Without any there is the default one, whose name is "".
"""

import math
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from heapq import heappop, heappush

import msgspec

from mta.clock import Clock
from mta.delivery.source import Standing, want_of
from mta.delivery.source_records import Parked
from mta.delivery.sources import POOLS_INTERVAL, Sources
from mta.mail.result import Outcome
from mta.queue.explanation import HeldBy
from mta.queue.limits import NO_ADVICE, About, Advice, Aim, Limits, Start, Why
from mta.queue.site_row import SiteRow

SHOWN = 1000  # sites
_HERE = ""  # the source where none is configured
_PARKED_LOOK = 60.0  # seconds after which it is looked again at parked sources: the clock may have been set
_HOSTS = 4096  # sites whose hosts are known, from which on those of no use are looked for


class Gate:
    """Asks the limits for sites and tenants, and knows whom to look at again, and when.

    What is in the way of an attempt (`room`) is the site's name, or the facts that a limit on the tenant is by; where
    there are several pools, each has room at a site or none.
    """

    def __init__(self, limits: Limits, clock: Clock, sources: Sources | None = None) -> None:
        """`sources` are the configured ones, None: there are none."""
        self._limits = limits
        self._clock = clock
        self._sources = sources
        self._pools_read_at = -math.inf
        self._waiting: dict[str, set[Hashable]] = {}  # by site, pools without room there
        self._freed: list[Hashable] = []  # of these, where an attempt has ended since
        self._hosts: dict[str, tuple[str, ...]] = {}  # of sites, by which their providers are known
        self._sweep_at = _HOSTS
        self._look_at: dict[Hashable, float] = {}  # monotonic
        self._order: list[tuple[float, int, Hashable]] = []  # the same, and what is out of date
        self._number = 0

    def meet(self, aim: Aim, in_use: Callable[[str], bool]) -> None:
        """Learn by which hosts the provider of a site is known. A route to the same hosts does not hide them.

        `in_use` tells whether a site has work.
        """
        if not aim.hosts:
            return
        self._hosts[aim.site] = aim.hosts
        if len(self._hosts) >= self._sweep_at:
            self._hosts = {site: hosts for site, hosts in self._hosts.items() if in_use(site) or site == aim.site}
            self._sweep_at = max(_HOSTS, 2 * len(self._hosts))

    def room(self, site: str, tenant: str, at_work: int, *, stays: bool) -> Hashable:
        """Tell what keeps one more of a tenant ("": of any) from starting beside so many; one that stays dials none."""
        if self._sources is not None:
            return self._room_from(self._sources, site, tenant, dials=not stays)
        about = self._about(site, tenant)
        if at_work >= self._limits.connections(about):
            return site  # until one leaves
        now = self._clock.monotonic()
        at = self._limits.when(about, now, dials=not stays)
        if at <= now:
            return None
        by = self._in_the_way(about, now, dials=not stays)
        self._look_again(by, at)
        return by

    def why(self, site: str, tenant: str, at_work: int) -> Why:
        """Tell what keeps one more of a tenant from starting beside so many, until absolute seconds (0: open)."""
        now, wall = self._clock.monotonic(), self._clock.now()
        if self._sources is None:
            about = self._about(site, tenant)
            found = self._limits.why(about, now)
            if found.gate is HeldBy.TURN and at_work >= self._limits.connections(about):
                found = Why(HeldBy.SITE_FULL, math.inf)
        else:
            found = min(
                [self._why_from(way, standing, now) for way, standing in self._standings(self._sources, site, tenant)],
                key=lambda why: why.until,
            )
        waits = now < found.until < math.inf
        return found._replace(until=wall + (found.until - now) if waits else 0.0)

    def connections(self, site: str, tenant: str) -> int:
        """Tell how many attempts at most a tenant's mail has at a site, with all tenants' that leaves from there."""
        about = self._about(site, tenant)
        if self._sources is None:
            return self._limits.connections(about)
        return sum(self._limits.connections(way) for way, _ in self._standings(self._sources, site, tenant))

    def _why_from(self, about: About, standing: Standing, now: float) -> Why:
        found, opens_at = self._limits.why(about, now), now + max(0.0, standing.opens_at - self._clock.now())
        return found if found.until >= opens_at else Why(HeldBy.NO_SOURCE, opens_at, f"{about.source}: {standing.why}")

    def _look_again(self, by: Hashable, at: float) -> None:
        if at < self._look_at.get(by, math.inf):
            self._look_at[by] = at
            self._number += 1
            heappush(self._order, (at, self._number, by))

    def _room_from(self, sources: Sources, site: str, tenant: str, *, dials: bool) -> Hashable:
        """Tell what keeps one more of a tenant from starting from the source that may do so first."""
        now = self._clock.monotonic()
        pool: Hashable = site if len(sources.pools) == 1 else (("site", site), ("pool", sources.known_pool(tenant)))
        soonest, by = math.inf, pool
        for about, opens_at in self._ways(sources, site, tenant, now):
            at = max(self._limits.when(about, now, dials=dials), opens_at)
            if at <= now:
                return None
            if at < soonest:
                limited = self._in_the_way(about, now, dials=dials)
                soonest, by = at, pool if at == opens_at or limited == site else limited
        if by == pool and pool != site:
            self._waiting.setdefault(site, set()).add(pool)
        self._look_again(by, soonest)
        return by

    def _ways(self, sources: Sources, site: str, tenant: str, now: float) -> Sequence[tuple[About, float]]:
        """List the sources a tenant's mail may leave from to a site, and when to look again: `now` if it may now."""
        wall = self._clock.now()
        return [
            (about, now + max(0.0, min(found.opens_at - wall, _PARKED_LOOK)))
            for about, found in self._standings(sources, site, tenant)
        ]

    def _standings(self, sources: Sources, site: str, tenant: str) -> Sequence[tuple[About, Standing]]:
        about = self._about(site, tenant)
        provider, unable = self._limits.provider_of(about), sources.unable(site)
        want = want_of(provider, site, 1, counts=bool(about.hosts), but=unable)
        standings = sources.standings(sources.known_pool(tenant), want)
        return [(about._replace(source=name), found) for name, found in standings.items()]

    def started(self, site: str, tenant: str, *, stays: bool) -> Start:
        """Let an attempt start; it has to come back to `ended`."""
        now, about = self._clock.monotonic(), self._about(site, tenant)
        if self._sources is not None:
            ways = self._ways(self._sources, site, tenant, now)
            open_now = [way for way, at in ways if max(self._limits.when(way, now, dials=not stays), at) <= now]
            about = open_now[0] if open_now else ways[0][0]
        return self._limits.started(about, now, dials=not stays)

    def ended(self, start: Start, outcome: Outcome | None) -> Advice:
        """Learn from an attempt; None: it came to nothing by our own doing."""
        now, about = self._clock.monotonic(), start.about
        if about.site != start.foreseen:  # where nobody knows that it had a place
            self._freed += (about.site, *self._waiting.pop(start.foreseen, ()))
        if self._waiting:
            self._freed += self._waiting.pop(about.site, ())
        if outcome is not None and (outcome.site != about.site or outcome.source_name != about.source):
            self._limits.ended(start, None, now)  # it was another that was asked
            return NO_ADVICE
        advice = self._limits.ended(start, outcome, now)
        if advice.park_for and self._sources is not None and outcome is not None:
            reason = str(outcome.results[-1].reply)
            ends_at, provider = self._clock.now() + advice.park_for, self._limits.provider_of(about)
            self._sources.park(Parked(source=about.source, provider=provider, ends_at=ends_at, reason=reason))
        return advice

    def freed(self) -> Sequence[Hashable]:
        """Take who had no room where an attempt has ended since: pools at its site, all at one it was sent to."""
        if not self._freed:
            return ()
        freed, self._freed = self._freed, []
        return freed

    async def learn_pools(self, coming: Collection[str], working: Collection[str]) -> None:
        """Learn from which pools tenants send: those whose work is coming, and all who have work now and then anew."""
        if self._sources is None:
            return
        now = self._clock.monotonic()
        if now - self._pools_read_at >= POOLS_INTERVAL:
            self._pools_read_at = now
            coming = {*coming, *working}
        for tenant in coming:
            await self._sources.pool_of(tenant)

    async def keep(self) -> None:
        """Put on disk which sources were parked; SpoolError: not all of it is."""
        if self._sources is not None:
            await self._sources.keep()

    def forget(self, site: str) -> bool:
        """Reset what was learned of a site; tell whether there was anything."""
        return self._limits.forget(site)

    def rows(self, at_work: Callable[[str], int], lanes: Mapping[str, int]) -> list[SiteRow]:
        """Show the sites that have work, by `lanes`, or taught something, the busiest first."""
        known = dict[str, SiteRow]()
        for row in self._limits.rows(self._clock.monotonic()):
            known[row.site] = _together(known[row.site], row) if row.site in known else row
        for site in lanes.keys() - known.keys():
            known[site] = SiteRow(site=site, in_flight=0, connections=self._limits.first)
        rows = [
            msgspec.structs.replace(row, in_flight=max(row.in_flight, at_work(site)), lanes=lanes.get(site, 0))
            for site, row in known.items()
        ]
        return sorted(rows, key=lambda row: (-row.in_flight, -row.lanes, row.site))[:SHOWN]

    def next_look(self) -> float | None:
        """Return in how many seconds there is somebody to look at again; None if there is nobody."""
        while self._order and self._look_at.get(self._order[0][2]) != self._order[0][0]:
            heappop(self._order)
        return max(0.0, self._order[0][0] - self._clock.monotonic()) if self._order else None

    def to_look_at(self) -> list[Hashable]:
        """Take the sites and the limits whose time has come."""
        found: list[Hashable] = []
        while (seconds := self.next_look()) is not None and seconds <= 0:
            _, _, by = heappop(self._order)
            del self._look_at[by]
            found.append(by)
        return found

    def _about(self, site: str, tenant: str) -> About:
        return About(_HERE, site, tenant, self._hosts.get(site, ()))

    def _in_the_way(self, about: About, now: float, *, dials: bool) -> Hashable:
        by = self._limits.held_by(about, now, dials=dials)
        if "site" in by and "tenant" not in by:
            return about.site
        facts = self._limits.facts(about)
        return tuple([(each, facts[each]) for each in by])


def _together(one: SiteRow, other: SiteRow) -> SiteRow:
    """Show a site to which two sources go as one; it is dead or paused while it is so for both."""
    last = min(one, other, key=lambda row: row.silent_for if row.reply else math.inf)
    rates = [row.rate for row in (one, other) if row.rate is not None]
    return msgspec.structs.replace(
        last,
        in_flight=one.in_flight + other.in_flight,
        connections=one.connections + other.connections,
        rate=sum(rates) if len(rates) == 2 else None,
        dead_for=min(one.dead_for, other.dead_for),
        probing=one.probing or other.probing,
        paused_for=min(one.paused_for, other.paused_for),
        paused_because=last.paused_because if one.paused_for and other.paused_for else "",
        tenants_paused=one.tenants_paused,
    )
