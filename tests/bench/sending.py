"""Sending over HTTP: accepts a second, and latencies at a fixed rate; with nothing waiting, and with a backlog.

Fairlead alone takes part: its rivals have no HTTP.
"""

from tests.bench import cpu
from tests.bench.contest import Bench, arrived, run_numbers, socket_address, warn_if_busy
from tests.bench.figures import Posted
from tests.bench.orders import Mail, Malfunction, Posts
from tests.bench.servers import Server, fairlead
from tests.bench.sink import Sink

RATE = 500  # requests a second
_SECONDS = 5  # of one run at that rate
_CLIENTS = 32
_MESSAGES = 6000  # of one run as fast as may be
_OCTETS = 2000
_BACKLOG = 50_000
_TARPIT = 1.0  # seconds that the next hop lets its clients wait for every reply
_FILLING = 110.0  # seconds


async def sending(bench: Bench) -> list[Posted]:
    """Make all runs, with a sink of their own; Malfunction if one fails."""
    runs: list[Posted] = []
    bench = bench._replace(sink=Sink())
    await bench.sink.start()
    with fairlead(bench.sink.address) as server:
        await _run(bench, server, _MESSAGES // 10, waiting=0)
        warn_if_busy()
        runs += await _rounds(bench, server, waiting=0)
        bench.sink.pause = _TARPIT
        runs += await _rounds(bench, server, waiting=await _fill(bench, server))
        await bench.sink.close()  # or the server would wait for its replies when it is stopped
    return runs


async def _rounds(bench: Bench, server: Server, *, waiting: int) -> list[Posted]:
    runs = []
    for _ in range(bench.rounds):
        runs.append(await _run(bench, server, _MESSAGES // bench.shrink, waiting=waiting))
        runs.append(await _run(bench, server, RATE * _SECONDS // bench.shrink, waiting=waiting, rate=RATE))
    return runs


async def _fill(bench: Bench, server: Server) -> int:
    order = Mail(
        address=socket_address(server.address),
        run=next(run_numbers),
        sessions=20,
        kept=True,
        octets=_OCTETS,
        destinations=1,
        messages=_BACKLOG // bench.shrink,
        seconds=_FILLING,
    )
    accepted = (await bench.load.make(order)).accepted
    if accepted < order.messages:
        raise Malfunction(f"{server.name}: {accepted} of {order.messages} accepted in {_FILLING:.0f} s")
    return accepted


async def _run(bench: Bench, server: Server, messages: int, *, waiting: int, rate: int = 0) -> Posted:
    assert server.http is not None
    run = next(run_numbers)
    bench.sink.expect(run)
    order = Posts(
        address=socket_address(server.http),
        run=run,
        key=server.key,
        sessions=_CLIENTS,
        octets=_OCTETS,
        messages=messages,
        rate=rate,
    )
    machine, own = cpu.of_machine(), cpu.of_families(server.processes)
    report = await bench.load.make(order)
    if not waiting:
        await arrived(bench.sink, server, report)
    machine, own = cpu.of_machine() - machine, cpu.of_families(server.processes) - own
    accepted = report.ended - report.began
    ordered = sorted(report.latencies) or [0.0]
    p50, p99, p999 = (1000 * ordered[int(len(ordered) * share)] for share in (0.5, 0.99, 0.999))
    return Posted(
        waiting,
        rate,
        messages,
        accepted,
        p50,
        p99,
        p999,
        1000 * ordered[-1],
        machine,
        own,
        report.cpu,
        1000 * report.late,
    )
