"""The gate: what is in the way and when to ask again, and what an attempt teaches of which site."""

import pytest

from mta.delivery import gate as module
from mta.delivery.gate import Gate
from mta.lab.clock import FakeClock
from mta.mail.reply import Reply
from mta.mail.result import Outcome, Reach, Result, Scope, Verdict
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
