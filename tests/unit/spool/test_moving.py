"""A drained spool moves into a new file. How others follow, and what a crash leaves, is in tests/crash."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from mta.spool.interface import Acceptance, Keep, Kept, Settlement, Terms, Unavailable
from mta.spool.lmdb import care, following
from mta.spool.lmdb.ahead import LOW
from mta.spool.lmdb.care import backup, verify, verify_structure
from mta.spool.lmdb.environment import Environment, Table
from mta.spool.lmdb.following import Followed
from mta.spool.lmdb.moving import MOVED
from mta.spool.lmdb.spool import LmdbSpool
from mta.spool.sealing import Keyring
from tests.contract.spool_contract import CLAIM, NOW, a_message, ended, the_head
from tests.unit.spool.test_apart import make as make_apart
from tests.unit.spool.test_lmdb_spool import KEYS, make

SMALL = 1 << 20
COMMON = b"common\r\n" * 2000


@pytest.fixture
def early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "_GIVEN_BACK", SMALL)


async def fill_and_drain(spool: LmdbSpool, octets: int = 3 * SMALL) -> None:
    """Leave free pages, of content that was given up."""
    loose = spool.store_content()
    await loose.write(b"x" * octets)
    await loose.abort()
    while await spool.collect(NOW + 1):
        pass


async def shared_by_two(spool: LmdbSpool) -> list[Acceptance]:
    """Have two messages with content in common."""
    writer = spool.store_content()
    await writer.write(COMMON)
    shared = (await writer.finish(),)
    batch = [msgspec.structs.replace(a_message(), shared=shared) for _ in range(2)]
    await spool.accept(batch)
    return batch


def end(path: Path) -> int:
    environment = Environment(path, map_size=0, reserve=0)
    try:
        return environment.end
    finally:
        environment.close()


async def test_a_drained_spool_gives_back_what_it_had_and_keeps_what_it_has(tmp_path: Path, early: None) -> None:
    spool = make(tmp_path)
    before, after = a_message(), a_message()
    await spool.accept([before])
    batch = await shared_by_two(spool)
    await fill_and_drain(spool)
    first = await spool.log_end()
    assert await spool.accept([after]) == first + 1
    for each in (before, after):
        message = await spool.message(each.message.id)
        assert message is not None
        assert await spool.content(message) == each.content
    for each in batch:
        entry, message = await the_head(spool, each.entries[0])
        assert await spool.content(message) == each.content + COMMON
        assert await spool.claim(entry, CLAIM)
        assert await spool.settle(Settlement(message=message, entry=ended(entry), claim=CLAIM))
    await spool.close()
    assert end(tmp_path) < SMALL
    assert verify(tmp_path, Keyring(KEYS)).problems == verify_structure(tmp_path) == []
    assert not (tmp_path / "compacted").exists()


async def test_answers_that_are_kept_go_along_when_much_is_given_back(
    tmp_path: Path, early: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "_COPIED", SMALL // 16)
    spool = make(tmp_path)
    for number in range(20):
        await spool.accept_on([], Terms(now=NOW, keep=Keep(f"{number}", b"digest", b"x" * 20_000, NOW + 60)))
    await fill_and_drain(spool)
    assert end_of(spool) > 3 * SMALL
    await fill_and_drain(spool, 12 * SMALL)
    assert await spool.accept([a_message()]) == 1
    assert end_of(spool) < SMALL
    assert await spool.kept("7", NOW) == Kept(b"digest", b"x" * 20_000, 0)
    await spool.close()


async def test_a_role_s_spool_moves_and_has_zeros_ahead_again(tmp_path: Path) -> None:
    spool = make_apart(tmp_path)
    before, after = a_message(), a_message()
    await spool.accept([before])
    await fill_and_drain(spool, following._GIVEN_BACK + SMALL)
    async with asyncio.timeout(10):
        while end_of(spool) > SMALL:
            await asyncio.sleep(0.01)
            await spool.log_end()
        await spool.accept([after])
        while (tmp_path / "data.mdb").stat().st_size < end_of(spool) + LOW:
            await spool.next_epoch()
    for each in (before, after):
        assert await spool.message(each.message.id) is not None
    await spool.close()


def end_of(spool: LmdbSpool) -> int:
    return spool._writer.followed.environment.end


@pytest.mark.parametrize(("copied", "given_back"), [(1000, 0), (1 << 30, 5 * SMALL)])
async def test_what_is_much_or_gives_little_back_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copied: int, given_back: int
) -> None:
    monkeypatch.setattr(following, "_COPIED", copied)
    monkeypatch.setattr(following, "_MOST_COPIED", copied)
    monkeypatch.setattr(following, "_GIVEN_BACK", given_back)
    spool = make(tmp_path)
    await fill_and_drain(spool)
    await spool.close()
    assert end(tmp_path) > 3 * SMALL


async def test_without_room_for_the_new_file_mail_goes_on_in_the_old_one(
    tmp_path: Path, early: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mta.spool.lmdb.moving.sync_to_disk", full)
    spool = make(tmp_path)
    await fill_and_drain(spool)
    await spool.accept([a_message()])
    assert spool.healthy()
    await spool.close()
    assert "moved=no error='copy of spool" in caplog.text
    assert end(tmp_path) > 3 * SMALL
    assert not (tmp_path / "compacted" / "data.mdb").exists()


async def test_nothing_is_tried_where_the_copy_would_take_the_last_of_the_disk(
    tmp_path: Path, early: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "_SPARE", 1 << 60)
    spool = make(tmp_path)
    await fill_and_drain(spool)
    await spool.close()
    assert end(tmp_path) > 3 * SMALL
    assert not (tmp_path / "compacted").exists()


async def test_an_earlier_program_keeps_off_a_file_that_was_left(tmp_path: Path) -> None:
    await make(tmp_path).close()
    environment = Environment(tmp_path, map_size=0, reserve=0)
    with environment.env.begin(write=True) as txn:
        txn.put(b"version", MOVED, db=environment.tables[Table.META])
    with pytest.raises(Unavailable, match="format version b'moved'"):
        environment._check_version()  # which is all that an earlier program looks at
    environment.close()
    with pytest.raises(Unavailable, match=r"compacted/data\.mdb is missing"):
        make(tmp_path)


async def test_a_backup_taken_while_the_spool_moves_is_of_the_new_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the old one it could not be used: it says that the spool is elsewhere."""
    place, target = tmp_path / "spool", tmp_path / "copy"
    spool = make(place)
    accepted = a_message()
    await spool.accept([accepted])
    await fill_and_drain(spool)
    await spool.close()
    monkeypatch.setattr(following, "_GIVEN_BACK", SMALL)
    looks = 0

    class MovesMeanwhile(Followed):
        def current(self) -> Environment:
            nonlocal looks
            looks += 1
            if looks == 2:  # when it has been copied
                assert self.move()
            return super().current()

    monkeypatch.setattr(care, "Followed", MovesMeanwhile)
    backup(place, target)
    assert verify(target, Keyring(KEYS)).counts["messages"] == 1
    assert end(target) < SMALL
