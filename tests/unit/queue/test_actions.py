"""What operators and tenants do to entries: never to more than were counted."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mta.clock import SystemClock
from mta.queue import actions
from mta.queue.actions import Who
from mta.queue.where import Where
from mta.spool.lmdb.spool import LmdbSpool
from mta.spool.sealing import Keyring
from tests.contract.spool_contract import NOW, a_message


@pytest.fixture
async def spool(tmp_path: Path) -> AsyncIterator[LmdbSpool]:
    made = LmdbSpool(tmp_path, Keyring([os.urandom(32)]), SystemClock(), map_size=1 << 28, reserve=0)
    yield made
    await made.close()


async def test_what_came_to_be_concerned_after_the_count_is_left_alone(spool: LmdbSpool) -> None:
    await spool.accept([a_message(recipients=2) for _ in range(4)])
    action, all_ = actions.hold(Who("the operator")), Where(["domain=*"])
    assert await actions.count(spool, all_, action, NOW) == (4, 8)
    assert len([each async for each in actions.concerned(spool, all_, action, NOW, 3)]) == 3
    assert len([each async for each in actions.concerned(spool, all_, action, NOW - 1, 9)]) == 0  # accepted since


async def test_conditions_on_one_tenants_entries(spool: LmdbSpool) -> None:
    await spool.accept([a_message(), a_message(tenant="other")])
    action = actions.drop(Who("the tenant", "other"))
    expected = {"domain=*": 1, "tenant=*": 1, "tenant!=acme": 1, "tenant=acme": 0, "tenant!=other": 0}
    for condition, count in expected.items():
        assert (await actions.count(spool, Where([condition], "other"), action, NOW)).entries == count, condition
