"""Shares: what is got is in proportion to the weights, whoever comes has the next turn, nobody waits for nothing."""

from collections import Counter
from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mta.queue.shares import Shares

MEMBERS = st.sampled_from("abcdefgh")


@given(
    st.dictionaries(MEMBERS, st.integers(1, 9), min_size=2),
    st.lists(st.integers(1, 50), min_size=50, max_size=400),
)
def test_what_is_got_is_in_proportion_to_the_weights(weights: dict[str, int], costs: list[int]) -> None:
    shares, got = Shares[str](weights.__getitem__), Counter[str]()
    for each in weights:
        shares.enter(each)
    for cost in costs:
        member = shares.first()
        assert member is not None
        shares.charge(member, cost)
        got[member] += cost
    # the bound of the paper's theorem 1, for costs of at most 50
    for (one, its), (other, others) in combinations(weights.items(), 2):
        assert abs(got[one] / its - got[other] / others) <= 50 / its + 50 / others + 1e-6


@given(st.lists(MEMBERS, min_size=1, unique=True), st.integers(1, 500))
def test_whoever_comes_has_the_next_turn(there: list[str], turns: int) -> None:
    shares = Shares[str]()
    for each in there:
        shares.enter(each)
    for _ in range(turns):
        shares.charge(shares.first() or "", 3)
    shares.enter("late")
    served = []
    while "late" not in served:
        served.append(shares.first() or "")
        shares.charge(served[-1], 3)
    assert len(served) <= 1 + sum(1 for each in there)  # those who stand where it starts came before it
    assert max(Counter(served).values()) == 1


def test_nothing_is_saved_up_by_being_away() -> None:
    shares = Shares[str]()
    for each in ("always", "away"):
        shares.enter(each)
    shares.leave("away")
    for _ in range(1000):
        shares.charge("always")
    shares.enter("away")
    got = Counter[str]()
    for _ in range(100):
        member = shares.first() or ""
        shares.charge(member)
        got[member] += 1
    assert abs(got["away"] - got["always"]) <= 1


def test_nothing_is_forgotten_by_leaving_for_a_moment() -> None:
    shares = Shares[str]()
    for each in ("steady", "hasty"):
        shares.enter(each)
    got = Counter[str]()
    for _ in range(100):
        member = shares.first() or ""
        got[member] += 1
        shares.charge(member)
        if member == "hasty":
            shares.leave("hasty")
            shares.enter("hasty")
    assert abs(got["steady"] - got["hasty"]) <= 1


def test_whoever_was_kept_waiting_comes_before_all_at_the_same_point() -> None:
    shares = Shares[str]()
    for each in ("a", "b", "held", "also held"):
        shares.enter(each)
    for _ in range(4):
        shares.charge(shares.first() or "")
    for each in ("held", "also held"):
        shares.leave(each)
    shares.enter("late")  # whose place it is, but for those who have waited
    for each in ("held", "also held"):
        shares.enter(each, kept_waiting=True)
    served = []
    for _ in range(10):
        served.append(shares.first() or "")
        shares.charge(served[-1])
    assert served[:5] == ["late", "held", "also held", "a", "b"]
    assert len(set(served[5:])) == 5  # once: then it comes in its turn as all others


def test_a_weight_that_changes_holds_at_once() -> None:
    weights = {"a": 1.0, "b": 1.0}
    shares = Shares[str](weights.__getitem__)
    for each in weights:
        shares.enter(each)
    got = Counter[str]()
    for turn in range(500):
        if turn == 100:
            weights["a"] = 3.0
            got.clear()
        member = shares.first() or ""
        shares.charge(member)
        got[member] += 1
    assert abs(got["a"] - 3 * got["b"]) <= 4


class Machine(RuleBasedStateMachine):
    """Any sequence of calls: the turn is always somebody's who waits, and memory is bounded by who matters."""

    def __init__(self) -> None:
        super().__init__()
        self.shares = Shares[int]()
        self.there: set[int] = set()

    @rule(member=st.integers(0, 300))
    def enter(self, member: int) -> None:
        self.shares.enter(member)
        self.there.add(member)

    @rule(member=st.integers(0, 300))
    def leave(self, member: int) -> None:
        self.shares.leave(member)
        self.there.discard(member)

    @precondition(lambda self: self.there)
    @rule(cost=st.floats(0.5, 100))
    def serve(self, cost: float) -> None:
        member = self.shares.first()
        assert member is not None
        self.shares.charge(member, cost)

    @rule(cost=st.floats(0.5, 100), member=st.integers(0, 300))
    def charge_anybody(self, cost: float, member: int) -> None:
        self.shares.charge(member, cost)

    @invariant()
    def somebody_is_next_if_anybody_waits(self) -> None:
        first = self.shares.first()
        assert (first is None) == (not self.there)
        assert first is None or first in self.there
        assert len(self.shares) == len(self.there)

    @invariant()
    def nobody_who_waits_stands_behind_the_first(self) -> None:
        first = self.shares.first()
        if first is not None:
            points = self.shares._points
            assert points[first] == min(points[each] for each in self.there)


TestShares = Machine.TestCase


def test_many_who_come_and_go_leave_nothing() -> None:
    shares = Shares[int]()
    shares.enter(-1)
    for member in range(50_000):
        shares.enter(member)
        shares.charge(shares.first() or 0)
        shares.charge(member)
        shares.leave(member)
    assert len(shares._heap) < 1000
    assert len(shares._points) < 1000
