"""The parent of `serve`: starts every role as a process, restarts one that dies, takes them with it when it dies.

Children tell the parent what they tell systemd (mta/notify.py), on a socket whose messages carry the
sender's process id. A child that cannot start with this configuration (exit 2) before it was ready once
stops them all: that is a mistake to be seen now. One that was ready is started again whatever it
died of, because the others still serve.
"""

import asyncio
import ctypes
import gc
import logging
import os
import signal
import socket
import struct
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from setproctitle import setproctitle

from mta.clock import Clock
from mta.exits import Exit
from mta.notify import Notifier

if TYPE_CHECKING:
    from mta.config import Roles

log = logging.getLogger(__name__)

ROLES = ("events", "delivery", "http", "ingress")  # mta/app.py has what they are
DRAIN = 30.0  # seconds that a role has to end its work after SIGTERM
_GRACE = 3.0  # seconds more before SIGKILL, and all there is after a second SIGTERM
_FIRST_PAUSE = 0.1  # seconds before a restart, doubling with each death
_LONGEST_PAUSE = 5.0
_GC_THRESHOLDS = (10_000, 20, 50)
_SETTLED = 60.0  # seconds after which a death counts as the first again

PARENT = "FAIRLEAD_PARENT"  # in the environment: the process whose death ends this one
_PR_SET_PDEATHSIG = 1  # prctl(2)
_CREDENTIALS = struct.Struct("iII")  # struct ucred, unix(7)


class Child(msgspec.Struct, frozen=True):
    """A process to keep running: the name it goes by in the log, and its command line."""

    name: str
    command: tuple[str, ...]


def role_children(config_file: Path | None, roles: "Roles") -> list[Child]:
    """List the processes of an installation; several instances of a role are told apart by number, from 1."""
    given = () if config_file is None else ("-c", str(config_file))
    found = []
    several = {"http": roles.http, "ingress": roles.ingress}
    for role in ROLES:
        count = several.get(role, 1)
        command = (sys.executable, "-P", "-m", "mta", *given, "serve", "--role", role)
        if count == 1:
            found.append(Child(role, command))
        else:
            found += [Child(f"{role}-{n}", (*command, "--instance", str(n))) for n in range(1, count + 1)]
    return found


def next_pause(pause: float, ran: float) -> float:
    """Work out the seconds to wait before a restart from those of the last one (0: none) and how long it then ran."""
    if pause == 0 or ran >= _SETTLED:
        return _FIRST_PAUSE
    return min(2 * pause, _LONGEST_PAUSE)


def enter_role(name: str) -> None:
    """Take the process title, and die with the parent, if `serve` is the parent.

    Call it in the child first thing, but after a change of user, which makes the kernel forget. SystemExit
    when the parent is dead already.
    """
    setproctitle(f"fairlead: {name}")
    parent = os.environ.pop(PARENT, "")
    if not parent:
        return
    # SIGKILL, as whoever killed the parent so wants the ports and the spool back now, and nothing acknowledged is lost.
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if str(os.getppid()) != parent:  # it died before the kernel was told
        sys.exit(Exit.FAILED)


def child_environ() -> dict[str, str]:
    """Make the environment of a process of ours: it runs the same packages, and dies with us (`enter_role`)."""
    ours = str(Path(__file__).resolve().parent.parent)
    given = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": f"{ours}{os.pathsep}{given}" if given else ours, PARENT: str(os.getpid())}


