"""What a role tells the process that started it, and the sockets it is given: sd_notify(3), sd_listen_fds(3).

systemd and the parent of `serve` listen alike. Without either, telling does nothing.
"""

import asyncio
import logging
import os
import socket
import time
from collections.abc import MutableMapping

from mta.clock import Clock

log = logging.getLogger(__name__)

_FIRST_FD = 3  # SD_LISTEN_FDS_START
_LARGEST_STATUS = 512  # characters


class Notifier:
    """Tells the starter. Takes its variables out of the environment, so that no child speaks in our name."""

    def __init__(self, environ: MutableMapping[str, str] = os.environ) -> None:
        address = environ.pop("NOTIFY_SOCKET", "")
        # A name in the abstract name space is written with @ for the NUL.
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._interval = _watchdog_interval(environ)

    def ready(self) -> None:
        """Say that the start, or the reload that was begun, is done."""
        self._tell("READY=1")

    def stopping(self) -> None:
        """Say that the drain has begun."""
        self._tell("STOPPING=1")

    def reloading(self) -> None:
        """Say that a reload has begun; `ready` ends it. The time is what Type=notify-reload waits for."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def status(self, text: str) -> None:
        """Show one line in `systemctl status`."""
        self._tell(f"STATUS={' '.join(text.split())[:_LARGEST_STATUS]}")

    async def watch(self, clock: Clock, stop: asyncio.Event) -> None:
        """Say that the event loop turns, at half the watchdog's interval, until `stop` is set."""
        if self._interval is None:
            return
        self._tell("WATCHDOG=1")
        while not await clock.wait(stop, self._interval / 2):
            self._tell("WATCHDOG=1")

    def _tell(self, text: str) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
            try:
                sock.sendto(text.encode(), self._address)
            except OSError as error:  # whoever does not listen does not want to know
                log.debug("notify=%s error=%r", text.partition("=")[0], error)


def _watchdog_interval(environ: MutableMapping[str, str]) -> float | None:
    """Read the interval in seconds; None when no watchdog watches this process."""
    text, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
    if pid not in ("", str(os.getpid())) or not text.isdecimal() or int(text) == 0:
        return None
    return int(text) / 1_000_000


def listen_sockets(environ: MutableMapping[str, str] = os.environ) -> list[tuple[str, socket.socket]]:
    """Take the listening sockets passed in, each with its name ("" without one), non-blocking and not inheritable.

    ValueError when the variables are not what systemd writes. Call it once: they are taken out of the
    environment.
    """
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    names = environ.pop("LISTEN_FDNAMES", "")
    if pid != str(os.getpid()):
        return []
    if not count.isdecimal():
        raise ValueError(f"LISTEN_FDS is not a number: {count!r}")
    named = names.split(":") if names else []
    named += [""] * (int(count) - len(named))
    found = []
    for fd, name in enumerate(named[: int(count)], start=_FIRST_FD):
        sock = socket.socket(fileno=fd)
        sock.settimeout(0)
        os.set_inheritable(fd, False)  # noqa: FBT003 - the standard library's signature
        found.append((name, sock))
    return found
