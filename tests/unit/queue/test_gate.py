"""The gate: what it learns, whom it turns away, and that who waits as long as it says is let in."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from mta.accounts import reservations, tenants
from mta.lab.clock import FakeClock
from mta.queue.capacity import UNKNOWN
from mta.queue.gate import _AT_ONCE, PAUSE, REST, Gate, keep_counted
from mta.spool.interface import Backlog, Space, Unavailable
from mta.spool.lmdb.spool import LmdbSpool
from mta.spool.sealing import Keyring
from tests.contract.spool_contract import a_message
from tests.contract.stand_in import StandIn

DAY = 86_400.0
GIB = 1 << 30


class Waiting(StandIn):
    """A spool of which the test says what waits in it, and what room there is."""

    def __init__(self, spool: LmdbSpool) -> None:
        super().__init__(spool)
        self.there: dict[str, Backlog] = {}
        self.room = Space(free=100 * GIB, reserve=GIB, used=0)
        self.failure: Exception | None = None
        self.counted = 0

    async def backlogs(self) -> dict[str, Backlog]:
        if self.failure is not None:
            raise self.failure
        return dict(self.there)

    async def count_backlog(self) -> bool:
        if self.failure is not None:
            raise self.failure
        self.counted += 1
        return self.counted < 3

    def space(self) -> Space:
        return self.room

    def come(self, tenant: str, messages: int, octets: int = 1000) -> None:
        before = self.there.get(tenant, Backlog())
        self.there[tenant] = msgspec.structs.replace(
            before,
            messages=before.messages + messages,
            octets=before.octets + messages * octets,
            untried=before.untried + messages,
        )

    def go(self, tenant: str, messages: int, octets: int = 1000) -> None:
        before = self.there[tenant]
        gone = min(messages, before.messages)
        self.there[tenant] = Backlog(
            before.messages - gone,
            before.octets - gone * octets,
            before.untried - gone,
            before.tried + gone,
            before.left + gone,
            before.left_octets + gone * octets,
        )


async def busy(gate: Gate, clock: FakeClock, seconds: float) -> None:
    """Let time pass while somebody sends mail."""
    for _ in range(int(seconds)):
        gate.refusal("somebody")
        await clock.advance(1)


@pytest.fixture
async def spool(tmp_path: Path) -> AsyncIterator[Waiting]:
    made = Waiting(LmdbSpool(tmp_path, Keyring([os.urandom(32)]), FakeClock(), map_size=1 << 28, reserve=0))
    for name in ("acme", "other"):
        await tenants.create(made, name, 0.0)
    yield made
    await made.close()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def gate(spool: Waiting, clock: FakeClock) -> AsyncIterator[Gate]:
    made = Gate(spool, clock, headroom=GIB, longest_wait=3 * DAY)
    made.start()
    made.start()  # a second door of the process
    await clock.advance(0)
    yield made
    await made.close()


async def test_nobody_is_turned_away_for_nothing(gate: Gate, spool: Waiting, clock: FakeClock) -> None:
    spool.come("acme", 1_000_000)
    await clock.advance(10)
    assert gate.refusal("acme") is None
    assert gate.refusal("nobody") is None


async def test_a_limit_holds_soon_and_is_logged_once_as_it_begins_and_ends(
    gate: Gate, spool: Waiting, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mta.queue.gate")
    spool.come("acme", 100)
    spool.come("other", 100)
    await busy(gate, clock, 2)
    await tenants.change(spool, "acme", most_messages=50)
    await busy(gate, clock, 11)
    for _ in range(5):
        turned = gate.refusal("acme")
        assert turned is not None
        assert turned.cause == "limit"
    assert gate.refusal("other") is None
    spool.go("acme", 55)
    await busy(gate, clock, 2)
    assert gate.refusal("acme") is None
    said = [each.getMessage() for each in caplog.records]
    assert len(said) == 2
    assert said[0].startswith("tenant=acme refused=begins cause=limit")
    assert said[1].startswith("tenant=acme refused=ends")
    assert said[1].endswith("times=5")


async def test_who_waits_as_long_as_it_is_told_is_let_in(gate: Gate, spool: Waiting, clock: FakeClock) -> None:
    """One message a second goes, three days of them and one more wait; the simulation is that of the promise."""
    spool.come("slow", int(3 * DAY) + 700)
    spool.come("quick", int(3 * DAY) + 700)
    for _ in range(700):
        spool.go("slow", 1)
        spool.go("quick", 5)
        await busy(gate, clock, 1)
    spool.come("slow", 2000)
    spool.come("quick", 2000)
    await busy(gate, clock, 2)
    turned = gate.refusal("slow")
    assert turned is not None
    assert turned.cause == "backlog"
    assert gate.refusal("quick") is None
    waited = 0
    while waited < turned.retry_after:
        if waited == turned.retry_after - 60:
            assert gate.refusal("slow") is not None  # and not much sooner
        spool.go("slow", 1)
        await busy(gate, clock, 1)
        waited += 1
    assert gate.refusal("slow") is None


async def test_a_look_at_a_thousand_tenants_lets_others_have_their_turn(
    gate: Gate, spool: Waiting, clock: FakeClock
) -> None:
    """Red when all of them are measured, or judged, in one go: eight thousand held the loop for a tenth of a second.

    And when the time that others had makes the next look come later: a busy process would not see who has too much.
    """
    await tenants.change(spool, "acme", most_messages=5)
    for tenant in ("acme", *[f"t{number}" for number in range(999)]):
        spool.come(tenant, 10)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            clock._monotonic += 0.01
            await asyncio.sleep(0)

    running = asyncio.create_task(others())
    await asyncio.sleep(0)
    await gate.look()
    running.cancel()
    assert turns > 3 * 1000 / _AT_ONCE
    turned = gate.refusal("acme")
    assert turned is not None
    assert (turned.cause, turned.retry_after) == ("limit", UNKNOWN + PAUSE)
    assert gate.refusal("t998") is None


async def test_the_disk_is_kept_for_those_who_hold_little(gate: Gate, spool: Waiting, clock: FakeClock) -> None:
    spool.come("flood", 100_000, 100_000)
    spool.come("light", 1)
    spool.room = Space(free=GIB + GIB // 2, reserve=GIB, used=0)
    await busy(gate, clock, 2)
    turned = gate.refusal("flood")
    assert turned is not None
    assert turned.cause == "disk"
    assert gate.refusal("light") is None
    assert gate.refusal("new") is None
    status = await gate.status()
    assert (status["flood"].refused, status["light"].refused) == ("disk", "")
    assert status["flood"].refused_since == pytest.approx(clock.now(), abs=3)


async def test_what_is_reserved_is_kept(gate: Gate, spool: Waiting, clock: FakeClock) -> None:
    await reservations.reserve(spool, "acme", 0.5, clock.now(), clock.now() + 1000)
    await busy(gate, clock, 11)
    spool.room = Space(free=GIB + GIB // 3, reserve=GIB, used=0)
    await busy(gate, clock, 2)
    assert gate.refusal("acme") is None
    turned = gate.refusal("unheard-of")
    assert turned is not None
    assert turned.cause == "disk"
    await busy(gate, clock, 1000)
    assert gate.refusal("unheard-of") is None


async def test_a_spool_that_does_not_answer_opens_the_gate(
    gate: Gate, spool: Waiting, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    spool.come("acme", 100)
    await tenants.change(spool, "acme", most_messages=50)
    await busy(gate, clock, 2)
    assert gate.refusal("acme") is not None
    for failure in (Unavailable("sick"), ZeroDivisionError()):
        spool.failure = failure
        await busy(gate, clock, 2)
        assert gate.refusal("acme") is None
    spool.failure = None
    await busy(gate, clock, 2)
    assert gate.refusal("acme") is not None


async def test_while_nobody_asks_it_looks_seldom_and_who_asks_is_soon_judged(
    gate: Gate, spool: Waiting, clock: FakeClock
) -> None:
    spool.come("acme", 100)
    await tenants.change(spool, "acme", most_messages=50)
    await clock.advance(REST / 2)
    assert gate.refusal("acme") is None  # the last look was at an empty spool
    await clock.advance(0)
    assert gate.refusal("acme") is not None
    spool.go("acme", 100)
    await clock.advance(2)
    assert gate.refusal("acme") is None  # while somebody is refused, it looks unasked
    await clock.advance(2)
    spool.come("acme", 100)
    await clock.advance(REST + 2)
    assert (await gate.status())["acme"].refused == "limit"


async def test_settings_of_many_tenants_are_learned_in_time(gate: Gate, spool: Waiting, clock: FakeClock) -> None:
    for number in range(250):
        await tenants.create(spool, f"t{number}", 0.0)
        await tenants.change(spool, f"t{number}", most_messages=1)
        spool.come(f"t{number}", 1)
    await busy(gate, clock, 4 * PAUSE)
    assert all(gate.refusal(f"t{number}") for number in range(250))


async def test_an_old_spool_is_counted_until_it_is_and_looked_at_again(spool: Waiting, clock: FakeClock) -> None:

    stop = asyncio.Event()
    counting = asyncio.create_task(keep_counted(spool, clock, stop))
    await clock.advance(1)
    assert spool.counted == 3
    await clock.advance(3601)
    assert spool.counted == 4
    spool.failure = Unavailable("sick")
    await clock.advance(3601)
    spool.failure = None
    await clock.advance(61)
    assert spool.counted == 5
    stop.set()
    await counting


async def test_what_waits_in_a_real_spool(spool: Waiting, clock: FakeClock) -> None:
    await spool.accept([a_message()])
    gate = Gate(spool.behind, clock, headroom=0, longest_wait=DAY)
    await tenants.change(spool, "acme", most_octets=10)
    await gate.look()
    assert gate.refusal("acme") is not None
