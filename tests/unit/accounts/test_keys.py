import asyncio
import hashlib
import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.accounts import keys, tenants, uses
from mta.accounts.keys import ApiKey, beyond
from mta.accounts.networks import within
from mta.accounts.particulars import Particulars
from mta.accounts.scopes import ENOUGH, SCOPES, granted
from mta.accounts.tenants import AccountError
from mta.accounts.tolls import Rate


@pytest.fixture(autouse=True)
async def _tenant(spool):
    await tenants.create(spool, "acme", 1.0)


async def test_key_opens_what_it_was_made_for(spool):
    key, text = await keys.create(spool, "acme", ["manage", "send", "send"], 100.0)
    assert (key.tenant, key.scopes, key.created_at) == ("acme", ("send", "manage"), 100.0)
    assert await keys.authenticate(spool, text, 100.0) == key


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
        assert await keys.authenticate(spool, bad, 100.0) is None


async def test_a_key_has_what_was_asked_for(spool):
    asked = Particulars(
        name="billing",
        networks=("192.0.2.7/24", "::ffff:192.0.2.9", "192.0.2.0/24"),
        rate=Rate(1200, 60),
        expires_at=200.0,
        sandbox=True,
    )
    key, text = await keys.create(spool, "acme", ["mail.send", "stats.read", "mail.send"], 100.0, asked)
    assert (key.name, key.networks, key.sandbox) == ("billing", ("192.0.2.0/24", "192.0.2.9/32"), True)
    assert (key.rate, key.per, key.expires_at) == (1200, 60, 200.0)
    assert (key.scopes, key.grants) == (("send",), ("mail.send", "stats.read"))
    assert await keys.authenticate(spool, text, 199.9) == key
    assert await keys.authenticate(spool, text, 200.0) is None


async def test_a_key_of_an_earlier_version_is_read_and_listed(spool):
    old = msgspec.msgpack.encode([1, "A" * 22, "acme", ["send"], bytes(32), 1.0])
    await spool.put_record(keys.KIND, "A" * 22, old, replace=False)
    [key] = await keys.list_of(spool, "acme")
    assert (key.id, key.networks, key.rate, key.expires_at, key.sandbox) == ("A" * 22, (), 0, 0.0, False)
    assert key.allows("send")


async def test_revoked_for_good_and_still_listed(spool):
    key, text = await keys.create(spool, "acme", ["send"], 100.0)
    assert await keys.revoke(spool, key.id, 200.0)
    assert await keys.revoke(spool, key.id, 300.0)
    assert await keys.authenticate(spool, text, 200.0) is None
    assert [each.revoked_at for each in await keys.list_all(spool)] == [200.0]


async def test_revoking_what_there_is_not(spool):
    for key_id in ("A" * 22, "", "../x", "\udcff"):
        assert not await keys.revoke(spool, key_id, 200.0)
    assert await keys.list_all(spool) == []


async def test_a_tenant_finds_and_revokes_its_own_alone(spool):
    await tenants.create(spool, "other", 1.0)
    own, _ = await keys.create(spool, "acme", ["send"], 100.0)
    others, text = await keys.create(spool, "other", ["send"], 100.0)
    assert [each.id for each in await keys.list_of(spool, "acme")] == [own.id]
    assert await keys.find(spool, others.id, "acme") is None
    assert not await keys.revoke(spool, others.id, 200.0, "acme")
    assert await keys.authenticate(spool, text, 200.0) is not None


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


async def test_all_that_is_wrong_is_said_at_once(spool):
    asked = Particulars(name="x\ny", networks=("10.0.0.0/8", "nowhere"), expires_at=99.0)
    with pytest.raises(AccountError) as error:
        await keys.create(spool, "nobody", ["send", "root"], 100.0, asked)
    assert [each.field for each in error.value.faults] == ["name", "networks.1", "expires_at", "scopes.1", "tenant"]
    with pytest.raises(AccountError) as error:
        await keys.create(spool, "acme", ["send"] * 201, 100.0, Particulars(networks=("10.0.0.0/8",) * 101))
    assert [each.field for each in error.value.faults] == ["networks", "scopes"]
    assert await keys.list_all(spool) == []


