"""The parent of `serve`, with real children: restarts, readiness, drain, and nobody left behind."""

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop

from mta.clock import Clock, SystemClock
from mta.config import Roles
from mta.exits import Exit
from mta.lab.clock import FakeClock
from mta.notify import Notifier
from mta.supervise import Child, Supervisor, next_pause, role_children

CHILD = """
import os, signal, socket, sys, time
name, behaviour, diary = sys.argv[1:]

def say(text):
    with open(diary, "a") as file:
        file.write(f"{name} {text}\\n")

def heard(number, frame):
    say(signal.Signals(number).name)
    if number == signal.SIGTERM and behaviour != "stubborn":
        sys.exit(0)

for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
    signal.signal(number, heard)
say(f"began {os.getpid()}")
begun = open(diary).read().count(f"{name} began")
if behaviour == "config" or behaviour == "config-late" and begun == 2:
    sys.exit(2)
if behaviour == "dies-twice" and begun < 3:
    os.kill(os.getpid(), signal.SIGKILL)
if behaviour != "silent":
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"STATUS=up\\nREADY=1", "\\0" + os.environ["NOTIFY_SOCKET"][1:])
if behaviour == "config-late" and begun == 1:
    sys.exit(1)
say("ready")
while True:
    signal.pause()
"""


class Site:
    """A place for children to write down what happens to them."""

    def __init__(self, directory: Path) -> None:
        self.diary = directory / "diary"
        self.diary.touch()
        self.script = directory / "child.py"
        self.script.write_text(CHILD)

    def child(self, name: str, behaviour: str = "") -> Child:
        return Child(name, (sys.executable, "-S", str(self.script), name, behaviour, str(self.diary)))

    def count(self, line: str) -> int:
        return self.diary.read_text().splitlines().count(line)

    def pids(self, name: str) -> list[int]:
        lines = (line.split() for line in self.diary.read_text().splitlines())
        return [int(words[2]) for words in lines if words[:2] == [name, "began"]]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not happened():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def supervised(
    *children: Child, clock: Clock | None = None, notifier: Notifier | None = None
) -> AsyncIterator[tuple[Supervisor, asyncio.Task[Exit]]]:
    supervisor = Supervisor(children, clock or SystemClock(), notifier or Notifier({}))
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        yield supervisor, group.create_task(supervisor.run())


