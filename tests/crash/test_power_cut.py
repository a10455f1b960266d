"""Power cuts under load: what was acknowledged is there when the disk comes back (D3)."""

import random
from pathlib import Path

import pytest

from tests.crash import disk
from tests.crash.conftest import Report, size
from tests.crash.disk import Disk
from tests.crash.machine import Cut, Machine
from tests.crash.sabotage import Sabotage
from tests.crash.storm import POWER, storm

CUTS = size("CUTS", 10)
RELAY_CUTS = size("RELAY_CUTS", 3)
_CONTROL_CUTS = 2
_CYCLES_A_DISK = 10


@pytest.fixture
def can_cut(report: Report) -> bool:
    """Whether power can be cut here. What cannot be run is said, and not skipped in silence."""
    if not disk.may_mount():
        report.say(NOT_RUN="'power cuts need root that may mount'")
        return False
    assert not disk.missing(), f"power cuts need {disk.missing()}"
    return True


async def _cuts(
    folder: Path, seed: int, count: int, sabotage: Sabotage = Sabotage.NONE, *, moving: bool = False
) -> list[Cut]:
    rng, cuts, machine = random.Random(seed), list[Cut](), None
    try:
        for number in range(count):
            if machine is None or number % _CYCLES_A_DISK == 0:
                if machine is not None:
                    machine.close()
                place = folder / f"disk{number}"
                place.mkdir()
                machine = Machine(Disk(place), place, rng, moving=moving)
            cuts.append(await machine.cycle(sabotage))
    finally:
        if machine is not None:
            machine.close()
    return cuts


def _say(report: Report, cuts: list[Cut], seed: int) -> None:
    report.say(
        cuts=len(cuts),
        acked=sum(each.acked for each in cuts),
        lost=sum(len(each.judgement.lost) for each in cuts),
        half=sum(len(each.judgement.half) for each in cuts),
        forgotten=sum(len(each.forgotten) for each in cuts),
        problems=sum(len(each.judgement.problems) for each in cuts),
        moved=sum(each.moved for each in cuts),
        seed=seed,
    )


@pytest.mark.parametrize("moving", [False, True])
async def test_a_power_cut_loses_nothing_acknowledged(
    can_cut: bool, tmp_path: Path, seed: int, report: Report, *, moving: bool
) -> None:
    if not can_cut:
        return
    cuts = await _cuts(tmp_path, seed, CUTS, moving=moving)
    _say(report, cuts, seed)
    assert [each for each in cuts if each.judgement or each.forgotten] == []
    assert any(each.moved for each in cuts) is moving


async def test_a_power_cut_of_the_whole_relay_loses_and_repeats_nothing(
    can_cut: bool, tmp_path: Path, seed: int, report: Report
) -> None:
    if not can_cut:
        return
    found = Disk(tmp_path)
    found.plug()
    try:
        seen = await storm(tmp_path, random.Random(seed), [POWER] * RELAY_CUTS, disk=found)
    finally:
        found.unplug()
    report.say(**seen.figures(), seed=seed)
    seen.assert_promises_kept()


@pytest.mark.parametrize("sabotage", [Sabotage.NO_SYNC, Sabotage.ANSWER_FIRST])
async def test_control_a_power_cut_shows_what_is_not_durable(
    can_cut: bool, tmp_path: Path, seed: int, report: Report, sabotage: Sabotage
) -> None:
    if not can_cut:
        return
    cuts = await _cuts(tmp_path, seed, _CONTROL_CUTS, sabotage)
    _say(report, cuts, seed)
    assert all(each.judgement.lost for each in cuts), "the harness cannot see a loss"


async def test_control_a_forgotten_outcome_is_seen(can_cut: bool, tmp_path: Path, seed: int, report: Report) -> None:
    if not can_cut:
        return
    cuts = await _cuts(tmp_path, seed, _CONTROL_CUTS, Sabotage.FORGET_OUTCOME)
    _say(report, cuts, seed)
    assert all(each.forgotten for each in cuts), "the harness cannot see that an outcome was not stored"
