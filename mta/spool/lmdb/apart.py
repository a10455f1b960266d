"""The writer as a process of its own: what a role has to say goes over a socket, and commits never hold up its loop.

The role's side is ProcessWriter, the other `main`. The first frame tells how to open the spool, the others
have operations, those of one turn of the loop together; back come their results, in order. What a process
that died had in hand is uncertain.

PERF: in a thread, py-lmdb gave the GIL away at each of fifty puts a commit, and a busy loop wanted it each time
(7 futexes a message): accept went from 5,200/s to 6,200/s (20 kept sessions of smtp-source, no other roles).
"""

import asyncio
import logging
from collections import deque
from functools import partial
from queue import Empty
from typing import Any

from mta.companion import Companion, Household, Line, attending
from mta.spool.interface import SpoolError, Unavailable, Uncertain
from mta.spool.lmdb import frames
from mta.spool.lmdb.ahead import Ahead
from mta.spool.lmdb.commit import TOGETHER, Waiting, as_spool_error, committer_at, opened
from mta.spool.lmdb.environment import Place
from mta.spool.lmdb.following import Followed
from mta.spool.lmdb.frames import Failure, Hello, Report, failure
from mta.spool.lmdb.operations import Operation
from mta.spool.sealing import Keyring
from mta.supervise import freeze_memory

log = logging.getLogger(__name__)

_END = 30.0  # seconds to commit what waits when the spool is closed


class ProcessWriter:
    """The role's side. Everything happens on the loop that it was made on."""

    def __init__(self, place: Place, keyring: Keyring, household: Household) -> None:
        """Open the spool for reading and start the process; Unavailable if there is no opening it."""
        self.followed = Followed(partial(opened, place, keyring))
        self.sick = ""
        self._loop = asyncio.get_running_loop()
        self._closing = False
        self._due = False  # to look whether to hand over, when this turn of the loop is over
        self._idle = asyncio.Event()
        self._idle.set()
        self._gathered: list[tuple[Operation, asyncio.Future[Any]]] = []
        self._asked: deque[asyncio.Future[Any]] = deque()  # in the order of the results to come
        hello = frames.encode(Hello(place, keyring.keys()))
        self._process = Companion(__name__, "spool", household, hello, self._heard, self._lost)

    def perform(self, operation: Operation) -> "asyncio.Future[Any]":
        """Have an operation committed."""
        if self._closing or self.sick:
            raise Unavailable(f"spool: {self.sick}" if self.sick else "the spool is closed")
        future = self._loop.create_future()
        if not self._due:
            self._due = True
            self._loop.call_soon(self._hand_over)
        self._gathered.append((operation, future))
        self._idle.clear()
        return future

    async def close(self) -> None:
        """Take nothing more, have committed what waits, end the process."""
        self._closing = True
        try:
            async with asyncio.timeout(_END):
                await self._idle.wait()
        except TimeoutError:
            log.error("spool=%s closing with %d changes under way", self.followed.environment.path, len(self._asked))
        await self._process.close()
        self.followed.environment.close()

    def _lost(self, reason: str) -> None:
        """Hear that the process has died: what it had in hand may be stored or not."""
        self.sick = reason
        while self._asked:
            _fail(self._asked.popleft(), failure(Uncertain(f"spool: {self.sick}")))
        self._hand_over()
        self._rest()

    def _hand_over(self) -> None:
        """Send what has gathered, once it is as much as is under way already, behind which more gathers.

        PERF: sent at once, what a turn of the loop brought was a commit of its own: 5,400/s instead of 6,400/s. Kept
        until all that was under way had come back, it let the process wait for a busy loop a quarter of its time:
        4 to 10 % less (medians of paired runs).
        """
        self._due = False
        if len(self._asked) > len(self._gathered) or not self._gathered:
            return
        if not self._process.there or self.sick:  # since they were asked for
            gathered, self._gathered = self._gathered, []
            self._refuse(gathered, Unavailable(f"spool: {self.sick}"))
            return
        gathered, self._gathered = self._gathered[:TOGETHER], self._gathered[TOGETHER:]
        try:
            frame = frames.encode([operation for operation, _ in gathered])
        except Exception as error:  # noqa: BLE001 - nobody may wait for ever for what cannot be said
            self._refuse(gathered, as_spool_error(error))
            return
        self._asked += [future for _, future in gathered]
        self._process.say(frame)

    def _refuse(self, gathered: list[tuple[Operation, asyncio.Future[Any]]], error: SpoolError) -> None:
        for _, future in gathered:
            _fail(future, failure(error))
        self._rest()

    def _heard(self, frame: bytes) -> None:
        report = frames.decode_report(frame)
        if bool(report.sick) != bool(self.sick):
            log.warning("spool=%s state=%s", self.followed.environment.path, report.sick or "healthy-again")
        self.sick = report.sick
        for number, value in enumerate(report.values):
            future = self._asked.popleft()
            if number in report.failures:
                _fail(future, report.failures[number])
            elif not future.cancelled():
                future.set_result(value)
        self._hand_over()
        self._rest()

    def _rest(self) -> None:
        if not (self._asked or self._gathered):
            self._idle.set()


def _fail(future: "asyncio.Future[Any]", failed: Failure) -> None:
    if not future.cancelled():
        future.set_exception(frames.error(failed))


# The process's own side


class _Inbox:
    """Operations as they come, those of a frame together; the stream's end is the end."""

    def __init__(self, line: Line, keyring: Keyring) -> None:
        self._line = line
        self._keyring = keyring

    def get(self, block: bool = True, timeout: float | None = None) -> list[Waiting] | None:  # noqa: ARG002, FBT001, FBT002 - as the queue's
        try:
            frame = self._line.hear(timeout)
        except TimeoutError:
            raise Empty from None
        if frame is None:
            return None
        return [_prepared(operation, self._keyring) for operation in frames.decode_operations(frame)]

    def empty(self) -> bool:
        return self._line.silent


def _prepared(operation: Operation, keyring: Keyring) -> Waiting:
    try:
        return Waiting(operation.prepare(keyring), admits=operation.admits)
    except Exception as error:  # noqa: BLE001 - whatever is wrong with one operation concerns its caller alone
        return Waiting(_nothing, admits=False, error=as_spool_error(error))


def _nothing(_: object) -> None:
    return None


def _reported(group: list[Waiting], sick: str) -> Report:
    failures = {number: failure(each.error) for number, each in enumerate(group) if each.error is not None}
    return Report([each.result for each in group], failures, sick)


def main(descriptor: int) -> None:
    """Serve the role at the other end of an inherited socket until it hangs up."""
    with attending(descriptor) as line:
        first = line.hear()
        if first is None:
            return
        hello = frames.decode_hello(first)
        keyring = Keyring(hello.keys)
        committer = committer_at(hello.place, keyring)
        ahead = Ahead(committer.followed.environment)
        freeze_memory()

        def report(group: list[Waiting]) -> None:
            line.say(frames.encode(_reported(group, committer.sick)))
            if not committer.sick:  # or it may be closed
                ahead.look(committer.followed.environment)

        report([])
        committer.run(_Inbox(line, keyring), report, lambda: report([]))
        committer.followed.environment.close()
