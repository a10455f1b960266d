"""The laboratory as a whole, and the configuration of a relay in it."""

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiosmtplib
import dns.asyncresolver
import pytest
import uvloop

from mta.clock import SystemClock
from mta.config import HostPort, parse
from mta.lab.clock import FakeClock
from mta.lab.laboratory import Laboratory, RelayPorts, lab_config
from mta.lab.mailbox import Mailbox
from mta.lab.mx import MxSettings

PORTS = RelayPorts(relay=2001, submission=2002, submissions=2003, http=2004)
MAIL = b"From: a@b.test\r\nSubject: hi\r\n\r\nhello\r\n"


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Laboratory]:
    lab = Laboratory(tmp_path / "lab", FakeClock())
    await lab.start()
    yield lab
    await lab.close()


async def mail_host(lab: Laboratory, domain: str) -> str:
    """Find the address that takes a domain's mail, as a relay would."""
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers, resolver.port = [lab.dns_address.host], lab.dns_address.port
    exchange = min(await resolver.resolve(domain, "MX"), key=lambda mx: mx.preference).exchange
    return (await resolver.resolve(exchange, "A"))[0].to_text()


async def send(lab: Laboratory, *recipients: str) -> None:
    host = await mail_host(lab, recipients[0].rpartition("@")[2])
    await aiosmtplib.send(
        MAIL,
        sender="a@b.test",
        recipients=list(recipients),
        hostname=host,
        port=lab.mx_port,
        start_tls=True,
        cert_bundle=str(lab.ca_file),
    )


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_mail_goes_the_way_dns_says_and_is_kept(tmp_path: Path, run: Any) -> None:
    async def story() -> None:
        lab = Laboratory(tmp_path, FakeClock())
        await lab.start()
        await send(lab, "c@any.test", "d@any.test")
        (captured,) = await lab.wait_for(1, timeout=5)
        assert captured.content == MAIL
        assert captured.tls.startswith("TLSv1.3")
        kept = Mailbox(tmp_path / "mail")
        assert [kept.read(name) for name in kept.names()] == [captured]
        assert lab.verify(captured) == []
        await lab.close()

    run(story())


async def test_waiting_ends_with_what_was_wanted_or_says_what_there_is(lab: Laboratory) -> None:
    waiting = asyncio.ensure_future(
        lab.wait_for(lambda captured: captured.envelope.recipients[0].address == "second@x.test", timeout=5)
    )
    await send(lab, "first@x.test")
    assert not waiting.done()
    await send(lab, "second@x.test")
    assert [each.envelope.recipients[0].address for each in await waiting] == ["second@x.test"]
    assert len(await lab.wait_for(2, timeout=5)) == 2
    with pytest.raises(TimeoutError, match=r"2 messages .*second@x\.test"):
        await lab.wait_for(3, timeout=0.01)


async def test_one_more_mx_stands_beside_the_first(lab: Laboratory) -> None:
    other = MxSettings(address=HostPort(host="127.0.0.2", port=lab.mx_port), hostname="mx2.lab.test")
    second = await lab.start_mx(other)
    lab.zone.set("two.test", "MX", "5 mx2.lab.test.", "10 mx1.lab.test.")
    await send(lab, "c@two.test")
    await lab.wait_for(1, timeout=5)
    assert (second.connections, lab.mx.connections) == (1, 0)


async def test_a_port_in_use_is_an_error_and_leaves_nothing_running(tmp_path: Path, lab: Laboratory) -> None:
    second = Laboratory(tmp_path / "second", SystemClock(), mx=MxSettings(address=lab.mx.address))
    with pytest.raises(OSError, match="in use"):
        await second.start()
    third = Laboratory(tmp_path / "third", SystemClock(), dns_port=second.dns_address.port)
    await third.start()
    await third.close()


async def test_after_closing_nobody_answers_and_mail_stays(lab: Laboratory) -> None:
    await send(lab, "c@any.test")
    await lab.close()
    with socket.socket() as client:
        assert client.connect_ex(("127.0.0.1", lab.mx_port)) != 0
    assert len(lab.mailbox.names()) == 1
    await lab.close()


async def test_the_configuration_is_valid_and_leads_into_the_laboratory(lab: Laboratory) -> None:
    config = parse(lab_config(lab, PORTS, tenant="acme"), "lab")
    assert config.hostname == "relay.test"
    assert config.state_dir == lab.directory / "state"
    assert [(str(each.address), each.kind, each.tls, each.tenant) for each in config.listeners] == [
        ("127.0.0.1:2001", "relay", "none", "acme"),
        ("127.0.0.1:2002", "submission", "starttls", None),
        ("127.0.0.1:2003", "submission", "implicit", None),
    ]
    assert str(config.http.address) == "127.0.0.1:2004"
    assert config.dns.servers == (lab.dns_address,)
    assert config.delivery.port == lab.mx_port
    assert config.delivery.allow_private_targets
    assert config.delivery.ca_file == lab.ca_file
    assert config.tls.certificate is not None
    assert config.tls.certificate.exists()
    assert max(config.retry.intervals) < 60
