"""Processes that tests and the benchmark start: waited for, and ended by their id with all that they started.

Each is the leader of a session of its own, so that nothing of it is left behind whatever becomes of it.
"""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

STARTING = 30.0  # seconds until a process must be ready
_ENDING = 45.0  # seconds from SIGTERM to SIGKILL: more than Fairlead takes to drain
_LOOK = 0.02


@contextmanager
def running(command: Sequence[str | Path], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process, its output appended to `log`; at the end SIGTERM, then SIGKILL to its whole session."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield process
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_ENDING)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_until(condition: Callable[[], object], process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until a starting process is ready; RuntimeError with the end of its log if it is not in time."""
    until = time.monotonic() + STARTING
    while not condition():
        if process.poll() is not None or time.monotonic() > until:
            said = log.read_text(errors="replace")[-3000:] if log.exists() else ""
            raise RuntimeError(f"{process.args!r} is not ready, exit code {process.returncode}\n{said}")
        time.sleep(_LOOK)


def greets(host: str, port: int) -> bool:
    """Whether an SMTP server answers there."""
    try:
        with socket.create_connection((host, port), timeout=5) as client:
            return client.recv(1000).startswith(b"220 ")
    except OSError:
        return False


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """Find ports that nobody listens on, all different; the system chooses."""
    sockets = [socket.create_server((host, 0)) for _ in range(count)]
    try:
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
