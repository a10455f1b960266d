"""Which entry next: lanes with due work, and their heads, claimed one by one.

In memory are the heads of lanes at work, never the backlog (promise 5).
"""

from collections import deque
from collections.abc import Collection, Mapping

from mta.clock import Clock
from mta.queue.job import Job
from mta.queue.queue import Queue
from mta.spool.interface import NO_PLACES, Due, LanePlace, Spool
from mta.spool.records import Entry, Lane

LANES = 4096  # that can have turns
LANES_KNOWN = 16_384  # with those whose sites have no room
HEADS = 16_384  # read ahead and not claimed yet, of all lanes
_FIRST_READ = 4  # entries of a lane; each later read is twice as large
_LARGEST_READ = 64


class Scheduler:
    """Reads ahead in the lanes that are at work and claims their heads."""

    def __init__(self, spool: Spool, queue: Queue, clock: Clock) -> None:
        self._spool = spool
        self._queue = queue
        self._clock = clock
        self._heads: dict[Lane, deque[Due]] = {}  # the lane that was read last is at the end
        self._ahead = 0  # how many heads
        self._read: dict[Lane, int] = {}  # how many at once, of lanes that are read
        # By lane, because an entry that is moved to another while its old one waits is free to be taken there.
        self._taken: dict[Lane, set[str]] = {}

    @property
    def taken(self) -> Collection[str]:
        """The ids of entries in hand: read ahead, or claimed and not settled."""
        return set[str]().union(*self._taken.values())

    async def due_lanes(
        self,
        limit: int = LANES,
        skip: Collection[Lane] = (),
        but_of: Collection[str] = (),
        after: Mapping[str, LanePlace] = NO_PLACES,
    ) -> list[Lane]:
        """List lanes with due work, tenants in turn: but those in `skip`, of the tenants `but_of`, before a place."""
        return await self._spool.lanes(self._clock.now(), limit, skip, but_of, after)

    async def place_of(self, lane: Lane) -> LanePlace:
        """Tell where a lane stands among those of its tenant."""
        heads = await self._spool.heads(lane, self._clock.now(), 1, ())
        return LanePlace(heads[0].entry.due_at if heads else 0.0, lane)

    async def next_job(self, lane: Lane) -> Job | None:
        """Claim the next entry of a lane, durable on return; None when none is due."""
        while (due := await self.next_due(lane)) is not None:
            if (job := await self.claim(due)) is not None:
                return job
        return None

    async def next_due(self, lane: Lane) -> Due | None:
        """Take the next entry of a lane in hand, to be claimed; None when none is due."""
        heads = await self._read_ahead(lane)
        if not heads:
            return None
        self._ahead -= 1
        return heads.popleft()

    async def claim(self, due: Due) -> Job | None:
        """Claim what is in hand, durable on return; None, and no more in hand, if it has changed meanwhile."""
        job = None
        try:
            job = await self._queue.claim(due)
        finally:
            if job is None:
                self._let_go(due.entry)
        return job

    def done(self, job: Job) -> None:
        """Forget a job that has been settled."""
        self._let_go(job.entry)

    def forget(self, lane: Lane) -> None:
        """Forget what was read ahead in a lane; it is read again when its turn comes."""
        self._read.pop(lane, None)
        for due in self._heads.pop(lane, ()):
            self._let_go(due.entry)
            self._ahead -= 1

    def _let_go(self, entry: Entry) -> None:
        taken = self._taken[entry.lane]
        taken.remove(entry.id)
        if not taken:
            del self._taken[entry.lane]

    async def _read_ahead(self, lane: Lane) -> deque[Due]:
        heads = self._heads.get(lane)
        if heads:
            return heads
        limit = self._read[lane] = min(2 * self._read.get(lane, _FIRST_READ // 2), _LARGEST_READ)
        found = await self._spool.heads(lane, self._clock.now(), limit, self._taken.get(lane, ()))
        heads = self._heads.pop(lane, deque())
        for due in found:
            taken = self._taken.setdefault(due.entry.lane, set())
            if due.entry.id not in taken:  # another may have read the same meanwhile
                taken.add(due.entry.id)
                heads.append(due)
                self._ahead += 1
        if not heads:
            self.forget(lane)
            return heads
        self._heads[lane] = heads
        while self._ahead > HEADS and (longest_ago := next(iter(self._heads))) != lane:
            self.forget(longest_ago)
        return heads

    async def next_at(self, after: float) -> float | None:
        """Return when there will be something to do that was not there at `after`; None if nothing is foreseen."""
        return await self._spool.next_due_at(after)
