import asyncio
import os
import stat
from base64 import b64decode

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from mta.accounts import dkim_keys, domains, rotation, tenants
from mta.accounts.dkim_keys import Algorithm
from mta.accounts.tenants import AccountError
from mta.spool.sealing import KeyFileError, SealBroken

PRIVATE = X25519PrivateKey.generate()
PUBLIC = PRIVATE.public_key()


@pytest.fixture(autouse=True)
async def _domain(spool):
    await tenants.create(spool, "acme", 1.0)
    await domains.add(spool, "example.com", "acme", 1.0)


async def test_rsa_record_and_key_are_a_pair(spool):
    record = await dkim_keys.create(spool, "Example.com", "S1", Algorithm.RSA2048, PUBLIC, 100.0)
    assert (record.name, record.type) == ("s1._domainkey.example.com", "TXT")
    assert record.value.startswith("v=DKIM1; k=rsa; p=")
    public = load_der_public_key(b64decode(record.value.partition("p=")[2], validate=True))
    assert isinstance(public, RSAPublicKey)
    assert public.key_size == 2048
    (selector,) = (await domains.find(spool, "example.com")).selectors
    key = dkim_keys.unseal(selector.sealed, PRIVATE, "example.com", "s1")
    assert key.public_key() == public


async def test_ed25519_record_has_the_bare_key(spool):
    record = await dkim_keys.create(spool, "example.com", "ed", Algorithm.ED25519, PUBLIC, 100.0)
    assert record.value.startswith("v=DKIM1; k=ed25519; p=")
    (selector,) = (await domains.find(spool, "example.com")).selectors
    key = dkim_keys.unseal(selector.sealed, PRIVATE, "example.com", "ed")
    raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    assert b64decode(record.value.partition("p=")[2]) == raw


async def test_existing_selector_stays(spool):
    first = await dkim_keys.create(spool, "example.com", "s1", Algorithm.ED25519, PUBLIC, 100.0)
    await dkim_keys.create(spool, "example.com", "s2", Algorithm.ED25519, PUBLIC, 100.0)
    before = await domains.find(spool, "example.com")
    assert await dkim_keys.create(spool, "example.com", "S1", Algorithm.RSA2048, PUBLIC, 200.0) == first
    assert await domains.find(spool, "example.com") == before
    assert [each.name for each in before.selectors] == ["s1", "s2"]


async def states(spool):
    found = await domains.find(spool, "example.com")
    return {each.name: (each.state.value, each.replaces) for each in found.selectors}


async def test_the_first_key_signs_and_a_further_one_waits_for_the_dns(spool):
    assert await dkim_keys.watched(spool) == []
    await dkim_keys.create(spool, "example.com", "s1", Algorithm.ED25519, PUBLIC, 100.0)
    assert await dkim_keys.watched(spool) == []
    await dkim_keys.create(spool, "example.com", "s2", Algorithm.RSA2048, PUBLIC, 100.0)
    assert await states(spool) == {"s1": ("active", ()), "s2": ("pending", ())}
    await dkim_keys.unwatch(spool, "example.com")
    assert await dkim_keys.watched(spool) == ["example.com"]  # one still waits


async def test_a_domain_is_not_watched_any_more_when_its_keys_wait_for_nothing(spool):
    for selector in ("s1", "s2"):
        await dkim_keys.create(spool, "example.com", selector, Algorithm.ED25519, PUBLIC, 100.0)
    known = await domains.find(spool, "example.com")
    shown = dict.fromkeys([each.dns_value for each in known.selectors], "")
    await domains.change(spool, "example.com", lambda each: rotation.looked(each, shown, 200.0))
    assert await states(spool) == {"s1": ("active", ()), "s2": ("active", ())}
    await dkim_keys.unwatch(spool, "example.com")
    assert await dkim_keys.watched(spool) == []


async def test_keys_created_at_the_same_time_are_all_kept(spool):
    names = [f"s{number}" for number in range(10)]
    await asyncio.gather(
        *(dkim_keys.create(spool, "example.com", each, Algorithm.ED25519, PUBLIC, 1.0) for each in names)
    )
    found = await states(spool)
    assert sorted(found) == names
    assert sorted(state for state, _ in found.values()) == ["active"] + ["pending"] * 9


DAY = 1_800_000_000.0  # 2027-01-15


async def test_a_rotation_makes_one_key_for_those_of_its_algorithm(spool):
    for selector, algorithm in (("s1", Algorithm.ED25519), ("r1", Algorithm.RSA2048)):
        await dkim_keys.create(spool, "example.com", selector, algorithm, PUBLIC, 100.0)
    record = await dkim_keys.rotate(spool, "Example.com", Algorithm.ED25519, PUBLIC, DAY)
    assert record.name == "ed20270115._domainkey.example.com"
    assert record.value.startswith("v=DKIM1; k=ed25519; p=")
    assert await states(spool) == {"s1": ("active", ()), "r1": ("pending", ()), "ed20270115": ("pending", ("s1",))}
    assert await dkim_keys.watched(spool) == ["example.com"]
    (*_, selector) = (await domains.find(spool, "example.com")).selectors
    key = dkim_keys.unseal(selector.sealed, PRIVATE, "example.com", "ed20270115")
    assert b64decode(record.value.partition("p=")[2]) == key.public_key().public_bytes_raw()


