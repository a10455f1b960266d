"""The mover: the log leaves the spool whole, once, and stays there while it cannot."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mta.events.mover import BATCH, Mover, MoverStatus
from mta.events.reader import LogReader
from mta.events.segments import RETENTION, list_segments
from mta.lab.clock import FakeClock
from mta.mail.event import Event
from mta.spool.sealing import Keyring

Make = Callable[..., Event]


@asynccontextmanager
async def moving(spool: Any, directory: Path, keyring: Keyring, clock: FakeClock) -> AsyncIterator[Mover]:
    mover, stop = Mover(spool, directory, keyring, clock), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(mover.run(stop))
        yield mover
        stop.set()


async def passes(clock: FakeClock, seconds: float, until: Callable[[], bool]) -> None:
    """Let time pass, then let the mover's thread finish what it began."""
    await clock.advance(seconds)
    async with asyncio.timeout(10):
        while not (until() and clock._waiting):  # done, and waiting for time again
            await asyncio.sleep(0.001)


async def test_moves_each_second_and_forgets_what_is_safe(
    spool: Any, tmp_path: Path, keyring: Keyring, make_event: Make
) -> None:
    clock = FakeClock()
    events = [make_event() for _ in range(2 * BATCH + 3)]
    async with moving(spool, tmp_path, keyring, clock) as mover:
        spool.add(*events)
        await clock.advance(0.9)
        assert len(spool.events) == len(events), "it gathers"
        await passes(clock, 0.2, lambda: not spool.events)
        spool.add(make_event())
        await passes(clock, 1.1, lambda: not spool.events)
        assert mover.status() == MoverStatus(len(events) + 1, "")
    read = await LogReader(spool, tmp_path, keyring).read(0, 5000)
    assert [each.event for each in read[:-1]] == events
    assert len(list_segments(tmp_path)) == 1


async def test_a_failed_discard_moves_nothing_twice(
    spool: Any, tmp_path: Path, keyring: Keyring, make_event: Make, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock()
    first, second = make_event(), make_event()
    async with moving(spool, tmp_path, keyring, clock) as mover:
        spool.discard_fails = True
        spool.add(first)
        await passes(clock, 1.1, lambda: bool(mover.status().trouble))
        assert mover.status().trouble == "OSError('no room')"
        spool.discard_fails = False
        spool.add(second)
        await clock.advance(1)
        assert len(spool.events) == 2, "it waits longer after a failure"
        await passes(clock, 1.1, lambda: not spool.events)
        assert mover.status() == MoverStatus(2, "")
    assert [each.event for each in await LogReader(spool, tmp_path, keyring).read(0, 10)] == [first, second]
    assert caplog.text.count("cannot move the log, it stays in the spool") == 1


async def test_a_directory_that_cannot_be_written_loses_nothing(
    spool: Any, tmp_path: Path, keyring: Keyring, make_event: Make
) -> None:
    clock, directory = FakeClock(), tmp_path / "events"
    directory.write_text("in the way")
    spool.add(make_event())
    async with moving(spool, directory, keyring, clock) as mover:
        await passes(clock, 1.1, lambda: "FileExistsError" in mover.status().trouble)
        assert len(spool.events) == 1
        directory.unlink()
        await passes(clock, 2.1, lambda: not spool.events)
    assert len(await LogReader(spool, directory, keyring).read(0, 10)) == 1


async def test_retires_after_an_hour_of_work(spool: Any, tmp_path: Path, keyring: Keyring, make_event: Make) -> None:
    clock = FakeClock()
    async with moving(spool, tmp_path, keyring, clock):
        spool.add(make_event())
        await passes(clock, 1.1, lambda: not spool.events)
    clock.jump(RETENTION + 2 * 3600)
    async with moving(spool, tmp_path, keyring, clock) as mover:
        spool.add(make_event())
        await passes(clock, 1.1, lambda: mover.status().seq == 2)
        assert [each.first for each in list_segments(tmp_path)] == [1, 2], "a clock may be wrong at boot"
        await passes(clock, 3602, lambda: [each.first for each in list_segments(tmp_path)] == [2])
