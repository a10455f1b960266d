"""The window of a site: it grows with what gets through, shrinks with what does not; a dead site is left alone."""

import math

from hypothesis import given
from hypothesis import strategies as st

from mta.queue.window import CEILING_FIRST, CEILING_LONGEST, DEAD_FIRST, DEAD_LONGEST, FIRST, Begun, Met, Window


def learned(window: Window, *outcomes: Met, at: float = 0.0) -> Window:
    """Let attempts follow each other, as many at work as the window has room for."""
    while window.when(at) <= at:
        window.started(at)
    for each in outcomes:
        window.ended(Begun(at, window.at_work - 1), each, at)
        while window.when(at) <= at:
            window.started(at)
    return window


def cohort(window: Window, size: int, at: float) -> list[Begun]:
    return [window.started(at) for _ in range(size)]


def dead(at: float = 10.0) -> Window:
    window = Window(limit=20)
    for begun in cohort(window, 5, at):
        window.ended(begun, Met.FAILED, at)
    assert window.size == 0
    return window


def test_it_begins_small_and_grows_to_the_limit_by_one_for_each_cohort() -> None:
    window = Window(limit=8)
    sizes = []
    for _ in range(50):
        sizes.append(window.size)
        learned(window, Met.REACHED)
    assert sizes == sorted(sizes)
    assert sizes[:6] == [5, 5, 5, 5, 5, 6]
    assert window.size == 8


def test_the_first_window_is_never_over_the_limit() -> None:
    window = Window(limit=2)
    cohort(window, 2, 0.0)
    assert window.when(0.0) == math.inf


def test_it_grows_only_as_far_as_it_is_used() -> None:
    window = Window(limit=100)
    for number in range(1000):
        window.ended(window.started(float(number)), Met.REACHED, float(number))
    assert window.size == FIRST + 1


def test_single_failures_among_successes_hold_it_where_it_was() -> None:
    window = learned(Window(limit=20), *[Met.REACHED] * 300)
    assert window.size == 20
    for _ in range(50):
        learned(window, *[Met.REACHED] * 40, Met.FAILED)
    assert 18 <= window.size <= 20


def test_hysteresis_a_first_failure_takes_one_and_the_next_take_less_than_one() -> None:
    window = learned(Window(limit=20), *[Met.REACHED] * 300)
    sizes = []
    for _ in range(6):
        learned(window, Met.FAILED)
        sizes.append(window.size)
    assert sizes == [19, 19, 19, 19, 19, 19]


def test_more_than_a_cohort_of_failures_is_death_and_a_pause_with_one_probe_after_it() -> None:
    window = dead(at=100.0)
    assert window.dead_until == 100.0 + DEAD_FIRST
    assert window.when(100.0) == 100.0 + DEAD_FIRST
    later = 100.0 + DEAD_FIRST
    assert window.when(later) == later
    window.started(later)
    assert window.when(later) == math.inf


def test_the_pause_doubles_while_the_probe_fails_and_ends_with_one_that_succeeds() -> None:
    window, now, pauses = dead(), 10.0, []
    for _ in range(8):
        pauses.append(window.dead_until - now)
        now = window.dead_until
        window.ended(window.started(now), Met.FAILED, now)
    assert pauses == [min(DEAD_FIRST * 2**number, DEAD_LONGEST) for number in range(8)]
    now = window.dead_until
    window.ended(window.started(now), Met.REACHED, now)
    assert (window.size, window.dead_for, window.dead_until) == (1, 0.0, -math.inf)


def test_stragglers_from_before_death_are_no_failed_probes_though_they_end_after_the_pause() -> None:
    window = Window(limit=20)
    begun = cohort(window, 5, 10.0)
    for each in begun[:4]:
        window.ended(each, Met.FAILED, 11.0)
    window.ended(window.started(11.0), Met.FAILED, 11.0)
    assert window.size == 0
    probe = window.started(11.0 + DEAD_FIRST)
    window.ended(begun[4], Met.FAILED, 12.0 + DEAD_FIRST)
    assert window.dead_for == DEAD_FIRST
    window.ended(probe, Met.REACHED, 13.0 + DEAD_FIRST)
    assert window.size == 1


def test_stragglers_do_not_hold_up_the_probe() -> None:
    window = Window(limit=20)
    begun = cohort(window, 5, 10.0)
    for each in begun[:4]:
        window.ended(each, Met.FAILED, 11.0)
    window.ended(window.started(11.0), Met.FAILED, 11.0)
    assert window.when(11.0 + DEAD_FIRST) == 11.0 + DEAD_FIRST


