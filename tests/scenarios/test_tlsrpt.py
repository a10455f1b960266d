"""A day with three kinds of failure, and its report (RFC 8460): by mail, signed, and by HTTPS."""

import asyncio
import datetime as dt
import email
import email.policy
import gzip
import json
import ssl
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from mta.accounts import dkim_keys, domains, tenants
from mta.control import Question
from mta.events import mover
from mta.lab.ca import ServerCertificate
from mta.lab.clock import FakeClock
from mta.lab.laboratory import Laboratory
from mta.queue.answer import Answer
from mta.spool import tls_results
from mta.spool.records import State, Wish
from tests.rfc8460 import complaints
from tests.scenarios.conftest import DAY, HOUR, REAL_LIMIT, Story

DOMAIN = "rcpt.test"
MX = "mx1.lab.test"
POLICY = f"version: STSv1\nmode: enforce\nmx: {MX}\nmax_age: 604800\n"
TODAY = (dt.datetime.now(dt.UTC) + dt.timedelta(days=1)).date()  # in the midst of the laboratory's certificates


DELIVERED = 5
PAUSE = 31.0  # seconds, in which sites recover and answers of the DNS get old


class Sink:
    """An HTTPS server that takes what is posted to it."""

    def __init__(self, certificate: ServerCertificate) -> None:
        self.taken: list[tuple[bytes, bytes]] = []  # head, body
        self.status = b"201 Created"
        self.came = asyncio.Event()
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(certificate.certificate, certificate.key)
        self._server: asyncio.Server

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        (length,) = [line.split()[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
        self.taken.append((head, await reader.readexactly(int(length))))
        writer.write(b"HTTP/1.1 %b\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % self.status)
        await writer.drain()
        writer.close()
        self.came.set()


@pytest.fixture(autouse=True)
def mover_at_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let hours pass at once: the log is read from the spool."""
    monkeypatch.setattr(mover, "GATHER", DAY)


@pytest.fixture
def clock() -> FakeClock:
    """At noon."""
    return FakeClock(dt.datetime.combine(TODAY, dt.time(12), dt.UTC).timestamp())


@pytest.fixture
async def story(story: Story) -> Story:
    """A relay that reports, as a tenant's own domain with a key; each message has a session of its own."""
    await story.change("tlsrpt", contact="postmaster@relay.test", organization="The relay")
    await story.change("delivery", deliveries_per_connection=1)
    spool, now = story.parts.spool, story.clock.now()
    await tenants.create(spool, "ops", now)
    await domains.add(spool, "relay.test", "ops", now)
    public = dkim_keys.load_public_key(story.config.dkim_public_file)
    record = await dkim_keys.create(spool, "relay.test", "s1", dkim_keys.Algorithm.ED25519, public, now)
    story.lab.zone.set_txt(record.name, record.value)
    return story


@pytest.fixture
async def sink(laboratory: Laboratory) -> AsyncIterator[Sink]:
    made = Sink(laboratory.ca.issue("sink.test"))
    laboratory.zone.set("sink.test", "A", "127.0.0.1")
    port = await made.start()
    rua = f"mailto:tls-reports@{DOMAIN},https://sink.test:{port}/v1/tlsrpt"
    laboratory.zone.set_txt(f"_smtp._tls.{DOMAIN}", f"v=TLSRPTv1; rua={rua}")
    yield made
    await made.close()


async def a_bad_day(story: Story) -> None:
    """Have mail that arrives, and mail that does not for three reasons, under two policies."""
    lab, zone = story.lab, story.lab.zone
    lab.publish_policy(DOMAIN, POLICY)
    for number in range(DELIVERED):
        await story.send(f"ok{number}@{DOMAIN}")
    await story.send("ok@quiet.test")
    await story.count("delivered", DELIVERED + 1)
    story.show("other.test")
    await fails(story, f"certificate of {MX} is for other.test")
    await fails(story, f"certificate of {MX} is for other.test")
    context, lab.mx.tls_context = lab.mx.tls_context, None
    await fails(story, f"{MX} does not offer STARTTLS")
    lab.mx.tls_context = context
    zone.set(DOMAIN, "MX", f"10 {MX}.")
    zone.set(f"_{lab.mx_port}._tcp.{MX}", "TLSA", f"3 1 1 {'ab' * 32}")
    zone.secure(DOMAIN, MX)
    await fails(story, f"certificate of {MX} matches none of its TLSA records")


async def fails(story: Story, why: str) -> None:
    """Have one attempt that fails."""
    before = sum(each.type == "deferred" for each in await story.events())
    message = await story.send(f"ok@{DOMAIN}")
    deferred = await story.last("deferred", before + 1)
    assert why in deferred.reply
    assert await story.wish(message, Wish(end=State.CANCELLED)) is Answer.DONE
    await story.clock.advance(PAUSE)


def summary(report: Any) -> dict[str, tuple[int, int, dict[str, int]]]:
    """Say of a report what it counts, by type of policy."""
    return {
        each["policy"]["policy-type"]: (
            each["summary"]["total-successful-session-count"],
            each["summary"]["total-failure-session-count"],
            {details["result-type"]: details["failed-session-count"] for details in each["failure-details"]},
        )
        for each in report["policies"]
    }


COUNTED = {
    "sts": (DELIVERED, 3, {"certificate-host-mismatch": 2, "starttls-not-supported": 1}),
    "tlsa": (0, 1, {"validation-failure": 1}),
}


async def count(story: Story) -> None:
    """Ask delivery to store what it has counted."""
    asked = story.delivery.commands()["tls_counted"]
    assert not isinstance(asked, Question)
    await asked()


async def morning(story: Story) -> None:
    """Let the day end, and the hours in which reports are sent."""
    for _ in range(21 * 6):
        await story.clock.advance(HOUR / 6)
        await asyncio.sleep(0.002)


async def test_a_report_of_three_failures_arrives_by_both_ways(
    story: Story, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    await a_bad_day(story)
    arrived = story.lab.total
    await count(story)
    results = await tls_results.all_results(story.parts.spool, str(TODAY))  # as `fairlead tls report` shows them
    assert [(each.domain, len(each.policies)) for each in results] == [("quiet.test", 1), (DOMAIN, 2)]
    await morning(story)
    async with asyncio.timeout(REAL_LIMIT):
        await sink.came.wait()
    ((head, body),) = sink.taken
    assert head.startswith(b"POST /v1/tlsrpt HTTP/1.1\r\n")
    assert b"\r\ncontent-type: application/tlsrpt+gzip\r\n" in head.lower()
    posted = json.loads(gzip.decompress(body))
    assert not list(complaints(posted))
    assert summary(posted) == COUNTED
    assert posted["date-range"] == {
        "start-datetime": f"{TODAY}T00:00:00Z",
        "end-datetime": f"{TODAY}T23:59:59Z",
    }
    assert {each["policy"]["policy-domain"] for each in posted["policies"]} == {DOMAIN}

    # whatever is wrong with TLS there
    captured = (await story.arrived(arrived + 1))[-1]
    assert [each.address for each in captured.envelope.recipients] == [f"tls-reports@{DOMAIN}"]
    assert captured.envelope.sender == "tlsrpt@relay.test"
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", story.clock.now)  # by which dkimpy knows signatures of the future
        (signature,) = story.lab.verify(captured)
    assert str(signature) == "dkim=pass (s1 ed25519-sha256)"
    mail = email.message_from_bytes(captured.content, policy=email.policy.default)
    signed = mail["DKIM-Signature"].replace(" ", "").replace("\t", "").lower()
    assert "tls-report-domain:tls-report-submitter" in signed or "tls-report-submitter:tls-report-domain" in signed
    *_, machine = mail.iter_parts()
    assert machine.get_content_type() == "application/tlsrpt+gzip"
    assert json.loads(gzip.decompress(machine.get_content())) == posted
    delivered = await story.last("delivered", arrived + 1)
    assert (delivered.recipient, delivered.tls.rpartition(":")[2]) == (f"tls-reports@{DOMAIN}", "unverified")


async def test_a_restart_and_a_server_that_fails_at_first_cost_no_report(story: Story, sink: Sink) -> None:
    await a_bad_day(story)
    arrived = story.lab.total
    await story.stop()
    await story.start()
    sink.status = b"503 Service Unavailable"
    await morning(story)
    async with asyncio.timeout(REAL_LIMIT):
        await sink.came.wait()
    await story.arrived(arrived + 1)
    await story.stop()
    await story.start()
    sink.status = b"200 OK"
    tried = len(sink.taken)
    async with asyncio.timeout(REAL_LIMIT):
        while len(sink.taken) == tried:
            await story.clock.advance(HOUR)
            await asyncio.sleep(0.1)
    for _ in range(48):
        await story.clock.advance(HOUR)
        await asyncio.sleep(0.002)
    assert len(sink.taken) == tried + 1  # taken once
    assert len({body for _, body in sink.taken}) == 1
    assert summary(json.loads(gzip.decompress(sink.taken[0][1]))) == COUNTED
    assert story.lab.total == arrived + 1


async def test_who_is_not_asked_for_is_not_told(story: Story, sink: Sink) -> None:
    """The other domain of the day has no record: the DNS says so, and nothing is sent."""
    story.lab.zone.set(f"_smtp._tls.{DOMAIN}", "TXT")
    await a_bad_day(story)
    arrived = story.lab.total
    await morning(story)
    await story.clock.advance(DAY)
    assert story.lab.zone.asked("_smtp._tls.quiet.test", "TXT") >= 1
    assert story.lab.zone.asked(f"_smtp._tls.{DOMAIN}", "TXT") >= 1
    assert not sink.taken
    assert story.lab.total == arrived