async def test_a_rotation_under_way_is_not_begun_again(spool):
    await dkim_keys.create(spool, "example.com", "s1", Algorithm.ED25519, PUBLIC, 100.0)
    first = await dkim_keys.rotate(spool, "example.com", Algorithm.ED25519, PUBLIC, DAY, "s2")
    for selector in ("", "S2"):
        assert await dkim_keys.rotate(spool, "example.com", Algorithm.ED25519, PUBLIC, DAY + 1, selector) == first
    with pytest.raises(AccountError, match="is changing to s2 already"):
        await dkim_keys.rotate(spool, "example.com", Algorithm.ED25519, PUBLIC, DAY, "s3")
    both = [dkim_keys.rotate(spool, "example.com", Algorithm.ED25519, PUBLIC, DAY) for _ in range(2)]
    assert await asyncio.gather(*both) == [first, first]
    assert len(await states(spool)) == 2


async def test_what_cannot_be_rotated(spool):
    with pytest.raises(AccountError, match="no ed25519 key that signs"):
        await dkim_keys.rotate(spool, "example.com", Algorithm.ED25519, PUBLIC, DAY)
    await dkim_keys.create(spool, "example.com", "s1", Algorithm.ED25519, PUBLIC, 100.0)
    before = await domains.find(spool, "example.com")
    for domain, algorithm, selector, why in (
        ("other.test", Algorithm.ED25519, "", "other.test is not registered"),
        ("example.com", Algorithm.RSA2048, "", "no rsa2048 key that signs"),
        ("example.com", Algorithm.ED25519, "s1", "has a key s1, which is active"),
        ("example.com", Algorithm.ED25519, "a b", "cannot be a selector"),
    ):
        with pytest.raises(AccountError, match=why):
            await dkim_keys.rotate(spool, domain, algorithm, PUBLIC, DAY, selector)
    assert await domains.find(spool, "example.com") == before


async def seen(spool, now, **troubles):
    def looked(domain):
        return rotation.looked(domain, {each.dns_value: troubles.get(each.name, "") for each in domain.selectors}, now)

    return await domains.change(spool, "example.com", looked)


async def test_two_selectors_serve_in_turn(spool):
    """As where two CNAMEs are all that a domain's owner ever publishes."""
    await dkim_keys.create(spool, "example.com", "s1", Algorithm.ED25519, PUBLIC, DAY)
    now, values = DAY, set()
    for fresh, former in (("s2", "s1"), ("s1", "s2"), ("s2", "s1")):
        record = await dkim_keys.rotate(spool, "example.com", Algorithm.ED25519, PUBLIC, now, fresh)
        values.add(record.value)
        assert (await states(spool))[fresh] == ("pending", (former,))
        await seen(spool, now)
        await seen(spool, now + rotation.SETTLING)
        assert await states(spool) == {fresh: ("active", (former,)), former: ("retired", ())}
        with pytest.raises(AccountError, match=f"has a key {former}, which is retired"):
            await dkim_keys.rotate(spool, "example.com", Algorithm.ED25519, PUBLIC, now, former)
        now += rotation.SETTLING + rotation.KEPT
    assert len(values) == 3


async def test_a_record_in_a_zone_of_ours(spool):
    record = await dkim_keys.create(spool, "example.com", "s1", Algorithm.ED25519, PUBLIC, 100.0)
    ours = dkim_keys.delegated(record, "dkim.relay.test")
    assert (ours.name, ours.alias) == ("s1._domainkey.example.com.dkim.relay.test", "s1._domainkey.example.com")
    assert (ours.type, ours.value) == (record.type, record.value)
    with pytest.raises(AccountError, match="too long"):
        dkim_keys.delegated(record, ".".join(["x" * 60] * 4))


@pytest.mark.parametrize("selector", ["", "a b", "a_b", "x" * 64, "a;b", "é", "-", ".".join(["x" * 60] * 4)])
async def test_unfit_selector(spool, selector):
    before = await domains.find(spool, "example.com")
    with pytest.raises(AccountError, match="selector"):
        await dkim_keys.create(spool, "example.com", selector, Algorithm.ED25519, PUBLIC, 100.0)
    assert await domains.find(spool, "example.com") == before


async def test_domain_must_be_registered_itself(spool):
    for name in ("other.test", "sub.example.com"):
        with pytest.raises(AccountError, match="not registered"):
            await dkim_keys.create(spool, name, "s1", Algorithm.ED25519, PUBLIC, 100.0)


