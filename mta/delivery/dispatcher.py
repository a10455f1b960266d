"""The loop of the delivery role: slots, one for each connection, work for whoever's turn it is (mta.queue.turns).

A worker takes its next job when the outcome of the previous one is committed, so that a crash repeats at
most one SMTP transaction a connection (promise 2).
"""

import asyncio
import contextlib
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from mta.clock import Clock
from mta.config import Delivery
from mta.delivery.gate import Gate
from mta.delivery.lookout import Aims, Lookout
from mta.delivery.sources import Sources
from mta.mail.result import Outcome, Result, Verdict
from mta.queue.drain import DrainRates, FairParts, Rates
from mta.queue.explanation import HeldBy, LaneState
from mta.queue.job import Job
from mta.queue.lessons import Lessons
from mta.queue.limits import NO_ADVICE, Advice, Limits, Start
from mta.queue.queue import Queue
from mta.queue.scheduler import Scheduler
from mta.queue.site_row import SiteRow
from mta.queue.turns import Turns
from mta.queue.weights import Weights
from mta.spool.interface import Due, Spool, SpoolError, Unavailable, Uncertain
from mta.spool.records import Lane, Wish

log = logging.getLogger(__name__)

COLLECT_INTERVAL = 60.0  # seconds between looks for content that nothing refers to
LANES_SHOWN = 3  # of each site, those first found, which have waited for longest: their heads are read
KEEP_INTERVAL = 60.0  # seconds between the times at which is stored what was learned
SETTLE_RETRY = 1.0  # seconds between attempts to store an outcome while the spool is sick


class Attempts(Aims, Protocol):
    """What makes the attempts; mta.delivery.attempt.Attempter."""

    async def attempt(self, job: Job, start: Start) -> Outcome:
        """Make one attempt, at the site it was started for or none; never raises. The source may become another."""

    def settled(self, job: Job) -> None:
        """Hear that the outcome of an attempt is committed."""


class _Slot:
    """One of the process's connections: for which lane, and at which site it has a place."""

    def __init__(self, lane: Lane, site: str, start: Start) -> None:
        self.lane = lane
        self.site: str | None = site
        self.start: Start | None = start  # of the attempt that is to be made or under way
        self.unsettled = False  # the last outcome there is not stored yet, so its connection is in use
        self.owed: str | None = None  # a site whose place is given back when it is


