"""A look at the spool reads no more with a backlog, and a drained spool is as a new one: counted, not timed."""

import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import pytest

from mta.spool.lmdb.environment import Environment, Table
from mta.spool.lmdb.keys import lane_key
from mta.spool.lmdb.view import View
from mta.spool.records import Lane, MessageClass
from mta.spool.sealing import load_keyring
from tests.scale.backlog import SPREADS, TENANT, Shape, backlog, domain

FEW, MANY = 200, 5_000
_LOOK = 50  # lanes, or heads of a lane


class CountedCursor:
    """Counts where it goes."""

    def __init__(self, cursor: lmdb.Cursor, steps: Counter[str]) -> None:
        self._cursor = cursor
        self._steps = steps

    def __getattr__(self, name: str) -> Any:
        self._steps[name] += name in ("first", "next", "set_range")
        return getattr(self._cursor, name)


class CountedTransaction:
    """Counts what is read."""

    def __init__(self, txn: lmdb.Transaction) -> None:
        self._txn = txn
        self.steps = Counter[str]()

    def get(self, key: bytes, db: Any) -> bytes | None:
        self.steps["get"] += 1
        return self._txn.get(key, db=db)

    def cursor(self, db: Any) -> CountedCursor:
        return CountedCursor(self._txn.cursor(db), self.steps)


def steps(state_dir: Path, look: Callable[[View], object]) -> int:
    """Count the records that a look reads or passes by."""
    keyring = load_keyring(state_dir / "keys" / "spool.key")
    environment = Environment(state_dir / "spool", map_size=0, reserve=0)
    try:
        with environment.env.begin() as txn:
            counted = CountedTransaction(txn)
            look(View(counted, environment.tables, keyring))  # type: ignore[arg-type]  # as much of one as it uses
            return counted.steps.total()
    finally:
        environment.close()


def rows(state_dir: Path, table: Table) -> int:
    environment = Environment(state_dir / "spool", map_size=0, reserve=0)
    try:
        with environment.env.begin() as txn:
            return int(txn.stat(environment.tables[table])["entries"])
    finally:
        environment.close()


async def filled(directory: Path, count: int, shape: Shape) -> Path:
    async with backlog(directory, random.Random(1)) as spool:
        await spool.fill(count, shape)
    return directory


@pytest.mark.parametrize("shape", SPREADS)
async def test_a_look_reads_no_more_with_a_backlog(tmp_path: Path, shape: Shape) -> None:
    few, many = await filled(tmp_path / "few", FEW, shape), await filled(tmp_path / "many", MANY, shape)
    now = time.time() + 1
    lane = Lane(TENANT, MessageClass.NORMAL, domain(shape, FEW // 2, random.Random(1)))
    looks: dict[str, Callable[[View], object]] = {
        "lanes": lambda view: view.due_lanes(now, _LOOK, {}, (), (), {}),
        "heads": lambda view: view.due_rows(lane, now, _LOOK, ()),
        "timers due": lambda view: view.timer_rows(now, _LOOK, ()),
        "next timer": lambda view: view.next_timer_after(now),
        "next due": lambda view: view.next_due_after(now),
    }
    assert {name: steps(many, look) for name, look in looks.items()} == {
        name: steps(few, look) for name, look in looks.items()
    }


async def test_a_look_for_timers_steps_over_a_mass_of_them(tmp_path: Path) -> None:
    few, many = await filled(tmp_path / "few", FEW, Shape.ONE), await filled(tmp_path / "many", MANY, Shape.ONE)
    all_over = time.time() + 1e7

    def seconds_of(directory: Path) -> int:  # in which something falls due: of one tenant
        return steps(directory, lambda view: view.timer_rows(all_over, 0, ())) - 1

    def read(directory: Path) -> int:
        return steps(directory, lambda view: view.timer_rows(all_over, _LOOK, ())) - seconds_of(directory)

    assert seconds_of(many) < MANY / 10
    assert read(few) == read(many)


async def test_how_many_are_ahead_is_counted_up_to_a_limit(tmp_path: Path) -> None:
    few, many = await filled(tmp_path / "few", FEW, Shape.ONE), await filled(tmp_path / "many", MANY, Shape.ONE)
    lane = Lane(TENANT, MessageClass.NORMAL, domain(Shape.ONE, 0, random.Random(1)))
    end = lane_key(lane) + b"\xff" * 26
    assert steps(few, lambda view: view.rows_before(end, _LOOK)) == _LOOK + 1
    assert steps(many, lambda view: view.rows_before(end, _LOOK)) == _LOOK + 1


async def test_drained_in_any_order_nothing_is_left_and_the_file_is_used_again(tmp_path: Path) -> None:
    directory = await filled(tmp_path, MANY, Shape.DOMAINS)
    lanes, first = rows(directory, Table.WAKE), (directory / "spool" / "data.mdb").stat().st_size
    async with backlog(directory, random.Random(3)) as spool:
        assert await spool.drain() == MANY
    kept = (Table.META, Table.RECORDS, Table.BACKLOG)  # of which there is one row a tenant, or few
    assert [table for table in Table if table not in kept and rows(directory, table)] == []
    await filled(directory, MANY, Shape.DOMAINS)
    assert rows(directory, Table.WAKE) == lanes
    assert (directory / "spool" / "data.mdb").stat().st_size <= 2 * first  # what a commit frees serves the next but one
