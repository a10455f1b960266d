"""Deadlines: whatever an entry does when its time is over, it ends within seconds, once, and goes to nobody after."""

import asyncio
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mta.config import Delivery, Retry
from mta.delivery.dispatcher import Dispatcher
from mta.lab.clock import FakeClock
from mta.mail.envelope import Envelope, Recipient
from mta.mail.event import ENDS, Event, EventType
from mta.mail.ids import new_message_id
from mta.mail.reply import Reply
from mta.mail.result import Outcome, Result, Verdict
from mta.queue.answer import Answer
from mta.queue.deadlines import Deadlines
from mta.queue.job import Job
from mta.queue.limits import Aim, Limits, Start
from mta.queue.queue import TIMERS_A_RUN, TIMERS_AT_ONCE, Queue
from mta.queue.retry import SETTLED
from mta.queue.shaping import Shaping
from mta.queue.submission import Submission
from mta.spool.interface import Change, Due, Refused, Unavailable, Uncertain
from mta.spool.lmdb.spool import LmdbSpool
from mta.spool.records import Origin, Wish
from mta.spool.sealing import Keyring
from tests.contract.stand_in import StandIn

LATE = 5.0  # seconds that an end may come after its deadline
CLAIM = 1.0  # seconds of the clock that may pass while a claim is being stored
SLOTS = 3
OK = Result(Verdict.DELIVERED, Reply(250, "2.0.0", "ok"))
LATER = Result(Verdict.DEFERRED, Reply(451, "4.7.1", "later"))


class Plan(NamedTuple):
    """What becomes of one message: how its peer behaves, how long it has, and whether an operator holds it."""

    peer: str  # defers at once, hangs before the final dot, or replies `after` seconds past it
    seconds: float
    after: float
    held: bool
    sender: str
    tenant: str = "t"


plans = st.builds(
    Plan,
    peer=st.sampled_from(["defers", "hangs", "takes", "defers-late"]),
    seconds=st.integers(1, 40).map(float) | st.floats(0.5, 40),
    after=st.floats(0, 60),
    held=st.booleans(),
    sender=st.sampled_from(["", "s@origin.test"]),
    tenant=st.sampled_from(["t", "u"]),
)


class World:
    """A relay without sockets, whose attempts do what the plans say."""

    def __init__(self, path: Path) -> None:
        self.clock = FakeClock()
        self.spool = LmdbSpool(path, Keyring([os.urandom(32)]), self.clock, map_size=1 << 28, reserve=0, sync=False)
        self.plans: dict[str, Plan] = {}
        self.due: dict[str, float] = {}
        self.under_way: dict[str, tuple[Job, asyncio.Event]] = {}  # before the final dot
        self.late: list[str] = []  # attempts begun past the deadline
        self.held: set[str] = set()  # before anybody began to deliver them
        self.start()

    def start(self) -> None:
        self.queue = Queue(self.spool, self.clock, "relay.test", Retry(), self.ring, random=lambda: 0.5)
        settings, limits = Delivery(connections=SLOTS, connections_per_site=SLOTS), Limits(Shaping(), SLOTS)
        self.dispatcher = Dispatcher(self.spool, self.queue, self, limits, settings, self.clock)
        self.deadlines = Deadlines(self.spool, self.queue, self.break_off, self.clock)

    def ring(self) -> None:
        if hasattr(self, "deadlines"):
            self.dispatcher.ring()
            self.deadlines.ring()

    async def accept(self, plan: Plan) -> None:
        message = new_message_id()
        self.plans[message], self.due[message] = plan, self.clock.now() + plan.seconds
        envelope = Envelope(
            sender=plan.sender, recipients=(Recipient(f"a@{message}.test"),), deliver_by=self.due[message]
        )
        await self.queue.accept(
            Submission(
                id=message, tenant=plan.tenant, envelope=envelope, origin=Origin.RELAY, content=b"S: s\r\n\r\nb\r\n"
            )
        )
        if plan.held:
            record = await self.spool.message(message)
            assert record is not None
            ((entry, claim),) = await self.spool.entries(message)
            if await self.queue.wish(Due(entry, record), claim, Wish(held=True)) is Answer.DONE:
                self.held.add(message)

    # What the dispatcher and the deadlines ask of the attempts

    def knows(self, destination: str) -> bool:
        return False

    async def aim(self, destination: str) -> Aim:
        return Aim(destination)

    async def attempt(self, job: Job, start: Start) -> Outcome:
        plan = self.plans.get(job.message.id)
        result, counted = OK, True
        if plan is not None:
            if self.clock.now() > self.due[job.message.id] + CLAIM:
                self.late.append(job.message.id)
            result = OK if plan.peer == "takes" else LATER
            if plan.peer == "hangs":
                counted = False
                event = asyncio.Event()
                self.under_way[job.entry.id] = job, event
                await event.wait()
            elif plan.peer != "defers":
                await self.clock.wait(asyncio.Event(), plan.after)
        now = self.clock.now()
        return Outcome(results=(result,), started_at=now, ended_at=now, site=start.about.site, counted=counted)

    def settled(self, job: Job) -> None:
        self.under_way.pop(job.entry.id, None)

    def break_off(self, overdue: Callable[[Job], bool]) -> int:
        late = [event for job, event in self.under_way.values() if overdue(job)]
        for each in late:
            each.set()
        return len(late)

    # What the tests ask

    async def events(self) -> list[Event]:
        return [each for _, each in await self.spool.events_after(0, 100_000)]

    async def ended(self) -> dict[str, Event]:
        ends: dict[str, Event] = {}
        for each in await self.events():
            if each.type in ENDS and each.message in self.plans:
                assert each.message not in ends
                ends[each.message] = each
        return ends

    async def pass_by(self, seconds: float) -> None:
        """Let time pass, and what is being committed be committed: one commit comes after the other."""
        await self.clock.advance(seconds)
        for _ in range(8):
            await self.spool.put_record("test", "turn", b"", replace=True)

    async def until(self, holds: Callable[[dict[str, Event]], bool]) -> dict[str, Event]:
        async with asyncio.timeout(30):
            while not holds(ends := await self.ended()):
                await asyncio.sleep(0.001)  # for the thread that commits; the clock stands still meanwhile
        return ends


