"""The parent of `serve`: starts every role as a process, restarts one that dies, takes them with it when it dies.

Children tell the parent what they tell systemd (mta/notify.py), on a socket whose messages carry the
sender's process id. A child that cannot start with this configuration (exit 2) before it was ready once
stops them all: that is a mistake to be seen now. One that was ready is started again whatever it
died of, because the others still serve.
"""

import asyncio
import ctypes
import logging
import os
import signal
import socket
import struct
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
from setproctitle import setproctitle

from mta.clock import Clock
from mta.config import Roles
from mta.exits import Exit
from mta.notify import Notifier

log = logging.getLogger(__name__)

DRAIN = 30.0  # seconds that a role has to end its work after SIGTERM
_GRACE = 3.0  # seconds more before SIGKILL, and all there is after a second SIGTERM
_FIRST_PAUSE = 0.1  # seconds before a restart, doubling with each death
_LONGEST_PAUSE = 5.0
_SETTLED = 60.0  # seconds after which a death counts as the first again

_PARENT = "FAIRLEAD_PARENT"
_PR_SET_PDEATHSIG = 1  # prctl(2)
_CREDENTIALS = struct.Struct("iII")  # struct ucred, unix(7)


class Child(msgspec.Struct, frozen=True):
    """A process to keep running: the name it goes by in the log, and its command line."""

    name: str
    command: tuple[str, ...]


def role_children(config_file: Path | None, roles: Roles) -> list[Child]:
    """List the processes of an installation; several instances of a role are told apart by number, from 1."""
    given = () if config_file is None else ("-c", str(config_file))
    found = []
    for role, count in (("events", 1), ("delivery", 1), ("http", roles.http), ("ingress", roles.ingress)):
        command = (sys.executable, "-m", "mta", *given, "serve", "--role", role)
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
    parent = os.environ.pop(_PARENT, "")
    if not parent:
        return
    # SIGKILL, as whoever killed the parent so wants the ports and the spool back now, and nothing acknowledged is lost.
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if str(os.getppid()) != parent:  # it died before the kernel was told
        sys.exit(Exit.FAILED)


class Supervisor:
    """Keeps children running until it is told to stop."""

    def __init__(self, children: Sequence[Child], clock: Clock, notifier: Notifier) -> None:
        self._children = children
        self._clock = clock
        self._notifier = notifier
        self._began_at = clock.monotonic()
        self._stop = asyncio.Event()
        self._hasten = asyncio.Event()
        self._exit = Exit.OK
        self._running: dict[int, tuple[Child, asyncio.subprocess.Process]] = {}
        self._ready: set[str] = set()

    async def run(self) -> Exit:
        """Run the children until a signal, or one's configuration error, ends it; return our exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self.reload)
        with self._listening() as environ:
            async with asyncio.TaskGroup() as group:
                for child in self._children:
                    group.create_task(self._keep(child, environ), name=child.name)
                group.create_task(self._end(), name="end")
        return self._exit
