"""The writer as a process of its own: the same promises, and what becomes of them when it dies."""

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mta.companion import Household
from mta.logs import Settings
from mta.spool.interface import Full, Refused, SpoolError, Unavailable, Uncertain
from mta.spool.lmdb.apart import ProcessWriter
from mta.spool.lmdb.spool import LmdbSpool
from mta.spool.sealing import Keyring
from tests.contract.spool_contract import OpenSpool, SpoolContract, a_message
from tests.contract.terms_contract import TermsContract
from tests.unit.spool.test_lmdb_spool import KEYS, AtNow, opener

HOUSEHOLD = Household("test", Settings("text", "info"))


def make(path: Path, *, reserve: int = 0) -> LmdbSpool:
    return LmdbSpool(path, Keyring(KEYS), AtNow(), map_size=1 << 30, reserve=reserve, apart=HOUSEHOLD)


def process_of(spool: LmdbSpool) -> subprocess.Popen[bytes]:
    assert isinstance(spool._writer, ProcessWriter)
    return spool._writer._process._process


@pytest.fixture
async def spool(tmp_path: Path) -> AsyncIterator[LmdbSpool]:
    opened = make(tmp_path / "spool")
    yield opened
    await opened.close()


async def until_healthy(spool: LmdbSpool) -> None:
    async with asyncio.timeout(10):
        while not spool.healthy():
            await asyncio.sleep(0.01)


class TestContractApart(SpoolContract, TermsContract):
    @pytest.fixture
    def open_spool(self, tmp_path: Path) -> OpenSpool:
        return opener(lambda: make(tmp_path / "spool"))


async def test_a_writer_that_dies_leaves_what_it_had_uncertain_and_is_started_again(
    spool: LmdbSpool,
) -> None:
    before = a_message()
    await spool.accept([before])
    writer = process_of(spool).pid
    os.kill(writer, signal.SIGSTOP)  # so that it has something in hand
    asked = []
    for _ in range(3):  # the second is as large as the first and sent behind it, the third would have had to be larger
        asked.append(asyncio.gather(*(spool.accept([a_message()]) for _ in range(3)), return_exceptions=True))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    os.kill(writer, signal.SIGKILL)
    for frame, became in zip(asked, (Uncertain, Uncertain, Unavailable), strict=True):
        assert [type(each) for each in await frame] == [became] * 3
    assert not spool.healthy()
    with pytest.raises(Unavailable, match="ended with -9"):
        await spool.accept([a_message()])
    await until_healthy(spool)
    after = a_message()
    await spool.accept([after])
    for each in (before, after):
        assert await spool.message(each.message.id) is not None


async def test_many_changes_of_a_turn_are_several_commits_and_none_is_lost(spool: LmdbSpool) -> None:
    accepted = [a_message(content=os.urandom(9000)) for _ in range(300)]
    positions = await asyncio.gather(*(spool.accept([each]) for each in accepted))
    assert sorted(positions) == list(range(1, 301))
    for each in accepted:
        message = await spool.message(each.message.id)
        assert message is not None
        assert await spool.content(message) == each.content


async def test_failures_come_back_as_what_they_are(tmp_path: Path) -> None:
    spool = make(tmp_path, reserve=1 << 60)
    with pytest.raises(Full, match=r"spool\.reserve"):
        await spool.accept([a_message()])
    assert await spool.next_epoch() == 1
    message = a_message()
    message.message.custom_args["big"] = "x" * 2_000_000  # no record is that large
    results = await asyncio.gather(spool.accept([message]), spool.next_epoch(), return_exceptions=True)
    assert [type(each) for each in results] == [Refused, int]
    await spool.close()
    with pytest.raises(Unavailable, match="closed"):
        await spool.next_epoch()


async def test_closing_commits_what_was_asked_for_and_ends_the_process(tmp_path: Path) -> None:
    spool = make(tmp_path)
    accepted = [a_message() for _ in range(100)]
    asked = asyncio.gather(*(spool.accept([each]) for each in accepted))
    await asyncio.sleep(0)
    await spool.close()
    assert len(await asked) == 100
    assert process_of(spool).returncode == 0
    again = make(tmp_path)
    for each in accepted:
        assert await again.message(each.message.id) is not None
    await again.close()


async def test_closing_while_there_is_no_process_ends_too(tmp_path: Path) -> None:
    spool = make(tmp_path)
    await spool.next_epoch()
    process_of(spool).kill()
    with pytest.raises(SpoolError):
        await spool.next_epoch()
    await spool.close()
