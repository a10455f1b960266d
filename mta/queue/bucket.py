"""Token buckets: so many in so much time, and a burst. Pure; the clock is passed in.

A bucket is kept as the debt that starts have run up and time pays off, in whole microseconds: nothing is rounded
twice, so over any stretch of time no more than burst + rate * time are let through, and what `when` promises, `take`
keeps. Time that stands still pays nothing; time that jumps back pays nothing and takes nothing.

How `Limits` uses them: ask `Buckets.when` for an attempt's facts; if it says now, `Buckets.take` the same facts in the
same turn of the loop. What nothing came of is given back.
"""

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence

import msgspec

TICKS = 1_000_000  # a second
FASTEST = 100_000.0  # a second: beyond it nothing is limited
_NONE: Mapping[str, Hashable] = {}
_MOST = 65_536  # buckets in memory; only what has debts is kept


class Allowance(msgspec.Struct, frozen=True):
    """`count` in every `seconds`, of which `burst` may come at once."""

    count: float
    seconds: float
    burst: int = 1

    @property
    def rate(self) -> float:
        """Per second."""
        return self.count / self.seconds


class Bucket:
    """One bucket. A new one is full: it lets a burst through."""

    __slots__ = ("_at", "_debt")

    def __init__(self) -> None:
        self._debt = 0
        self._at = 0

    def when(self, now: float, gap: int, burst: int = 1) -> float:
        """Return from when on one more may start: `now` if at once. `gap`: ticks that a start costs."""
        return later(now, self._pay(now) - (burst - 1) * gap)

    def take(self, now: float, gap: int) -> None:
        """Let one start; or, `gap` below 0, take one back: from now on it is as if it had not been."""
        self._debt = max(0, self._pay(now) + gap)

    def wait(self, now: float, seconds: float) -> None:
        """Let nothing start for so long, if not longer already."""
        self._debt = max(self._pay(now), math.ceil(seconds * TICKS))

    def idle(self, now: float) -> bool:
        """Tell whether nothing is owed, so that it is as good as new."""
        return self._pay(now) <= 0

    def _pay(self, now: float) -> int:
        at = ticks(now)
        self._debt = max(0, self._debt - max(0, at - self._at))
        self._at = at
        return self._debt


def ticks(seconds: float) -> int:
    """Return the nearest tick."""
    return round(seconds * TICKS)


def later(now: float, debt: int) -> float:
    """Return when a debt is paid: exactly `now` if there is none."""
    return now if debt <= 0 else (ticks(now) + debt) / TICKS


def gap_of(rate: float) -> int:
    """Return the ticks between starts at `rate` a second, never so few that the rate is exceeded."""
    return 0 if rate >= FASTEST else math.ceil(TICKS / rate)


class Limit(msgspec.Struct, frozen=True):
    """An allowance for each combination of what `by` names: `("tenant", "provider")` is one bucket for each pair."""

    by: tuple[str, ...]
    allowance: Allowance


class Buckets:
    """The buckets of some limits: an attempt takes one token out of each that its facts name.

    Facts are what an attempt is about (`{"tenant": "acme", "site": …}`); a limit by something that the facts do
    not have, or have as "", does not concern the attempt.
    """

    def __init__(self, limits: Sequence[Limit]) -> None:
        self._limits = limits
        self._buckets: dict[tuple[Hashable, ...], Bucket] = {}
        self._sweep_at = _MOST

    def __len__(self) -> int:
        return len(self._buckets)

    def when(
        self, facts: Mapping[str, Hashable], now: float, instead_of: Mapping[str, Hashable] = _NONE
    ) -> tuple[float, tuple[str, ...]]:
        """Return from when on an attempt may start (`now` if at once), and what the last limit that lets it is by.

        What it took when it was started `instead_of` that is not in its way.
        """
        found, by = now, tuple[str, ...]()
        taken = {key for key, _ in self._of(instead_of)} if instead_of else set()
        for key, limit in self._of(facts):
            bucket = self._buckets.get(key)
            if bucket is not None:
                at = bucket.when(now, gap_of(limit.allowance.rate), limit.allowance.burst + (key in taken))
                if at > found:
                    found, by = at, limit.by
        return found, by

    def take(self, facts: Mapping[str, Hashable], now: float) -> None:
        """Let an attempt start."""
        for key, limit in self._of(facts):
            self._buckets.setdefault(key, Bucket()).take(now, gap_of(limit.allowance.rate))
        if len(self._buckets) >= self._sweep_at:
            self._sweep(now)

    def give(self, facts: Mapping[str, Hashable], now: float) -> None:
        """Take back that an attempt was let start."""
        for key, limit in self._of(facts):
            bucket = self._buckets.get(key)
            if bucket is not None:
                bucket.take(now, -gap_of(limit.allowance.rate))

    def _of(self, facts: Mapping[str, Hashable]) -> Iterator[tuple[tuple[Hashable, ...], Limit]]:
        for number, limit in enumerate(self._limits):
            values = tuple(facts.get(each) for each in limit.by)
            if all(values):
                yield (number, *values), limit

    def _sweep(self, now: float) -> None:
        """Forget buckets that are as good as new. Those with debts are as many as starts in the time they owe."""
        for key in [key for key, bucket in self._buckets.items() if bucket.idle(now)]:
            del self._buckets[key]
        self._sweep_at = max(_MOST, 2 * len(self._buckets))
