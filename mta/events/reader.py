"""Reading the log by sequence number, across segments and the spool's tail, in any process.

A batch may move from the one to the other between two looks. The mover appends before it discards, so
when the segments end as they ended before the tail was read, nothing of the tail was missing.
"""

import asyncio
import logging
import os
from bisect import bisect_right
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO, NamedTuple

from mta.clock import Clock
from mta.events.segments import (
    NOWHERE,
    Frame,
    LoggedEvent,
    SegmentFile,
    ended_before,
    frames,
    list_segments,
    message_mark,
    open_frame,
    start_of,
)
from mta.mail.event import ENDS, Event
from mta.mail.ids import made_at, message_id_bytes
from mta.spool.interface import Spool
from mta.spool.sealing import Keyring

log = logging.getLogger(__name__)

POLL = 1.0  # seconds between looks of a follower that has read everything
_PAGE = 200  # events read from the spool at a time
_BEYOND = 1 << 63  # a number that no event has
_CLOCK_SLACK = 3600.0  # seconds that the clocks of acceptance and of moving may be apart


class _Wanted(NamedTuple):
    """What to read: at most `limit` events numbered after `after`; of one message, unless `message` is ""."""

    after: int
    limit: int
    message: str = ""


class _Scan(NamedTuple):
    """What the segments gave, their last frame, and the newest file with its size (before it was read)."""

    found: list[LoggedEvent]
    last: Frame
    newest: tuple[str, int]


class LogReader:
    """A reader of the log. One for each follower: it remembers where it was."""

    def __init__(self, spool: Spool, directory: Path, keyring: Keyring) -> None:
        self._spool = spool
        self._directory = directory
        self._keyring = keyring
        self._in_segment: tuple[Path | None, Frame] = (None, NOWHERE)
        self._in_tail = NOWHERE

    async def read(self, after: int, limit: int) -> list[LoggedEvent]:
        """Read at most `limit` events numbered after `after`, in order.

        A first number above `after` + 1 means that those between are older than the retention (or unreadable, which
        is logged).
        """
        return (await self._read(_Wanted(after, limit)))[0]

    async def of_message(self, message_id: str, after: int, limit: int) -> list[LoggedEvent]:
        """Read at most `limit` events of one message numbered after `after`; ValueError if it is no message id.

        Looks at the header of each event since the message was made, and opens those of the message.
        """
        message_id_bytes(message_id)
        return (await self._read(_Wanted(after, limit, message_id)))[0]

    async def ends(self, message_id: str) -> dict[tuple[str, str], Event]:
        """Read how recipients of a message ended, by entry and address; ValueError if it is no message id."""
        found: dict[tuple[str, str], Event] = {}
        after = 0
        while page := await self.of_message(message_id, after, _PAGE):
            found |= {(each.event.entry, each.event.recipient): each.event for each in page if each.event.type in ENDS}
            after = page[-1].seq
        return found

    async def end(self) -> int:
        """Return the number of the last event, 0 before the first."""
        return (await self._read(_Wanted(_BEYOND, 1)))[1]

    async def follow(self, after: int, clock: Clock, stop: asyncio.Event) -> AsyncIterator[LoggedEvent]:
        """Read on and on until `stop` is set; what is new comes within a second."""
        while not stop.is_set():
            events = await self.read(after, _PAGE)
            for each in events:
                yield each
                after = each.seq
            if not events:
                await clock.wait(stop, POLL)

    async def _read(self, wanted: _Wanted) -> tuple[list[LoggedEvent], int]:
        """Return what was found, and the last number looked at."""
        found: list[LoggedEvent] = []
        while True:
            scan = await asyncio.to_thread(self._scan, wanted)
            found += scan.found
            if len(scan.found) == wanted.limit:
                return found, found[-1].seq
            wanted = wanted._replace(after=max(wanted.after, scan.last.seq), limit=wanted.limit - len(scan.found))
            tail, last = await self._tail(wanted, scan.last)
            if await asyncio.to_thread(self._newest) == scan.newest:
                self._in_tail = last
                return found + tail, last.seq

    async def _tail(self, wanted: _Wanted, end: Frame) -> tuple[list[LoggedEvent], Frame]:
        """Read events the spool holds, numbered on from the end of the segments; and where that ended."""
        place = self._in_tail if end.seq < self._in_tail.seq <= wanted.after else end
        found: list[LoggedEvent] = []
        while len(found) < wanted.limit and (page := await self._spool.events_after(place.position, _PAGE)):
            for position, event in page:
                # With no segments, numbers begin at the first position: no number is greater than its position.
                seq = position if place is NOWHERE else place.seq + 1
                place = Frame(0, 0, seq, position, b"")
                if seq > wanted.after and wanted.message in ("", event.message):
                    found.append(LoggedEvent(seq, position, event))
                    if len(found) == wanted.limit:
                        break
        return found, place

    def _newest(self) -> tuple[str, int]:
        return _newest(list_segments(self._directory))

    def _scan(self, wanted: _Wanted) -> _Scan:
        """Read what is wanted from the segments. Blocking."""
        segments = list_segments(self._directory)
        newest = _newest(segments)
        first = bisect_right(segments, wanted.after + 1, key=lambda each: each.first) - 1
        if wanted.message:
            first = max(first, ended_before(segments, made_at(wanted.message) - _CLOCK_SLACK))
        found: list[LoggedEvent] = []
        last = NOWHERE
        for segment in segments[max(first, 0) :]:
            if last.seq not in (0, segment.first - 1):
                log.error("segment=%s missing=%d events before it", segment.path, segment.first - 1 - last.seq)
            try:
                with segment.path.open("rb", buffering=1 << 20) as file:
                    last = self._scan_one(segment, file, wanted, found)
            except FileNotFoundError:
                continue  # retired, or a torn one that the mover has just removed
            if len(found) == wanted.limit:
                break
        return _Scan(found, last, newest)

    def _scan_one(self, segment: SegmentFile, file: IO[bytes], wanted: _Wanted, found: list[LoggedEvent]) -> Frame:
        """Add what is wanted of one segment to `found`; return the last frame looked at."""
        last = self._start(segment, file, wanted)
        mark = message_mark(wanted.message)
        for frame in frames(file, last):
            last = frame
            if frame.seq <= wanted.after or (wanted.message and frame.mark != mark):
                continue
            logged = open_frame(file, frame, self._keyring)
            if logged is None:
                log.error("segment=%s seq=%d offset=%d event cannot be read", segment.path, frame.seq, frame.offset)
            elif wanted.message in ("", logged.event.message):
                found.append(logged)
                if len(found) == wanted.limit:
                    break
        if not wanted.message:
            self._in_segment = (segment.path, last)
        return last

    def _start(self, segment: SegmentFile, file: IO[bytes], wanted: _Wanted) -> Frame:
        path, place = self._in_segment
        if path == segment.path and place.seq <= wanted.after and place.end <= file.seek(0, os.SEEK_END):
            return place
        file.seek(0)
        return start_of(segment, file)


def _newest(segments: list[SegmentFile]) -> tuple[str, int]:
    if not segments:
        return "", 0
    try:
        return segments[-1].path.name, segments[-1].path.stat().st_size
    except FileNotFoundError:
        return segments[-1].path.name, 0
