import hashlib
import re

import pytest

from mta.accounts import keys, tenants
from mta.accounts.tenants import AccountError


@pytest.fixture(autouse=True)
async def _tenant(spool):
    await tenants.create(spool, "acme", 1.0)


async def test_key_opens_what_it_was_made_for(spool):
    key, text = await keys.create(spool, "acme", ["manage", "send", "send"], 100.0)
    assert (key.tenant, key.scopes, key.created_at) == ("acme", ("send", "manage"), 100.0)
    assert await keys.authenticate(spool, text) == key


async def test_shape_is_the_vendors(spool):
    key, text = await keys.create(spool, "acme", ["send"], 100.0)
    assert re.fullmatch(r"SG\.[\w-]{22}\.[\w-]{43}", text)
    assert text.split(".")[1] == key.id


async def test_only_the_hash_is_stored(spool):
    key, text = await keys.create(spool, "acme", ["send"], 100.0)
    secret = text.split(".")[2].encode()
    stored = await spool.get_record(keys.KIND, key.id)
    assert hashlib.sha256(secret).digest() in stored
    assert secret not in stored


async def test_keys_differ(spool):
    texts = {(await keys.create(spool, "acme", ["send"], 100.0))[1] for _ in range(5)}
    assert len(texts) == len(await keys.list_all(spool)) == 5


async def test_what_is_no_key_opens_nothing(spool):
    key, text = await keys.create(spool, "acme", ["send"], 100.0)
    other, _ = await keys.create(spool, "acme", ["send"], 100.0)
    swapped = text.replace(key.id, other.id)
    wrong = text[:-1] + ("A" if text[-1] != "A" else "B")
    unknown = text.replace(key.id, "A" * 22)
    for bad in (
        swapped,
        wrong,
        unknown,
        text + "A",
        text + "\n",
        " " + text,
        text[3:],
        "",
        "SG..",
        "\udcff",
        "x" * 9999,
    ):
        assert await keys.authenticate(spool, bad) is None


async def test_revoked_for_good_and_still_listed(spool):
    key, text = await keys.create(spool, "acme", ["send"], 100.0)
    assert await keys.revoke(spool, key.id, 200.0)
    assert await keys.revoke(spool, key.id, 300.0)
    assert await keys.authenticate(spool, text) is None
    assert [each.revoked_at for each in await keys.list_all(spool)] == [200.0]


async def test_revoking_what_there_is_not(spool):
    for key_id in ("A" * 22, "", "../x", "\udcff"):
        assert not await keys.revoke(spool, key_id, 200.0)
    assert await keys.list_all(spool) == []


@pytest.mark.parametrize(
    ("tenant", "scopes", "says"),
    [
        ("acme", [], "send, read, manage"),
        ("acme", ["send", "root"], "no scope 'root'"),
        ("nobody", ["send"], "no tenant 'nobody'"),
    ],
)
async def test_bad_request_creates_nothing(spool, tenant, scopes, says):
    with pytest.raises(AccountError, match=says):
        await keys.create(spool, tenant, scopes, 100.0)
    assert await keys.list_all(spool) == []


async def test_an_operators_key_has_no_tenant_and_does_not_send(spool):
    key, text = await keys.create(spool, None, ["manage"], 100.0)
    assert (key.tenant, key.operator, key.scopes) == ("", True, ("manage",))
    assert await keys.authenticate(spool, text) == key
    with pytest.raises(AccountError, match="no scope 'send'; scopes of an operator's key are read, manage"):
        await keys.create(spool, None, ["manage", "send"], 100.0)
    with pytest.raises(AccountError):
        await keys.create(spool, "", ["manage"], 100.0)
    tenants_key, _ = await keys.create(spool, "acme", ["manage"], 100.0)
    assert not tenants_key.operator
