import os
import stat
from base64 import b64decode

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from mta.accounts import dkim_keys, domains, tenants
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
