"""Nothing grows with the backlog (promise 5): measured in whole relays beside an empty one."""

import os
from collections.abc import Callable

import pytest

from tests.interop.peers import disk_directory
from tests.scale.backlog import SPREADS, Shape
from tests.scale.flat import Figure, Flat, Size

ENTRIES = int(os.environ.get("FAIRLEAD_FLAT_ENTRIES", "2000"))
_AT_LENGTH = ENTRIES >= 100_000  # with fewer, times tell of the machine and not of the backlog


@pytest.mark.parametrize("shape", SPREADS if _AT_LENGTH else [Shape.DOMAINS])
async def test_a_backlog_costs_nothing(shape: Shape, seed: int, say: Callable[[object], None]) -> None:
    found: list[Figure] = []

    def heard(figure: Figure) -> None:
        judged = _AT_LENGTH or figure.exact
        found.append(figure if judged else figure._replace(limit=None))
        say(f"{shape}: {found[-1]}")

    size = Size(ENTRIES, rounds=11, messages=3000, thorough=True) if _AT_LENGTH else Size(ENTRIES, 1, 100, False)
    say(f"{shape}: entries={ENTRIES} seed={seed}")
    with disk_directory("flat") as directory:
        await Flat(directory, shape, size, seed).run(heard)
    assert {each.what.partition(", ")[2] for each in found} >= {"file", "220 after kill -9", "memory of delivery"}
    assert [str(each) for each in found if each.over] == []
