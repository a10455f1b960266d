"""The doorbell: a datagram that tells the delivery role to look again.

It carries nothing and may be lost; the delivery role looks once a second anyway. Rings within one turn
of the loop are one datagram.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

_PAUSE = 0.1  # seconds before another try to find somebody who hears it


class Doorbell:
    """The pushing side: `ring` never blocks, waits or fails."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(0)
        self._rung = False
        self._heard = False  # at the last ring
        self._tried_at = -_PAUSE

    def ring(self) -> None:
        """Tell the delivery role, if there is one; call from the loop."""
        if not self._rung:
            self._rung = True
            asyncio.get_running_loop().call_soon(self._send)

    def _send(self) -> None:
        self._rung = False
        if not self._heard:
            self._connect()
        if self._heard:
            try:
                self._socket.send(b"")
            except BlockingIOError:
                pass  # earlier rings wait to be heard
            except OSError:
                self._heard = False

    def _connect(self) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._tried_at < _PAUSE:
            return
        self._tried_at = now
        with contextlib.suppress(OSError), _short(self._path) as address:
            self._socket.connect(address)
            self._heard = True

    def close(self) -> None:
        """Let go of the socket."""
        self._socket.close()


class DoorbellSocket:
    """The listening side, one for an installation."""

    def __init__(self, path: Path, answer: Callable[[], None]) -> None:
        """Bind `path`, in place of what a predecessor left there, and call `answer` for rings."""
        self._answer = answer
        self._path = path
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(0)
        with _short(path) as address:
            self._socket.bind(address)
        path.chmod(0o600)
        asyncio.get_running_loop().add_reader(self._socket, self._read)

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                self._socket.recv(1)
                self._answer()

    def close(self) -> None:
        """Stop listening."""
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
        self._path.unlink(missing_ok=True)


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """Name a socket in at most the 107 octets that unix(7) has for it."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
