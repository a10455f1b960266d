"""verify, backup and compact: a whole spool passes, each kind of damage is named."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lmdb
import msgspec
import pytest

from mta.clock import SystemClock
from mta.mail.ids import message_id_text
from mta.spool.interface import Change, SpoolError, Unavailable
from mta.spool.lmdb.care import backup, compact, verify, verify_structure
from mta.spool.lmdb.content import loose_value, users_value
from mta.spool.lmdb.environment import Environment, Table
from mta.spool.lmdb.keys import ENTRY_BYTES, ended_key, entry_id_text
from mta.spool.lmdb.spool import LmdbSpool
from mta.spool.lmdb.view import View
from mta.spool.records import Message
from mta.spool.sealing import Keyring
from tests.contract.spool_contract import CLAIM, NOW, a_message, the_head

KEYRING = Keyring([os.urandom(32)])


def opened(path: Path) -> LmdbSpool:
    return LmdbSpool(path, KEYRING, SystemClock(), map_size=1 << 30, reserve=0)


async def fill(path: Path) -> None:
    spool = opened(path)
    loose = spool.store_content()
    await loose.write(b"l" * 100_000)
    accepted = [a_message(content=os.urandom(20_000), domain=f"d{n % 3}.test") for n in range(30)]
    await spool.accept(accepted[:15])
    await spool.accept(accepted[15:])
    entry, _ = await the_head(spool, accepted[0].entries[0])
    await spool.claim(entry, CLAIM)
    waiting, message = await the_head(spool, accepted[1].entries[0])
    await spool.change(Change(message=message, before=waiting, after=msgspec.structs.replace(waiting, held=True)))
    await spool.put_record("tenant", "acme", b"x", replace=True)
    await spool.close()


async def fill_shared(path: Path) -> None:
    spool = opened(path)
    writer = spool.store_content()
    await writer.write(os.urandom(20_000))
    shared = (await writer.finish(),)
    await spool.accept([msgspec.structs.replace(a_message(), shared=shared) for _ in range(3)])
    await spool.close()


@contextmanager
def at_the_last_row(path: Path, table: Table) -> Iterator[lmdb.Cursor]:
    """Change a table behind the spool's back."""
    environment = Environment(path, map_size=0, reserve=0)
    with environment.env.begin(write=True) as txn:
        cursor = txn.cursor(environment.tables[table])
        assert cursor.last()
        yield cursor
    environment.close()


async def test_a_whole_spool_passes(tmp_path: Path) -> None:
    await fill(tmp_path / "spool")
    findings = verify(tmp_path / "spool", KEYRING)
    assert findings.problems == []
    assert findings.counts["messages"] == findings.counts["entries"] == findings.counts["events"] == 30
    assert (findings.counts["claims"], findings.counts["held"], findings.counts["due"]) == (1, 1, 28)
    assert verify_structure(tmp_path / "spool") == []


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (Table.MESSAGES, "has no message"),
        (Table.ENTRIES, "has no entry"),
        (Table.DUE, "neither claimed nor waiting"),
        (Table.CLAIMS, "neither claimed nor waiting"),
        (Table.HELD, "neither claimed nor waiting"),
        (Table.TIMERS, "has no timer"),
        (Table.WAKE, "no hint leads to its lane"),
        (Table.CONTENT, "is missing"),
        (Table.LOOSE, "belongs to nothing"),
        (Table.EVENTS, "the last is"),
    ],
)
async def test_a_missing_row_is_named(tmp_path: Path, table: Table, said: str) -> None:
    await fill(tmp_path)
    with at_the_last_row(tmp_path, table) as cursor:
        cursor.delete()
    assert any(said in each for each in verify(tmp_path, KEYRING).problems)


