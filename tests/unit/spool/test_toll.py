"""GCRA against its promise: never more than fits into a time and a burst, and who waits as told gets in."""

from hypothesis import example, given
from hypothesis import strategies as st

from mta.spool.interface import Throttled, Toll
from mta.spool.toll import Spent, take

NOW = 1_800_000_000.0
rates = st.builds(
    lambda messages, seconds: (seconds / messages, max(1, messages // 100)),
    st.integers(1, 100_000),
    st.integers(1, 3600),
)


def asked(units: int, rate: tuple[float, int]) -> Toll:
    return Toll("t", *rate, units)


@given(rates, st.lists(st.tuples(st.floats(0, 60), st.integers(1, 50)), max_size=60))
@example((0.0006, 10), [(0.0, 10), (0.006, 10)] * 30)
def test_over_any_time_come_no_more_than_fit_and_a_burst(rate: tuple[float, int], steps: list[tuple[float, int]]):
    interval, burst = rate
    now, spent, came = NOW, None, list[tuple[float, int]]()
    for passed, units in steps:
        now += passed
        result = take([asked(min(units, burst), rate)], [spent], now)
        if not isinstance(result, Throttled):
            (spent,) = result
            came.append((now, min(units, burst)))
    for first, (begin, _) in enumerate(came):
        total = 0
        for end, units in came[first:]:
            total += units
            assert total * interval <= burst * interval + (end - begin) + 1e-5 * len(came)


@given(rates, st.integers(1, 3), st.lists(st.integers(1, 300), min_size=1, max_size=40))
def test_who_waits_as_long_as_it_was_told_gets_in(rate: tuple[float, int], tolls: int, steps: list[int]):
    now, spent = NOW, list[Spent | None]([None] * tolls)
    for units in steps:
        wanted = [asked(units, (rate[0] * (number + 1), rate[1])) for number in range(tolls)]
        result = take(wanted, spent, now)
        if isinstance(result, Throttled):
            before = take(wanted, spent, now + result.retry_after * 0.9 - 1e-5)
            assert isinstance(before, Throttled)
            now += result.retry_after
            result = take(wanted, spent, now)
        assert not isinstance(result, Throttled)
        spent = list(result)


@given(rates, st.integers(1, 2000))
def test_a_rate_that_is_always_asked_for_is_given_in_full(rate: tuple[float, int], waits: int):
    """The burst comes first, then one each interval: no time that passes is lost."""
    interval, burst = rate
    (spent,) = take([asked(burst, rate)], [None], NOW)  # type: ignore[misc]
    now = NOW
    for number in range(1, min(waits, 200) + 1):
        throttled = take([asked(1, rate)], [spent], now)
        assert isinstance(throttled, Throttled)
        now += throttled.retry_after
        (spent,) = take([asked(1, rate)], [spent], now)  # type: ignore[misc]
        assert abs(now - NOW - number * interval) < 1e-5 * number


def test_of_several_the_one_that_takes_longest_is_told():
    spent = [Spent(NOW, seconds, 1.0) for seconds in (5.0, 9.0, 0.0)]
    tolls = [Toll(name, 1.0, 2, 1) for name in "abc"]
    assert take(tolls, spent, NOW + 1) == Throttled(1, 7.0, (NOW + 5, NOW + 9, NOW + 1))
