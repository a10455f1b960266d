"""Whom capacity refuses: what is fair, what is true, and what is no reason."""

import math
from collections.abc import Mapping
from itertools import pairwise

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from mta.queue.capacity import (
    MEASURED_OVER,
    NOBODY,
    UNKNOWN,
    Cause,
    Court,
    Drain,
    Judgement,
    Pace,
    Refusal,
    Room,
    Standing,
)
from mta.spool.interface import Backlog

DAY = 86_400.0
STILL = Pace()
WIDE = Room(left=1 << 50, headroom=1 << 30)


def standing(messages: int = 0, octets: int = 0, *, pace: Pace = STILL, **fields: float) -> Standing:
    return Standing(backlog=Backlog(messages, octets, untried=messages), pace=pace, **fields)  # type: ignore[arg-type]


def judge(tenants: Mapping[str, Standing], room: Room, longest: float, before: Judgement = NOBODY) -> Judgement:
    court = Court(tenants, room, longest, before)
    return Judgement(court.refused(tenants), court.others, tenants.keys())


def why(judgement: Judgement, tenant: str) -> Cause | None:
    found = judgement.of(tenant)
    return None if found is None else found.cause


# What is no reason


def test_a_million_waiting_is_no_reason() -> None:
    there = standing(1_000_000, 10 << 30, pace=Pace(tries=10.0, messages=10.0, octets=1e5))
    assert judge({"acme": there}, WIDE, 3 * DAY) == Judgement({}, None, {"acme": 0}.keys())


def test_a_backlog_of_which_no_pace_is_known_is_no_reason() -> None:
    assert judge({"acme": standing(1_000_000)}, WIDE, 1.0).of("acme") is None


def test_whoever_is_alone_may_have_the_disk_up_to_the_reserve() -> None:
    for left in (1, 0, -1):  # which the spool answers for
        found = judge({"acme": standing(10**6, 1 << 40)}, Room(left, 1 << 30), DAY)
        assert (found.of("acme"), found.of("new")) == (None, None)


# Limits


def test_a_limit_holds_for_the_tenant_that_has_it() -> None:
    tenants = {"acme": standing(100, pace=Pace(messages=0.5), most_messages=100), "other": standing(100)}
    found = judge(tenants, WIDE, DAY)
    assert found.of("acme") == Refusal(Cause.LIMIT, 20.0)
    assert found.of("other") is None
    assert judge(tenants | {"acme": standing(99, most_messages=100)}, WIDE, DAY).of("acme") is None
    assert why(judge(tenants | {"acme": standing(91, most_messages=100)}, WIDE, DAY, found), "acme") is Cause.LIMIT
    assert judge(tenants | {"acme": standing(90, most_messages=100)}, WIDE, DAY, found).of("acme") is None


def test_the_limit_that_takes_longer_says_how_long() -> None:
    there = standing(100, 2000, pace=Pace(messages=1.0, octets=1.0), most_messages=100, most_octets=1000)
    assert judge({"acme": there}, WIDE, DAY).of("acme") == Refusal(Cause.LIMIT, 1100.0)


def test_without_a_pace_it_is_a_minute() -> None:
    assert judge({"acme": standing(7, most_messages=7)}, WIDE, DAY).of("acme") == Refusal(Cause.LIMIT, UNKNOWN)


# A backlog that takes too long


def test_what_would_not_be_tried_in_time_is_refused() -> None:
    tenants = {"slow": standing(1001, pace=Pace(tries=1.0)), "other": standing(1001, pace=Pace(tries=2.0))}
    found = judge(tenants, WIDE, 1000.0)
    assert found.of("slow") == Refusal(Cause.BACKLOG, 11.0, 990.0)
    assert found.of("other") is None


def test_what_is_measured_a_little_off_moves_no_end() -> None:
    found = judge({"slow": standing(1001, pace=Pace(tries=1.0))}, WIDE, 1000.0)
    again = judge({"slow": standing(995, pace=Pace(tries=0.9))}, WIDE, 1000.0, found).of("slow")
    assert again is not None
    assert again.seconds < 6
    assert judge({"slow": standing(990, pace=Pace(tries=0.9))}, WIDE, 1000.0, found).of("slow") is None
    assert judge({"slow": standing(995, pace=Pace(tries=1.1))}, WIDE, 1000.0, found).of("slow") is None


def drained(*looks: Backlog) -> Pace:
    drain = Drain()
    for number, each in enumerate(looks):
        drain.look(number * MEASURED_OVER, each)
    return drain.pace


def test_a_pace_is_known_after_some_minutes_of_enough_work() -> None:
    steps = [Backlog(untried=10_000 - 60 * n, tried=60 * n, left=30 * n, left_octets=300 * n) for n in range(20)]
    assert drained(*steps[:5]).tries is None
    assert drained(*steps[:2]).messages == 0.5
    pace = drained(*steps)
    assert pace.tries is not None
    assert math.isclose(pace.tries, 1.0)
    assert math.isclose(pace.messages, 0.5)
    assert math.isclose(pace.octets, 5.0)


