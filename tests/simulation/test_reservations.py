"""A reserved share against the floods of a thousand others, in the turns as the dispatcher has them."""

import heapq
import random
from collections import Counter

import pytest

from mta.queue.turns import Turns
from mta.queue.weights import effective_weights
from mta.spool.records import Lane, MessageClass

OTHERS = 1000
SLOTS = 200
SHARE = 0.3


type_got = Counter[tuple[str, str]]


def deliver(weights: dict[str, float], sites: dict[str, list[str]], count: int, at_a_site: int) -> type_got:
    """Make deliveries while everybody has work everywhere it has any; who got how many at which site."""
    rng, got = random.Random(1), type_got()
    turns = Turns[str](weights.__getitem__, lambda site, _, at_work, stays: None if at_work < at_a_site else site)
    for tenant, its in sites.items():
        for site in its:
            turns.ready(Lane(tenant, MessageClass.NORMAL, site), site)
    now, ends, begun, free = 0.0, list[tuple[float, int, str]](), 0, SLOTS
    while begun < count:
        found = turns.take() if free else None
        stays = False
        if found is None:
            now, _, ended = heapq.heappop(ends)
            found = turns.take(ended)
            stays = found is not None and found[2]
            if not stays:
                turns.leave(ended)
                free += 1
        if found is not None:
            free -= not stays
            begun += 1
            got[found[0].tenant, found[1]] += begun > count // 5  # who came first has caught up
            heapq.heappush(ends, (now + rng.uniform(0.9, 1.1), begun, found[1]))
    return got


def share(got: type_got, tenant: str, site: str = "") -> float:
    def number(who: str) -> int:
        return sum(times for (each, at), times in got.items() if who in ("", each) and site in ("", at))

    return number(tenant) / number("")


@pytest.mark.parametrize("with_site_of_its_own", [False, True])
def test_a_reserved_share_is_had_against_a_thousand_others(with_site_of_its_own: bool) -> None:
    tenants = ["reserved", *(f"t{number}" for number in range(OTHERS))]
    plain = dict.fromkeys(tenants, 1.0)
    sites = {tenant: ["big"] if with_site_of_its_own is False else [f"of {tenant}"] for tenant in tenants}
    in_time = deliver(effective_weights(plain, {"reserved": SHARE}), sites, 20_000, SLOTS)
    assert share(in_time, "reserved") == pytest.approx(SHARE, rel=0.05)
    after = deliver(effective_weights(plain, {}), sites, 20_000, SLOTS)
    assert share(after, "reserved") == pytest.approx(1 / (OTHERS + 1), rel=0.3)


def test_a_reserved_share_is_had_at_a_site_that_is_full() -> None:
    tenants = ["reserved", *(f"t{number}" for number in range(50))]
    plain = dict.fromkeys(tenants, 1.0)
    sites = {each: ["narrow"] for each in tenants}
    got = deliver(effective_weights(plain, {"reserved": SHARE}), sites, 5000, 2)
    assert share(got, "reserved", "narrow") == pytest.approx(SHARE, rel=0.05)


def test_two_have_theirs_and_the_others_the_rest_by_weight() -> None:
    tenants = ["one", "two", *(f"t{number}" for number in range(8))]
    plain = dict.fromkeys(tenants, 1.0) | {"t0": 3.0}
    got = deliver(
        effective_weights(plain, {"one": 0.5, "two": 0.2}), {each: ["big"] for each in tenants}, 20_000, SLOTS
    )
    assert share(got, "one") == pytest.approx(0.5, rel=0.05)
    assert share(got, "two") == pytest.approx(0.2, rel=0.05)
    assert share(got, "t0") == pytest.approx(0.09, rel=0.05)
    assert share(got, "t1") == pytest.approx(0.03, rel=0.05)
