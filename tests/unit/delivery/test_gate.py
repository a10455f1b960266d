"""The gate: what is in the way and when to ask again, and what an attempt teaches of which site."""

import msgspec
import pytest

from mta.delivery import gate as module
from mta.delivery.gate import Gate
from mta.lab.clock import FakeClock
from mta.mail.reply import Reply
from mta.mail.result import Outcome, Reach, Result, Scope, Verdict
from mta.queue.explanation import HeldBy
from mta.queue.limits import Aim, Limits
from mta.queue.shaping import parse

ENOUGH = Result(Verdict.DEFERRED, Reply(421, "4.7.0", "enough"), Scope.HOST)


def gate(rules: str = "") -> Gate:
    return Gate(Limits(parse(rules or "{}", "s.yaml"), 20), FakeClock())


def outcome(site: str, result: Result = ENOUGH) -> Outcome:
    return Outcome(results=(result,), started_at=0.0, ended_at=0.0, site=site, reach=Reach.SESSION)


def attempt(each: Gate, site: str, met: str) -> None:
    each.ended(each.started(site, "acme", stays=False), outcome(met))


def test_what_an_attempt_met_elsewhere_is_no_lesson_on_the_site_that_was_asked() -> None:
    """Red when it is booked where it was aimed at: b.test was full, a.test is slowed."""
    each = gate("rules: [{match: enough, action: hold}]")
    for _ in range(10):
        start = each.started("a.test:25", "acme", stays=False)
        assert not each.ended(start, outcome("b.test:25")).hold
    row = each.rows(lambda _: 0, {})[0]
    assert (row.site, row.in_flight, row.rate, row.reply) == ("a.test:25", 0, None, "")
    assert each.room("a.test:25", "acme", 0, stays=False) is None


def test_what_an_attempt_that_was_sent_to_another_site_met_there_is_booked_there_and_those_who_wait_are_told() -> None:
    """Red when who waits for room there is not looked at: it may be the only attempt there."""
    each = gate("rules: [{match: enough, action: hold}]")
    start = each.started("a.test:25", "acme", stays=False)
    each._limits.goes_elsewhere(start, start.about._replace(site="b.test:25"), 0.0)
    assert each.ended(start, outcome("b.test:25")).hold
    assert list(each.freed()) == ["b.test:25"]
    rows = {row.site: (row.in_flight, row.reply) for row in each.rows(lambda _: 0, {})}
    assert rows == {"a.test:25": (0, ""), "b.test:25": (0, "421 4.7.0 enough")}


def test_a_route_to_the_hosts_of_a_provider_has_its_limits_and_its_window() -> None:
    """Red when a site is its name and its hosts together: each has its own window."""
    each = gate("providers: [{name: p, mx: [p.test], connections: 2}]")
    for hosts in (("mx.p.test",), ()):
        each.meet(Aim("mx.p.test:25", hosts), lambda _: True)
    for at_work in range(2):
        assert each.room("mx.p.test:25", "acme", at_work, stays=False) is None
        each.started("mx.p.test:25", "acme", stays=False)
    assert each.room("mx.p.test:25", "acme", 2, stays=False) == "mx.p.test:25"


def test_hosts_of_sites_without_work_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_HOSTS", 10)
    each = gate()
    for number in range(1000):
        each.meet(Aim(f"s{number}", (f"mx{number}.test",)), lambda site: site == "s0")
    assert len(each._hosts) <= 20
    assert "s0" in each._hosts


def test_a_limit_that_is_wider_than_a_site_is_named_as_such_and_looked_at_in_time() -> None:
    each = gate("limits: [{by: [tenant, provider], messages: 1/10s}]\nproviders: [{name: p, mx: [p.test]}]")
    clock = each._clock
    assert isinstance(clock, FakeClock)
    for site in ("a", "b"):
        each.meet(Aim(site, ("mx.p.test",)), lambda _: True)
    each.ended(each.started("a", "acme", stays=False), outcome("a", Result(Verdict.DELIVERED, Reply(250, "", "ok"))))
    key = (("tenant", "acme"), ("provider", "p"))
    assert [each.room(site, "acme", 0, stays=False) for site in ("a", "b")] == [key, key]
    assert each.room("b", "other", 0, stays=False) is None
    assert each.room("b", "", 0, stays=False) is None
    assert each.next_look() == 10.0
    assert each.to_look_at() == []


async def test_sites_and_limits_are_looked_at_when_their_time_has_come() -> None:
    each = gate("limits: [{by: [tenant], messages: 1/10s}]")
    clock = each._clock
    assert isinstance(clock, FakeClock)
    attempt(each, "a", "a")
    by = {each.room("a", "acme", 0, stays=False), each.room("a", "acme", 0, stays=False)}
    assert by == {"a"}  # the pause after a refusal is longer
    attempt(each, "b", "b")
    seconds = each.next_look()
    assert seconds is not None
    await clock.advance(seconds)
    assert each.to_look_at() == ["a"]
    assert each.next_look() is None


NO_GREETING = Result(Verdict.DEFERRED, Reply(554, "5.3.2", "no"), Scope.HOST)


async def test_why_names_what_holds_until_when_and_the_reply() -> None:
    each = gate(
        "limits: [{by: [tenant], messages: 1/10s, burst: 50}]\n"
        "rules: [{match: spam, action: pause, of: tenant, lasts: 60}, "
        "{match: block, action: pause, of: site, lasts: 60}]"
    )
    assert each.why("new", "acme", 0) == (HeldBy.TURN, 0.0, "")
    now = each._clock.now()
    assert each.why("new", "acme", 5).gate is HeldBy.SITE_FULL
    assert each.connections("new", "acme") == 5
    attempt(each, "slow", "slow")
    assert (each.why("slow", "acme", 0).gate, each.why("slow", "acme", 0).reply) == (HeldBy.RATE, str(ENOUGH.reply))
    for site, word in (("spam", "spam"), ("block", "block")):
        result = Result(Verdict.DEFERRED, Reply(450, "4.7.1", word), Scope.MESSAGE)
        each.ended(each.started(site, "acme", stays=False), outcome(site, result))
    assert each.why("spam", "acme", 0) == (HeldBy.TENANT_PAUSED, now + 60, "450 4.7.1 spam")
    assert each.why("spam", "other", 0).gate is HeldBy.TURN
    assert each.why("block", "other", 0) == (HeldBy.SITE_PAUSED, now + 60, "450 4.7.1 block")
    for _ in range(5):
        failed = msgspec.structs.replace(outcome("dead", NO_GREETING), reach=Reach.HOST)
        each.ended(each.started("dead", "other", stays=False), failed)
    dead = each.why("dead", "acme", 0)
    assert (dead.gate, dead.reply) == (HeldBy.SITE_DEAD, "554 5.3.2 no")
    assert dead.until == now + 30
    clock = each._clock
    assert isinstance(clock, FakeClock)
    await clock.advance(31)
    each.started("dead", "other", stays=False)
    assert each.why("dead", "acme", 1) == (HeldBy.SITE_DEAD, 0.0, "554 5.3.2 no")  # until its probe has ended
    for _ in range(49):
        each.started("other", "busy", stays=False)
    assert each.why("free", "busy", 0).gate is HeldBy.TURN
    for _ in range(2):
        each.started("other", "busy", stays=False)
    limited = each.why("free", "busy", 0)
    assert (limited.gate, limited.until) == (HeldBy.TENANT_LIMITED, clock.now() + 20)
