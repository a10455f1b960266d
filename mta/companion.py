"""A process that a role has beside it, for work that would hold up the role's loop or is better kept apart from it.

The two talk in frames over a socket: four octets of length, then content whose meaning is that of the module
that runs there. The process dies with its role; one that dies alone is started again.

PERF: it does not import the configuration, whose models are more than half of the CPU that it starts with.
"""

import asyncio
import logging
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import msgspec

from mta import logs
from mta.supervise import child_environ, enter_role, next_pause

if TYPE_CHECKING:
    from mta.config import Config

log = logging.getLogger(__name__)

_END = 30.0  # seconds that it has to end
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # they mean the role, which hangs up when it has drained
_READ = 1 << 16  # octets; malloc maps what is much larger anew each time
_BUFFER = 4 << 20  # octets that the socket takes, so that what a turn of the loop brings is one call


class Household(msgspec.Struct, frozen=True):
    """Whose companion it is: the role's name, and how the role logs."""

    name: str
    log: logs.Settings


def household(config: "Config", role: str) -> Household:
    """Say whose companion it is to be."""
    return Household(role, logs.Settings(config.log.format, config.log.level))


class _Welcome(msgspec.Struct, frozen=True, array_like=True):
    """The first frame to each process that is started."""

    title: str
    household: Household


_encode = msgspec.msgpack.Encoder().encode
_decode_welcome = msgspec.msgpack.Decoder(_Welcome).decode


class Companion:
    """The role's side. Everything happens on the loop that it was made on."""

    def __init__(
        self,
        module: str,
        duty: str,
        household: Household,
        hello: bytes,
        heard: Callable[[bytes], None],
        lost: Callable[[str], None],
    ) -> None:
        """Start the process, a module's `main(DESCRIPTOR)`, and say `hello` to each that is started.

        `duty` is what it does, in a word: it goes by the role's name and that. `heard` takes what it says, frame by
        frame; `lost` the reason, when it has ended by itself.
        """
        self._module = module
        self._title = f"{household.name} {duty}"
        self._welcome = framed(_encode(_Welcome(self._title, household))) + framed(hello)
        self._heard = heard
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._closing = False
        self._pause = 0.0  # seconds before the last restart
        self._unsent = b""
        self._socket: socket.socket | None = None  # None while there is no process
        self._start()

    @property
    def there(self) -> bool:
        """Whether there is a process to talk to."""
        return self._socket is not None

    def say(self, content: bytes) -> None:
        """Send a frame; to the next process, while there is none."""
        blocked = bool(self._unsent)
        self._unsent += framed(content)
        if self._socket is not None and not blocked:
            self._send(self._socket)

    def kill(self) -> None:
        """End the process without ado; it is lost, and started again."""
        self._process.kill()

    async def close(self) -> None:
        """Hang up, which ends the process when it has done what it was told."""
        self._closing = True
        if self._socket is not None:
            self._hang_up(self._socket)
        try:
            await asyncio.to_thread(self._process.wait, _END)
        except subprocess.TimeoutExpired:
            log.error("process=%r does not end and is killed", self._title)
            self._process.kill()
            self._process.wait()

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            for each in (ours, theirs):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
            ours.settimeout(0)  # non-blocking
            command = [sys.executable, "-P", "-c", f"from {self._module} import main; main({theirs.fileno()})"]
            environ = child_environ()
            before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # until it ignores them
            try:
                self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environ)  # noqa: S603 - ourselves
            except OSError:
                ours.close()
                raise
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._socket = ours
        self._started_at = self._loop.time()
        self._frames = Unframing()
        self._loop.add_reader(ours, self._receive, ours)
        self._unsent = self._welcome + self._unsent
        self._send(ours)

    def _start_again(self) -> None:
        if self._closing:
            return
        try:
            self._start()
        except OSError as error:
            log.error("process=%r cannot-start error=%s", self._title, error)
            self._start_later(f"process {self._title!r} cannot be started: {error}", 0.0)

    def _start_later(self, reason: str, ran: float) -> None:
        self._unsent = b""
        self._pause = next_pause(self._pause, ran)
        self._loop.call_later(self._pause, self._start_again)
        self._lost(reason)

    def _hang_up(self, connection: socket.socket) -> None:
        self._socket = None
        self._loop.remove_reader(connection)
        self._loop.remove_writer(connection)
        connection.close()

    def _has_ended(self, connection: socket.socket) -> None:
        self._hang_up(connection)
        code = self._process.wait()
        log.error("process=%r ended=%d doing=start-it-again", self._title, code)
        self._start_later(f"process {self._title!r} ended with {code}", self._loop.time() - self._started_at)

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
            self._has_ended(connection)
            return
        self._frames.add(data)
        try:
            while self._frames.complete:
                self._heard(self._frames.take())
        except Exception:  # nothing that it says can be told apart any more
            log.exception("process=%r cannot be understood", self._title)
            self.kill()


class Line:
    """The companion's end: what its role says, which can be waited for, and what it says to its role."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._frames = Unframing()

    @property
    def silent(self) -> bool:
        """Whether nothing has come yet that was not heard."""
        return not self._frames.complete and not select.select([self._socket], [], [], 0)[0]

    def hear(self, timeout: float | None = None) -> bytes | None:
        """Wait for the next frame; None when the role has hung up, TimeoutError after `timeout` seconds."""
        until = None if timeout is None else time.monotonic() + timeout
        while not self._frames.complete:
            left = None if until is None else max(0.0, until - time.monotonic())
            if left is not None and not select.select([self._socket], [], [], left)[0]:
                raise TimeoutError
            try:
                data = self._socket.recv(_READ)
            except ConnectionError:
                data = b""
            if not data:
                return None
            self._frames.add(data)
        return self._frames.take()

    def say(self, content: bytes) -> None:
        """Send a frame, if the role is still there: what it had asked for is done all the same."""
        with suppress(ConnectionError):
            self._socket.sendall(framed(content))


@contextmanager
def attending(descriptor: int) -> Iterator[Line]:
    """Be a companion, at the other end of an inherited socket."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    connection = socket.socket(fileno=descriptor)
    line = Line(connection)
    first = line.hear()
    if first is None:
        sys.exit(0)
    welcome = _decode_welcome(first)
    enter_role(welcome.title)
    logs.configure(welcome.household.log, welcome.household.name)
    try:
        yield line
    finally:
        connection.detach()  # it is the end of the process that the role hears, and waits for


def framed(content: bytes) -> bytes:
    """Put the length before content."""
    return len(content).to_bytes(4, "big") + content


class Unframing:
    """Frames out of a stream."""

    def __init__(self) -> None:
        self._octets = bytearray()

    def add(self, data: bytes) -> None:
        """Take in what has come."""
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
