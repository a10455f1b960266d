"""When a deferred entry is tried again, and when its time is over: pure functions on values.

The schedule is features A4: intervals in turn, the last one over and over, each ± jitter.
"""

from collections.abc import Callable, Sequence

import msgspec

from mta.config import Retry

HINT_LIMIT = 6 * 3600.0  # seconds: a peer's "try again in" is believed up to here
JUMP = 5.0  # seconds by which wall time may run ahead of monotonic time before it counts as a jump
SETTLED = 600.0  # seconds after which a clock that was set wrong when we started has been put right, or is right
CONFIRM = 60.0  # seconds after which an expiry that lacked evidence is looked at again


def retry_interval(
    retry: Retry, step: int, random: Callable[[], float], hint: float | None = None, own: Sequence[float] = ()
) -> float:
    """Return the seconds to wait after the `step`-th counted attempt (from 1).

    `own` intervals, a message's, stand in place of those of the schedule.
    `random` gives numbers in [0, 1). A peer's `hint` is honoured where it is longer than a tenth of the
    interval and within reason; it is never shortened by jitter.
    """
    intervals = own or retry.intervals
    interval = intervals[min(max(step, 1), len(intervals)) - 1]
    if hint is not None and 0 < hint <= HINT_LIMIT:
        return hint * (1 + retry.jitter * random())
    return interval * (1 + retry.jitter * (2 * random() - 1))


class WallJumps(msgspec.Struct):
    """Watches the wall clock against the monotonic one, so that a clock that jumps expires nothing.

    Expiry needs, besides the wall clock, that the time did pass: jumps seen since a message was accepted
    are taken off, and a deadline that was already over when this process started needs an attempt since. What is
    held gets none: there the clock has to have said so for `SETTLED` seconds.
    """

    started_at: float
    wall: float
    monotonic: float
    jumps: list[tuple[float, float]] = []
    running: float = 0.0

    def observe(self, wall: float, monotonic: float) -> float:
        """Note where the clocks stand; call at least once a minute. Return the size of a jump, or 0."""
        jumped = (wall - self.wall) - (monotonic - self.monotonic)
        self.running += monotonic - self.monotonic
        self.wall, self.monotonic = wall, monotonic
        if abs(jumped) < JUMP:
            return 0.0
        self.jumps.append((wall - jumped, jumped))  # what was accepted up to the jump had the wall before it
        del self.jumps[:-64]
        return jumped

    def over(self, accepted_at: float, expires_at: float) -> bool:
        """Tell whether a deadline is over by the wall clock, and without the jumps forward seen since.

        One back is nothing to go by: it may be over a time that there is twice, and the message from the second.
        """
        return self.wall - max(0.0, self.since(accepted_at)) >= expires_at

    def expired(self, *, accepted_at: float, expires_at: float, last_attempt_at: float, held: bool) -> bool:
        """Tell whether a deadline is over by the wall clock and by evidence."""
        if not self.over(accepted_at, expires_at):
            return False
        if expires_at > self.started_at or last_attempt_at >= self.started_at:
            return True
        return held and self.running >= SETTLED and self.wall >= expires_at

    @property
    def unsettled(self) -> float:
        """Seconds until the clock is believed where there is no attempt to go by."""
        return max(0.0, SETTLED - self.running)

    def since(self, accepted_at: float) -> float:
        """Add up the seconds by which the wall clock has jumped since then."""
        return sum(size for before, size in self.jumps if before >= accepted_at)
