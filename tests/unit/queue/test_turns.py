"""Turns: shares as weights say at every level, the next slot for who comes, nothing free that could be used."""

from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterator

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mta.queue.turns import FEW, Turns
from mta.spool.records import Lane, MessageClass

NORMAL = MessageClass.NORMAL


def turns_of(limit: int = 1000, **weights: float) -> Turns[str]:
    return Turns[str](
        lambda tenant: weights.get(tenant, 1.0), lambda site, _, at_work, stays: None if at_work < limit else site
    )


def taken(turns: Turns[str], ended: str | None = None) -> tuple[Lane, str]:
    """The next, which there must be; its place is used again or the one before is given back."""
    found = turns.take(ended)
    assert found is not None
    lane, site, stays = found
    if ended is not None and not stays:
        turns.leave(ended)
    return lane, site


def deliveries(turns: Turns[str], slots: int, count: int, recipients: int = 1) -> Iterator[Lane]:
    """Keep all slots busy, each delivery as long as the others; gives the lanes as they are taken."""
    busy = deque[str | None]([None] * slots)
    for _ in range(count):
        ended = busy.popleft()
        found = turns.take(ended)
        if ended is not None and not (found and found[2]):
            turns.leave(ended)
        busy.append(found and found[1])
        if found:
            lane, site, _ = found
            turns.charge(lane, site, recipients - 1)
            yield lane


def test_weights_hold_at_a_site_and_in_the_process() -> None:
    for sites in (["x"], ["x", "y", "z"]):
        turns = turns_of(heavy=3.0, light=1.0)
        for site in sites:
            for tenant in ("heavy", "light"):
                turns.ready(Lane(tenant, NORMAL, f"{site}.test"), site)
        got = Counter(lane.tenant for lane in deliveries(turns, 10, 10_000))
        assert 2.85 <= got["heavy"] / got["light"] <= 3.15


def test_a_tenant_of_many_sites_gets_no_more_than_one_of_a_single_site() -> None:
    turns = turns_of()
    for number in range(10_000):
        turns.ready(Lane("flood", NORMAL, f"d{number}.test"), f"s{number}")
    turns.ready(Lane("light", NORMAL, "x.test"), "x")
    got = Counter(lane.tenant for lane in deliveries(turns, 10, 2000))
    assert abs(got["flood"] - got["light"]) <= 20


def test_a_thousand_domains_of_a_site_are_no_more_than_one() -> None:
    turns = turns_of(limit=10)
    for number in range(1000):
        turns.ready(Lane("flood", NORMAL, f"d{number}.test"), "site")
    turns.ready(Lane("light", NORMAL, "x.test"), "site")
    got = Counter(lane.tenant for lane in deliveries(turns, 50, 2000))
    assert abs(got["flood"] - got["light"]) <= 2


def test_a_tenant_of_many_sites_does_not_hold_up_another_at_one_of_them() -> None:
    turns = turns_of(limit=20)
    for number in range(4000):
        turns.ready(Lane("big", NORMAL, f"d{number}.test"), f"s{number}")
    turns.ready(Lane("small", NORMAL, "x.test"), "s17")
    turns.ready(Lane("other", NORMAL, "y.test"), "y")
    got = Counter(lane.tenant for lane in deliveries(turns, 200, 6000))
    # the limit of each site is 20 of 200 slots, and big, which has 3,999 others, takes few of small's
    assert got["other"] == pytest.approx(600, abs=30)
    assert got["small"] == pytest.approx(600, abs=60)


@pytest.mark.parametrize("slots", [1, 5, 40])
def test_a_light_tenant_of_many_sites_does_not_hold_up_a_heavy_one_at_some_of_them(slots: int) -> None:
    turns = turns_of(a=1.0, b=100.0, **{f"c{number}": 100.0 for number in range(20)})
    for number in range(300):
        turns.ready(Lane("a", NORMAL, f"d{number}.test"), f"s{number}")
    for number in range(10):
        turns.ready(Lane("b", NORMAL, f"d{number}.test"), f"s{number}")
    for number in range(20):
        turns.ready(Lane(f"c{number}", NORMAL, f"e{number}.test"), f"t{number}")
    got = Counter(lane.tenant for lane in deliveries(turns, slots, 20_000))
    assert got["b"] == pytest.approx(got["c0"], rel=0.05)


def test_who_gets_much_at_once_elsewhere_does_not_hold_up_another() -> None:
    turns = turns_of()
    turns.ready(Lane("a", NORMAL, "y.test"), "y")
    for tenant in ("a", "b"):
        turns.ready(Lane(tenant, NORMAL, "x.test"), "x")
    turns.ready(Lane("c", NORMAL, "z.test"), "z")
    got, ended = Counter[str](), None
    for _ in range(5000):
        lane, ended = taken(turns, ended)
        turns.charge(lane, ended, 999 if ended == "y" else 0)
        got[lane.tenant] += 1
    assert got["b"] == pytest.approx(got["c"], rel=0.05)