def test_what_comes_in_is_no_pace() -> None:
    """One message a minute comes and is tried at once: it could be a thousand."""
    assert drained(*[Backlog(untried=0, tried=n) for n in range(100)]).tries is None


def test_what_comes_in_beside_a_pile_that_nobody_may_try_is_no_pace() -> None:
    """Five thousand wait for a site that is dead, and one a minute comes for others."""
    assert drained(*[Backlog(untried=5000, tried=n) for n in range(100)]).tries is None


def test_what_comes_and_goes_unevenly_beside_a_pile_that_nobody_may_try_is_no_pace() -> None:
    """Red when each minute stands for itself: by what waits at its end the pile moved, up in one, down in the next.

    Fifty thousand wait for a dead site, and seven a minute come for others: they would be a backlog of days.
    """
    looks = [Backlog(untried=50_000 + 5 * (n % 2), tried=15 * (n // 2) + 5 * (n % 2)) for n in range(100)]
    assert {after.tried - before.tried for before, after in pairwise(looks)} == {5, 10}
    assert drained(*looks).tries is None
    draining = [msgspec.structs.replace(each, untried=each.untried - 4 * each.tried) for each in looks]
    assert drained(*draining).tries is not None


def test_who_is_refused_is_not_let_in_because_its_backlog_shrinks_now() -> None:
    """Red when a backlog that has grown and shrinks since is no pace: who floods on is refused one minute in four."""
    drain, judgement, untried, tried, refused = Drain(), NOBODY, 0, 0, 0
    for minute in range(240):
        if judgement.of("flood") is None:
            untried += 1000
        else:
            refused += 1
        untried, tried = untried - 60, tried + 60
        backlog = Backlog(untried=untried, tried=tried)
        drain.look(minute * MEASURED_OVER, backlog)
        judgement = judge({"flood": Standing(backlog=backlog, pace=drain.pace)}, WIDE, 10_000.0, judgement)
    assert refused > 200
    assert untried < 11_000


def test_what_ran_dry_is_no_pace() -> None:
    """A thousand come each minute, are tried in a moment and are all there was."""
    looks = [Backlog(untried=1000, tried=1000 * n) for n in range(100)]
    assert drained(*looks).tries is None


def test_a_standstill_says_nothing_and_after_a_while_nobody_is_judged_by_what_was_before() -> None:
    steps = [Backlog(untried=10_000 - 60 * n, tried=60 * n) for n in range(20)]
    still = drained(*steps, *[steps[-1]] * 5)
    assert still.tries is not None
    assert math.isclose(still.tries, 1.0)
    assert drained(*steps, *[steps[-1]] * 20).tries is None


def test_a_spool_that_is_counted_anew_makes_no_pace() -> None:
    steps = [Backlog(untried=10_000 - 60 * n, tried=60 * n, left=n) for n in range(20)]
    again = drained(*steps, Backlog(untried=10_000), *[Backlog(untried=10_000, tried=n) for n in (1, 61, 121)])
    assert again.tries is not None
    assert 0.5 < again.tries < 1.01
    assert again.messages > 0


# The disk

GIB = 1 << 30


def test_when_the_disk_gets_short_those_go_first_who_hold_more_than_their_share() -> None:
    tenants = {"flood": standing(1000, 10 * GIB, pace=Pace(octets=float(1 << 20))), "light": standing(1, 1000)}
    room = Room(GIB // 2, GIB)
    found = judge(tenants, room, DAY)
    assert why(found, "flood") is Cause.DISK
    assert found.of("light") is None
    assert found.of("nobody") is None
    assert judge(tenants, Room(GIB, GIB), DAY).of("flood") is None


def test_who_was_refused_is_let_in_a_little_below_the_mark() -> None:
    light = standing(1, 1000)

    def judged(held: int, left: int, before: Judgement = NOBODY) -> Cause | None:
        return why(judge({"flood": standing(1, held), "light": light}, Room(left, GIB), DAY, before), "flood")

    refused = judge({"flood": standing(1, 10 * GIB), "light": light}, Room(GIB // 2, GIB), DAY)
    share = (10 * GIB + GIB // 2) // 2
    assert judged(int(1.01 * share), GIB // 2) is Cause.DISK
    assert judged(int(0.95 * GIB), int(0.99 * GIB)) is None
    assert judged(int(0.95 * GIB), int(0.99 * GIB), refused) is Cause.DISK  # of 1.94, half is its share
    assert judged(int(0.80 * GIB), int(0.99 * GIB), refused) is None
    assert judged(10 * GIB, int(1.05 * GIB)) is None
    assert judged(10 * GIB, int(1.05 * GIB), refused) is Cause.DISK
    assert judged(10 * GIB, int(1.12 * GIB), refused) is None


def test_a_reservation_keeps_its_part_of_the_headroom() -> None:
    tenants = {"acme": standing(share=0.3), "other": standing(1, 1000)}
    assert judge(tenants, Room(int(0.31 * GIB), GIB), DAY).of("other") is None
    found = judge(tenants, Room(int(0.29 * GIB), GIB), DAY)
    assert (why(found, "acme"), why(found, "other"), why(found, "unheard-of")) == (None, Cause.DISK, Cause.DISK)
    assert why(judge(tenants, Room(int(0.31 * GIB), GIB), DAY, found), "unheard-of") is Cause.DISK


tenants_drawn = st.dictionaries(
    st.sampled_from("abcdefgh"),
    st.builds(
        Standing,
        backlog=st.builds(Backlog, messages=st.integers(0, 1000), octets=st.integers(0, 1 << 24)),
        pace=st.builds(
            Pace, st.none() | st.floats(0.01, 10), st.just(0.0) | st.floats(0.01, 100), st.floats(0, 1 << 20)
        ),
        weight=st.sampled_from([1.0, 3.0, 100.0]),
        share=st.sampled_from([0.0, 0.0, 0.1]),
    ),
    min_size=1,
)


def shares_of_disk(tenants: dict[str, Standing], room: Room) -> dict[str, float]:
    """By weight among those who hold something, and no less than what is reserved: said without the code's own sums."""
    active = {name: each.weight for name, each in tenants.items() if each.held or each.share}
    whole = sum(each.held for each in tenants.values()) + room.left
    floor, found = {name: tenants[name].share for name in active}, dict[str, float]()
    free, weights = 1.0, dict(active)
    while True:  # those below their floor get it, the others share what remains
        poor = [name for name, weight in weights.items() if free * weight / sum(weights.values()) < floor[name]]
        if not poor:
            break
        worst = min(poor, key=lambda name: weights[name] / floor[name])
        found[worst] = floor[worst] * whole
        free -= floor[worst]
        del weights[worst]
    return found | {name: free * weight / sum(weights.values()) * whole for name, weight in weights.items()}


@given(tenants_drawn, st.integers(0, 1 << 25), st.integers(0, 1 << 25), st.lists(st.integers(0, 1 << 25), max_size=3))
@settings(max_examples=150, deadline=None)
def test_nobody_below_its_share_is_refused_while_somebody_above_it_is_not(
    tenants: dict[str, Standing], left: int, headroom: int, earlier: list[int]
) -> None:
    before = NOBODY
    for each in earlier:
        before = judge(tenants, Room(each, headroom), math.inf, before)
    room = Room(left, headroom)
    found = judge(tenants, room, math.inf, before)
    shares = shares_of_disk(tenants, room)
    above = {name for name, share in shares.items() if tenants[name].held > share * 1.000001}
    below = {name for name, share in shares.items() if tenants[name].held < share * 0.999999}
    refused_below = {name for name in below if found.of(name) is not None}
    accepted_above = {name for name in above if found.of(name) is None}
    assert not (refused_below and accepted_above)
    if left >= headroom and before == NOBODY:
        assert not found.refused
    for name in above:
        if left < headroom:
            assert why(found, name) is Cause.DISK


# The time that is said


def later(tenants: dict[str, Standing], room: Room, seconds: float) -> tuple[dict[str, Standing], Room]:
    """All goes on as measured, until it is gone, and nothing comes in."""
    there, freed = dict[str, Standing](), 0.0
    for name, each in tenants.items():
        backlog, pace = each.backlog, each.pace
        kept = max(0.0, 1 - pace.messages * seconds / backlog.messages)
        untried = max(0.0, backlog.untried - (pace.tries or 0.0) * seconds)
        left = Backlog(backlog.messages * kept, backlog.octets * kept, untried)  # type: ignore[arg-type]
        there[name] = msgspec.structs.replace(each, backlog=left)
        freed += (1 - kept) * each.held
    return there, room._replace(left=room.left + freed)  # type: ignore[arg-type] # parts of octets: the sums are exact


@st.composite
def draining(draw: st.DrawFn) -> Standing:
    messages, octets = draw(st.integers(1, 10_000)), draw(st.integers(1, 1 << 24))
    pace = draw(st.floats(0.01, 100))
    return Standing(
        backlog=Backlog(messages, octets, untried=draw(st.integers(0, 10_000))),
        pace=Pace(draw(st.floats(0.01, 10)), pace, pace * octets / messages),
        most_messages=draw(st.sampled_from([0, 0, 1, 100])),
        most_octets=draw(st.sampled_from([0, 0, 1000])),
    )


@given(
    st.dictionaries(st.sampled_from("abcd"), draining(), min_size=1),
    st.integers(0, 1 << 22),
    st.integers(0, 1 << 23),
    st.sampled_from([100.0, 10_000.0]),
)
@settings(max_examples=150, deadline=None)
def test_who_waits_as_long_as_was_said_is_let_in(
    tenants: dict[str, Standing], left: int, headroom: int, longest: float
) -> None:
    room = Room(left, headroom)
    found = judge(tenants, room, longest)
    for name, refusal in found.refused.items():
        if not math.isclose(refusal.seconds, UNKNOWN):  # or the disk would stay short, whatever is drained
            assert refusal.seconds > 0
            then, there = later(tenants, room, math.ceil(refusal.seconds) + 1)
            assert judge(then, there, longest, found).of(name) is None