async def play(path: Path, many: list[Plan]) -> None:
    world = World(path)
    running = [asyncio.create_task(each.run()) for each in (world.dispatcher, world.deadlines)]
    try:
        for each in many:
            await world.accept(each)
        end = max(world.due.values()) + 2 * LATE + max(each.after for each in many)
        while world.clock.now() < end:
            await world.pass_by(1.0)
            owed = {message for message, by in world.due.items() if by + LATE <= world.clock.now()}
            past_dot = {each for each in owed if world.plans[each].peer in ("takes", "defers-late")}
            await world.until(lambda ends, owed=owed - past_dot: owed <= ends.keys())  # type: ignore[misc]
        ends = await world.until(lambda ends: ends.keys() == world.plans.keys())
        assert world.late == []
        for message, event in ends.items():
            plan, late = world.plans[message], event.at - world.due[message]
            if event.type is EventType.DELIVERED:
                assert plan.peer == "takes"
                assert message not in world.held
            else:
                assert event.type is EventType.EXPIRED
                assert event.status == "5.4.7"
                assert 0 <= late <= LATE + (plan.after if plan.peer in ("takes", "defers-late") else 0)
    finally:
        for _, event in world.under_way.values():
            event.set()
        for task in running:
            task.cancel()
        await asyncio.wait(running)
        await world.spool.close()


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(plans, min_size=1, max_size=12))
def test_every_entry_ends_within_seconds_of_its_deadline(many: list[Plan]) -> None:
    with tempfile.TemporaryDirectory() as path:
        asyncio.run(play(Path(path), many))


async def test_more_deadlines_than_a_run_takes(tmp_path: Path) -> None:
    world = World(tmp_path)
    await asyncio.gather(*[world.accept(Plan("defers", 10.0, 0, False, "")) for _ in range(TIMERS_A_RUN + 1)])
    await world.clock.advance(11.0)
    assert [await world.queue.run_timers() for _ in range(3)] == [TIMERS_A_RUN, 1, 0]
    assert {each.type for each in (await world.ended()).values()} == {EventType.EXPIRED}
    await world.spool.close()


async def test_a_mass_of_deadlines_keeps_no_other_tenants_waiting(tmp_path: Path) -> None:
    world = World(tmp_path)
    await asyncio.gather(*[world.accept(Plan("defers", 10.0, 0, False, "")) for _ in range(TIMERS_A_RUN)])
    for _ in range(3):
        await world.accept(Plan("defers", 12.0, 0, False, "", "other"))
    await world.clock.advance(13.0)
    assert await world.queue.run_timers() == TIMERS_A_RUN
    order = [each.tenant for each in await world.events() if each.type is EventType.EXPIRED]
    assert order[:6].count("other") == 3
    await world.spool.close()


async def test_what_cannot_be_stored_ends_a_run(tmp_path: Path) -> None:
    world = World(tmp_path)
    await asyncio.gather(*[world.accept(Plan("defers", 10.0, 0, False, "")) for _ in range(TIMERS_A_RUN)])
    asked = 0

    async def change(wanted: Change) -> bool:
        nonlocal asked
        asked += 1
        if asked > 1:
            raise Uncertain("the disk is full")
        return await world.spool.change(wanted)

    async def timers(*_: object) -> list[Due]:
        raise Unavailable("the disk is gone")

    spool = StandIn(world.spool)
    spool.change = change  # type: ignore[attr-defined]
    queue = Queue(spool, world.clock, "relay.test", Retry(), lambda: None)
    await world.clock.advance(11.0)
    with pytest.raises(Uncertain):
        await queue.run_timers()
    assert 1 < asked <= TIMERS_AT_ONCE
    assert len(await world.ended()) == 1
    spool.timers = timers  # type: ignore[attr-defined]
    with pytest.raises(Unavailable):
        await queue.run_timers()
    await world.spool.close()


