"""A spool of a program that did not count: counted beside the relay, whatever changes meanwhile."""

import asyncio
import os
from pathlib import Path

import lmdb
import msgspec
import pytest

from mta.clock import SystemClock
from mta.spool.interface import Backlog, Settlement
from mta.spool.lmdb import counting
from mta.spool.lmdb.care import verify
from mta.spool.lmdb.environment import Environment, Table
from mta.spool.lmdb.keys import entry_key, message_key
from mta.spool.lmdb.spool import LmdbSpool
from mta.spool.lmdb.tally import COUNTED, COUNTING
from mta.spool.sealing import Keyring
from tests.contract.spool_contract import CLAIM, NOW, a_message, ended, the_head

KEYRING = Keyring([os.urandom(32)])


def opened(path: Path) -> LmdbSpool:
    return LmdbSpool(path, KEYRING, SystemClock(), map_size=1 << 30, reserve=0)


def as_before_counting(path: Path) -> None:
    """Take away what a program from before the counters would not have written."""
    environment = Environment(path, map_size=0, reserve=0)
    with environment.env.begin(write=True) as txn:
        txn.drop(environment.tables[Table.BACKLOG], delete=False)
        for each in (COUNTED, COUNTING):
            txn.delete(each, db=environment.tables[Table.META])
    environment.close()


def rows(path: Path) -> dict[bytes, bytes]:
    environment = Environment(path, map_size=0, reserve=0)
    with environment.env.begin() as txn:
        found = dict(txn.cursor(environment.tables[Table.BACKLOG]))
    environment.close()
    return found  # type: ignore[return-value]


async def test_an_old_spool_is_counted_while_all_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "_MESSAGES", 10)
    spool = opened(tmp_path)
    old = [a_message(tenant=("acme", "other")[n % 2], domains=("a.test", "b.test")) for n in range(40)]
    old.sort(key=lambda each: each.message.id)
    await spool.accept(old)
    await spool.close()
    as_before_counting(tmp_path)
    assert verify(tmp_path, KEYRING).problems == []  # it is not said to be counted

    spool = opened(tmp_path)

    async def deliver(number: int) -> None:
        for each in old[number].entries:
            entry, message = await the_head(spool, each)
            await spool.claim(entry, CLAIM)
            done = ended(msgspec.structs.replace(entry, attempts=1))
            assert await spool.settle(Settlement(message=message, entry=done, claim=CLAIM))

    await deliver(0)
    portions = 0
    while await spool.count_backlog():
        portions += 1
        if portions == 3:  # the first ten are counted, with their twenty entries
            await deliver(1)
            await deliver(30)
            await spool.accept([a_message(tenant="acme")])
    assert portions > 5
    gone = [old[number].message.tenant for number in (0, 1, 30)]
    for name, accepted in (("acme", 21), ("other", 20)):
        messages = accepted - gone.count(name)
        found = (await spool.backlogs())[name]
        assert (found.messages, found.untried) == (messages, 2 * messages - (name == "acme"))
    await spool.close()
    assert verify(tmp_path, KEYRING).problems == []


