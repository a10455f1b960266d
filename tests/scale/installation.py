"""A relay as its users run it, with a backlog or without: started against the clock, loaded, stopped and killed."""

import asyncio
import os
import re
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from subprocess import Popen
from typing import NamedTuple

import yaml

from mta.config import HostPort
from tests.interop.processes import free_ports, running
from tests.interop.relay import ROLES, Relay
from tests.scale.backlog import TENANT

_STARTING = 60.0  # seconds
_ENDING = 30.0
_LOOK = 0.002


class Start(NamedTuple):
    """Seconds from exec of `serve`: until it greeted a client with 220, and until /readyz said 200."""

    greeting: float
    ready: float


class Load(NamedTuple):
    """What a number of messages took: how many a second, and milliseconds of CPU a message by process."""

    rate: float
    spent: dict[str, float]


class Installation:
    """One installation in `directory`. Start it in a task, and end it before its directory goes."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.state_dir = directory / "state"
        smtp, http = (HostPort(host="127.0.0.1", port=port) for port in free_ports(2))
        self.smtp = smtp
        self._readyz = f"http://{http}/readyz"
        self._queue = f"http://{http}/admin/v1/queue"
        self._settings = {
            "hostname": "relay.test",
            "state_dir": str(self.state_dir),
            "listeners": [{"address": str(smtp), "kind": "relay", "networks": ["127.0.0.0/8"], "tenant": TENANT}],
            "http": {"address": str(http)},
            "spool": {"reserve": "1MiB"},
        }
        self.relay = Relay(directory, self._settings)
        self.relay.tell("tenants", "create", TENANT)
        self._key = self.relay.tell("keys", "create", "--operator", "--scope", "manage")["key"]
        self._started = ExitStack()
        self._processes: list[Popen[bytes]] = []

    def send_to(self, next_hop: HostPort) -> None:
        """Send all mail there, from the next start on."""
        routes = [{"domains": ["*"], "relay": str(next_hop), "tls": "none"}]
        self.relay.config.write_text(yaml.safe_dump(self._settings | {"routes": routes}))

    async def start(self, roles: Sequence[str] = ROLES) -> Start:
        """Run it, all roles as `serve` does or some alone, and wait until it takes mail by SMTP and by HTTP."""
        serve = [*self.relay.command, "serve"]
        commands = [serve] if tuple(roles) == ROLES else [[*serve, "--role", each] for each in roles]
        began = time.monotonic()
        self._processes = [self._started.enter_context(running(each, self.relay.log)) for each in commands]
        greeting, ready = await asyncio.gather(
            *(asyncio.to_thread(self._until, each, began) for each in (self._greets, self._is_ready))
        )
        return Start(greeting, ready)

    def _until(self, condition: Callable[[], bool], began: float) -> float:
        while not condition():
            if time.monotonic() - began > _STARTING or any(each.poll() is not None for each in self._processes):
                raise RuntimeError(f"it does not start\n{self.relay.log.read_text(errors='replace')[-3000:]}")
            time.sleep(_LOOK)
        return time.monotonic() - began

    def _greets(self) -> bool:
        with suppress(OSError), socket.create_connection((self.smtp.host, self.smtp.port), timeout=5) as client:
            return client.recv(1000).startswith(b"220 ")
        return False

    def _is_ready(self) -> bool:
        with suppress(OSError), urllib.request.urlopen(self._readyz, timeout=5) as answer:
            return bool(answer.status == 200)
        return False

    def looked_up(self, path: str) -> float:
        """Look something up in the queue, over HTTP; return how many seconds that took."""
        request = urllib.request.Request(f"{self._queue}/{path}", headers={"Authorization": f"Bearer {self._key}"})
        began = time.perf_counter()
        with urllib.request.urlopen(request, timeout=_STARTING) as answer:
            answer.read()
        return time.perf_counter() - began

    async def stop(self) -> None:
        """End it as an operator does who makes haste: the attempts under way are not waited for."""
        for _ in range(2):
            self._signal(signal.SIGTERM)
            await asyncio.sleep(0.2)
        await asyncio.to_thread(self._wait)

    async def kill(self) -> None:
        """Kill -9 to `serve`, whose children die with it; or to each role that was started alone."""
        self._signal(signal.SIGKILL)
        await asyncio.to_thread(self._wait)

    def _signal(self, number: signal.Signals) -> None:
        for each in self._processes:
            with suppress(ProcessLookupError):
                each.send_signal(number)

    def _wait(self) -> None:
        pids = list(self.processes())
        for each in self._processes:
            each.wait(_ENDING)
        until = time.monotonic() + _ENDING
        while any(Path(f"/proc/{pid}").exists() for pid in pids):
            if time.monotonic() > until:
                raise RuntimeError(f"{self.processes()} live on")
            time.sleep(_LOOK)
        self._processes = []
        self._started.close()

    def close(self) -> None:
        """Leave nothing running."""
        self._started.close()

    def processes(self) -> dict[int, str]:
        """Its processes and what they call themselves: `serve`, a role, or what a role has beside it."""
        parents: dict[int, int] = {}
        titles: dict[int, str] = {}
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has just ended
                parents[int(path.name)] = int((path / "stat").read_text().rpartition(") ")[2].split()[1])
                title = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                titles[int(path.name)] = title.partition("fairlead: ")[2] or "?"
        heads = {each.pid for each in self._processes}
        return {pid: titles[pid] for pid in titles if _descends(pid, parents, heads)}

    def memory(self) -> dict[str, int]:
        """Octets of anonymous memory of each process (RssAnon of proc(5))."""
        found: dict[str, int] = {}
        for pid, title in self.processes().items():
            with suppress(OSError):
                status = Path(f"/proc/{pid}/status").read_text()
                if resident := re.search(r"RssAnon:\s+(\d+) kB", status):
                    found[title] = int(resident[1]) * 1024
        return found

    def spent(self) -> dict[str, float]:
        """Seconds of CPU that each process has used."""
        tick, found = os.sysconf("SC_CLK_TCK"), dict[str, float]()
        for pid, title in self.processes().items():
            with suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
                found[title] = sum(map(int, fields[11:13])) / tick
        return found

    async def load(self, domains: Sequence[str], messages: int, octets: int) -> Load:
        """Have an smtp-source for each domain hand in messages over a kept connection; RuntimeError if one cannot."""
        options = f"-d -m {messages // len(domains)} -l {octets} -f app@scale.test -M load.test"
        before, began = self.spent(), time.perf_counter()
        async with asyncio.timeout(_STARTING), asyncio.TaskGroup() as group:
            for each in domains:
                group.create_task(_source(*options.split(), "-t", f"to@{each}", f"inet:{self.smtp}"))
        took = time.perf_counter() - began
        spent = {title: 1000 * (after - before.get(title, 0)) / messages for title, after in self.spent().items()}
        return Load(messages / took, spent)


async def _source(*arguments: str) -> None:
    process = await asyncio.create_subprocess_exec("smtp-source", *arguments, stderr=asyncio.subprocess.PIPE)
    try:
        _, said = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise RuntimeError(f"smtp-source: {said.decode(errors='replace').strip()}")


def _descends(pid: int, parents: dict[int, int], heads: set[int]) -> bool:
    while pid and pid not in heads:
        pid = parents.get(pid, 0)
    return pid in heads