def test_sealed_key_opens_in_its_place_alone():
    private, _ = dkim_keys.generate(Algorithm.ED25519)
    sealed = dkim_keys.seal(private, PUBLIC, "example.com", "s1")
    assert private not in sealed
    dkim_keys.unseal(sealed, PRIVATE, "example.com", "s1")
    for domain, selector in (("example.org", "s1"), ("example.com", "s2"), ("example.co", "ms1")):
        with pytest.raises(SealBroken):
            dkim_keys.unseal(sealed, PRIVATE, domain, selector)
    with pytest.raises(SealBroken):
        dkim_keys.unseal(sealed, X25519PrivateKey.generate(), "example.com", "s1")


def test_changed_seal_does_not_open():
    private, _ = dkim_keys.generate(Algorithm.ED25519)
    sealed = dkim_keys.seal(private, PUBLIC, "example.com", "s1")
    for at in (0, 1, 32, 33, len(sealed) - 1):
        changed = sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :]
        with pytest.raises(SealBroken):
            dkim_keys.unseal(changed, PRIVATE, "example.com", "s1")
    for length in (0, 1, 20, 33, 40):
        with pytest.raises(SealBroken):
            dkim_keys.unseal(sealed[:length], PRIVATE, "example.com", "s1")
    with pytest.raises(SealBroken):
        dkim_keys.unseal(b"\1" + bytes(100), PRIVATE, "example.com", "s1")


@pytest.fixture
def paths(tmp_path):
    return tmp_path / "keys" / "dkim.key", tmp_path / "keys" / "dkim.pub"


def test_sealing_key_is_made_once(paths):
    made = dkim_keys.load_or_create_sealing_key(*paths)
    again = dkim_keys.load_or_create_sealing_key(*paths)
    assert again.private_bytes_raw() == made.private_bytes_raw()
    assert dkim_keys.load_public_key(paths[1]) == made.public_key()
    assert [stat.S_IMODE(path.stat().st_mode) for path in paths] == [0o600, 0o644]
    assert sorted(path.name for path in paths[0].parent.iterdir()) == ["dkim.key", "dkim.pub"]


def test_public_half_follows_the_private(paths, caplog):
    made = dkim_keys.load_or_create_sealing_key(*paths)
    paths[1].unlink()
    dkim_keys.load_or_create_sealing_key(*paths)
    assert dkim_keys.load_public_key(paths[1]) == made.public_key()
    assert not caplog.records
    paths[1].write_text("something else")
    dkim_keys.load_or_create_sealing_key(*paths)
    assert dkim_keys.load_public_key(paths[1]) == made.public_key()
    assert "does not belong" in caplog.text


def test_lost_private_half_is_not_made_anew(paths):
    dkim_keys.load_or_create_sealing_key(*paths)
    before = paths[1].read_bytes()
    paths[0].unlink()
    with pytest.raises(KeyFileError, match="restore"):
        dkim_keys.load_or_create_sealing_key(*paths)
    assert not paths[0].exists()
    assert paths[1].read_bytes() == before


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_file_that_others_can_read_is_refused(paths, mode):
    dkim_keys.load_or_create_sealing_key(*paths)
    paths[0].chmod(mode)
    with pytest.raises(KeyFileError, match="chmod 600"):
        dkim_keys.load_or_create_sealing_key(*paths)


@pytest.mark.parametrize(("mode", "good"), [(0o440, True), (0o400, True), (0o444, False), (0o460, False)])
@pytest.mark.skipif(os.geteuid() != 0, reason="needs to give a file away")
def test_another_owners_file_may_be_ours_by_group(paths, mode, good):
    made = dkim_keys.load_or_create_sealing_key(*paths)
    os.chown(paths[0], 65534, -1)
    paths[0].chmod(mode)
    if good:
        assert dkim_keys.load_or_create_sealing_key(*paths).private_bytes_raw() == made.private_bytes_raw()
    else:
        with pytest.raises(KeyFileError):
            dkim_keys.load_or_create_sealing_key(*paths)


@pytest.mark.parametrize("text", ["", "no key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_what_is_no_key_is_refused_and_kept(paths, text):
    paths[0].parent.mkdir()
    paths[0].write_text(text)
    paths[0].chmod(0o600)
    with pytest.raises(KeyFileError, match="not an X25519 private key"):
        dkim_keys.load_or_create_sealing_key(*paths)
    with pytest.raises(KeyFileError, match="not an X25519 public key"):
        dkim_keys.load_public_key(paths[0])
    with pytest.raises(KeyFileError, match="No such file"):
        dkim_keys.load_public_key(paths[1])
    assert paths[0].read_text() == text


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "keys").write_text("a file")
    with pytest.raises(KeyFileError, match="keys"):
        dkim_keys.load_or_create_sealing_key(tmp_path / "keys" / "dkim.key", tmp_path / "keys" / "dkim.pub")
