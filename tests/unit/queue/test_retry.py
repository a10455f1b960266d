"""The retry schedule and the guard against clocks that jump."""

from hypothesis import given
from hypothesis import strategies as st

from mta.config import Retry
from mta.queue.retry import HINT_LIMIT, SETTLED, WallJumps, retry_interval

RETRY = Retry()
HOUR = 3600.0


def test_the_schedule_is_that_of_a4() -> None:
    steady = [retry_interval(RETRY, step, lambda: 0.5) for step in range(1, 9)]
    assert steady == [30, 300, 1800, 7200, 18000, 18000, 18000, 18000]


def test_a_message_can_have_intervals_of_its_own() -> None:
    own = (10.0, 60.0)
    steady = [retry_interval(RETRY, step, lambda: 0.5, own=own) for step in range(1, 5)]
    assert steady == [10, 60, 60, 60]
    assert retry_interval(RETRY, 1, lambda: 0.5, 900.0, own) == 945  # what the other side asks for counts with it, too


@given(st.integers(0, 100), st.floats(0, 1, exclude_max=True))
def test_jitter_is_a_tenth(step: int, random: float) -> None:
    plain = retry_interval(RETRY, step, lambda: 0.5)
    assert 0.9 * plain <= retry_interval(RETRY, step, lambda: random) <= 1.1 * plain


@given(st.floats(-10, 1e9), st.floats(0, 1, exclude_max=True))
def test_a_hint_is_honoured_within_reason_and_never_shortened(hint: float, random: float) -> None:
    interval = retry_interval(RETRY, 1, lambda: random, hint)
    if 0 < hint <= HINT_LIMIT:
        assert hint <= interval <= 1.1 * hint
    else:
        assert interval <= 33


def jumps(at: float = 0.0) -> WallJumps:
    return WallJumps(started_at=at, wall=at, monotonic=0.0)


def test_time_that_passed_expires() -> None:
    clock = jumps()
    assert clock.observe(72 * HOUR, 72 * HOUR) == 0
    assert clock.expired(accepted_at=0, expires_at=72 * HOUR, last_attempt_at=0, held=False)


def test_a_jump_expires_nothing_that_was_waiting() -> None:
    clock = jumps()
    clock.observe(HOUR, HOUR)
    assert clock.observe(73 * HOUR, HOUR + 1) > 71 * HOUR
    assert not clock.expired(accepted_at=0, expires_at=72 * HOUR, last_attempt_at=72.5 * HOUR, held=False)
    clock.observe(145 * HOUR, 73 * HOUR)
    assert clock.expired(accepted_at=0, expires_at=72 * HOUR, last_attempt_at=144 * HOUR, held=False)


def test_a_jump_right_after_acceptance_expires_nothing() -> None:
    clock = jumps(1000.0)
    clock.observe(1000.9 + 72 * HOUR, 0.9)
    assert not clock.expired(accepted_at=1000.5, expires_at=1000.5 + 72 * HOUR, last_attempt_at=0.0, held=False)


def test_what_came_after_a_jump_has_its_own_time() -> None:
    clock = jumps()
    clock.observe(100 * HOUR, 1.0)
    clock.observe(173 * HOUR, 1.0 + 73 * HOUR)
    assert clock.expired(accepted_at=101 * HOUR, expires_at=173 * HOUR, last_attempt_at=0, held=False)


def test_a_deadline_over_before_the_start_needs_an_attempt_since() -> None:
    clock = jumps(100 * HOUR)
    clock.observe(100 * HOUR + 1, 1)
    assert not clock.expired(accepted_at=0, expires_at=72 * HOUR, last_attempt_at=70 * HOUR, held=False)
    assert clock.expired(accepted_at=0, expires_at=72 * HOUR, last_attempt_at=100 * HOUR + 1, held=False)


def test_what_is_held_gets_no_attempt_and_expires_when_the_clock_has_stood_its_ground() -> None:
    clock = jumps(100 * HOUR)
    clock.observe(100 * HOUR + SETTLED - 1, SETTLED - 1)
    late = {"accepted_at": 0, "expires_at": 72 * HOUR, "last_attempt_at": 70 * HOUR}
    assert not clock.expired(**late, held=True)
    clock.observe(100 * HOUR + SETTLED, SETTLED)
    assert clock.expired(**late, held=True)
    assert not clock.expired(**late, held=False)


def test_a_clock_that_was_put_right_after_the_start_expires_nothing_held() -> None:
    clock = jumps(100 * HOUR)
    clock.observe(10 * HOUR, 30.0)
    clock.observe(10 * HOUR + SETTLED, 30.0 + SETTLED)
    assert not clock.expired(accepted_at=0, expires_at=72 * HOUR, last_attempt_at=0, held=True)


def test_what_came_after_a_clock_was_put_back_has_its_own_time() -> None:
    clock = jumps()
    clock.observe(48 * HOUR, 1.0)
    clock.observe(HOUR, HOUR)
    late = {"accepted_at": HOUR, "expires_at": 2 * HOUR, "last_attempt_at": 0}
    clock.observe(1.9 * HOUR, 1.9 * HOUR)
    assert not clock.expired(**late, held=False)
    assert not clock.over(HOUR, 2 * HOUR)
    clock.observe(2 * HOUR, 2 * HOUR)
    assert clock.expired(**late, held=False)


def test_slow_drift_is_no_jump() -> None:
    clock = jumps()
    for n in range(1, 100):
        assert clock.observe(n * 61.0, n * 60.0) == 0
