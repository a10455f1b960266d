"""The control socket: answers its own user, survives what is malformed, is one per role."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import uvloop

from mta import control
from mta.control import AlreadyRunning, Command, CommandAbout, ControlError, ControlServer, NotRunning, ask, socket_path


class Status(msgspec.Struct):
    accepted: int
    lanes: list[str]


async def status() -> Status:
    return Status(3, ["a", "ü"])


async def nothing() -> None:
    return None


async def refuse() -> None:
    raise ControlError("not while draining")


async def fail() -> None:
    raise KeyError("secret")


async def hang() -> None:
    await asyncio.Event().wait()


COMMANDS: dict[str, Command | CommandAbout] = {
    "echo": CommandAbout(lambda about: _echo(about)),
    "status": status,
    "nothing": nothing,
    "refuse": refuse,
    "fail": fail,
    "hang": hang,
    "unwritable": lambda: _object(),
}


async def _echo(about: str) -> object:
    return about


async def _object() -> object:
    return object()


@asynccontextmanager
async def serving(path: Path) -> AsyncIterator[Path]:
    server = ControlServer(path, COMMANDS)
    await server.start()
    try:
        yield path
    finally:
        await server.close()


@pytest.fixture
async def path(tmp_path: Path) -> AsyncIterator[Path]:
    async with serving(socket_path(tmp_path / "run", "delivery")) as path:
        yield path


def raw(path: Path, data: bytes, *, end: bool = False) -> bytes:
    """Say something by hand and return all that is answered."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        here = Path.cwd()
        os.chdir(path.parent)  # the path may be too long for sockaddr_un
        sock.connect(path.name)
        os.chdir(here)
        sock.sendall(data)
        if end:
            sock.shutdown(socket.SHUT_WR)
        answer = b""
        while chunk := sock.recv(65536):
            answer += chunk
        return answer


def test_names() -> None:
    assert socket_path(Path("/run/x"), "http") == Path("/run/x/http.sock")
    assert socket_path(Path("/run/x"), "http", 2) == Path("/run/x/http-2.sock")


async def test_answers(path: Path) -> None:
    assert await ask(path, "status", 5) == {"accepted": 3, "lanes": ["a", "ü"]}
    assert await ask(path, "nothing", 5) is None
    assert await asyncio.to_thread(raw, path, b'{"command":"nothing"}\n') == b'{"ok":null}\n'


async def test_a_command_is_about_something_or_about_nothing(path: Path) -> None:
    assert await ask(path, "echo", 5, about="mx.test:25, b.test:25") == "mx.test:25, b.test:25"
    with pytest.raises(ControlError, match="echo is about something, and about is missing"):
        await ask(path, "echo", 5)
    with pytest.raises(ControlError, match="status is about nothing"):
        await ask(path, "status", 5, about="x")


async def test_refusals_say_why(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ControlError, match=r"^delivery: not while draining$"):
        await ask(path, "refuse", 5)
    with pytest.raises(ControlError, match="no such command: 'jump'; there are echo, fail, hang"):
        await ask(path, "jump", 5)
    assert not caplog.records
    for broken in ("fail", "unwritable"):
        with pytest.raises(ControlError, match=r"^delivery: failed; the log says why$"):
            await ask(path, broken, 5)
        assert f"command={broken} failed" in caplog.text
    assert await ask(path, "nothing", 5) is None


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"\n", "not a request"),
        (b"status\n", "not a request"),
        (b'"status"\n', "not a request"),
        (b'{"command": 1}\n', "not a request"),
        (b'{"command": "status", "more": 1}\n', "not a request"),
        (b'{"command": "\xff"}\n', "not a request"),
        (b"\xff\xfe\x00\n", "not a request"),
        (b'{"command": ' + b"[" * 50_000 + b"\n", "not a request"),
        (b'{"command": "status"}', "no request line came"),
        (b"", "no request line came"),
        (b"x" * (1 << 17), "at most 65536 octets"),
    ],
)
async def test_malformed_requests_are_answered(data: bytes, error: str, path: Path) -> None:
    answer = json.loads(await asyncio.to_thread(raw, path, data, end=True))
    assert list(answer) == ["error"]
    assert error in answer["error"]
    assert await ask(path, "nothing", 5) is None


async def test_who_says_nothing_is_let_go(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "_CLIENT_TIMEOUT", 0.05)
    assert b"no request line came" in await asyncio.to_thread(raw, path, b'{"comm')


async def test_nobody_there(tmp_path: Path) -> None:
    missing = socket_path(tmp_path / "run", "http")
    with pytest.raises(NotRunning, match=r"^http is not running$"):
        await ask(missing, "status", 5)
    missing.parent.mkdir()
    with pytest.raises(NotRunning, match=r"^http is not running$"):
        await ask(missing, "status", 5)


async def test_one_that_hangs(path: Path) -> None:
    with pytest.raises(NotRunning, match=r"^delivery does not answer within 0\.05 s$"):
        await ask(path, "hang", 0.05)
    assert await ask(path, "nothing", 5) is None


async def test_closing_waits_for_nobody(tmp_path: Path) -> None:
    asked = asyncio.Event()

    async def hang_on() -> None:
        asked.set()
        await asyncio.Event().wait()

    server = ControlServer(tmp_path / "http.sock", {"hang": hang_on})
    await server.start()
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        answer = tasks.create_task(_error(tmp_path / "http.sock", "hang"))
        await asked.wait()
        await server.close()
    assert answer.result() == "http ended before it answered"
    assert not (tmp_path / "http.sock").exists()


async def _error(path: Path, command: str) -> str:
    with pytest.raises(ControlError) as caught:
        await ask(path, command, 5)
    return str(caught.value)


async def test_only_our_user(path: Path) -> None:
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


async def test_one_process_a_name(path: Path) -> None:
    with pytest.raises(AlreadyRunning, match=rf"^delivery is already running \(pid {os.getpid()}\)$"):
        await ControlServer(path, COMMANDS).start()
    assert await ask(path, "nothing", 5) is None


CHILD = """
import asyncio, sys
from pathlib import Path
from mta.control import ControlServer
async def main():
    await ControlServer(Path(sys.argv[1]), {}).start()
    print("up", flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


async def test_the_socket_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "delivery.sock"
    with subprocess.Popen([sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert await asyncio.to_thread(child.stdout.readline) == b"up\n"
        with pytest.raises(AlreadyRunning, match=f"pid {child.pid}"):
            await ControlServer(path, COMMANDS).start()
        child.send_signal(signal.SIGKILL)
    assert path.exists()
    with pytest.raises(NotRunning, match="is not running"):
        await ask(path, "nothing", 5)
    async with serving(path):
        assert await ask(path, "nothing", 5) is None


def test_under_uvloop_and_a_path_too_long_for_a_socket(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path / ("d" * 120) / "ingress-2.sock") as path:
            assert await ask(path, "nothing", 5) is None
            with pytest.raises(ControlError, match="ingress-2: not while draining"):
                await ask(path, "refuse", 5)

    uvloop.run(main())
