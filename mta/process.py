"""A role as a process: signals, readiness, control socket, drain. What the role is made of: mta/app.py."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from pathlib import Path
from socket import socket

import uvloop

from mta import logs
from mta.app import ROLES, besides
from mta.clock import SystemClock
from mta.config import Config, ConfigError, load
from mta.control import AlreadyRunning, ControlServer, socket_path
from mta.exits import Exit
from mta.notify import Notifier, listen_sockets
from mta.parts import CannotStart, Parts, Role, RoleStatus
from mta.spool.interface import Unavailable
from mta.spool.sealing import KeyFileError
from mta.supervise import DRAIN, freeze_memory

log = logging.getLogger(__name__)

SWITCH_INTERVAL = 0.0005  # seconds a thread may keep the GIL; with the default the spool's writer waits 5 ms a put
_MARGIN = 2.0  # seconds of the drain kept for closing


def run_role(name: str, instance: int, config: Config, config_file: Path | None) -> Exit:
    """Be the process of a role until a signal ends it."""
    sys.setswitchinterval(SWITCH_INTERVAL)
    logs.configure(config.log, name, gather=True)
    try:
        process = _Process(name, instance, config, config_file)
        return uvloop.run(process.run())
    except ConfigError as error:  # of a file that the configuration names
        for problem in error.problems:
            log.critical("role=%s cannot-start %s", name, problem)
        return Exit.USAGE
    except (CannotStart, KeyFileError, Unavailable, AlreadyRunning, OSError, ValueError) as error:
        if process.started:  # not the configuration, then: whoever started it is to start it anew
            log.critical("role=%s failed", name, exc_info=error)
            return Exit.FAILED
        log.critical("role=%s cannot-start %s", name, error)
        return Exit.USAGE


class _Process:
    """One role's process, from start to end."""

    def __init__(self, name: str, instance: int, config: Config, config_file: Path | None) -> None:
        self._name = name
        self._instance = instance
        self._config = config
        self._config_file = config_file
        self._state = "starting"
        self._stop = asyncio.Event()
        self._hasten = asyncio.Event()
        self._reloading: asyncio.Task[str] | None = None
        self._clock = SystemClock()
        self._besides = besides(name, config)

    @property
    def started(self) -> bool:
        """Tell whether the role has been ready once."""
        return self._state != "starting"

    async def run(self) -> Exit:
        """Start, serve, drain, stop."""
        notifier = Notifier()
        sockets = [each for _, each in listen_sockets()]
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end)
        loop.add_signal_handler(signal.SIGHUP, self._reload, notifier)
        parts = Parts(self._config, self._clock, self._name)
        try:
            return await self._serve(parts, notifier, sockets)
        finally:
            await parts.close()

    async def _serve(self, parts: Parts, notifier: Notifier, sockets: list[socket]) -> Exit:
        role: Role = ROLES[self._name](parts)
        control = ControlServer(
            socket_path(self._config.run_dir, self._name, self._instance),
            {
                "status": lambda: self._status(parts, role),
                "drain": self._drain,
                "reload": lambda: self._reread(notifier),
                **role.commands(),
            },
        )
        await control.start()
        try:
            await role.start(sockets)
            freeze_memory()
            self._state = "running"
            log.info("ready role=%s seconds=%.2f", self._name, _since_exec())
            notifier.ready()
            watching = asyncio.create_task(notifier.watch(self._clock, self._stop))
            await self._stop.wait()
            await watching
            notifier.stopping()
            self._state = "draining"
            await self._drained(role)
        finally:
            await role.close()
            await control.close()
        log.info("stopped role=%s", self._name)
        return Exit.OK

    async def _drained(self, role: Role) -> None:
        """Drain, for 30 s at most; a second signal hastens."""
        draining = asyncio.create_task(role.drain(DRAIN - _MARGIN))
        hastened = asyncio.create_task(self._hasten.wait())
        await asyncio.wait((draining, hastened), timeout=DRAIN, return_when=asyncio.FIRST_COMPLETED)
        hastened.cancel()
        if not draining.done():
            draining.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await draining

    def _end(self) -> None:
        if self._stop.is_set():
            self._hasten.set()
        self._stop.set()

    async def _status(self, parts: Parts, role: Role) -> RoleStatus:
        return RoleStatus(
            role=self._name,
            state=self._state,
            spool="healthy" if parts.spool.healthy() else "sick",
            detail=role.detail(),
        )

    async def _drain(self) -> str:
        self._stop.set()
        return "draining"

    def _reload(self, notifier: Notifier) -> None:
        self._reloading = asyncio.get_running_loop().create_task(self._reread(notifier))

    async def _reread(self, notifier: Notifier) -> str:
        """Read the configuration again, and the files that it names and the role has read.

        Settings of the log hold at once. With other settings the role drains and ends, and whoever started
        it starts it anew (docs/decisions/0006).
        """
        notifier.reloading()
        try:
            config = load(self._config_file) if self._config_file is not None else self._config
            others = besides(self._name, config, self._besides)
        except ConfigError as error:
            for problem in error.problems:
                log.error("reload=refused %s", problem)
            notifier.ready()
            return "refused"
        logs.configure(config.log, self._name, gather=True)
        if config.model_copy(update={"log": self._config.log}) == self._config and others == self._besides:
            notifier.ready()
            log.info("reload=done settings=log")
            return "done"
        log.info("reload=restart role=%s", self._name)
        self._stop.set()
        return "restarting"


def _since_exec() -> float:
    """Seconds since this process was started, as the kernel has it."""
    started = int(Path("/proc/self/stat").read_text(encoding="ascii").rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started / os.sysconf("SC_CLK_TCK")
