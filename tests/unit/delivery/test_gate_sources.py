"""The gate with configured sources: any of a pool's may have room, what is learned is of the one that was used."""

from collections.abc import Mapping

import msgspec

from mta.accounts import tenants
from mta.accounts.tenants import Tenant
from mta.delivery.gate import Gate
from mta.delivery.source import Want
from mta.delivery.source_records import Parked
from mta.delivery.sources import Sources
from mta.lab.clock import FakeClock
from mta.mail.reply import Reply
from mta.mail.result import Outcome, Reach, Result, Scope, Verdict
from mta.queue.explanation import HeldBy
from mta.queue.limits import Advice, Aim, Limits, Start
from mta.queue.shaping import parse
from tests.unit.delivery.peers import Records
from tests.unit.delivery.test_sources import settings

PROVIDER = "providers: [{name: p, mx: [p.test], connections: 1, rules: [{match: blocked, action: pause, lasts: 600}]}]"
TAKEN = Result(Verdict.DELIVERED, Reply(250, "", "ok"))
BLOCKED = Result(Verdict.DEFERRED, Reply(450, "4.7.1", "blocked"), Scope.MESSAGE)
SITE = "mx.p.test:25"


class Bench:
    """A gate, its sources and its limits."""

    def __init__(self, rules: str = PROVIDER, *names: str, **pools: dict[str, int]) -> None:
        self.clock = FakeClock()
        self.spool = Records()
        self.sources = Sources(settings(*(names or ("a", "b")), **pools), self.spool, self.clock)  # type: ignore[arg-type]
        self.limits = Limits(parse(rules, "s.yaml"), 20)
        self.gate = Gate(self.limits, self.clock, self.sources)
        self.gate.meet(Aim(SITE, ("mx.p.test",)), lambda _: True)

    def room(self, tenant: str = "acme", site: str = SITE) -> object:
        return self.gate.room(site, tenant, 99, stays=False)

    def started(self, tenant: str = "acme", site: str = SITE) -> Start:
        assert self.room(tenant, site) is None
        return self.gate.started(site, tenant, stays=False)

    def ended(
        self, start: Start, result: Result = TAKEN, source: str | None = None, relay: str = "mx.p.test[192.0.2.1]:25"
    ) -> Advice:
        name = start.about.source if source is None else source
        outcome = Outcome(
            results=(result,),
            started_at=0.0,
            ended_at=0.0,
            site=start.about.site,
            relay=relay,
            reach=Reach.TRANSACTION,
            source_name=name,
        )
        return self.gate.ended(start, outcome)

    def at_work(self) -> Mapping[str, int]:
        return {source: pace.window.at_work for (source, _), pace in self.limits._paces.items()}


def test_there_is_room_while_one_source_of_the_pool_has_some() -> None:
    bench = Bench()
    starts = [bench.started() for _ in range(2)]
    assert {each.about.source for each in starts} == {"a", "b"}
    assert bench.room() == SITE
    bench.ended(starts[0])
    assert bench.room() is None


def test_an_attempt_that_leaves_from_another_source_is_booked_there() -> None:
    bench = Bench()
    start = bench.started()
    assert bench.at_work() == {"a": 1}
    bench.limits.goes_elsewhere(start, start.about._replace(source="b"), bench.clock.monotonic())
    assert (start.about.source, bench.at_work()) == ("b", {"a": 0, "b": 1})
    bench.ended(start, BLOCKED)
    assert [row.parked[0].provider for row in bench.sources.rows() if row.parked] == ["p"]
    assert bench.sources.rows()[1].parked[0].reason == "450 4.7.1 blocked"
    assert bench.at_work() == {"a": 0, "b": 0}


def test_what_another_source_met_is_no_lesson() -> None:
    bench = Bench()
    assert bench.ended(bench.started(), BLOCKED, source="b") == Advice()
    assert not any(row.parked for row in bench.sources.rows())


async def test_where_all_sources_are_parked_the_site_is_looked_at_when_the_first_one_is_not() -> None:
    bench = Bench()
    for _ in range(2):
        bench.ended(bench.started(), BLOCKED)
    assert bench.room() == SITE
    assert bench.gate.next_look() == 60.0  # and again: the clock may have been set
    await bench.clock.advance(60)
    assert bench.gate.to_look_at() == [SITE]
    await bench.clock.advance(540)
    assert bench.room() is None


