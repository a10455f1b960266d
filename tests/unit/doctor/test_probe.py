"""A look at a receiving host, over real sockets: what it shows, and that nothing it does holds us up or harms us."""

import asyncio
import contextlib
import ssl

import pytest
from cryptography import x509

from mta.delivery.route import Target
from mta.doctor import probe
from mta.doctor.probe import Seen, look
from mta.lab.ca import PrivateCa
from tests.unit.delivery.peers import HOST, ScriptedServer

GREETED = "S: 220 mx.test ESMTP\nC: EHLO relay.test\n"
PLAIN = GREETED + "S: 250-mx.test\nS: 250 PIPELINING\nC: QUIT\nS: 221 bye\n"
OFFER = GREETED + "S: 250-mx.test\nS: 250 STARTTLS\nC: STARTTLS\n"
INSIDE = "S: 220 go\nX: starttls\nC: EHLO relay.test\nS: 250-mx.test\nS: 250 REQUIRETLS\nC: QUIT\nS: 221 bye\n"


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    files = PrivateCa(tmp_path_factory.mktemp("ca")).issue("mx.test")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files.certificate, files.key)
    return context


async def seen_at(script: str, tls=None, *, implicit: bool = False, source: str = "", sni: str = "mx.test") -> Seen:
    server = await ScriptedServer(script, tls=tls).start(tls=tls if implicit else None)
    async with server:
        target = Target("mx.test", HOST, server.port)
        found = await asyncio.wait_for(look(target, "relay.test", sni=sni, source=source, implicit=implicit), 10)
    assert server.problems == []
    return found


async def test_a_host_without_tls_shows_its_greeting():
    assert await seen_at(PLAIN) == Seen(greeting="220 mx.test ESMTP")


async def test_a_host_with_tls_shows_its_certificate_and_what_it_offers_inside(context):
    names = []
    context.sni_callback = lambda _, name, __: names.append(name)
    found = await seen_at(OFFER + INSIDE, context, sni="base.test", source="127.0.0.1")
    assert (found.tls, found.requiretls, found.trouble) == ("TLSv1.3", True, "")
    leaf = x509.load_der_x509_certificate(found.chain[0])
    assert leaf.subject.rfc4514_string() == "CN=mx.test"
    assert names == ["base.test"]
    context.sni_callback = None


async def test_tls_can_come_first_of_all(context):
    script = GREETED + "S: 250-mx.test\nS: 250 STARTTLS\nC: QUIT\nS: 221 bye\n"
    found = await seen_at(script, context, implicit=True)
    assert (found.tls, found.trouble, len(found.chain)) == ("TLSv1.3", "", 1)


@pytest.mark.parametrize(
    ("script", "trouble"),
    [
        ("S: 554 go away\nX: hang", "refuses us: 554 go away"),
        ("X: close", "no greeting: connection lost"),
        ("S: hello\nX: hang", "no greeting: not a reply: b'hello\\r'"),
        ("R: " + "220-x\\r\\n" * 2000 + "\nX: hang", "no greeting: reply is too long"),
        (GREETED + "S: 502 no\nX: hang", "refuses EHLO: 502 no"),
        (GREETED + "X: close", "no reply to EHLO: connection lost"),
        (OFFER + "S: 454 not now\nX: hang", "offers STARTTLS and refuses it: 454 not now"),
        (OFFER + "S: 220 go\nR: nonsense, which is no handshake at all\\r\\n\nX: close", "its handshake fails"),
        (OFFER + "R: 220 go\\r\\n250 injected\\r\\n\nX: hang", "peer spoke out of turn"),
    ],
)
async def test_what_goes_wrong_is_said_as_far_as_the_look_came(script: str, trouble: str):
    found = await seen_at(script)
    assert trouble in found.trouble
    assert found.tls == ""


async def test_nobody_there_and_a_name_that_tls_cannot_have(unused_tcp_port, context):
    found = await look(Target("mx.test", HOST, unused_tcp_port), "relay.test", sni="mx.test")
    assert found.trouble.startswith("no connection: ")
    assert "its handshake fails" in (await seen_at(OFFER + "S: 220 go\nX: hear\nX: close", sni=".")).trouble


@pytest.mark.parametrize("script", ["X: hang", GREETED + "X: hang", OFFER + "S: 220 go\nX: hang"])
async def test_a_host_that_falls_silent_costs_no_more_than_the_time_of_a_look(monkeypatch, script: str):
    monkeypatch.setattr(probe, "SECONDS", 0.3)
    found = await seen_at(script)
    assert found.trouble


async def test_one_that_speaks_without_end_costs_no_more_either(monkeypatch):
    """Red when only each reply has a time: one octet a moment would keep us for ever."""
    monkeypatch.setattr(probe, "SECONDS", 0.3)

    hung_up = asyncio.Event()

    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b"220-x\r\n")
                await writer.drain()
                await asyncio.sleep(0.01)
        writer.close()
        hung_up.set()

    server = await asyncio.start_server(drip, HOST, 0)
    port = server.sockets[0].getsockname()[1]
    found = await asyncio.wait_for(look(Target("mx.test", HOST, port), "relay.test", sni="mx.test"), 5)
    assert found.trouble
    await asyncio.wait_for(hung_up.wait(), 5)
    server.close()
    await server.wait_closed()
