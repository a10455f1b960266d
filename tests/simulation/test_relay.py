"""Whole relays in simulated time: nothing lost, nothing early, limits and shares kept, every claim settled once.

Seeds are fresh and printed. FAIRLEAD_SIMULATION_SEED repeats one, given the PYTHONHASHSEED of its run;
FAIRLEAD_SIMULATION_WORLDS says how many there are.
"""

import asyncio
import itertools
import math
import os
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from mta.accounts import tenants
from mta.config import Delivery, Retry
from mta.delivery.dispatcher import Dispatcher
from mta.delivery.gate import Gate
from mta.mail.envelope import Envelope, Recipient
from mta.mail.ids import new_message_id
from mta.mail.result import Outcome
from mta.queue import transitions
from mta.queue import turns as turns_module
from mta.queue.deadlines import Deadlines
from mta.queue.job import Job
from mta.queue.limits import Aim, Limits, Start
from mta.queue.queue import Queue
from mta.queue.shaping import Shaping
from mta.queue.shares import Shares
from mta.queue.submission import Submission
from mta.queue.window import Window
from mta.spool.interface import Due
from mta.spool.records import Claim, MessageClass, Origin
from tests.simulation.memory import MemorySpool, Stored
from tests.simulation.processes import live_through
from tests.simulation.relay import OK, Lived, live
from tests.simulation.virtual import Process, VirtualClock, simulate

WORLDS = int(os.environ.get("FAIRLEAD_SIMULATION_WORLDS", "50"))
MESSAGES = 1600
ATTEMPTS = 200_000  # at least, in so many worlds or a few more


def seeds(lived: list[Lived]) -> Iterator[int]:
    """Draw seeds until enough has been lived through, or something went wrong; or give the one that is asked for."""
    if given := os.environ.get("FAIRLEAD_SIMULATION_SEED"):
        yield int(given)
        return
    for number in itertools.count():
        enough = sum(each.attempts for each in lived) >= ATTEMPTS or any(each.wrong for each in lived)
        if number >= WORLDS and enough:
            return
        yield random.SystemRandom().randrange(1 << 32)


