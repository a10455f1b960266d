"""Reports of a day: when they are sent, to whom, by which way, once, and until when they are tried."""

import asyncio
import email
import email.policy
import gzip
import json
import logging
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from mta.accounts import domains, tenants
from mta.config import Config, Retry
from mta.events import tls_reports
from mta.events.tls_reports import LIFETIME, SETTLED, SPREAD, NotNow, TlsReports, World
from mta.lab.clock import FakeClock
from mta.mail.envelope import Notify
from mta.mail.tls_report import DAY, FailureDetails, Policy, PolicyResults
from mta.mail.tls_report_record import Endpoint
from mta.queue.queue import Queue
from mta.spool import tls_results
from mta.spool.interface import Unavailable, Uncertain
from mta.spool.lmdb.spool import LmdbSpool
from mta.spool.records import Message, Origin
from mta.spool.sealing import Keyring
from mta.spool.tls_results import Progress, Results
from tests.rfc8460 import complaints

TODAY = "2027-01-15"  # of FakeClock, 08:00
MIDNIGHT = 16 * 3600.0  # seconds from there
MAIL = b"v=TLSRPTv1; rua=mailto:tls@rcpt.test"
WEB = b"v=TLSRPTv1; rua=https://sink.rcpt.test/v1"
BOTH = MAIL + b",https://sink.rcpt.test/v1"


class Bench:
    """The reports of a relay, in a world of names and servers in memory."""

    def __init__(self, spool: LmdbSpool, clock: FakeClock, **settings: str) -> None:
        self.spool = spool
        self.clock = clock
        self.records: dict[str, Sequence[bytes]] = {}
        self.asked: list[str] = []
        self.dns_fails = False
        self.status: int | Exception = 200
        self.posted: list[tuple[Endpoint, bytes]] = []
        self.config = Config.model_validate(
            {"hostname": "relay.test", "tlsrpt": {"contact": "postmaster@relay.test"} | settings}
        )
        self.queue = Queue(spool, clock, "relay.test", Retry(), lambda: None)
        self.stop = asyncio.Event()
        self.running: asyncio.Task[None] | None = None

    async def texts(self, name: str) -> Sequence[bytes]:
        self.asked.append(name)
        if self.dns_fails:
            raise NotNow("SERVFAIL")
        return self.records.get(name, ())

    async def post(self, endpoint: Endpoint, body: bytes) -> int:
        self.posted.append((endpoint, body))
        if isinstance(self.status, Exception):
            raise self.status
        return self.status

    async def start(self) -> None:
        self.stop.clear()
        reports = TlsReports(self.config, self.spool, self.queue, self.clock, World(self.texts, self.post))
        self.running = asyncio.create_task(reports.run(self.stop))

    async def end(self) -> None:
        self.stop.set()
        if self.running is not None:
            await self.running

    async def counted(self, domain: str = "rcpt.test", *, record: bytes = b"", day: str = TODAY) -> None:
        """Have sessions of today on record, and a TLSRPT record in the DNS."""
        details = ((FailureDetails("certificate-expired", mx_hostname=f"mx.{domain}"), 2),)
        policies = (PolicyResults(Policy("sts", domain, ("version: STSv1",), (f"mx.{domain}",)), 3, 2, details),)
        await tls_results.keep_results(self.spool, Results(day=day, domain=domain, policies=policies))
        if record:
            self.records[f"_smtp._tls.{domain}"] = (record,)

    async def advance(self, seconds: float) -> None:
        """Let time pass, in steps in which the spool's process has its turn."""
        end = self.clock.now() + seconds
        while (left := end - self.clock.now()) > 0:
            await self.clock.advance(min(left, 600.0))
            await asyncio.sleep(0.004)
        await asyncio.sleep(0.06)

    async def mails(self) -> list[Message]:
        found = [await self.spool.message(entry.message) async for entry, _ in self.spool.walk_entries()]
        return [each for each in found if each is not None]

    async def progress(self, domain: str = "rcpt.test") -> Progress | None:
        return (await tls_results.all_progress(self.spool, TODAY)).get(domain)


@pytest.fixture
async def spool(tmp_path: Path) -> AsyncIterator[LmdbSpool]:
    made = LmdbSpool(tmp_path / "spool", Keyring([os.urandom(32)]), FakeClock(), map_size=1 << 30, reserve=0)
    yield made
    await made.close()


@pytest.fixture
async def bench(spool: LmdbSpool) -> AsyncIterator[Bench]:
    made = Bench(spool, FakeClock())
    yield made
    await made.end()


