"""Who is refused new mail, why and for how long: from what each tenant has waiting, and how fast that goes. Pure.

A backlog alone is no reason. There are three: a limit that somebody set for the tenant; a backlog of which the end
would not have its first attempt before its deadline, at the measured rate of first attempts; and a disk that gets
short, where those are refused first who hold more than their fair share (decision 15). Who is refused is let in again
a little below the mark, and is told the time until then if all goes on as measured.
"""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from enum import StrEnum
from typing import NamedTuple

import msgspec

from mta.queue.weights import effective_weights
from mta.spool.interface import Backlog

MEASURED_OVER = 60.0  # seconds of one measurement
MEMORY = 900.0  # seconds, after which a measurement counts a third
STEADY = 400.0  # seconds of measurements that are remembered, from which on a backlog is judged by them
KNOWN = 30.0  # seconds of these, from which on they say how long to wait
UNKNOWN = 60.0  # seconds to wait when nobody knows
MESSAGE_OCTETS = 2048  # on disk, beside a message's content: its record, entry, keys, event
_RESUME = 0.9  # of a mark, at which who was refused is let in again
_RESUME_BACKLOG = 0.99  # of days


class Cause(StrEnum):
    """Why new mail is refused."""

    LIMIT = "limit"
    BACKLOG = "backlog"
    DISK = "disk"


class Refusal(NamedTuple):
    """Why, and for how many seconds if all goes on as measured.

    A tenant whose backlog takes too long is let in at `mark` untried entries. That stays while it is refused: a pace
    that is measured 1 % off would move the end of three days by 43 minutes.
    """

    cause: Cause
    seconds: float
    mark: float = 0.0


class Pace(NamedTuple):
    """What happens in a second, as measured: first attempts, None if that is not known; messages, octets that leave.

    `unsure`: the first attempts, if it is not known whether they are of the backlog, or of what comes in beside it.
    """

    tries: float | None = None
    messages: float = 0.0
    octets: float = 0.0
    unsure: float | None = None

    @property
    def held(self) -> float:
        """Octets of the disk that become free."""
        return self.octets + MESSAGE_OCTETS * self.messages