def test_nothing_happens_that_must_never_happen(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hashes = os.environ.get("PYTHONHASHSEED", "random")
    if hashes == "random":
        hashes = str(random.SystemRandom().randrange(1 << 32))
    monkeypatch.setenv("PYTHONHASHSEED", hashes)  # of the processes that are begun
    lived: list[Lived] = []
    for each in live_through(seeds(lived), MESSAGES):
        lived.append(each)
    with capfd.disabled():
        attempts, hours = sum(each.attempts for each in lived), sum(each.hours for each in lived)
        print(f"\nsimulation: {len(lived)} worlds, {attempts} attempts, {hours:.0f} hours;")
        print(f"simulation: PYTHONHASHSEED {hashes}, {[each.seed for each in lived]}")
    assert not [each for each in lived if each.wrong]


def test_a_seed_repeats_its_world() -> None:
    for seed in (random.SystemRandom().randrange(1 << 32) for _ in range(2)):
        assert live(seed, 100) == live(seed, 100)


def test_a_world_that_does_not_end_is_ended_and_named() -> None:
    lived = list(live_through(iter([1, 2, 3]), MESSAGES, stuck=0.2))
    assert {each.seed for each in lived} <= {1, 2, 3}
    assert all(each.wrong for each in lived)


class Quick:
    """One site where every delivery takes as long, and which counts for whom they are."""

    def __init__(self) -> None:
        self.got: list[tuple[str, MessageClass]] = []

    def knows(self, destination: str) -> bool:
        return True

    async def aim(self, destination: str) -> Aim:
        return Aim("s")

    async def attempt(self, job: Job, start: Start) -> Outcome:
        self.got.append((job.entry.tenant, job.entry.message_class))
        await asyncio.sleep(0.01)
        return Outcome(results=(OK,) * len(job.recipients), started_at=0.0, ended_at=0.0, site=start.about.site)

    def settled(self, job: Job) -> None:
        pass


async def delivered(
    weights: dict[str, int], classes: Sequence[MessageClass], count: int
) -> Sequence[tuple[str, MessageClass]]:
    """Deliver so many, while every tenant has mail waiting of all the classes."""
    clock, site = VirtualClock(), Quick()
    spool = MemorySpool(Stored(), clock.now)
    queue = Queue(spool, clock, "relay.test", Retry(), lambda: None)
    limits = Limits(Shaping(), 10)
    dispatcher = Dispatcher(spool, queue, site, limits, Delivery(connections=20), clock, poll=1e6)
    for tenant, weight in weights.items():
        await tenants.create(spool, tenant, 0.0, weight=weight)
        for message_class in classes:
            envelope = Envelope(sender="", recipients=(Recipient("u@x.test"),))
            for _ in range(count):
                await queue.accept(
                    Submission(
                        id=new_message_id(), tenant=tenant, envelope=envelope, origin=Origin.RELAY, content=b"x\r\n",
                        message_class=message_class,
                    )
                )  # fmt: skip
    process = Process(dispatcher.run())
    while len(site.got) < count:
        await asyncio.sleep(0.1)
    await process.kill()
    return site.got[:count]


def test_weights_are_kept_within_five_in_a_hundred() -> None:
    got = simulate(delivered({"heavy": 3, "light": 1}, [MessageClass.NORMAL], 10_000))
    heavy = sum(tenant == "heavy" for tenant, _ in got)
    assert heavy == pytest.approx(7500, rel=0.05)


def test_bulk_has_its_share_under_endless_high() -> None:
    got = simulate(delivered({"one": 1}, [MessageClass.HIGH, MessageClass.BULK], 3000))
    assert sum(message_class is MessageClass.BULK for _, message_class in got) == pytest.approx(3000 / 9, rel=0.05)


_turn = Deadlines._turn
_claim, _charge, _interval = Queue.claim, Shares.charge, transitions.retry_interval


async def _claim_whatever(queue: Queue, due: Due) -> Job:
    """Begin an attempt whether or not the claim is on record."""
    await _claim(queue, due)
    return Job(due.entry, due.message, Claim(epoch=queue._epoch, attempt=due.entry.attempts + 1, retry_at=0.0))


async def _give_nothing_back(queue: Queue, due: Due, claim: Claim) -> bool:
    return True


def _no_limits(*_: object, stays: bool) -> None:
    return None


def _too_soon(*args: Any) -> float:
    return _interval(*args) / 2


def _charge_alike(shares: Shares[str], member: str) -> None:
    _charge(shares, member, shares._weight(member))


async def _no_timers(queue: Queue) -> int:
    return 0


async def _nothing_foreseen(deadlines: Deadlines) -> float:
    await _turn(deadlines)
    return 1e6


def _pause_nobody(*_: Any) -> None:
    pass


def _never_dead(window: Window, now: float) -> float:
    return now if window.at_work < max(1, window.size) else math.inf


@pytest.mark.tampers
@pytest.mark.parametrize(
    ("where", "name", "bug", "what"),
    [
        (Queue, "_give_back", _give_nothing_back, "lost"),
        (Queue, "claim", _claim_whatever, "claims"),
        (transitions, "retry_interval", _too_soon, "early"),
        (Gate, "room", _no_limits, "limits"),
        (Limits, "_pause", _pause_nobody, "limits"),
        (Window, "when", _never_dead, "limits"),
        (Queue, "run_timers", _no_timers, "deadline"),
        (Deadlines, "_turn", _nothing_foreseen, "deadline"),
    ],
)
def test_control_a_planted_bug_is_seen(
    monkeypatch: pytest.MonkeyPatch, where: object, name: str, bug: object, what: str
) -> None:
    monkeypatch.setattr(where, name, bug)
    assert any(live(seed, 150).wrong.startswith(what) for seed in range(20))


@pytest.mark.tampers
@pytest.mark.parametrize(
    ("where", "name", "bug", "check"),
    [
        (Shares, "serve", _charge_alike, test_weights_are_kept_within_five_in_a_hundred),
        (turns_module, "CLASS_SHARES", dict.fromkeys(MessageClass, 1.0), test_bulk_has_its_share_under_endless_high),
    ],
)
def test_control_unfair_shares_are_seen(
    monkeypatch: pytest.MonkeyPatch, where: object, name: str, bug: object, check: Callable[[], None]
) -> None:
    monkeypatch.setattr(where, name, bug)
    with pytest.raises(AssertionError):
        check()
