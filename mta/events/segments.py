"""Segment files: the log once it has left the spool. The file format, and its only writer.

A segment is `FIRST.HOUR.events`: the sequence number of its first event (20 digits) and the UTC hour it was
begun in, so names sort in log order whatever the clock does. After the magic line come frames, each a
header (length, sequence number, spool position, a mark of the message, CRC) and the event, sealed under
the subkey "segments" of its day and bound to its header.

Invariants. What the spool still holds is not in the segments: a batch is appended, fsynced, then
discarded from the spool; what a crash or a failed fsync leaves between the two is cut from the last
segment and moved again. So the writer keeps no position. Sequence numbers have no gaps (only damage to
a file leaves one, and that is logged) and are never greater than the spool's position. The newest segment is
never removed, because it is what numbering goes on from.
"""

import datetime as dt
import itertools
import logging
import os
import re
import struct
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import IO, NamedTuple
from zlib import crc32

import msgspec

from mta.mail.event import Event
from mta.spool.disk import sync_to_disk
from mta.spool.sealing import Keyring, SealBroken

log = logging.getLogger(__name__)

RETENTION = 30 * 86_400.0  # seconds that an event can be read, at least
SEGMENT_OCTETS = 64 << 20  # a longer segment is ended before its hour is: bounds start-up and look-ups

MAGIC = b"fairlead events 1\n"
_ANY_MAGIC = b"fairlead events "
_HEADER = struct.Struct(">IQQ4sI")  # octets of the sealed event, sequence number, spool position, mark, CRC of these
_PLACE = slice(4, 24)  # the part of the header that a sealed event is bound to
_READ_AHEAD = 1 << 20
_NAME = re.compile(r"(\d{20})\.(\d{4}-\d\d-\d\dT\d\d)\.events")
_RETIRED_AT_ONCE = 24
_HOUR = 3600.0
_HOUR_FORMAT = "%Y-%m-%dT%H"

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Event).decode


class SegmentError(Exception):
    """A segment cannot be used by this version of Fairlead."""


Batch = Sequence[tuple[int, Event]]
"""Events as the spool gives them, in order, each with its position."""


class LoggedEvent(NamedTuple):
    """An event and its place in the log: the published number, and the spool's position it had."""

    seq: int
    position: int
    event: Event


class Frame(NamedTuple):
    """Where an event lies in its segment. The header is read, the event is still sealed."""

    offset: int
    end: int
    seq: int
    position: int
    mark: bytes


NOWHERE = Frame(0, 0, 0, 0, b"")


class SegmentFile(NamedTuple):
    """One file of the log."""

    path: Path
    first: int
    hour: str

    @property
    def began_at(self) -> float:
        """The start of its hour, absolute seconds."""
        return dt.datetime.strptime(self.hour, _HOUR_FORMAT).replace(tzinfo=dt.UTC).timestamp()


def list_segments(directory: Path) -> list[SegmentFile]:
    """List the segments in log order; other files are passed over."""
    try:
        names = sorted(os.listdir(directory))  # noqa: PTH208 - names are wanted, thousands of them
    except FileNotFoundError:
        return []
    found = (_NAME.fullmatch(name) for name in names)
    return [SegmentFile(directory / each[0], int(each[1]), each[2]) for each in found if each]


def message_mark(message_id: str) -> bytes:
    """Name a message in frame headers, so that its events are found without opening all the others."""
    return blake2b(message_id.encode(), digest_size=4).digest()


def frames(file: IO[bytes], after: Frame) -> Iterator[Frame]:
    """Walk the whole frames that follow `after`; stop at the first that is not whole or not next."""
    size = os.fstat(file.fileno()).st_size
    offset, seq = after.end, after.seq
    while offset + _HEADER.size <= size:
        file.seek(offset)
        header = file.read(_HEADER.size)
        if len(header) < _HEADER.size:
            return
        length, number, position, mark, crc = _HEADER.unpack(header)
        end = offset + _HEADER.size + length
        if crc != crc32(header[:-4]) or number != seq + 1 or end > size:
            return
        yield Frame(offset, end, number, position, mark)
        offset, seq = end, number


def start_of(segment: SegmentFile, file: IO[bytes]) -> Frame:
    """Return the place before the first frame; SegmentError when another version wrote the file."""
    magic = file.read(len(MAGIC))
    if magic.startswith(_ANY_MAGIC) and len(magic) == len(MAGIC) and magic != MAGIC:
        raise SegmentError(f"{segment.path}: written by another version: {magic!r}")
    return Frame(0, len(MAGIC) if magic == MAGIC else 0, segment.first - 1, 0, b"")


def open_frame(file: IO[bytes], frame: Frame, keyring: Keyring) -> LoggedEvent | None:
    """Open a frame's event; None if it fails its seal or is of a kind this version does not know."""
    file.seek(frame.offset)
    header = file.read(_HEADER.size)
    sealed = file.read(frame.end - frame.offset - _HEADER.size)
    try:
        return LoggedEvent(frame.seq, frame.position, _decode(keyring.open("segments", sealed, header[_PLACE])))
    except (SealBroken, msgspec.DecodeError):
        return None


