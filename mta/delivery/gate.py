"""Whether an attempt may start now, and when to ask again: the limits (mta.queue.limits), with a clock."""

import math
from collections.abc import Callable, Mapping
from heapq import heappop, heappush

import msgspec

from mta.clock import Clock
from mta.mail.result import Outcome
from mta.queue.limits import About, Advice, Aim, Limits, Row, Start

SHOWN = 1000  # sites
_HERE = ""  # the source, while there is one


class SiteRow(msgspec.Struct, frozen=True, kw_only=True):
    """A site as operators see it: attempts in flight of the connections allowed, lanes with work due.

    `rate` is messages a second, None: not limited. Durations are seconds: for how long it is dead or paused yet (0: it
    is not), and since when it said its last `reply`.
    """

    site: str
    in_flight: int
    connections: int
    lanes: int
    rate: float | None = None
    dead_for: float = 0.0
    paused_for: float = 0.0
    paused_because: str = ""
    reply: str = ""
    silent_for: float = 0.0

    @classmethod
    def of(cls, row: Row | None, site: str, in_flight: int, lanes: int, connections: int) -> "SiteRow":
        """Make it of what the limits know; None: nothing yet, and so many connections are allowed."""
        if row is None:
            return cls(site=site, in_flight=in_flight, connections=connections, lanes=lanes)
        return cls(
            site=site,
            in_flight=in_flight,
            connections=row.connections,
            lanes=lanes,
            rate=row.rate,
            dead_for=row.dead_for,
            paused_for=row.paused_for,
            paused_because=row.paused_because,
            reply=row.reply,
            silent_for=row.silent_for,
        )


class Gate:
    """Asks the limits for sites and tenants, and knows which sites to look at again, and when."""

    def __init__(self, limits: Limits, clock: Clock) -> None:
        self._limits = limits
        self._clock = clock
        self._look_at: dict[Aim, float] = {}  # monotonic
        self._order: list[tuple[float, Aim]] = []  # the same, and what is out of date

    def room(self, site: Aim, tenant: str, at_work: int, *, stays: bool) -> bool:
        """Tell whether one more of a tenant ("": of any) may start beside so many; one that stays dials none."""
        about, now = About(_HERE, site.site, tenant, site.hosts), self._clock.monotonic()
        if at_work >= self._limits.connections(about):
            return False  # until one leaves
        at = self._limits.when(about, now, dials=not stays)
        if now < at < self._look_at.get(site, math.inf):
            self._look_at[site] = at
            heappush(self._order, (at, site))
        return at <= now

    def started(self, aim: Aim, tenant: str, *, stays: bool) -> Start:
        """Let an attempt start; it has to come back to `ended`."""
        return self._limits.started(About(_HERE, aim.site, tenant, aim.hosts), self._clock.monotonic(), dials=not stays)

    def ended(self, start: Start, outcome: Outcome | None) -> Advice:
        """Learn from an attempt; None: it came to nothing by our own doing."""
        return self._limits.ended(start, outcome, self._clock.monotonic())

    def rows(self, at_work: Callable[[Aim], int], lanes: Mapping[Aim, int]) -> list[SiteRow]:
        """Show the sites that have work, by `lanes`, or taught something, the busiest first."""
        known = {row.site: row for row in self._limits.rows(self._clock.monotonic())}
        rows = [
            SiteRow.of(known.pop(aim.site, None), aim.site, at_work(aim), count, self._limits.first)
            for aim, count in lanes.items()
        ]
        rows += [SiteRow.of(row, site, row.at_work, 0, self._limits.first) for site, row in known.items()]
        return sorted(rows, key=lambda row: (-row.in_flight, -row.lanes, row.site))[:SHOWN]

    def next_look(self) -> float | None:
        """Return in how many seconds there is a site to look at again; None if there is none."""
        while self._order and self._look_at.get(self._order[0][1]) != self._order[0][0]:
            heappop(self._order)
        return max(0.0, self._order[0][0] - self._clock.monotonic()) if self._order else None

    def to_look_at(self) -> list[Aim]:
        """Take the sites whose time has come."""
        found: list[Aim] = []
        while (seconds := self.next_look()) is not None and seconds <= 0:
            _, aim = heappop(self._order)
            del self._look_at[aim]
            found.append(aim)
        return found
