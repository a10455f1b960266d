"""Whatever happens in whatever order: nothing is lost, every recipient ends once, the spool fits together."""

import asyncio
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mta.config import Retry
from mta.lab.clock import FakeClock
from mta.mail.envelope import Envelope, Recipient
from mta.mail.event import ENDS, Event
from mta.mail.ids import new_message_id
from mta.mail.reply import Reply
from mta.mail.result import Outcome, Result, Verdict
from mta.queue.answer import Answer
from mta.queue.job import Job
from mta.queue.queue import Queue
from mta.queue.scheduler import Scheduler
from mta.queue.submission import Submission
from mta.spool.interface import Due
from mta.spool.lmdb.care import walk
from mta.spool.lmdb.spool import LmdbSpool
from mta.spool.records import Claim, MessageClass, Origin, State, Wish
from mta.spool.sealing import Keyring

KEYRING = Keyring([os.urandom(32)])
RESULTS = {
    Verdict.DELIVERED: Result(Verdict.DELIVERED, Reply(250, "2.0.0", "ok")),
    Verdict.DEFERRED: Result(Verdict.DEFERRED, Reply(451, "4.7.1", "later")),
    Verdict.FAILED: Result(Verdict.FAILED, Reply(550, "5.1.1", "never")),
}
WISHES = st.builds(
    Wish,
    end=st.sampled_from([None, None, None, State.DROPPED, State.CANCELLED]),
    held=st.sampled_from([None, True, True, False]),
    relay=st.sampled_from([None, "relay.test:25", ""]),
    message_class=st.sampled_from([None, *MessageClass]),
)
SENDERS = ("s@origin.test", "")


