"""The writer as a thread: for short-lived processes, and where a whole relay shares one loop.

While one commit runs, the next group gathers; futures resolve after the fsync. What is to be put was made on
the loop, so that the thread has little to do but hand it over: py-lmdb gives the GIL away at every put.
"""

import asyncio
import logging
import threading
from queue import SimpleQueue
from typing import Any, Protocol

from mta.spool.interface import Unavailable
from mta.spool.lmdb.commit import TOGETHER, Change, Committer, Waiting
from mta.spool.lmdb.following import Followed
from mta.spool.lmdb.operations import Operation
from mta.spool.sealing import Keyring

log = logging.getLogger(__name__)


class Writer(Protocol):
    """Who makes changes: one for each LmdbSpool."""

    @property
    def followed(self) -> Followed:
        """The environment, to read from."""

    @property
    def sick(self) -> str:
        """Why nothing can be committed, "" if it can."""

    def perform(self, operation: Operation) -> "asyncio.Future[Any]":
        """Have an operation committed; the future has its result, or the SpoolError that says what became of it.

        A cancelled caller does not undo it: the commit goes on.
        """

    async def close(self) -> None:
        """Finish what was begun, then close the environment."""


class _Asked(Waiting):
    __slots__ = ("future", "loop")

    def __init__(self, change: Change, *, admits: bool, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(change, admits=admits)
        self.loop = loop
        self.future: asyncio.Future[Any] = loop.create_future()


class ThreadWriter:
    """Commits in a thread of this process. Call it from the loop."""

    def __init__(self, committer: Committer, keyring: Keyring) -> None:
        """Start the thread."""
        self._committer = committer
        self._keyring = keyring
        self._inbox: SimpleQueue[list[_Asked] | None] = SimpleQueue()
        self._gathered: list[_Asked] = []
        self._closing = False
        self._committing = threading.Thread(
            target=committer.run, args=(self._inbox, _resolve), name="spool-writer", daemon=True
        )
        self._committing.start()

    @property
    def followed(self) -> Followed:
        """The environment in use."""
        return self._committer.followed

    @property
    def sick(self) -> str:
        """Why nothing can be committed."""
        return self._committer.sick

    def perform(self, operation: Operation) -> "asyncio.Future[Any]":
        """Have an operation committed."""
        return self.submit(operation.prepare(self._keyring), admits=operation.admits)

    def submit(self, change: Change, *, admits: bool = False) -> "asyncio.Future[Any]":
        """Have `change` committed; `admits` marks new mail."""
        if self._closing:
            raise Unavailable("the spool is closed")
        loop = asyncio.get_running_loop()
        asked = _Asked(change, admits=admits, loop=loop)
        if not self._gathered:
            loop.call_soon(self._hand_over)
        self._gathered.append(asked)
        return asked.future

    async def close(self) -> None:
        """Take nothing more, commit what waits, close the environment."""
        if not self._closing:
            self._closing = True
            self._hand_over()
            self._inbox.put(None)
        await asyncio.to_thread(self._committing.join)
        self.followed.environment.close()

    def _hand_over(self) -> None:
        """Give the thread what one turn of the loop brought.

        PERF: a put for each operation woke the thread each time, a fifth of an accept's CPU (cProfile).
        """
        gathered, self._gathered = self._gathered, []
        for first in range(0, len(gathered), TOGETHER):
            self._inbox.put(gathered[first : first + TOGETHER])


def _resolve(group: list[_Asked]) -> None:
    by_loop: dict[asyncio.AbstractEventLoop, list[_Asked]] = {}
    for each in group:
        by_loop.setdefault(each.loop, []).append(each)
    for loop, several in by_loop.items():
        try:
            loop.call_soon_threadsafe(_deliver, several)
        except RuntimeError:  # the loop was closed while its commit ran; the commit stands
            log.debug("loop closed before %d results", len(several))


def _deliver(group: list[_Asked]) -> None:
    for each in group:
        if each.future.cancelled():
            continue
        if each.error is not None:
            each.future.set_exception(each.error)
        else:
            each.future.set_result(each.result)
