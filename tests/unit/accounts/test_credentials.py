import re

import pytest

from mta.accounts import credentials, tenants
from mta.accounts.tenants import AccountError


@pytest.fixture(autouse=True)
async def _tenants(spool):
    await tenants.create(spool, "acme", 1.0)
    await tenants.create(spool, "other", 1.0)


async def test_password_is_generated_and_fits(spool):
    credential, password = await credentials.create(spool, "acme", "app@example.com", 100.0)
    assert re.fullmatch(r"[a-z2-7]{32}", password)
    assert await credentials.authenticate(spool, "app@example.com", password) == credential
    assert password.encode() not in await spool.get_record(credentials.KIND, "app@example.com")


async def test_wrong_password_or_user_opens_nothing(spool):
    _, password = await credentials.create(spool, "acme", "app", 100.0)
    _, others = await credentials.create(spool, "other", "bee", 100.0)
    pairs = [("app", others), ("App", password), ("nobody", password), ("", password), ("app", ""), ("", "")]
    pairs += [("app", "\udcff"), ("\udcff", password), ("x" * 300, password), ("app", password.upper())]
    for user, text in pairs:
        assert await credentials.authenticate(spool, user, text) is None


async def test_what_exists_stays(spool):
    credential, password = await credentials.create(spool, "acme", "app", 100.0)
    assert await credentials.create(spool, "acme", "app", 200.0) == (credential, None)
    assert await credentials.authenticate(spool, "app", password) == credential


async def test_user_is_one_tenants(spool):
    _, password = await credentials.create(spool, "acme", "app", 100.0)
    await credentials.revoke(spool, "app", 150.0)
    with pytest.raises(AccountError, match="another tenant"):
        await credentials.create(spool, "other", "app", 200.0)
    assert await credentials.authenticate(spool, "app", password) is None
    assert [each.tenant for each in await credentials.list_all(spool)] == ["acme"]


async def test_revoked_then_made_anew(spool):
    _, old = await credentials.create(spool, "acme", "app", 100.0)
    assert await credentials.revoke(spool, "app", 200.0)
    assert await credentials.revoke(spool, "app", 300.0)
    assert await credentials.authenticate(spool, "app", old) is None
    assert [each.revoked_at for each in await credentials.list_all(spool)] == [200.0]
    credential, new = await credentials.create(spool, "acme", "app", 400.0)
    assert await credentials.authenticate(spool, "app", new) == credential
    assert await credentials.authenticate(spool, "app", old) is None


async def test_revoking_what_there_is_not(spool):
    for user in ("app", "", "\udcff"):
        assert not await credentials.revoke(spool, user, 200.0)


@pytest.mark.parametrize(
    ("tenant", "user"),
    [("acme", ""), ("acme", "x" * 256), ("acme", "a\nb"), ("acme", "apikey"), ("acme", "\udcff"), ("nobody", "app")],
)
async def test_bad_request_creates_nothing(spool, tenant, user):
    with pytest.raises(AccountError):
        await credentials.create(spool, tenant, user, 100.0)
    assert await credentials.list_all(spool) == []