def test_whoever_comes_has_the_next_slot() -> None:
    for site in ("busy", "other"):
        turns = turns_of()
        for number in range(50):
            turns.ready(Lane("flood", NORMAL, f"d{number}.test"), "busy")
        for _ in deliveries(turns, 10, 500):
            pass
        late = Lane("late", MessageClass.BULK, "x.test")
        turns.ready(late, site)
        assert late in [taken(turns)[0] for _ in range(2)]


def test_what_is_charged_late_keeps_nobody_who_comes_waiting() -> None:
    turns = turns_of()
    turns.ready(Lane("a", NORMAL, "a.test"), "a")
    for _ in range(20):
        turns.take()
    turns.ready(Lane("b", NORMAL, "b.test"), "b")
    for _ in range(20):
        turns.charge(Lane("a", NORMAL, "a.test"), "a", 49)
    for _ in range(5):
        turns.take()
    turns.ready(Lane("c", NORMAL, "c.test"), "c")
    assert "c" in [taken(turns)[1] for _ in range(3)]


def test_what_a_lane_got_is_charged_though_it_has_no_more() -> None:
    turns = turns_of()
    many, one = Lane("many", NORMAL, "x.test"), Lane("one", NORMAL, "y.test")
    turns.ready(one, "y")
    turns.ready(many, "x")
    while taken(turns)[0] is not many:
        pass
    turns.idle(many)
    turns.charge(many, "x", 49)
    turns.ready(many, "x")
    got = Counter(taken(turns)[0] for _ in range(45))
    assert got[many] <= 1


def test_classes_have_their_shares_and_none_is_starved() -> None:
    turns = turns_of()
    for each in MessageClass:
        turns.ready(Lane("t", each, "x.test"), "x")
    got = Counter(lane.message_class for lane in deliveries(turns, 10, 1200, recipients=7))
    total = sum(got.values())
    for each, share in zip(MessageClass, (8, 3, 1), strict=True):
        assert abs(got[each] - total * share / 12) <= 2


def test_recipients_are_what_is_charged() -> None:
    turns = turns_of()
    many, one = Lane("many", NORMAL, "x.test"), Lane("one", NORMAL, "y.test")
    turns.ready(many, "x")
    turns.ready(one, "y")
    got = Counter[Lane]()
    for _ in range(510):
        lane, site = taken(turns)
        turns.charge(lane, site, 49 if lane is many else 0)
        turns.leave(site)
        got[lane] += 1
    assert abs(got[one] - 50 * got[many]) <= 50


def test_a_slot_stays_where_it_is_but_keeps_nobody_waiting_for_it() -> None:
    turns = turns_of()
    for number in range(50):
        turns.ready(Lane("a", NORMAL, f"d{number}.test"), f"s{number}")
    site, changes = taken(turns)[1], 0
    for _ in range(100):
        _, following = taken(turns, site)
        changes, site = changes + (site != following), following
    assert changes == pytest.approx(50, abs=1)  # twice at each, which its other sites have waited for then
    turns.ready(Lane("b", NORMAL, "w.test"), "w")
    assert "w" in [taken(turns, site)[1] for _ in range(3)]  # "a" may go before, being level, and once out of turn


