"""Segment files: the log once it has left the spool. The file format, and its only writer.

A segment is `FIRST.HOUR.events`: the sequence number of its first event (20 digits) and the UTC hour it was
begun in, so names sort in log order whatever the clock does. After the magic line come frames, each a
header (length, sequence number, spool position, a mark of the message) and the event, sealed under the
subkey "segments" of its day and bound to its header.

Invariants. What the spool still holds is not in the segments: a batch is appended, fsynced, then
discarded from the spool, and whatever a crash or a failed fsync leaves between the two is cut from the last segment and
moved again. So the writer keeps no position. Sequence numbers have no gaps and never exceed the
spool's position; only damage to a file of ours leaves one, and that is logged. The newest segment is
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

import msgspec

from mta.mail.event import Event
from mta.spool.sealing import Keyring, SealBroken

log = logging.getLogger(__name__)

RETENTION = 30 * 86_400.0  # seconds that an event can be read, at least
SEGMENT_OCTETS = 64 << 20  # a longer segment is ended before its hour is: bounds start-up and look-ups

MAGIC = b"fairlead events 1\n"
_ANY_MAGIC = b"fairlead events "
_HEADER = struct.Struct(">IQQ8s")  # octets of the sealed event, sequence number, spool position, mark
_LARGEST = 1 << 24  # octets of a sealed event; a length beyond it is damage
_TORN_LIMIT = 16 << 20  # octets that a crash can leave half-written: more than any batch
_NAME = re.compile(r"(\d{20})\.(\d{4}-\d\d-\d\dT\d\d)\.events")
_RETIRED_AT_ONCE = 24
_HOUR = 3600.0

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Event).decode


class SegmentError(Exception):
    """A segment cannot be used by this version of Fairlead."""


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


class SegmentFile(NamedTuple):
    """One file of the log."""

    path: Path
    first: int
    hour: str

    @property
    def began_at(self) -> float:
        """The start of its hour, absolute seconds."""
        return dt.datetime.strptime(self.hour, "%Y-%m-%dT%H").replace(tzinfo=dt.UTC).timestamp()


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
    return blake2b(message_id.encode(), digest_size=8).digest()


def frames(file: IO[bytes], after: Frame) -> Iterator[Frame]:
    """Walk the whole frames that follow `after`; stop at the first that is not whole or not next."""
    size = os.fstat(file.fileno()).st_size
    offset, seq = after.end, after.seq
    while offset + _HEADER.size <= size:
        file.seek(offset)
        header = file.read(_HEADER.size)
        if len(header) < _HEADER.size:
            return
        length, number, position, mark = _HEADER.unpack(header)
        end = offset + _HEADER.size + length
        if number != seq + 1 or not 0 < length <= _LARGEST or end > size:
            return
        yield Frame(offset, end, number, position, mark)
        offset, seq = end, number


def start_of(segment: SegmentFile, file: IO[bytes]) -> Frame | None:
    """Return the place before the first frame; None when the file does not begin as a segment (half-made).

    SegmentError when a later version wrote it.
    """
    magic = file.read(len(MAGIC))
    if magic == MAGIC:
        return Frame(0, len(MAGIC), segment.first - 1, 0, b"")
    if len(magic) == len(MAGIC) and magic.startswith(_ANY_MAGIC):
        raise SegmentError(f"{segment.path}: written by another version: {magic!r}")
    return None


def open_frame(file: IO[bytes], frame: Frame, keyring: Keyring) -> LoggedEvent | None:
    """Open a frame's event; None if it fails its seal or is of a kind this version does not know."""
    file.seek(frame.offset)
    header = file.read(_HEADER.size)
    sealed = file.read(frame.end - frame.offset - _HEADER.size)
    try:
        return LoggedEvent(frame.seq, frame.position, _decode(keyring.open("segments", sealed, header[4:])))
    except (SealBroken, msgspec.DecodeError):
        return None


