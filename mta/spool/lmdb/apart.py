"""The writer as a process of its own: what a role has to say goes over a socket, and commits never hold up its loop.

The role's side is ProcessWriter, the other `main`. Frames of both directions are four octets of length and
msgpack: first how to open the spool, then operations, those of one turn of the loop together; back come
results, in order. The process dies with its role; one that dies alone is started again, and what it had in
hand is uncertain.

PERF: in a thread, py-lmdb gave the GIL away at each of fifty puts a commit, and a busy loop wanted it each time
(7 futexes a message): accept went from 5,200/s to 6,200/s (20 kept sessions of smtp-source, no other roles).
"""

import asyncio
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty
from typing import Any

import msgspec

from mta import logs
from mta.config import Log
from mta.spool.interface import Full, Refused, SpoolError, Unavailable, Uncertain
from mta.spool.lmdb.ahead import Ahead
from mta.spool.lmdb.commit import TOGETHER, Waiting, as_spool_error, committer_at, opened
from mta.spool.lmdb.environment import Environment, Place
from mta.spool.lmdb.operations import Accepting, Changing, Claiming, Operation, Settling
from mta.spool.lmdb.upkeep import (
    Collect,
    DeleteRecord,
    DiscardEvents,
    GiveUp,
    MendHints,
    NextEpoch,
    PutRecord,
    Quarantine,
    StorePages,
)
from mta.spool.sealing import Keyring
from mta.supervise import PARENT, enter_role, freeze_memory

log = logging.getLogger(__name__)

_RESTART = 0.5  # seconds before a process that died is started again
_END = 30.0  # seconds that it has to commit what waits
_READ = 1 << 16  # octets; malloc maps what is much larger anew each time
_BUFFER = 4 << 20  # octets that the socket takes, so that a turn's operations are one call

_AnyOperation = (
    Accepting | Claiming | Settling | Changing | StorePages | GiveUp | Collect | PutRecord | DeleteRecord
    | NextEpoch | Quarantine | MendHints | DiscardEvents
)  # fmt: skip
_ERRORS: tuple[type[SpoolError], ...] = (Refused, Uncertain, Full, Unavailable)  # the first that fits
_encode = msgspec.msgpack.Encoder().encode


class Household(msgspec.Struct, frozen=True):
    """Whose writer it is: the role's name, and how the role logs (log.* of the configuration)."""

    name: str
    log: dict[str, str]


class _Hello(msgspec.Struct, frozen=True, array_like=True):
    place: Place
    keys: list[bytes]
    household: Household


_Value = int | bool | None
_Failure = tuple[int, str]  # which of _ERRORS, and its text


class _Report(msgspec.Struct, frozen=True, array_like=True):
    """What came of the next operations in order: their values, but for those (by their place) that failed.

    `sick` is why nothing can be committed any more, "" if it can.
    """

    values: list[_Value]
    failures: dict[int, _Failure]
    sick: str


_decode_hello = msgspec.msgpack.Decoder(_Hello).decode
_decode_operations = msgspec.msgpack.Decoder(list[_AnyOperation]).decode
_decode_report = msgspec.msgpack.Decoder(_Report).decode


def _framed(content: object) -> bytes:
    octets = _encode(content)
    return len(octets).to_bytes(4, "big") + octets


class _Unframing:
    """Frames out of a stream."""

    def __init__(self) -> None:
        self._octets = bytearray()

    def add(self, data: bytes) -> None:
        self._octets += data

    @property
    def complete(self) -> bool:
        """Whether there is a whole frame."""
        return len(self._octets) >= 4 and len(self._octets) - 4 >= int.from_bytes(self._octets[:4], "big")

    def take(self) -> bytes:
        """Take the first frame, which is complete."""
        end = 4 + int.from_bytes(self._octets[:4], "big")
        frame = bytes(memoryview(self._octets)[4:end])
        del self._octets[:end]
        return frame