class Drain:
    """Measures how fast a tenant's backlog goes.

    First attempts count while there was enough to try for the whole time: otherwise they tell how much came in. They
    tell that, too, beside a pile that stays as it is because nobody may try it, at a site that is dead or paused: what
    is untried has to move, by half of what was tried, each time and in all. Time in which nothing went is left out:
    delivery was down, or the next hop, which says nothing of how fast it goes.
    """

    def __init__(self) -> None:
        self._from: tuple[float, Backlog] | None = None
        self._tried = self._trying = self._moved = 0.0
        self._left = self._octets = self._leaving = 0.0

    def look(self, at: float, backlog: Backlog) -> None:
        """Learn what there is at `at`, in seconds that never jump."""
        if self._from is None:
            self._from = at, backlog
            return
        begun, before = self._from
        took = at - begun
        if took < MEASURED_OVER:
            return
        self._from = at, backlog
        kept = math.exp(-took / MEMORY)
        self._tried, self._trying, self._moved = self._tried * kept, self._trying * kept, self._moved * kept
        self._left, self._octets, self._leaving = self._left * kept, self._octets * kept, self._leaving * kept
        tried, left = backlog.tried - before.tried, backlog.left - before.left
        moved = backlog.untried - before.untried
        if 0 < tried < before.untried and abs(moved) >= tried / 2:  # it never ran dry
            self._tried += tried
            self._trying += took
            self._moved += max(-tried, min(moved, tried))  # in one minute much may come
        if left > 0:
            self._left += left
            self._octets += backlog.left_octets - before.left_octets
            self._leaving += took

    @property
    def pace(self) -> Pace:
        """Tell how fast it goes."""
        tries = self._tried / self._trying if self._trying >= STEADY else None
        tries, unsure = (tries, None) if abs(self._moved) >= self._tried / 2 else (None, tries)
        if self._leaving < KNOWN:
            return Pace(tries, unsure=unsure)
        return Pace(tries, self._left / self._leaving, self._octets / self._leaving, unsure)


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant: what it has waiting, how fast that goes, what it weighs and is sure of, its limits (0: none)."""

    backlog: Backlog = Backlog()
    pace: Pace = Pace()
    weight: float = 1.0
    share: float = 0.0
    most_messages: int = 0
    most_octets: int = 0

    @property
    def held(self) -> int:
        """Octets of the disk that it holds, about."""
        return self.backlog.octets + MESSAGE_OCTETS * self.backlog.messages


class Room(NamedTuple):
    """Octets: what is left above the reserve, and how much of that is kept for those below their fair share."""

    left: int
    headroom: int


class Judgement(NamedTuple):
    """Who is refused; and `others`, all but those who are named or `spared`."""

    refused: dict[str, Refusal]
    others: Refusal | None
    spared: Collection[str]

    def of(self, tenant: str) -> Refusal | None:
        """Tell why a tenant is refused, None if it is not."""
        return self.refused.get(tenant) or (None if tenant in self.spared else self.others)


NOBODY = Judgement({}, None, ())


class Court:
    """Decides whom to refuse, so many at a time: there may be thousands."""

    def __init__(self, tenants: Mapping[str, Standing], room: Room, longest: float, before: Judgement = NOBODY) -> None:
        """`longest` is the time that a backlog may take to be tried, `before` the last judgement."""
        self._tenants = tenants
        self._longest = longest
        self._before = before.refused
        self._causes = {name: refusal.cause for name, refusal in before.refused.items()}
        self._disk = _Disk(tenants, room, self._causes, kept=before.others is not None)

    @property
    def others(self) -> Refusal | None:
        """Why those are refused who are no tenants of this court."""
        return None if self._disk.kept is None else _said(self._disk.kept)

    def refused(self, names: Iterable[str]) -> dict[str, Refusal]:
        """Judge some of the tenants; return those that are refused."""
        refused: dict[str, Refusal] = {}
        for name in names:
            each = self._tenants[name]
            slow = _slow(each, self._longest, self._before.get(name))
            found = (*_limited(each, self._causes.get(name)), *slow, *self._disk.judge(name))
            if found:
                refused[name] = _said(max(found, key=lambda refusal: refusal.seconds))
        return refused


def _said(refusal: Refusal) -> Refusal:
    return refusal if math.isfinite(refusal.seconds) else refusal._replace(seconds=UNKNOWN)


def _limited(tenant: Standing, was: Cause | None) -> Iterator[Refusal]:
    for limit, there, pace in (
        (tenant.most_messages, tenant.backlog.messages, tenant.pace.messages),
        (tenant.most_octets, tenant.backlog.octets, tenant.pace.octets),
    ):
        if limit and (there > _RESUME * limit if was is Cause.LIMIT else there >= limit):
            yield Refusal(Cause.LIMIT, _time(there - _RESUME * limit, pace))


def _slow(tenant: Standing, longest: float, was: Refusal | None) -> Iterator[Refusal]:
    tries, untried = tenant.pace.tries, tenant.backlog.untried
    waits = was if was and was.cause is Cause.BACKLOG else None
    if waits and tries is None:
        tries = tenant.pace.unsure  # nothing comes in: they are of the backlog
    if not tries:
        return
    mark = _RESUME_BACKLOG * longest * tries
    if waits:
        mark = max(mark, waits.mark)
        refused = untried > mark
    else:
        refused = untried > longest * tries
    if refused:
        yield Refusal(Cause.BACKLOG, (untried - mark) / tries, mark)


class _Disk:
    """The room that is left, and what of it is whose. `kept` is why those who have nothing reserved are refused."""

    def __init__(self, tenants: Mapping[str, Standing], room: Room, was: Mapping[str, Cause], *, kept: bool) -> None:
        self._tenants = tenants
        self._was = was
        shares = {name: each.share for name, each in tenants.items() if each.share}
        headroom = room.headroom / _RESUME
        self._short = room.left < (headroom if Cause.DISK in was.values() else room.headroom)
        self._weights: Mapping[str, float] = {}
        if self._short:
            holding = {name: each.weight for name, each in tenants.items() if each.held or each.share}
            self._weights = effective_weights(holding, shares)
            self._heavy = sum(self._weights.values())
            self._whole = sum(each.held for each in tenants.values()) + max(0, room.left)
            self._longer = _time_of_all(tenants.values(), headroom - room.left)
        reserved = room.headroom * sum(shares.values())
        self.kept: Refusal | None = None
        if reserved and room.left < (reserved / _RESUME if kept else reserved):
            self.kept = Refusal(Cause.DISK, _time_of_all(tenants.values(), reserved / _RESUME - room.left))

    def judge(self, name: str) -> Iterator[Refusal]:
        """Refuse who holds more than its share, and who would take what is reserved for others."""
        each = self._tenants[name]
        if name in self._weights:
            share = self._whole * self._weights[name] / self._heavy
            until = _RESUME * share
            if each.held > (until if self._was.get(name) is Cause.DISK else share):
                yield Refusal(Cause.DISK, min(_time(each.held - until, each.pace.held), self._longer))
        if self.kept is not None and not each.share:
            yield self.kept


def _time(amount: float, pace: float) -> float:
    return amount / pace if pace > 0 else math.inf


def _time_of_all(tenants: Iterable[Standing], amount: float) -> float:
    """Tell when so many octets have become free, if each tenant's go as measured until it has none."""
    draining = [(each.held / each.pace.held, each.pace.held) for each in tenants if each.pace.held > 0]
    pace, since = sum(each for _, each in draining), 0.0
    for empty_at, its in sorted(draining):
        if amount <= pace * (empty_at - since):
            return since + amount / pace
        amount -= pace * (empty_at - since)
        pace, since = pace - its, empty_at
    return math.inf
