"""Sessions are counted by day, domain and policy, kept over restarts, and bounded whatever strangers do."""

import asyncio
import json
from collections.abc import Mapping

import msgspec
import pytest

from mta.delivery import tlsrpt
from mta.delivery.policy import Failure, StsPolicy, Tlsa
from mta.delivery.tlsrpt import KEEP_EVERY, KEPT_DAYS, REASON_LIMIT, Session, TlsResults
from mta.lab.clock import FakeClock
from mta.mail.tls_report import DAY, FailureDetails, Policy, PolicyResults, report_json, report_of
from mta.spool import tls_results
from mta.spool.interface import Unavailable
from mta.spool.tls_results import OTHERS, Results
from tests.rfc8460 import complaints
from tests.unit.delivery.peers import Records

TODAY = "2027-01-15"  # of FakeClock, 08:00
LINES = ("version: STSv1", "mode: enforce", "mx: *.rcpt.test", "max_age: 86400")
STS = StsPolicy(
    domain="rcpt.test", id="1", mode="enforce", mx=("*.rcpt.test",), max_age=86400, fetched_at=1.0, text=LINES
)
UNDER_STS = Policy("sts", "rcpt.test", LINES, ("*.rcpt.test",))
WITHOUT = Policy("no-policy-found", "rcpt.test")


class Bench:
    """Results on a spool that outlives them."""

    def __init__(self) -> None:
        self.spool = Records()
        self.clock = FakeClock()
        self.results = self.another()

    def another(self) -> TlsResults:
        return TlsResults(self.spool, self.clock)  # type: ignore[arg-type]

    def note(self, domain: str = "rcpt.test", **session: object) -> None:
        at = session.pop("at", self.clock.now())
        self.results.note(msgspec.convert({"at": at, "domain": domain} | session, Session))

    async def counted(self, domain: str = "rcpt.test", day: str = TODAY) -> Mapping[Policy, PolicyResults]:
        await self.results.keep()
        found = await tls_results.results_of(self.spool, day, domain)  # type: ignore[arg-type]
        return {each.policy: each for each in found.policies} if found is not None else {}


@pytest.fixture
def bench() -> Bench:
    return Bench()


def failed(failure: Failure, **session: object) -> dict[str, object]:
    return {"failure": failure, "host": "mx1.rcpt.test", "source": "192.0.2.1", "address": "192.0.2.25"} | session


async def test_sessions_are_counted_by_policy_and_failure(bench: Bench) -> None:
    for _ in range(3):
        bench.note(sts=STS, host="mx1.rcpt.test")
    for number in range(5):
        text = "expired on 2027-01-01" if number < 3 else "expired on 2026-01-01"
        bench.note(sts=STS, **failed(Failure.CERTIFICATE_EXPIRED, text=text))
    bench.note()
    bench.note("other.test", **failed(Failure.STARTTLS_NOT_SUPPORTED))
    counted = await bench.counted()
    assert list(counted) == [UNDER_STS, WITHOUT]
    assert (counted[UNDER_STS].successful, counted[UNDER_STS].failed) == (3, 5)
    way = FailureDetails("certificate-expired", "192.0.2.1", "mx1.rcpt.test", "192.0.2.25", "expired on 2027-01-01")
    assert counted[UNDER_STS].details == ((way, 3), (msgspec.structs.replace(way, reason="expired on 2026-01-01"), 2))
    assert counted[WITHOUT] == PolicyResults(WITHOUT, 1)
    (other,) = (await bench.counted("other.test")).values()
    assert (other.policy.type, other.successful, other.failed) == ("no-policy-found", 0, 1)