async def test_an_attempt_is_broken_off_though_others_cannot_be_stored(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.accept(Plan("hangs", 10.0, 0, False, ""))
    running = asyncio.create_task(world.dispatcher.run())
    while not world.under_way:
        await asyncio.sleep(0.001)
    ((_, broken_off),) = world.under_way.values()
    await world.accept(Plan("defers", 5.0, 0, True, ""))

    async def change(_: Change) -> bool:
        raise Refused("too large")

    spool = StandIn(world.spool)
    spool.change = change  # type: ignore[attr-defined]
    queue = Queue(spool, world.clock, "relay.test", Retry(), lambda: None)
    deadlines = asyncio.create_task(Deadlines(spool, queue, world.break_off, world.clock).run())
    await world.clock.advance(11.0)
    assert broken_off.is_set()
    for each in (running, deadlines):
        each.cancel()
    await asyncio.wait((running, deadlines))
    await world.spool.close()


async def test_who_ends_a_run_ends_what_it_has_begun(tmp_path: Path) -> None:
    world = World(tmp_path)
    await asyncio.gather(*[world.accept(Plan("defers", 10.0, 0, False, "")) for _ in range(TIMERS_AT_ONCE + 1)])
    waiting = asyncio.Event()

    async def change(_: Change) -> bool:
        waiting.set()
        return await asyncio.get_running_loop().create_future()

    spool = StandIn(world.spool)
    spool.change = change  # type: ignore[attr-defined]
    queue = Queue(spool, world.clock, "relay.test", Retry(), lambda: None)
    await world.clock.advance(11.0)
    before = asyncio.all_tasks()
    run = asyncio.create_task(queue.run_timers())
    await waiting.wait()
    for _ in range(TIMERS_AT_ONCE):
        await asyncio.sleep(0)
    run.cancel()
    begun = asyncio.all_tasks() - before
    _, left = await asyncio.wait(begun, timeout=1)
    assert not left
    await world.spool.close()


async def test_a_deadline_over_before_the_start_waits_for_the_clock_and_gets_no_attempt(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.accept(Plan("takes", 10.0, 0, held=False, sender=""))
    await world.clock.advance(60.0)
    world.start()  # nobody knows whether that minute passed, or the clock was set wrong
    running = [asyncio.create_task(each.run()) for each in (world.dispatcher, world.deadlines)]
    for _ in range(int(SETTLED / 10) - 1):
        await world.pass_by(10.0)
        assert await world.ended() == {}
    assert world.late == []
    ((entry, _),) = [each async for each in world.spool.walk_entries()]
    assert entry.revision == 1  # looked at when the clock will be believed, not over and over
    await world.pass_by(20.0)
    (end,) = (await world.until(lambda ends: len(ends) == 1)).values()
    assert end.type is EventType.EXPIRED
    for task in running:
        task.cancel()
    await asyncio.wait(running)
    await world.spool.close()


async def test_a_clock_that_jumps_moves_the_deadline_with_it(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.accept(Plan("defers", 100.0, 0, held=False, sender=""))
    await world.queue.run_timers()
    world.clock.jump(3600.0)
    await world.queue.run_timers()
    await world.clock.advance(98.0)
    await world.queue.run_timers()
    assert await world.ended() == {}
    await world.clock.advance(4.0)
    await world.queue.run_timers()
    assert len(await world.ended()) == 1
    await world.spool.close()


async def test_a_clock_that_jumps_keeps_nobody_from_being_tried(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.accept(Plan("takes", 100.0, 0, held=False, sender=""))
    await world.queue.run_timers()
    world.clock.jump(3600.0)
    assert await world.queue.run_timers() == 1
    ((entry, _),) = [each async for each in world.spool.walk_entries()]
    assert entry.due_at < world.clock.now() < entry.timer_at
    due = (await world.spool.heads(entry.lane, world.clock.now(), 1, ()))[0]
    assert await world.queue.claim(due) is not None
    await world.spool.close()


async def test_a_sick_spool_is_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    world = World(tmp_path)
    await world.accept(Plan("defers", 10.0, 0, held=True, sender=""))
    spool = StandIn(world.spool)
    spool.healthy = lambda: False  # type: ignore[attr-defined]
    running = asyncio.create_task(Deadlines(spool, world.queue, world.break_off, world.clock).run())
    await world.pass_by(20.0)
    assert await world.ended() == {}
    assert "deadlines=waiting error=the spool is sick" in caplog.text
    spool.healthy = lambda: True  # type: ignore[attr-defined]
    await world.pass_by(1.0)
    await world.until(lambda ends: len(ends) == 1)
    running.cancel()
    await asyncio.wait((running,))
    await world.spool.close()
