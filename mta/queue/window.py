"""How many connections a site takes at once: what its answers teach. Pure; times are monotonic seconds.

Postfix's feedback (SCHEDULER_README), with g(N) = f(N) = 1/N: what gets through to a session adds a share of a
connection, what could not connect takes one away, and the window moves when a whole one has gathered: at once
downwards, afterwards upwards. It grows only as far as it is used. When failures follow each other for more than one
cohort, as many as the window has room for, the site is dead: nothing starts for a while, then one probe, and the
while doubles as long as probes fail.

Beyond Postfix: a site that turns a connection away in words while others are at work has told its limit. The window
stays below that number for a while, which doubles each time that the number is confirmed.
"""

import math
from enum import Enum, auto

FIRST = 5  # connections to a site that nothing is known of
DEAD_FIRST = 30.0  # seconds that a dead site is left alone, doubling
DEAD_LONGEST = 15 * 60.0
CEILING_FIRST = 60.0  # seconds that a number of connections that was refused is not tried again, doubling
CEILING_LONGEST = 3600.0


class Met(Enum):
    """What an attempt says of the connections to its site."""

    REACHED = auto()  # there was a session: whatever came of it, the site works
    TURNED_AWAY = auto()  # sent away in words instead of a session: alive, but no room for this one
    FAILED = auto()  # no connection, no greeting, no session
    NOTHING = auto()  # nobody was asked, or the trouble is ours


class Begun:
    """An attempt under way: when it began, how many others were at work then, and what it was charged for."""

    def __init__(self, at: float, beside: int) -> None:
        self.at = at
        self.beside = beside
        self.cost = 0  # of the rate (rate.py)
        self.dials = False  # charged for a connection


class Window:
    """The window of one (source, site): `at_work` connections of `size`; size 0: it is dead."""

    def __init__(self, limit: int, size: int = FIRST, at_work: int = 0) -> None:
        self.limit = limit
        self.at_work = at_work
        self._forget(size)

    def _forget(self, size: int = FIRST) -> None:
        self.size = min(size, self.limit)
        self.ceiling: int | None = None  # a number of connections that was refused
        self.ceiling_for = 0.0  # seconds that this is believed
        self.dead_for = 0.0  # seconds of the present pause, or of the next one's half
        self._ceiling_at = -math.inf
        self._dead_at = -math.inf
        self._probe: Begun | None = None
        self._success = 0.0
        self._failure = 0.0
        self._failed_cohorts = 0.0

    @property
    def dead_until(self) -> float:
        """When a dead site may be probed; -inf if it is not dead."""
        return self._dead_at + self.dead_for if self.size == 0 else -math.inf

    @property
    def probing(self) -> bool:
        """Whether a dead site is being probed."""
        return self.size == 0 and self._probe is not None

    def when(self, now: float) -> float:
        """Return from when on one more may start: `now` if at once, inf if one has to end first."""
        if self.size == 0:
            return max(now, self.dead_until) if self._probe is None else math.inf
        return now if self.at_work < self.size else math.inf

    def started(self, now: float) -> Begun:
        """Count one to those at work; it has to come back to `ended`."""
        begun = Begun(now, self.at_work)
        if self.size == 0:
            self._probe = begun
        self.at_work += 1
        return begun

    def ended(self, begun: Begun, met: Met, now: float) -> None:
        """Count one off and learn from it. What failed counts only if it began after the site's last death."""
        self.at_work -= 1
        if begun is self._probe:
            self._probe = None
        if met is Met.REACHED:
            self._reached(begun.beside + 1, now)
        elif met is Met.TURNED_AWAY:
            self._turned_away(begun, max(begun.beside, self.at_work) + 1, now)
        elif met is Met.FAILED and begun.at >= self._dead_at:
            self._failed(now)

    def keep_to(self, limit: int) -> None:
        """Never have more than so many connections."""
        self.limit = limit
        self.size = min(self.size, limit)

    def reset(self) -> None:
        """Forget what was learned; attempts at work go on."""
        self._forget()

    def recall(self, size: int, ceiling: int | None, ceiling_for: float, since: float) -> None:
        """Begin with what was known at `since`."""
        self.size = max(1, min(size, self.limit))
        self.ceiling, self.ceiling_for, self._ceiling_at = ceiling, ceiling_for, since

    def _reached(self, connections: int, now: float) -> None:
        revived = self.size == 0
        self._alive()
        if revived:
            return
        if self.ceiling is not None and connections >= self.ceiling:  # what was refused is allowed now
            self.ceiling, self.ceiling_for = None, 0.0
        if self.size >= max(connections, self.at_work + 1) + FIRST:
            return  # so many are not used
        self._success += 1 / self.size
        if self._success < 1:
            return
        self._success -= 1
        self._failure = 0.0
        held = self.ceiling == self.size + 1 and now < self._ceiling_at + self.ceiling_for
        if self.size < self.limit and not held:
            self.size += 1

    def _turned_away(self, begun: Begun, connections: int, now: float) -> None:
        self._alive()
        self._success = 0.0
        if connections == 1:
            return  # it was the only one: not their number is too large
        if begun.at >= self._ceiling_at:
            confirmed = connections == self.ceiling
            self.ceiling_for = min(2 * self.ceiling_for, CEILING_LONGEST) if confirmed else CEILING_FIRST
            self._ceiling_at = now
            self.ceiling = connections
        else:  # one of the same cohort
            self.ceiling = min(connections, self.ceiling or connections)
        self.size = min(self.size, self.ceiling - 1)

    def _failed(self, now: float) -> None:
        if self.size:
            self._failed_cohorts += 1 / self.size
            if self._failed_cohorts <= 1:
                self._shrink()
                return
        self.size = 0
        self.dead_for = min(2 * self.dead_for or DEAD_FIRST, DEAD_LONGEST)
        self._dead_at = now

    def _shrink(self) -> None:
        self._failure -= 1 / self.size
        if self._failure < 0:
            self._failure += 1
            self._success = 0.0
            self.size = max(1, self.size - 1)

    def _alive(self) -> None:
        self._failed_cohorts = self.dead_for = 0.0
        self.size = max(1, self.size)