class Writer:
    """The one writer of a segment directory.

    Blocking; use it from one thread. After an exception its state is unknown: close it and open another.
    """

    def __init__(self, directory: Path, keyring: Keyring, kept: tuple[int, Event] | None) -> None:
        """Go on where the segments end. `kept` is the first event that the spool holds, with its position."""
        self._keyring = keyring
        self._directory = directory
        self._file: IO[bytes] | None = None
        self._size = 0
        self._hour = ""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _sync(directory.parent)
        self.seq: int | None = None
        """The number of the last event in the segments; None before the first."""
        self._resume(kept)

    def append(self, batch: Sequence[tuple[int, Event]], now: float) -> None:
        """Number and store events that the spool holds, in order, with their positions. Durable on return."""
        seq = batch[0][0] if self.seq is None else self.seq + 1
        hour = dt.datetime.fromtimestamp(now, dt.UTC).strftime("%Y-%m-%dT%H")
        new = self._file is None or hour != self._hour or self._size >= SEGMENT_OCTETS
        chunks = [MAGIC] if new else []
        for number, (position, event) in enumerate(batch, start=seq):
            chunks += self._sealed(number, position, event, now)
        data = memoryview(b"".join(chunks))
        file = self._begin(seq, hour) if new or self._file is None else self._file
        self._size += len(data)
        while data:
            data = data[file.write(data) :]
        os.fsync(file.fileno())
        if new:
            _sync(self._directory)
        self.seq = seq + len(batch) - 1

    def close(self) -> None:
        """Give the file back."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _sealed(self, seq: int, position: int, event: Event, now: float) -> tuple[bytes, bytes]:
        place = _HEADER.pack(0, seq, position, message_mark(event.message))[4:]
        sealed = self._keyring.seal("segments", now, _encode(event), place)
        return len(sealed).to_bytes(4, "big") + place, sealed

    def _begin(self, seq: int, hour: str) -> IO[bytes]:
        self.close()
        path = self._directory / f"{seq:020d}.{hour}.events"
        self._file = open(path, "xb", buffering=0, opener=_private)  # noqa: SIM115, PTH123 - closed by close()
        self._size, self._hour = 0, hour
        return self._file

    def _resume(self, kept: tuple[int, Event] | None) -> None:
        for segment in reversed(list_segments(self._directory)):
            with segment.path.open("rb", buffering=1 << 20) as file:
                size = os.fstat(file.fileno()).st_size
                start = start_of(segment, file) or Frame(0, 0, segment.first - 1, 0, b"")
                last, cut = _last_moved(file, start, self._keyring, kept)
            rest = size - last.end
            if not cut and rest and (kept is None or rest > _TORN_LIMIT):
                # Nothing half-written can be here. What is behind the damage had numbers: do not give them again.
                self.seq = last.seq + 1 + rest // _HEADER.size
                log.error("segment=%s offset=%d damaged: the next number is %d", segment.path, last.end, self.seq + 1)
                return
            if kept is not None and kept[0] <= last.position:
                log.warning("segment=%s the spool is older than the log: its events are moved again", segment.path)
            if last.seq >= segment.first:
                self._take_up(segment, last, rest)
                return
            segment.path.unlink()
            _sync(self._directory)

    def _take_up(self, segment: SegmentFile, last: Frame, rest: int) -> None:
        self._file = segment.path.open("ab", buffering=0)
        if rest:
            log.info("segment=%s cut=%d octets that the spool still holds", segment.path, rest)
            self._file.truncate(last.end)
            os.fsync(self._file.fileno())
        self._size, self._hour, self.seq = last.end, segment.hour, last.seq


def _last_moved(
    file: IO[bytes], start: Frame, keyring: Keyring, kept: tuple[int, Event] | None
) -> tuple[Frame, bool]:
    """Find the last frame that the spool does not hold, and whether one follows that it does hold.

    A position alone does not tell: a spool restored from a copy counts from an earlier one, and cutting there would
    lose what only the segments have. The event's id tells.
    """
    last = start
    for frame in frames(file, start):
        if kept is not None and frame.position == kept[0]:
            logged = open_frame(file, frame, keyring)
            if logged is None or logged.event.id == kept[1].id:
                return last, True
        last = frame
    return last, False


def ended_before(segments: Sequence[SegmentFile], at: float) -> int:
    """Count the leading segments that were ended before `at`; the newest never counts."""
    ended = (following.began_at + _HOUR <= at for following in segments[1:])
    return sum(itertools.takewhile(bool, ended))


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


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