def freeze_memory() -> None:
    """Leave out of garbage collection what a process is made of; only what mail brings is looked through again.

    PERF: what waits for a commit outlives a first generation of the default size, 5 % of an accept (without sockets).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)


class Supervisor:
    """Keeps children running until it is told to stop. `run` it once, in the main thread."""

    def __init__(self, children: Sequence[Child], clock: Clock, notifier: Notifier) -> None:
        self._children = children
        self._clock = clock
        self._notifier = notifier
        self._began_at = clock.monotonic()
        self._stop = asyncio.Event()
        self._hasten = asyncio.Event()
        self._exit = Exit.OK
        self._running: dict[int, tuple[Child, asyncio.subprocess.Process]] = {}
        self._early: set[int] = set()  # said they are ready before we knew that they run
        self._ready: set[str] = set()

    async def run(self) -> Exit:
        """Run the children until a signal, or one that cannot start, ends it; return our exit code.

        SIGTERM and SIGINT are passed on as SIGTERM, and once more the second time; what still runs when
        the drain is over is killed. SIGHUP is passed on.
        """
        loop = asyncio.get_running_loop()
        handlers = {signal.SIGTERM: self.stop, signal.SIGINT: self.stop, signal.SIGHUP: self.reload}
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
        try:
            with self._listening() as environ:
                async with asyncio.TaskGroup() as group:
                    end = group.create_task(self._kill_the_rest())
                    async with asyncio.TaskGroup() as keepers:
                        for child in self._children:
                            keepers.create_task(self._keep(child, environ), name=child.name)
                    end.cancel()
        finally:
            for number in handlers:
                loop.remove_signal_handler(number)
        return self._exit

    def stop(self) -> None:
        """Drain and end; the second time, make haste."""
        if self._stop.is_set():
            log.info("stopping at once")
            self._hasten.set()
        else:
            log.info("stopping")
            self._notifier.stopping()
            self._stop.set()
        self._signal(signal.SIGTERM)

    def reload(self) -> None:
        """Let every role read its configuration again."""
        log.info("reloading")
        self._signal(signal.SIGHUP)

    def _signal(self, number: signal.Signals) -> None:
        for _, process in self._running.values():
            with suppress(ProcessLookupError):
                process.send_signal(number)

    async def _kill_the_rest(self) -> None:
        await self._stop.wait()
        if await self._clock.wait(self._hasten, DRAIN + _GRACE):
            await self._clock.wait(asyncio.Event(), _GRACE)
        for child, process in self._running.values():
            log.warning("role=%s pid=%d does not end and is killed", child.name, process.pid)
        self._signal(signal.SIGKILL)

    async def _keep(self, child: Child, environ: Mapping[str, str]) -> None:
        pause = 0.0
        while not self._stop.is_set():
            began_at = self._clock.monotonic()
            code = await self._run(child, environ)
            if self._stop.is_set():
                return
            if code == Exit.USAGE and child.name not in self._ready:
                log.error("role=%s cannot start with this configuration", child.name)
                self._exit = Exit.USAGE
                self.stop()
                return
            pause = next_pause(pause, self._clock.monotonic() - began_at)
            log.warning("role=%s starts again in %.1f s", child.name, pause)
            await self._clock.wait(self._stop, pause)

    async def _run(self, child: Child, environ: Mapping[str, str]) -> int:
        """Run a child once; return its exit code, or minus the signal that killed it."""
        try:
            # A session of its own: Ctrl-C is for the parent, which drains the children in good order.
            process = await asyncio.create_subprocess_exec(
                *child.command, stdin=asyncio.subprocess.DEVNULL, env=environ, start_new_session=True
            )
        except OSError as error:
            log.error("role=%s cannot be started: %r", child.name, error)
            return Exit.FAILED
        self._running[process.pid] = child, process
        if process.pid in self._early:
            self._early.remove(process.pid)
            self._is_ready(child)
        if self._stop.is_set():  # while it was being started
            process.terminate()
        try:
            code = await process.wait()
        finally:
            del self._running[process.pid]
            if process.returncode is None:  # we were cancelled
                process.kill()
        log.info("role=%s pid=%d ended, %s", child.name, process.pid, _ending(code))
        return code

    @contextmanager
    def _listening(self) -> Iterator[Mapping[str, str]]:
        """Listen to what children tell; yields their environment."""
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            sock.bind("")  # an abstract name of the kernel's choice: no file, no limit on its length, nothing stale
            loop.add_reader(sock, self._hear, sock)
            try:
                name = "@" + sock.getsockname()[1:].decode("ascii")
                yield {**child_environ(), "NOTIFY_SOCKET": name}
            finally:
                loop.remove_reader(sock)

    def _hear(self, sock: socket.socket) -> None:
        data, ancillary, _, _ = sock.recvmsg(4096, socket.CMSG_SPACE(_CREDENTIALS.size))
        senders = [_CREDENTIALS.unpack(each[2]) for each in ancillary if each[1] == socket.SCM_CREDENTIALS]
        if b"READY=1" not in data.split(b"\n") or not senders:
            return
        pid, uid, _ = senders[0]
        if pid in self._running:
            self._is_ready(self._running[pid][0])
        elif uid == os.getuid():  # any process can write to the socket; only the kernel writes the sender's id
            self._early.add(pid)

    def _is_ready(self, child: Child) -> None:
        all_before = len(self._ready) == len(self._children)
        self._ready.add(child.name)
        if len(self._ready) == len(self._children) and not all_before:
            log.info("ready processes=%d seconds=%.2f", len(self._children), self._clock.monotonic() - self._began_at)
            self._notifier.ready()


def _ending(code: int) -> str:
    return f"signal={-code} ({signal.strsignal(-code)})" if code < 0 else f"exit={code}"
