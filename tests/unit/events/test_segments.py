"""Segment files: every event once and in order, whatever a crash, a full disk, a clock or a copy does."""

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mta.events import segments
from mta.events.segments import (
    MAGIC,
    RETENTION,
    LoggedEvent,
    SegmentError,
    Writer,
    frames,
    list_segments,
    open_frame,
    retire,
    start_of,
)
from mta.mail.event import Event
from mta.spool.sealing import Keyring

NOON = 1_800_014_400.0  # 2027-01-15T12:00 UTC
HOUR = 3600.0
Make = Callable[..., Event]
Batch = Sequence[tuple[int, Event]]


def read_all(directory: Path, keyring: Keyring) -> list[LoggedEvent]:
    found = []
    for segment in list_segments(directory):
        with segment.path.open("rb") as file:
            for frame in frames(file, start_of(segment, file)):
                logged = open_frame(file, frame, keyring)
                assert logged is not None
                found.append(logged)
    return found


def write(directory: Path, keyring: Keyring, batch: Batch, now: float = NOON, length: int | None = None) -> None:
    """What one life of the mover does with what the spool holds, or with the first `length` of it."""
    writer = Writer(directory, keyring, batch)
    writer.append(batch[:length], now)
    writer.close()


def numbered(make_event: Make, first: int, last: int, step: int = 1) -> list[tuple[int, Event]]:
    return [(number * step, make_event()) for number in range(first, last + 1)]


def assert_log(directory: Path, keyring: Keyring, expected: Batch) -> None:
    logged = read_all(directory, keyring)
    assert [(each.position, each.event) for each in logged] == list(expected)
    assert [each.seq for each in logged] == list(range(1, len(expected) + 1))


def test_events_come_back_as_they_were(tmp_path: Path, keyring: Keyring, make_event: Make) -> None:
    batch = numbered(make_event, 1, 5)
    write(tmp_path / "events", keyring, batch[:3])
    write(tmp_path / "events", keyring, batch[3:])
    assert_log(tmp_path / "events", keyring, batch)
    (only,) = list_segments(tmp_path / "events")
    assert only.path.name == "00000000000000000001.2027-01-15T12.events"
    assert only.path.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "events").stat().st_mode & 0o777 == 0o700


def test_nothing_of_an_event_can_be_read_in_the_file(tmp_path: Path, keyring: Keyring, make_event: Make) -> None:
    batch = numbered(make_event, 1, 1)
    write(tmp_path, keyring, batch)
    raw = list_segments(tmp_path)[0].path.read_bytes()
    for text in ("example", "acme", "Ok", batch[0][1].message):
        assert text.encode() not in raw


def test_a_segment_for_each_hour_and_names_in_order_when_the_clock_goes_back(
    tmp_path: Path, keyring: Keyring, make_event: Make
) -> None:
    batch = numbered(make_event, 1, 4)
    writer = Writer(tmp_path, keyring, batch)
    for each, now in zip(batch, (NOON, NOON + HOUR, NOON + HOUR + 1, NOON - 50 * HOUR), strict=True):
        writer.append([each], now)
    writer.close()
    assert_log(tmp_path, keyring, batch)
    assert [(each.first, each.hour) for each in list_segments(tmp_path)] == [
        (1, "2027-01-15T12"),
        (2, "2027-01-15T13"),
        (4, "2027-01-13T10"),
    ]


def test_a_long_segment_is_ended(
    tmp_path: Path, keyring: Keyring, make_event: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "SEGMENT_OCTETS", 300)
    batch = numbered(make_event, 1, 9)
    writer = Writer(tmp_path, keyring, batch)
    for each in batch:
        writer.append([each], NOON)
    writer.close()
    assert_log(tmp_path, keyring, batch)
    assert len(list_segments(tmp_path)) > 2


@pytest.mark.parametrize("moved", [0, 2])
@pytest.mark.parametrize("next_hour", [False, True])
def test_torn_at_every_octet(moved: int, next_hour: bool, tmp_path: Path, keyring: Keyring, make_event: Make) -> None:
    """Crash while the second batch is written, in the same file or in a new one: moved again, once."""
    batch = numbered(make_event, 1, moved + 2)
    whole = tmp_path / "whole"
    later = NOON + HOUR if next_hour else NOON
    if moved:
        write(whole, keyring, batch[:moved])
    before = {each.path.name: each.path.read_bytes() for each in list_segments(whole)}
    write(whole, keyring, batch[moved:], later)
    last = list_segments(whole)[-1].path
    start = len(before.get(last.name, b""))
    for size in range(start, last.stat().st_size + 1):
        crashed = tmp_path / str(size)
        crashed.mkdir()
        for name, data in before.items():
            (crashed / name).write_bytes(data)
        (crashed / last.name).write_bytes(last.read_bytes()[:size])
        write(crashed, keyring, batch[moved:], later)
        assert_log(crashed, keyring, batch)


@pytest.mark.parametrize("holes", [b"\0", b"\xff"])
def test_pages_of_the_last_batch_that_never_reached_the_disk(
    holes: bytes, tmp_path: Path, keyring: Keyring, make_event: Make
) -> None:
    """Power cut: the length is there, some of the octets are not."""
    batch = numbered(make_event, 1, 4)
    write(tmp_path / "a", keyring, batch[:2])
    start = list_segments(tmp_path / "a")[0].path.stat().st_size
    write(tmp_path / "a", keyring, batch[2:])
    name, raw = list_segments(tmp_path / "a")[0].path.name, list_segments(tmp_path / "a")[0].path.read_bytes()
    for offset in range(start, len(raw), 7):
        crashed = tmp_path / str(offset)
        crashed.mkdir()
        (crashed / name).write_bytes(raw[:offset] + holes * min(60, len(raw) - offset) + raw[offset + 60 :])
        write(crashed, keyring, batch[2:])
        assert_log(crashed, keyring, batch)


