"""Hints: each lane has one that leads to its head, and none is left when its rows are gone."""

import asyncio
import os
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from mta.clock import SystemClock
from mta.spool.interface import Change, Settlement
from mta.spool.lmdb.environment import Environment, Table
from mta.spool.lmdb.keys import ENTRY_BYTES, LANE_BYTES, lane_key, seconds, tenant_key
from mta.spool.lmdb.spool import LmdbSpool
from mta.spool.records import Entry, Lane, Message, MessageClass
from mta.spool.sealing import Keyring
from tests.contract.spool_contract import CLAIM, NOW, a_message, ended

KEYRING = Keyring([os.urandom(32)])
DOMAINS = ("a.test", "b.test")
SPAN = 5  # seconds


def opened(path: Path) -> LmdbSpool:
    return LmdbSpool(path, KEYRING, SystemClock(), map_size=1 << 30, reserve=0, sync=False)


def keys(spool: LmdbSpool, table: Table) -> list[bytes]:
    with spool._view() as view:
        return list(view.cursor(table).iternext(values=False))


def later(entry: Entry, by: int) -> Entry:
    return Entry(**{field: getattr(entry, field) for field in entry.__struct_fields__} | {"due_at": NOW + by})


async def act(spool: LmdbSpool, waiting: list[tuple[Message, Entry]], what: str, which: int, second: int) -> None:
    """Accept, put off, deliver or defer one; several at a time are one commit."""
    if what == "accept" or not waiting:
        accepted = a_message(domain=DOMAINS[which % len(DOMAINS)], due_at=NOW + second)
        waiting.append((accepted.message, accepted.entries[0]))
        await spool.accept([accepted])
        return
    message, _ = waiting.pop(which % len(waiting))
    ((entry, _),) = await spool.entries(message.id)
    if what == "change":
        assert await spool.change(Change(message=message, before=entry, after=later(entry, second)))
    else:
        assert await spool.claim(entry, CLAIM)
        after = ended(entry) if what == "deliver" else later(entry, second)
        assert await spool.settle(Settlement(message=message, entry=after, claim=CLAIM))
    if what != "deliver":
        waiting.append((message, entry))


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["accept", "accept", "change", "deliver", "defer"]),
            st.integers(0, 20),
            st.integers(0, SPAN),
        ),
        max_size=40,
    )
)
@settings(max_examples=40, deadline=None)
def test_every_head_has_a_hint_and_every_hint_a_row(actions: list[tuple[str, int, int]]) -> None:
    async def run() -> None:
        with tempfile.TemporaryDirectory() as directory:
            spool = opened(Path(directory) / "spool")
            waiting: list[tuple[Message, Entry]] = []
            for each in actions:
                await act(spool, waiting, *each)
                times: dict[bytes, list[bytes]] = {}
                for row in keys(spool, Table.DUE):
                    at = int.from_bytes(row[LANE_BYTES:-ENTRY_BYTES], "big") / 1000
                    times.setdefault(row[:LANE_BYTES], []).append(tenant_key("acme") + seconds(at) + row[:LANE_BYTES])
                hints = set(keys(spool, Table.WAKE))
                assert hints >= {of_lane[0] for of_lane in times.values()}
                assert hints <= {each for of_lane in times.values() for each in of_lane}
            await spool.close()

    asyncio.run(run())


async def test_what_waits_behind_a_lanes_head_has_no_hint(tmp_path: Path) -> None:
    spool = opened(tmp_path / "spool")
    for second in range(20):
        await spool.accept([a_message(due_at=NOW + second), a_message(due_at=NOW + second)])
    assert len(keys(spool, Table.WAKE)) == 1
    await spool.close()


async def test_hints_that_lead_nowhere_hold_up_nobody(tmp_path: Path) -> None:
    """An older version left them. A look passes by more than it removes, and by those of each tenant."""
    spool = opened(tmp_path / "spool")
    light, heavy = a_message(tenant="light"), a_message(tenant="heavy")
    await spool.accept([light, heavy])
    await spool.close()
    environment = Environment(tmp_path / "spool", map_size=0, reserve=0)
    with environment.env.begin(write=True) as txn:
        for tenant in ("light", "heavy"):
            for n in range(1500):
                gone = lane_key(Lane(tenant, MessageClass.NORMAL, f"gone{n}.test"))
                txn.put(tenant_key(tenant) + seconds(NOW - 10) + gone, b"", db=environment.tables[Table.WAKE])
    environment.close()
    spool = opened(tmp_path / "spool")
    assert {each.tenant for each in await spool.lanes(NOW, 10)} == {"light", "heavy"}
    for _ in range(6):
        await spool.lanes(NOW, 10)
    assert len(keys(spool, Table.WAKE)) == 2
    await spool.close()