class Machine(RuleBasedStateMachine):
    """A slot is free only where nobody could use it, no site has too many, no lane without work is taken."""

    LIMIT = 3

    def __init__(self) -> None:
        super().__init__()
        self.limit = self.LIMIT
        self.closed = set[Hashable]()
        self.turns = Turns[int](lambda tenant: float(ord(tenant) - 96), self._room)
        self.lanes: dict[Lane, int] = {}
        self.slots: list[int] = []

    def _room(self, site: int, tenant: str, at_work: int, *, stays: bool) -> Hashable:
        del stays
        if at_work >= self.limit:
            return site
        limits: tuple[Hashable, ...] = (("two of the sites", site < 2), tenant, (tenant, site)) if tenant else ()
        return next((each for each in limits if each in self.closed), None)

    @rule(
        tenant=st.sampled_from("abcd"),
        message_class=st.sampled_from(MessageClass),
        domain=st.sampled_from("uvwxyz"),
    )
    def ready(self, tenant: str, message_class: MessageClass, domain: str) -> None:
        lane = Lane(tenant, message_class, domain)
        self.lanes[lane] = ord(domain) % 3
        self.turns.ready(lane, self.lanes[lane])

    @precondition(lambda self: self.lanes)
    @rule(data=st.data())
    def idle(self, data: st.DataObject) -> None:
        lane = data.draw(st.sampled_from(sorted(self.lanes)))
        del self.lanes[lane]
        self.turns.idle(lane)

    @rule(recipients=st.integers(1, 50))
    def take(self, recipients: int) -> None:
        self._taken(None, recipients)

    @precondition(lambda self: self.slots)
    @rule(recipients=st.integers(1, 50), data=st.data())
    def go_on(self, recipients: int, data: st.DataObject) -> None:
        ended = data.draw(st.sampled_from(sorted(set(self.slots))))
        self.slots.remove(ended)
        if not self._taken(ended, recipients):
            self.turns.leave(ended)

    def _taken(self, ended: int | None, recipients: int) -> bool:
        at_work = Counter([*self.slots, *([] if ended is None else [ended])])
        usable = {
            lane: site
            for lane, site in self.lanes.items()
            if self._room(site, lane.tenant, at_work[site] - (site == ended), stays=True) is None
        }
        found = self.turns.take(ended)
        assert (found is None) == (not usable)
        if found is None:
            return False
        lane, site, stays = found
        assert usable[lane] == site
        assert stays or at_work[site] < self.limit
        self.slots.append(site)
        self.turns.charge(lane, site, recipients - 1)
        return stays

    @precondition(lambda self: self.slots)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        site = data.draw(st.sampled_from(sorted(set(self.slots))))
        self.slots.remove(site)
        self.turns.leave(site)

    @rule(limit=st.integers(0, 4))
    def change_the_limit(self, limit: int) -> None:
        self.limit = limit
        for site in range(3):
            self.turns.look(site)

    @rule(
        limit=st.one_of(
            st.sampled_from("abcd"),
            st.tuples(st.sampled_from("abcd"), st.integers(0, 2)),
            st.tuples(st.just("two of the sites"), st.just(value=True)),
        )
    )
    def close_or_open_a_limit(self, limit: Hashable) -> None:
        if limit in self.closed:
            self.closed.remove(limit)
            self.turns.look(limit)
        else:
            self.closed.add(limit)

    @invariant()
    def what_is_at_work_is_known(self) -> None:
        for site in range(3):
            assert self.turns.at_work(site) == self.slots.count(site)
            there = [(lane.tenant, lane.message_class) for lane, where in self.lanes.items() if where == site]
            assert self.turns.lanes_at(site) == Counter(there)
        assert set(self.turns.lanes) == set(self.lanes)

    @invariant()
    def what_is_passed_over_is_counted(self) -> None:
        held = self.turns._held_by
        assert self.turns.passed_over == len(
            [lane for lane, site in self.lanes.items() if (lane.tenant, lane.message_class, site) in held]
        )

    def teardown(self) -> None:
        for lane in self.lanes:
            self.turns.idle(lane)
        for site in self.slots:
            self.turns.leave(site)
        assert self.turns._places == {}
        assert self.turns._tenants == {}
        assert len(self.turns._shares) == 0
        assert (self.turns._held, self.turns._held_by, self.turns._tried) == ({}, {}, {})


TestTurns = Machine.TestCase


def test_tenants_who_come_and_go_leave_little() -> None:
    turns = turns_of()
    for number in range(1000):
        lane = Lane(f"t{number}", NORMAL, "x.test")
        turns.ready(lane, "x")
        assert turns.take() == (lane, "x", False)
        turns.idle(lane)
        turns.leave("x")
    assert (turns._places, turns._tenants) == ({}, {})
    assert len(turns._shares._points) < 200


class Tokens:
    """Limits that let so many start, and count how often they are asked."""

    def __init__(self, of: Callable[[str, str], Hashable]) -> None:
        self.of = of
        self.tokens = Counter[Hashable]()
        self.asked = 0

    def __call__(self, site: str, tenant: str, at_work: int, *, stays: bool) -> Hashable:
        del at_work, stays
        self.asked += 1
        by = self.of(site, tenant)
        return None if self.tokens[by] else by


@pytest.mark.parametrize("many", [10, 3000])
@pytest.mark.parametrize("stays", [True, False])
@pytest.mark.parametrize("by", ["site", "tenant", "provider"])
def test_a_token_costs_the_same_however_many_wait_for_it(by: str, many: int, stays: bool) -> None:
    """Red when all who wait are let in at each token: 3,000 are asked, and this is quadratic."""
    room = Tokens(lambda site, tenant: {"site": site, "tenant": ("of", tenant), "provider": "any"}[by])
    turns = Turns[str](lambda _: 1.0, room)
    for number in range(many):
        tenant, site = (
            ("one", f"s{number}") if by == "tenant" else (f"t{number}", "x" if by == "site" else f"s{number}")
        )
        turns.ready(Lane(tenant, NORMAL, f"{number}.test"), site)
    assert turns.take() is None  # all have been asked once
    got, ended = Counter[Lane](), None
    for _ in range(2 * many):
        room.asked = 0
        key = room.of("x", "one")
        room.tokens[key] += 1
        turns.look(key)
        found = turns.take(ended)
        assert found is not None
        room.tokens[key] -= 1
        got[found[0]] += 1
        if ended is not None and not found[2]:
            turns.leave(ended)
        ended = found[1]
        if not stays:
            turns.leave(ended)
            ended = None
        assert turns.take() is None
        assert room.asked <= 8 + min(many, FEW)
    assert max(got.values()) - min(got.values()) <= 2  # in order of their shares
    assert len(got) == many