def test_appended_but_not_discarded_is_not_there_twice(tmp_path: Path, keyring: Keyring, make_event: Make) -> None:
    batch = numbered(make_event, 1, 6, step=3)  # another spool's positions need not be dense
    write(tmp_path, keyring, batch[:2])
    write(tmp_path, keyring, batch[2:5])
    write(tmp_path, keyring, batch[3:])  # the discard of the first of them got through
    logged = read_all(tmp_path, keyring)
    assert [each.event for each in logged] == [event for _, event in batch]
    assert [each.seq for each in logged] == [3, 4, 5, 6, 7, 8]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_history_of_crashes_gives_each_event_once(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory, keyring: Keyring, make_event: Make
) -> None:
    directory = tmp_path_factory.mktemp("history")
    total = numbered(make_event, 1, 20)
    discarded, now = 0, NOON
    while discarded < len(total):
        length = data.draw(st.integers(1, 6))
        now += data.draw(st.sampled_from([0, 1, HOUR, -HOUR]))
        sizes = {each.path: each.path.stat().st_size for each in list_segments(directory)}
        write(directory, keyring, total[discarded:], now, length)
        end = data.draw(st.sampled_from(["discarded", "not discarded", "torn"]))
        if end == "discarded":
            discarded += data.draw(st.integers(1, length))
        elif end == "torn":
            last = list_segments(directory)[-1].path
            synced = min(sizes.get(last, 0), last.stat().st_size)
            os.truncate(last, data.draw(st.integers(synced, last.stat().st_size)))
    assert_log(directory, keyring, total)


def test_a_spool_restored_from_a_copy_costs_nothing_of_the_log(
    tmp_path: Path, keyring: Keyring, make_event: Make, caplog: pytest.LogCaptureFixture
) -> None:
    old = numbered(make_event, 1, 10)
    write(tmp_path, keyring, old)
    restored = [*old[2:4], (5, make_event()), (6, make_event())]  # the copy held 3 and 4; the rest came since
    write(tmp_path, keyring, restored)
    logged = read_all(tmp_path, keyring)
    assert [each.event for each in logged] == [event for _, event in old + restored]
    assert [each.seq for each in logged] == list(range(1, 15))
    assert "the spool is older than the log" in caplog.text


@pytest.mark.parametrize("at", [3, 150, 700])
def test_damage_in_the_newest_segment_leaves_a_gap_and_no_number_twice(
    at: int, tmp_path: Path, keyring: Keyring, make_event: Make, caplog: pytest.LogCaptureFixture
) -> None:
    batch = numbered(make_event, 1, 12)
    write(tmp_path, keyring, batch[:10])
    path = list_segments(tmp_path)[0].path
    raw = bytearray(path.read_bytes())
    raw[at : at + 300] = bytes(300)
    path.write_bytes(raw)
    write(tmp_path, keyring, batch[10:], NOON + HOUR)
    assert path.read_bytes() == raw, "what is left of it stays for those who want to look"
    newest = list_segments(tmp_path)[-1]
    assert newest.first == 11
    with newest.path.open("rb") as file:
        assert [frame.seq for frame in frames(file, start_of(newest, file))] == [11, 12]
    assert f"segment={path} damaged" in caplog.text


def test_without_segments_numbers_go_on_above_all_that_were_given(
    tmp_path: Path, keyring: Keyring, make_event: Make
) -> None:
    write(tmp_path / "wiped", keyring, numbered(make_event, 41, 42))
    assert [each.seq for each in read_all(tmp_path / "wiped", keyring)] == [41, 42]


def test_a_segment_of_another_version_is_left_alone(tmp_path: Path, keyring: Keyring, make_event: Make) -> None:
    path = tmp_path / "00000000000000000001.2027-01-15T12.events"
    path.write_bytes(MAGIC.replace(b"1", b"2") + b"what")
    with pytest.raises(SegmentError, match="another version"):
        write(tmp_path, keyring, numbered(make_event, 1, 1))
    assert path.read_bytes().endswith(b"what")


def test_frames_cannot_change_places(tmp_path: Path, keyring: Keyring, make_event: Make) -> None:
    write(tmp_path, keyring, numbered(make_event, 1, 2))
    path = list_segments(tmp_path)[0].path
    raw = path.read_bytes()
    half = (len(raw) - len(MAGIC)) // 2
    first, second = raw[len(MAGIC) : len(MAGIC) + half], raw[len(MAGIC) + half :]
    path.write_bytes(MAGIC + first[:28] + second[28:] + second[:28] + first[28:])
    with path.open("rb") as file:
        found = list(frames(file, start_of(list_segments(tmp_path)[0], file)))
        assert [open_frame(file, frame, keyring) for frame in found] == [None, None]


def test_retirement(tmp_path: Path, keyring: Keyring, make_event: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    batch = numbered(make_event, 1, 40)
    writer = Writer(tmp_path, keyring, batch)
    for number, each in enumerate(batch):
        writer.append([each], NOON + number * HOUR)
    writer.close()
    assert retire(tmp_path, NOON + RETENTION + HOUR - 1) == 0, "it may hold an event of the hour's last second"
    assert retire(tmp_path, NOON + RETENTION + HOUR) == 1
    assert caplog.text.count("retired") == 1
    assert retire(tmp_path, NOON + 10 * RETENTION) == 24, "a wrong clock costs a day, not the log"
    assert retire(tmp_path, NOON + 10 * RETENTION) == 14
    assert retire(tmp_path, NOON + 10 * RETENTION) == 0
    assert [each.first for each in list_segments(tmp_path)] == [40], "the newest knows the number"