async def test_an_operators_key_has_no_tenant_and_does_not_send(spool):
    key, text = await keys.create(spool, None, ["manage"], 100.0)
    assert (key.tenant, key.operator, key.scopes) == ("", True, ("manage",))
    assert await keys.authenticate(spool, text, 100.0) == key
    with pytest.raises(AccountError, match="no scope 'send'; scopes of an operator's key are read, manage"):
        await keys.create(spool, None, ["manage", "send"], 100.0)
    with pytest.raises(AccountError):
        await keys.create(spool, "", ["manage"], 100.0)
    tenants_key, _ = await keys.create(spool, "acme", ["manage"], 100.0)
    assert not tenants_key.operator


# Rotation


async def test_both_keys_are_good_for_the_overlap(spool):
    asked = Particulars(name="billing", networks=("10.0.0.0/8",), rate=Rate(5, 1), sandbox=True)
    old, before = await keys.create(spool, "acme", ["mail.send"], 100.0, asked)
    new, after = await keys.rotate(spool, old, 60.0, 1000.0)
    assert msgspec.structs.replace(new, id=old.id, digest=old.digest, created_at=100.0) == old
    assert after.split(".")[1] == new.id != old.id
    for now, good in ((1000.0, True), (1059.9, True), (1060.0, False)):
        assert (await keys.authenticate(spool, before, now) is not None) is good
        assert await keys.authenticate(spool, after, now) == new


async def test_without_overlap_the_old_key_ends_at_once(spool):
    old, before = await keys.create(spool, "acme", ["send"], 100.0)
    await keys.rotate(spool, old, 0.0, 1000.0)
    assert await keys.authenticate(spool, before, 1000.0) is None


async def test_an_overlap_makes_no_key_last_longer(spool):
    old, before = await keys.create(spool, "acme", ["send"], 100.0, Particulars(expires_at=1010.0))
    new, _ = await keys.rotate(spool, old, 60.0, 1000.0)
    assert new.expires_at == 1010.0
    assert await keys.authenticate(spool, before, 1010.0) is None


async def test_what_has_ended_is_not_rotated(spool):
    ended, _ = await keys.create(spool, "acme", ["send"], 100.0, Particulars(expires_at=200.0))
    revoked, _ = await keys.create(spool, "acme", ["send"], 100.0)
    await keys.revoke(spool, revoked.id, 150.0)
    for key_id, now in ((ended.id, 200.0), (revoked.id, 160.0)):
        key = await keys.find(spool, key_id)
        with pytest.raises(AccountError, match="has ended"):
            await keys.rotate(spool, key, 60.0, now)
    with pytest.raises(AccountError, match="0 to 2592000 seconds"):
        await keys.rotate(spool, ended, keys.LONGEST_OVERLAP + 1, 150.0)
    assert len(await keys.list_all(spool)) == 2


async def test_a_key_that_is_revoked_meanwhile_stays_so(spool):
    key, text = await keys.create(spool, "acme", ["send"], 100.0)
    await asyncio.gather(keys.rotate(spool, key, 60.0, 200.0), keys.revoke(spool, key.id, 200.0))
    assert await keys.authenticate(spool, text, 200.0) is None
    assert len(await keys.list_of(spool, "acme")) == 2


# Changing


async def test_a_key_is_renamed_and_given_other_scopes(spool):
    maker, _ = await keys.create(spool, "acme", ["send", "read", "manage"], 100.0)
    key, text = await keys.create(spool, "acme", ["mail.send"], 100.0)
    changed = await keys.change(spool, key, ["messages.read"], 100.0, maker, "reports")
    assert (changed.name, changed.scopes, changed.grants) == ("reports", ("read",), ("messages.read",))
    assert await keys.authenticate(spool, text, 100.0) == changed


