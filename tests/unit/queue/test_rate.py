"""The learned rate: nothing without a refusal, a little below after one, back along the cubic."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mta.queue.rate import BELOW, PAUSE_LONGEST, REST, SCALE_FIRST, SCALE_LONGEST, SLOWEST, Rate


def used(rate: Rate, seconds: float, now: float, *, share: float = 1.0) -> float:
    """Send as fast as allowed, or a share of that, with everything taken; return when it is."""
    until = now + seconds
    while now < until:
        now = max(now, rate.when(now))
        rate.started(now)
        rate.taken(now)
        now += (1 - share) / share / rate.rate if share < 1 else 0.0
    return now


def refused_at(per_minute: float, now: float = 1000.0) -> Rate:
    """A rate that was refused once after a minute at so many messages."""
    rate = Rate()
    for number in range(int(per_minute)):
        rate.started(now - 60 + number * 60 / per_minute)
        rate.taken(now - 60 + number * 60 / per_minute)
    rate.refused(now, now)
    return rate


def test_nothing_is_limited_before_a_refusal() -> None:
    rate = Rate()
    for _ in range(10_000):
        assert rate.when(5.0) == 5.0
        rate.started(5.0)
    assert rate.rate == math.inf


def test_a_refusal_shows_what_was_taken_in_the_last_minute() -> None:
    assert refused_at(20).rate == pytest.approx(BELOW * 20 / 60, rel=0.1)
    assert refused_at(6000).rate == pytest.approx(BELOW * 100, rel=0.1)


def test_after_a_burst_it_is_the_minute_that_counts() -> None:
    rate = Rate()
    for number in range(20):
        rate.started(1000 + number / 10)
        rate.taken(1000 + number / 10)
    rate.refused(1002.0, 1002.1)
    assert rate.rate == pytest.approx(BELOW * 20 / 60, rel=0.1)


def test_it_climbs_back_without_falling_rests_at_the_ceiling_and_leaves_it_behind() -> None:
    rate, now, found = refused_at(60), 1000.0, []
    ceiling = rate.ceiling
    for _ in range(100):
        now = used(rate, SCALE_FIRST / 25, now)
        found.append(rate.rate / ceiling)
    assert found == sorted(found)
    assert found[0] < 0.95
    assert sum(0.97 <= each <= 1.03 for each in found) >= 12  # of 35 until it is 3 % above
    assert found[-1] > 5


def test_only_time_in_which_the_rate_is_used_up_lets_it_climb() -> None:
    rate = refused_at(60)
    now = used(rate, 10.0, 1000.0)
    rate.started(now + 10.0)
    before = rate.rate
    now = used(rate, 1000.0, now + 20.0, share=0.3)
    assert rate.rate == before
    rate.started(now + 86400)
    assert rate.rate == before


def test_a_confirmed_ceiling_is_left_alone_for_longer_each_time_and_another_is_not() -> None:
    rate, now, scales = refused_at(60), 1000.0, []
    for _ in range(7):
        while rate.rate < rate.ceiling * 1.05:
            now = used(rate, 1.0, now)
        rate.refused(now, now)
        rate.taken(now)
        scales.append(rate.scale)
    assert scales == [min(SCALE_FIRST * 2 ** (number + 1), SCALE_LONGEST) for number in range(7)]
    while rate.rate < rate.ceiling * 2:
        now = used(rate, 1.0, now)
    rate.refused(now, now)
    assert rate.scale == SCALE_FIRST


def test_attempts_begun_before_the_last_fall_say_nothing_new() -> None:
    rate = refused_at(60)
    before = rate.rate, rate.when(1000.5)
    for _ in range(20):
        rate.refused(999.0, 1000.5)
    rate.slow(0.5, 60.0, 999.0, 1000.5)
    assert (rate.rate, rate.when(1000.5)) == before


def test_refusals_in_a_row_double_a_pause_and_leave_the_rate_as_it_is() -> None:
    rate, now, pauses = refused_at(60), 1000.0, []
    before = rate.rate
    for _ in range(12):
        pauses.append(rate.when(now) - now)
        now = rate.when(now)
        rate.started(now)
        rate.refused(now, now)
    assert pauses[:4] == pytest.approx([REST / before * 2**number for number in range(4)], rel=0.05)
    assert pauses[-1] == pytest.approx(PAUSE_LONGEST, rel=0.01)
    assert rate.rate == pytest.approx(before, rel=0.05)


def test_a_pause_of_ours_is_no_idle_time_and_what_was_taken_is_measured_over_it() -> None:
    rate, now = refused_at(60), 1000.0
    for _ in range(6):
        now = rate.when(now)
        rate.started(now)
        rate.refused(now, now)
    assert rate.when(now) - now > 60
    now = rate.when(now)
    rate.started(now)
    rate.taken(now)
    rate.refused(now + 1, now + 1)
    assert rate.rate < 0.1


def test_slowed_by_a_rule_it_is_back_when_the_rule_says() -> None:
    rate, now = refused_at(600), 1000.0
    now = used(rate, 30.0, now)
    before = rate.rate
    rate.slow(0.25, 900.0, now, now)
    assert rate.rate == pytest.approx(0.25 * before, rel=0.01)
    now = used(rate, 450.0, now)
    assert 0.8 * before < rate.rate < before
    used(rate, 451.0, now)
    assert rate.rate == pytest.approx(before, rel=0.01)


Events = st.lists(
    st.tuples(st.sampled_from(["send", "refused", "slow"]), st.floats(0, 2000), st.floats(0.01, 0.99)), max_size=80
)


@settings(deadline=None)
@given(Events)
def test_whatever_happens_it_is_never_stuck_and_recovers(events: list[tuple[str, float, float]]) -> None:
    rate, now = Rate(), 0.0
    for what, pause, factor in events:
        now += pause
        if rate.when(now) <= now:
            rate.started(now)
            if what == "send":
                rate.taken(now)
        if what == "refused":
            rate.refused(now, now)
        elif what == "slow":
            rate.slow(factor, 600.0, now, now)
        assert rate.rate >= SLOWEST
        assert rate.when(now) <= now + PAUSE_LONGEST + 1 / SLOWEST
    before, found = rate.rate, []
    for _ in range(40):
        now = used(rate, 30.0, now) if rate.rate < 5 else now
        found.append(rate.rate)
    assert found == sorted(found)
    assert found[-1] > min(5, before)
