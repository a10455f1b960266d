"""Follows the log for the views, group by group, and begins them anew when they cannot be used.

They cannot when the file is broken or another version's, or when the log is shorter than what they have taken in
(another log: the state was restored). Anything else is told, and tried again: the log keeps what they have not seen.
"""

import logging
import sqlite3
from pathlib import Path

import msgspec

from mta.clock import Clock
from mta.events.reader import LogReader
from mta.events.views import schema
from mta.events.views.builder import Builder
from mta.spool.interface import Spool

log = logging.getLogger(__name__)

PATIENCE = 1.0  # seconds that a read waits at most
GROUP = 1000  # events of one transaction
DROPPED_AT_ONCE = 500
_DROP_EVERY = 3600.0  # seconds between looks at what the log's retention has left
_BROKEN = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class Progress(msgspec.Struct, frozen=True, array_like=True):
    """How far the views are: the last event taken in, the spool's position that was reached and its last one.

    `trouble` is what keeps them from going on, "" for nothing. Until `complete` they are being built.
    """

    seq: int = 0
    position: int = 0
    end: int = 0
    complete: bool = False
    trouble: str = ""

    @property
    def lag(self) -> int:
        """Events to be taken in yet, as of the last look."""
        return max(0, self.end - self.position)


class Reach(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The position of the spool's log that a read waits for."""

    position: int


def progress_in(directory: Path) -> Progress:
    """Read how far the views are from their file, with nobody there to ask."""
    build = schema.newest(directory)
    try:
        db = schema.open_to_read(build) if build else None
        if db is not None:
            seq, position, complete = db.execute("SELECT seq, position, complete FROM progress").fetchone()
            db.close()
            return Progress(seq, position, position, bool(complete))
    except sqlite3.Error as error:
        return Progress(trouble=str(error))
    return Progress()


class Follower:
    """The one builder of an installation's views."""

    def __init__(self, spool: Spool, log_reader: LogReader, directory: Path, clock: Clock) -> None:
        self._spool = spool
        self._log = log_reader
        self._directory = directory
        self._clock = clock
        self._builder: Builder | None = None
        self._anew = False
        self._drop_at = clock.monotonic()
        self._first = 0  # what the log has no more is numbered below
        self.progress = Progress()

    async def look(self) -> bool:
        """Take in what comes next, a bounded amount; tell whether there is more. Never raises."""
        try:
            return await self._look()
        except Exception as error:  # noqa: BLE001 - boundary: one background loop; a full disk or a sick spool must not end it
            log.error("views cannot go on: %r", error)
            self.progress = msgspec.structs.replace(self.progress, trouble=repr(error))
            self.close()
            if isinstance(error, sqlite3.DatabaseError) and getattr(error, "sqlite_errorcode", 0) & 0xFF in _BROKEN:
                self.rebuild("the file is broken")
            return False

    def rebuild(self, why: str) -> None:
        """Begin them anew with the next look."""
        log.warning("views=%s doing=build-anew reason=%r", self._directory, why)
        self.close()
        self._anew = True
        self.progress = msgspec.structs.replace(self.progress, seq=0, position=0, complete=False)

    def close(self) -> None:
        """Let go of the file."""
        builder, self._builder = self._builder, None
        if builder is not None:
            builder.close()

    async def _look(self) -> bool:
        builder = self._builder
        if builder is None:
            builder = self._builder = await self._begin()
        end = await self._spool.log_end()
        events = await self._log.read(builder.seq, GROUP)
        all_taken = len(events) < GROUP
        builder.take(events, complete=builder.complete or all_taken)
        # At the end of the log, positions without an event that can be read are reached too.
        position = max(end, builder.position) if all_taken else builder.position
        self.progress = Progress(builder.seq, position, max(end, position), builder.complete)
        if not all_taken:
            return True
        builder.release(self._clock.now())
        return await self._drop(builder)

    async def _begin(self) -> Builder:
        build = None if self._anew else schema.newest(self._directory)
        connection = None if build is None else schema.open_to_write(build)
        if connection is not None:
            builder = Builder(connection)
            if builder.seq <= await self._log.end():
                return builder
            log.warning("views=%s doing=build-anew reason='the log is another one'", self._directory)
            builder.close()
        build, connection = schema.begin(self._directory)
        self._anew = False
        log.info("views=%s building=yes", build.path)
        return Builder(connection)

    async def _drop(self, builder: Builder) -> bool:
        """Let go of what the log's retention has left; tell whether there is more of it."""
        if self._clock.monotonic() >= self._drop_at:
            self._drop_at = self._clock.monotonic() + _DROP_EVERY
            oldest = await self._log.read(0, 1)
            self._first = oldest[0].seq if oldest else 0
        if self._first and not builder.drop(self._first, DROPPED_AT_ONCE):
            self._first = 0
        return bool(self._first)
