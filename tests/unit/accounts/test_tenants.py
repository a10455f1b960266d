import asyncio

import msgspec
import pytest

from mta.accounts import tenants
from mta.accounts.tenants import AccountError


async def test_created_once(spool):
    assert await tenants.create(spool, "acme", 100.0)
    assert not await tenants.create(spool, "acme", 200.0)
    assert [(each.name, each.created_at) for each in await tenants.list_all(spool)] == [("acme", 100.0)]


async def test_exists(spool):
    await tenants.create(spool, "acme", 100.0)
    assert await tenants.exists(spool, "acme")
    assert not await tenants.exists(spool, "Acme")
    assert not await tenants.exists(spool, "\udcff")
    await tenants.require(spool, "acme")
    with pytest.raises(AccountError, match="no tenant 'other'"):
        await tenants.require(spool, "other")


@pytest.mark.parametrize("name", ["", "-a", "a b", "a/b", "a\n", "x" * 65, "é", "\udcff"])
async def test_unfit_name_creates_nothing(spool, name):
    with pytest.raises(AccountError):
        await tenants.create(spool, name, 100.0)
    assert await tenants.list_all(spool) == []


async def test_a_weight_is_kept_and_changed(spool):
    await tenants.create(spool, "acme", 100.0, weight=3)
    await tenants.create(spool, "acme", 100.0, weight=5)  # changes nothing
    assert await tenants.weight_of(spool, "acme") == 3
    await tenants.change(spool, "acme", weight=7)
    assert [(each.name, each.weight, each.created_at) for each in await tenants.list_all(spool)] == [("acme", 7, 100.0)]
    with pytest.raises(AccountError, match="no tenant 'other'"):
        await tenants.change(spool, "other", weight=2)


async def test_changes_at_the_same_time_are_all_kept(spool):
    await tenants.create(spool, "acme", 100.0)
    some = ({"tls": "verified"}, {"pool": "gold"}, {"weight": 7})
    await asyncio.gather(*(tenants.change(spool, "acme", **each) for each in some))
    found = await tenants.settings_of(spool, "acme")
    assert (found.tls, found.pool, found.weight) == ("verified", "gold", 7)


async def test_whose_weight_cannot_be_read_has_the_usual_one(spool, caplog):
    await spool.put_record(tenants.KIND, "acme", b"\xc1", replace=True)
    assert await tenants.weight_of(spool, "acme") == 1
    assert "tenant=acme settings=default" in caplog.text
    assert await tenants.weight_of(spool, "nobody") == 1


async def test_a_record_from_before_weights_and_pools_can_be_read(spool):
    await spool.put_record(tenants.KIND, "acme", msgspec.msgpack.encode([1, "acme", 100.0]), replace=True)
    assert await tenants.weight_of(spool, "acme") == 1
    assert await tenants.pool_of(spool, "acme") == ""


async def test_a_pool_is_kept_and_changed(spool):
    await tenants.create(spool, "acme", 100.0, weight=3, pool="gold")
    assert await tenants.pool_of(spool, "acme") == "gold"
    await tenants.change(spool, "acme", pool="own")
    assert [(each.pool, each.weight) for each in await tenants.list_all(spool)] == [("own", 3)]
    await tenants.change(spool, "acme", weight=7)
    assert [(each.pool, each.weight) for each in await tenants.list_all(spool)] == [("own", 7)]
    assert await tenants.pool_of(spool, "nobody") == ""
    with pytest.raises(AccountError, match="no tenant 'other'"):
        await tenants.change(spool, "other", pool="own")
