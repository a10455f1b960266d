"""The window of a site: it grows with what gets through, shrinks with what does not, and a dead site is left alone."""

from hypothesis import given
from hypothesis import strategies as st

from mta.queue.window import DEAD_FIRST, DEAD_LONGEST, Window


def learned(window: Window, *outcomes: bool, at: float = 0.0) -> Window:
    for each in outcomes:
        window.learn(each, at)
    return window


def test_it_begins_small_and_grows_to_the_limit_in_steps_of_a_cohort() -> None:
    window = Window(limit=8)
    sizes = []
    for _ in range(50):
        sizes.append(window.size)
        learned(window, True)
    assert sizes == sorted(sizes)
    assert sizes[:6] == [5, 5, 5, 5, 5, 6]
    assert window.size == 8


def test_the_first_window_is_never_over_the_limit() -> None:
    window = Window(limit=2)
    assert [window.room(count, 0.0) for count in range(4)] == [True, True, False, False]


def test_single_failures_among_successes_hold_it_where_it_was() -> None:
    window = learned(Window(limit=20), *[True] * 200)
    assert window.size == 20
    for _ in range(50):
        learned(window, *[True] * 40, False)
    assert 18 <= window.size <= 20


def test_a_cohort_of_failures_is_death_and_a_pause() -> None:
    window = learned(Window(limit=20), *[False] * 4, at=100.0)
    assert window.size == 0
    assert not window.room(0, 100.0 + DEAD_FIRST - 0.1)
    assert window.room(0, 100.0 + DEAD_FIRST)
    assert not window.room(1, 100.0 + DEAD_FIRST)


def test_the_pause_doubles_while_the_probe_fails_and_ends_with_one_that_succeeds() -> None:
    window, now, pauses = learned(Window(limit=20), *[False] * 4, at=0.0), 0.0, []
    for _ in range(8):
        pauses.append(window.dead_until - now)
        now = window.dead_until
        learned(window, False, at=now)
    assert pauses == [min(DEAD_FIRST * 2**number, DEAD_LONGEST) for number in range(8)]
    learned(window, True, at=now)
    assert window.room(0, now)
    assert not window.room(1, now)
    learned(window, *[False] * 2, at=now)
    assert window.dead_until == now + DEAD_FIRST


def test_failures_that_were_begun_before_death_do_not_lengthen_it() -> None:
    window = learned(Window(limit=20), *[False] * 4, at=10.0)
    until = window.dead_until
    learned(window, *[False] * 15, at=11.0)
    assert window.dead_until == until


@given(st.integers(1, 50), st.lists(st.tuples(st.booleans(), st.floats(0, 100)), max_size=300))
def test_whatever_happens_it_stays_within_its_limits(limit: int, outcomes: list[tuple[bool, float]]) -> None:
    window, now = Window(limit=limit), 0.0
    for reached, pause in outcomes:
        now += pause
        before = window.size
        learned(window, reached, at=now)
        assert 0 <= window.size <= limit
        assert abs(window.size - before) <= 1 or window.size == 0
        assert window.dead_until <= now + DEAD_LONGEST
        assert window.room(0, now + DEAD_LONGEST)  # it is tried again some time
        assert not window.room(limit, now)
