"""Reading the log: every number once and in order, wherever the events are and while they move."""

import asyncio
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mta.events.reader import LogReader
from mta.events.segments import Writer, list_segments
from mta.lab.clock import FakeClock
from mta.mail.event import Event
from mta.mail.ids import message_id_text, new_message_id
from mta.spool.sealing import Keyring

NOON = 1_800_014_400.0
Make = Callable[..., Event]


class Moving:
    """Moves on demand, a step at a time, as the mover does: append, then discard. Restarts at times."""

    def __init__(self, spool: Any, directory: Path, keyring: Keyring) -> None:
        self.spool = spool
        self.directory = directory
        self.keyring = keyring
        self.writer: Writer | None = None
        self.now = NOON

    def append(self, count: int) -> None:
        if self.writer is None:
            self.writer = Writer(self.directory, self.keyring, self.spool.events)
        self.writer.append(self.spool.events[:count], self.now)

    def discard(self, count: int) -> None:
        del self.spool.events[:count]

    def move(self, count: int) -> None:
        self.append(count)
        self.discard(count)

    def die(self) -> None:
        if self.writer is not None:
            self.writer.close()
            self.writer = None


@pytest.fixture
def mover(spool: Any, tmp_path: Path, keyring: Keyring) -> Iterator[Moving]:
    mover = Moving(spool, tmp_path, keyring)
    yield mover
    mover.die()


@pytest.fixture
def reader(spool: Any, tmp_path: Path, keyring: Keyring) -> LogReader:
    return LogReader(spool, tmp_path, keyring)


async def test_an_empty_log(reader: LogReader) -> None:
    assert await reader.read(0, 10) == []
    assert await reader.end() == 0


@pytest.mark.parametrize("moved", range(8))
async def test_every_page_wherever_the_border_is(
    moved: int, mover: Moving, reader: LogReader, make_event: Make
) -> None:
    events = [make_event() for _ in range(7)]
    mover.spool.add(*events)
    if moved:
        mover.move(moved)
    assert await reader.end() == 7
    for after in range(9):
        for limit in range(1, 9):
            read = await reader.read(after, limit)
            assert [each.event for each in read] == events[after : after + limit]
            assert [each.seq for each in read] == list(range(1, 8))[after : after + limit]