async def test_a_report_goes_out_by_mail_and_https_when_its_day_is_over(bench: Bench) -> None:
    await bench.counted(record=BOTH)
    await bench.start()
    await bench.advance(MIDNIGHT + SETTLED - 1)
    assert not bench.asked
    await bench.advance(SPREAD - SETTLED + 601)
    assert bench.asked == ["_smtp._tls.rcpt.test"]
    ((endpoint, body),) = bench.posted
    assert (endpoint.host, endpoint.port, endpoint.path) == ("sink.rcpt.test", 443, "/v1")
    posted = json.loads(gzip.decompress(body))
    assert not list(complaints(posted))
    assert (posted["organization-name"], posted["contact-info"]) == ("relay.test", "postmaster@relay.test")
    assert posted["date-range"]["start-datetime"] == "2027-01-15T00:00:00Z"
    assert posted["policies"][0]["summary"]["total-failure-session-count"] == 2
    (mail,) = await bench.mails()
    (entry, _) = (await bench.spool.entries(mail.id))[0]
    recipient = entry.recipients[0].recipient
    assert (recipient.address, recipient.notify) == ("tls@rcpt.test", Notify.NEVER)
    assert (mail.sender, mail.tenant, mail.origin) == ("tlsrpt@relay.test", "default", Origin.TLS_REPORT)
    assert mail.tls_required == "no"
    assert mail.expires_at == mail.accepted_at + LIFETIME
    content = email.message_from_bytes(await bench.spool.content(mail), policy=email.policy.default)
    assert content["TLS-Report-Domain"] == "rcpt.test"
    *_, machine = content.iter_parts()
    assert gzip.decompress(machine.get_content()) == gzip.decompress(body)
    progress = await bench.progress()
    assert progress is not None
    assert (progress.over, progress.left, progress.trouble) == (True, (), "")
    assert progress.sent == ("mailto:tls@rcpt.test", "https://sink.rcpt.test/v1")


async def test_reports_are_spread_over_four_hours(bench: Bench) -> None:
    for number in range(60):
        await bench.counted(f"d{number}.test", record=WEB)
    await bench.start()
    await bench.advance(MIDNIGHT + SETTLED)
    sent = []
    for _ in range(4):
        await bench.advance(SPREAD / 4)
        sent.append(len(bench.posted))
    assert sent[-1] == 60
    assert all(later - earlier > 5 for earlier, later in zip([0, *sent], sent, strict=False))


async def test_who_wants_no_report_gets_none_and_is_asked_once(bench: Bench) -> None:
    await bench.counted()
    await bench.counted("two.test")
    bench.records["_smtp._tls.two.test"] = (MAIL, MAIL)
    await bench.counted("*", record=MAIL)
    await bench.counted("[192.0.2.1]", record=MAIL)
    await bench.start()
    await bench.advance(MIDNIGHT + 2 * DAY)
    assert sorted(bench.asked) == ["_smtp._tls.rcpt.test", "_smtp._tls.two.test"]
    assert not bench.posted
    assert not await bench.mails()
    assert await bench.progress() is None


async def test_a_restart_sends_nothing_twice(bench: Bench) -> None:
    await bench.counted(record=BOTH)
    await bench.counted("none.test")
    for _ in range(4):
        await bench.start()
        await bench.advance(MIDNIGHT / 2 + SPREAD / 2)
        await bench.end()
    assert len(bench.posted) == 1
    assert len(await bench.mails()) == 1


