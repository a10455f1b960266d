"""How many connections a site takes at once: what its answers teach. Pure.

Postfix's feedback (SCHEDULER_README): each delivery that reached the site lets the window grow, each that
could not connect or was sent away before its transaction lets it shrink, one whole step at a time, so that
single failures among many successes change nothing. When failures follow each other for more than a whole
cohort, as many as the window has room for, the site is dead: nothing is tried for a while, then one connection, and
the while doubles as long as that fails too.
"""

import msgspec

from mta.mail.result import Outcome, Scope, Verdict

FIRST = 5  # connections to a site that nothing is known of
DEAD_FIRST = 30.0  # seconds that a dead site is left alone, doubling
DEAD_LONGEST = 15 * 60.0


class Window(msgspec.Struct):
    """What is known of a site. `size` 0: it is dead until `dead_until` (monotonic seconds)."""

    limit: int
    size: int = FIRST
    dead_until: float = 0.0
    _growth: float = 0.0
    _failed: float = 0.0  # cohorts
    _dead_for: float = 0.0

    def __post_init__(self) -> None:
        self.size = min(self.size, self.limit)

    def room(self, at_work: int, now: float) -> bool:
        """Tell whether one more connection may be opened beside so many. A dead site that was left alone has one."""
        if self.size == 0:
            return now >= self.dead_until and at_work == 0
        return at_work < self.size

    @property
    def dead_for(self) -> float:
        """How long it is left alone this time, in seconds."""
        return self._dead_for

    def learn(self, reached: bool, now: float) -> int:  # noqa: FBT001 - what was_reached says
        """Learn what a delivery met at `now` (monotonic seconds); return the size."""
        if reached:
            self._reached()
        else:
            self._unreached(now)
        return self.size

    def _reached(self) -> None:
        """Learn that a delivery got through to a transaction, whatever came of it."""
        self._failed = self._dead_for = 0.0
        if self.size == 0:
            self.size = 1
            return
        self._growth += 1 / self.size
        if self._growth >= 1 and self.size < self.limit:
            self.size += 1
            self._growth = 0.0

    def _unreached(self, now: float) -> None:
        """Learn that a delivery could not connect, or was sent away by the greeting, EHLO or STARTTLS, or with 421."""
        self._growth = 0.0
        if self.size:
            self._failed += 1 / self.size
            self.size = max(1, self.size - 1)
            if self._failed <= 1:
                return
            self.size = 0
        elif now < self.dead_until:  # begun before it was dead
            return
        self._dead_for = min(2 * self._dead_for or DEAD_FIRST, DEAD_LONGEST)
        self.dead_until = now + self._dead_for


def was_reached(outcome: Outcome) -> bool | None:
    """Tell whether an attempt got through to a transaction; None if it says nothing of the site."""
    scopes = {each.scope for each in outcome.results}
    if Scope.US in scopes:
        return None
    if scopes <= {Scope.HOST, Scope.SITE} and all(each.verdict is Verdict.DEFERRED for each in outcome.results):
        return False
    return True if outcome.relay else None