async def test_a_message_that_is_kept_needs_no_entry_but_a_row(tmp_path: Path) -> None:
    await fill(tmp_path)
    environment = Environment(tmp_path, map_size=0, reserve=0)
    tables = environment.tables
    with environment.env.begin(write=True) as txn:
        cursor = txn.cursor(tables[Table.MESSAGES])
        assert cursor.last()
        key = bytes(cursor.key())[:16]
        txn.put(ended_key(1.0, key), b"", db=tables[Table.ENDED])
        txn.put(ended_key(1.0, b"x" * 16), b"", db=tables[Table.ENDED])
    environment.close()
    assert verify(tmp_path, KEYRING).problems == [
        f"ended: a row without its message {(b'x' * 16).hex()}",
        f"message {message_id_text(key)}: is to be removed, and has an entry",
    ]


@pytest.mark.tampers
async def test_shared_content_passes_and_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await fill_shared(tmp_path)
    read: list[int] = []
    content = View.content

    def reading(self: View, message: Message, wanted: int) -> bytes:
        read.append(wanted)
        return content(self, message, wanted)

    monkeypatch.setattr(View, "content", reading)
    findings = verify(tmp_path, KEYRING)
    assert findings.problems == []
    assert (findings.counts["messages"], findings.counts["shared"], findings.counts["pages"]) == (3, 1, 3 + 5)
    assert findings.counts["octets"] == 3 * (20_000 + read[1])
    assert sum(read) == 20_000 + 3 * read[1]


async def test_shared_content_that_is_counted_wrongly_is_named(tmp_path: Path) -> None:
    await fill_shared(tmp_path)
    for found, users in (("4 were counted", users_value(4)), ("2 were counted", users_value(2))):
        with at_the_last_row(tmp_path, Table.SHARED) as cursor:
            cursor.put(bytes(cursor.key()), users)
        (problem,) = verify(tmp_path, KEYRING).problems
        assert problem.endswith(f"stands in 3 places, {found}")
    with at_the_last_row(tmp_path, Table.SHARED) as cursor:
        name = bytes(cursor.key())
        cursor.delete()
    assert verify(tmp_path, KEYRING).problems == [f"content {name.hex()}: stands in 3 places, 0 were counted"]
    environment = Environment(tmp_path, map_size=0, reserve=0)
    with environment.env.begin(write=True) as txn:
        txn.put(name, users_value(3), db=environment.tables[Table.SHARED])
        txn.put(b"n" * 16, users_value(1), db=environment.tables[Table.SHARED])
        txn.put(name, loose_value(5, 0), db=environment.tables[Table.LOOSE])
    environment.close()
    assert verify(tmp_path, KEYRING).problems == [
        f"content {'6e' * 16}: stands in 0 places, 1 were counted",
        f"content {name.hex()}: belongs to a message, and is to be collected",
    ]


async def test_an_entry_in_two_places_is_named(tmp_path: Path) -> None:
    await fill(tmp_path)
    environment = Environment(tmp_path, map_size=0, reserve=0)
    with environment.env.begin(write=True) as txn:
        held = txn.cursor(environment.tables[Table.HELD])
        claimed = txn.cursor(environment.tables[Table.CLAIMS])
        assert held.first()
        assert claimed.first()
        key, claim, revision = bytes(held.key()), bytes(claimed.value()), bytes(held.value())
        txn.put(key, claim, db=environment.tables[Table.CLAIMS])
        txn.put(bytes(claimed.key()), revision, db=environment.tables[Table.HELD])
    environment.close()
    problems = verify(tmp_path, KEYRING).problems
    assert [each.partition(": ")[2] for each in problems] == ["is claimed and held"] * 2


async def test_an_entry_that_is_not_where_it_says_is_named(tmp_path: Path) -> None:
    await fill(tmp_path)
    environment = Environment(tmp_path, map_size=0, reserve=0)
    with environment.env.begin(write=True) as txn:
        cursor = txn.cursor(environment.tables[Table.HELD])
        assert cursor.first()
        key = bytes(cursor.key())
        txn.put(key, b"\0\0\0\x07", db=environment.tables[Table.HELD])
    environment.close()
    assert [each.partition(": ")[2] for each in verify(tmp_path, KEYRING).problems] == ["is held in another revision"]
    environment = Environment(tmp_path, map_size=0, reserve=0)
    with environment.env.begin(write=True) as txn:
        txn.delete(key, db=environment.tables[Table.HELD])
        txn.put(key, b"", db=environment.tables[Table.CLAIMS])
    environment.close()
    assert [each.partition(": ")[2] for each in verify(tmp_path, KEYRING).problems] == [
        "is claimed and says it is held"
    ]


