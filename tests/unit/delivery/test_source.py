"""Which source: weights are kept, caps never exceeded, parked ones never chosen, the rest goes to warm ones."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mta.delivery.source import DAY, NEVER, OPEN, Source, Standing, Wait, Want, WarmUp, begin, choose, standing
from mta.queue.shares import Shares
from mta.spool.records import RECIPIENTS_PER_ENTRY

NOW = 1_800_000_000.0
DAY_NOW = int(NOW // DAY)


def anywhere(_: str) -> bool:
    return True


def source(name: str = "a", *addresses: str, warm_up: WarmUp | None = None) -> Source:
    return Source(name, f"{name}.test", addresses, warm_up)


def want(recipients: int = 1, **options: object) -> Want:
    return Want("gmail", recipients, **options)  # type: ignore[arg-type]


def test_the_address_is_of_the_peer_s_family() -> None:
    both, old = source("a", "192.0.2.1", "2001:db8::1"), source("b", "192.0.2.2")
    assert both.local("198.51.100.1") == "192.0.2.1"
    assert both.local("2001:db8:1::1") == "2001:db8::1"
    assert old.local("2001:db8:1::1") is None
    assert source("").local("2001:db8:1::1") == ""  # the system's choice


@pytest.mark.parametrize(("days", "expected"), [(-2, 0), (-1, 0), (0, 50), (1, 100), (2, None), (300, None)])
def test_a_warm_up_has_a_cap_a_day_and_then_is_over(days: int, expected: int | None) -> None:
    assert WarmUp(DAY_NOW, (50, 100)).cap(DAY_NOW + days) == expected


def test_a_cap_opens_again_at_midnight() -> None:
    warming = source(warm_up=WarmUp(DAY_NOW, (50,)))
    assert standing(warming, want(10), 40, OPEN, NOW) == OPEN
    found = standing(warming, want(11), 40, OPEN, NOW)
    assert found.opens_at == (DAY_NOW + 1) * DAY
    assert found.why == "40 of today's 50 for gmail"


def test_a_warm_up_that_has_not_begun_opens_on_its_first_day() -> None:
    later = source(warm_up=WarmUp(DAY_NOW + 3, (50,)))
    assert standing(later, want(), 0, OPEN, NOW) == ((DAY_NOW + 3) * DAY, "its warm-up has not begun")


def test_parked_until_the_time_is_over() -> None:
    parked = Standing(NOW + 5, "parked: blocked")
    assert standing(source(), want(), 0, parked, NOW) == parked
    assert standing(source(), want(), 0, parked, NOW + 5) == OPEN


def test_none_may_be_used_until_the_first_one_may() -> None:
    standings = {"a": Standing(NOW + 50, "parked: x"), "b": Standing(NEVER, "cannot reach it")}
    found = choose(standings, Shares(), want(), NOW, anywhere)
    assert found == Wait(NOW + 50, "a: parked: x, b: cannot reach it")


def test_what_waits_for_room_alone_waits_for_a_place() -> None:
    shares, standings = Shares[str](), {"a": Standing(NOW), "b": Standing(NOW + 9, "parked: x")}
    assert choose(standings, shares, want(), NOW, lambda _: False) == Wait(NOW, "a: no room, b: parked: x")
    assert choose(standings, shares, want(), NOW, lambda name: name == "a") == "a"


def test_the_preferred_goes_out_of_turn_and_is_not_charged() -> None:
    standings = {"a": OPEN, "b": OPEN}
    shares = Shares[str]()
    assert {choose(standings, shares, want(preferred="b"), NOW, anywhere) for _ in range(5)} == {"b"}
    assert Counter(choose(standings, shares, want(), NOW, anywhere) for _ in range(10)) == {"a": 5, "b": 5}
    assert choose(standings, shares, want(preferred="b"), NOW, lambda name: name != "b") == Wait(NOW, "b: no room")
    standings["b"] = Standing(NOW + 9, "parked: x")
    assert choose(standings, shares, want(preferred="b"), NOW, anywhere) == "a"


weights = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 20), min_size=1)


@settings(deadline=None, max_examples=50)
@given(weights, st.lists(st.integers(1, RECIPIENTS_PER_ENTRY), min_size=1, max_size=20))
def test_weights_are_kept_in_recipients(weighted: dict[str, int], sizes: list[int]) -> None:
    shares = Shares[str](weighted.__getitem__)
    got = Counter[str]()
    for size in sizes * (1500 // len(sizes)):
        chosen = choose(dict.fromkeys(weighted, OPEN), shares, want(size), NOW, anywhere)
        assert isinstance(chosen, str)
        got[chosen] += size
    for name, weight in weighted.items():
        due = got.total() * weight / sum(weighted.values())
        assert abs(got[name] - due) <= max(0.05 * due, 2 * RECIPIENTS_PER_ENTRY)


@pytest.mark.parametrize("each", [1, 2, 3])
@pytest.mark.parametrize("recipients", [1, 10])
def test_weights_are_kept_over_many_sites_that_get_little(each: int, recipients: int) -> None:
    weighted = {"a": 1, "b": 9, "c": 2}
    got = Counter[str]()
    for number in range(6000):
        wanted = Want(f"site{number}", recipients)
        shares = begin(weighted, "default", wanted)
        for _ in range(each):
            chosen = choose(dict.fromkeys(weighted, OPEN), shares, wanted, NOW, anywhere)
            assert isinstance(chosen, str)
            got[chosen] += 1
    for name, weight in weighted.items():
        assert got[name] == pytest.approx(6000 * each * weight / 12, rel=0.05, abs=60)


class Pool:
    """Sources of a pool on one day, some parked, some warming up."""

    def __init__(self, weighted: dict[str, int], caps: dict[str, int], parked: set[str]) -> None:
        self.caps = {name: cap for name, cap in caps.items() if name in weighted}
        self.parked = parked
        self.sources = {
            name: source(name, warm_up=WarmUp(DAY_NOW, (self.caps[name],)) if name in self.caps else None)
            for name in weighted
        }
        self.shares = Shares[str](weighted.__getitem__)
        self.counted = Counter[str]()

    @property
    def warm(self) -> set[str]:
        return set(self.sources) - set(self.caps) - self.parked

    def next(self, recipients: int) -> str | Wait:
        standings = {
            name: standing(
                each,
                want(recipients),
                self.counted[name],
                Standing(NOW + 1, "parked: x") if name in self.parked else OPEN,
                NOW,
            )
            for name, each in self.sources.items()
        }
        chosen = choose(standings, self.shares, want(recipients), NOW, anywhere)
        if isinstance(chosen, str):
            self.counted[chosen] += recipients
        return chosen


@given(
    weights,
    st.dictionaries(st.sampled_from("abcdef"), st.integers(50, 200)),
    st.sets(st.sampled_from("abcdef")),
    st.lists(st.integers(1, RECIPIENTS_PER_ENTRY), max_size=60),
)
def test_caps_and_parking_are_kept_and_the_rest_goes_to_warm_sources(
    weighted: dict[str, int], caps: dict[str, int], parked: set[str], sizes: list[int]
) -> None:
    pool = Pool(weighted, caps, parked)
    for size in sizes:
        before = Counter(pool.counted)
        chosen = pool.next(size)
        fitting = {name for name in set(pool.caps) - parked if before[name] + size <= pool.caps[name]}
        if isinstance(chosen, Wait):
            assert not pool.warm  # whoever is warm takes what the others may not
            assert not fitting
            assert NOW < chosen.until <= (DAY_NOW + 1) * DAY
        else:
            assert chosen in pool.warm | fitting
    assert all(pool.counted[name] <= cap for name, cap in pool.caps.items())
    assert not any(pool.counted[name] for name in parked)


def test_who_was_parked_gets_nothing_for_that_time() -> None:
    pool = Pool({"a": 1, "b": 1}, {}, {"b"})
    assert Counter(pool.next(1) for _ in range(50)) == {"a": 50}
    pool.parked = set()
    assert Counter(pool.next(1) for _ in range(50)) == {"a": 25, "b": 25}