async def test_tlsa_records_are_a_policy_of_their_host_and_win(bench: Bench) -> None:
    records = (Tlsa(3, 1, 1, b"\xab\xcd"), Tlsa(2, 0, 1, b"\x01"))
    bench.note(sts=STS, dane=records, host="mx1.rcpt.test")
    bench.note(sts=STS, dane=records[::-1], host="mx1.rcpt.test")  # the DNS has no order
    bench.note(dane=records, host="mx2.rcpt.test")
    counted = await bench.counted()
    assert [(each.strings, each.mx_hosts) for each in counted] == [
        (("2 0 1 01", "3 1 1 ABCD"), ("mx1.rcpt.test",)),
        (("2 0 1 01", "3 1 1 ABCD"), ("mx2.rcpt.test",)),
    ]
    assert [each.successful for each in counted.values()] == [2, 1]


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (Failure.DNSSEC_INVALID, "tlsa"), (Failure.TLSA_INVALID, "tlsa"), (Failure.DANE_REQUIRED, "tlsa"),
        (Failure.STS_POLICY_FETCH_ERROR, "sts"), (Failure.STS_POLICY_INVALID, "sts"),
        (Failure.STS_WEBPKI_INVALID, "sts"),
        (Failure.VALIDATION_FAILURE, "no-policy-found"), (Failure.STARTTLS_NOT_SUPPORTED, "no-policy-found"),
    ],
)  # fmt: skip
async def test_a_policy_that_could_not_be_had_is_named_by_its_type(bench: Bench, failure: Failure, kind: str) -> None:
    bench.note(failure=failure)
    (policy,) = await bench.counted()
    assert (policy.type, policy.strings) == (kind, ())


async def test_a_day_ends_at_midnight_of_utc(bench: Bench) -> None:
    midnight = bench.clock.now() + 16 * 3600
    bench.note(at=midnight - 0.1)
    bench.note(at=midnight)
    bench.note(at=midnight)
    assert (await bench.counted())[WITHOUT].successful == 1
    assert (await bench.counted(day="2027-01-16"))[WITHOUT].successful == 2


async def test_counts_survive_a_restart_and_are_added_to(bench: Bench) -> None:
    bench.note(sts=STS)
    bench.note(sts=STS, **failed(Failure.CERTIFICATE_EXPIRED))
    await bench.results.drain()
    bench.results = bench.another()
    bench.note(sts=STS)
    bench.note(sts=STS, **failed(Failure.CERTIFICATE_EXPIRED))
    bench.note(**failed(Failure.STARTTLS_NOT_SUPPORTED))
    counted = await bench.counted()
    assert (counted[UNDER_STS].successful, counted[UNDER_STS].failed) == (2, 2)
    assert [count for _, count in counted[UNDER_STS].details] == [2]
    bench.note(sts=STS)
    assert (await bench.counted())[UNDER_STS].successful == 3  # what is stored is not added twice


async def test_a_record_that_cannot_be_read_is_counted_anew(bench: Bench) -> None:
    bench.spool.held[f"tlsrpt {TODAY}", "rcpt.test"] = b"garbage"
    bench.note()
    assert (await bench.counted())[WITHOUT].successful == 1


async def test_it_is_stored_every_half_minute_if_there_is_anything_new(bench: Bench) -> None:
    running = asyncio.create_task(bench.results.run())
    await bench.clock.advance(10 * KEEP_EVERY)
    assert bench.spool.writes == 0
    bench.note()
    bench.note()
    await bench.clock.advance(KEEP_EVERY - 1)
    assert bench.spool.writes == 0
    await bench.clock.advance(1)
    stored = bench.spool.writes
    assert await tls_results.results_of(bench.spool, TODAY, "rcpt.test")  # type: ignore[arg-type]
    await bench.clock.advance(10 * KEEP_EVERY)
    assert bench.spool.writes == stored
    bench.note()
    await bench.results.drain()
    await running
    assert (await bench.counted())[WITHOUT].successful == 3