@pytest.mark.parametrize("table", [Table.DUE, Table.TIMERS])
async def test_a_second_row_of_an_entry_is_named(tmp_path: Path, table: Table) -> None:
    """Red when it is enough that a row has an entry: a stray one has it tried before its time."""
    await fill(tmp_path)
    with at_the_last_row(tmp_path, table) as cursor:
        key, value = bytes(cursor.key()), bytes(cursor.value())
        time_at = len(key) - ENTRY_BYTES - 8
        assert cursor.put(key[:time_at] + bytes(8) + key[-ENTRY_BYTES:], value)
    said = f"{table.value}: a row of entry {entry_id_text(key[-ENTRY_BYTES:])} that is not where it says"
    assert verify(tmp_path, KEYRING).problems == [said]


@pytest.mark.parametrize("table", [Table.MESSAGES, Table.ENTRIES, Table.CONTENT, Table.EVENTS, Table.RECORDS])
async def test_a_changed_octet_is_named(tmp_path: Path, table: Table) -> None:
    await fill(tmp_path)
    with at_the_last_row(tmp_path, table) as cursor:
        key, value = bytes(cursor.key()), bytearray(cursor.value())
        value[-1] ^= 1
        cursor.put(key, bytes(value))
    problems = verify(tmp_path, KEYRING).problems
    assert any("changed or moved" in each for each in problems)


@pytest.mark.parametrize("table", [Table.MESSAGES, Table.ENTRIES, Table.EVENTS, Table.RECORDS])
async def test_a_row_of_no_octets_is_named_and_the_walk_goes_on(tmp_path: Path, table: Table) -> None:
    await fill(tmp_path)
    with at_the_last_row(tmp_path, table) as cursor:
        cursor.put(bytes(cursor.key()), b"")
    findings = verify(tmp_path, KEYRING)
    assert any("no octets" in each for each in findings.problems)
    assert findings.counts["messages"] >= 29
    assert findings.counts["pages"] > 0


async def test_a_table_that_shows_what_nothing_writes_is_named(tmp_path: Path) -> None:
    await fill(tmp_path)
    with at_the_last_row(tmp_path, Table.META) as cursor:
        cursor.put(b"sequence", b"no number")
    findings = verify(tmp_path, KEYRING)
    assert [each.partition(":")[0] for each in findings.problems] == ["events"]
    assert findings.counts["pages"] > 0


async def test_a_backup_is_the_spool(tmp_path: Path) -> None:
    await fill(tmp_path / "spool")
    backup(tmp_path / "spool", tmp_path / "copy")
    assert verify(tmp_path / "copy", KEYRING) == verify(tmp_path / "spool", KEYRING)
    assert verify_structure(tmp_path / "copy") == []
    with pytest.raises(SpoolError, match="exists"):
        backup(tmp_path / "spool", tmp_path / "copy")


async def test_compact_gives_the_free_pages_back(tmp_path: Path) -> None:
    await fill(tmp_path)
    spool = opened(tmp_path)
    await spool.collect(NOW * 2)
    await spool.close()
    before, after = compact(tmp_path)
    assert after < before
    findings = verify(tmp_path, KEYRING)
    assert (findings.problems, findings.counts["messages"]) == ([], 30)


def test_a_spool_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="there is none"):
        verify(tmp_path / "none", KEYRING)
    assert not (tmp_path / "none").exists()


async def test_compact_and_the_relay_keep_each_other_out(tmp_path: Path) -> None:
    """Who opened the file while it is written anew would accept mail into one that is about to go."""
    await fill(tmp_path)
    spool = opened(tmp_path)
    with pytest.raises(Unavailable, match="in use"):
        compact(tmp_path)
    await spool.close()
    compacting = Environment(tmp_path, map_size=0, reserve=0, alone=True)
    with pytest.raises(Unavailable, match="compacted"):
        opened(tmp_path)
    compacting.close()
    await opened(tmp_path).close()
