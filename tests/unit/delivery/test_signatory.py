"""The process that has the keys: it signs, says why it cannot, and may die without anybody waiting for ever."""

import asyncio
import hashlib
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_private_key

from mta import companion
from mta.accounts import dkim_keys
from mta.accounts.dkim_keys import Algorithm
from mta.delivery import signatory as module
from mta.delivery.signatory import Signatory, SigningError, Wanted
from tests.unit.spool.test_apart import HOUSEHOLD

DIGEST = hashlib.sha256(b"what is signed").digest()
RSA, _ = dkim_keys.generate(Algorithm.RSA2048)


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    dkim_keys.load_or_create_sealing_key(tmp_path / "private", tmp_path / "public")
    return tmp_path / "private"


@pytest.fixture
def wanted(key_file: Path) -> Wanted:
    public = dkim_keys.load_public_key(key_file.with_name("public"))
    return Wanted("a.test", "s1", "rsa2048", dkim_keys.seal(RSA, public, "a.test", "s1"), DIGEST)


@pytest.fixture
async def signatory(key_file: Path) -> AsyncIterator[Signatory]:
    made = Signatory(HOUSEHOLD, key_file)
    yield made
    await made.close()


def pid_of(signatory: Signatory) -> int:
    assert signatory._process is not None
    return signatory._process._process.pid


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


class Busy:
    """A process that says nothing by itself."""

    def __init__(self) -> None:
        self.said: list[int] = []
        self.killed = 0

    def say(self, frame: bytes) -> None:
        self.said.append(len(module._decode_requests(frame)))

    def kill(self) -> None:
        self.killed += 1

    async def close(self) -> None:
        pass


def answers(number: int) -> bytes:
    return module._encode([module._Answer([b"x"])] * number)


async def test_what_comes_while_it_has_enough_to_do_goes_together(wanted: Wanted, key_file: Path) -> None:
    signatory, process = Signatory(HOUSEHOLD, key_file), Busy()
    signatory._process = process  # type: ignore[assignment]

    async def ask(number: int) -> list[asyncio.Task[list[bytes]]]:
        asked = [asyncio.create_task(signatory.sign([wanted])) for _ in range(number)]
        for _ in range(3):
            await asyncio.sleep(0)
        return asked

    asked = await ask(3)
    asked += await ask(2)
    assert process.said == [3]
    asked += await ask(1)
    assert process.said == [3, 3]
    asked += await ask(1)
    signatory._heard(answers(3))
    assert process.said == [3, 3]
    signatory._heard(answers(3))
    assert process.said == [3, 3, 1]
    signatory._heard(answers(1))
    assert await asyncio.gather(*asked) == [[b"x"]] * 7
    await signatory.close()


