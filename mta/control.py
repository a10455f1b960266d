"""The control socket of a role: one JSON line in, one JSON line out, then the end.

`{"command": "status"}` is answered by `{"ok": ...}` or `{"error": "why"}`; some commands take `arguments`.
Only our own user can connect (mode 0600). The lock beside the socket makes a role's process the only one of its
name, and a socket found without a living lock is stale. Paths go through /proc/self/fd, because a unix socket's
path cannot be longer than 107 octets and a state directory's can.
"""

import asyncio
import fcntl
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

log = logging.getLogger(__name__)

Command = Callable[[], Awaitable[object]]
"""Does what it is named for and returns what msgspec can write as JSON. ControlError says why it will not."""

type_arguments = TypeVar("type_arguments", bound=msgspec.Struct)


class Question(Generic[type_arguments]):
    """A command that takes arguments: of which type, and what answers it, as a Command does."""

    def __init__(self, arguments: type[type_arguments], answer: Callable[[type_arguments], Awaitable[object]]) -> None:
        self._read = msgspec.json.Decoder(arguments).decode
        self._answer = answer

    def put(self, arguments: bytes) -> Awaitable[object]:
        """Ask, with arguments as they came; msgspec.DecodeError if they are not the ones."""
        return self._answer(self._read(arguments or b"{}"))


Commands = Mapping[str, Command | Question[Any]]

REQUEST_OCTETS = 64 << 10
REPLY_OCTETS = 16 << 20
_CLIENT_TIMEOUT = 5.0  # seconds for a client to say what it wants, and again to take the answer


class ControlError(Exception):
    """A role did not do what it was asked; the message says why."""


class NotRunning(ControlError):
    """The role is not running. One that is, and does not answer, may do yet what it was asked."""


class AlreadyRunning(Exception):
    """Another process is this role."""


class _Request(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    command: str
    arguments: msgspec.Raw = msgspec.Raw()


class _Reply(msgspec.Struct, omit_defaults=True):
    ok: Any = msgspec.UNSET
    error: str = ""


_read_request = msgspec.json.Decoder(_Request).decode
_read_reply = msgspec.json.Decoder(_Reply).decode


def socket_path(run_dir: Path, role: str, instance: int = 0) -> Path:
    """Name the control socket of a role, or of one of its instances (from 1)."""
    return run_dir / (f"{role}-{instance}.sock" if instance else f"{role}.sock")


class ControlServer:
    """Answers on a role's control socket while it is entered."""

    def __init__(self, path: Path, commands: Commands) -> None:
        self._path = path
        self._commands = commands
        self._lock: int | None = None
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Take the name and begin to answer; AlreadyRunning when another process has it."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = _lock(self._path)
        try:
            self._server = await asyncio.start_unix_server(self._client, sock=_bound(self._path), limit=REQUEST_OCTETS)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Stop answering, whoever waits for an answer included, and give the name back."""
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)
            for task in self._clients:
                task.cancel()
            await asyncio.gather(*self._clients, return_exceptions=True)
            self._server = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._clients.add(task)
        task.add_done_callback(self._clients.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(await self._answer(reader) + b"\n")
            async with asyncio.timeout(_CLIENT_TIMEOUT):
                await writer.drain()
            writer.close()
        except (ConnectionError, TimeoutError):
            log.info("control=%s the client left before its answer", self._path.stem)
        finally:
            if not writer.is_closing():
                writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        try:
            async with asyncio.timeout(_CLIENT_TIMEOUT):
                request = _read_request(await reader.readuntil(b"\n"))
        except (TimeoutError, asyncio.IncompleteReadError):
            return _refusal("no request line came")
        except asyncio.LimitOverrunError:
            return _refusal(f"a request has at most {REQUEST_OCTETS} octets")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return _refusal(f"not a request: {error}")
        name, arguments = request.command, bytes(request.arguments)
        command = self._commands.get(name)
        if command is None:
            return _refusal(f"no such command: {name[:64]!r}; there are {', '.join(sorted(self._commands))}")
        if arguments and not isinstance(command, Question):
            return _refusal(f"{name} takes no arguments")
        try:
            asked = command.put(arguments) if isinstance(command, Question) else command()
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return _refusal(f"{name}: arguments: {error}")
        try:
            return msgspec.json.encode(_Reply(ok=await asked))
        except ControlError as error:
            return _refusal(str(error))
        except Exception:  # boundary: one request; the role lives on, and who asked is told
            log.exception("control=%s command=%s failed", self._path.stem, name)
            return _refusal("failed; the log says why")


def _refusal(why: str) -> bytes:
    return msgspec.json.encode(_Reply(error=why))


async def ask(path: Path, command: str, timeout: float, arguments: msgspec.Struct | None = None) -> Any:
    """Ask a role for something and return its answer, as JSON values.

    ControlError when it refuses, or does not answer within `timeout` seconds; NotRunning when nobody is there. What
    they say may be shown to tenants.
    """
    try:
        async with asyncio.timeout(timeout):
            request = _Request(command)
            if arguments is not None:
                request.arguments = msgspec.Raw(msgspec.json.encode(arguments))
            line = await _exchange(path, msgspec.json.encode(request) + b"\n")
        reply = _read_reply(line)
    except (FileNotFoundError, ConnectionRefusedError):
        raise NotRunning(f"{path.stem} is not running") from None
    except (ConnectionError, asyncio.IncompleteReadError):
        raise ControlError(f"{path.stem} ended before it answered") from None
    except TimeoutError:
        raise ControlError(f"{path.stem} does not answer within {timeout:g} s") from None
    except OSError as error:
        raise ControlError(f"{path.stem} cannot be asked: {error.strerror}") from None
    except (msgspec.DecodeError, asyncio.LimitOverrunError) as error:
        raise ControlError(f"{path.stem} answers what this version does not understand: {error}") from None
    if reply.error:
        raise ControlError(f"{path.stem}: {reply.error}")
    return reply.ok


async def _exchange(path: Path, request: bytes) -> bytes:
    with _short(path) as address:
        reader, writer = await asyncio.open_unix_connection(address, limit=REPLY_OCTETS)
    try:
        writer.write(request)
        return await reader.readuntil(b"\n")
    finally:
        writer.transport.abort()


def _lock(path: Path) -> int:
    """Take the lock beside a socket: it ends with its process, however that ends."""
    fd = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.read(fd, 20).decode("ascii", "replace").strip()
        os.close(fd)
        raise AlreadyRunning(f"{path.stem} is already running (pid {pid})") from None
    os.truncate(fd, 0)
    os.write(fd, f"{os.getpid()}\n".encode())
    return fd


def _bound(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)  # stale: we have the lock
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        os.fchmod(sock.fileno(), 0o600)  # before bind, which gives the file this mode: never open to others
        with _short(path) as address:
            sock.bind(address)
    except BaseException:
        sock.close()
        raise
    return sock


@contextmanager
def _short(path: Path) -> Iterator[str]:
    fd = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{fd}/{path.name}"
    finally:
        os.close(fd)
