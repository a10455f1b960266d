"""Sources and what is kept of them: caps over restarts, parking, pools of tenants, addresses that cannot be used."""

import asyncio
import datetime as dt
import logging
from collections.abc import Collection

import pytest

from mta.accounts import tenants
from mta.config import Config
from mta.delivery import source_records
from mta.delivery.source import DAY, OTHER, Wait, Want
from mta.delivery.source_records import Parked
from mta.delivery.sources import PROVIDERS, Choice, ParkedRow, Sources, WarmUpRow, trouble_of
from mta.lab.clock import FakeClock
from mta.spool.interface import Unavailable
from tests.unit.delivery.peers import Records

CLOCK_DAY = dt.date(2027, 1, 15)  # of FakeClock


def settings(*names: str, plan: Collection[int] = (50, 100), warming: str = "new", **pools: dict[str, int]) -> Config:
    sources: list[dict[str, object]] = [
        {"name": name, "address": f"127.0.0.{number + 2}", "hostname": f"{name}.test"}
        for number, name in enumerate(names)
    ]
    for each in sources:
        if each["name"] == warming:
            each["warm_up"] = {"started_on": CLOCK_DAY, "plan": list(plan)}
    return Config.model_validate({"hostname": "relay.test", "sources": sources, "pools": pools})


