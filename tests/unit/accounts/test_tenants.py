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
