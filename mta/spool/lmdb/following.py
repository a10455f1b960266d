"""The environment in use, followed from file to file (moving.py)."""

import logging
import os
import threading
from collections.abc import Callable

import lmdb

from mta.spool.lmdb.environment import Environment, Table
from mta.spool.lmdb.moving import MOVED, enter, stage, turn

log = logging.getLogger(__name__)

_COPIED = 16 << 20  # octets in use, up to which they are copied: nobody can commit for as long as that takes
_MOST_COPIED = (
    128 << 20
)  # for what gives back _TIMES as much: answers that are kept for a day are there however drained
_TIMES = 16
_GIVEN_BACK = 64 << 20  # octets of free pages that are worth it
_SPARE = 16 << 20  # octets of the disk that are to be left: a lock file without blocks would be a SIGBUS


class Followed:
    """The environment in use. Threads may share it: one that has been left is closed when its last reader is done."""

    def __init__(self, opening: Callable[[], Environment]) -> None:
        """Open it; what `opening` raises."""
        self._opening = opening
        self._lock = threading.Lock()
        self.environment = opening()

    def begin(self, *, write: bool = False) -> tuple[Environment, lmdb.Transaction]:
        """Begin a transaction in the file in use; lmdb.Error, or what opening it raises."""
        while True:
            environment = self.environment
            txn = environment.env.begin(write=write)
            try:
                if not environment.has_moved(txn):
                    return environment, txn
            except BaseException:
                txn.abort()  # or nobody could change anything for as long as the error is being dealt with
                raise
            txn.abort()
            self._follow(environment)

    def current(self) -> Environment:
        """Name the environment in use, as `begin` does."""
        environment, txn = self.begin()
        txn.abort()
        return environment

    def reopen(self) -> None:
        """Close and open it, after an I/O error; what opening raises."""
        with self._lock:
            self.environment.close()
            self.environment = self._opening()

    def move(self) -> bool:
        """Move into a new file if it is worth it, where the next `begin` goes; tell whether that was done.

        SpoolError when nothing has changed; lmdb.Error or OSError when it may be half done.
        """
        left = self.current()
        if not _worth_it(left):
            return False
        with turn(left.path):  # nobody may meet half of it
            with left.env.begin(write=True) as txn:
                if left.has_moved(txn) or not _worth_it(left):
                    return False
                stage(left.env, left.path)
                txn.put(b"version", MOVED, db=left.tables[Table.META])
            enter(left.path)
        log.info("spool=%s moved=yes octets=%d before=%d", left.path, left.space().used, left.end)
        return True

    def _follow(self, left: Environment) -> None:
        with self._lock:
            if self.environment is left:
                left.make_way()
                self.environment = self._opening()


def _worth_it(environment: Environment) -> bool:
    used = environment.space().used
    given_back = environment.end - used
    disk = os.statvfs(environment.path)
    return (
        used <= max(_COPIED, min(_MOST_COPIED, given_back // _TIMES))
        and given_back >= _GIVEN_BACK
        and disk.f_bavail * disk.f_frsize >= used + _SPARE  # what is tried without room takes it from others
    )