def test_a_straggler_that_gets_through_clears_the_dead_mark() -> None:
    window = Window(limit=20)
    begun = cohort(window, 5, 10.0)
    for each in begun[:4]:
        window.ended(each, Met.FAILED, 11.0)
    window.ended(window.started(11.0), Met.FAILED, 11.0)
    window.ended(begun[4], Met.REACHED, 12.0)
    assert window.when(12.0) == 12.0


def test_a_probe_that_says_nothing_leaves_room_for_another() -> None:
    window = dead()
    now = window.dead_until
    window.ended(window.started(now), Met.NOTHING, now)
    assert window.when(now) == now


def test_a_number_of_connections_that_was_refused_is_not_tried_for_a_while() -> None:
    window = Window(limit=20)
    for begun in cohort(window, 5, 0.0)[::-1]:
        window.ended(begun, Met.TURNED_AWAY if begun.beside >= 2 else Met.REACHED, 1.0)
    assert (window.size, window.ceiling) == (2, 3)
    for second in range(2, int(CEILING_FIRST)):
        for begun in cohort(window, 2, float(second)):
            window.ended(begun, Met.REACHED, second + 0.5)
        assert window.size == 2


def test_the_while_doubles_with_each_confirmation_and_ends_when_the_number_is_allowed() -> None:
    window, now, held = Window(limit=20), 0.0, []
    for _ in range(9):
        window.size = 3
        begun = cohort(window, 3, now)
        window.ended(begun[2], Met.TURNED_AWAY, now)
        for each in begun[:2]:
            window.ended(each, Met.NOTHING, now)
        held.append(window.ceiling_for)
        now += 10_000.0
    assert held == [min(CEILING_FIRST * 2**number, CEILING_LONGEST) for number in range(9)]
    for _ in range(10):
        begun = cohort(window, window.size, now)
        for each in begun:
            window.ended(each, Met.REACHED, now)
    assert window.size > 3
    assert window.ceiling is None


def test_one_that_was_alone_when_it_was_turned_away_says_nothing_of_numbers() -> None:
    window = Window(limit=20)
    window.ended(window.started(0.0), Met.TURNED_AWAY, 0.0)
    assert (window.size, window.ceiling) == (FIRST, None)


def test_what_is_recalled_is_within_the_limit_and_alive() -> None:
    window = Window(limit=4)
    window.recall(size=12, ceiling=3, ceiling_for=60.0, since=-10.0)
    assert (window.size, window.ceiling) == (4, 3)


Step = st.tuples(st.sampled_from(["start", "end"]), st.sampled_from(list(Met)), st.floats(0, 100), st.integers(0, 99))


@given(st.integers(1, 30), st.lists(Step, max_size=200))
def test_whatever_happens_it_keeps_to_its_limit_and_is_tried_again_some_time(
    limit: int, steps: list[tuple[str, Met, float, int]]
) -> None:
    window, now, at_work = Window(limit=limit), 0.0, list[Begun]()
    for step, met, pause, which in steps:
        now += pause
        if step == "start" and window.when(now) <= now:
            at_work.append(window.started(now))
        elif step == "end" and at_work:
            before = window.size
            window.ended(at_work.pop(which % len(at_work)), met, now)
            assert window.size <= before + 1
        assert 0 <= window.size <= limit
        assert window.at_work == len(at_work) <= limit + 1  # a probe beside stragglers
        assert window.when(now) >= now
        if not at_work:
            assert window.when(now) <= now + DEAD_LONGEST


@given(st.lists(st.sampled_from([Met.FAILED, Met.TURNED_AWAY, Met.NOTHING]), max_size=60), st.integers(2, 20))
def test_it_recovers_from_anything_without_falling_back(before: list[Met], limit: int) -> None:
    window, now = Window(limit=limit), 0.0
    for met in before:
        now = max(now, window.when(now))
        begun = cohort(window, max(1, window.size), now)
        for each in begun:
            window.ended(each, met, now + 1)
        now += 1
    sizes = [window.size]
    for _ in range(2 * limit + 5):
        now = max(now, window.when(now)) + CEILING_LONGEST
        for each in cohort(window, max(1, window.size), now):
            window.ended(each, Met.REACHED, now)
        sizes.append(window.size)
    assert sizes == sorted(sizes)
    assert sizes[-1] == limit
