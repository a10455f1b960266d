"""Which entries are walked: those that are meant, were there when they were counted, and can be read."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from mta.clock import SystemClock
from mta.queue.selection import meant, select
from mta.queue.where import Where
from mta.spool.interface import Acceptance
from mta.spool.lmdb.commit import Group
from mta.spool.lmdb.environment import Table
from mta.spool.lmdb.keys import message_key
from mta.spool.lmdb.spool import LmdbSpool
from mta.spool.sealing import Keyring
from tests.contract.spool_contract import NOW, a_message


@pytest.fixture
async def spool(tmp_path: Path) -> AsyncIterator[LmdbSpool]:
    made = LmdbSpool(tmp_path, Keyring([os.urandom(32)]), SystemClock(), map_size=1 << 28, reserve=0)
    yield made
    await made.close()


def accepted(at: float) -> Acceptance:
    made = a_message(domains=("one.test", "two.test"))
    return msgspec.structs.replace(made, message=msgspec.structs.replace(made.message, accepted_at=at))


async def test_what_came_after_the_count_is_left_out(spool: LmdbSpool) -> None:
    before, after = accepted(NOW), accepted(NOW + 0.001)
    await spool.accept([before, after])
    found = [due async for due, _ in select(spool, Where(["domain=two.test"]), NOW + 10, accepted_by=NOW)]
    assert [(due.entry, due.message.id) for due in found] == [(before.entries[1], before.message.id)]


async def test_a_message_that_cannot_be_read_stops_no_walk(spool: LmdbSpool) -> None:
    broken, whole = accepted(NOW), accepted(NOW)
    await spool.accept([broken, whole])

    def damage(group: Group) -> None:
        key = message_key(broken.message.id) + b"\x00"
        group.put(Table.MESSAGES, [(key, (group.get(Table.MESSAGES, key) or b"")[:-1] + b"x")])

    await spool._writer.submit(damage)  # type: ignore[attr-defined]
    old = Where(["age>1s"])
    assert {entry.message async for entry, _ in meant(spool, old, NOW + 10)} == {whole.message.id}
    assert {due.message.id async for due, _ in select(spool, Where([]), NOW, accepted_by=NOW)} == {whole.message.id}
    assert len([each async for each in meant(spool, Where([]), NOW)]) == 4  # which asks for no message