async def test_silence_is_counted_from_the_last_answer(
    wanted: Wanted, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signatory, process, loop = Signatory(HOUSEHOLD, key_file), Busy(), asyncio.get_running_loop()
    signatory._process = process  # type: ignore[assignment]
    now = loop.time()
    monkeypatch.setattr(loop, "time", lambda: now)
    first = asyncio.create_task(signatory.sign([wanted]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    signatory._heard(answers(1))
    assert await first == [b"x"]
    now += 59
    second = asyncio.create_task(signatory.sign([wanted]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    for seconds, killed in ((59, 0), (2, 1)):
        now += seconds
        signatory._look(loop, process)  # type: ignore[arg-type]
        assert process.killed == killed
    with pytest.raises(SigningError, match="no signature"):
        await second
    await signatory.close()


async def test_a_key_that_was_moved_fails_its_own_message_alone(signatory: Signatory, wanted: Wanted) -> None:
    moved = msgspec.structs.replace(wanted, domain="b.test")
    results = await asyncio.gather(signatory.sign([wanted, moved]), signatory.sign([wanted]), return_exceptions=True)
    assert isinstance(results[0], SigningError)
    assert "b.test cannot be opened" in str(results[0])
    assert isinstance(results[1], list)
    assert holds(results[1][0])


async def test_what_it_had_in_hand_when_it_died_fails_and_another_signs_what_comes_then(
    signatory: Signatory, wanted: Wanted
) -> None:
    await signatory.sign([wanted])
    first = pid_of(signatory)
    os.kill(first, signal.SIGSTOP)  # so that it has something in hand
    asked = asyncio.gather(*(signatory.sign([wanted]) for _ in range(3)), return_exceptions=True)
    await asyncio.sleep(0)
    os.kill(first, signal.SIGKILL)
    for each in await asked:
        assert isinstance(each, SigningError)
        assert "'test signing' ended with -9" in str(each)
    assert "ended with -9" in signatory.trouble
    assert holds((await signatory.sign([wanted]))[0])  # which waited for the next one
    assert pid_of(signatory) != first
    assert signatory.trouble == ""


async def test_what_a_defect_meets_fails_alone(signatory: Signatory, wanted: Wanted) -> None:
    short, unsayable = (msgspec.structs.replace(wanted, **change) for change in ({"digest": b""}, {"domain": "\ud800"}))
    results = await asyncio.gather(*(signatory.sign([each]) for each in (short, wanted)), return_exceptions=True)
    assert isinstance(results[0], SigningError)
    assert isinstance(results[1], list)
    assert holds(results[1][0])
    with pytest.raises(SigningError, match="surrogates"):
        await signatory.sign([unsayable])
    assert holds((await signatory.sign([wanted]))[0])  # and no answer is another's


async def test_a_key_for_another_algorithm_signs_nothing(signatory: Signatory, wanted: Wanted) -> None:
    with pytest.raises(SigningError, match="is not for ed25519"):
        await signatory.sign([msgspec.structs.replace(wanted, algorithm="ed25519")])


async def test_one_that_does_not_answer_is_ended(
    signatory: Signatory, wanted: Wanted, monkeypatch: pytest.MonkeyPatch
) -> None:
    await signatory.sign([wanted])
    os.kill(pid_of(signatory), signal.SIGSTOP)
    monkeypatch.setattr(module, "_PATIENCE", 0.1)
    signatory._watch.cancel()  # which was set to look after a minute
    signatory._watch = None
    with pytest.raises(SigningError, match="no signature"):
        await signatory.sign([wanted])
    monkeypatch.undo()
    async with asyncio.timeout(10):
        while "ended with -9" not in signatory.trouble:
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


async def test_closing_ends_what_does_not_end_by_itself(
    signatory: Signatory, wanted: Wanted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(companion, "_END", 0.1)
    await signatory.sign([wanted])
    os.kill(pid_of(signatory), signal.SIGSTOP)
    asked = asyncio.create_task(signatory.sign([wanted]))
    await asyncio.sleep(0.01)
    await signatory.close()
    for each in (asked, signatory.sign([wanted])):
        with pytest.raises(SigningError, match="role is closing"):
            await each
    with pytest.raises(ProcessLookupError):
        os.kill(pid_of(signatory), 0)


async def test_signals_for_the_role_do_not_end_it_while_it_starts(signatory: Signatory, wanted: Wanted) -> None:
    asked = asyncio.create_task(signatory.sign([wanted]))
    await asyncio.sleep(0)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(pid_of(signatory), number)
    assert holds((await asked)[0])


async def test_a_process_that_cannot_be_started_is_tried_again(
    signatory: Signatory, wanted: Wanted, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", refuse)
        with pytest.raises(SigningError, match="cannot be started"):
            await signatory.sign([wanted])
    await signatory.sign([wanted])
    os.kill(pid_of(signatory), signal.SIGKILL)
    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", refuse)
        async with asyncio.timeout(10):
            while "cannot be started" not in signatory.trouble:
                await asyncio.sleep(0.01)
    assert holds((await signatory.sign([wanted]))[0])
