"""Whether an attempt may start now, and when to ask again: the limits (mta.queue.limits), with a clock."""

import math
from heapq import heappop, heappush

from mta.clock import Clock
from mta.mail.result import Outcome
from mta.queue.limits import About, Advice, Aim, Limits, Start

_HERE = ""  # the source, while there is one


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