async def test_a_spool_that_fails_costs_no_counts(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    running = asyncio.create_task(bench.results.run())

    async def fail(*_: object, **__: object) -> bool:
        raise Unavailable("no room")

    with monkeypatch.context() as patch:
        patch.setattr(bench.spool, "put_record", fail)
        bench.note()
        await bench.clock.advance(5 * KEEP_EVERY)
        bench.note()
    await bench.clock.advance(2 * KEEP_EVERY)
    found = await tls_results.results_of(bench.spool, TODAY, "rcpt.test")  # type: ignore[arg-type]
    assert found is not None
    assert found.policies[0].successful == 2
    await bench.results.drain()
    await running


async def test_days_that_are_long_over_are_forgotten(bench: Bench) -> None:
    spool = bench.spool
    for _ in range(KEPT_DAYS + 3):
        bench.note()
        bench.note("other.test")
        await bench.results.keep()
        await bench.clock.advance(DAY)
    bench.note()
    await bench.results.keep()
    days = await tls_results.days(spool)  # type: ignore[arg-type]
    assert len(days) == KEPT_DAYS + 1
    assert not await tls_results.all_results(spool, TODAY)  # type: ignore[arg-type]
    assert len(spool.held) == len(days) + 2 * (len(days) - 1) + 1


async def test_what_a_stranger_names_is_bounded(bench: Bench) -> None:
    """Texts, hosts and policies that are another one each time, and as long as they can be."""
    for number in range(1000):
        lines = (f"mx: {number}.rcpt.test", *[f"x: {'y' * 1000}"] * 60)
        policy = msgspec.structs.replace(STS, text=lines, mx=tuple(f"m{host}.rcpt.test" for host in range(4000)))
        text = f"{number} \x1b[2J \ud800 {'z' * 5000}"
        bench.note(sts=policy, **failed(Failure.VALIDATION_FAILURE, text=text, host=f"m{number}.rcpt.test"))
        bench.note(sts=policy)
    counted = await bench.counted()
    assert len(counted) <= tlsrpt.POLICIES + 1
    assert sum(each.failed for each in counted.values()) == sum(each.successful for each in counted.values()) == 1000
    ways = [way for each in counted.values() for way, _ in each.details]
    assert len(ways) <= tlsrpt.DETAILS + len(counted)
    assert sum(count for each in counted.values() for _, count in each.details) == 1000
    assert all(len(way.reason) <= REASON_LIMIT and way.reason.isprintable() for way in ways)
    assert FailureDetails("validation-failure") in ways  # all others
    stored = bench.spool.held[f"tlsrpt {TODAY}", "rcpt.test"]
    assert len(stored) < 512 << 10  # half of what a record can have
    for _ in range(3):  # however often it is added to
        bench.results = bench.another()
        bench.note(**failed(Failure.VALIDATION_FAILURE, text="one more"))
        counted = await bench.counted()
    assert len(counted) <= tlsrpt.POLICIES + 2
    report = report_of(TODAY, tuple(counted.values()), organization="o", contact="p@relay.test", message_id="A" * 22)
    assert len(report_json(report)) < 1 << 20
    assert not list(complaints(json.loads(report_json(report))))


async def test_domains_without_room_are_counted_together(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tlsrpt, "DOMAINS", 2)
    for number in range(10):
        bench.note(f"d{number}.test", sts=STS, **failed(Failure.CERTIFICATE_EXPIRED, text=f"{number}"))
        bench.note(f"d{number}.test", dane=(Tlsa(3, 1, 1, b"x"),), host=f"mx{number}.test")
    others = await bench.counted(OTHERS)
    assert {(each.policy, each.successful, each.failed) for each in others.values()} == {
        (Policy("sts", OTHERS), 0, 8), (Policy("tlsa", OTHERS), 8, 0),
    }  # fmt: skip
    assert [count for each in others.values() for _, count in each.details] == [8]
    assert len(await tls_results.all_results(bench.spool, TODAY)) == 3  # type: ignore[arg-type]


async def test_the_room_of_a_day_is_shared(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tlsrpt._Room.__init__, "__defaults__", (200,))
    for number in range(10):
        bench.note(f"d{number}.test", sts=STS, **failed(Failure.CERTIFICATE_EXPIRED, text="x" * 50))
    with_text = [each async for each in _policies(bench) if each.policy.strings]
    without = [each async for each in _policies(bench) if not each.policy.strings]
    assert with_text
    assert without
    assert all(each.failed == 1 and each.policy.type == "sts" for each in with_text + without)


async def _policies(bench: Bench) -> object:
    await bench.results.keep()
    for results in await tls_results.all_results(bench.spool, TODAY):  # type: ignore[arg-type]
        for each in results.policies:
            yield each


async def test_two_that_keep_at_once_count_once(bench: Bench) -> None:
    await tls_results.keep_results(
        bench.spool,  # type: ignore[arg-type]
        Results(day=TODAY, domain="rcpt.test", policies=(PolicyResults(WITHOUT, 5),)),
    )
    bench.note()
    await asyncio.gather(bench.results.keep(), bench.results.keep())
    assert (await bench.counted())[WITHOUT].successful == 6