async def test_events_that_move_between_the_two_looks(
    mover: Moving, reader: LogReader, make_event: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mover takes all of the tail just before the spool is asked for it, and again."""
    events = [make_event() for _ in range(9)]
    mover.spool.add(*events)
    mover.move(3)
    look, moves = mover.spool.events_after, [2, 3]

    async def events_after(position: int, limit: int) -> list[tuple[int, Event]]:
        if moves:
            mover.move(moves.pop())
        return list(await look(position, limit))

    monkeypatch.setattr(mover.spool, "events_after", events_after)
    read = await reader.read(0, 100)
    assert [each.event for each in read] == events
    assert [each.seq for each in read] == list(range(1, 10))
    assert not moves


async def test_a_reader_of_a_log_that_moves_misses_and_repeats_nothing(
    mover: Moving, reader: LogReader, keyring: Keyring, make_event: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the mover does before each look, restarts included."""
    rng = random.Random(7)
    total = [make_event() for _ in range(2000)]
    coming = iter(total)
    appended = 0
    look = mover.spool.events_after

    def step() -> None:
        nonlocal appended
        kind = rng.choice(["come", "come", "append", "append", "discard", "discard", "die", "hour"])
        if kind == "come":
            mover.spool.add(*(each for _, each in zip(range(rng.randint(1, 30)), coming, strict=False)))
        elif kind == "append" and not appended and mover.spool.events:
            appended = min(rng.randint(1, 9), len(mover.spool.events))
            mover.append(appended)
        elif kind == "discard":
            mover.discard(appended)
            appended = 0
        elif kind == "die":
            mover.die()
            appended = 0
        elif kind == "hour":
            mover.now += 3600

    async def events_after(position: int, limit: int) -> list[tuple[int, Event]]:
        for _ in range(rng.randint(0, 9)):
            step()
        return list(await look(position, limit))

    monkeypatch.setattr(mover.spool, "events_after", events_after)
    read: list[Any] = []
    while len(read) < len(total):
        one = rng.choice([reader, LogReader(mover.spool, mover.directory, keyring)])  # with and without a memory
        read += await one.read(len(read), rng.choice([1, 7, 50]))
        step()
    assert [each.event for each in read] == total
    assert [each.seq for each in read] == list(range(1, 2001))
    assert len(list_segments(mover.directory)) > 3


async def test_one_message_is_found_without_the_others(mover: Moving, reader: LogReader, make_event: Make) -> None:
    wanted = new_message_id()
    events = [make_event(number, wanted if number % 3 == 0 else "") for number in range(1, 13)]
    mover.spool.add(*events)
    mover.move(5)
    mover.now += 3600
    mover.move(3)
    found = await reader.of_message(wanted, 0, 100)
    assert [each.seq for each in found] == [3, 6, 9, 12]
    assert [each.event for each in found] == [events[each.seq - 1] for each in found]
    assert [each.seq for each in await reader.of_message(wanted, 3, 2)] == [6, 9]
    assert await reader.of_message(new_message_id(), 0, 100) == []
    with pytest.raises(ValueError, match="not a message id"):
        await reader.of_message("../../etc/passwd", 0, 1)


async def test_segments_from_before_the_message_are_not_opened(
    mover: Moving, reader: LogReader, make_event: Make
) -> None:
    made_at = int((NOON + 10 * 3600) * 1000).to_bytes(6) + bytes(10)
    mover.spool.add(make_event(), make_event(), make_event(1, message_id_text(made_at)))
    mover.move(1)
    mover.now += 5 * 3600
    mover.move(1)
    mover.now += 5 * 3600
    mover.move(1)
    segments = list_segments(mover.directory)
    segments[0].path.unlink()
    segments[0].path.mkdir()  # to open it would fail
    assert [each.seq for each in await reader.of_message(message_id_text(made_at), 0, 9)] == [3]


async def test_an_event_that_cannot_be_opened_is_passed_over_and_told(
    mover: Moving, reader: LogReader, make_event: Make, caplog: pytest.LogCaptureFixture
) -> None:
    mover.spool.add(*(make_event() for _ in range(3)))
    mover.move(3)
    path = list_segments(mover.directory)[0].path
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    assert [each.seq for each in await reader.read(0, 9)] == [1, 3]
    assert f"segment={path} seq=2" in caplog.text


async def test_a_damaged_segment_costs_its_rest_and_is_told(
    mover: Moving, reader: LogReader, make_event: Make, caplog: pytest.LogCaptureFixture
) -> None:
    mover.spool.add(*(make_event() for _ in range(5)))
    mover.move(3)
    mover.now += 3600
    mover.move(2)
    path = list_segments(mover.directory)[0].path
    path.write_bytes(path.read_bytes()[:-400])
    assert [each.seq for each in await reader.read(0, 9)] == [1, 4, 5]
    assert "missing=2 events" in caplog.text


async def test_retired_segments_are_a_gap_at_the_beginning(mover: Moving, reader: LogReader, make_event: Make) -> None:
    mover.spool.add(make_event(), make_event())
    mover.move(1)
    mover.now += 3600
    mover.move(1)
    list_segments(mover.directory)[0].path.unlink()
    assert [each.seq for each in await reader.read(0, 9)] == [2]


async def test_follow_yields_what_comes_until_it_is_stopped(mover: Moving, reader: LogReader, make_event: Make) -> None:
    clock, stop = FakeClock(), asyncio.Event()
    seen: asyncio.Queue[int] = asyncio.Queue()

    async def follow() -> None:
        async for each in reader.follow(1, clock, stop):
            seen.put_nowait(each.seq)

    mover.spool.add(*(make_event() for _ in range(3)))
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        tasks.create_task(follow())
        assert [await seen.get(), await seen.get()] == [2, 3]
        mover.move(3)
        mover.spool.add(make_event())
        for _ in range(1000):
            await clock.advance(1)
            if not seen.empty():
                break
            await asyncio.sleep(0.001)
        assert seen.get_nowait() == 4
        stop.set()
