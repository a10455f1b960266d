"""Every pair of values of what a sender can meet, against real sockets: mail waits where it has to, and only there.

No cell in which an enforced policy or a TLSA record applies ends in the clear or at a host that is not verified.
FAIRLEAD_DOWNGRADE_CELLS=all takes all of them.
"""

import asyncio
import os
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.downgrade.rules import Cell, Dane, End, dane_cells, expected, impossible, some, sts_cells
from tests.downgrade.world import Met, World, world

LEAST = {Cell: 300, Dane: 120}
_ALL = os.environ.get("FAIRLEAD_DOWNGRADE_CELLS") == "all"


def drawn(cells: Sequence[Cell] | Sequence[Dane], seed: int) -> list[Cell | Dane]:
    possible = [each for each in cells if not impossible(each)]
    return list(possible if _ALL else some(possible, LEAST[type(possible[0])], random.Random(seed)))


def wrong(cell: Cell | Dane, met: Met) -> str:
    """Say what is wrong with what came of a cell, "" if nothing is."""
    wanted, arrived = expected(cell), met.came is not None
    if met.end is not wanted:
        return f"{met.end} instead of {wanted}"
    if arrived is (wanted is End.DEFERRED) or (arrived and (met.came == "") is not (wanted is End.CLEAR)):
        return f"it came over {met.came!r}"
    return ""


async def differences(where: World, cells: Sequence[Cell | Dane]) -> list[str]:
    met = await asyncio.gather(*[where.meet(each) for each in cells])
    found = [(each, wrong(each, came), came) for each, came in zip(cells, met, strict=True)]
    return [f"{tuple(map(str, each))}: {why} ({came.outcome.results[0].reply})" for each, why, came in found if why]


@pytest.mark.parametrize("cells", [sts_cells(), dane_cells()], ids=["sts", "dane"])
async def test_downgrade(
    cells: Sequence[Cell] | Sequence[Dane], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    seed = int(os.environ.get("FAIRLEAD_CRASH_SEED", random.SystemRandom().randrange(1 << 32)))
    chosen = drawn(cells, seed)
    async with world(tmp_path) as where:
        found = await differences(where, chosen)
    with capfd.disabled():
        print(f"\ndowngrade: {len(chosen)} cells, {len(found)} wrong, seed {seed}")
    assert found == []
