"""tls report: a day's sessions, today's and others', in words and as JSON, with delivery down and up."""

import asyncio
import threading

from mta.clock import SystemClock
from mta.control import ControlServer, socket_path
from mta.mail.tls_report import FailureDetails, Policy, PolicyResults, day_of
from mta.spool import tls_results
from mta.spool.lmdb.spool import LmdbSpool
from mta.spool.tls_results import Progress, Results
from tests.unit.cli.conftest import Relay

STS = Policy("sts", "rcpt.test", ("version: STSv1", "mode: testing", "mx: *.rcpt.test"), ("*.rcpt.test",))
WAY = FailureDetails("certificate-expired", "192.0.2.1", "mx1.rcpt.test", "192.0.2.25", "on \x1b[2J Monday")
DAY = "2027-01-14"


def store(relay: Relay, *kept: Results | Progress) -> None:
    async def keep(spool: LmdbSpool) -> None:
        for each in kept:
            if isinstance(each, Results):
                await tls_results.keep_results(spool, each)
            else:
                await tls_results.keep_progress(spool, each)

    relay.with_spool(keep)


def results(domain: str = "rcpt.test", day: str = DAY) -> Results:
    none = PolicyResults(Policy("no-policy-found", domain), 7)
    return Results(day=day, domain=domain, policies=(PolicyResults(STS, 5, 3, ((WAY, 3),)), none))


def test_a_day_is_shown_by_policy_and_failure(relay: Relay) -> None:
    sent = {"sent": ("mailto:tls@rcpt.test",), "left": ("https://sink.test/",), "trouble": "the server answered 503"}
    progress = Progress(day=DAY, domain="rcpt.test", id="x", begun_at=1.0, tries=2, next_at=1_800_000_000.0, **sent)  # type: ignore[arg-type]
    store(relay, results(), results("other.test"), progress)
    done = relay.run("tls", "report", "--day", DAY)
    assert done.code == 0
    titles, *lines = done.out.splitlines()
    assert titles.split() == ["DOMAIN", "POLICY", "WELL", "FAILED", "RESULT", "HOST", "REASON"]
    assert [line.split()[:2] for line in lines] == [
        [domain, policy] for domain in ("other.test", "rcpt.test") for policy in ("sts", "sts", "no-policy-found")
    ]
    assert lines[3].split() == ["rcpt.test", "sts", "testing", "5", "3", "-", "-", "-"]
    assert lines[4].split()[:6] == ["rcpt.test", "sts", "testing", "-", "3", "certificate-expired"]
    assert "mx1.rcpt.test[192.0.2.25]  on \\x1b[2J Monday" in lines[4]
    again = "tried again at 2027-01-15T08:00:00Z: the server answered 503"
    assert f"rcpt.test: report sent to mailto:tls@rcpt.test; {again}" in done.err
    assert "delivery is not running: this is what it has left" in done.err


def test_json_is_what_stands_in_the_report(relay: Relay) -> None:
    over = Progress(day=DAY, domain="rcpt.test", id="x", begun_at=1.0, left=(), sent=("mailto:a@b.test",), over=True)
    store(relay, results(), results("other.test"), over)
    record = relay.run("tls", "report", "RCPT.test.", "--day", DAY, "--json").record
    assert (record["day"], record["domain"]) == (DAY, "rcpt.test")
    assert record["policies"][0]["policy"]["policy-string"] == list(STS.strings)
    assert record["policies"][0]["failure-details"][0]["failed-session-count"] == 3
    assert record["policies"][1]["summary"]["total-successful-session-count"] == 7
    assert record["report"] == {
        "id": "x", "sent": ["mailto:a@b.test"], "left": [], "tries": 0, "next_at": None, "trouble": "",
    }  # fmt: skip
    assert len(relay.run("tls", "report", "--day", DAY, "--json").records) == 2


def test_todays_is_shown_without_a_day(relay: Relay) -> None:
    store(relay, results(day=day_of(SystemClock().now())))
    assert relay.run("tls", "report", "--json").record["domain"] == "rcpt.test"


def test_delivery_is_asked_to_store_what_it_has_counted(relay: Relay) -> None:
    store(relay, results())
    asked: list[str] = []
    ready, end = threading.Event(), threading.Event()

    async def count() -> None:
        asked.append("tls_counted")

    async def serve() -> None:
        server = ControlServer(socket_path(relay.config.run_dir, "delivery"), {"tls_counted": count})
        await server.start()
        ready.set()
        await asyncio.to_thread(end.wait)
        await server.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(5)
    try:
        done = relay.run("tls", "report", "--day", DAY)
    finally:
        end.set()
        thread.join()
    assert (done.code, done.err, asked) == (0, "", ["tls_counted"])


def test_nothing_is_said_to_be_nothing(relay: Relay) -> None:
    store(relay, results())
    for arguments, why in (
        (("--day", "2027-01-13"), "there were no sessions on 2027-01-13"),
        (("--day", DAY, "none.test"), f"there were no sessions with none.test on {DAY}"),
    ):
        done = relay.run("tls", "report", *arguments)
        assert (done.code, why in done.err) == (1, True)


def test_progress_that_cannot_be_read_is_said(relay: Relay) -> None:
    store(relay, results())

    async def spoil(spool: LmdbSpool) -> None:
        await spool.put_record(f"tlsrpt progress {DAY}", "rcpt.test", b"garbage", replace=True)

    relay.with_spool(spoil)
    done = relay.run("tls", "report", "--day", DAY)
    assert (done.code, "what was reported of 2027-01-14 cannot be read" in done.err) == (0, True)
    assert "certificate-expired" in done.out


def test_what_is_no_day_or_domain_is_refused(relay: Relay) -> None:
    assert "must be a date such as 2027-01-15" in relay.run("tls", "report", "--day", "monday").err
    done = relay.run("tls", "report", "a b.test")
    assert (done.code, "'a b.test' is not a domain name" in done.err) == (1, True)