async def test_parked_by_a_rule_it_is_after_a_restart_too() -> None:
    bench = Bench()
    bench.ended(bench.started(), BLOCKED)
    await bench.gate.keep()
    after = Sources(settings("a", "b"), bench.spool, bench.clock)  # type: ignore[arg-type]
    await after.start()
    assert [(each.provider, each.ends_at) for each in after.rows()[0].parked] == [("p", bench.clock.now() + 600)]


def test_what_a_host_behind_a_providers_says_parks_nothing_but_is_heeded_at_its_site() -> None:
    """Red when its words are the provider's: anybody can have an MX of his own behind one of a provider.

    And when they are nobody's: it would be asked on and on.
    """
    bench = Bench()
    start = bench.started()
    bench.ended(start, BLOCKED, relay="mx.p.test.evil.test[192.0.2.9]:25")
    assert not any(row.parked for row in bench.sources.rows())
    now = bench.clock.monotonic()
    assert bench.limits.when(start.about, now) == now + 600
    assert bench.limits.when(start.about._replace(source="b"), now) == now


def test_a_rule_does_not_shorten_what_an_operator_said() -> None:
    bench = Bench(PROVIDER, "a")
    start = bench.started()
    bench.sources.park(Parked(source="a", provider="p", ends_at=bench.clock.now() + 9000, reason="by the operator"))
    bench.ended(start, BLOCKED)
    assert bench.sources.rows()[0].parked[0].reason == "by the operator"


async def test_a_pool_without_room_holds_its_own_tenants_alone_and_lets_them_in_when_one_has_ended() -> None:
    """Red when the site is named: those of a pool that has room are held behind those of one that has none."""
    bench = Bench(PROVIDER, "a", "b", default={"a": 1}, own={"b": 1})
    bench.spool.held[tenants.KIND, "other"] = msgspec.msgpack.encode(Tenant(name="other", created_at=0, pool="own"))
    await bench.gate.learn_pools({"acme", "other"}, ())
    start = bench.started()
    key = (("site", SITE), ("pool", "default"))
    assert bench.room() == key
    assert bench.started("other").about.source == "b"
    assert bench.gate.freed() == ()
    bench.ended(start)
    assert sorted(map(str, bench.gate.freed())) == [str(key)]
    assert bench.room() is None


def test_limits_by_source_hold_a_source_and_not_the_others() -> None:
    bench = Bench("limits: [{by: [source], messages: 1/10s}]")
    starts = [bench.started(site=site) for site in ("x:25", "y:25")]
    assert [each.about.source for each in starts] == ["a", "b"]
    assert bench.room(site="z:25") == (("source", "a"),)
    assert bench.gate.next_look() == 10.0


def test_a_warm_up_that_is_used_up_holds_at_the_gate_and_small_sites_are_counted_as_one() -> None:
    bench = Bench(PROVIDER, "new")
    bench.gate.meet(Aim("small:25", ("mx.small.test",)), lambda _: True)
    bench.gate.meet(Aim("tiny:25", ("mx.tiny.test",)), lambda _: True)
    bench.sources.choose("default", Want("other", 50, site="small:25"))
    assert bench.room(site="tiny:25") == "tiny:25"
    assert bench.room(site="routed:25") is None  # without hosts
    assert bench.room() is None


def test_a_site_is_one_row_whatever_the_source() -> None:
    bench = Bench()
    for _ in range(2):
        bench.started()
    (row,) = bench.gate.rows(lambda _: 2, {SITE: 3})
    assert (row.site, row.in_flight, row.connections, row.lanes) == (SITE, 2, 2, 3)


def test_why_names_a_source_that_is_parked_only_where_it_would_be_the_first() -> None:
    bench = Bench(PROVIDER, "a", "b")
    assert bench.gate.why(SITE, "acme", 9).gate is HeldBy.TURN
    bench.ended(bench.started(), BLOCKED)
    other = bench.started()
    assert (bench.gate.why(SITE, "acme", 9).gate, bench.gate.connections(SITE, "acme")) == (HeldBy.NO_SOURCE, 2)
    bench.ended(other, BLOCKED)
    why = bench.gate.why(SITE, "acme", 9)
    assert why == (HeldBy.NO_SOURCE, bench.clock.now() + 600, "a: parked: 450 4.7.1 blocked")
