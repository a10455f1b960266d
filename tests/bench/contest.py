"""Contests: the same mail through Fairlead and its rivals in alternating runs, on this machine.

Every message carries the number of its run and its own in its subject, so that the sink counts each once.
"""

import itertools
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import NamedTuple

import dkim

from mta.config import HostPort
from tests.bench import cpu
from tests.bench.figures import Cell, Run
from tests.bench.orders import Load, Mail, Malfunction, Report
from tests.bench.servers import Server, servers
from tests.bench.sink import Sink
from tests.bench.strict import strict

SECONDS = 4.0  # for accepting one run's messages; it ends there, however few they are
_ARRIVING = 90.0  # seconds for those that have been accepted
_BUSY = 0.1  # of the machine, without load; above it rates are worth nothing
_WARM_UP = 15  # a fraction of a run: so many times less

run_numbers = itertools.count(1)


class Bench(NamedTuple):
    """What all contests share: who makes the load, who takes the mail, and how much there is of it."""

    load: Load
    sink: Sink
    rounds: int
    shrink: int  # a run has so many times fewer messages than it should
    with_haraka: bool


async def contest(bench: Bench, cell: Cell, kinds: Sequence[bool]) -> list[Run]:
    """Hold one contest, with kept (True) and fresh connections; Malfunction if it cannot be held."""
    runs: list[Run] = []
    messages = max(1, cell.messages // bench.shrink)
    async with AsyncExitStack() as stack:
        receiver = await stack.enter_async_context(strict(bench.sink)) if cell.contest == "sts" else None
        taking_part = servers(
            cell.contest,
            bench.sink.address,
            with_haraka=bench.with_haraka,
            strict=receiver.settings if receiver is not None else None,
        )
        started = [stack.enter_context(each) for each in taking_part]
        for server in started:
            await _run(bench, cell, server, max(1, messages // _WARM_UP), kept=True)
        warn_if_busy()
        for number in range(bench.rounds):
            for kept in kinds:
                # whoever goes first finds the machine in another state than who comes after
                for server in started if number % 2 else reversed(started):
                    runs.append(await _run(bench, cell, server, messages, kept=kept))
        if receiver is not None:
            receiver.look_at()
    return runs


async def _run(bench: Bench, cell: Cell, server: Server, messages: int, *, kept: bool) -> Run:
    """Make one run: until the last message is accepted, and where it is relayed until it has arrived."""
    run, sink = next(run_numbers), bench.sink
    sink.expect(run)
    order = Mail(
        address=socket_address(server.address),
        run=run,
        sessions=cell.sessions,
        kept=kept,
        octets=cell.octets,
        destinations=cell.destinations,
        messages=messages,
        seconds=SECONDS,
    )
    machine, own, sinks = cpu.of_machine(), cpu.of_families(server.processes), time.process_time()
    report = await bench.load.make(order)
    relayed = None
    if cell.contest != "hold":
        relayed = await arrived(sink, server, report) - report.began
    machine, own = cpu.of_machine() - machine, cpu.of_families(server.processes) - own
    sinks = time.process_time() - sinks
    if cell.contest != "hold":
        look_at(sink.sample, server)
    accepted = report.ended - report.began
    return Run(
        cell,
        "kept" if kept else "fresh",
        server.name,
        report.accepted,
        accepted,
        relayed,
        machine,
        own,
        report.cpu,
        sinks,
    )


async def arrived(sink: Sink, server: Server, report: Report) -> float:
    """Wait until every message has arrived, once; return when the last one did."""
    try:
        at = await sink.reached(report.accepted, _ARRIVING)
    except TimeoutError:
        missing = report.accepted - sink.count
        raise Malfunction(f"{server.name}: {missing} of {report.accepted} did not arrive") from None
    if sink.repeated or sink.count != report.accepted:
        raise Malfunction(f"{server.name}: {sink.repeated} arrived twice, {sink.count} of {report.accepted} arrived")
    if server.encrypted and sink.in_clear:
        raise Malfunction(f"{server.name}: {sink.in_clear} of {sink.count} arrived in the clear")
    return at


def look_at(sample: Sequence[bytes], server: Server) -> None:
    """Verify signatures, with a verifier that is none of the servers'."""
    for content in sample:
        signed = b"DKIM-Signature:" in content.partition(b"\r\n\r\n")[0]
        if signed != bool(server.record):
            raise Malfunction(f"{server.name}: signed: {signed}, wanted: {not signed}")
        if signed and not dkim.verify(content, dnsfunc=lambda *_, **__: server.record.encode()):
            raise Malfunction(f"{server.name}: a signature does not verify")


def warn_if_busy() -> None:
    """Say so if the machine has other things to do."""
    if (busy := cpu.busy_share(1)) > _BUSY:
        print(f"bench: the machine is {busy:.0%} busy with other things: quote ratios at most", file=sys.stderr)


def socket_address(address: HostPort) -> tuple[str, int]:
    """Write an address for sockets."""
    return address.host, address.port
