"""Contests: the same load on Fairlead and on Postfix in alternating runs, on this machine.

Each server has its default ways of making mail durable; Postfix is set up as gave its best. Load is
smtp-source, the next hop our own cheap sink.
"""

import asyncio
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import NamedTuple

from mta.config import HostPort
from tests.bench import cpu
from tests.bench.figures import RIVAL, Run
from tests.bench.sink import Sink
from tests.interop.peers import disk_directory, postfix, signing_milter
from tests.interop.processes import free_ports
from tests.interop.relay import ROLES, Relay

OCTETS = 2000  # of a body
CONTESTS = ("hold", "relay", "signed")
_DOMAIN = "bench.test"
_WARM_UP = 200  # messages before the first run that counts
_BUSY = 0.1  # of the machine, without load; above it figures are worth nothing
_TIMEOUT = 120.0  # seconds for one run
_TENANT = "bench"


class Malfunction(Exception):
    """A server or the load did not do its work, so that there is nothing to measure."""


class Server(NamedTuple):
    """One who takes part, and the processes that do its work. What it relays is to be signed, or not."""

    name: str
    address: HostPort
    signs: bool
    processes: tuple[int, ...]


async def contest(name: str, sink: Sink, sessions: int, rounds: int, messages: int) -> list[Run]:
    """Hold one contest; Malfunction if it cannot be held."""
    runs: list[Run] = []
    with ExitStack() as stack:
        servers = [stack.enter_context(each) for each in _servers(name, sink.address)]
        for server in servers:
            await _run(name, server, sink, sessions, _WARM_UP, kept=True)
        if (busy := cpu.busy_share(1)) > _BUSY:
            print(f"bench: the machine is {busy:.0%} busy with other things: quote none of this", file=sys.stderr)
        for number in range(rounds):
            for kept in (False, True):
                # whoever goes first finds the machine in another state than who comes after
                for server in servers if number % 2 else reversed(servers):
                    runs.append(await _run(name, server, sink, sessions, messages, kept=kept))
    return runs


def _servers(name: str, sink: HostPort) -> list[AbstractContextManager[Server]]:
    if name == "hold":
        return [_fairlead(sink, holds=True), _postfix(sink, holds=True)]
    if name == "relay":
        return [_fairlead(sink), _postfix(sink)]
    return [_fairlead(sink, signs=True), _postfix(sink), _postfix(sink, signs=True)]


@contextmanager
def _fairlead(sink: HostPort, *, holds: bool = False, signs: bool = False) -> Iterator[Server]:
    """Run Fairlead as it is by default: all roles, or all but delivery where mail is to wait."""
    smtp, http = (HostPort(host="127.0.0.1", port=port) for port in free_ports(2))
    listener = {"address": str(smtp), "kind": "relay", "networks": ["127.0.0.0/8"], "tenant": _TENANT}
    with disk_directory("bench") as directory:
        settings = {
            "hostname": "relay.test",
            "state_dir": str(directory / "state"),
            "listeners": [listener],
            "http": {"address": str(http)},
            "routes": [{"domains": ["*"], "relay": str(sink)}],
        }
        relay = Relay(directory, settings)
        relay.tell("tenants", "create", _TENANT)
        if signs:
            relay.tell("domains", "add", _DOMAIN, "--tenant", _TENANT)
            relay.tell("dkim", "create", _DOMAIN, "--selector", "s1", "--algorithm", "rsa2048")
        roles = [each for each in ROLES if each != "delivery"] if holds else ROLES
        with relay.serving(roles) as processes:
            yield Server("Fairlead, signing" if signs else "Fairlead", smtp, signs, processes)


@contextmanager
def _postfix(sink: HostPort, *, holds: bool = False, signs: bool = False) -> Iterator[Server]:
    """Run Postfix; where mail is to wait it is put on hold, which costs no delivery."""
    next_hop = f"[{sink.host}]:{sink.port}"
    settings = {
        "relayhost": next_hop,
        "smtp_dns_support_level": "disabled",
        "default_destination_concurrency_limit": "50",
        "initial_destination_concurrency": "20",
        "default_destination_recipient_limit": "1",
        "smtp_connection_cache_destinations": next_hop,
        "smtpd_client_connection_count_limit": "0",
        "smtpd_client_connection_rate_limit": "0",
        "smtpd_client_message_rate_limit": "0",
    }
    if holds:
        settings["smtpd_client_restrictions"] = "check_client_access static:HOLD"
    with ExitStack() as stack:
        processes = []
        if signs:
            milter = stack.enter_context(signing_milter(_DOMAIN))
            settings["smtpd_milters"] = milter.address
            processes.append(milter.pid)
        address = HostPort(host="127.0.0.1", port=free_ports(1)[0])
        processes.append(stack.enter_context(postfix(address, settings)).pid)
        yield Server(f"{RIVAL} with OpenDKIM" if signs else RIVAL, address, signs, tuple(processes))


async def _run(name: str, server: Server, sink: Sink, sessions: int, messages: int, *, kept: bool) -> Run:
    """Make one run: until the last message is accepted, and where it is relayed until it has arrived."""
    sink.expect(messages)
    machine, own = cpu.of_machine(), cpu.of_families(server.processes)
    began = time.perf_counter()
    await _load(server, sessions, messages, kept=kept)
    accepted, relayed = time.perf_counter() - began, None
    if name != "hold":
        try:
            relayed = await sink.reached(_TIMEOUT) - began
        except TimeoutError:
            raise Malfunction(f"{server.name}: {sink.count} of {messages} arrived in {_TIMEOUT:.0f} s") from None
        if (b"DKIM-Signature:" in sink.last) != server.signs:
            raise Malfunction(f"{server.name}: signed: {not server.signs}, wanted: {server.signs}")
    machine, own = cpu.of_machine() - machine, cpu.of_families(server.processes) - own
    return Run(name, "kept" if kept else "one a message", server.name, messages, accepted, relayed, machine, own)


async def _load(server: Server, sessions: int, messages: int, *, kept: bool) -> None:
    options = f"-s {sessions} -m {messages} -l {OCTETS} -f app@{_DOMAIN} -t to@away.test -M load.test".split()
    process = await asyncio.create_subprocess_exec(
        "smtp-source",
        *options,
        *["-d"] * kept,
        f"inet:{server.address}",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_TIMEOUT):
            _, said = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise Malfunction(f"smtp-source to {server.name}: {said.decode(errors='replace').strip()}")
