"""The file of the views: where it is, what is in it, opening it to write and to read.

Each build has a file of its own, `views.NUMBER.db`, and the newest is the one in use: nothing is ever renamed over a
file that somebody has open, whose write-ahead log the new one would take for its own, and no number is given twice. A
build is `complete` when it has reached the end that the log had; before that nobody reads it.

Numbers: `seq` is the event's in the log. A message's is that of its `accepted` event, so that messages and events are
in the order of the commits, and what comes later never moves what a page has shown.
"""

import os
import re
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

BLOCK_BITS = 12
"""Events that share a row of `block` have the same `seq >> BLOCK_BITS`."""

SEVERAL = 0
"""Stands for the recipient of an event that is not of one."""

_VERSION = 1  # of what is below, and of what is written into it: another one is built anew
_NAME = re.compile(r"views\.(\d{1,15})\.db")
_BUSY = 5.0  # seconds that a lock may take; the one writer only meets readers that recover what a crash left

_TABLES = """
CREATE TABLE progress(
    seq INTEGER NOT NULL, position INTEGER NOT NULL, complete INTEGER NOT NULL);
CREATE TABLE scope(
    id INTEGER PRIMARY KEY, tenant TEXT NOT NULL, dialect TEXT NOT NULL, UNIQUE (tenant, dialect));
CREATE TABLE block(
    id INTEGER PRIMARY KEY, earliest REAL NOT NULL, latest REAL NOT NULL);
CREATE TABLE message(
    seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, scope INTEGER NOT NULL, status INTEGER NOT NULL,
    at REAL NOT NULL, last_at REAL NOT NULL, release_at REAL NOT NULL, standing BLOB NOT NULL);
CREATE INDEX message_status ON message(scope, status);
CREATE INDEX message_scheduled ON message(release_at) WHERE status = 0;
CREATE TABLE event(
    seq INTEGER PRIMARY KEY, message INTEGER NOT NULL, scope INTEGER NOT NULL, type INTEGER NOT NULL,
    domain INTEGER NOT NULL, recipient INTEGER NOT NULL, at REAL NOT NULL, data BLOB NOT NULL);
CREATE INDEX event_scope ON event(scope, type);
CREATE INDEX event_domain ON event(domain, type);
CREATE INDEX event_message ON event(message) WHERE message != seq;
CREATE VIRTUAL TABLE term USING fts5(text, content='', columnsize=0, tokenize='unicode61');
INSERT INTO progress VALUES (0, 0, 0);
"""


class Build(NamedTuple):
    """The file of one build."""

    number: int
    path: Path

    @property
    def octets(self) -> int:
        """How long it is, with its write-ahead log."""
        return sum(each.stat().st_size for each in _files(self.path) if each.exists())


def newest(directory: Path) -> Build | None:
    """Name the newest build, if there is one."""
    return max(_builds(directory), default=None)


def begin(directory: Path) -> tuple[Build, sqlite3.Connection]:
    """Begin a new build, and remove the earlier ones."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    earlier = _builds(directory)
    number = max(earlier).number + 1 if earlier else 1
    build = Build(number, directory / f"views.{number}.db")
    os.close(os.open(build.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))  # its log and index get the same mode
    for each in earlier:
        _remove(each.path)
    connection = _connected(build.path)
    connection.executescript(f"PRAGMA journal_mode = WAL; {_TABLES} PRAGMA user_version = {_VERSION};")
    _prepare_to_write(connection)
    return build, connection


def open_to_write(build: Build) -> sqlite3.Connection | None:
    """Open a build to go on with it; None if another version began it. sqlite3.Error."""
    connection = _opened(build)
    if connection is not None:
        _prepare_to_write(connection)
    return connection


def open_to_read(build: Build) -> sqlite3.Connection | None:
    """Open a build for questions, from any thread, by one at a time; None if another version began it. sqlite3.Error.

    A read-only connection could not make the index of the write-ahead log that the writer removes when it ends.
    """
    connection = _opened(build)
    if connection is not None:
        connection.execute("PRAGMA query_only = 1")
    return connection


def _builds(directory: Path) -> list[Build]:
    with suppress(FileNotFoundError):
        found = (_NAME.fullmatch(each) for each in os.listdir(directory))  # noqa: PTH208 - names are wanted
        return [Build(int(each[1]), directory / each[0]) for each in found if each]
    return []


def _remove(path: Path) -> None:
    for each in _files(path):
        each.unlink(missing_ok=True)


def _files(path: Path) -> list[Path]:
    return [path.with_name(path.name + suffix) for suffix in ("", "-wal", "-shm")]


def _connected(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(
        f"{path.as_uri()}?mode=rw", uri=True, isolation_level=None, timeout=_BUSY, check_same_thread=False
    )


def _opened(build: Build) -> sqlite3.Connection | None:
    connection = _connected(build.path)
    try:
        if connection.execute("PRAGMA user_version").fetchone()[0] == _VERSION:
            return connection
    except BaseException:
        connection.close()
        raise
    connection.close()
    return None


def _prepare_to_write(connection: sqlite3.Connection) -> None:
    # A crash of the machine may take the last transactions: they are built again from the log, which it did not take.
    connection.executescript(
        "PRAGMA synchronous = NORMAL; PRAGMA cache_size = -32000; PRAGMA journal_size_limit = 67108864;"
    )
