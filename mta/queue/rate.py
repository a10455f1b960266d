"""How many messages a site takes in a time: found from its refusals alone. Pure; times are monotonic seconds.

Nothing is limited until a site refuses because there is too much. What it took in the last minute is then the
*ceiling*. The rate falls to a little below and comes back along a cubic, as CUBIC does (RFC 9438 4.2): quickly at
first, flat where the refusal came, then ever faster, for limits are raised too:

    rate(t) = ceiling * (1 + ((t - K) / scale)^3),   K so that rate(0) = ceiling * factor

A refusal where the last one was confirms the ceiling and doubles the scale: a site with a fixed limit is asked for
more ever more seldom. Only time in which the rate was used up counts as t, since idle hours prove nothing. Refusals
in a row, with nothing taken between them, only double a pause: a site that counts by the hour is waited for.

The constants were chosen by simulation (tests/unit/queue/test_limits_simulation.py): a provider that allows 20 a
minute gets 19, and refuses one attempt in a hundred.
"""

import math
from collections import deque

from mta.queue.bucket import FASTEST, TICKS, Bucket, gap_of

BELOW = 0.92  # of the ceiling, after a refusal
SCALE_FIRST = 120.0  # seconds
SCALE_LONGEST = 20 * 60.0
SLOWEST = 1 / 60  # messages a second; only pauses are slower
GUESS = 1 / 6  # messages a second: the least that is thought of a site that refused before much was sent
REST = 3  # messages that are not sent after a refusal: some sites count it, and the one before it, as sent
PAUSE_LONGEST = 10 * 60.0
MEASURED = 60.0  # seconds, at least
BURST = 1.0  # seconds whose messages may come at once
_ENOUGH = 10  # messages: where the rate is low, they are measured over so many
_SLOT = 5.0  # seconds that are counted together
_NEAR = 4 / 3  # a refusal within this factor of the ceiling confirms it


class Rate:
    """The learned rate of one (source, site)."""

    def __init__(self) -> None:
        self.ceiling = math.inf  # messages a second
        self.factor = BELOW
        self.scale = SCALE_FIRST
        self.climbed = 0.0  # seconds of use since the last fall: t
        self._bucket = Bucket()
        self._refused_at = -math.inf
        self._refusals = 0  # since anything was taken
        self._started_at = -math.inf
        self._ready_at = -math.inf  # from when on the next could have started
        self._busy_since = -math.inf
        self._taken: deque[tuple[float, int]] = deque()  # slots, and how many each had

    @property
    def rate(self) -> float:
        """Messages a second; inf if nothing limits them."""
        if self.ceiling == math.inf:
            return math.inf
        x = (self.climbed - self._plateau) / self.scale
        return max(SLOWEST, self.ceiling * (1 + x * x * x))  # ** would not go to infinity, but raise

    def when(self, now: float) -> float:
        """Return from when on one more may start: `now` if at once."""
        if self.ceiling == math.inf:
            return now
        rate = self.rate
        return self._bucket.when(now, gap_of(rate), max(1, int(min(rate, FASTEST) * BURST)))

    def started(self, now: float) -> int:
        """Let one start; return what it cost, to be given back (`give`) if nothing comes of it."""
        if self.ceiling == math.inf:
            return 0
        gap, unused = gap_of(self.rate), now - self._ready_at
        if unused > MEASURED:
            self._busy_since = now
        elif unused * TICKS <= gap and not self._refusals:
            self.climbed += max(0.0, min(now - self._started_at, 2 * gap / TICKS))
        self._bucket.take(now, gap)
        self._started_at, self._ready_at = now, self.when(now)
        if self.rate >= FASTEST:
            self.ceiling, self.scale, self.climbed = math.inf, SCALE_FIRST, 0.0
        return gap

    def give(self, begun_at: float, cost: int, now: float) -> None:
        """Take back that one was let start; a pause since then stays as long as it is."""
        if begun_at > self._refused_at:
            self._bucket.take(now, -cost)
            self._ready_at = self.when(now)

    def taken(self, now: float) -> None:
        """Learn that a message was taken."""
        self._refusals = 0
        slot = now // _SLOT * _SLOT
        if self._taken and self._taken[-1][0] == slot:
            self._taken[-1] = (slot, self._taken[-1][1] + 1)
        else:
            self._taken.append((slot, 1))
        while self._taken[0][0] < now - _ENOUGH / SLOWEST:
            self._taken.popleft()

    def refused(self, begun_at: float, now: float) -> None:
        """Learn that there was too much. An attempt begun before the last fall says nothing new."""
        if self._is_news(begun_at):
            level = self._level(now)
            if self.climbed >= self._plateau:
                confirmed = self.ceiling / _NEAR <= level <= self.ceiling * _NEAR
                self.scale = min(2 * self.scale, SCALE_LONGEST) if confirmed else SCALE_FIRST
            self.ceiling, self.factor, self.climbed = level, BELOW, 0.0
        self._pause(begun_at, now)

    def slow(self, factor: float, seconds: float, begun_at: float, now: float) -> None:
        """Learn that there was far too much: fall to a share of the rate, be back after so many seconds of use."""
        if self._is_news(begun_at):
            self.ceiling, self.factor, self.climbed = self._level(now), factor, 0.0
            self.scale = seconds / (1 - factor) ** (1 / 3)
        self._pause(begun_at, now)

    def _is_news(self, begun_at: float) -> bool:
        return begun_at >= self._refused_at and self._refusals == 0  # those in a row are for the pause

    def _pause(self, begun_at: float, now: float) -> None:
        if begun_at >= self._refused_at:
            self._refused_at = now
            self._refusals += 1
            self._bucket.wait(now, min(REST * 2.0 ** min(self._refusals - 1, 20) / self.rate, PAUSE_LONGEST))
            self._ready_at = self.when(now)

    def at_rest(self, now: float) -> bool:
        """Tell whether nothing keeps the next from starting."""
        return self._bucket.idle(now)

    def recall(self, ceiling: float, factor: float, scale: float, climbed: float) -> None:
        """Begin with what was known."""
        self.ceiling, self.factor, self.scale, self.climbed = ceiling, factor, scale, climbed

    @property
    def _plateau(self) -> float:
        """K: when the ceiling is reached again."""
        return self.scale * float((1 - self.factor) ** (1 / 3))

    def _level(self, now: float) -> float:
        """The rate that a refusal speaks of: what was taken lately, at most what may be sent."""
        rate = self.rate
        span = MEASURED if rate == math.inf else max(MEASURED, _ENOUGH / rate)
        if rate < math.inf and now - self._busy_since < span:
            return rate  # too early to tell
        since = math.ceil((now - span) / _SLOT) * _SLOT
        measured = sum(count for slot, count in self._taken if slot >= since) / (now - since)
        return min(max(SLOWEST, measured), rate) if rate < math.inf else max(GUESS, measured)
