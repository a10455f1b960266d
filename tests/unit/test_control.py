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
from mta.control import AlreadyRunning, Commands, ControlError, ControlServer, NotRunning, Question, ask, socket_path


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


class Lookup(msgspec.Struct):
    names: list[str]
    limit: int = 2


async def look_up(asked: Lookup) -> list[str]:
    return asked.names[: asked.limit]


COMMANDS: Commands = {
    "look-up": Question(Lookup, look_up),
    "status": status,
    "nothing": nothing,
    "refuse": refuse,
    "fail": fail,
    "hang": hang,
    "unwritable": lambda: _object(),
}


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


async def test_a_question_with_arguments(path: Path) -> None:
    assert await ask(path, "look-up", 5, Lookup(["a", "ü", "c"])) == ["a", "ü"]
    asked = b'{"command":"look-up","arguments":{"limit":1,"names":["a","b"]}}\n'
    assert await asyncio.to_thread(raw, path, asked) == b'{"ok":["a"]}\n'


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (b'{"command":"look-up"}', b"look-up: arguments: Object missing required field `names`"),
        (b'{"command":"look-up","arguments":[]}', b"look-up: arguments: Expected `object`, got `array`"),
        (b'{"command":"look-up","arguments":{"names":[1]}}', b"arguments: Expected `str`, got `int` - at `$.names[0]`"),
        (b'{"command":"look-up","arguments":{"names":["\xff"]}}', b"look-up: arguments: "),
        (b'{"command":"look-up","arguments":' + b"[" * 60_000, b"not a request: "),
        (b'{"command":"look-up","arguments":{"names":' + b"[" * 20_000 + b"]" * 20_000 + b"}}", b": "),
        (b'{"command":"nothing","arguments":{}}', b"nothing takes no arguments"),
    ],
)
async def test_arguments_that_are_not_the_ones(path: Path, request_: bytes, error: bytes) -> None:
    answer = await asyncio.to_thread(raw, path, request_ + b"\n")
    assert answer.startswith(b'{"error":"')
    assert error in answer
    assert await ask(path, "nothing", 5) is None


async def test_refusals_say_why(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ControlError, match=r"^delivery: not while draining$"):
        await ask(path, "refuse", 5)
    with pytest.raises(ControlError, match="no such command: 'jump'; there are fail, hang, look-up"):
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


async def test_what_is_said_has_no_path(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(ControlError, match=r"^http cannot be asked: Not a directory$"):
        await ask(socket_path(tmp_path / "run", "http"), "status", 5)


async def test_one_that_hangs(path: Path) -> None:
    """Red when it counts as one that is not running: it may do yet what it was asked."""
    with pytest.raises(ControlError, match=r"^delivery does not answer within 0\.05 s$") as caught:
        await ask(path, "hang", 0.05)
    assert not isinstance(caught.value, NotRunning)
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
    assert not isinstance(caught.value, NotRunning)
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
