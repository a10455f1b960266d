"""The decisive test: a provider whose limits nobody told us is found out by its refusals alone, on simulated time.

It allows 20 messages a minute and 2 connections and says 421 beyond, at the greeting or at MAIL, counting a minute as a
sliding window, a fixed one or a bucket; near or far, with messages short or long. A failure has its seed in its name.
"""

from random import Random

import pytest

from mta.queue.limits import Limits
from mta.queue.shaping import Shaping
from tests.unit.queue.provider import ABOUT, Habits, Provider, Sender

START, MINUTE = 1000.0, 60.0
TEN = 10 * MINUTE
SEEDS = range(36)


def habits_of(rng: Random) -> Habits:
    return Habits(
        counting=rng.choice(("sliding", "sliding", "fixed", "bucket")),
        at_greeting=rng.random() < 0.5,
        counts_refused=rng.random() < 0.3,
        trip=10 ** rng.uniform(-2, -0.4),
        content=10 ** rng.uniform(-1.3, 0.17),
        unknown=rng.choice((0.0, 0.0, 0.3, 0.7)),
    )


def sender(seed: int, **changes: object) -> Sender:
    rng = Random(seed)
    return Sender(Provider(habits_of(rng)._replace(**changes), rng), rng)


@pytest.mark.parametrize("seed", SEEDS)
def test_after_ten_minutes_it_sends_what_is_allowed_and_is_hardly_ever_refused(seed: int) -> None:
    sim = sender(seed)
    sim.run(START + 7 * TEN)
    # what a provider that counts in buckets or fixed minutes lets through in ten minutes can be a minute's more
    most = 20 if sim.provider.habits.counting == "sliding" else 22
    for number in range(1, 7):
        since, until = START + number * TEN, START + (number + 1) * TEN
        assert 16 <= sim.mean(since, until) <= most, f"{sim.provider.habits}: from minute {number * 10}"
        assert sim.refused(since, until) < 0.05, f"{sim.provider.habits}: from minute {number * 10}"
    offered = [taken for at, taken in sim.provider.offered if at >= START + TEN]
    assert offered.count(False) < 0.05 * len(offered), sim.provider.habits


@pytest.mark.parametrize("seed", SEEDS[::6])
def test_a_restart_begins_with_what_was_known(seed: int) -> None:
    sim = sender(seed, counting="sliding")
    sim.run(START + 3 * TEN)
    learned, pauses = sim.limits.learned(sim.now, wall=1e9)
    restarted = Limits(Shaping(), 20)
    restarted.recall(learned, pauses, now=5.0, wall=1e9 + 2 * MINUTE)
    rng = Random(seed)
    again = Sender(Provider(sim.provider.habits, rng), rng, restarted, now=5.0)
    again.run(5.0 + TEN)
    assert 16 <= again.mean(5.0, 5.0 + TEN) <= 20
    assert again.refused(5.0, 5.0 + TEN) < 0.05
    assert again.most_at_work <= 3  # the third tries the number that was refused, at most


@pytest.mark.parametrize("seed", SEEDS[::6])
def test_what_is_learned_goes_by_site_and_is_forgotten_when_asked(seed: int) -> None:
    sim = sender(seed)
    sim.run(START + TEN)
    other = ABOUT._replace(site="elsewhere.test", hosts=("elsewhere.test",))
    assert sim.limits.when(other, sim.now) == sim.now
    assert sim.limits.rows(sim.now)[0].rate is not None
    sim.limits.forget(ABOUT.site)
    assert sim.limits.rows(sim.now)[0].rate is None


@pytest.mark.parametrize("seed", SEEDS[::6])
def test_a_limit_that_is_raised_is_found_within_an_hour(seed: int) -> None:
    sim = sender(seed, trip=0.05, content=0.1)
    sim.run(START + 3 * TEN)
    sim.provider.habits = sim.provider.habits._replace(per_minute=100, connections=10)
    sim.run(sim.now + 6 * TEN)
    assert sim.mean(sim.now - TEN, sim.now) > 75


@pytest.mark.parametrize("seed", SEEDS[::6])
def test_a_limit_that_is_lowered_is_found_within_an_hour(seed: int) -> None:
    sim = sender(seed)
    sim.run(START + 3 * TEN)
    sim.provider.habits = sim.provider.habits._replace(per_minute=5)
    sim.run(sim.now + 7 * TEN)
    assert sim.mean(sim.now - TEN, sim.now) >= 4
    assert sim.refused(sim.now - TEN, sim.now) < 0.1


@pytest.mark.parametrize(("per_minute", "connections"), [(2, 1), (5, 2), (60, 3), (200, 5)])
def test_other_limits_are_found_as_well(per_minute: int, connections: int) -> None:
    sim = sender(1, per_minute=per_minute, connections=connections, trip=0.02, content=0.05)
    sim.run(START + 9 * TEN)
    assert 0.7 * per_minute <= sim.mean(START + 3 * TEN, sim.now) <= per_minute
    assert sim.refused(START + 3 * TEN, sim.now) < 0.06


def test_a_site_that_ends_connections_after_ten_messages_is_not_slowed_for_it() -> None:
    sim = sender(1, per_connection=10, counting="sliding")
    sim.run(START + 4 * TEN)
    assert sim.mean(START + TEN, sim.now) >= 16
    free = sender(1, per_connection=10, per_minute=10**9, connections=10**9, trip=0.1, content=0.1)
    free.run(START + MINUTE / 2)
    assert free.mean(START, free.now) > 2000
    assert free.limits.deliveries_per_connection(ABOUT, 1000) == 10


def test_a_site_without_limits_is_never_slowed() -> None:
    sim = sender(1, per_minute=10**9, connections=10**9, trip=0.01, content=0.01)
    sim.run(START + MINUTE / 6)
    assert sim.most_at_work == 20
    assert sim.refused(START, sim.now) == 0
