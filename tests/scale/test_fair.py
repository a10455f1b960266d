"""No tenant holds up another (promise 6): measured in whole relays, a light tenant alone and beside floods."""

import os
from collections.abc import Callable

from tests.interop.peers import disk_directory
from tests.scale.fair import DELIVERY, Flood, waits

MESSAGES = int(os.environ.get("FAIRLEAD_FAIR_MESSAGES", "10"))
_ENTRIES = 60  # of the flood for each of them: more than are delivered meanwhile
_AT_LENGTH = MESSAGES >= 200  # with fewer, the slowest tells of the machine


async def test_a_flood_holds_up_nobody(say: Callable[[object], None]) -> None:
    with disk_directory("fair") as directory:
        alone = await waits(directory / "alone", None, 0, MESSAGES)
        say(f"fair: alone: p50 {1000 * alone.p50:.0f} p99 {1000 * alone.p99:.0f} ms")
        late = []
        for number, flood in enumerate(Flood if _AT_LENGTH else [Flood.SITES]):
            found = await waits(directory / str(number), flood, _ENTRIES * MESSAGES, MESSAGES)
            over = found.p99 > alone.p99 + 2 * DELIVERY
            late += [flood] if over and _AT_LENGTH else []
            mark = " OVER" if over and _AT_LENGTH else ""
            say(f"fair: {flood}: p50 {1000 * found.p50:.0f} p99 {1000 * found.p99:.0f} ms{mark}")
    assert not late
