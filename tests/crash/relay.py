"""The product under test, as an operator runs it: `fairlead serve`, started, looked after and killed.

All of its processes have the same working directory, which nobody else has: that finds them whatever they
call themselves and whoever their parent is. Only those are ever killed, by their id.
"""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from tests.crash.checker import Place, Remains, survey
from tests.crash.clients import Address
from tests.crash.sabotage import ROOT, Sabotage, environ
from tests.crash.sink import Sink

_READY = re.compile(rb"ready role=(\w+)")
_STARTS = 30.0  # seconds
_STORES = 30.0
_DIES = 5.0
_ENDS = 45.0
_LOOK = 0.01
_ESTABLISHED = "01"  # proc(5): /proc/net/tcp

_CONFIG = """
hostname: relay.test
state_dir: {state}
listeners:
  - {{address: "{host}:{smtp}", kind: relay, networks: ["127.0.0.0/8"], tenant: acme}}
  - {{address: "{host}:{submission}", kind: submission}}
http: {{address: "{host}:{http}"}}
retry: {{intervals: [1, 2], lifetime: 86400}}
routes: [{{domains: ["*"], relay: "127.0.0.1:{sink}", tls: none}}]
delivery: {{connections: 24, connections_per_site: 12}}
spool: {{reserve: 1MiB, map_size: 4GiB}}
roles: {{http: {processes}}}
limits: {{connections_per_client: 1000}}
"""


