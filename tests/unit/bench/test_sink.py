"""The sink of the benchmark over STARTTLS: it counts the same mail, and knows what did not come over TLS."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiosmtplib
import pytest
import uvloop

from mta.config import HostPort
from mta.lab.ca import PrivateCa
from tests.bench.sink import Sink


def mail(number: int) -> bytes:
    return f"From: a@b.test\r\nSubject: bench.7.{number}\r\n\r\nHello.\r\n".encode()


async def send(address: HostPort, context: ssl.SSLContext | None, *numbers: int) -> None:
    starts = context is not None
    async with aiosmtplib.SMTP(
        hostname=address.host, port=address.port, start_tls=starts, tls_context=context
    ) as client:
        for number in numbers:
            await client.sendmail("a@b.test", ["c@d.test"], mail(number))


def run(talk: Callable[[Sink], Awaitable[None]]) -> None:
    """Talk to a sink, in the benchmark's loop."""

    async def running() -> None:
        sink = Sink()
        await sink.start()
        sink.expect(7)
        try:
            async with asyncio.timeout(10):
                await talk(sink)
        finally:
            await sink.close()

    uvloop.run(running())


@pytest.fixture
def authority(tmp_path: Path) -> PrivateCa:
    return PrivateCa(tmp_path)


def offered(authority: PrivateCa) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("127.0.0.1"))
    return context


def test_mail_over_starttls_is_counted_and_in_the_clear_it_is_told_apart(authority: PrivateCa) -> None:
    trusting = ssl.create_default_context(cafile=authority.ca_file)

    async def talk(sink: Sink) -> None:
        address = await sink.offer_starttls(offered(authority))
        await send(address, trusting, 1, 2)
        assert (sink.count, sink.in_clear) == (2, 0)
        await send(sink.address, None, 2, 3)
        assert (sink.count, sink.in_clear, sink.repeated) == (3, 2, 1)
        assert sink.sample == [mail(1)]

    run(talk)


def test_a_client_that_does_not_shake_hands_is_hung_up_on(authority: PrivateCa) -> None:
    async def talk(sink: Sink) -> None:
        address = await sink.offer_starttls(offered(authority))
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(b"EHLO a.test\r\nSTARTTLS\r\n")
        await reader.readuntil(b"220 2.0.0 go ahead\r\n")
        writer.write(b"no hello\r\n")
        await reader.read()
        assert not sink.transports
        writer.close()

    run(talk)
