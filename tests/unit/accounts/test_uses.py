import asyncio

import pytest

from mta.accounts.uses import KIND, Uses, last_used
from mta.lab.clock import FakeClock
from mta.spool.interface import Unavailable

KEY = "A" * 22


class Counting:
    """A spool that counts what is stored, or fails."""

    def __init__(self, spool):
        self.spool = spool
        self.stored = []
        self.failing = False

    async def get_record(self, kind, name):
        return await self.spool.get_record(kind, name)

    async def put_record(self, kind, name, value, *, replace):
        if self.failing:
            raise Unavailable("sick")
        self.stored.append(name)
        return await self.spool.put_record(kind, name, value, replace=replace)


async def test_stored_once_a_minute_and_at_the_end(spool):
    clock, counting = FakeClock(), Counting(spool)
    uses = Uses(counting, clock)
    uses.start()
    began = clock.now()
    for _ in range(59):
        uses.note(KEY, clock.now())
        await clock.advance(1.0)
    assert (counting.stored, await last_used(spool, KEY)) == ([], 0.0)
    await clock.advance(1.0)
    while not counting.stored or not await last_used(spool, KEY):
        await asyncio.sleep(0)
    assert await last_used(spool, KEY) == began + 58
    await clock.advance(300.0)
    assert counting.stored == [KEY]
    uses.note(KEY, clock.now())
    uses.note("B" * 22, clock.now())
    await uses.close()
    assert counting.stored == [KEY, KEY, "B" * 22]
    assert await last_used(spool, KEY) == clock.now()


async def test_what_another_process_knows_is_not_made_older(spool):
    clock = FakeClock()
    one, other = Uses(spool, clock), Uses(spool, clock)
    one.note(KEY, 200.0)
    other.note(KEY, 100.0)
    await one.store()
    await other.store()
    assert await last_used(spool, KEY) == 200.0


async def test_what_is_not_stored_is_tried_again(spool, caplog):
    counting = Counting(spool)
    uses = Uses(counting, FakeClock())
    uses.note(KEY, 100.0)
    counting.failing = True
    await uses.store()
    assert "key uses=1 not stored: sick" in caplog.text
    uses.note(KEY, 150.0)
    counting.failing = False
    await uses.store()
    assert await last_used(spool, KEY) == 150.0


async def test_the_table_is_bounded(spool, monkeypatch):
    monkeypatch.setattr("mta.accounts.uses._MOST", 3)
    uses = Uses(spool, FakeClock())
    for number in range(10):
        uses.note(f"{number:022}", 1.0)
    uses.note(f"{0:022}", 2.0)
    await uses.store()
    assert [(name, float(value)) for name, value in await spool.list_records(KIND)] == [
        (f"{0:022}", 2.0),
        (f"{1:022}", 1.0),
        (f"{2:022}", 1.0),
    ]


@pytest.mark.parametrize("key_id", ["x", ""])
async def test_never(spool, key_id):
    assert await last_used(spool, key_id) == 0.0