async def test_a_key_is_not_given_more_than_its_changer_has(spool):
    maker, _ = await keys.create(spool, "acme", ["manage"], 100.0)
    key, text = await keys.create(spool, "acme", ["mail.send"], 100.0)
    with pytest.raises(AccountError, match="has not the scope read itself"):
        await keys.change(spool, key, ["read"], 100.0, maker)
    assert await keys.authenticate(spool, text, 100.0) == key


# Room


async def test_keys_that_ended_make_room_and_good_ones_do_not(spool, monkeypatch):
    monkeypatch.setattr(keys, "MOST", 3)
    made = [(await keys.create(spool, "acme", ["send"], 100.0 + number))[0] for number in range(3)]
    with pytest.raises(AccountError, match="there are 3 keys already"):
        await keys.create(spool, "acme", ["send"], 200.0)
    await tenants.create(spool, "other", 1.0)
    await keys.create(spool, "other", ["send"], 200.0)
    await keys.revoke(spool, made[2].id, 300.0)
    await keys.revoke(spool, made[1].id, 400.0)
    await spool.put_record(uses.KIND, made[2].id, b"250.0", replace=True)
    new, _ = await keys.create(spool, "acme", ["send"], 500.0)
    assert {each.id for each in await keys.list_of(spool, "acme")} == {made[0].id, made[1].id, new.id}
    assert await spool.list_records(uses.KIND) == []


# Never more than its maker

NETWORKS = ("10.0.0.0/9", "10.128.0.0/9", "10.1.0.0/16", "192.0.2.1/32", "2001:db8::/32", "0.0.0.0/0", "::/0")
ADDRESSES = ("10.1.2.3", "10.200.0.1", "192.0.2.1", "198.51.100.9", "2001:db8::1", "2001:db9::1")


@st.composite
def some_key(draw, operators):
    names = draw(st.lists(st.sampled_from(sorted(ENOUGH)), min_size=1, max_size=4))
    rate = draw(st.none() | st.builds(Rate, st.integers(1, 500), st.integers(1, 60)))
    operator = operators and draw(st.booleans())
    return ApiKey(
        id="",
        tenant="" if operator else draw(st.sampled_from(["acme", "other"])),
        operator=operator,
        scopes=granted(names),
        grants=tuple(names) if draw(st.booleans()) else granted(names),
        digest=b"",
        created_at=0.0,
        networks=tuple(draw(st.lists(st.sampled_from(NETWORKS), max_size=3))),
        rate=rate.messages if rate else 0,
        per=rate.seconds if rate else 0,
        expires_at=draw(st.sampled_from([0.0, 10.0, 20.0])),
        sandbox=draw(st.booleans()),
    )


def _taken(key: ApiKey, seconds: float) -> float:
    """The most messages that a rate lets through in a time."""
    rate = keys.stored_rate(key)
    return float("inf") if rate is None else rate.burst + seconds / rate.interval


@given(some_key(operators=False), some_key(operators=False))
def test_nobody_makes_a_key_that_is_good_for_more(maker, made):
    if beyond(maker, made):
        return
    assert made.tenant == maker.tenant
    assert set(made.scopes) <= set(maker.scopes)
    assert all(maker.allows(name) for name in ENOUGH if made.allows(name))
    for address in ADDRESSES:
        comes = not made.networks or within(address, made.networks)
        assert not comes or not maker.networks or within(address, maker.networks)
    assert all(_taken(made, seconds) <= _taken(maker, seconds) for seconds in (0.0, 1.0, 86_400.0))
    assert all(maker.good(now) for now in (5.0, 15.0, 25.0) if made.good(now))
    assert made.sandbox or not maker.sandbox


@given(some_key(operators=False))
def test_everybody_makes_a_key_like_his_own(key):
    assert beyond(key, key) == []


