"""The whole relay in one loop: real sockets, a laboratory around it, and a clock that only tests move."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timedelta
from pathlib import Path
from socket import socket
from typing import Any

import aiosmtplib
import pytest
from cryptography import x509

from mta import config as configuration
from mta.accounts import tenants, uses
from mta.app import DeliveryRole, EventsRole, IngressRole
from mta.config import Config
from mta.events.reader import LogReader
from mta.lab.ca import LIFETIME
from mta.lab.clock import FakeClock
from mta.lab.laboratory import Laboratory, RelayPorts, lab_config
from mta.lab.mailbox import Captured
from mta.mail.event import Event
from mta.parts import Parts
from mta.queue import gate
from mta.queue.answer import Answer
from mta.spool.interface import Due
from mta.spool.records import Wish

HOUR = 3600.0
DAY = 24 * HOUR
REAL_LIMIT = 15.0  # seconds of the machine's clock that a condition may take
RETRY = configuration.Retry(jitter=0.0)


class Story:
    """A relay in its laboratory. What a test says reads like what an operator would."""

    def __init__(self, laboratory: Laboratory, clock: FakeClock, config: Config) -> None:
        self.lab = laboratory
        self.clock = clock
        self.config = config
        self.parts: Parts
        self.ingress: IngressRole
        self.delivery: DeliveryRole
        self.events_role: EventsRole
        self.running = False

    async def start(self) -> None:
        """Start the roles on what the spool holds."""
        self.parts = Parts(self.config, self.clock)
        await tenants.create(self.parts.spool, "lab", self.clock.now())
        self.ingress = IngressRole(self.parts)
        self.delivery = DeliveryRole(self.parts, poll=HOUR)
        self.events_role = EventsRole(self.parts)
        for role in self._roles:
            await role.start(())
        self.running = True

    @property
    def _roles(self) -> Sequence[IngressRole | DeliveryRole | EventsRole]:
        return (self.ingress, self.delivery, self.events_role)

    async def stop(self, drain: float = 1.0) -> None:
        """Drain and stop, as SIGTERM does; the clock moves on while it drains."""
        if not self.running:
            return
        self.running = False
        for role in self._roles:
            draining = asyncio.ensure_future(role.drain(drain))
            while not draining.done():
                await self.clock.advance(drain)
                await asyncio.sleep(0.01)
            await draining
            await role.close()
        await self.parts.close()

    async def change(self, section: str, **values: Any) -> None:
        """Start anew with other settings in a section of the configuration."""
        changed = getattr(self.config, section).model_copy(update=values)
        await self.stop()
        self.config = self.config.model_copy(update={section: changed})
        await self.start()

    async def send(
        self,
        *recipients: str,
        sender: str = "sender@origin.test",
        body: bytes = b"Subject: a story\r\n\r\nOnce upon a time.\r\n",
        **options: Any,
    ) -> str:
        """Send a message over SMTP to the relay listener; return its id."""
        listener = self.config.listeners[0].address
        assert isinstance(listener, configuration.HostPort)
        client = aiosmtplib.SMTP(hostname=listener.host, port=listener.port, start_tls=False, timeout=REAL_LIMIT)
        async with client:
            _, said = await client.sendmail(sender, list(recipients), body, **options)
        return said.rpartition(" ")[2]

    async def arrived(self, count: int) -> list[Captured]:
        """Wait until the laboratory has received `count` messages."""
        return await self.lab.wait_for(count, REAL_LIMIT)

    async def events(self) -> list[Event]:
        """Read the whole log, from segments and spool."""
        log = LogReader(self.parts.spool, self.config.segment_dir, self.parts.keyring)
        found = await log.read(0, 10_000)
        assert [each.seq for each in found] == list(range(1, 1 + len(found)))  # no gap, no repetition
        return [each.event for each in found]

    async def told(self, *wanted: str) -> list[Event]:
        """Wait for the log to hold exactly the wanted lines `type recipient`, in any order."""
        await self.until(lambda events: len(events) >= len(wanted))
        events = await self.events()
        assert sorted(_line(each) for each in events) == sorted(wanted), [(_line(each), each.reply) for each in events]
        return events

    async def until(self, wanted: Callable[[list[Event]], bool]) -> list[Event]:
        """Wait until the log is as wanted."""
        try:
            async with asyncio.timeout(REAL_LIMIT):
                while not wanted(events := await self.events()):
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError([_line(each) for each in await self.events()]) from None
        return events

    async def count(self, kind: str, number: int) -> None:
        """Wait until there are `number` events of a type."""
        await self.until(lambda events: sum(each.type == kind for each in events) >= number)

    async def last(self, kind: str, number: int = 1) -> Event:
        """Wait until there are `number` events of a type; return the last."""
        await self.count(kind, number)
        return [each for each in await self.events() if each.type == kind][-1]

    async def wish(self, message_id: str, wish: Wish) -> Answer:
        """Have the operator wish something of a message's only entry, and delivery hear of it."""
        message = await self.parts.spool.message(message_id)
        assert message is not None
        ((entry, claim),) = await self.parts.spool.entries(message_id)
        answer = await self.parts.queue.wish(Due(entry, message), claim, wish)
        await self.delivery.recall()
        return answer

    def show(self, name: str, lifetime: timedelta = LIFETIME) -> x509.Certificate:
        """Have the receiving MX show another certificate, for a host of that name, from now on."""
        files = self.lab.ca.issue(name, lifetime=lifetime)
        assert self.lab.mx.tls_context is not None
        self.lab.mx.tls_context.load_cert_chain(files.certificate, files.key)
        return x509.load_pem_x509_certificate(files.certificate.read_bytes())

    async def waiting(self) -> int:
        """Count the entries in the queue."""
        return len([each async for each in self.parts.spool.walk_entries()])


def _line(event: Event) -> str:
    return f"{event.type} {event.recipient}".rstrip()


def free_ports(count: int) -> list[int]:
    """Find ports nobody uses."""
    sockets = [socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture(autouse=True)
def at_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let days pass at once: whoever wakes in between lets all others wake too, the mover each few seconds."""
    monkeypatch.setattr(gate, "REST", 30 * DAY)
    monkeypatch.setattr(gate, "COUNT_INTERVAL", 30 * DAY)
    monkeypatch.setattr(uses, "PAUSE", 30 * DAY)


@pytest.fixture
def clock() -> FakeClock:
    """Whose time it is: modules have their own."""
    return FakeClock()


@pytest.fixture
async def laboratory(tmp_path: Path, clock: FakeClock) -> AsyncIterator[Laboratory]:
    lab = Laboratory(tmp_path / "lab", clock)
    await lab.start()
    yield lab
    await lab.close()


@pytest.fixture
async def story(laboratory: Laboratory, clock: FakeClock) -> AsyncIterator[Story]:
    """A relay that is up, with the retry schedule of the product and no jitter."""
    base = configuration.parse(lab_config(laboratory, RelayPorts(*free_ports(4))), "lab")
    config = base.model_copy(
        update={"retry": RETRY, "dns": base.dns.model_copy(update={"timeout": 0.5})},
    )
    made = Story(laboratory, clock, config)
    await made.start()
    yield made
    await made.stop()