class Writer:
    """The one writer of a segment directory.

    Blocking; use it from one thread. After an exception its state is unknown: close it and make another.
    """

    def __init__(self, directory: Path, keyring: Keyring, kept: Batch) -> None:
        """Go on where the segments end. `kept` is what the spool holds, from the first, as much as one append."""
        self._keyring = keyring
        self._directory = directory
        self._file: IO[bytes] | None = None
        self._size = 0
        self._hour = ""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        sync_to_disk(directory.parent)
        self.seq = self._resume(kept)
        """The number of the last event in the segments."""

    def append(self, batch: Batch, now: float) -> None:
        """Number and store the first events that the spool holds. Durable on return."""
        hour = dt.datetime.fromtimestamp(now, dt.UTC).strftime(_HOUR_FORMAT)
        file = self._file
        new = file is None or hour != self._hour or self._size >= SEGMENT_OCTETS
        if file is None or new:
            file = self._begin(hour)
        chunks = [MAGIC] if new else []
        for seq, (position, event) in enumerate(batch, start=self.seq + 1):
            chunks += self._sealed(seq, position, event, now)
        rest = memoryview(b"".join(chunks))
        self._size += len(rest)
        while rest:
            rest = rest[file.write(rest) :]
        os.fsync(file.fileno())
        if new:
            sync_to_disk(self._directory)
        self.seq += len(batch)

    def close(self) -> None:
        """Give the file back."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _sealed(self, seq: int, position: int, event: Event, now: float) -> tuple[bytes, bytes]:
        fields = seq, position, message_mark(event.message)
        sealed = self._keyring.seal("segments", now, _encode(event), _HEADER.pack(0, *fields, 0)[_PLACE])
        header = _HEADER.pack(len(sealed), *fields, 0)[:-4]
        return header + crc32(header).to_bytes(4, "big"), sealed

    def _begin(self, hour: str) -> IO[bytes]:
        self.close()
        path = self._directory / f"{self.seq + 1:020d}.{hour}.events"
        self._file = open(path, "xb", buffering=0, opener=_private)  # noqa: SIM115 - close() closes it
        self._size, self._hour = 0, hour
        return self._file

    def _resume(self, kept: Batch) -> int:
        """Cut what the spool still holds, go on in the newest segment that has more; return its last number."""
        blank: list[_End] = []
        end = None
        for segment in reversed(list_segments(self._directory)):
            end = _end_of(segment, self._keyring, kept)
            if end.last.seq >= segment.first:
                break
            blank.append(end)
            end = None
        last = end.last if end else NOWHERE
        missing = kept[0][0] - last.position - 1
        ends = [*blank, end] if end else blank
        if any(each.rest for each in ends) and missing and not any(each.held for each in ends):
            # A crash leaves half-written only what the spool holds, and that would be next.
            seq = last.seq + max(missing, 1)
            log.error("segment=%s damaged at its end: event %d comes in another", ends[-1].path, seq + 1)
            return seq
        for each in blank:
            each.path.unlink()
        sync_to_disk(self._directory)
        if end is None:
            return kept[0][0] - 1  # no number was ever greater than the position of its event
        if missing < 0:
            log.warning("position=%d the spool is older than the log: what it holds is moved again", kept[0][0])
        self._take_up(end)
        return last.seq

    def _take_up(self, end: "_End") -> None:
        self._file = end.path.open("ab", buffering=0)
        self._size, self._hour = end.last.end, end.hour
        if end.rest:
            self._file.truncate(end.last.end)
            os.fsync(self._file.fileno())
            log.info("segment=%s cut=%d the spool still holds these events", end.path, end.rest)


class _End(NamedTuple):
    """How a segment ends: its last frame that the spool does not hold, the octets behind, and whose they are."""

    path: Path
    hour: str
    last: Frame
    rest: int
    held: bool


def _end_of(segment: SegmentFile, keyring: Keyring, kept: Batch) -> _End:
    """Find where a segment ends for one who has yet to move `kept`.

    The spool holds a crash's leftovers to the last one. Its first position alone does not tell: a spool
    restored from a copy counts on from there, and cutting would lose what only the segments have.
    """
    held_from = None
    with segment.path.open("rb", buffering=_READ_AHEAD) as file:
        size = os.fstat(file.fileno()).st_size
        last = start_of(segment, file)
        for frame in frames(file, last):
            if frame.position == kept[0][0]:
                held_from = last
            last = frame
        if held_from and _holds(kept, last, open_frame(file, last, keyring)):
            return _End(segment.path, segment.hour, held_from, size - held_from.end, held=True)
    return _End(segment.path, segment.hour, last, size - last.end, held=False)


def _holds(kept: Batch, frame: Frame, logged: LoggedEvent | None) -> bool:
    event = dict(kept).get(frame.position)
    return event is not None and (logged is None or logged.event.id == event.id)


def ended_before(segments: Sequence[SegmentFile], at: float) -> int:
    """Count the leading segments whose hour was over at `at`; the newest never counts."""
    return sum(1 for _ in itertools.takewhile(lambda each: each.began_at + _HOUR <= at, segments[:-1]))


def retire(directory: Path, now: float) -> int:
    """Remove segments whose events are all older than RETENTION; return how many went.

    Never the newest, and at most a day's worth at once: a clock set wrong costs no more before someone
    can look.
    """
    segments = list_segments(directory)
    old = segments[: min(ended_before(segments, now - RETENTION), _RETIRED_AT_ONCE)]
    for segment in old:
        segment.path.unlink()
        log.info("segment=%s retired", segment.path)
    return len(old)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
