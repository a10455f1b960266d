"""What a rate gives, by GCRA: pure, with the time passed in; who stores it does so in the transaction that takes it.

Of a rate it is enough to know until when it is taken up: each unit takes it up for an interval more, and there is room
while it is not taken up for longer than a burst lasts. In any time there come no more units than fit into it, and a
burst; but for what is larger than a burst, which comes when all is free.
"""

from collections.abc import Sequence
from typing import NamedTuple

from mta.spool.interface import Throttled, Toll

_SET_BACK = (
    10.0  # seconds; if we are so much before what is stored, a clock was set back: readings are not so far apart
)
_ROUNDING = 1e-6  # seconds: who waits as long as it was told gets in


class Spent(NamedTuple):
    """What was taken of a rate last: `at` that time it was taken up for `seconds`, at `interval` a unit."""

    at: float
    seconds: float
    interval: float

    @property
    def free_at(self) -> float:
        """When it is all free again."""
        return self.at + self.seconds


def take(tolls: Sequence[Toll], spent: Sequence[Spent | None], now: float) -> list[Spent] | Throttled:
    """Take all of the tolls or none; `spent` is what was taken of each before."""
    taken_up = [_taken_up(toll, before, now) for toll, before in zip(tolls, spent, strict=True)]
    waits = [_wait(toll, seconds) for toll, seconds in zip(tolls, taken_up, strict=True)]
    longest = max(waits, default=0.0)
    if longest > 0:
        return Throttled(waits.index(longest), longest, tuple([now + seconds for seconds in taken_up]))
    return [
        Spent(now, seconds + toll.units * toll.interval, toll.interval)
        for toll, seconds in zip(tolls, taken_up, strict=True)
    ]


def _taken_up(toll: Toll, spent: Spent | None, now: float) -> float:
    """Tell for how many seconds more the rate is taken up.

    The units are what counts, if the rate has been changed meanwhile.
    """
    if spent is None or now < spent.at - _SET_BACK:
        return 0.0
    seconds = spent.seconds
    if spent.interval != toll.interval:
        seconds *= toll.interval / spent.interval
    return max(0.0, seconds - (now - spent.at))


def _wait(toll: Toll, taken_up: float) -> float:
    """Tell how many seconds it is until there is room."""
    seconds = taken_up - max(0, toll.burst - toll.units) * toll.interval
    return seconds if seconds > _ROUNDING else 0.0