async def test_all_are_ready_then_all_are_drained(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind("")
        systemd.setblocking(False)
        notifier = Notifier({"NOTIFY_SOCKET": "@" + systemd.getsockname()[1:].decode()})
        async with supervised(site.child("a"), site.child("b", "silent"), notifier=notifier) as (supervisor, end):
            await until(lambda: site.count("a ready") == 1 and site.count("b ready") == 1)
            with pytest.raises(BlockingIOError):
                systemd.recv(99)
            assert "ready processes" not in caplog.text, "b has not said so"
            supervisor.stop()
            assert await end is Exit.OK
        assert systemd.recv(99) == b"STOPPING=1"
        async with supervised(site.child("a"), site.child("c"), notifier=notifier) as (supervisor, end):
            await until(lambda: "ready processes=2 seconds=" in caplog.text)
            assert systemd.recv(99) == b"READY=1"
            os.kill(os.getpid(), signal.SIGINT)
            assert await end is Exit.OK
    assert [site.count(f"{name} SIGTERM") for name in "abc"] == [2, 1, 1]
    assert site.count("a SIGINT") == 0


async def test_one_that_dies_is_restarted_and_the_others_do_not_notice(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with supervised(site.child("steady"), site.child("weak", "dies-twice")) as (supervisor, end):
        await until(lambda: site.count("weak ready") == 1 and site.count("steady ready") == 1)
        assert len(site.pids("weak")) == 3
        assert len(site.pids("steady")) == 1
        supervisor.stop()
        assert await end is Exit.OK
    assert f"role=weak pid={site.pids('weak')[0]} ended, signal=9 (Killed)" in caplog.text
    assert "role=weak starts again in 0.1 s" in caplog.text
    assert "role=weak starts again in 0.2 s" in caplog.text


async def test_one_that_cannot_start_stops_them_all(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    async with supervised(site.child("a"), site.child("b", "config")) as (_, end):
        assert await end is Exit.USAGE
    assert len(site.pids("b")) == 1
    assert "role=b cannot start with this configuration" in caplog.text
    assert not any(alive(pid) for pid in site.pids("a"))


async def test_one_that_worked_before_is_tried_again(site: Site) -> None:
    async with supervised(site.child("a"), site.child("b", "config-late")) as (supervisor, end):
        await until(lambda: site.count("b ready") == 1)
        assert len(site.pids("b")) == 3
        supervisor.stop()
        assert await end is Exit.OK


async def test_a_program_that_is_not_there(caplog: pytest.LogCaptureFixture) -> None:
    async with supervised(Child("ghost", ("/nonexistent/program",))) as (supervisor, end):
        await until(lambda: caplog.text.count("role=ghost cannot be started: FileNotFoundError") == 2)
        supervisor.stop()
        assert await end is Exit.OK


@pytest.mark.parametrize(("stops", "patience"), [(1, 33.0), (2, 3.0)])
async def test_one_that_does_not_end_is_killed(
    stops: int, patience: float, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock()
    async with supervised(site.child("a", "stubborn"), clock=clock) as (supervisor, end):
        await until(lambda: site.count("a ready") == 1)
        for number in range(stops):
            supervisor.stop()
            await until(lambda number=number: site.count("a SIGTERM") == number + 1)
        await clock.advance(patience - 0.01)
        assert not end.done()
        assert alive(site.pids("a")[0])
        await clock.advance(0.02)
        assert await end is Exit.OK
    assert "role=a pid=" in caplog.text
    assert "does not end and is killed" in caplog.text


async def test_reload_is_passed_on(site: Site) -> None:
    async with supervised(site.child("a"), site.child("b")) as (supervisor, end):
        await until(lambda: site.count("a ready") == 1 and site.count("b ready") == 1)
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: site.count("a SIGHUP") == 1 and site.count("b SIGHUP") == 1)
        supervisor.stop()
        assert await end is Exit.OK
    assert len(site.pids("a")) == 1


def test_the_processes_of_an_installation() -> None:
    alone = role_children(None, Roles())
    assert [each.name for each in alone] == ["events", "delivery", "http", "ingress"]
    assert alone[3].command == (sys.executable, "-P", "-m", "mta", "serve", "--role", "ingress")
    several = role_children(Path("/etc/f.yaml"), Roles(ingress=2))
    assert [each.name for each in several] == ["events", "delivery", "http", "ingress-1", "ingress-2"]
    assert several[4].command[3:] == ("mta", "-c", "/etc/f.yaml", "serve", "--role", "ingress", "--instance", "2")


def test_pauses_double_to_five_seconds_and_begin_anew_after_a_minute_of_work() -> None:
    pauses = [0.0]
    for _ in range(8):
        pauses.append(next_pause(pauses[-1], ran=59.9))
    assert pauses[1:] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert next_pause(5.0, ran=60.0) == 0.1


PARENT = """
import asyncio, sys
from mta.clock import SystemClock
from mta.notify import Notifier
from mta.supervise import Child, Supervisor, enter_role
enter_role("serve")
run = asyncio.run
if sys.argv[1] == "uvloop":
    import uvloop
    run = uvloop.run
sys.exit(run(Supervisor([Child("events", tuple(sys.argv[2:]))], SystemClock(), Notifier()).run()))
"""
ROLE = """
import os, signal
from mta.supervise import enter_role
enter_role("events")
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
print(os.getpid(), "FAIRLEAD_PARENT" in os.environ, flush=True)
while True:
    signal.pause()
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def title(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode()


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGKILL, -9)])
async def test_children_do_not_outlive_the_parent(loop: str, number: signal.Signals, code: int) -> None:
    command = [sys.executable, "-c", PARENT, loop, sys.executable, "-c", ROLE]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid, inherits = (await asyncio.to_thread(parent.stdout.readline)).split()
        assert inherits == "False"
        assert title(parent.pid) == "fairlead: serve"
        assert title(int(pid)) == "fairlead: events"
        assert alive(int(pid))
        parent.send_signal(number)
        await until(lambda: not alive(int(pid)))
        assert await asyncio.to_thread(parent.wait) == code


def test_a_child_whose_parent_died_before_it_looked_ends() -> None:
    environ = os.environ | {"FAIRLEAD_PARENT": "1"}
    assert (
        subprocess.run([sys.executable, "-c", ROLE], env=environ, check=False, stdout=subprocess.PIPE).returncode == 1
    )


def test_under_uvloop(site: Site) -> None:
    async def main() -> None:
        async with supervised(site.child("a"), site.child("weak", "dies-twice")) as (supervisor, end):
            await until(lambda: site.count("a ready") == 1 and site.count("weak ready") == 1)
            supervisor.stop()
            assert await end is Exit.OK

    uvloop.run(main())
