"""The LMDB environment: opening, tables, format version, room.

0.9 format (`lib_version=0`), default sync, never writemap: an acknowledged commit has been fsynced, and a
full disk is an error and not a signal. The directory entries are fsynced before the first accept, which
LMDB leaves to the file system. One Environment a process and file; several processes share the file.
"""

import fcntl
import logging
import os
import time
import weakref
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import lmdb
import msgspec

from mta.sizes import octets_of
from mta.spool.disk import sync_to_disk
from mta.spool.interface import Space, Unavailable
from mta.spool.lmdb.moving import DATA_FILE, MOVED, enter, identity, turn
from mta.spool.lmdb.tally import COUNTED

if TYPE_CHECKING:
    from lmdb import _StatDict

log = logging.getLogger(__name__)

FORMAT_VERSION = b"3"
_BEFORE_SHARING = b"2"  # the same but for shared content, which such a program would remove with its first message
PAGE = 4096
VALUE_LIMIT = 4080  # octets of a value that fit into one LMDB page with its header
_MAX_READERS = 512
_SPACE_AGE = 1.0  # seconds that a measurement of the room holds


class Table(StrEnum):
    """The tables. Keys are ids, hashes and fixed-width numbers, never text from outside."""

    CONTENT = "content"  # content id, page u32 -> sealed page
    MESSAGES = "messages"  # message id, page u8 -> sealed Message
    ENTRIES = "entries"  # message id, number u16, page u8 -> sealed Entry
    DUE = "due"  # lane, due ms u64, message id, number -> revision of the entry
    WAKE = "wake"  # tenant, second u64, lane -> nothing: every lane has one with the second of its head
    HELD = "held"  # message id, number -> revision, as in `due`: what is held instead of waiting in a lane
    CLAIMS = "claims"  # message id, number -> Claim
    TIMERS = "timers"  # second u64, tenant, message id, number -> nothing; an earlier version had no tenant there
    EVENTS = "events"  # sequence of the last u64, page u8 -> sealed Events
    RECORDS = "records"  # kind, name hash, page u8 -> sealed named record
    LOOSE = "loose"  # content id -> pages u32, since u64: content that no message refers to (yet or any more)
    SHARED = "shared"  # content id -> in how many places of messages u32
    BACKLOG = "backlog"  # tenant -> what it has waiting, sealed name (tally.py)
    KEPT = "kept"  # name hash, piece u8 -> sealed KeptAnswer
    KEPT_UNTIL = "kept-until"  # second u64, name hash -> nothing: when a row of `kept` is past
    ENDED = "ended"  # second u64, message id -> nothing: when a message that has ended goes, with its content
    TOLLS = "tolls"  # name hash -> when a rate was taken last, and how much of it is taken up (terms.py)
    META = "meta"  # name -> number: format version, last sequence, owner epoch


class Place(msgspec.Struct, frozen=True, array_like=True):
    """Where a spool is and how it is opened: octets of the map, `spool.reserve` of the configuration.

    `sync=False` is for the control of the durability tests.
    """

    path: str
    map_size: int
    reserve: str | int
    sync: bool = True


