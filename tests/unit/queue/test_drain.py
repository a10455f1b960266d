"""How quickly lanes, sites and tenants drain."""

from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.queue import drain
from mta.queue.drain import DrainRates, FairParts, Rates
from mta.spool.records import Lane, MessageClass

LANE = Lane("acme", MessageClass.NORMAL, "one.test")
OTHER = Lane("acme", MessageClass.NORMAL, "two.test")


@given(st.floats(0.02, 50), st.floats(60, 3600))
def test_a_steady_rate_is_told_from_the_first_minute_on(rate: float, seconds: float) -> None:
    drained = DrainRates()
    count = min(int(rate * seconds), 4000)
    for number in range(count):
        drained.count(LANE, "mx", number / rate)
    if count >= 20:
        assert drained.of(LANE, "mx", count / rate).lane == pytest.approx(rate, rel=0.15)


def test_lane_site_and_tenant_have_their_own() -> None:
    drained = DrainRates()
    for number in range(600):
        drained.count(LANE, "mx", float(number))
        drained.count(OTHER, "mx" if number % 2 else "else", float(number))
    found = drained.of(LANE, "mx", 600.0)
    assert (found.lane, found.site, found.tenant) == (
        pytest.approx(1.0, rel=0.05), pytest.approx(1.5, rel=0.05), pytest.approx(2.0, rel=0.05)
    )  # fmt: skip
    assert drained.of(LANE, None, 600.0).site == 0.0
    assert drained.of(Lane("x", MessageClass.BULK, "one.test"), "none", 600.0) == Rates()


def test_a_rate_is_gone_some_minutes_after_the_last_attempt() -> None:
    drained = DrainRates()
    drained.count(LANE, "mx", 0.0)
    assert 0 < drained.of(LANE, "mx", 1.0).lane < 0.2  # one attempt is not one a second
    assert drained.of(LANE, "mx", 300.0).lane > 0
    assert drained.of(LANE, "mx", 600.0) == Rates()


def test_those_with_the_latest_attempts_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain, "MEASURED", 10)
    drained = DrainRates()
    for number in range(30):
        drained.count(Lane("acme", MessageClass.BULK, f"d{number}.test"), "mx", 0.0)
        drained.count(LANE, "mx", 0.0)
    assert len(drained._lanes._rates) == 10
    assert drained.of(LANE, "mx", 1.0).lane > 0
    assert drained.of(Lane("acme", MessageClass.BULK, "d0.test"), "mx", 1.0).lane == 0


lanes = st.builds(Lane, st.sampled_from("abc"), st.sampled_from(MessageClass), st.sampled_from(("x.test", "y.test")))


def by_class(there: Iterable[Lane]) -> Counter[tuple[str, MessageClass]]:
    return Counter((lane.tenant, lane.message_class) for lane in there)


@given(st.sets(lanes, min_size=1))
def test_fair_parts_make_a_whole(there: set[Lane]) -> None:
    parts = FairParts(by_class(there), {"a": 1.0, "b": 3.0, "c": 0.5}.__getitem__)
    assert sum(parts.of(lane) for lane in there) == pytest.approx(1.0)


def test_who_has_a_thousand_lanes_at_a_site_takes_nothing_of_anothers_part() -> None:
    """Red when a site's rate is divided by the lanes there: the estimate of a lone message is 500 times too late."""
    flood = [Lane("flood", MessageClass.NORMAL, f"d{number}.test") for number in range(1000)]
    bulk, high = (Lane("light", each, "one.test") for each in (MessageClass.BULK, MessageClass.HIGH))
    parts = FairParts(by_class([*flood, high, bulk]), {"flood": 1.0, "light": 3.0}.__getitem__)
    assert parts.of(high) == pytest.approx(3 / 4 * 8 / 9)
    assert parts.of(bulk) == pytest.approx(3 / 4 * 1 / 9)
    assert parts.of(flood[0]) == pytest.approx(1 / 4 / 1000)