class Bench:
    """Sources on a spool that outlives them."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.spool = Records()
        self.clock = FakeClock()
        self.sources = self.another()

    def another(self) -> Sources:
        return Sources(self.config, self.spool, self.clock)  # type: ignore[arg-type]

    async def restart(self, *, crash: bool) -> None:
        if not crash:
            await self.sources.close()
        self.sources = self.another()
        await self.sources.start()

    async def deliver(self, provider: str = "gmail", recipients: int = 1, pool: str = "default") -> str:
        """Name the source that an attempt left from which delivered to all; "" if there was none."""
        choice = self.sources.choose(pool, Want(provider, recipients))
        if isinstance(choice, Wait):
            return ""
        await self.sources.secure(choice)
        self.sources.ended(choice, recipients)
        return choice.source.name

    def today(self, name: str = "new") -> dict[str, int]:
        (warm_up,) = [row.warm_up for row in self.sources.rows() if row.source == name]
        return warm_up.today if warm_up is not None else {}


async def test_without_sources_there_is_one_that_costs_nothing() -> None:
    bench = Bench(Config(hostname="relay.test"))
    await bench.sources.start()
    choice = bench.sources.choose(await bench.sources.pool_of("acme"), Want("gmail", 50))
    assert isinstance(choice, Choice)
    assert (choice.source.name, choice.source.hostname, choice.source.addresses) == ("", "relay.test", ())
    assert bench.sources.local(choice.source, "::1") == ""
    await bench.sources.secure(choice)
    bench.sources.ended(choice, 50)
    await bench.sources.close()
    assert (bench.spool.writes, bench.sources.rows()) == (0, [])


async def test_all_sources_are_a_pool_where_none_is_configured() -> None:
    bench = Bench(settings("a", "b"))
    assert sorted([await bench.deliver() for _ in range(4)]) == ["a", "a", "b", "b"]


async def test_each_provider_gets_the_weights_whatever_the_others_get() -> None:
    bench = Bench(settings("a", "b", default={"a": 1, "b": 1}))
    got = [(provider, await bench.deliver(provider)) for _ in range(10) for provider in ("x", "y")]
    assert all(got.count((provider, name)) == 5 for provider in "xy" for name in "ab")


@pytest.mark.parametrize("crash", [False, True])
async def test_a_cap_holds_over_restarts(crash: bool) -> None:
    bench = Bench(settings("new", plan=(100,)))
    got = 0
    for _ in range(200):
        got += await bench.deliver() == "new"
        if got % 30 == 0:
            await bench.restart(crash=crash)
    assert got <= 100
    assert got >= (88 if crash else 100)  # four a crash at most are counted and not used
    assert await bench.deliver("yahoo") == "new"


async def test_what_is_counted_is_on_disk_before_it_is_used_and_few_writes_do() -> None:
    bench = Bench(settings("new", plan=(1000,)))
    for number in range(1, 1001):
        assert await bench.deliver() == "new"
        (counted,) = await source_records.counts(bench.spool)  # type: ignore[arg-type]
        assert counted.recipients["gmail"] >= number
    assert bench.spool.writes <= 30
    assert await bench.deliver() == ""


async def test_many_at_once_do_not_exceed_a_cap() -> None:
    bench = Bench(settings("new", plan=(60,)))
    got = await asyncio.gather(*[bench.deliver(recipients=7) for _ in range(50)])
    assert got.count("new") == 8
    assert bench.today() == {"gmail": 56}


async def test_what_was_not_delivered_may_be_used_by_others() -> None:
    bench = Bench(settings("new", plan=(50,)))
    choice = bench.sources.choose("default", Want("gmail", 50))
    assert isinstance(choice, Choice)
    assert isinstance(bench.sources.choose("default", Want("gmail", 1)), Wait)
    bench.sources.ended(choice, 20)
    assert bench.today() == {"gmail": 20}
    assert await bench.deliver(recipients=30) == "new"


async def test_a_new_day_has_its_own_cap() -> None:
    bench = Bench(settings("new", "old", plan=(50, 80), default={"new": 9, "old": 1}))
    late = bench.sources.choose("default", Want("gmail", 50))
    assert isinstance(late, Choice)
    assert late.source.name == "new"
    assert [await bench.deliver() for _ in range(3)] == ["old"] * 3
    bench.clock.jump(DAY)
    got = [await bench.deliver(recipients=10) for _ in range(3)]
    before = bench.today()
    await bench.sources.secure(late)
    bench.sources.ended(late, 0)  # which was yesterday's
    assert bench.today() == before
    (counted,) = await source_records.counts(bench.spool)  # type: ignore[arg-type]
    assert counted.day == CLOCK_DAY.toordinal() + 1 - dt.date(1970, 1, 1).toordinal()
    got += [await bench.deliver(recipients=10) for _ in range(20)]
    assert got.count("new") == 8
    await bench.restart(crash=False)
    assert bench.today() == {"gmail": 80}
    bench.clock.jump(DAY)
    assert [row.warm_up for row in bench.sources.rows()] == [None, None]
    assert [await bench.deliver(recipients=50) for _ in range(10)].count("new") == 9


@pytest.mark.parametrize("restarts", [False, True])
async def test_a_clock_that_is_put_back_over_midnight_gives_nothing_anew(restarts: bool) -> None:
    """Red when each change of the day begins to count: two seconds there and back were a second day's mail."""
    bench = Bench(settings("new"))
    await bench.clock.advance(DAY - bench.clock.now() % DAY - 1)
    given = list[int]()
    for seconds in (0, 2, -2, 2, DAY):
        bench.clock.jump(seconds)
        if restarts:
            await bench.restart(crash=False)
        given.append(0)
        while given[-1] < 200 and await bench.deliver():
            given[-1] += 1
    assert given == [50, 100, 0, 0, 200]  # it is warm


async def test_how_far_a_warm_up_is() -> None:
    bench = Bench(settings("new", plan=(50, 80)))
    await bench.deliver(recipients=3)
    await bench.deliver("yahoo", recipients=2)
    assert [row.warm_up for row in bench.sources.rows()] == [WarmUpRow(1, 2, 50, {"gmail": 3, "yahoo": 2})]


async def test_providers_beyond_those_counted_one_by_one_are_counted_together() -> None:
    bench = Bench(settings("new", plan=(50,)))
    for number in range(PROVIDERS + 60):
        await bench.deliver(f"p{number}")
    assert (len(bench.today()), bench.today()[OTHER]) == (PROVIDERS + 1, 50)
    assert await bench.deliver("p1") == "new"
    assert await bench.deliver("p9999") == ""


