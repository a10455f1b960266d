"""Which entry next: lanes with due work, and their heads, claimed one by one.

In memory are the heads of lanes at work, never the backlog (promise 5).
"""

from collections import deque
from collections.abc import Collection

from mta.clock import Clock
from mta.queue.job import Job
from mta.queue.queue import Queue
from mta.spool.interface import Due, Spool
from mta.spool.records import Lane

LANES = 4096
HEADS_PER_LANE = 64


class Scheduler:
    """Reads ahead in the lanes that are at work and claims their heads."""

    def __init__(self, spool: Spool, queue: Queue, clock: Clock) -> None:
        self._spool = spool
        self._queue = queue
        self._clock = clock
        self._heads: dict[Lane, deque[Due]] = {}
        self._taken: set[str] = set()

    @property
    def taken(self) -> Collection[str]:
        """The ids of entries in hand: read ahead, or claimed and not settled."""
        return self._taken

    async def due_lanes(self) -> list[Lane]:
        """List lanes with due work, tenants in turn."""
        return await self._spool.lanes(self._clock.now(), LANES)

    async def waiting(self, lane: Lane, limit: int) -> int:
        """Tell how many entries of a lane could be claimed now, counting to `limit`."""
        return min(limit, len(await self._read_ahead(lane)))

    async def next_job(self, lane: Lane) -> Job | None:
        """Claim the next entry of a lane, durable on return; None when none is due."""
        while heads := await self._read_ahead(lane):
            due = heads.popleft()
            job = None
            try:
                job = await self._queue.claim(due)
            finally:
                if job is None:
                    self._taken.discard(due.entry.id)
            if job is not None:
                return job
        return None

    def done(self, job: Job) -> None:
        """Forget a job that has been settled."""
        self._taken.discard(job.entry.id)

    def leave(self, lane: Lane) -> None:
        """Forget what was read ahead in a lane that nobody works on any more."""
        for due in self._heads.pop(lane, ()):
            self._taken.discard(due.entry.id)

    async def _read_ahead(self, lane: Lane) -> deque[Due]:
        if not self._heads.get(lane):
            found = await self._spool.heads(lane, self._clock.now(), HEADS_PER_LANE, self._taken)
            # Another may have read the same meanwhile, and the last one who worked here may have left.
            for due in found:
                if due.entry.id not in self._taken:
                    self._taken.add(due.entry.id)
                    self._heads.setdefault(lane, deque()).append(due)
        return self._heads.get(lane) or deque()

    async def next_at(self, after: float) -> float | None:
        """Return when there will be something to do that was not there at `after`; None if nothing is foreseen."""
        times = [await self._spool.next_due_at(after), await self._spool.next_timer_at(after)]
        return min((each for each in times if each is not None), default=None)
