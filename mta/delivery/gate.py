"""Whether an attempt may start now, and when to ask again: the limits (mta.queue.limits), with a clock.

Here a source is chosen for each attempt: there is one yet, the default, whose name is "".
"""

import math
from collections.abc import Callable, Hashable, Mapping
from heapq import heappop, heappush

import msgspec

from mta.clock import Clock
from mta.mail.result import Outcome
from mta.queue.limits import NO_ADVICE, About, Advice, Aim, Limits, Row, Start

SHOWN = 1000  # sites
_HERE = ""  # the source, while there is one
_HOSTS = 4096  # sites whose hosts are known, from which on those of no use are looked for


class SiteRow(msgspec.Struct, frozen=True, kw_only=True):
    """A site as operators see it: attempts in flight of the connections allowed, lanes with work due.

    `oldest` is for how long the first of it has been due, of the lanes that have waited for longest. `rate` is messages
    a second, None: not limited. Durations are seconds: for how long it is dead or paused yet (0: it is not), and since
    when it said its last `reply`. `probing`: it is dead, and one attempt sees whether it still is. `tenants_paused`:
    those who are, there.
    """

    site: str
    in_flight: int
    connections: int
    lanes: int
    oldest: float = 0.0
    rate: float | None = None
    dead_for: float = 0.0
    probing: bool = False
    paused_for: float = 0.0
    paused_because: str = ""
    tenants_paused: tuple[str, ...] = ()
    reply: str = ""
    silent_for: float = 0.0


class Gate:
    """Asks the limits for sites and tenants, and knows whom to look at again, and when.

    What is in the way of an attempt (`room`) is the site's name, or the facts that a limit on the tenant is by.
    """

    def __init__(self, limits: Limits, clock: Clock) -> None:
        self._limits = limits
        self._clock = clock
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
        about = self._about(site, tenant)
        if at_work >= self._limits.connections(about):
            return site  # until one leaves
        now = self._clock.monotonic()
        at = self._limits.when(about, now, dials=not stays)
        if at <= now:
            return None
        by = self._in_the_way(about, now, dials=not stays)
        if at < self._look_at.get(by, math.inf):
            self._look_at[by] = at
            self._number += 1
            heappush(self._order, (at, self._number, by))
        return by

    def started(self, site: str, tenant: str, *, stays: bool) -> Start:
        """Let an attempt start; it has to come back to `ended`."""
        return self._limits.started(self._about(site, tenant), self._clock.monotonic(), dials=not stays)

    def ended(self, start: Start, outcome: Outcome | None) -> Advice:
        """Learn from an attempt; None: it came to nothing by our own doing."""
        now = self._clock.monotonic()
        if outcome is not None and outcome.site != start.about.site:  # it was another that was asked
            self._limits.ended(start, None, now)
            return NO_ADVICE
        return self._limits.ended(start, outcome, now)

    def forget(self, site: str) -> bool:
        """Reset what was learned of a site; tell whether there was anything."""
        return self._limits.forget(site)

    def rows(self, at_work: Callable[[str], int], lanes: Mapping[str, int]) -> list[SiteRow]:
        """Show the sites that have work, by `lanes`, or taught something, the busiest first."""
        known = {row.site: row for row in self._limits.rows(self._clock.monotonic())}
        rows = [
            SiteRow(site=site, in_flight=at_work(site), connections=self._limits.first, lanes=count)
            for site, count in lanes.items()
            if site not in known
        ]
        rows += [_site_row(row, max(row.at_work, at_work(site)), lanes.get(site, 0)) for site, row in known.items()]
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
        return tuple([(each, facts[each]) for each in by if each != "source"])


def _site_row(row: Row, in_flight: int, lanes: int) -> SiteRow:
    return SiteRow(
        site=row.site,
        in_flight=in_flight,
        connections=row.connections,
        lanes=lanes,
        rate=row.rate,
        dead_for=row.dead_for,
        probing=row.probing,
        paused_for=row.paused_for,
        paused_because=row.paused_because,
        tenants_paused=row.tenants_paused,
        reply=row.reply,
        silent_for=row.silent_for,
    )