class ProcessWriter:
    """The role's side. Everything happens on the loop that it was made on."""

    def __init__(self, place: Place, keyring: Keyring, household: Household) -> None:
        """Open the spool for reading and start the process; Unavailable if there is no opening it."""
        self.environment: Environment = opened(place, keyring)
        self.sick = ""
        self._hello = _Hello(place, keyring.keys(), household)
        self._loop = asyncio.get_running_loop()
        self._closing = False
        self._due = False  # to look whether to hand over, when this turn of the loop is over
        self._idle = asyncio.Event()
        self._idle.set()
        self._gathered: list[tuple[Operation, asyncio.Future[Any]]] = []
        self._asked: deque[asyncio.Future[Any]] = deque()  # in the order of the results to come
        self._unsent = b""
        self._socket: socket.socket | None = None  # None while there is no process
        self._start()

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
            log.error("spool=%s closing with %d changes under way", self.environment.path, len(self._asked))
        if self._socket is not None:
            self._hang_up(self._socket)
            try:
                await asyncio.to_thread(self._process.wait, _END)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self.environment.close()

    # The process

    def _start(self) -> None:
        if self._closing:
            return
        ours, theirs = socket.socketpair()
        for each in (ours, theirs):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        ours.settimeout(0)  # non-blocking
        command = [sys.executable, "-m", "mta.spool.lmdb.apart", str(theirs.fileno())]
        environ = {**os.environ, PARENT: str(os.getpid())}
        with theirs:
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environ)  # noqa: S603 - ourselves
        self._socket = ours
        self._frames = _Unframing()
        self._loop.add_reader(ours, self._receive, ours)
        self._unsent = _framed(self._hello)
        self._send(ours)

    def _start_again(self) -> None:
        try:
            self._start()
        except OSError as error:
            log.error("spool=%s writer=cannot-start error=%s", self.environment.path, error)
            self._loop.call_later(_RESTART, self._start_again)

    def _hang_up(self, connection: socket.socket) -> None:
        self._socket = None
        self._loop.remove_reader(connection)
        self._loop.remove_writer(connection)
        connection.close()

    def _lost(self, connection: socket.socket) -> None:
        """Hear that the process has died: what it had in hand may be stored or not."""
        self._hang_up(connection)
        code = self._process.wait()
        self.sick = f"the writer's process ended with {code}"
        log.error("spool=%s error=%r doing=start-it-again", self.environment.path, self.sick)
        while self._asked:
            _fail(self._asked.popleft(), _failure(Uncertain(f"spool: {self.sick}")))
        self._hand_over()
        self._rest()
        self._loop.call_later(_RESTART, self._start_again)

    # What is said

    def _hand_over(self) -> None:
        """Send what has gathered, once it is as much as is under way already, behind which more gathers.

        PERF: sent at once, what a turn of the loop brought was a commit of its own: 5,400/s instead of 6,400/s. Kept
        until all that was under way had come back, it let the process wait for a busy loop a quarter of its time:
        4 to 10 % less (medians of paired runs).
        """
        self._due = False
        if len(self._asked) > len(self._gathered) or not self._gathered:
            return
        if self._socket is None or self.sick:  # since they were asked for
            gathered, self._gathered = self._gathered, []
            self._refuse(gathered, Unavailable(f"spool: {self.sick}"))
            return
        gathered, self._gathered = self._gathered[:TOGETHER], self._gathered[TOGETHER:]
        try:
            frame = _framed([operation for operation, _ in gathered])
        except Exception as error:  # noqa: BLE001 - nobody may wait for ever for what cannot be said
            self._refuse(gathered, as_spool_error(error))
            return
        self._asked += [future for _, future in gathered]
        blocked = bool(self._unsent)
        self._unsent += frame
        if not blocked:
            self._send(self._socket)

    def _refuse(self, gathered: list[tuple[Operation, asyncio.Future[Any]]], error: SpoolError) -> None:
        for _, future in gathered:
            _fail(future, _failure(error))
        self._rest()

    def _send(self, connection: socket.socket) -> None:
        try:
            sent = connection.send(self._unsent)
        except BlockingIOError:
            sent = 0
        except OSError:  # it has died, as `_receive` will see
            sent = len(self._unsent)
        self._unsent = self._unsent[sent:]
        if self._unsent:
            self._loop.add_writer(connection, self._send, connection)
        else:
            self._loop.remove_writer(connection)

    def _receive(self, connection: socket.socket) -> None:
        try:
            data = connection.recv(_READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lost(connection)
            return
        self._frames.add(data)
        while self._frames.complete:
            report = _decode_report(self._frames.take())
            if bool(report.sick) != bool(self.sick):
                log.warning("spool=%s state=%s", self.environment.path, report.sick or "healthy-again")
            self.sick = report.sick
            self._answer(report)

    def _answer(self, report: _Report) -> None:
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


def _failure(error: SpoolError) -> _Failure:
    fits = (number for number, kind in enumerate(_ERRORS) if isinstance(error, kind))
    return next(fits, 0), str(error)


def _fail(future: "asyncio.Future[Any]", failure: _Failure) -> None:
    kind, text = failure
    if not future.cancelled():
        future.set_exception(_ERRORS[kind](text))


# The process's own side


@dataclass(slots=True)
class _Inbox:
    """Operations as they come, those of a frame together; the stream's end is the end."""

    socket: socket.socket
    frames: _Unframing
    keyring: Keyring

    def get(self, block: bool = True, timeout: float | None = None) -> list[Waiting] | None:  # noqa: ARG002, FBT001, FBT002 - as the queue's
        frame = _next_frame(self.socket, self.frames, timeout)
        if frame is None:
            return None
        return [_prepared(operation, self.keyring) for operation in _decode_operations(frame)]

    def empty(self) -> bool:
        return not self.frames.complete and not select.select([self.socket], [], [], 0)[0]


def _next_frame(connection: socket.socket, frames: _Unframing, timeout: float | None = None) -> bytes | None:
    """Wait for a frame; None at the end of the stream, Empty when `timeout` is over."""
    until = None if timeout is None else time.monotonic() + timeout
    while not frames.complete:
        if until is not None and not select.select([connection], [], [], max(0.0, until - time.monotonic()))[0]:
            raise Empty
        try:
            data = connection.recv(_READ)
        except ConnectionError:
            data = b""
        if not data:
            return None
        frames.add(data)
    return frames.take()


def _prepared(operation: Operation, keyring: Keyring) -> Waiting:
    try:
        return Waiting(operation.prepare(keyring), operation.admits)
    except Exception as error:  # noqa: BLE001 - whatever is wrong with one operation concerns its caller alone
        return Waiting(_nothing, admits=False, error=as_spool_error(error))


def _nothing(_: object) -> None:
    return None


def _reported(group: list[Waiting], sick: str) -> _Report:
    failures = {number: _failure(each.error) for number, each in enumerate(group) if each.error is not None}
    return _Report([each.result for each in group], failures, sick)


def main(descriptor: int) -> None:
    """Serve the role at the other end of an inherited socket until it hangs up."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # they mean the role, which hangs up when it has drained
    with socket.socket(fileno=descriptor) as connection:
        frames = _Unframing()
        first = _next_frame(connection, frames)
        if first is None:
            return
        hello = _decode_hello(first)
        enter_role(f"{hello.household.name} spool")
        logs.configure(Log.model_validate(hello.household.log), hello.household.name)
        keyring = Keyring(hello.keys)
        committer = committer_at(hello.place, keyring)
        ahead = Ahead(committer.environment)
        freeze_memory()

        def report(group: list[Waiting]) -> None:
            with suppress(ConnectionError):  # the role has gone; what it had asked for is done all the same
                connection.sendall(_framed(_reported(group, committer.sick)))
            if not committer.sick:  # or it may be closed
                ahead.look(committer.environment)

        report([])
        committer.run(_Inbox(connection, frames, keyring), report, lambda: report([]))
        committer.environment.close()


if __name__ == "__main__":
    main(int(sys.argv[1]))