def test_a_crowd_that_goes_from_one_limit_to_another_does_so_by_and_by() -> None:
    """Red when whoever is let in because another found a further limit comes before all: one turn asks thousands."""
    in_the_way = {"x": ""}
    asked = 0

    def room(site: str, _: str, __: int, *, stays: bool) -> Hashable:
        nonlocal asked
        del stays
        asked += 1
        return in_the_way.get(site) or None

    turns = Turns[str](lambda _: 1.0, room)
    for number in range(3100):
        site = "x" if number >= 100 else f"y{number}"
        turns.ready(Lane(f"t{number}", NORMAL, f"{site}.test"), site)
    ended: str | None = None
    for by, opened in (("wide", "none"), ("x", "wide"), ("wide", "x")):
        in_the_way["x"] = by
        turns.look(opened)
        for _ in range(6000):
            asked = 0
            _, ended = taken(turns, ended)
            if opened != "none":
                assert asked <= 8 + FEW


def test_a_place_that_stays_is_asked_for_as_that() -> None:
    """Red when whose turn it is needs what a new connection does, where one is open: then its site is held."""
    stayed = list[bool]()

    def room(_: str, __: str, ___: int, *, stays: bool) -> Hashable:
        stayed.append(stays)
        return None if stays or len(stayed) == 1 else "connections"

    turns = Turns[str](lambda _: 1.0, room)
    turns.ready(Lane("t", NORMAL, "x.test"), "x")
    _, ended = taken(turns)
    for _ in range(20):  # more than may go on out of turn
        assert turns.take(ended) == (Lane("t", NORMAL, "x.test"), "x", True)
    assert all(stayed[1:])


def test_whose_turn_it_is_may_go_on_where_one_ended() -> None:
    """Red when the place of what ended counts as taken: "both" has nearly all, at its other site."""
    turns = turns_of(limit=1)
    for number in range(9):
        turns.ready(Lane(f"t{number}", NORMAL, "x.test"), "x")
    for site in ("x", "y"):
        turns.ready(Lane("both", NORMAL, f"{site}.test"), site)
    got, ended = Counter[str](), None
    for _ in range(5000):
        lane, ended = taken(turns, ended)
        got[ended] += lane.tenant == "both"
    assert got["x"] == pytest.approx(250, abs=10)  # of 500 of 5,000
    assert got["y"] == pytest.approx(250, abs=10)


def test_a_tenant_that_is_held_does_not_hold_up_others_where_it_is_first() -> None:
    """Red when whoever is first at a site is asked alone: no delivery goes on where one ended, but in its turn."""
    turns = Turns[str](
        lambda tenant: 10.0 if tenant == "elsewhere" else 1.0,
        lambda _site, tenant, _at_work, stays: "pause" if tenant == "paused" else None,
    )
    turns.ready(Lane("paused", NORMAL, "a.test"), "x")
    turns.ready(Lane("paused", MessageClass.HIGH, "a.test"), "x")
    turns.ready(Lane("other", NORMAL, "b.test"), "x")
    turns.ready(Lane("elsewhere", NORMAL, "c.test"), "y")
    ended, got, went_on = taken(turns)[1], Counter[str](), 0
    for _ in range(1100):
        turns.look("pause")  # so that it is first there again
        lane, site = taken(turns, ended)
        got[lane.tenant] += 1
        went_on += site == ended == "x"
        ended = site
    assert got["other"] == pytest.approx(100, abs=10)
    assert "paused" not in got
    assert went_on >= 70  # several together, out of turn
    assert turns.passed_over == 2


def test_classes_have_their_shares_under_a_limit_of_their_tenant() -> None:
    room = Tokens(lambda _, tenant: tenant)
    turns = Turns[str](lambda _: 1.0, room)
    for each in MessageClass:
        for number in range(20):
            turns.ready(Lane("t", each, f"{each}{number}.test"), f"{each} {number}")
    assert turns.take() is None
    got = Counter[MessageClass]()
    for _ in range(1200):
        room.tokens["t"] = 1
        turns.look("t")
        found = turns.take()
        assert found is not None
        room.tokens["t"] = 0
        assert turns.take() is None
        got[found[0].message_class] += 1
        turns.leave(found[1])
    for each, share in zip(MessageClass, (8, 3, 1), strict=True):
        assert abs(got[each] - 100 * share) <= 3
