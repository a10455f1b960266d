"""The loop of the delivery role: slots, one for each connection, work for whoever's turn it is (mta.queue.turns).

A worker takes its next job when the outcome of the previous one is committed, so that a crash repeats at
most one SMTP transaction a connection (promise 2).
"""

import asyncio
import logging
from collections.abc import Collection
from typing import Protocol

from mta.accounts.tenants import weight_of
from mta.clock import Clock
from mta.config import Delivery
from mta.mail.result import Outcome
from mta.queue.job import Job
from mta.queue.queue import Queue
from mta.queue.scheduler import Scheduler
from mta.queue.turns import Turns
from mta.spool.interface import Due, Spool, SpoolError, Unavailable, Uncertain
from mta.spool.records import Lane

log = logging.getLogger(__name__)

COLLECT_INTERVAL = 60.0  # seconds between looks for content that nothing refers to
STREAK = 4  # deliveries more that a slot stays at its site in its tenant's turn, for the sake of the connection
WEIGHTS_INTERVAL = 10.0  # seconds after which a changed weight is known
SETTLE_RETRY = 1.0  # seconds between attempts to store an outcome while the spool is sick


class Attempts(Protocol):
    """What makes the attempts; mta.delivery.attempt.Attempter."""

    async def attempt(self, job: Job) -> Outcome:
        """Make one attempt; never raises."""

    def settled(self, job: Job) -> None:
        """Hear that the outcome of an attempt is committed."""


class _Slot:
    """One of the process's connections: for which lane, at which site, and for how many deliveries it has stayed."""

    def __init__(self, lane: Lane, site: str) -> None:
        self.lane = lane
        self.site = site
        self.streak = 0
        self.held = True  # the place at the site
        self.unsettled: str | None = None  # the site whose connection waits for an outcome to be stored
        self.owed = False  # the place there, which is given back then


class Dispatcher:
    """Hands due entries to workers, within the connection limits of the process and of each site."""

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
        self._weights: dict[str, int] = {}
        self._weighed_at = clock.monotonic()
        self._turns = Turns[str](
            lambda tenant: self._weights.get(tenant, 1), lambda _, at_work: at_work < settings.connections_per_site
        )
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
        lanes = await self._scheduler.due_lanes()
        await self._weigh({lane.tenant for lane in lanes})
        for lane in lanes:
            self._turns.ready(lane, lane.domain)
        await self._staff()
        if self._clock.monotonic() - self._collected_at >= COLLECT_INTERVAL:
            if await self._spool.collect(self._clock.now()):
                self._bell.set()  # there may be more
            else:
                self._collected_at = self._clock.monotonic()

    async def _weigh(self, tenants: Collection[str]) -> None:
        """Look up weights: those of tenants with work, now and then anew."""
        if self._clock.monotonic() - self._weighed_at >= WEIGHTS_INTERVAL:
            self._weighed_at = self._clock.monotonic()
            for each in tenants:
                self._weights[each] = await weight_of(self._spool, each)
        for each in tenants:
            if each not in self._weights:
                self._weights[each] = await weight_of(self._spool, each)

    async def _staff(self) -> None:
        """Give every free slot a worker, as long as there is work that may be done."""
        while self._has_free and (taken := self._turns.take()) is not None:
            slot = _Slot(*taken)
            due = None
            try:
                due = await self._next_due(slot)
            finally:
                if due is None:
                    self._turns.idle(slot.lane)
                    self._leave(slot)
            if due is not None:
                task = asyncio.create_task(self._work(slot, due), name=f"deliver {slot.lane.domain}")
                self._workers.add(task)
                task.add_done_callback(self._left)

    @property
    def _has_free(self) -> bool:
        return len(self._workers) < self._settings.connections and not self._stopping.is_set()

    def _left(self, worker: asyncio.Task[bool]) -> None:
        self._workers.discard(worker)
        if not worker.cancelled() and worker.result():
            self._bell.set()  # somebody may wait for the slot; after a failure it is the poll that looks again

    async def _work(self, slot: _Slot, due: Due) -> bool:
        """Make attempts, one after the other, for whoever's turn it is, until there is nobody; False if one failed."""
        try:
            job = await self._claim(slot, due)
            while job is not None:
                outcome = await self._attempts.attempt(job)
                job = await self._go_on(slot, job, outcome)
        except SpoolError as error:
            log.error("lane=%s doing=wait error=%s", slot.lane.domain, error)
            if isinstance(error, Uncertain):  # there may be a claim that nobody works on
                self._owner = False
        except Exception:  # a background loop's boundary: a defect met in one lane must not stop the others
            log.exception("lane=%s doing=leave", slot.lane.domain)
        else:
            return True
        finally:
            if slot.held:
                self._leave(slot)
        self._turns.idle(slot.lane)  # until somebody looks again
        return False

    async def _claim(self, slot: _Slot, due: Due | None = None) -> Job | None:
        """Claim `due` or else the next of the slot's lane, or of the next whose turn it is; None if there is none."""
        job: Job | None = None
        while job is None:
            if due is None:
                due = await self._next_due(slot)
            if due is not None:
                job = await self._scheduler.claim(due)
                due = None
            else:
                self._turns.idle(slot.lane)
                self._leave(slot)
                if not self._take(slot):
                    return None
        return job

    async def _next_due(self, slot: _Slot) -> Due | None:
        """Take the next entry of the slot's lane in hand and charge it, but for the recipient of its turn."""
        due = await self._scheduler.next_due(slot.lane)
        if due is not None and len(due.entry.waiting) > 1:
            self._turns.charge(slot.lane, slot.site, len(due.entry.waiting) - 1)
        return due

    def _take(self, slot: _Slot) -> bool:
        """Take whose turn it is: at the same site, for a while, for the sake of the connection."""
        if self._stopping.is_set() or not self._owner:
            return False
        taken = self._turns.take(slot.site if slot.streak < STREAK else None)
        if taken is None:
            return False
        slot.lane, site = taken
        slot.streak = slot.streak + 1 if site == slot.site else 0
        slot.site = site
        slot.held = True
        return True

    def _leave(self, slot: _Slot) -> None:
        """Give the place at the site back; or owe it, while the connection there waits for an outcome to be stored."""
        slot.held = False
        if slot.site == slot.unsettled and not slot.owed:
            slot.owed = True
        else:
            self._turns.leave(slot.site)

    async def _go_on(self, slot: _Slot, job: Job, outcome: Outcome) -> Job | None:
        """Settle a job and claim the next, in one commit where they meet; both are durable on return."""
        settled = asyncio.create_task(self._settle(job, outcome))
        site = slot.site
        self._leave(slot)
        takes = self._take(slot)
        slot.unsettled = site
        if not takes or slot.site != site:
            self._turns.hold(site)
            slot.owed = True
        following: Job | None = None
        failed: BaseException | None = None
        try:
            if takes:
                following = await self._claim(slot)
        except BaseException as error:  # noqa: BLE001 - raised again when the outcome is stored
            failed = error
        try:
            await settled
        except BaseException:  # a defect: nobody will work on what has been claimed
            if following is not None:
                self._scheduler.done(following)
                self._owner = False
            raise
        finally:
            slot.unsettled = None
            if slot.owed:
                slot.owed = False
                if self._turns.leave(site) and self._has_free:
                    self._bell.set()  # for whoever waits for that place
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
