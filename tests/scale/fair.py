"""What a flood that was accepted before does to a light tenant: the time from 250 to its delivery (promise 6)."""

import asyncio
import random
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from statistics import quantiles
from typing import NamedTuple

import aiosmtplib
import yaml

from mta.config import HostPort
from mta.lab.dns import DnsServer, Zone
from tests.interop.processes import free_ports
from tests.interop.relay import Relay
from tests.scale.arrivals import Arrivals
from tests.scale.backlog import TENANT, Shape, backlog

DELIVERY = 0.05  # seconds that one takes
CONNECTIONS = 10
_DOMAINS = 10_000  # as Shape.DOMAINS has them
_APART = 0.05  # seconds from one light message to the next
_LATE = 60.0  # seconds
_NUMBER = re.compile(rb"^Subject: light (\d+)\r$", re.MULTILINE)


class Flood(StrEnum):
    """Where the flood goes, beside the light tenant's mail."""

    SITE = "one domain of the same site"
    THOUSAND = "1,000 domains of the same site"
    DOMAINS = "10,000 domains of the same site"
    SITES = "10,000 other sites"


_SHAPES = {Flood.SITE: Shape.ONE, Flood.THOUSAND: Shape.THOUSAND}  # the others: Shape.DOMAINS


class Waits(NamedTuple):
    """Seconds from acceptance to delivery."""

    p50: float
    p99: float


async def waits(directory: Path, flood: Flood | None, entries: int, messages: int) -> Waits:
    """Deliver so many light messages, alone or with a flood waiting; TimeoutError if one takes too long."""
    arrivals = Arrivals(DELIVERY)
    await arrivals.start()
    dns = DnsServer(_zone(flood))
    await dns.start()
    relay, smtp = _relay(directory, arrivals.address, dns.address)
    try:
        if flood is not None:
            async with backlog(directory / "state", random.Random(1)) as spool:
                await spool.fill(entries, _SHAPES.get(flood, Shape.DOMAINS))
        with ExitStack() as started:
            await asyncio.to_thread(started.enter_context, relay.serving())
            try:
                await arrivals.first(_LATE) if flood is not None else None
                accepted = await _send(smtp, messages)
                async with asyncio.timeout(_LATE):
                    while len(came := dict(_light(arrivals))) < messages:
                        await asyncio.sleep(0.05)
            finally:
                await asyncio.to_thread(started.close)  # while the receiver still answers
        assert flood is None or len(arrivals.came) < entries + messages, "the flood was over before the end"
    finally:
        await dns.close()
        await arrivals.close()
    found = quantiles([came[number] - at for number, at in accepted.items()], n=100)
    return Waits(found[49], found[98])


def _relay(directory: Path, next_hop: HostPort, dns: HostPort) -> tuple[Relay, HostPort]:
    smtp, http = (HostPort(host="127.0.0.1", port=port) for port in free_ports(2))
    directory.mkdir()
    settings = {
        "hostname": "relay.test",
        "state_dir": str(directory / "state"),
        "listeners": [{"address": str(smtp), "kind": "relay", "networks": ["127.0.0.0/8"], "tenant": "light"}],
        "http": {"address": str(http)},
        "spool": {"reserve": "1MiB"},
        "dns": {"servers": [str(dns)]},
        "delivery": {"port": next_hop.port, "connections": CONNECTIONS, "allow_private_targets": True},
    }
    relay = Relay(directory, yaml.safe_load(yaml.safe_dump(settings)))
    for tenant in (TENANT, "light"):
        relay.tell("tenants", "create", tenant)
    return relay, smtp


def _zone(flood: Flood | None) -> Zone:
    zone = Zone(wildcard_mx="mx.test")
    zone.set("mx.test", "A", "127.0.0.1")
    if flood is Flood.SITES:
        for number in range(_DOMAINS):
            zone.set(f"d{number}.test", "MX", f"10 mx.d{number}.test.")
            zone.set(f"mx.d{number}.test", "A", "127.0.0.1")
    return zone


async def _send(smtp: HostPort, messages: int) -> dict[int, float]:
    """Hand in messages at a steady pace over one connection; return when each was accepted."""
    accepted: dict[int, float] = {}
    async with aiosmtplib.SMTP(hostname=smtp.host, port=smtp.port, start_tls=False) as client:
        for number in range(messages):
            began = time.monotonic()
            await client.sendmail(
                "app@light.test", ["to@light.test"], f"Subject: light {number}\r\n\r\nhello\r\n".encode()
            )
            accepted[number] = time.monotonic()
            await asyncio.sleep(max(0.0, began + _APART - time.monotonic()))
    return accepted


def _light(arrivals: Arrivals) -> Iterator[tuple[int, float]]:
    for at, content in arrivals.came:
        if found := _NUMBER.search(content):
            yield int(found[1]), at