class QueueMachine(RuleBasedStateMachine):
    """One installation: doors, a delivery process that may die, an operator, and time."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.directory = Path(tempfile.mkdtemp())
        self.clock = FakeClock()
        self.expected = Counter[tuple[str, str]]()
        self.jobs: list[Job] = []
        self.dead: list[Job] = []  # claimed by a process that died
        self.epoch = 0
        self.loop.run_until_complete(self._open())

    async def _open(self) -> None:
        self.spool = LmdbSpool(self.directory, KEYRING, self.clock, map_size=1 << 28, reserve=0, sync=False)
        await self._restart()

    async def _restart(self) -> None:
        self.queue = Queue(self.spool, self.clock, "relay.test", Retry(), lambda: None, random=lambda: 0.5)
        self.scheduler = Scheduler(self.spool, self.queue, self.clock)
        await self.queue.take_over()

    def teardown(self) -> None:
        self.loop.run_until_complete(self.end())
        self.loop.run_until_complete(self.spool.close())
        self.loop.close()
        shutil.rmtree(self.directory)

    @rule(
        recipients=st.lists(st.sampled_from(["a@x.test", "b@x.test", "a@y.test"]), min_size=1, max_size=4),
        sender=st.sampled_from(SENDERS),
        size=st.sampled_from([10, 400_000]),
        copies=st.sampled_from([0, 0, 1, 3]),
        times=st.sampled_from([(0, 0), (0, 9000), (5000, 0), (5000, 9000)]),
    )
    def accept(self, recipients: list[str], sender: str, size: int, copies: int, times: tuple[int, int]) -> None:
        """Accept a message, or `copies` that have their content in common."""
        now = self.clock.now()
        release, deadline = (each and now + each for each in times)
        envelope = Envelope(
            sender=sender,
            recipients=tuple(Recipient(each) for each in recipients),
            release_at=release,
            deliver_by=deadline,
        )
        self.loop.run_until_complete(self._accept(envelope, size, copies))

    async def _accept(self, envelope: Envelope, size: int, copies: int) -> None:
        content = self.spool.store_content()
        await content.write(b"S: s\r\n\r\n" + b"x" * size)
        segments = (await content.finish(),)
        one = Submission(id=new_message_id(), tenant="t", envelope=envelope, origin=Origin.RELAY)
        if copies:
            several = [msgspec.structs.replace(one, id=new_message_id(), shared=segments) for _ in range(copies)]
        else:
            several = [msgspec.structs.replace(one, stored=segments)]
        await self.queue.accept(*several)
        self.expected.update((each.id, to.address) for each in several for to in envelope.recipients)

    @rule(limit=st.integers(1, 3))
    def claim(self, limit: int) -> None:
        self.loop.run_until_complete(self._claim(limit))

    async def _claim(self, limit: int) -> None:
        for lane in await self.scheduler.due_lanes():
            while limit and (job := await self.scheduler.next_job(lane)) is not None:
                assert not job.entry.held
                self.jobs.append(job)
                limit -= 1
            if not limit:
                break

    @precondition(lambda self: self.jobs)
    @rule(which=st.integers(0, 9), verdicts=st.lists(st.sampled_from(list(Verdict)), min_size=4, max_size=4))
    def settle(self, which: int, verdicts: list[Verdict]) -> None:
        job = self.jobs.pop(which % len(self.jobs))
        assert self.loop.run_until_complete(self._settle(job, verdicts))
        self.scheduler.done(job)

    @precondition(lambda self: self.dead)
    @rule()
    def settle_late(self) -> None:
        assert not self.loop.run_until_complete(self._settle(self.dead.pop(), [Verdict.DELIVERED] * 4))

    async def _settle(self, job: Job, verdicts: list[Verdict]) -> bool:
        results = tuple(RESULTS[each] for each in verdicts[: len(job.recipients)])
        now = self.clock.now()
        return await self.queue.settle(job, Outcome(results=results, started_at=now, ended_at=now, site="mx"))

    @rule(seconds=st.sampled_from([31.0, 4000.0, 30_000.0, 260_000.0]))
    def time_passes(self, seconds: float) -> None:
        self.loop.run_until_complete(self._time_passes(seconds))

    async def _time_passes(self, seconds: float) -> None:
        await self.clock.advance(seconds)
        while await self.queue.run_timers():
            pass

    @rule(seconds=st.sampled_from([-3600.0, 300_000.0]))
    def clock_jumps(self, seconds: float) -> None:
        self.clock.jump(seconds)
        self.loop.run_until_complete(self._time_passes(1.0))

    @rule()
    def delivery_dies(self) -> None:
        self.dead += self.jobs
        self.jobs = []
        self.loop.run_until_complete(self._restart())

    @rule(wish=WISHES, which=st.integers(0, 9))
    def operator_wishes(self, wish: Wish, which: int) -> None:
        self.loop.run_until_complete(self._operate(lambda due, claim: self.queue.wish(due, claim, wish), which))

    @rule(which=st.integers(0, 9))
    def operator_retries(self, which: int) -> None:
        self.loop.run_until_complete(self._operate(lambda due, claim: self.queue.retry(due, claim, ""), which))

    async def _operate(self, act: Callable[[Due, Claim | None], Awaitable[Answer]], which: int) -> None:
        entries = [each async for each in self.spool.walk_entries()]
        for entry, claim in entries[which % len(entries) :][:2] if entries else ():
            message = await self.spool.message(entry.message)
            assert message is not None
            answer = await act(Due(entry, message), claim)
            in_flight = entry.id in {job.entry.id for job in self.jobs}
            assert answer in ((Answer.IN_FLIGHT,) if in_flight else (Answer.DONE, Answer.UNCHANGED))

    @rule()
    def collect(self) -> None:
        self.loop.run_until_complete(self.spool.collect(self.clock.now()))

    @invariant()
    def the_spool_fits_together(self) -> None:
        with self.spool._view() as view:
            assert walk(view).problems == []

    @invariant()
    def nobody_is_lost_and_nobody_ends_twice(self) -> None:
        self.loop.run_until_complete(self._nobody_is_lost())

    async def _nobody_is_lost(self) -> None:
        ended = Counter((each.message, each.recipient) for each in await self._events() if each.type in ENDS)
        stored = [each async for each in self.spool.walk_entries()]
        waiting = Counter((entry.message, each.recipient.address) for entry, _ in stored for each in entry.waiting)
        ours = {message for message, _ in self.expected}
        assert Counter({key: n for key, n in (ended + waiting).items() if key[0] in ours}) == self.expected
        claimed = {job.entry.id for job in self.jobs}
        assert {entry.id for entry, claim in stored if claim} == claimed

    async def _events(self) -> list[Event]:
        events = await self.spool.events_after(0, 100_000)
        assert [number for number, _ in events] == list(range(1, len(events) + 1))
        assert len({event.id for _, event in events}) == len(events)
        return [event for _, event in events]

    async def end(self) -> None:
        """Whatever state it is in, held too, the queue runs empty, and leaves nothing behind."""
        for _ in range(40):
            await self._time_passes(20_000.0)
            await self._claim(1000)
            while self.jobs:
                job = self.jobs.pop()
                assert await self._settle(job, [Verdict.DELIVERED] * 4)
                self.scheduler.done(job)
        await self._nobody_is_lost()
        assert [each async for each in self.spool.walk_entries()] == []
        while await self.spool.collect(self.clock.now() + 4000):
            pass
        with self.spool._view() as view:
            left = walk(view)
        assert left.problems == []
        assert {name for name, count in left.counts.items() if count} <= {"events"}
        for lane in list(self.scheduler._heads):  # read ahead, then ended by their deadline
            self.scheduler.forget(lane)
        assert not self.scheduler.taken


TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = settings(
    max_examples=15, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
