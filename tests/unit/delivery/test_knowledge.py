"""What delivery says when it is asked why an entry does not move."""

from collections.abc import Sequence

import msgspec
import pytest

from mta.delivery.knowledge import explaining
from mta.queue.explanation import Asked, HeldBy, LaneState, Says
from mta.spool.records import Lane, MessageClass

ASKED = Asked(
    tuple((f"m.{n}", Lane("acme", MessageClass.NORMAL, f"{name}.test")) for n, name in ((1, "one"), (2, "two")))
)


class Role:
    """Dispatcher, attempts and spool at once."""

    stopping = False
    well = True

    def lane_states(self, lanes: Sequence[Lane]) -> tuple[LaneState, ...]:
        return tuple(LaneState(gate=HeldBy.TURN, site=lane.domain) for lane in lanes)

    def begun_at(self, entries: set[str]) -> dict[str, float]:
        assert entries == {"m.1", "m.2"}
        return {"m.2": 7.0}

    def healthy(self) -> bool:
        return self.well


@pytest.mark.parametrize(
    ("stopping", "well", "gate", "trouble"),
    [
        (False, True, None, ""),
        (False, False, HeldBy.SICK, "delivery cannot write to the spool: it starts nothing"),
        (True, False, HeldBy.DRAINING, "delivery is draining: it starts nothing more"),
    ],
)
async def test_it_answers_in_the_order_of_what_was_asked(
    stopping: bool, well: bool, gate: HeldBy | None, trouble: str
) -> None:
    role = Role()
    role.stopping, role.well = stopping, well
    question = explaining(role, role, role)  # type: ignore[arg-type]
    says = msgspec.convert(msgspec.to_builtins(await question.put(msgspec.json.encode(ASKED))), Says)
    assert (says.gate, says.trouble, says.begun_at) == (gate, trouble, (0.0, 7.0))
    assert [lane.site for lane in says.lanes] == ["one.test", "two.test"]
