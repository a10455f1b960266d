"""The loop of the delivery role: lanes with due work get workers, a worker one connection's worth of jobs.

A worker takes its next job when the outcome of the previous one is committed, so that a crash repeats at
most one SMTP transaction a connection (promise 2).
"""

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Protocol

from mta.clock import Clock
from mta.config import Delivery
from mta.mail.result import Outcome
from mta.queue.job import Job
from mta.queue.queue import Queue
from mta.queue.scheduler import Scheduler
from mta.spool.interface import Spool, SpoolError, Unavailable, Uncertain
from mta.spool.records import Lane

log = logging.getLogger(__name__)

COLLECT_INTERVAL = 60.0  # seconds between looks for content that nothing refers to
SETTLE_RETRY = 1.0  # seconds between attempts to store an outcome while the spool is sick


class Attempts(Protocol):
    """What makes the attempts; mta.delivery.attempt.Attempter."""

    async def attempt(self, job: Job) -> Outcome:
        """Make one attempt; never raises."""

    def settled(self, job: Job) -> None:
        """Hear that the outcome of an attempt is committed."""


class Dispatcher:
    """Hands due entries to workers, within the connection limits of the process and of each lane."""

    def __init__(
        self,
        spool: Spool,
        queue: Queue,
        attempts: Attempts,
        settings: Delivery,
        clock: Clock,
        *,
        poll: float = 1.0,
    ) -> None:
        """`poll` is the safety poll: how long a lost ring of the doorbell can cost, in seconds."""
        self._spool = spool
        self._queue = queue
        self._attempts = attempts
        self._settings = settings
        self._clock = clock
        self._poll = poll
        self._scheduler = Scheduler(spool, queue, clock)
        self._bell = asyncio.Event()
        self._workers: set[asyncio.Task[bool]] = set()
        self._at_work: Counter[Lane] = Counter()
        self._least_served: float = math.inf  # workers of the due lane with the fewest that could get no more
        self._stopping = asyncio.Event()
        self._owner = False
        self._collected_at = clock.monotonic()

    @property
    def in_flight(self) -> int:
        """How many attempts are under way."""
        return len(self._workers)

    def ring(self) -> None:
        """Look again: there may be work."""
        self._bell.set()

    async def run(self) -> None:
        """Deliver until stopped. Durable state alone says what is to be done, so this can die at any point."""
        while not self._stopping.is_set():
            self._bell.clear()
            heeds = self._bell
            try:
                if not self._spool.healthy():  # nothing new is started: it could not be put on record
                    raise Unavailable("the spool is sick")
                if not self._owner:
                    await self._take_over()
                looked_at = self._clock.now()
                await self._turn()
                pause = await self._pause(looked_at)
            except SpoolError as error:
                log.error("delivery=waiting error=%s", error)
                heeds, pause = self._stopping, self._poll  # whoever rings cannot help
            await self._clock.wait(heeds, pause)

    async def stop(self) -> None:
        """Start nothing more and wait for the attempts under way; the caller bounds the wait."""
        self._stopping.set()
        self._bell.set()
        while self._workers:
            await asyncio.wait(self._workers)

    async def _take_over(self) -> None:
        given_back = await self._queue.take_over(self._scheduler.taken)
        self._owner = True
        if given_back:
            log.warning("deliveries=taken-over given_back=%d reason=owner-died-in-flight", given_back)

    async def _turn(self) -> None:
        if await self._queue.run_timers():
            self._bell.set()  # there may be more
        await self._staff(await self._scheduler.due_lanes())
        if self._clock.monotonic() - self._collected_at >= COLLECT_INTERVAL:
            if await self._spool.collect(self._clock.now()):
                self._bell.set()  # there may be more
            else:
                self._collected_at = self._clock.monotonic()

    async def _staff(self, lanes: Sequence[Lane]) -> None:
        """Give lanes workers: one each, whoever has least first; then what is free to those who can use more."""
        served, least = Counter[str](), math.inf
        for lane, workers in self._at_work.items():
            served[lane.tenant] += workers
        could_use_more: list[tuple[Lane, int]] = []
        for lane in sorted(lanes, key=lambda each: (served[each.tenant], self._at_work[each])):
            wanted = self._settings.connections_per_site - self._at_work[lane]
            if wanted <= 0:
                continue
            if not self._free:
                least = min(least, self._at_work[lane])
                continue
            waiting = await self._scheduler.waiting(lane, wanted)
            if waiting and self._free:
                self._start(lane)
                could_use_more.append((lane, waiting - 1))
        for lane, more in could_use_more:
            for _ in range(min(more, self._free)):
                self._start(lane)
        self._least_served = least

    @property
    def _free(self) -> int:
        return 0 if self._stopping.is_set() else self._settings.connections - len(self._workers)

    def _start(self, lane: Lane) -> None:
        task = asyncio.create_task(self._work(lane), name=f"deliver {lane.domain}")
        self._at_work[lane] += 1
        self._workers.add(task)
        task.add_done_callback(partial(self._left, lane))

    def _left(self, lane: Lane, worker: asyncio.Task[bool]) -> None:
        self._workers.discard(worker)
        self._at_work[lane] -= 1
        if not self._at_work[lane]:
            del self._at_work[lane]
            self._scheduler.leave(lane)
        if not worker.cancelled() and worker.result():
            self._bell.set()  # somebody may wait for the slot; after a failure it is the poll that looks again

    async def _work(self, lane: Lane) -> bool:
        """Make attempts for one lane, one after the other, until it has nothing due or others need the slot.

        False if something failed.
        """
        try:
            job = await self._scheduler.next_job(lane)
            while job is not None:
                outcome = await self._attempts.attempt(job)
                job = await self._go_on(job, outcome)
        except SpoolError as error:
            log.error("lane=%s doing=wait error=%s", lane.domain, error)
            if isinstance(error, Uncertain):  # there may be a claim that nobody works on
                self._owner = False
        except Exception:  # a background loop's boundary: a defect met in one lane must not stop the others
            log.exception("lane=%s doing=leave", lane.domain)
        else:
            return True
        return False

    async def _go_on(self, job: Job, outcome: Outcome) -> Job | None:
        """Settle a job and claim the next, in one commit where they meet; both are durable on return."""
        lane, settled = job.entry.lane, asyncio.create_task(self._settle(job, outcome))
        leaves = self._stopping.is_set() or not self._owner or self._at_work[lane] > self._least_served
        following: Job | None = None
        failed: BaseException | None = None
        try:
            if not leaves:
                following = await self._scheduler.next_job(lane)
        except BaseException as error:  # noqa: BLE001 - raised again when the outcome is stored
            failed = error
        await settled
        if failed is not None:
            raise failed
        return following

    async def _settle(self, job: Job, outcome: Outcome) -> None:
        """Store an outcome, however long the spool is sick: what was delivered must not be sent again."""
        while True:
            try:
                await self._queue.settle(job, outcome)
            except SpoolError as error:
                log.error("entry=%s doing=retry-settle error=%s", job.entry.id, error)
            else:
                self._scheduler.done(job)
                self._attempts.settled(job)
                return
            await asyncio.sleep(SETTLE_RETRY)

    async def _pause(self, looked_at: float) -> float:
        """Work out how long there is nothing new to do; work held back by limits comes with the bell."""
        at = await self._scheduler.next_at(looked_at)
        return self._poll if at is None else min(self._poll, max(0.0, at - self._clock.now()))
