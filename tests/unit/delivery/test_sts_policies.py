"""Policies by domain: fetched once for all, kept over restarts, renewed in time, whatever is taken away (RFC 8461)."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Self

import msgspec
import pytest

from mta.config import Config
from mta.delivery import sts, sts_policies
from mta.delivery.policy import Failure
from mta.delivery.resolver import FAILURE_TTL, Resolver
from mta.delivery.sts_policies import KIND, NEXT_AGAIN, ROUND, SAME_AGAIN, SILENT_FOR, Kept, Standing, StsPolicies
from mta.lab.ca import PrivateCa
from mta.lab.clock import FakeClock
from mta.lab.dns import TTL, DnsServer, Zone
from mta.lab.dns import Failure as DnsFailure
from mta.lab.policy_host import Hosting, PolicyHost
from mta.spool.interface import Unavailable
from mta.spool.lmdb.opening import open_spool
from tests.unit.delivery.peers import Records

DAY = 86_400.0
NOTHING = Standing()


class Spool(Records):
    """Named records that cannot be had while it is `sick`."""

    sick = False

    async def get_record(self, kind: str, name: str) -> bytes | None:
        self._check()
        return await super().get_record(kind, name)

    async def put_record(self, kind: str, name: str, value: bytes, *, replace: bool) -> bool:
        self._check()
        return await super().put_record(kind, name, value, replace=replace)

    async def list_records(self, kind: str) -> list[tuple[str, bytes]]:
        self._check()
        return await super().list_records(kind)

    def _check(self) -> None:
        if self.sick:
            raise Unavailable("out of order")


def text(mode: str = "enforce", max_age: float = 10 * DAY, mx: str = "mx1.lab.test") -> str:
    return f"version: STSv1\nmode: {mode}\nmx: {mx}\nmax_age: {int(max_age)}\n"


class Bench:
    """DNS and policy host of the laboratory, and policies on a spool that outlives them."""

    def __init__(self, directory: Path) -> None:
        self.clock = FakeClock()
        self.ca = PrivateCa(directory)
        self.host = PolicyHost(self.ca, self.clock)
        self.zone = Zone()
        self.dns = DnsServer(self.zone)
        self.spool = Spool()

    async def __aenter__(self) -> Self:
        await self.dns.start()
        await self.host.start()
        self.begin()
        return self

    def begin(self, timeout: float = 5.0, dns_timeout: float = 2.0) -> None:
        self.config = Config.model_validate(
            {
                "hostname": "relay.test",
                "dns": {"servers": [str(self.dns.address)], "timeout": dns_timeout},
                "delivery": {"allow_private_targets": True, "ca_file": self.ca.ca_file},
                "sts": {"port": self.host.address.port, "timeout": timeout},
            }
        )
        self.resolver = Resolver(self.config.dns, self.clock)
        self.policies = StsPolicies(self.config, self.resolver, self.spool, self.clock)  # type: ignore[arg-type]

    async def restart(self, timeout: float = 5.0, dns_timeout: float = 2.0) -> None:
        await self.end()
        self.begin(timeout, dns_timeout)

    async def end(self) -> None:
        await self.policies.close()
        await self.resolver.close()

    async def __aexit__(self, *_: object) -> None:
        await self.end()
        await self.host.close()
        await self.dns.close()

    def publish(
        self,
        policy: str = "",
        announced: str = "1",
        domain: str = "a.test",
        hosting: Hosting = Hosting.GOOD,
        ttl: int = TTL,
    ) -> None:
        self.zone.set(f"_mta-sts.{domain}", "TXT", f'"v=STSv1; id={announced};"', ttl=ttl)
        self.zone.set(f"mta-sts.{domain}", "A", self.host.address.host)
        self.host.put(domain, policy or text(), hosting)

    async def of(self, domain: str = "a.test") -> Standing:
        return await self.policies.of(domain)

    async def pass_ttl(self) -> None:
        await self.clock.advance(TTL + 0.1)

    def lookups(self, domain: str = "a.test") -> int:
        return self.zone.asked(f"_mta-sts.{domain}", "TXT")

    def fetches(self, domain: str = "a.test") -> int:
        return self.host.requests[domain]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with Bench(tmp_path / "tls") as bench:
        yield bench


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not holds():
            await asyncio.sleep(0.002)


async def test_a_policy_is_found_and_asked_for_once_a_ttl(bench: Bench) -> None:
    bench.publish()
    assert not bench.policies.knows("a.test")
    standings = await asyncio.gather(*[bench.of() for _ in range(100)])
    assert len(set(map(id, standings))) == 1
    policy = standings[0].policy
    assert policy is not None
    assert (policy.domain, policy.id, policy.mode, policy.mx) == ("a.test", "1", "enforce", ("mx1.lab.test",))
    assert policy.fetched_at == bench.clock.now()
    assert (standings[0].failure, standings[0].text) == (None, "")
    assert bench.policies.knows("a.test")
    assert (bench.lookups(), bench.fetches(), bench.spool.writes) == (1, 1, 1)
    await bench.pass_ttl()
    assert not bench.policies.knows("a.test")
    assert await bench.of() == standings[0]
    assert (bench.lookups(), bench.fetches(), bench.spool.writes) == (2, 1, 1)


async def test_a_domain_without_one_costs_one_lookup(bench: Bench) -> None:
    assert await asyncio.gather(*[bench.of("b.test") for _ in range(10)]) == [NOTHING] * 10
    assert bench.policies.knows("b.test")
    assert (bench.lookups("b.test"), bench.fetches("b.test"), bench.spool.held) == (1, 0, {})


async def test_an_address_literal_has_none_and_nobody_is_asked(bench: Bench) -> None:
    assert bench.policies.knows("[192.0.2.1]")
    assert await bench.of("[192.0.2.1]") == NOTHING
    assert bench.zone.total == 0


@pytest.mark.parametrize(
    ("hosting", "failure"),
    [
        (Hosting.ABSENT, Failure.STS_POLICY_FETCH_ERROR),
        (Hosting.EXPIRED, Failure.STS_WEBPKI_INVALID),
        (Hosting.SLOW, Failure.STS_POLICY_FETCH_ERROR),
    ],
)
async def test_what_cannot_be_fetched_is_none_and_tried_again_after_five_minutes(
    bench: Bench, hosting: Hosting, failure: Failure
) -> None:
    await bench.restart(timeout=0.3 if hosting is Hosting.SLOW else 5)
    bench.publish(hosting=hosting, ttl=3600)
    standings = await asyncio.gather(*[bench.of() for _ in range(10)])
    assert {(each.policy, each.failure) for each in standings} == {(None, failure)}
    assert "mta-sts.a.test" in standings[0].text
    connections = bench.host.connections
    assert connections >= 1
    assert bench.policies.knows("a.test")
    bench.publish()
    await bench.clock.advance(SAME_AGAIN - 1)
    assert bench.policies.knows("a.test")
    assert await bench.of() == standings[0]
    assert bench.host.connections == connections
    await bench.clock.advance(1)
    assert not bench.policies.knows("a.test")
    assert (await bench.of()).policy is not None


async def test_a_policy_that_is_none_says_so(bench: Bench) -> None:
    bench.publish("version: STSv1\nmode: enforce\nmax_age: 1\n")
    assert await bench.of() == Standing(None, Failure.STS_POLICY_INVALID, "policy has no mx")


async def test_a_new_id_is_tried_sooner_but_not_at_once(bench: Bench) -> None:
    bench.publish(hosting=Hosting.ABSENT)
    await bench.of()
    await bench.pass_ttl()
    bench.publish(announced="2")
    assert (await bench.of()).policy is None  # somebody could have a new one in each answer
    await bench.pass_ttl()
    found = (await bench.of()).policy
    assert found is not None
    assert found.id == "2"
    assert bench.fetches() == 2


# What is taken away


async def cached(bench: Bench, max_age: float = 10 * DAY, mode: str = "enforce") -> Standing:
    bench.publish(text(mode, max_age))
    return await bench.of()


@pytest.mark.parametrize("failure", [DnsFailure.SERVFAIL, DnsFailure.NXDOMAIN, None])
@pytest.mark.parametrize("restarted", [False, True])
async def test_a_policy_applies_without_its_record_until_it_expires(
    bench: Bench, failure: DnsFailure | None, restarted: bool
) -> None:
    policy = (await cached(bench)).policy
    assert policy is not None
    if failure is None:
        bench.zone.set_txt("_mta-sts.a.test", "v=STSv1; id=1", "v=STSv1; id=2")
    bench.zone.fail("_mta-sts.a.test", failure)
    await bench.pass_ttl()
    if restarted:
        await bench.restart()
    standing = await bench.of()
    assert (standing.policy, standing.failure) == (policy, None)
    assert standing.text
    await bench.clock.advance(policy.max_age - 10)
    assert (await bench.of()).policy == policy
    await bench.clock.advance(10)
    assert (await bench.of()).policy is None
    assert bench.fetches() == 1


async def test_a_policy_applies_while_the_dns_is_silent(bench: Bench) -> None:
    policy = (await cached(bench)).policy
    bench.zone.outage = True
    await bench.restart(dns_timeout=0.1)
    standing = await bench.of()
    assert (standing.policy, standing.failure) == (policy, None)
    assert standing.text == "the DNS does not say whether there is a policy"


@pytest.mark.parametrize("known", [False, True])
async def test_mail_waits_once_for_a_dns_that_is_silent(bench: Bench, known: bool) -> None:
    """Red when each message does: name servers that drop these questions would keep deliveries from all others."""
    before = (await cached(bench)).policy if known else None
    bench.publish()
    bench.zone.outage = True
    await bench.restart(dns_timeout=0.3)
    assert (await bench.of()).policy == before
    for _ in range(2):
        await bench.clock.advance(FAILURE_TTL)
        async with asyncio.timeout(0.15):
            assert (await bench.of()).policy == before
        assert list(bench.policies._looking) == ["a.test"]
        await until(lambda: not bench.policies._looking)
    bench.zone.outage = False
    await bench.clock.advance(FAILURE_TTL)
    await bench.of()
    await until(lambda: not bench.policies._looking)
    assert (await bench.of()).policy is not None
    assert (await bench.of()).text == ""


@pytest.mark.parametrize("hosting", [Hosting.ABSENT, Hosting.REDIRECT, Hosting.SELF_SIGNED, Hosting.TOO_BIG])
@pytest.mark.parametrize("restarted", [False, True])
async def test_a_new_policy_that_cannot_be_had_leaves_the_old_one(
    bench: Bench, hosting: Hosting, restarted: bool, caplog: pytest.LogCaptureFixture
) -> None:
    policy = (await cached(bench)).policy
    bench.publish(announced="2", hosting=hosting)
    await bench.clock.advance(60)
    if restarted:
        await bench.restart()
    with caplog.at_level(logging.WARNING):
        standing = await bench.of()
    assert standing.policy == policy
    expected = Failure.STS_WEBPKI_INVALID if hosting is Hosting.SELF_SIGNED else Failure.STS_POLICY_FETCH_ERROR
    assert standing.failure is expected
    assert "sts=failed domain=a.test" in caplog.text
    assert bench.policies.knows("a.test")
    await bench.clock.advance(10 * DAY)
    assert await bench.of() == Standing(None, expected, standing.text)


async def test_a_new_policy_replaces_the_old_one(bench: Bench) -> None:
    await cached(bench)
    bench.publish(text("testing", mx="*.b.test"), announced="2")
    await bench.clock.advance(60)
    policy = (await bench.of()).policy
    assert policy is not None
    assert (policy.id, policy.mode, policy.mx) == ("2", "testing", ("*.b.test",))
    await bench.restart()
    assert (await bench.of()).policy == policy
    assert bench.fetches() == 2


async def test_a_failure_is_told_as_long_as_it_is_of_what_is_announced(bench: Bench) -> None:
    policy = (await cached(bench)).policy
    bench.publish(announced="2", hosting=Hosting.ABSENT)
    await bench.clock.advance(60)
    assert (await bench.of()).failure is Failure.STS_POLICY_FETCH_ERROR
    bench.zone.fail("_mta-sts.a.test", DnsFailure.SERVFAIL)
    await bench.pass_ttl()
    assert (await bench.of()).failure is Failure.STS_POLICY_FETCH_ERROR
    bench.zone.fail("_mta-sts.a.test", None)
    bench.publish(announced="1")
    await bench.clock.advance(SILENT_FOR)
    assert await bench.of() == Standing(policy)


async def test_a_domain_leaves_by_mode_none(bench: Bench) -> None:
    await cached(bench)
    bench.publish(text("none"), announced="2")
    await bench.clock.advance(60)
    assert await bench.of() == NOTHING
    bench.zone.set("_mta-sts.a.test", "TXT")
    await bench.pass_ttl()
    await bench.restart()
    assert await bench.of() == NOTHING
    assert bench.fetches() == 2


async def test_a_policy_that_is_over_at_once_is_not_fetched_for_each_message(bench: Bench) -> None:
    assert await cached(bench, max_age=0) == NOTHING
    for _ in range(5):
        assert await bench.of() == NOTHING
    assert bench.fetches() == 1


async def test_an_expired_policy_is_fetched_again_under_the_same_id(bench: Bench) -> None:
    old = (await cached(bench, max_age=60)).policy
    assert old is not None
    await bench.clock.advance(59)
    assert (await bench.of()).policy == old
    assert bench.policies.knows("a.test")
    await bench.clock.advance(1)
    assert not bench.policies.knows("a.test")
    assert (await bench.of()).policy == msgspec.structs.replace(old, fetched_at=bench.clock.now())


# Renewal


class Running:
    """`run` in the background."""

    def __init__(self, bench: Bench) -> None:
        self.stop = asyncio.Event()
        self.task = asyncio.create_task(bench.policies.run(self.stop))

    async def __aenter__(self) -> Self:
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stop.set()
        await asyncio.wait_for(self.task, 5)


async def pass_rounds(bench: Bench, seconds: float) -> None:
    """Let time pass, in which renewals come to their end before it goes on."""
    for _ in range(int(seconds / ROUND)):
        await bench.clock.advance(ROUND)
        await until(lambda: not bench.policies._looking)


async def test_a_policy_in_use_is_renewed_each_day(bench: Bench) -> None:
    first = (await cached(bench)).policy
    assert first is not None
    async with Running(bench):
        await pass_rounds(bench, 4 * DAY)
        assert bench.fetches() in (5, 6)
        found = (await bench.of()).policy
    assert found is not None
    assert found.fetched_at > first.fetched_at + 2 * DAY
    assert (await bench.policies.kept())[0].policy == found


async def test_a_renewal_begins_with_what_the_spool_has(bench: Bench) -> None:
    await cached(bench)
    await bench.restart()
    async with Running(bench):
        await pass_rounds(bench, DAY)
        assert bench.fetches() == 2


async def test_a_renewal_waits_for_a_spool_that_is_sick(bench: Bench) -> None:
    await cached(bench)
    await bench.restart()
    async with Running(bench):
        bench.spool.sick = True
        await pass_rounds(bench, DAY)
        assert bench.fetches() == 1
        bench.spool.sick = False
        await pass_rounds(bench, 7200)
        assert bench.fetches() == 2


async def test_a_renewal_that_fails_is_told_tried_again_and_changes_nothing(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    policy = (await cached(bench)).policy
    bench.publish(hosting=Hosting.ABSENT)
    async with Running(bench):
        with caplog.at_level(logging.WARNING):
            await pass_rounds(bench, 2 * DAY)
        assert "sts=failed domain=a.test failure=sts-policy-fetch-error" in caplog.text
        assert 10 < bench.fetches() < 40
        standing = await bench.of()
        assert (standing.policy, standing.failure) == (policy, Failure.STS_POLICY_FETCH_ERROR)
        bench.publish()
        await pass_rounds(bench, 7200)
        standing = await bench.of()
        assert (standing.policy != policy, standing.failure, standing.text) == (True, None, "")


async def test_a_record_that_vanished_is_told_and_its_policy_left_to_expire(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    policy = (await cached(bench)).policy
    bench.zone.set("_mta-sts.a.test", "TXT")
    async with Running(bench):
        with caplog.at_level(logging.WARNING):
            await pass_rounds(bench, DAY)
        assert "sts=unrenewed domain=a.test" in caplog.text
        assert (await bench.of()).policy == policy
        assert bench.fetches() == 1


async def test_mail_does_not_wait_for_a_renewal(bench: Bench) -> None:
    standing = await cached(bench)
    bench.publish(hosting=Hosting.SLOW)
    await bench.restart(timeout=0.3)
    await bench.clock.advance(DAY)
    async with Running(bench):
        await until(lambda: bench.fetches() == 2)
        assert bench.policies.knows("a.test")
        assert await bench.of() == standing


async def test_a_slow_policy_host_does_not_hold_up_the_renewals_of_others(bench: Bench) -> None:
    others = [f"{letter}.test" for letter in "bcdefghijklm"]
    for domain in ("a.test", *others):
        bench.publish(domain=domain)
        assert (await bench.of(domain)).policy is not None
    bench.publish(hosting=Hosting.SLOW)
    await bench.restart(timeout=2)
    await bench.clock.advance(DAY)
    async with Running(bench):
        await until(lambda: all(bench.fetches(domain) == 2 for domain in others))
        assert "a.test" in bench.policies._looking


async def test_a_policy_nobody_uses_expires_and_goes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sts_policies, "IN_USE", 3 * DAY)
    monkeypatch.setattr(sts_policies, "LONG_EXPIRED", 2 * DAY)
    await cached(bench, max_age=4 * DAY)
    await bench.restart()
    async with Running(bench):
        await pass_rounds(bench, 4 * DAY)
        renewed = bench.fetches()
        assert 3 < renewed < 6
        await pass_rounds(bench, 4 * DAY)  # it has expired by now
        assert [kept.policy.domain for kept in await bench.policies.kept()] == ["a.test"]
        await pass_rounds(bench, 2 * DAY)
        assert await bench.policies.kept() == []
        assert bench.fetches() == renewed


async def test_a_policy_dated_in_the_future_is_renewed_all_the_same(bench: Bench) -> None:
    bench.clock.jump(1000 * DAY)
    await cached(bench)
    bench.clock.jump(-1000 * DAY)
    await bench.restart()
    await bench.of()
    async with Running(bench):
        await pass_rounds(bench, DAY)
        assert bench.fetches() == 2
        found = (await bench.of()).policy
        assert found is not None
        assert found.fetched_at <= bench.clock.now()


# The spool


async def test_a_sick_spool_holds_up_nothing(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.publish()
    bench.spool.sick = True
    with caplog.at_level(logging.WARNING):
        assert (await bench.of()).policy is not None
    assert "sts=unread domain=a.test" in caplog.text
    assert "sts=unkept domain=a.test" in caplog.text
    async with Running(bench):
        await pass_rounds(bench, 7200)
    assert (await bench.of()).policy is not None


async def test_what_could_not_be_read_is_looked_for_again(bench: Bench) -> None:
    policy = (await cached(bench)).policy
    await bench.restart()
    bench.publish(hosting=Hosting.ABSENT, ttl=3600)
    bench.spool.sick = True
    assert (await bench.of()).policy is None
    bench.spool.sick = False
    await bench.clock.advance(NEXT_AGAIN)
    assert (await bench.of()).policy == policy


async def test_what_is_read_late_does_not_replace_what_is_newer(bench: Bench) -> None:
    await cached(bench)
    await bench.restart()
    bench.publish(text("testing"), announced="2")
    await bench.clock.advance(60)
    bench.spool.sick = True
    policy = (await bench.of()).policy
    assert policy is not None
    assert policy.id == "2"
    bench.spool.sick = False
    await bench.clock.advance(60)
    assert (await bench.of()).policy == policy
    assert bench.fetches() == 2


async def test_the_spool_keeps_the_longest_policy_over_a_restart(bench: Bench, tmp_path: Path) -> None:
    bench.publish(text() + "".join(f"mx: {'x' * 60}.{'y' * 60}.{number}.test\n" for number in range(99)))
    config = bench.config.model_copy(update={"state_dir": tmp_path / "state"})
    for _ in range(2):
        spool = open_spool(config, bench.clock)
        policies = StsPolicies(config, bench.resolver, spool, bench.clock)
        found = (await policies.of("a.test")).policy
        assert found is not None
        assert len(found.mx) == 100
        assert [kept.policy for kept in await policies.kept()] == [found]
        await policies.close()
        await spool.close()
    assert bench.fetches() == 1


async def test_a_record_that_cannot_be_read_is_as_none(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    policy = (await cached(bench)).policy
    await bench.restart()
    bench.spool.held[KIND, "a.test"] = b"\xc1"
    with caplog.at_level(logging.ERROR):
        assert await bench.policies.kept() == []
        assert (await bench.of()).policy == policy  # the same, fetched again
    assert caplog.text.count("of=sts") == 2
    assert bench.fetches() == 2


async def test_records_can_grow_new_fields(bench: Bench) -> None:
    await cached(bench)
    ((_, value),) = await bench.spool.list_records(KIND)
    decoded = msgspec.msgpack.decode(value)
    decoded[1].append("new")
    decoded.append("new")
    bench.spool.held[KIND, "a.test"] = msgspec.msgpack.encode(decoded)
    await bench.restart()
    bench.zone.fail("_mta-sts.a.test", DnsFailure.SERVFAIL)
    assert (await bench.of()).policy is not None


async def test_forgetting_is_forgetting(bench: Bench) -> None:
    await cached(bench)
    assert await bench.policies.forget("a.test")
    assert not await bench.policies.forget("a.test")
    bench.zone.set("_mta-sts.a.test", "TXT")
    await bench.pass_ttl()
    assert await bench.of() == NOTHING
    bench.publish(hosting=Hosting.SLOW)
    await bench.restart(timeout=0.3)
    asking = asyncio.create_task(bench.of())
    await until(lambda: bench.fetches() == 2)
    assert not await bench.policies.forget("a.test")  # what is being asked comes to its end first
    assert (await asking).failure is Failure.STS_POLICY_FETCH_ERROR
    assert not bench.policies.knows("a.test")


async def test_giving_up_leaves_the_others_waiting(bench: Bench) -> None:
    bench.publish()
    one, other = asyncio.create_task(bench.of()), asyncio.create_task(bench.of())
    await asyncio.sleep(0)
    one.cancel()
    assert (await other).policy is not None
    assert one.cancelled()
    assert bench.fetches() == 1


async def test_memory_is_bounded_and_the_spool_has_the_rest(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sts_policies, "DOMAINS", 3)
    for number in range(5):
        bench.publish(domain=f"d{number}.test")
        assert (await bench.of(f"d{number}.test")).policy is not None
    assert [bench.policies.knows(f"d{number}.test") for number in range(5)] == [False, False, True, True, True]
    await bench.of("d2.test")
    assert (await bench.of("d0.test")).policy is not None
    assert [bench.policies.knows(f"d{number}.test") for number in range(5)] == [True, False, True, False, True]
    assert sum(bench.host.requests.values()) == 5


async def test_large_policies_make_room_for_each_other(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    large = text() + "".join(f"mx: {'x' * 60}.{number}.test\n" for number in range(99))
    monkeypatch.setattr(sts_policies, "OCTETS", 50_000)
    for number in range(5):
        bench.publish(large, domain=f"d{number}.test")
        assert (await bench.of(f"d{number}.test")).policy is not None
    assert [bench.policies.knows(f"d{number}.test") for number in range(5)] == [False, False, False, True, True]
    assert bench.policies._octets == sum(each.octets for each in bench.policies._known.values()) <= 50_000


def test_the_longest_record_of_a_policy_is_bounded() -> None:
    longest = ".".join(["x" * 61] * 4) + ".te"
    mx = [f"{number:02d}{longest}"[:253].rstrip(".") for number in range(100)]
    body = "version: STSv1\nmode: enforce\nmax_age: 1\n" + "".join(f"mx: {each}\n" for each in mx)
    policy = sts.parse(body.encode(), "a.test", "1", 0.0)
    assert len(msgspec.msgpack.encode(Kept(policy=policy, used_at=0.0))) < 50_000
