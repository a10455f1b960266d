"""Zeros ahead of the data: they never touch it, are given back as room, and leave a disk that is nearly full alone."""

import asyncio
import mmap
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from mta.spool.lmdb import ahead
from mta.spool.lmdb.ahead import LOW, append_zeros
from mta.spool.lmdb.care import verify
from mta.spool.lmdb.environment import PAGE
from mta.spool.lmdb.spool import LmdbSpool
from mta.spool.sealing import Keyring
from tests.contract.spool_contract import a_message
from tests.unit.spool.test_apart import HOUSEHOLD
from tests.unit.spool.test_lmdb_spool import KEYS, AtNow

PIECE = 1 << 16


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "data"
    made.write_bytes(b"x" * PAGE)
    return made


@pytest.fixture
def zeros() -> mmap.mmap:
    return mmap.mmap(-1, PIECE)


def test_whole_pieces_go_behind_what_is_there(file: Path, zeros: mmap.mmap) -> None:
    goal = PAGE + 3 * PIECE + PIECE // 2
    assert append_zeros(file, zeros, goal) == PAGE + 3 * PIECE
    assert append_zeros(file, zeros, goal) == PAGE + 3 * PIECE
    assert file.read_bytes() == b"x" * PAGE + bytes(3 * PIECE)


def test_what_another_process_has_appended_meanwhile_stays(
    file: Path, zeros: mmap.mmap, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between looking at the length and writing, where a write at an offset would destroy it."""
    fstat = os.fstat

    def late(fd: int) -> os.stat_result:
        found = fstat(fd)
        if found.st_size == PAGE:
            with file.open("ab") as other:
                other.write(b"y" * PAGE)
        return found

    monkeypatch.setattr(ahead.os, "fstat", late)
    append_zeros(file, zeros, PAGE + PIECE)
    assert file.read_bytes() == b"x" * PAGE + b"y" * PAGE + bytes(PIECE)


def test_a_disk_that_is_nearly_full_is_left_alone(
    file: Path, zeros: mmap.mmap, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = SimpleNamespace(f_bavail=64 * PIECE * 2 // PAGE, f_frsize=PAGE)
    monkeypatch.setattr(ahead.os, "fstatvfs", lambda _: free)
    assert append_zeros(file, zeros, 1 << 30) == PAGE + 2 * PIECE
    free.f_bavail -= 64 * PIECE * 2 // PAGE
    assert append_zeros(file, zeros, 1 << 30) == PAGE + 2 * PIECE


async def test_a_spool_in_use_has_zeros_ahead_which_count_as_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = LmdbSpool(tmp_path, Keyring(KEYS), AtNow(), map_size=1 << 40, reserve=0, apart=HOUSEHOLD)
    environment = spool._writer.followed.environment
    accepted = []
    async with asyncio.timeout(10):
        while (tmp_path / "data.mdb").stat().st_size < environment.end + LOW:
            accepted.append(a_message(content=os.urandom(9000)))
            await spool.accept([accepted[-1]])
    disk = SimpleNamespace(f_bavail=1000, f_frsize=PAGE, f_blocks=10_000)
    monkeypatch.setattr(os, "statvfs", lambda _: disk)
    ahead_of_data = (tmp_path / "data.mdb").stat().st_size - environment.end
    assert environment.space().free >= 1000 * PAGE + ahead_of_data
    for each in accepted:
        message = await spool.message(each.message.id)
        assert message is not None
        assert await spool.content(message) == each.content
    await spool.close()
    assert verify(tmp_path, Keyring(KEYS)).problems == []