class Environment:
    """An open environment and its tables."""

    def __init__(
        self, path: Path, *, map_size: int, reserve: str | int, sync: bool = True, alone: bool = False
    ) -> None:
        """Open or create; Unavailable when that cannot be done, with the reason.

        `alone` keeps other processes out until `close`, and fails when one is in. `sync=False` exists for the
        control of the durability tests, which must lose mail with it.
        """
        self.path = path
        self.map_size = map_size
        self._reserve = reserve
        self._sync = sync
        self._alone = alone
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            with turn(path):
                self._held = _held(path, alone=alone)
                self._let_go = weakref.finalize(self, os.close, self._held)
                try:
                    self._open()
                except BaseException:
                    self._let_go()
                    raise
        except (lmdb.Error, OSError) as error:
            raise Unavailable(f"spool {path}: {_reason(error)}") from None

    def _open(self) -> None:
        """Open the file in place. One that has been left makes room for the new one: who left it has died."""
        self.env = self._env()
        try:
            if self._is_left():
                self.env.close()
                self._enter()
                self.env = self._env()
            self._check_version()
            self.tables: Mapping[Table, Any] = MappingProxyType(
                {table: self.env.open_db(table.encode()) for table in Table}
            )
            self.file = identity(self.path)
            self.env.reader_check()
            self.env.sync(True)  # noqa: FBT003 - py-lmdb's signature
            for directory in (self.path, self.path.parent):
                sync_to_disk(directory)
        except BaseException:
            self.env.close()
            raise

    def _env(self) -> lmdb.Environment:
        return lmdb.open(
            str(self.path), map_size=self.map_size, max_dbs=len(Table), max_readers=_MAX_READERS, mode=0o600,
            lib_version=0, sync=self._sync, metasync=self._sync, writemap=False,
            meminit=True,  # or pages would take what the heap held before to the disk: mail and keys
        )  # fmt: skip

    def _is_left(self) -> bool:
        try:
            meta = self.env.open_db(Table.META.encode(), create=False)
        except lmdb.NotFoundError:
            return False
        with self.env.begin() as txn:
            return txn.get(b"version", db=meta) == MOVED

    def _enter(self) -> None:
        enter(self.path)
        log.warning("spool=%s moved=finished reason=who-moved-it-died", self.path)

    def has_moved(self, txn: lmdb.Transaction) -> bool:
        """Tell whether the spool was in another file already when a transaction began."""
        return txn.get(b"version", db=self.tables[Table.META]) == MOVED

    def make_way(self) -> None:
        """See to it that the file that was moved into is in place, if who moved has died meanwhile; Unavailable."""
        try:
            with turn(self.path):
                if identity(self.path) == self.file:
                    self._enter()
        except OSError as error:
            raise Unavailable(f"spool {self.path}: {_reason(error)}") from None

    def _check_version(self) -> None:
        meta = self.env.open_db(Table.META.encode())
        with self.env.begin(write=True) as txn:
            found = txn.get(b"version", db=meta)
            if found is None:
                txn.put(b"version", FORMAT_VERSION, db=meta)
                txn.put(COUNTED, b"0", db=meta)
            elif found == _BEFORE_SHARING:
                self._require_nobody_else()
                txn.put(b"version", FORMAT_VERSION, db=meta)
        if found not in (None, _BEFORE_SHARING, FORMAT_VERSION):
            raise Unavailable(f"spool {self.path}: format version {found!r}, this program knows {FORMAT_VERSION!r}")

    def _require_nobody_else(self) -> None:
        """Unavailable if others have the spool open: of an earlier version, because we open it one after the other."""
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Unavailable(f"spool {self.path}: an earlier version has it open; stop that first") from None
        if not self._alone:
            fcntl.flock(self._held, fcntl.LOCK_SH)

    @property
    def end(self) -> int:
        """How many octets of the file LMDB uses, or has used; what follows are zeros (ahead.py)."""
        return (self.env.info()["last_pgno"] + 1) * PAGE

    def space(self) -> Space:
        """Measure the room: what the file system has free, zeros ahead, and pages that can be used again.

        LMDB's file never shrinks, so only counting all of them tells a full spool from a drained one; a full
        map is a full disk.
        """
        end = self.end
        with self.env.begin() as txn:
            pages = sum(_pages(txn.stat(db)) for db in self.tables.values()) + _pages(txn.stat())
        reusable = max(0, end // PAGE - pages - 2)
        disk = os.statvfs(self.path)
        ahead = max(0, (self.path / DATA_FILE).stat().st_size - end)
        room_on_disk = disk.f_bavail * disk.f_frsize + ahead
        free = max(0, min(room_on_disk, self.map_size - end)) + reusable * PAGE
        return Space(free=free, reserve=octets_of(self._reserve, disk.f_blocks * disk.f_frsize), used=pages * PAGE)

    def close(self) -> None:
        """Close the environment; no transaction may be open in this process."""
        self.env.close()
        self._let_go()


class Room:
    """The room that is left, at most a second old."""

    def __init__(self, environment: Callable[[], Environment], usable: Callable[[], bool]) -> None:
        """Measure now; later only while the environment is `usable`."""
        self._environment = environment
        self._usable = usable
        self._space = environment().space()
        self.measured_at = time.monotonic()

    def space(self) -> Space:
        """Tell it."""
        now = time.monotonic()
        if now - self.measured_at >= _SPACE_AGE and self._usable():
            self.measured_at = now
            self._space = self._environment().space()
        return self._space


def _pages(stat: "_StatDict") -> int:
    return stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def _held(path: Path, *, alone: bool) -> int:
    """Lock the directory, with the others who have the spool open or alone; the lock ends with its descriptor."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise Unavailable(
            "the spool is in use; stop the relay first" if alone else f"spool {path}: it is being compacted"
        ) from None
    return fd
