"""Token buckets: never over the limit, exact whatever the clock does, never stuck."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.queue import bucket as bucket_module
from mta.queue.bucket import FASTEST, TICKS, Allowance, Bucket, Buckets, Limit, gap_of

Rates = st.floats(1e-4, 1e4)
Pauses = st.lists(st.one_of(st.just(0.0), st.floats(0, 0.01), st.floats(0, 1000)), min_size=1, max_size=120)
Starts = st.sampled_from([0.0, 12.3456789, 1e5, 1e9])


def admitted(rate: float, burst: int, start: float, pauses: list[float]) -> list[float]:
    """Ask after each pause; return when one was let through."""
    bucket, now, gap, found = Bucket(), start, gap_of(rate), []
    for pause in pauses:
        now += pause
        if bucket.when(now, gap, burst) <= now:
            bucket.take(now, gap)
            found.append(now)
    return found


@given(Rates, st.integers(1, 20), Starts, Pauses)
def test_over_any_stretch_no_more_than_burst_and_rate_allow(
    rate: float, burst: int, start: float, pauses: list[float]
) -> None:
    times = admitted(rate, burst, start, pauses)
    for first in range(len(times)):
        for last in range(first, len(times)):
            assert last - first + 1 <= burst + rate * (times[last] - times[first]) + 1e-6 + rate * 3 / TICKS


@given(Rates, st.integers(1, 5), Starts, st.integers(1, 50))
def test_when_is_kept_and_wastes_no_more_than_the_rounding(rate: float, burst: int, start: float, count: int) -> None:
    bucket, now, gap = Bucket(), start, gap_of(rate)
    for _ in range(count):
        now = bucket.when(now, gap, burst)
        assert bucket.when(now, gap, burst) == now
        bucket.take(now, gap)
    assert now - start <= max(0, count - burst) * (1 / rate + 2 / TICKS) + count / TICKS


def test_twenty_a_minute_is_twenty_a_minute() -> None:
    for burst in (1, 5, 20):
        times = admitted(20 / 60, burst, 0.0, [0.01] * 60_000)
        assert len(times) == burst + 199


def test_a_clock_that_stands_still_lets_the_burst_through_and_no_more() -> None:
    assert len(admitted(10.0, 7, 1e9, [0.0] * 1000)) == 7


def test_a_clock_that_jumps_back_gives_nothing_and_takes_nothing() -> None:
    bucket, gap = Bucket(), gap_of(1.0)
    bucket.take(1000.0, gap)
    assert bucket.when(400.0, gap) == 401.0
    assert bucket.when(400.5, gap) == 401.0
    assert bucket.when(401.0, gap) == 401.0


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50), Rates)
def test_whatever_the_clock_does_it_is_never_stuck(steps: list[float], rate: float) -> None:
    bucket, now, gap = Bucket(), 0.0, gap_of(rate)
    for step in steps:
        now += step
        if bucket.when(now, gap) <= now:
            bucket.take(now, gap)
        assert bucket.when(now, gap) <= now + (gap + 2) / TICKS


def test_to_wait_never_shortens_a_wait() -> None:
    bucket = Bucket()
    bucket.wait(0.0, 10.0)
    bucket.wait(4.0, 2.0)
    assert bucket.when(4.0, TICKS) == 10.0


@given(st.lists(st.tuples(st.floats(0, 3), st.booleans()), max_size=30), Rates)
def test_what_is_taken_back_is_as_if_it_had_not_been(starts: list[tuple[float, bool]], rate: float) -> None:
    with_them, without, now, gap = Bucket(), Bucket(), 0.0, gap_of(rate)
    for later, kept in starts:
        with_them.take(now, gap)
        if kept:
            without.take(now, gap)
        now += later
        if not kept:
            with_them.take(now, -gap)
        assert with_them.when(now, gap) == without.when(now, gap)


@given(st.floats(1e-6, FASTEST, exclude_max=True))
def test_a_gap_is_the_least_number_of_ticks_that_does_not_exceed_the_rate(rate: float) -> None:
    gap = gap_of(rate)
    assert gap >= TICKS / rate * (1 - 1e-12)
    assert gap - 1 < TICKS / rate


def test_beyond_the_fastest_nothing_is_limited() -> None:
    assert gap_of(FASTEST) == gap_of(float("inf")) == 0


BY_TENANT = Limit(("tenant",), Allowance(2, 1.0, 2))
BY_PAIR = Limit(("tenant", "provider"), Allowance(1, 10.0))


def test_each_combination_of_facts_has_a_bucket_and_an_attempt_takes_from_all_of_its_own() -> None:
    buckets = Buckets([BY_TENANT, BY_PAIR])
    acme = {"tenant": "acme", "provider": "gmail", "site": "x"}
    buckets.take(acme, 0.0)
    assert buckets.when(acme, 0.0) == (10.0, BY_PAIR.by)
    assert buckets.when({**acme, "provider": "yahoo"}, 0.0)[0] == 0.0
    assert buckets.when({**acme, "tenant": "other"}, 0.0)[0] == 0.0
    buckets.take({**acme, "provider": "yahoo"}, 0.0)
    assert buckets.when({**acme, "provider": "web.de"}, 0.0)[0] == 0.5  # the tenant's own


def test_a_limit_by_what_an_attempt_does_not_have_is_none_of_its_business() -> None:
    buckets = Buckets([BY_PAIR])
    for _ in range(10):
        assert buckets.when({"tenant": "acme", "provider": ""}, 0.0)[0] == 0.0
        buckets.take({"tenant": "acme", "provider": ""}, 0.0)
    assert len(buckets) == 0


def test_memory_is_bounded_by_what_owes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket_module, "_MOST", 100)
    buckets = Buckets([BY_TENANT])
    for number in range(10_000):
        buckets.take({"tenant": str(number)}, number / 100)  # owes for half a second, with 49 others
    assert len(buckets) <= 100
    buckets.take({"tenant": "9999"}, 99.99)
    assert buckets.when({"tenant": "9999"}, 99.99)[0] > 99.99  # what owes was not forgotten
