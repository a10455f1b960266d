"""sd_notify and sd_listen_fds, spoken with a real socket in place of systemd's."""

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mta.lab.clock import FakeClock
from mta.notify import Notifier, listen_sockets


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        here = Path.cwd()
        os.chdir(tmp_path)  # the path may be too long for sockaddr_un
        sock.bind("notify" if request.param == "path" else "")
        sock.settimeout(10)
        yield sock
        os.chdir(here)


def environ_of(systemd: socket.socket, **more: str) -> dict[str, str]:
    name = systemd.getsockname()
    return {"NOTIFY_SOCKET": name if isinstance(name, str) else "@" + name[1:].decode(), **more}


def test_states(systemd: socket.socket) -> None:
    environ = environ_of(systemd, HOME="/")
    notifier = Notifier(environ)
    assert environ == {"HOME": "/"}, "no child speaks in our name"
    notifier.ready()
    assert systemd.recv(999) == b"READY=1"
    notifier.stopping()
    assert systemd.recv(999) == b"STOPPING=1"
    notifier.status("two\nREADY=1  lines")
    assert systemd.recv(999) == b"STATUS=two READY=1 lines"
    before = time.monotonic_ns() // 1000
    notifier.reloading()
    state, told = systemd.recv(999).decode().split("\n")
    assert state == "RELOADING=1"
    assert before <= int(told.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000


def test_nobody_to_tell() -> None:
    Notifier({}).ready()
    Notifier({"NOTIFY_SOCKET": "/nonexistent/notify"}).ready()


async def told(systemd: socket.socket) -> list[bytes]:
    systemd.setblocking(False)
    found = []
    while True:
        try:
            found.append(systemd.recv(999))
        except BlockingIOError:
            return found


async def test_watchdog_at_half_its_interval_until_the_stop(systemd: socket.socket) -> None:
    environ = environ_of(systemd, WATCHDOG_USEC="20000000", WATCHDOG_PID=str(os.getpid()))
    notifier, clock, stop = Notifier(environ), FakeClock(), asyncio.Event()
    assert environ == {}
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        tasks.create_task(notifier.watch(clock, stop))
        await clock.advance(9.9)
        assert await told(systemd) == [b"WATCHDOG=1"]
        await clock.advance(0.1)
        assert await told(systemd) == [b"WATCHDOG=1"]
        await clock.advance(30)
        assert await told(systemd) == [b"WATCHDOG=1"] * 3
        stop.set()
    assert await told(systemd) == []


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
    ],
)
async def test_no_watchdog_of_ours(environ: dict[str, str], systemd: socket.socket) -> None:
    notifier = Notifier(environ_of(systemd) | environ)
    async with asyncio.timeout(10):
        await notifier.watch(FakeClock(), asyncio.Event())
    assert await told(systemd) == []


def test_no_sockets_for_us() -> None:
    assert listen_sockets({}) == []
    environ = {"LISTEN_PID": "1", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b"}
    assert listen_sockets(environ) == []
    assert environ == {}
    with pytest.raises(ValueError, match="LISTEN_FDS is not a number: 'x'"):
        listen_sockets({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "x"})


CHILD = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.dup2(int(sys.argv[2]), 4)
os.environ["LISTEN_PID"] = str(os.getpid())
from mta.notify import listen_sockets
for name, sock in listen_sockets():
    print(repr(name), sock.family.name, sock.type.name, sock.getsockname()[1], sock.gettimeout(), end=" ")
    print(sock.get_inheritable())
print(sorted(key for key in os.environ if key.startswith("LISTEN")))
"""


@pytest.mark.parametrize(("names", "expected"), [("smtp:http", ["'smtp'", "'http'"]), ("smtp", ["'smtp'", "''"])])
def test_sockets_that_were_passed_in(names: str, expected: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("::1", 0), family=socket.AF_INET6) as two:
        command = [sys.executable, "-c", CHILD, str(one.fileno()), str(two.fileno())]
        environ = os.environ | {"LISTEN_FDS": "2", "LISTEN_FDNAMES": names}
        fds = (one.fileno(), two.fileno())
        shown = subprocess.run(command, env=environ, pass_fds=fds, capture_output=True, text=True, check=True).stdout
        assert shown.splitlines() == [
            f"{expected[0]} AF_INET SOCK_STREAM {one.getsockname()[1]} 0.0 False",
            f"{expected[1]} AF_INET6 SOCK_STREAM {two.getsockname()[1]} 0.0 False",
            "[]",
        ]
