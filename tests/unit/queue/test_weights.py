"""What weighs in the turns: reserved shares among weights."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.accounts import reservations, tenants
from mta.lab.clock import FakeClock
from mta.queue.weights import INTERVAL, Weights, effective_weights
from mta.spool.lmdb.spool import LmdbSpool
from mta.spool.sealing import Keyring

names = st.sampled_from("abcdefghij")
weights_drawn = st.dictionaries(names, st.sampled_from([1.0, 2.0, 10.0, 1000.0]), min_size=1)


@given(weights_drawn, st.dictionaries(names, st.floats(0.01, 0.09)))
def test_whoever_has_a_share_gets_it_and_the_others_share_the_rest_by_weight(
    weights: dict[str, float], shares: dict[str, float]
) -> None:
    found = effective_weights(weights, shares)
    assert found.keys() == weights.keys()
    whole = sum(found.values())
    plain = sum(weights.values())
    others = [each for each in weights if found[each] == weights[each]]
    for each in found:
        assert found[each] > 0
        if each in shares:
            assert found[each] / whole >= shares[each] * 0.999999
        else:
            assert found[each] == weights[each]
        if len(weights) > 1 and each not in others:  # who gets more than its weight would give gets its share, not more
            assert found[each] / whole <= max(shares[each], weights[each] / plain) * 1.000001


def test_whoever_is_alone_has_a_weight() -> None:
    assert effective_weights({"a": 2.0}, {"a": 0.3}) == {"a": 2.0}
    assert effective_weights({"a": 1.0}, {"b": 0.3}) == {"a": 1.0}
    assert effective_weights({}, {"b": 0.3}) == {}


@pytest.fixture
async def spool(tmp_path: Path) -> AsyncIterator[LmdbSpool]:
    made = LmdbSpool(tmp_path, Keyring([os.urandom(32)]), FakeClock(), map_size=1 << 28, reserve=0)
    for name in ("acme", "other"):
        await tenants.create(made, name, 0.0)
    yield made
    await made.close()


async def test_a_reservation_holds_in_its_time_alone(spool: LmdbSpool) -> None:
    clock = FakeClock()
    begins = clock.now() + 100
    await reservations.reserve(spool, "acme", 0.5, begins, begins + 100)
    weights = Weights(spool, clock)
    await weights.look_up(["acme", "other", "third"], [])
    assert [weights.of(each) for each in ("acme", "other", "third", "nobody")] == [1, 1, 1, 1]
    await clock.advance(100 + INTERVAL)
    await weights.look_up([], ["acme", "other", "third"])
    assert [weights.of(each) for each in ("acme", "other", "third", "nobody")] == [2, 1, 1, 1]
    await weights.look_up(["fourth"], ["acme", "other", "third"])
    assert weights.of("acme") == 3
    await clock.advance(100)
    await weights.look_up([], ["acme", "other"])
    assert weights.of("acme") == 1


async def test_of_all_that_is_reserved_at_a_time_others_keep_a_tenth(spool: LmdbSpool) -> None:
    await tenants.create(spool, "third", 0.0)
    first = await reservations.reserve(spool, "acme", 0.5, 100.0, 200.0)
    await reservations.reserve(spool, "other", 0.4, 150.0, 160.0)
    await reservations.reserve(spool, "third", 0.4, 160.0, 300.0)
    await tenants.create(spool, "late", 0.0)
    for share, begins, ends, said in (
        (0.1, 199.0, 400.0, "90% are reserved"),
        (0.1, 100.0, 151.0, "90% are reserved"),
        (0.0, 400.0, 500.0, "above 0%"),
        (0.95, 400.0, 500.0, "above 0%"),
        (0.1, 500.0, 500.0, "ends after it begins"),
    ):
        with pytest.raises(tenants.AccountError, match=said):
            await reservations.reserve(spool, "late", share, begins, ends)
    with pytest.raises(tenants.AccountError, match="has a reservation"):
        await reservations.reserve(spool, "acme", 0.1, 199.0, 201.0)
    with pytest.raises(tenants.AccountError, match="no tenant"):
        await reservations.reserve(spool, "nobody", 0.1, 1.0, 2.0)
    await reservations.reserve(spool, "late", 0.4, 100.0, 150.0)
    assert len(await reservations.list_all(spool)) == 4
    assert await reservations.reserved_shares(spool, 155.0) == {"acme": 0.5, "other": 0.4}
    assert await reservations.reserved_shares(spool, 160.0) == {"acme": 0.5, "third": 0.4}
    assert await reservations.reserved_shares(spool, 300.0) == {}
    await reservations.remove(spool, first.id)
    assert await reservations.reserved_shares(spool, 155.0) == {"other": 0.4}
    with pytest.raises(tenants.AccountError, match="no reservation"):
        await reservations.remove(spool, first.id)


async def test_reservations_that_cannot_be_read_change_nothing(spool: LmdbSpool) -> None:
    await spool.put_record(reservations.KIND, "x", b"\xc1", replace=True)
    assert await reservations.reserved_shares(spool, 1.0) == {}


async def test_others_have_their_turn_of_the_loop_while_thousands_are_read(spool: LmdbSpool) -> None:
    """Red when all are read at once: with 5,000 tenants delivery stood still for 0.15 s every ten seconds."""
    weights = Weights(spool, FakeClock())
    reading = asyncio.create_task(weights.look_up(["acme"], [f"t{n}" for n in range(1000)]))
    turns = 0
    while not reading.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns >= 10