async def test_a_spool_that_fails_lets_nobody_be_dialled(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(settings("new"))

    async def sick(*_: object, **__: object) -> bool:
        raise Unavailable("sick")

    monkeypatch.setattr(bench.spool, "put_record", sick)
    with pytest.raises(Unavailable):
        await bench.deliver()
    await bench.sources.close()  # says so in the log, and that is all


async def test_parked_for_one_provider_until_then(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(settings("a", "b"))
    now = bench.clock.now()
    with caplog.at_level(logging.WARNING):
        bench.sources.park(Parked(source="a", provider="gmail", ends_at=now + 60, reason="554 blocked"))
    await bench.sources.keep()
    assert "source=a provider='gmail' doing=park reason='554 blocked'" in caplog.text
    for _ in range(2):
        assert {await bench.deliver() for _ in range(5)} == {"b"}
        assert {await bench.deliver("yahoo") for _ in range(5)} == {"a", "b"}
        assert bench.sources.rows()[0].parked == (ParkedRow("gmail", now + 60, "554 blocked"),)
        await bench.restart(crash=True)
    bench.clock.jump(60)
    assert {await bench.deliver() for _ in range(5)} == {"a", "b"}
    assert bench.sources.rows()[0].parked == ()
    await bench.restart(crash=True)
    assert await bench.spool.list_records("parked source") == []  # what is over is forgotten


async def test_all_parked_says_until_when_and_why() -> None:
    bench = Bench(settings("a"))
    now = bench.clock.now()
    bench.sources.park(Parked(source="a", provider="gmail", ends_at=now + 60, reason="554 blocked"))
    await bench.sources.keep()
    assert bench.sources.choose("default", Want("gmail", 1)) == Wait(now + 60, "a: parked: 554 blocked")


async def test_unparked_by_somebody_else() -> None:
    bench = Bench(settings("a"))
    parked = Parked(source="a", provider="gmail", ends_at=bench.clock.now() + 60, reason="x")
    await source_records.park(bench.spool, parked)  # type: ignore[arg-type]
    await bench.sources.reread()
    assert await bench.deliver() == ""
    assert await source_records.unpark(bench.spool, "a", "gmail")  # type: ignore[arg-type]
    assert not await source_records.unpark(bench.spool, "a", "gmail")  # type: ignore[arg-type]
    await bench.sources.reread()
    assert await bench.deliver() == "a"


async def test_records_that_cannot_be_read_stop_nothing(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(settings("new"))
    await bench.spool.put_record("parked source", "a gmail", b"\xc1", replace=True)
    await bench.spool.put_record("warm-up", "new", b"\xc1", replace=True)
    await bench.sources.start()
    assert await bench.deliver() == "new"
    assert "of=parked-source" in caplog.text
    assert "of=warm-up" in caplog.text


async def test_a_tenant_s_pool_is_known_within_ten_seconds(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(settings("a", "b", "c", default={"a": 1}, gold={"b": 1}))
    stored = tenants._encode(tenants.Tenant(name="acme", created_at=0.0))
    await bench.spool.put_record(tenants.KIND, "acme", stored, replace=True)
    assert await bench.sources.pool_of("acme") == "default"
    assert await bench.sources.pool_of("nobody") == "default"
    await tenants.change(bench.spool, "acme", pool="gold")  # type: ignore[arg-type]
    assert await bench.sources.pool_of("acme") == "default"
    await bench.clock.advance(10)
    assert await bench.sources.pool_of("acme") == "gold"
    assert await bench.deliver(pool="gold") == "b"
    await tenants.change(bench.spool, "acme", pool="gone")  # type: ignore[arg-type]
    await bench.clock.advance(10)
    assert await bench.sources.pool_of("acme") == "default"
    assert "tenant=acme pool=gone error=not-configured instead=default" in caplog.text


async def test_an_address_that_is_not_ours_is_named_and_left_alone_for_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = Config.model_validate({"hostname": "r.test", "sources": [{"name": "a", "address": ["192.0.2.9", "::1"]}]})
    bench = Bench(config)
    await bench.sources.start()
    assert "source=a address=192.0.2.9 error='not an address of this machine'" in caplog.text
    assert [row.trouble for row in bench.sources.rows()] == ["192.0.2.9: not an address of this machine"]
    choice = bench.sources.choose("default", Want("gmail", 1))
    assert isinstance(choice, Choice)
    assert bench.sources.local(choice.source, "198.51.100.1") is None
    assert bench.sources.local(choice.source, "2001:db8::1") == "::1"
    await bench.clock.advance(60)
    assert bench.sources.local(choice.source, "198.51.100.1") == "192.0.2.9"  # to be tried
    assert trouble_of("127.0.0.9") == ""