class Relay:
    """One installation. Its ports are those of an address of its own, so that no client's port can be one of them."""

    def __init__(
        self, folder: Path, state: Path, sink_port: int, sabotage: Sabotage = Sabotage.NONE, *, http: int = 1
    ) -> None:
        """`state` is the state directory; configuration and log are in `folder`. HTTP has `http` processes."""
        self._cwd = folder.resolve() / "relay"
        self._cwd.mkdir(parents=True)
        self._state = state
        self._config = self._cwd / "fairlead.yaml"
        self._log = self._cwd / "log"
        self._log.touch()
        self._roles = ("ingress", *("http",) * http, "delivery", "events")
        self._sabotage = sabotage
        self._door = ("mta",) if sabotage is Sabotage.NONE else ("tests.crash.planted", sabotage.value)
        self._host = f"127.{os.getpid() >> 16 & 127 | 64}.{os.getpid() >> 8 & 255}.{os.getpid() & 255 or 1}"
        self._smtp, self._http, self._submission = ports = _free_ports(self._host, 3)
        names = zip(("smtp", "http", "submission"), ports, strict=True)
        self._config.write_text(
            _CONFIG.format(state=self._state, host=self._host, sink=sink_port, processes=http, **dict(names))
        )
        self._process: subprocess.Popen[bytes] | None = None
        self._ready_before: Counter[str] = Counter()
        self.place = Place(self._state / "spool", self._state / "keys" / "spool.key", self._state / "events")

    def prepare(self, *options: str) -> Address:
        """Make the tenant and its key, with these options, by the command line."""
        self._fairlead("tenants", "create", "acme")
        command = ("keys", "create", "--tenant", "acme", "--scope", "send", "--json", *options)
        made = json.loads(self._fairlead(*command))
        return Address(self._host, self._smtp, self._http, self._submission, made["key"])

    def login(self, user: str, *options: str) -> tuple[str, int, str, str]:
        """Make a credential of the tenant; return where to submit, the user and its password."""
        command = ("credentials", "create", "--tenant", "acme", "--user", user, "--json", *options)
        return self._host, self._submission, user, json.loads(self._fairlead(*command))["password"]

    def mute(self) -> None:
        """Have a relay whose answers can be withheld withhold them from now on."""
        (self._cwd / Sabotage.MUTE).touch()

    async def withheld(self, count: int) -> None:
        """Return when so many answers have been withheld, whose messages are stored; others get theirs again."""
        mute = self._cwd / Sabotage.MUTE
        async with asyncio.timeout(_STORES):
            while mute.stat().st_size < count:
                await asyncio.sleep(_LOOK)
        mute.unlink()

    def clients_of_http(self) -> list[int]:
        """Count the connections that each process has which listens for HTTP."""
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        ours = {
            f"socket:[{row[9]}]" for row in rows if row[1].endswith(f":{self._http:04X}") and row[3] == _ESTABLISHED
        }
        listening = [pid for pid, name in self.processes().items() if name == "http"]
        return [sum(str(each.readlink()) in ours for each in Path(f"/proc/{pid}/fd").iterdir()) for pid in listening]

    def _fairlead(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "mta", "-c", str(self._config), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout

    def start(self) -> None:
        """Start it; `ready` waits for it."""
        assert not self.processes(), "something of it still runs"
        self._ready_before = self._ready_lines()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *self._door, "-c", str(self._config), "serve"],
                cwd=self._cwd, env=environ(self._sabotage),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    async def ready(self, *roles: str) -> float:
        """Wait until these roles (all of them) say once more that they are ready; return the seconds it took.

        A role of several processes is named as often.
        """
        began = time.monotonic()
        awaited = self._ready_before + Counter(roles or self._roles)
        async with asyncio.timeout(_STARTS):
            while not awaited <= self._ready_lines():
                assert self._process is not None
                assert self._process.poll() is None, f"it ended by itself, see {self._log}"
                await asyncio.sleep(_LOOK)
        self._ready_before = self._ready_lines()
        return time.monotonic() - began

    def _ready_lines(self) -> Counter[str]:
        return Counter(each.decode() for each in _READY.findall(self._log.read_bytes()))

    def processes(self) -> dict[int, str]:
        """Its living processes and what they are: `serve`, a role, or `?` while they start."""
        found: dict[int, str] = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with suppress(OSError):  # it has just ended, or is not ours to look at
                dead = (entry / "stat").read_text().rpartition(") ")[2].startswith("Z")
                if not dead and (entry / "cwd").readlink() == self._cwd:
                    title = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
                    found[int(entry.name)] = title.partition("fairlead: ")[2] or "?"
        if self._process is not None and self._process.pid in found:
            found[self._process.pid] = "serve"
        return found

    async def kill(self, *names: str) -> None:
        """SIGKILL those processes (all of them) at once, and return when they are dead."""
        victims = [pid for pid, name in self.processes().items() if not names or name in names]
        for pid in victims:
            with suppress(ProcessLookupError):  # a child dies of its parent's death, and may be quicker than we
                os.kill(pid, signal.SIGKILL)
        if not names or "serve" in names:
            assert self._process is not None
            await asyncio.to_thread(self._process.wait)
            await self._nothing_lives()
        async with asyncio.timeout(_DIES):
            while any(pid in self.processes() for pid in victims):
                await asyncio.sleep(_LOOK)

    async def lives(self, name: str) -> None:
        """Return when there is a process of that name."""
        async with asyncio.timeout(_STARTS):
            while name not in self.processes().values():
                await asyncio.sleep(_LOOK)

    async def _nothing_lives(self) -> None:
        """Its children die with the parent, at once."""
        try:
            async with asyncio.timeout(_DIES):
                while self.processes():
                    await asyncio.sleep(_LOOK)
        except TimeoutError:
            raise AssertionError(f"these live on without their parent: {self.processes()}") from None

    async def stop(self) -> int:
        """End it as an operator does; return its exit code."""
        assert self._process is not None
        self._process.terminate()
        async with asyncio.timeout(_ENDS):
            code = await asyncio.to_thread(self._process.wait)
        await self._nothing_lives()
        return code

    async def remains(self) -> Remains:
        """End it as an operator does, and read what is there."""
        assert await self.stop() == 0
        return await survey(self.place)

    def close(self) -> None:
        """Leave nothing behind, whatever has happened."""
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self._process is not None:
            self._process.wait()


@asynccontextmanager
async def started(
    folder: Path, *options: str, sabotage: Sabotage = Sabotage.NONE, http: int = 1
) -> AsyncIterator[tuple[Relay, Address]]:
    """A relay that is ready and has a next hop, and the tenant's key, made with these options."""
    sink = Sink()
    await sink.start()
    relay = Relay(folder, folder / "state", sink.port, sabotage, http=http)
    try:
        address = relay.prepare(*options)
        relay.start()
        await relay.ready()
        yield relay, address
    finally:
        relay.close()
        await sink.close()


def _free_ports(host: str, count: int) -> list[int]:
    sockets = [socket.create_server((host, 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
