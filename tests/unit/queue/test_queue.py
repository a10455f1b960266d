"""The queue on a real spool: what accept, claim, settle and the timers leave behind."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

import msgspec
import pytest

from mta.accounts import tenants
from mta.config import Retry
from mta.lab.clock import FakeClock
from mta.mail.envelope import Envelope, Notify, Recipient
from mta.mail.ids import new_message_id
from mta.mail.reply import Reply
from mta.mail.result import Outcome, Result, Verdict
from mta.queue.answer import Answer
from mta.queue.job import Job
from mta.queue.queue import Queue
from mta.queue.scheduler import Scheduler
from mta.queue.submission import Receipt, Submission
from mta.spool.interface import Due, Keep, Kept, Refused, Settlement, Spool, Taken, Terms, Throttled, Toll
from mta.spool.lmdb.spool import LmdbSpool
from mta.spool.records import Claim, Entry, Lane, MessageClass, Origin, Segment, State, Wish
from mta.spool.sealing import Keyring
from tests.contract.stand_in import StandIn

DAY = 86_400.0
OK = Result(Verdict.DELIVERED, Reply(250, "2.0.0", "ok"))
LATER = Result(Verdict.DEFERRED, Reply(451, "4.7.1", "try later"))
NEVER = Result(Verdict.FAILED, Reply(550, "5.1.1", "no such user"))


class Fixture:
    """A queue, its spool and clock, and the shortest words for what tests do with them."""

    def __init__(self, spool: Spool, clock: FakeClock) -> None:
        self.spool = spool
        self.clock = clock
        self.rings = 0
        self.queue = Queue(spool, clock, "relay.test", Retry(), self.ring, random=lambda: 0.5)
        self.scheduler = Scheduler(spool, self.queue, clock)

    def ring(self) -> None:
        self.rings += 1

    async def accept(self, *recipients: str | Recipient, sender: str = "sender@acme.test", content: bytes = b"") -> str:
        tos = tuple(each if isinstance(each, Recipient) else Recipient(each) for each in recipients)
        submission = Submission(
            id=new_message_id(), tenant="acme", envelope=Envelope(sender=sender, recipients=tos),
            origin=Origin.RELAY, content=content or b"Subject: s\r\n\r\nbody\r\n",
        )  # fmt: skip
        (receipt,) = await self.queue.accept(submission)
        return receipt.message_id

    async def jobs(self) -> list[Job]:
        jobs: list[Job] = []
        for lane in await self.scheduler.due_lanes():
            while (job := await self.scheduler.next_job(lane)) is not None:
                jobs.append(job)
        return jobs

    async def job(self) -> Job:
        (job,) = await self.jobs()
        return job

    async def settle(self, job: Job, *results: Result, counted: bool = True) -> bool:
        now = self.clock.now()
        every = results if len(results) == len(job.recipients) else results * len(job.recipients)
        outcome = Outcome(
            results=every, started_at=now, ended_at=now, site="mx", relay="mx[192.0.2.1]:25", counted=counted
        )
        settled = await self.queue.settle(job, outcome)
        self.scheduler.done(job)
        return settled

    async def standing(self, message_id: str) -> tuple[Due, Claim | None]:
        message = await self.spool.message(message_id)
        assert message is not None
        ((entry, claim),) = await self.spool.entries(message_id)
        return Due(entry, message), claim

    async def wish(self, message_id: str, wish: Wish) -> Answer:
        return await self.queue.wish(*await self.standing(message_id), wish)

    async def told(self) -> list[str]:
        return [f"{each.type} {each.recipient}".strip() for _, each in await self.spool.events_after(0, 1000)]


@pytest.fixture
async def fix(tmp_path: Path) -> AsyncIterator[Fixture]:
    clock = FakeClock()
    spool = LmdbSpool(tmp_path / "spool", Keyring([os.urandom(32)]), clock, map_size=1 << 30, reserve=0)
    fixture = Fixture(spool, clock)
    await fixture.queue.take_over()
    yield fixture
    await spool.close()


async def test_one_entry_for_fifty_recipients_of_a_domain(fix: Fixture) -> None:
    many = [f"user{n}@big.test" for n in range(120)]
    await fix.accept(*many, "one@small.test")
    jobs = await fix.jobs()
    assert sorted((job.entry.domain, len(job.recipients)) for job in jobs) == [
        ("big.test", 20), ("big.test", 50), ("big.test", 50), ("small.test", 1),
    ]  # fmt: skip
    assert {each.address for job in jobs for each in job.recipients} == {*many, "one@small.test"}


async def test_delivered_leaves_only_events(fix: Fixture) -> None:
    await fix.accept("a@x.test")
    await fix.settle(await fix.job(), OK)
    assert await fix.told() == ["accepted", "delivered a@x.test"]
    assert [each async for each in fix.spool.walk_entries()] == []


async def test_deferred_comes_back_by_the_schedule(fix: Fixture) -> None:
    await fix.accept("a@x.test")
    for wait in (30, 300, 1800, 7200):
        await fix.settle(await fix.job(), LATER)
        assert await fix.jobs() == []
        await fix.clock.advance(wait - 1)
        assert await fix.jobs() == []
        await fix.clock.advance(1)
    job = await fix.job()
    assert (job.claim.attempt, job.entry.last_reply) == (5, "451 4.7.1 try later")


async def test_an_uncounted_attempt_costs_no_step(fix: Fixture) -> None:
    await fix.accept("a@x.test")
    for attempt in range(1, 5):
        job = await fix.job()
        assert (job.claim.attempt, job.entry.steps) == (attempt, 0)
        await fix.settle(job, LATER, counted=False)
        await fix.clock.advance(30)


async def test_partial_recipients_wait_alone(fix: Fixture) -> None:
    await fix.accept("a@x.test", "b@x.test", "c@x.test")
    await fix.settle(await fix.job(), OK, LATER, NEVER)
    await fix.clock.advance(30)
    dsn, again = sorted(await fix.jobs(), key=lambda job: job.message.sender)
    assert [each.address for each in again.recipients] == ["b@x.test"]
    assert (dsn.message.origin, [each.address for each in dsn.recipients]) == (Origin.DSN, ["sender@acme.test"])
    await fix.settle(again, OK)
    assert await fix.told() == [
        "accepted", "delivered a@x.test", "deferred b@x.test", "bounced c@x.test", "dsn_sent c@x.test", "accepted",
        "delivered b@x.test",
    ]  # fmt: skip


async def test_event_ids_are_unique_and_name_the_message(fix: Fixture) -> None:
    message = await fix.accept("a@x.test", "b@x.test", "c@y.test")
    for job in await fix.jobs():
        await fix.settle(job, LATER)
    await fix.clock.advance(40)
    for job in await fix.jobs():
        await fix.settle(job, OK)
    ids = [each.id for _, each in await fix.spool.events_after(0, 100)]
    assert len(set(ids)) == len(ids) == 7
    assert all(each.startswith(message + ".") for each in ids)


@pytest.mark.parametrize(
    ("sender", "notify", "told"),
    [
        ("s@acme.test", Notify.UNSET, True),
        ("s@acme.test", Notify.FAILURE, True),
        ("s@acme.test", Notify.SUCCESS | Notify.DELAY, False),
        ("s@acme.test", Notify.NEVER, False),
        ("", Notify.UNSET, False),
    ],
)
async def test_who_gets_a_dsn_of_failure(fix: Fixture, sender: str, notify: Notify, told: bool) -> None:
    await fix.accept(Recipient("a@x.test", notify=int(notify)), sender=sender)
    await fix.settle(await fix.job(), NEVER)
    assert ("dsn_sent a@x.test" in await fix.told()) is told
    assert len(await fix.jobs()) == told


async def test_a_failed_dsn_is_not_reported(fix: Fixture) -> None:
    await fix.accept("a@x.test")
    await fix.settle(await fix.job(), NEVER)
    await fix.settle(await fix.job(), NEVER)
    assert await fix.jobs() == []
    assert [each async for each in fix.spool.walk_entries()] == []


async def test_a_relayed_success_is_reported_when_asked_for(fix: Fixture) -> None:
    await fix.accept(Recipient("a@x.test", notify=int(Notify.SUCCESS)), "b@x.test")
    await fix.settle(await fix.job(), msgspec.structs.replace(OK, relayed=True))
    assert await fix.told() == [
        "accepted", "delivered a@x.test", "delivered b@x.test", "dsn_sent a@x.test", "accepted",
    ]  # fmt: skip


async def test_the_delay_notice_comes_once_after_four_hours(fix: Fixture) -> None:
    await fix.accept("a@x.test")
    await fix.settle(await fix.job(), LATER)
    for _ in range(10):
        await fix.clock.advance(DAY / 24)
        await fix.queue.run_timers()
    assert (await fix.told()).count("dsn_sent a@x.test") == 1
    assert (await fix.told())[:3] == ["accepted", "deferred a@x.test", "dsn_sent a@x.test"]


async def test_expired_after_72_hours_with_its_reason(fix: Fixture) -> None:
    await fix.accept(Recipient("a@x.test", notify=int(Notify.FAILURE)))
    await fix.settle(await fix.job(), LATER)
    for _ in range(71):
        await fix.clock.advance(DAY / 24)
        await fix.queue.run_timers()
    assert "expired a@x.test" not in await fix.told()
    await fix.clock.advance(DAY / 24 + 1)
    await fix.queue.run_timers()
    assert (await fix.told())[-3:] == ["expired a@x.test", "dsn_sent a@x.test", "accepted"]
    dsn = await fix.job()
    assert b"try later" in await fix.spool.content(dsn.message)


async def test_a_clock_that_jumps_expires_nothing(fix: Fixture) -> None:
    await fix.accept(Recipient("a@x.test", notify=int(Notify.FAILURE)))
    await fix.settle(await fix.job(), LATER)
    fix.clock.jump(3 * DAY + 1)
    for _ in range(5):
        await fix.queue.run_timers()
        await fix.settle(await fix.job(), LATER)
        await fix.clock.advance(20_000)
    assert "expired a@x.test" not in await fix.told()


async def test_a_successor_takes_over_what_was_in_flight(fix: Fixture) -> None:
    await fix.accept("a@x.test")
    orphan = await fix.job()
    successor = Fixture(fix.spool, fix.clock)
    assert await successor.queue.take_over() == 1
    assert await successor.jobs() == []
    assert not await fix.settle(orphan, OK)
    await fix.clock.advance(30)
    job = await successor.job()
    assert (job.claim.attempt, job.claim.epoch > orphan.claim.epoch) == (2, True)
    assert await successor.settle(job, OK)


async def test_what_a_dead_process_had_in_flight_is_given_back_in_few_commits(fix: Fixture) -> None:
    for n in range(30):
        await fix.accept(f"a@x{n}.test")
    assert len(await fix.jobs()) == 30
    before = commits(fix)
    assert await Fixture(fix.spool, fix.clock).queue.take_over() == 30
    assert commits(fix) - before <= 3


def commits(fix: Fixture) -> int:
    assert isinstance(fix.spool, LmdbSpool)
    return int(fix.spool._writer.followed.environment.env.info()["last_txnid"])


async def test_a_retry_does_not_release_what_its_sender_has_sent_for_later(fix: Fixture) -> None:
    later = fix.clock.now() + 60
    message = new_message_id()
    envelope = Envelope(sender="", recipients=(Recipient("a@x.test"),), release_at=later)
    await fix.queue.accept(
        Submission(id=message, tenant="acme", envelope=envelope, origin=Origin.RELAY, content=b"S: s\r\n\r\nb\r\n")
    )
    assert await fix.queue.retry(*await fix.standing(message), "by root") is Answer.UNCHANGED
    assert await fix.jobs() == []
    await fix.clock.advance(60)
    assert len(await fix.jobs()) == 1


async def scheduled(fix: Fixture, seconds: float, *, notify: int = 0, **envelope: float) -> str:
    message = new_message_id()
    later = fix.clock.now() + seconds
    submission = Submission(
        id=message,
        tenant="acme",
        envelope=Envelope(
            sender="s@acme.test", recipients=(Recipient("a@x.test", notify),), release_at=later, **envelope
        ),  # type: ignore[arg-type]
        origin=Origin.HTTP,
        content=b"S: s\r\n\r\nb\r\n",
    )
    await fix.queue.accept(submission)
    return message


async def test_a_scheduled_message_has_another_time(fix: Fixture) -> None:
    now = fix.clock.now()
    message = await scheduled(fix, 60, notify=Notify.FAILURE)
    before = fix.rings
    assert await fix.queue.reschedule(*await fix.standing(message), now + 600, "by root") is Answer.DONE
    assert fix.rings == before + 1
    due, _ = await fix.standing(message)
    assert (due.entry.due_at, due.entry.expires_at, due.entry.timer_at) == (
        *(now + 600, now + 600 + 3 * DAY, now + 600 + 3 * DAY),
    )
    await fix.clock.advance(60)
    assert await fix.jobs() == []
    assert await fix.queue.retry(*await fix.standing(message), "by root") is Answer.UNCHANGED  # its new time counts
    assert await fix.queue.reschedule(*await fix.standing(message), now, "by root") is Answer.DONE
    job = await fix.job()
    assert job.entry.due_at == now + 60
    assert await fix.queue.reschedule(*await fix.standing(message), now + 600, "by root") is Answer.IN_FLIGHT
    await fix.settle(job, LATER)
    assert await fix.queue.reschedule(*await fix.standing(message), now + 600, "by root") is Answer.UNCHANGED


async def test_what_follows_from_a_time_moves_with_it(fix: Fixture) -> None:
    now = fix.clock.now()
    notice = (await fix.standing(await scheduled(fix, 60)))[0].entry.timer_at - 60 - now
    noticed, firm = await scheduled(fix, 60), await scheduled(fix, 60, deliver_by=now + 900)
    for message in (noticed, firm):
        assert await fix.queue.reschedule(*await fix.standing(message), now + 600, "by root") is Answer.DONE
    (due, _), (ends, _) = await fix.standing(noticed), await fix.standing(firm)
    assert (due.entry.timer_at, due.entry.expires_at) == (now + 600 + notice, now + 600 + 3 * DAY)
    assert ends.entry.expires_at == ends.entry.timer_at == now + 900
    stale = msgspec.structs.replace(due.entry, revision=due.entry.revision - 1)
    assert await fix.queue.reschedule(Due(stale, due.message), None, now + 700, "by root") is Answer.BUSY


async def test_retry_and_drop_by_an_operator(fix: Fixture) -> None:
    message = await fix.accept("a@x.test")
    await fix.settle(await fix.job(), LATER)
    assert await fix.jobs() == []
    assert await fix.queue.retry(*await fix.standing(message), "by root") is Answer.DONE
    job = await fix.job()
    assert await fix.queue.retry(*await fix.standing(message), "by root") is Answer.IN_FLIGHT
    await fix.settle(job, LATER)
    assert await fix.wish(message, Wish(end=State.DROPPED, reason="dropped by root")) is Answer.DONE
    assert await fix.told() == [
        "accepted", "deferred a@x.test", "changed a@x.test", "deferred a@x.test", "dropped a@x.test"
    ]  # fmt: skip
    assert [event.reason for _, event in await fix.spool.events_after(2, 1)] == ["due now, by root"]
    assert await fix.spool.message(message) is None


async def test_content_is_kept_after_the_end_for_a_tenant_that_wants_it(fix: Fixture) -> None:
    await tenants.create(fix.spool, "acme", fix.clock.now(), keep_content=60)
    delivered, dropped = await fix.accept("a@x.test"), await fix.accept("a@y.test")
    failed = await fix.accept(Recipient("a@z.test", notify=int(Notify.FAILURE)))
    await fix.wish(dropped, Wish(end=State.DROPPED))
    for job in await fix.jobs():
        await fix.settle(job, OK if job.message.id == delivered else NEVER)
    report = [event.dsn for _, event in await fix.spool.events_after(0, 1000) if event.dsn]
    await fix.settle(await fix.job(), OK)
    for each in (delivered, dropped, failed):
        message = await fix.spool.message(each)
        assert message is not None
        assert await fix.spool.content(message) == b"Subject: s\r\n\r\nbody\r\n"
    assert await fix.spool.message(report[0]) is None  # our own
    await fix.clock.advance(62)
    assert await fix.spool.collect(fix.clock.now()) == 3
    assert [await fix.spool.message(each) for each in (delivered, dropped, failed)] == [None] * 3


async def test_a_held_entry_is_not_delivered_until_it_is_released(fix: Fixture) -> None:
    message = await fix.accept("a@x.test")
    (lane,) = await fix.scheduler.due_lanes()
    ahead = await fix.scheduler.next_due(lane)
    assert ahead is not None
    assert await fix.wish(message, Wish(held=True)) is Answer.DONE
    assert await fix.wish(message, Wish(held=True)) is Answer.UNCHANGED
    assert await fix.scheduler.claim(ahead) is None  # it was read before
    await fix.clock.advance(DAY)
    assert await fix.jobs() == []
    rings = fix.rings
    assert await fix.wish(message, Wish(held=False)) is Answer.DONE
    assert fix.rings == rings + 1
    await fix.settle(await fix.job(), OK)
    assert await fix.told() == ["accepted", "changed a@x.test", "changed a@x.test", "delivered a@x.test"]


async def test_a_held_entry_expires_on_time(fix: Fixture) -> None:
    message = await fix.accept(Recipient("a@x.test", notify=int(Notify.FAILURE)))
    await fix.wish(message, Wish(held=True))
    for _ in range(71):
        await fix.clock.advance(DAY / 24)
        await fix.queue.run_timers()
    assert await fix.told() == ["accepted", "changed a@x.test"]
    await fix.clock.advance(DAY / 24 + 1)
    await fix.queue.run_timers()
    assert (await fix.told())[2:] == ["expired a@x.test", "dsn_sent a@x.test", "accepted"]
    assert await fix.spool.message(message) is None


async def test_what_is_redirected_waits_in_a_lane_of_its_relay(fix: Fixture) -> None:
    first, second, other = await fix.accept("a@x.test"), await fix.accept("b@y.test"), await fix.accept("c@x.test")
    for each in (first, second):
        await fix.wish(each, Wish(relay="relay.test:25"))
    relayed, direct = Lane("acme", MessageClass.NORMAL, "relay.test:25"), Lane("acme", MessageClass.NORMAL, "x.test")
    assert set(await fix.scheduler.due_lanes()) == {relayed, direct}
    heads = [due.message.id for due in await fix.spool.heads(relayed, fix.clock.now(), 10, ())]
    assert sorted(heads) == sorted([first, second])
    await fix.wish(first, Wish(relay=""))
    heads = [due.message.id for due in await fix.spool.heads(direct, fix.clock.now(), 10, ())]
    assert sorted(heads) == sorted([first, other])


async def test_another_class_is_another_lane(fix: Fixture) -> None:
    message = await fix.accept("a@x.test")
    assert await fix.wish(message, Wish(message_class=MessageClass.HIGH)) is Answer.DONE
    assert await fix.scheduler.due_lanes() == [Lane("acme", MessageClass.HIGH, "x.test")]
    assert (await fix.job()).entry.message_class is MessageClass.HIGH


@pytest.mark.parametrize(
    ("wishes", "told"),
    [
        ([Wish(end=State.CANCELLED)], "cancelled a@x.test"),
        ([Wish(end=State.CANCELLED), Wish(held=True)], "cancelled a@x.test"),  # an end is not taken back
        ([Wish(held=True), Wish(end=State.DROPPED)], "dropped a@x.test"),
        ([Wish(held=True)], "changed a@x.test"),
        ([Wish(held=True), Wish(held=False)], "deferred a@x.test"),
    ],
)
async def test_what_was_wished_in_flight_is_done_when_the_outcome_defers(
    fix: Fixture, wishes: list[Wish], told: str
) -> None:
    message = await fix.accept("a@x.test", "b@x.test")
    job = await fix.job()
    for each in wishes:
        assert await fix.wish(message, each) is Answer.IN_FLIGHT
    assert await fix.told() == ["accepted"]
    assert await fix.settle(job, LATER, OK)
    assert (await fix.told())[:3] == ["accepted", "deferred a@x.test", "delivered b@x.test"]
    assert [each for each in await fix.told() if "a@x.test" in each][-1] == told
    await fix.clock.advance(30)
    assert bool(await fix.jobs()) is (told == "deferred a@x.test")


async def test_what_was_wished_in_flight_is_void_when_everybody_has_ended(fix: Fixture) -> None:
    message = await fix.accept("a@x.test")
    job = await fix.job()
    await fix.wish(message, Wish(end=State.CANCELLED))
    assert await fix.settle(job, OK)
    assert await fix.told() == ["accepted", "delivered a@x.test"]


async def test_wishes_in_flight_add_up(fix: Fixture) -> None:
    message = await fix.accept("a@x.test")
    job = await fix.job()
    await fix.wish(message, Wish(relay="relay.test:25"))
    await fix.wish(message, Wish(message_class=MessageClass.BULK))
    await fix.settle(job, LATER)
    await fix.clock.advance(30)
    again = await fix.job()
    assert (again.entry.relay, again.entry.message_class) == ("relay.test:25", MessageClass.BULK)


async def test_a_successor_does_what_was_wished_of_its_predecessor(fix: Fixture) -> None:
    message = await fix.accept("a@x.test")
    await fix.job()
    await fix.wish(message, Wish(end=State.CANCELLED))
    successor = Fixture(fix.spool, fix.clock)
    assert await successor.queue.take_over() == 1
    assert await fix.told() == ["accepted", "cancelled a@x.test"]


async def test_what_has_changed_since_it_was_read_is_read_again(fix: Fixture) -> None:
    message = await fix.accept("a@x.test")
    waiting = await fix.standing(message)
    job = await fix.job()
    assert await fix.queue.wish(*waiting, Wish(held=True)) is Answer.IN_FLIGHT
    in_flight = await fix.standing(message)
    await fix.settle(job, LATER)
    assert await fix.queue.wish(*in_flight, Wish(held=True)) is Answer.UNCHANGED
    assert await fix.queue.wish(*in_flight, Wish(end=State.CANCELLED)) is Answer.DONE
    assert await fix.queue.wish(*in_flight, Wish(end=State.CANCELLED)) is Answer.ENDED


async def test_accept_rings(fix: Fixture) -> None:
    await fix.accept("a@x.test")
    assert fix.rings == 1


async def test_a_claim_whose_deadline_comes_while_it_is_stored_rings(fix: Fixture) -> None:
    """The timer came when there was no attempt to break off, and does not come again."""

    class Slow(StandIn):
        async def claim(self, entry: Entry, claim: Claim) -> bool:
            done = await fix.spool.claim(entry, claim)
            await fix.clock.advance(entry.expires_at - fix.clock.now())
            return done

    queue = Queue(Slow(fix.spool), fix.clock, "relay.test", Retry(), fix.ring)
    due, _ = await fix.standing(await fix.accept("u@d.test"))
    rings = fix.rings
    assert await queue.claim(due) is not None
    assert fix.rings == rings + 1


async def test_lanes_apart(fix: Fixture) -> None:
    await fix.accept("a@x.test")
    (lane,) = await fix.scheduler.due_lanes()
    assert isinstance(lane, Lane)
    assert (lane.tenant, lane.domain) == ("acme", "x.test")


async def test_what_is_accepted_together_is_accepted_one_by_one(fix: Fixture) -> None:
    """A message whose content is not there is refused, and its neighbours are not."""
    envelope = Envelope(sender="sender@acme.test", recipients=(Recipient("a@x.test"),))
    gone = (Segment(b"x" * 16, 10, b"k" * 32),)
    first, bad, last = (
        Submission(id=new_message_id(), tenant="acme", envelope=envelope, origin=Origin.RELAY, stored=stored)
        for stored in ((), gone, ())
    )
    results = await fix.queue.accept_each([first, bad, last])
    assert [type(each) for each in results] == [Receipt, Refused, Receipt]
    assert [each.message_id for each in results if isinstance(each, Receipt)] == [first.id, last.id]
    assert [each.message.id for each in await fix.jobs()] == [first.id, last.id]
    assert fix.rings == 1


async def test_what_is_accepted_on_terms(fix: Fixture) -> None:
    envelope = Envelope(sender="sender@acme.test", recipients=(Recipient("a@x.test"),))
    one, two, three, four, five = (
        Submission(id=new_message_id(), tenant="acme", envelope=envelope, origin=Origin.RELAY) for _ in range(5)
    )
    terms = Terms(now=fix.clock.now(), keep=Keep("k", b"d", b"v", fix.clock.now() + 1), tolls=(Toll("t", 60, 2, 2),))
    taken = await fix.queue.accept_on([one, two], terms)
    assert isinstance(taken, Taken)
    assert taken.position == 2
    assert fix.rings == 1
    assert await fix.queue.accept_on([three], terms) == Kept(b"d", b"v", 2)
    other = Terms(now=terms.now, tolls=terms.tolls)
    assert isinstance(await fix.queue.accept_on([three], other), Throttled)
    assert fix.rings == 1
    results = await fix.queue.accept_each([three, four, five], [terms, None, other])
    assert [type(each) for each in results] == [Kept, Receipt, Throttled]
    assert results[1] == Receipt(four.id, 3)
    assert [each.message.id for each in await fix.jobs()] == [one.id, two.id, four.id]


async def test_what_several_have_in_common_is_content_of_each(fix: Fixture) -> None:
    writer = fix.spool.store_content()
    await writer.write(b"in common\r\n")
    shared = (await writer.finish(),)
    envelope = Envelope(sender="sender@acme.test", recipients=(Recipient("a@x.test"),))
    heads = b"S: 1\r\n\r\n", b"S: another\r\n\r\n"
    await fix.queue.accept(
        *(
            Submission(
                id=new_message_id(), tenant="acme", envelope=envelope, origin=Origin.HTTP, content=head, shared=shared
            )
            for head in heads
        )
    )
    contents = [await fix.spool.content(each.message) for each in await fix.jobs()]
    assert contents == [head + b"in common\r\n" for head in heads]
    assert [each.size for _, each in await fix.spool.events_after(0, 10)] == [len(each) for each in contents]


class Meddled(StandIn):
    """Words of operators that come before the first settle, before the second, and behind it."""

    def __init__(self, spool: Spool, words: Sequence[Callable[[], Awaitable[object]]]) -> None:
        super().__init__(spool)
        self.words = list(words)

    async def settle(self, settlement: Settlement) -> bool:
        first = len(self.words) == 3
        if self.words:
            await self.words.pop(0)()
        settled = await self.behind.settle(settlement)
        if self.words and not first:
            await self.words.pop(0)()
        return settled


async def test_an_outcome_is_stored_though_the_last_word_is_the_first(fix: Fixture) -> None:
    message = await fix.accept("a@x.test")
    job = await fix.job()
    hold, release = (partial(fix.wish, message, Wish(held=held, reason="by the operator")) for held in (True, False))
    meddled = Meddled(fix.spool, [hold, release, hold])
    queue = Queue(meddled, fix.clock, "relay.test", Retry(), fix.ring)
    outcome = Outcome(results=(OK,), started_at=0.0, ended_at=0.0, site="mx")
    assert await queue.settle(job, outcome)
    assert meddled.words == []
    assert await fix.told() == ["accepted", "delivered a@x.test"]
    assert await fix.spool.claims() == []


@pytest.mark.parametrize(("asked", "returned"), [("yes", False), ("no", True), ("", True)])
async def test_a_report_is_protected_by_requiretls_as_its_message_is(fix: Fixture, asked: str, returned: bool) -> None:
    envelope = Envelope(
        sender="sender@acme.test", recipients=(Recipient("a@x.test"),), ret="FULL", tls_required=asked
    )  # fmt: skip
    content = b"Subject: told\r\n\r\nsecret\r\n"
    submission = Submission(
        id=new_message_id(), tenant="acme", envelope=envelope, origin=Origin.RELAY, content=content
    )  # fmt: skip
    await fix.queue.accept(submission)
    await fix.settle(await fix.job(), NEVER)
    told = (await fix.job()).message
    assert (told.origin, told.sender, told.tls_required) == (Origin.DSN, "", "yes" if asked == "yes" else "")
    dsn = await fix.spool.content(told, 100_000)
    assert b"Subject: told\r\n" in dsn
    assert (b"secret" in dsn) is returned
