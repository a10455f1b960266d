"""The process that has the keys: it signs, says why it cannot, and may die without anybody waiting for ever."""

import asyncio
import hashlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_private_key

from mta import companion
from mta.accounts import dkim_keys
from mta.accounts.dkim_keys import Algorithm
from mta.companion import Household
from mta.delivery.signatory import Signatory, SigningError, Wanted

HOUSEHOLD = Household("test", {"format": "text", "level": "info"})
DIGEST = hashlib.sha256(b"what is signed").digest()
RSA, _ = dkim_keys.generate(Algorithm.RSA2048)


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    dkim_keys.load_or_create_sealing_key(tmp_path / "private", tmp_path / "public")
    return tmp_path / "private"


@pytest.fixture
def wanted(key_file: Path) -> Wanted:
    public = dkim_keys.load_public_key(key_file.with_name("public"))
    return Wanted("a.test", "s1", dkim_keys.seal(RSA, public, "a.test", "s1"), DIGEST)


@pytest.fixture
async def signatory(key_file: Path) -> AsyncIterator[Signatory]:
    made = Signatory(HOUSEHOLD, key_file)
    yield made
    await made.close()


def pid_of(signatory: Signatory) -> int:
    assert signatory._process is not None
    return signatory._process.pid


def holds(signature: bytes) -> bool:
    public = load_der_private_key(RSA, None).public_key()
    assert isinstance(public, RSAPublicKey)
    public.verify(signature, DIGEST, PKCS1v15(), Prehashed(SHA256()))  # raises if it does not
    return True


async def test_it_signs_what_comes_together_and_what_comes_later(signatory: Signatory, wanted: Wanted) -> None:
    made = await asyncio.gather(*(signatory.sign([wanted] * number) for number in (1, 2, 3)))
    made.append(await signatory.sign([wanted]))
    assert [len(each) for each in made] == [1, 2, 3, 1]
    assert all(holds(signature) for each in made for signature in each)


async def test_a_key_that_was_moved_fails_its_own_message_alone(signatory: Signatory, wanted: Wanted) -> None:
    moved = Wanted("b.test", "s1", wanted.sealed, DIGEST)
    results = await asyncio.gather(signatory.sign([wanted, moved]), signatory.sign([wanted]), return_exceptions=True)
    assert isinstance(results[0], SigningError)
    assert "b.test cannot be opened" in str(results[0])
    assert isinstance(results[1], list)
    assert holds(results[1][0])


async def test_what_it_had_in_hand_when_it_died_fails_and_another_signs(
    signatory: Signatory, wanted: Wanted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(companion, "_RESTART", 0.05)
    await signatory.sign([wanted])
    first = pid_of(signatory)
    os.kill(first, signal.SIGSTOP)  # so that it has something in hand
    asked = asyncio.gather(*(signatory.sign([wanted]) for _ in range(3)), return_exceptions=True)
    await asyncio.sleep(0)
    os.kill(first, signal.SIGKILL)
    for each in await asked:
        assert isinstance(each, SigningError)
        assert "ended with -9" in str(each)
    with pytest.raises(SigningError, match="started again"):
        await signatory.sign([wanted])
    async with asyncio.timeout(10):
        while pid_of(signatory) == first:
            await asyncio.sleep(0.01)
    assert holds((await signatory.sign([wanted]))[0])


async def test_one_who_waits_is_not_left_waiting_by_another_who_gave_up(signatory: Signatory, wanted: Wanted) -> None:
    gone, waits = (asyncio.create_task(signatory.sign([wanted])) for _ in range(2))
    await asyncio.sleep(0)
    gone.cancel()
    assert holds((await waits)[0])


async def test_without_its_key_file_nothing_is_signed(
    signatory: Signatory, wanted: Wanted, key_file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    key_file.unlink()
    with pytest.raises(SigningError, match="ended with 1"):
        await signatory.sign([wanted])
    assert "cannot sign" in capfd.readouterr().err


async def test_closing_ends_the_process_and_what_it_was_asked_for(signatory: Signatory, wanted: Wanted) -> None:
    await signatory.sign([wanted])
    os.kill(pid_of(signatory), signal.SIGSTOP)
    asked = asyncio.create_task(signatory.sign([wanted]))
    await asyncio.sleep(0.01)
    os.kill(pid_of(signatory), signal.SIGCONT)
    await signatory.close()
    assert isinstance((await asyncio.gather(asked, return_exceptions=True))[0], list | SigningError)
    with pytest.raises(ProcessLookupError):
        os.kill(pid_of(signatory), 0)