class Dispatcher:
    """Hands due entries to workers, within the connection limits of the process and of each site."""

    def __init__(
        self,
        spool: Spool,
        queue: Queue,
        attempts: Attempts,
        limits: Limits,
        settings: Delivery,
        clock: Clock,
        *,
        sources: Sources | None = None,
        poll: float = 1.0,
    ) -> None:
        """`poll` is the safety poll: how long a lost ring of the doorbell can cost, in seconds.

        `sources` are the configured ones, None: there are none.
        """
        self._spool = spool
        self._queue = queue
        self._attempts = attempts
        self._settings = settings
        self._clock = clock
        self._poll = poll
        self._scheduler = Scheduler(spool, queue, clock)
        self._bell = asyncio.Event()
        self._workers: set[asyncio.Task[bool]] = set()
        self._weights = Weights(spool, clock)
        self._gate = Gate(limits, clock, sources)
        self._lessons = Lessons(spool, limits, clock)
        self._kept_at = -math.inf  # never recalled yet
        self._turns = Turns[str](self._weights.of, self._gate.room)
        self._lookout = Lookout(
            self._scheduler, self._turns, self._weights, self._gate, attempts, self._bell.set, clock,
            connections=settings.connections,
        )  # fmt: skip
        self._stopping = asyncio.Event()
        self._owner = False
        self._collected_at = clock.monotonic()
        self._rates = DrainRates()

    @property
    def stopping(self) -> bool:
        """Whether nothing more is started."""
        return self._stopping.is_set()

    def lane_states(self, lanes: Sequence[Lane]) -> tuple[LaneState, ...]:
        """Say what holds whoever is due in lanes, and how quickly they drain. Whatever holds a lane is told here."""
        sites = {site for lane in lanes if (site := self._turns.site_of(lane)) is not None}
        parts = {site: FairParts(self._turns.lanes_at(site), self._weights.of) for site in sites}
        return tuple([self._lane_state(lane, parts) for lane in lanes])

    def _lane_state(self, lane: Lane, parts: Mapping[str, FairParts]) -> LaneState:
        site = self._turns.site_of(lane)
        found = self._rates.of(lane, site, self._clock.monotonic())
        part = 0.0 if site is None else parts[site].of(lane)
        of_tenant = found.tenant / max(1, self._turns.lanes_of(lane.tenant))
        rates = Rates(lane=found.lane, site=found.site * part, tenant=of_tenant)
        if site is None:
            gate = HeldBy.LOOKUP if self._lookout.looks_up(lane) else HeldBy.UNSEEN
            return LaneState(gate=gate, rates=rates)
        at_work = self._turns.at_work(site)
        why = self._gate.why(site, lane.tenant, at_work)
        return LaneState(
            gate=why.gate,
            site=site,
            at_work=at_work,
            limit=self._gate.connections(site, lane.tenant),
            lanes=parts[site].lanes,
            until=why.until,
            reply=why.reply,
            rates=rates,
        )

    @property
    def in_flight(self) -> int:
        """How many attempts are under way."""
        return len(self._workers)

    async def sites(self) -> list[SiteRow]:
        """Show the sites that have work or taught something, the busiest first."""
        lanes = dict[str, list[Lane]]()
        for lane in self._turns.lanes:
            lanes.setdefault(self._turns.site_of(lane) or "", []).append(lane)
        rows = self._gate.rows(self._turns.at_work, {site: len(waiting) for site, waiting in lanes.items()})
        return [
            msgspec.structs.replace(row, oldest=await self._due_for(lanes.get(row.site, ())[:LANES_SHOWN]))
            for row in rows
        ]

    async def _due_for(self, lanes: Sequence[Lane]) -> float:
        """Tell for how long the first entry of some lanes has been due, in seconds."""
        now = self._clock.now()
        heads = [await self._spool.heads(lane, now, 1, ()) for lane in lanes]
        return max([now - due.entry.due_at for found in heads for due in found], default=0.0)

    async def forget(self, site: str) -> bool:
        """Reset what was learned of a site, in the spool too; tell whether there was anything. Or SpoolError."""
        known = self._gate.forget(site)
        self.look_again()
        await self._lessons.keep()
        return known

    def look_again(self) -> None:
        """Look whether those who are held may start: limits have changed."""
        self._turns.look_at_all()
        self._bell.set()

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
        self._lookout.stop()
        while self._workers:
            await asyncio.wait(self._workers)
        with contextlib.suppress(SpoolError):
            await self._lessons.keep()
            await self._gate.keep()

    async def _take_over(self) -> None:
        if self._kept_at == -math.inf:
            await self._lessons.recall()
            self._kept_at = self._clock.monotonic()
        given_back = await self._queue.take_over(self._scheduler.taken)
        self._owner = True
        if given_back:
            log.warning("deliveries=taken-over given_back=%d reason=owner-died-in-flight", given_back)

    async def _turn(self) -> None:
        await self._lookout.look()
        for by in self._gate.to_look_at():
            self._turns.look(by)
        await self._staff()
        await self._gate.keep()
        if self._clock.monotonic() - self._kept_at >= KEEP_INTERVAL:
            self._kept_at = self._clock.monotonic()
            await self._lessons.keep()
        if self._clock.monotonic() - self._collected_at >= COLLECT_INTERVAL:
            if await self._spool.collect(self._clock.now()):
                self._bell.set()  # there may be more
            else:
                self._collected_at = self._clock.monotonic()

    async def _staff(self) -> None:
        """Give every free slot a worker, as long as there is work that may be done."""
        while self._has_free and (taken := self._turns.take()) is not None:
            lane, site, stays = taken
            slot = _Slot(lane, site, self._gate.started(site, lane.tenant, stays=stays))
            due = None
            try:
                due = await self._next_due(slot)
            finally:
                if due is None:
                    self._turns.idle(lane)
                    self._leave(slot)
            if due is not None:
                task = asyncio.create_task(self._work(slot, due), name=f"deliver {lane.domain}")
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
                assert slot.start is not None  # since the claim
                outcome = await self._attempts.attempt(job, slot.start)
                job = await self._go_on(slot, job, *self._learn(slot, outcome))
        except SpoolError as error:
            log.error("lane=%s doing=wait error=%s", slot.lane.domain, error)
            if isinstance(error, Uncertain):  # there may be a claim that nobody works on
                self._owner = False
        except Exception:  # a background loop's boundary: a defect met in one lane must not stop the others
            log.exception("lane=%s doing=leave", slot.lane.domain)
        else:
            return True
        finally:
            self._leave(slot)
        self._turns.idle(slot.lane)  # until somebody looks again
        return False

    async def _claim(self, slot: _Slot, due: Due | None) -> Job | None:
        """Claim `due`, or else the next of the slot's lane, or of the next whose turn it is; None if there is none."""
        while True:
            if due is None:
                due = await self._next_due(slot)
            if due is None:
                self._turns.idle(slot.lane)
                if not self._move(slot):
                    return None
            elif (job := await self._scheduler.claim(due)) is not None:
                return job
            due = None

    async def _next_due(self, slot: _Slot) -> Due | None:
        """Take the next entry of the slot's lane in hand and charge it, but for the recipient of its turn."""
        due = await self._scheduler.next_due(slot.lane)
        if due is not None and slot.site is not None and len(due.entry.waiting) > 1:
            self._turns.charge(slot.lane, slot.site, len(due.entry.waiting) - 1)
        return due

    def _move(self, slot: _Slot) -> bool:
        """Have the slot work for whose turn it is, in its place or in another; False if it has nothing to do."""
        if self._stopping.is_set() or not self._owner:
            return False
        taken = self._turns.take(slot.site)
        if taken is None:
            return False
        lane, site, stays = taken
        if stays:
            self._end(slot, None)
        else:
            self._leave(slot)
        slot.lane, slot.site, slot.start = lane, site, self._gate.started(site, lane.tenant, stays=stays)
        return True

    def _leave(self, slot: _Slot) -> None:
        """Give the slot's place back; or owe it, while its connection waits for an outcome to be stored."""
        self._end(slot, None)
        site, slot.site = slot.site, None
        if site is None:
            return
        if slot.unsettled:
            slot.unsettled, slot.owed = False, site
        else:
            self._give_back(site)

    def _give_back(self, site: str) -> None:
        if self._turns.leave(site) and self._has_free:
            self._bell.set()  # for whoever waits for that place

    def _learn(self, slot: _Slot, outcome: Outcome) -> tuple[Outcome, Advice]:
        """Learn from an attempt; return its outcome as the shaping rules have it, and what else they say."""
        advice = self._end(slot, outcome)
        for reason in advice.reasons:
            level = logging.INFO if advice.greylisted else logging.WARNING
            log.log(level, "site=%r tenant=%s rule=applied %s", outcome.site, slot.lane.tenant, reason)
        if slot.site is not None and self._turns.look(slot.site) and self._has_free:
            self._bell.set()  # there is room for one more
        return advised(outcome, advice), advice

    def _end(self, slot: _Slot, outcome: Outcome | None) -> Advice:
        """Tell the limits what became of the attempt that a slot began; None: nothing."""
        start, slot.start = slot.start, None
        if start is None:
            return NO_ADVICE
        advice = self._gate.ended(start, outcome)
        for by in self._gate.freed():
            if self._turns.look(by) and self._has_free:
                self._bell.set()
        return advice

    async def _go_on(self, slot: _Slot, job: Job, outcome: Outcome, advice: Advice) -> Job | None:
        """Settle a job and claim the next, in one commit where they meet; both are durable on return."""
        wish = Wish(held=True, reason="; ".join(advice.reasons)) if advice.hold else None
        settled = asyncio.create_task(self._settle(job, outcome, wish))
        slot.unsettled = True
        if outcome.site != slot.site:  # the DNS says something else than it did
            self._turns.idle(slot.lane)
            self._bell.set()
        following: Job | None = None
        failed: BaseException | None = None
        try:
            if self._move(slot):
                following = await self._claim(slot, None)
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
            slot.unsettled = False
            if slot.owed is not None:
                owed, slot.owed = slot.owed, None
                self._give_back(owed)
        if failed is not None:
            raise failed
        return following

    async def _settle(self, job: Job, outcome: Outcome, wish: Wish | None) -> None:
        """Store an outcome, however long the spool is sick: what was delivered must not be sent again."""
        while True:
            try:
                await self._queue.settle(job, outcome, wish)
            except SpoolError as error:
                log.error("entry=%s doing=retry-settle error=%s", job.entry.id, error)
            else:
                self._scheduler.done(job)
                self._attempts.settled(job)
                self._rates.count(job.entry.lane, outcome.site, self._clock.monotonic())
                return
            await asyncio.sleep(SETTLE_RETRY)

    async def _pause(self, looked_at: float) -> float:
        """Work out how long there is nothing new to do; work held back by limits comes with the bell."""
        at = await self._scheduler.next_at(looked_at)
        pause = self._poll if at is None else min(self._poll, max(0.0, at - self._clock.now()))
        looks = (self._lookout.next_look(), self._gate.next_look())
        return min([pause, *[each for each in looks if each is not None]])


def advised(outcome: Outcome, advice: Advice) -> Outcome:
    """Make of an outcome what the shaping rules say: who was deferred has failed, or waits for longer."""
    if advice is NO_ADVICE:
        return outcome
    return msgspec.structs.replace(
        outcome,
        results=tuple([_bounced(each) if _bounces(each, advice) else each for each in outcome.results]),
        retry_after=outcome.retry_after if advice.retry_after is None else advice.retry_after,
        greylisted=advice.greylisted,
    )


def _bounces(result: Result, advice: Advice) -> bool:
    return result.remote and result.verdict is Verdict.DEFERRED and result.reply in advice.bounced


def _bounced(result: Result) -> Result:
    return msgspec.structs.replace(result, verdict=Verdict.FAILED)
