"""Accepting over HTTP alone, through the SendGrid dialect with idempotency keys, beside a handler that does nothing.

Nothing is delivered meanwhile; the views follow. Processor time is that of one http role with its writer.
"""

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from mta.config import HostPort
from tests.bench import cpu
from tests.bench.contest import Bench, run_numbers, socket_address, warn_if_busy
from tests.bench.figures import Dialect
from tests.bench.orders import Posts
from tests.bench.servers import fairlead
from tests.interop.peers import disk_directory
from tests.interop.processes import free_ports, running, wait_until

NOTHING = "Falcon, doing nothing"
_RATE = 500  # requests a second
_SECONDS = 5  # of one run at that rate
_CLIENTS = 32
_MESSAGES = 6000  # of one run as fast as may be
_OCTETS = 1000  # of each of text and html
_MANY = 1000  # personalizations of one request


class _Server(NamedTuple):
    name: str
    address: HostPort
    key: str
    process: int


async def dialects(bench: Bench) -> list[Dialect]:
    """Make all runs in turn; Malfunction if one fails."""
    runs: list[Dialect] = []
    with fairlead(HostPort(host="127.0.0.1", port=9), holds=True) as ours, _nothing() as nothing:
        assert ours.http is not None
        server = _Server(ours.name, ours.http, ours.key, ours.processes[1])  # ingress, http, events
        for each in (server, nothing):
            await _run(bench, each, _MESSAGES // 10)
        warn_if_busy()
        for number in range(bench.rounds):
            for each in (server, nothing) if number % 2 else (nothing, server):
                runs.append(await _run(bench, each, _MESSAGES // bench.shrink))
                runs.append(await _run(bench, each, _RATE * _SECONDS // bench.shrink, rate=_RATE))
                runs.append(await _run(bench, each, 5, many=_MANY))
    return runs


async def _run(bench: Bench, server: _Server, messages: int, *, rate: int = 0, many: int = 1) -> Dialect:
    order = Posts(
        address=socket_address(server.address),
        run=next(run_numbers),
        key=server.key,
        sessions=_CLIENTS if many == 1 else 1,
        octets=_OCTETS,
        messages=messages,
        rate=rate,
        html=True,
        idempotent=True,
        personalizations=many,
    )
    own = cpu.of_families((server.process,))
    report = await bench.load.make(order)
    own = cpu.of_families((server.process,)) - own
    ordered = sorted(report.latencies) or [0.0]
    p50, p99, p999 = (1000 * ordered[int(len(ordered) * share)] for share in (0.5, 0.99, 0.999))
    accepted = report.ended - report.began
    return Dialect(server.name, many, rate, messages, accepted, p50, p99, p999, own, report.cpu)


@contextmanager
def _nothing() -> Iterator[_Server]:
    address = HostPort(host="127.0.0.1", port=free_ports(1)[0])
    with disk_directory("bench") as directory:
        log = directory / "log"
        with running([sys.executable, "-m", "tests.bench.empty", str(address.port)], log) as process:
            wait_until(lambda: _listens(address), process, log)
            yield _Server(NOTHING, address, "SG.none", process.pid)


def _listens(address: HostPort) -> bool:
    try:
        socket.create_connection(socket_address(address), timeout=1).close()
    except OSError:
        return False
    return True
