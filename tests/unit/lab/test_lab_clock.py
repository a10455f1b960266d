"""FakeClock: waits end at their own instant, in order, and at nothing else."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.clock import Clock
from mta.lab.clock import FakeClock


async def test_time_stands_still_until_moved_and_both_clocks_move_together() -> None:
    clock: Clock = (fake := FakeClock(now=1000.0))
    monotonic = clock.monotonic()
    await asyncio.sleep(0)
    assert (clock.now(), clock.monotonic()) == (1000.0, monotonic)
    await fake.advance(2.5)
    assert (clock.now(), clock.monotonic()) == (1002.5, monotonic + 2.5)


async def test_a_jump_moves_wall_time_only_and_wakes_nobody() -> None:
    clock = FakeClock(now=1000.0)
    monotonic = clock.monotonic()
    waiting = asyncio.ensure_future(clock.wait(asyncio.Event(), 10))
    await asyncio.sleep(0)
    clock.jump(3 * 86400)
    await clock.advance(9.9)
    assert not waiting.done()
    assert clock.now() == pytest.approx(1000.0 + 3 * 86400 + 9.9)
    assert clock.monotonic() == pytest.approx(monotonic + 9.9)
    await clock.advance(0.1)
    assert await waiting is False


async def test_an_event_ends_a_wait_without_time_passing() -> None:
    clock, event = FakeClock(), asyncio.Event()
    waiting = asyncio.ensure_future(clock.wait(event, 10))
    await asyncio.sleep(0)
    event.set()
    assert await waiting is True
    assert await clock.wait(event, 0) is True
    assert await clock.wait(asyncio.Event(), 0) is False
    assert clock.monotonic() == FakeClock().monotonic()


async def test_a_woken_waiter_sees_its_own_instant_and_may_wait_again_within_one_advance() -> None:
    clock = FakeClock(now=0.0)
    seen: list[float] = []

    async def tick() -> None:
        while True:
            await clock.wait(asyncio.Event(), 1)
            seen.append(clock.now())

    task = asyncio.ensure_future(tick())
    await clock.advance(3.5)
    assert seen == [1.0, 2.0, 3.0]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await clock.advance(5)
    assert seen == [1.0, 2.0, 3.0]


async def test_an_event_set_at_the_instant_of_the_deadline_counts_as_set() -> None:
    clock, event = FakeClock(), asyncio.Event()

    async def set_it() -> None:
        await clock.wait(asyncio.Event(), 1)
        event.set()

    setter = asyncio.ensure_future(set_it())
    await asyncio.sleep(0)
    waiting = asyncio.ensure_future(clock.wait(event, 1))
    await clock.advance(1)
    assert await waiting is True
    await setter


async def test_time_does_not_run_backwards() -> None:
    clock = FakeClock()
    with pytest.raises(ValueError, match="backwards"):
        await clock.advance(-1)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=20), st.lists(st.integers(1, 20), max_size=8))
def test_waiters_wake_in_the_order_of_their_deadlines(waits: list[int], steps: list[int]) -> None:
    async def run() -> None:
        clock = FakeClock(now=0.0)
        woken: list[tuple[float, int]] = []

        async def wait(number: int, seconds: int) -> None:
            assert await clock.wait(asyncio.Event(), seconds) is False
            woken.append((clock.now(), number))

        tasks = [asyncio.ensure_future(wait(number, seconds)) for number, seconds in enumerate(waits)]
        for step in [*steps, 50]:
            await clock.advance(step)
        await asyncio.gather(*tasks)
        assert woken == sorted((float(seconds), number) for number, seconds in enumerate(waits))

    asyncio.run(run())