async def test_what_an_older_program_did_meanwhile_is_noticed(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    await spool.accept([a_message()])
    await spool.close()
    before = rows(tmp_path)
    environment = Environment(tmp_path, map_size=0, reserve=0)
    with environment.env.begin() as txn:
        counted = txn.get(COUNTED, db=environment.tables[Table.META])
    environment.close()
    spool = opened(tmp_path)
    await spool.accept([a_message()])
    await spool.close()
    environment = Environment(tmp_path, map_size=0, reserve=0)
    with environment.env.begin(write=True) as txn:  # as if the second had come to a program that does not count
        txn.put(COUNTED, counted, db=environment.tables[Table.META])
        for key, row in before.items():
            txn.put(key, row, db=environment.tables[Table.BACKLOG])
    environment.close()
    spool = opened(tmp_path)
    assert (await spool.backlogs())["acme"].messages == 1
    while await spool.count_backlog():
        pass
    assert (await spool.backlogs())["acme"].messages == 2
    await spool.close()
    assert verify(tmp_path, KEYRING).problems == []


async def test_counting_and_what_came_before_it_in_one_commit(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    await spool.accept([a_message()])
    await spool.close()
    as_before_counting(tmp_path)
    spool = opened(tmp_path)
    together = [spool._writer.perform(each) for each in [counting.CountBacklog()] * 3]
    accepted = spool.accept([a_message(tenant="other")])
    assert (await accepted) == 2
    for each in together:
        await each
    while await spool.count_backlog():
        pass
    assert await spool.backlogs() == {
        "acme": Backlog(1, 24, 1),
        "other": Backlog(1, 24, 1),
    }
    await spool.close()
    assert verify(tmp_path, KEYRING).problems == []


async def test_what_ends_in_the_commit_that_counts_is_counted_once(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    accepted = a_message()
    await spool.accept([accepted, a_message(tenant="other")])
    entry, message = await the_head(spool, accepted.entries[0])
    await spool.claim(entry, CLAIM)
    await spool.close()
    as_before_counting(tmp_path)
    spool = opened(tmp_path)
    assert await spool.count_backlog()
    done = ended(msgspec.structs.replace(entry, attempts=1))
    settling = spool.settle(Settlement(message=message, entry=done, claim=CLAIM))
    assert await asyncio.gather(settling, spool.count_backlog()) == [True, False]
    assert await spool.backlogs() == {"other": Backlog(1, 24, 1)}
    await spool.close()
    assert verify(tmp_path, KEYRING).problems == []


async def test_what_was_scheduled_is_counted_but_not_as_work(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    accepted = a_message()
    scheduled = msgspec.structs.replace(accepted.message, release_at=accepted.message.accepted_at + 1)
    await spool.accept([msgspec.structs.replace(accepted, message=scheduled)])
    await spool.close()
    as_before_counting(tmp_path)
    spool = opened(tmp_path)
    while await spool.count_backlog():
        pass
    assert await spool.backlogs() == {"acme": Backlog(1, 24)}
    await spool.close()
    assert verify(tmp_path, KEYRING).problems == []


def broken(path: Path, table: Table, key: bytes) -> None:
    """Break a record."""
    environment = Environment(path, map_size=0, reserve=0)
    with environment.env.begin(write=True) as txn:
        row = txn.get(key + b"\0", db=environment.tables[table])
        assert isinstance(row, bytes)
        txn.put(key + b"\0", row[:-1] + bytes([row[-1] ^ 1]), db=environment.tables[table])
    environment.close()


async def test_what_is_quarantined_is_not_counted_as_waiting(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    whole, alone, one_of_two, no_message = many = [
        a_message(domains=domains) for domains in (("x.test",), ("x.test",), ("x.test", "y.test"), ("x.test",))
    ]
    await spool.accept(many)
    await spool.close()
    for each in (alone, one_of_two):
        broken(tmp_path, Table.ENTRIES, entry_key(each.entries[0]))
    broken(tmp_path, Table.MESSAGES, message_key(no_message.message.id))
    spool = opened(tmp_path)
    assert [each.message.id for each in await spool.heads(whole.entries[0].lane, NOW, 10, ())] == [whole.message.id]
    while await spool.count_backlog():
        pass
    assert await spool.backlogs() == {"acme": Backlog(2, 48, 2)}
    await spool.close()
    assert [each for each in verify(tmp_path, KEYRING).problems if each.startswith("backlog")] == []
    spool = opened(tmp_path)
    entry, message = await the_head(spool, one_of_two.entries[1])
    await spool.claim(entry, CLAIM)
    assert await spool.settle(Settlement(message=message, entry=ended(entry), claim=CLAIM))
    timers = await spool.timers(NOW + 1e7, 10)
    assert [each.message.id for each in timers] == [whole.message.id]  # and with them what is left of the others
    while await spool.count_backlog():
        pass
    assert await spool.backlogs() == {"acme": Backlog(1, 24, 1)}
    await spool.close()
    assert [each for each in verify(tmp_path, KEYRING).problems if each.startswith("backlog")] == []


async def test_what_is_quarantined_while_all_is_counted_begins_nothing_anew(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    whole, other = a_message(), a_message()
    await spool.accept([whole, other])
    await spool.close()
    broken(tmp_path, Table.ENTRIES, entry_key(other.entries[0]))
    as_before_counting(tmp_path)
    spool = opened(tmp_path)
    assert await spool.count_backlog()
    await spool.heads(whole.entries[0].lane, NOW, 10, ())
    assert not await spool.count_backlog()
    assert await spool.backlogs() == {"acme": Backlog(1, 24, 1)}
    await spool.close()


@pytest.mark.parametrize("changed", ["more", "gone"])
async def test_a_wrong_count_is_named(tmp_path: Path, changed: str) -> None:
    spool = opened(tmp_path)
    await spool.accept([a_message()])
    await spool.close()
    ((key, row),) = rows(tmp_path).items()
    environment = Environment(tmp_path, map_size=0, reserve=0)
    with environment.env.begin(write=True) as txn:
        table = environment.tables[Table.BACKLOG]
        assert txn.put(key, row[:7] + b"\x02" + row[8:], db=table) if changed == "more" else txn.delete(key, db=table)
    environment.close()
    problems = [each.partition(": ")[2] for each in verify(tmp_path, KEYRING).problems]
    gone = ["1 messages, 0 were counted", "24 octets, 0 were counted", "1 untried, 0 were counted"]
    assert problems == (["1 messages, 2 were counted"] if changed == "more" else gone)


async def test_a_row_whose_name_cannot_be_opened_is_left_out(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    await spool.accept([a_message(), a_message(tenant="other")])
    await spool.close()
    key = min(rows(tmp_path))
    environment = Environment(tmp_path, map_size=0, reserve=0)
    with environment.env.begin(write=True) as txn:
        _break(txn, environment, key)
    environment.close()
    spool = opened(tmp_path)
    assert len(await spool.backlogs()) == 1
    await spool.close()


def _break(txn: lmdb.Transaction, environment: Environment, key: bytes) -> None:
    table = environment.tables[Table.BACKLOG]
    row = txn.get(key, db=table)
    assert isinstance(row, bytes)
    txn.put(key, row[:-1] + bytes([row[-1] ^ 1]), db=table)
