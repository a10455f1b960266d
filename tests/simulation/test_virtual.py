"""The loop of the simulation: what comes when, who is ended, and what it refuses to wait for."""

import asyncio

import pytest

from tests.simulation.virtual import Process, VirtualClock, simulate


def test_calls_come_in_the_order_of_their_times_and_then_in_that_of_their_making() -> None:
    async def called() -> list[tuple[str, float]]:
        loop, came = asyncio.get_running_loop(), list[tuple[str, float]]()
        for name, delay in [("late", 7200.0), ("b", 1.0), ("c", 1.0), ("at once", 0.0), ("a", 0.5), ("never", 0.7)]:
            call = loop.call_later(delay, lambda name=name: came.append((name, loop.time())))
            if name == "never":
                call.cancel()
        await asyncio.sleep(7200)
        return came

    assert simulate(called()) == [("at once", 0.0), ("a", 0.5), ("b", 1.0), ("c", 1.0), ("late", 7200.0)]


def test_calls_that_were_cancelled_do_not_pile_up() -> None:
    async def piled_up() -> int:
        loop = asyncio.get_running_loop()
        for _ in range(100_000):
            loop.call_later(1e6, print).cancel()
        return len(loop._foreseen)  # type: ignore[attr-defined]

    assert simulate(piled_up()) <= 1000


def test_a_clock_waits_for_an_event_or_until_its_time_is_over() -> None:
    async def waited() -> tuple[bool, float, bool, float]:
        clock, event = VirtualClock(), asyncio.Event()
        in_vain = await clock.wait(event, 3.0)
        over_at = clock.monotonic()
        asyncio.get_running_loop().call_later(2.0, event.set)
        return in_vain, over_at, await clock.wait(event, 1e6), clock.monotonic()

    assert simulate(waited()) == (False, 3.0, True, 5.0)


def test_a_process_is_killed_with_all_that_it_began() -> None:
    ended: list[str] = []

    async def begin(name: str, then: str = "") -> None:
        task = asyncio.create_task(begin(then)) if then else None
        try:
            await asyncio.sleep(10)
        finally:
            ended.append(name)
        assert task is not None

    async def kill() -> float:
        process = Process(begin("one", "of one"), begin("other"))
        await asyncio.sleep(5)
        await process.kill()
        assert not process.tasks
        return asyncio.get_running_loop().time()

    assert simulate(kill()) == 5.0
    assert sorted(ended) == ["of one", "one", "other"]


def test_who_runs_in_a_circle_is_stopped() -> None:
    async def circle() -> None:
        while True:
            await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match="time stands still"):
        simulate(circle())


def test_nobody_waits_for_what_nobody_will_do() -> None:
    async def wait() -> None:
        await asyncio.Event().wait()

    with pytest.raises(RuntimeError, match="nothing will ever happen again"):
        simulate(wait())


def test_a_call_that_fails_ends_the_simulation() -> None:
    async def fail() -> None:
        asyncio.get_running_loop().call_later(1.0, lambda: {}["missing"])
        await asyncio.sleep(2)

    with pytest.raises(KeyError):
        simulate(fail())


def test_a_task_that_fails_unheard_ends_the_simulation() -> None:
    async def fail() -> None:
        raise KeyError("missing")

    async def begin() -> None:
        asyncio.create_task(fail())  # noqa: RUF006 - nobody keeps it
        await asyncio.sleep(2)

    with pytest.raises(KeyError):
        simulate(begin())
