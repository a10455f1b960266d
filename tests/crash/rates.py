"""How much of a rate was taken, as the clients saw it; pure.

Who asks without a pause gets all that a rate gives, unless nobody gets an answer for longer than a burst lasts: then
there is nobody to take it, and it is not owed.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from mta.accounts.tolls import Rate

_SHARE = 0.99  # of a rate that has to be taken


class Asked(NamedTuple):
    """When a message was offered and answered, in seconds of one clock, and whether it was taken."""

    at: float
    answered_at: float
    taken: bool


class Seen(NamedTuple):
    """What was taken in a time, and what may be at least and at most. `idle` are seconds in which nobody could ask."""

    taken: int
    least: float
    most: float
    idle: float

    @property
    def exact(self) -> bool:
        """Whether a rate was kept, and all of it could be had."""
        return self.least <= self.taken <= self.most


def seen(asked: Sequence[Asked], rate: Rate, begin: float, end: float) -> Seen:
    """Count what was taken of a rate; what was offered before or answered after is left out, as nobody knows when."""
    within = sorted(each.answered_at for each in asked if begin <= each.at and each.answered_at <= end)
    taken = sum(each.taken for each in asked if begin <= each.at and each.answered_at <= end)
    lasts = rate.burst * rate.interval
    idle = sum(max(0.0, later - before - lasts) for before, later in pairwise((begin, *within, end)))
    given = (end - begin) / rate.interval
    return Seen(taken, _SHARE * (given - idle / rate.interval), given + rate.burst, idle)