@pytest.mark.tampers
async def test_a_mail_is_on_record_before_it_is_handed_over(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Red when it is the other way round: killed between the two, the domain would get another."""
    await bench.counted(record=MAIL)
    seen: list[Progress | None] = []
    accept = bench.queue.accept

    async def watched(*submissions: object) -> object:
        seen.append(await bench.progress())
        return await accept(*submissions)  # type: ignore[arg-type]

    monkeypatch.setattr(bench.queue, "accept", watched)
    await bench.start()
    await bench.advance(MIDNIGHT + SPREAD + 600)
    (progress,) = seen
    assert progress is not None
    assert (progress.left, progress.sent) == ((), ("mailto:tls@rcpt.test",))


@pytest.mark.tampers
async def test_a_mail_that_is_not_accepted_is_tried_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    await bench.counted(record=MAIL)

    async def fail(*_: object) -> object:
        raise Unavailable("no room")

    with monkeypatch.context() as patch:
        patch.setattr(bench.queue, "accept", fail)
        await bench.start()
        await bench.advance(MIDNIGHT + SPREAD + 600)
        progress = await bench.progress()
    assert progress is not None
    assert progress.left == ("mailto:tls@rcpt.test",)
    assert not progress.sent
    assert "no room" in progress.trouble
    await bench.advance(3600 * 4)
    assert len(await bench.mails()) == 1


@pytest.mark.tampers
async def test_a_mail_that_may_be_on_its_way_is_not_sent_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    await bench.counted(record=MAIL)
    accept = bench.queue.accept

    async def unsure(*submissions: object) -> object:
        await accept(*submissions)  # type: ignore[arg-type]
        raise Uncertain("the disk did not say")

    monkeypatch.setattr(bench.queue, "accept", unsure)
    await bench.start()
    await bench.advance(MIDNIGHT + SPREAD + LIFETIME)
    assert len(await bench.mails()) == 1


async def test_a_mail_is_not_handed_over_before_it_is_surely_on_record(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Red when what may not be on record counts as sent: the domain would get no report at all."""
    await bench.counted(record=MAIL)

    async def unsure(*_: object) -> None:
        raise Uncertain("the disk did not say")

    with monkeypatch.context() as patch:
        patch.setattr(tls_results, "keep_progress", unsure)
        await bench.start()
        await bench.advance(MIDNIGHT + SPREAD + 600)
        assert not await bench.mails()
    await bench.advance(4 * 3600)
    assert len(await bench.mails()) == 1


async def test_a_server_that_fails_is_tried_for_a_day_less_and_less_often(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    await bench.counted(record=BOTH)
    bench.status = 503
    await bench.start()
    await bench.advance(MIDNIGHT + SPREAD)
    while not bench.posted:
        await bench.advance(600)
    first = len(bench.posted)
    await bench.advance(LIFETIME / 2)
    half = len(bench.posted)
    await bench.end()
    await bench.start()  # and a restart does not begin anew
    with caplog.at_level(logging.WARNING):
        await bench.advance(LIFETIME)
    assert first <= half <= 9
    assert half < len(bench.posted) <= 14
    assert len({body for _, body in bench.posted}) == 1  # the same report, by the same id
    assert len(await bench.mails()) == 1  # the other way is not tried again
    progress = await bench.progress()
    assert progress is not None
    assert progress.over
    assert progress.left == ("https://sink.rcpt.test/v1",)
    assert progress.trouble == "https://sink.rcpt.test/v1: the server answered 503"
    assert "tlsrpt=given-up domain=rcpt.test" in caplog.text
    posted = len(bench.posted)
    await bench.advance(DAY)
    assert len(bench.posted) == posted


@pytest.mark.parametrize("status", [301, 404, 500, NotNow("sink.rcpt.test did not answer within 60 s")])
async def test_what_is_no_success_is_tried_again(bench: Bench, status: int | Exception) -> None:
    await bench.counted(record=WEB)
    bench.status = status
    await bench.start()
    await bench.advance(MIDNIGHT + SPREAD + 600)
    bench.status = 201
    await bench.advance(4 * 3600)
    progress = await bench.progress()
    assert progress is not None
    assert progress.sent == ("https://sink.rcpt.test/v1",)
    assert 2 <= len(bench.posted) == progress.tries


async def test_a_dns_that_does_not_answer_is_asked_again(bench: Bench) -> None:
    await bench.counted(record=WEB)
    bench.dns_fails = True
    await bench.start()
    await bench.advance(MIDNIGHT + SPREAD + 600)
    progress = await bench.progress()
    assert progress is not None
    assert (progress.left, progress.trouble) == (None, "SERVFAIL")
    bench.dns_fails = False
    await bench.advance(4 * 3600)
    assert len(bench.posted) == 1


async def test_a_relay_that_was_down_sends_what_is_still_due(bench: Bench) -> None:
    await bench.counted(record=WEB)
    await bench.counted(record=WEB, day="2027-01-14")
    await bench.counted(record=WEB, day="2027-01-13")
    await bench.start()
    await bench.advance(60)
    days = [json.loads(gzip.decompress(body))["date-range"]["start-datetime"][:10] for _, body in bench.posted]
    assert sorted(days) == ["2027-01-13", "2027-01-14"]
    bench.posted.clear()
    await bench.end()
    bench.clock.jump(10 * DAY)
    await bench.start()
    await bench.advance(DAY)
    assert not bench.posted


async def test_they_are_signed_for_the_senders_domain(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    await tenants.create(bench.spool, "ops", 1.0)
    await domains.add(bench.spool, "relay.test", "ops", 1.0)
    await bench.counted(record=MAIL)
    await bench.start()
    await bench.advance(MIDNIGHT + SPREAD + 600)
    (mail,) = await bench.mails()
    assert (mail.tenant, mail.sign_domain) == ("ops", "relay.test")
    assert "unsigned" not in caplog.text


async def test_one_that_cannot_be_signed_says_so(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    await bench.counted(record=MAIL)
    await bench.start()
    await bench.advance(MIDNIGHT + SPREAD + 600)
    assert [each.sign_domain for each in await bench.mails()] == [""]
    assert "tlsrpt=unsigned domain=rcpt.test sender=tlsrpt@relay.test" in caplog.text


async def test_nobody_sends_as_another_tenant(spool: LmdbSpool) -> None:
    await tenants.create(spool, "acme", 1.0)
    await domains.add(spool, "relay.test", "acme", 1.0)
    bench = Bench(spool, FakeClock(), tenant="ops")
    await bench.counted(record=MAIL)
    await bench.start()
    await bench.advance(MIDNIGHT + SPREAD + 600)
    assert not await bench.mails()
    progress = await bench.progress()
    assert progress is not None
    assert "relay.test belongs to another tenant" in progress.trouble
    await bench.end()


async def test_settings_name_who_reports(spool: LmdbSpool) -> None:
    bench = Bench(spool, FakeClock(), organization="Example Ltd", sender="reports@mail.test", tenant="ops")
    await bench.counted(record=BOTH)
    await bench.start()
    await bench.advance(MIDNIGHT + SPREAD + 600)
    ((_, body),) = bench.posted
    assert json.loads(gzip.decompress(body))["organization-name"] == "Example Ltd"
    (mail,) = await bench.mails()
    assert (mail.tenant, mail.sender) == ("ops", "reports@mail.test")
    await bench.end()


async def test_a_defect_at_one_endpoint_sends_nothing_twice_to_another(bench: Bench) -> None:
    """Red when what was done is forgotten with the error: a mail at each try."""
    await bench.counted(record=BOTH)
    bench.status = RuntimeError("a defect")
    await bench.start()
    await bench.advance(MIDNIGHT + SPREAD + LIFETIME / 2)
    assert len(bench.posted) > 2
    assert len(await bench.mails()) == 1
    progress = await bench.progress()
    assert progress is not None
    assert progress.trouble == "https://sink.rcpt.test/v1: RuntimeError: a defect"


async def test_one_that_fails_by_a_defect_holds_up_no_other(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    await bench.counted(record=WEB)
    await bench.counted("broken.test", record=WEB)
    report_of = tls_reports.report_of

    def broken(day: str, policies: tuple[PolicyResults, ...], **named: str) -> object:
        if policies[0].policy.domain == "broken.test":
            raise RuntimeError("a defect")
        return report_of(day, policies, **named)

    monkeypatch.setattr(tls_reports, "report_of", broken)
    await bench.start()
    await bench.advance(MIDNIGHT + SPREAD + 600)
    assert len(bench.posted) == 1
    progress = await bench.progress("broken.test")
    assert progress is not None
    assert progress.trouble == "RuntimeError: a defect"


async def test_a_server_that_does_not_answer_holds_up_nobody(bench: Bench) -> None:
    """Red when those that are due are tried in groups: each group takes as long as the slowest of its servers."""
    names = [f"slow{number}.test" for number in range(100)]
    first = min(names, key=lambda each: tls_reports._not_begun(TODAY, each).next_at)
    await bench.counted(first, record=WEB)
    for number in range(30):
        await bench.counted(f"d{number}.test", record=b"v=TLSRPTv1; rua=mailto:tls@d%d.test" % number)
    answered, post = asyncio.Event(), bench.post

    async def slow(endpoint: Endpoint, body: bytes) -> int:
        await answered.wait()
        return await post(endpoint, body)

    bench.post = slow  # type: ignore[method-assign]
    await bench.advance(MIDNIGHT + SPREAD)
    await bench.start()
    for _ in range(100):
        await bench.advance(1)
        mails, posted = len(await bench.mails()), len(bench.posted)
        if mails == 30:
            break
    answered.set()
    assert (mails, posted) == (30, 0)
    await bench.advance(60)
    assert len(bench.posted) == 1
