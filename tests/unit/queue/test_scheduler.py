"""The scheduler on a real spool: what it reads ahead is claimed once, and let go of when its lane is left."""

import asyncio
import os
from collections.abc import AsyncIterator, Collection
from pathlib import Path

import pytest

from mta.config import Retry
from mta.lab.clock import FakeClock
from mta.queue import scheduler as scheduler_module
from mta.queue.queue import Queue
from mta.queue.scheduler import Scheduler
from mta.spool.interface import Due, Unavailable
from mta.spool.lmdb.spool import LmdbSpool
from mta.spool.records import Claim, Entry, Lane
from mta.spool.sealing import Keyring
from tests.contract.spool_contract import NOW, a_message
from tests.contract.stand_in import StandIn


class Slow(StandIn):
    """A spool whose reads wait, as those over a network do."""

    async def heads(self, lane: Lane, now: float, limit: int, skip: Collection[str]) -> list[Due]:
        found = await self.behind.heads(lane, now, limit, skip)
        await asyncio.sleep(0.01)
        return found


@pytest.fixture
async def spool(tmp_path: Path) -> AsyncIterator[Slow]:
    made = Slow(LmdbSpool(tmp_path, Keyring([os.urandom(32)]), FakeClock(NOW), map_size=1 << 30, reserve=0))
    yield made
    await made.close()


@pytest.fixture
def scheduler(spool: Slow) -> Scheduler:
    clock = FakeClock(NOW)
    return Scheduler(spool, Queue(spool, clock, "relay.test", Retry(), lambda: None), clock)


async def test_workers_of_a_lane_claim_each_entry_once(spool: Slow, scheduler: Scheduler) -> None:
    accepted = [a_message() for _ in range(10)]
    await spool.accept(accepted)
    (lane,) = await scheduler.due_lanes()
    jobs = await asyncio.gather(*(scheduler.next_job(lane) for _ in range(12)))
    assert sorted(job.message.id for job in jobs if job) == sorted(each.message.id for each in accepted)


async def test_a_lane_forgotten_while_it_is_read_is_read_again(spool: Slow, scheduler: Scheduler) -> None:
    await spool.accept([a_message(), a_message()])
    (lane,) = await scheduler.due_lanes()
    looking = asyncio.create_task(scheduler.next_job(lane))
    await asyncio.sleep(0)
    scheduler.forget(lane)
    assert await looking is not None
    scheduler.forget(lane)
    assert await scheduler.next_job(lane) is not None
    assert await scheduler.next_job(lane) is None


async def test_a_lane_without_work_leaves_no_trace(spool: Slow, scheduler: Scheduler) -> None:
    for number in range(5):
        lane = Lane("acme", a_message().message.message_class, f"d{number}.test")
        assert await scheduler.next_job(lane) is None
    assert (scheduler._heads, scheduler._read, scheduler._ahead) == ({}, {}, 0)


async def test_no_more_is_read_ahead_than_there_is_room_for(
    spool: Slow, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler_module, "HEADS", 20)
    accepted = [a_message(domain=f"d{number % 10}.test") for number in range(100)]
    await spool.accept(accepted)
    lanes, jobs = await scheduler.due_lanes(), []
    for number in range(120):
        job = await scheduler.next_job(lanes[number * 7 % 10])
        jobs += [job] if job else []
        assert scheduler._ahead == sum(map(len, scheduler._heads.values())) <= 20
        assert len(scheduler.taken) == scheduler._ahead + len(jobs)
    assert sorted(job.message.id for job in jobs) == sorted(each.message.id for each in accepted)


async def test_a_claim_that_fails_is_made_again(
    spool: Slow, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def claim(entry: Entry, claim: Claim) -> bool:
        raise Unavailable("sick")

    await spool.accept([a_message()])
    (lane,) = await scheduler.due_lanes()
    monkeypatch.setattr(spool, "claim", claim)
    with pytest.raises(Unavailable):
        await scheduler.next_job(lane)
    assert not scheduler.taken
    monkeypatch.undo()
    job = await scheduler.next_job(lane)
    assert job is not None
    assert set(scheduler.taken) == {job.entry.id}
    scheduler.done(job)
    assert not scheduler.taken