@given(some_key(operators=True), some_key(operators=True))
def test_an_operators_key_makes_any_tenants_key_within_its_own_bounds(maker, made):
    fields = {each.field.partition(".")[0] for each in beyond(maker, made)}
    if maker.operator:
        assert "scopes" not in fields
    assert ("tenant" in fields) is (made.operator or (not maker.operator and made.tenant != maker.tenant))


@pytest.mark.parametrize(
    ("of_maker", "of_made", "fields"),
    [
        ({}, {"tenant": "other"}, ["tenant"]),
        ({"scopes": ("read", "manage")}, {"grants": ("read", "mail.send")}, ["scopes.1"]),
        ({"scopes": ("read",), "grants": ("read", "api_keys.create")}, {"grants": ("emails:read",)}, ["scopes.0"]),
        ({"networks": ("10.0.0.0/8",)}, {}, ["networks"]),
        ({"networks": ("10.0.0.0/8",)}, {"networks": ("10.1.0.0/16", "10.0.0.0/7")}, ["networks"]),
        ({"rate": 100, "per": 1}, {}, ["rate"]),
        ({"rate": 100, "per": 1}, {"rate": 101, "per": 1}, ["rate"]),
        ({"rate": 100, "per": 1}, {"rate": 360_000, "per": 3600}, ["rate"]),  # 3,600 at once
        ({"expires_at": 10.0}, {}, ["expires_at"]),
        ({"expires_at": 10.0}, {"expires_at": 10.1}, ["expires_at"]),
        ({"sandbox": True}, {}, ["sandbox"]),
        ({}, {"tenant": "", "operator": True}, ["tenant"]),
        ({"tenant": "", "operator": True}, {"tenant": "", "operator": True}, ["tenant"]),
    ],
)
def test_what_would_be_more(of_maker, of_made, fields):
    bare = ApiKey(id="", tenant="acme", scopes=SCOPES, digest=b"", created_at=0.0)
    maker, made = msgspec.structs.replace(bare, **of_maker), msgspec.structs.replace(bare, **of_made)
    if "scopes" in of_maker:
        made = msgspec.structs.replace(made, scopes=granted(made.grants))
    assert [each.field for each in beyond(maker, made)] == fields


async def test_who_asks_for_more_gets_nothing(spool):
    maker, _ = await keys.create(spool, "acme", ["manage"], 100.0, Particulars(networks=("10.0.0.0/8",)))
    with pytest.raises(AccountError) as error:
        await keys.create(spool, "acme", ["manage", "send"], 100.0, maker=maker)
    assert [each.field for each in error.value.faults] == ["scopes.1", "networks"]
    stronger, _ = await keys.create(spool, "acme", ["send"], 100.0)
    with pytest.raises(AccountError):
        await keys.rotate(spool, stronger, 0.0, 100.0, maker)
    assert {each.id for each in await keys.list_all(spool)} == {maker.id, stronger.id}


async def test_a_key_that_was_revoked_after_it_was_let_in_makes_none(spool):
    maker, _ = await keys.create(spool, "acme", ["send", "manage"], 100.0)
    key, _ = await keys.create(spool, "acme", ["send"], 100.0)
    assert await keys.revoke(spool, maker.id, 101.0)
    before = await keys.list_of(spool, "acme")
    with pytest.raises(keys.Beyond, match="ended"):
        await keys.create(spool, "acme", ["send"], 102.0, maker=maker)
    with pytest.raises(keys.Beyond, match="ended"):
        await keys.rotate(spool, key, 0.0, 102.0, maker)
    with pytest.raises(keys.Beyond, match="ended"):
        await keys.change(spool, key, ["send"], 102.0, maker)
    assert await keys.list_of(spool, "acme") == before


async def test_a_key_that_was_revoked_meanwhile_is_not_rotated(spool):
    key, _ = await keys.create(spool, "acme", ["send"], 100.0)
    assert await keys.revoke(spool, key.id, 101.0)
    with pytest.raises(AccountError, match="ended"):
        await keys.rotate(spool, key, 0.0, 102.0)
