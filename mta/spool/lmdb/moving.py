"""A spool moves into a new file when little is left of much: what was drained is given back to the disk.

LMDB's file never shrinks, and of its free pages LMDB takes those first that have been free for longest, wherever in the
file they are: a commit becomes a write for each of its pages (docs/decisions/0023).

The new file is complete and on disk before the old one is marked, in a commit of its own, with the lock of its writer
held. The mark is a format version that nobody knows: an earlier program keeps off. Whoever meets the mark, in the first
transaction after it, goes over (following.py); nothing is ever changed in a file that has it. Who finds a marked file
in place, because the mover died, puts the new one there.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import lmdb

from mta.spool.disk import sync_to_disk
from mta.spool.interface import SpoolError, Unavailable

DATA_FILE = "data.mdb"
MOVED = b"moved"  # the version in META, from the last commit of a file that has been left
_STAGED = "compacted"
_TURN = "opening.lock"


@contextmanager
def turn(path: Path) -> Iterator[None]:
    """Wait until nobody else opens the spool in a directory or moves it; Unavailable if that cannot be known."""
    try:
        fd = os.open(path / _TURN, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Unavailable(f"spool {path}: {error.strerror}: {_TURN}") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def stage(env: lmdb.Environment, path: Path) -> None:
    """Copy what was committed last into a new file, beside the one in use and on disk; SpoolError if that fails."""
    staged = path / _STAGED
    try:
        staged.mkdir(mode=0o700, exist_ok=True)
        (staged / DATA_FILE).unlink(missing_ok=True)
        env.copy(str(staged), compact=True)
        (staged / DATA_FILE).chmod(0o600)
        for each in (staged / DATA_FILE, staged, path):
            sync_to_disk(each)
    except (lmdb.Error, OSError) as error:
        with suppress(OSError):
            (staged / DATA_FILE).unlink(missing_ok=True)
        raise SpoolError(f"copy of spool {path}: {error}") from None


def enter(path: Path) -> None:
    """Put the staged file in place, with a new lock file; OSError. Nobody may open the spool meanwhile."""
    staged = path / _STAGED
    if not (staged / DATA_FILE).exists():
        raise Unavailable(f"spool {path}: it has moved, and {_STAGED}/{DATA_FILE} is missing: restore a backup")
    (path / "lock.mdb").unlink(missing_ok=True)  # first: whoever opened the new file with it would trust its numbers
    (staged / DATA_FILE).replace(path / DATA_FILE)
    (staged / "lock.mdb").unlink(missing_ok=True)
    staged.rmdir()
    sync_to_disk(path)


def identity(path: Path) -> tuple[int, int]:
    """Name the file in place, whatever comes there later; OSError."""
    found = (path / DATA_FILE).stat()
    return found.st_dev, found.st_ino
