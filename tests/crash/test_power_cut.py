"""Power cuts under load: what was acknowledged is there when the disk comes back (D3)."""

import asyncio
import random
import sys
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from mta.spool.sealing import load_or_create_keyring
from tests.crash import disk
from tests.crash.checker import Judgement, Place, judge, survey
from tests.crash.conftest import Report, size
from tests.crash.disk import Disk
from tests.crash.ledger import Ledger, Outcome
from tests.crash.letters import is_sender
from tests.crash.sabotage import ROOT, Sabotage, environ
from tests.crash.storm import POWER, storm

CUTS = size("CUTS", 10)
RELAY_CUTS = size("RELAY_CUTS", 3)
_CONTROL_CUTS = 2
_CYCLES_A_DISK = 10
_EARLY = 0.2  # the share of cuts that come while the process starts
_START = 20.0  # seconds that an acceptor may need until it acknowledges something


class Cut(NamedTuple):
    """What a power cut has cost. `forgotten` are recipients whose committed end is not there."""

    judgement: Judgement
    forgotten: list[str]
    acked: int  # in this cycle
    moved: int  # how often the spool moved in it


class Machine:
    """An acceptor on a disk of its own; the ledger and the key file are elsewhere.

    `moving`: the spool moves into a new file all the time.
    """

    def __init__(self, folder: Path, rng: random.Random, *, moving: bool = False) -> None:
        folder.mkdir()
        self._rng = rng
        self._moving = moving
        self._moved = 0
        self._disk = Disk(folder)
        state = self._disk.root / "state"
        self._place = Place(state / "spool", folder / "spool.key", state / "events")
        load_or_create_keyring(self._place.key_file)
        self._ledger = Ledger(folder / "ledger")
        self._ended: set[str] = set()
        self._cycle = 0

    async def cycle(self, sabotage: Sabotage = Sabotage.NONE) -> Cut:
        """Run, cut the power at some instant, plug in again, look."""
        self._cycle += 1
        acked_before = len(self._ledger.tags(Outcome.ACKED))
        self._disk.plug()
        try:
            await self._until_the_cut(sabotage)
            self._disk.unplug()
            self._disk.plug()
            remains = await survey(self._place)
        finally:
            self._disk.unplug()
        judgement = judge(self._ledger.outcomes, remains)
        forgotten = sorted(recipient for recipient in self._ended if not remains.ends.get(recipient))
        return Cut(judgement, forgotten, len(self._ledger.tags(Outcome.ACKED)) - acked_before, self._moved)

    async def _until_the_cut(self, sabotage: Sabotage) -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.crash.acceptor", self._place.spool, self._place.key_file,
            f"c{self._cycle}", sabotage, cwd=ROOT, env=environ(sabotage),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        assert process.stdout is not None
        mover = await self._mover() if self._moving else None
        at_work = asyncio.Event()
        reading = asyncio.create_task(self._listen(process.stdout, at_work))
        try:
            if sabotage is Sabotage.NONE and self._rng.random() < _EARLY:
                await asyncio.sleep(self._rng.uniform(0.2, 0.6))  # while it makes or opens the spool
            else:
                async with asyncio.timeout(_START):
                    await at_work.wait()
                await asyncio.sleep(self._rng.uniform(0.0 if sabotage is Sabotage.NONE else 0.3, 1.0))
            self._disk.cut()
        finally:
            with suppress(ProcessLookupError):  # without its disk it may have ended before us
                process.kill()
            await process.wait()
            if mover is not None:
                with suppress(ProcessLookupError):
                    mover.kill()
                said, _ = await mover.communicate()
                self._moved = said.count(b"moved\n")
            await reading

    async def _mover(self) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.crash.mover", self._place.spool, self._place.key_file,
            cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip

    async def _listen(self, said: asyncio.StreamReader, at_work: asyncio.Event) -> None:
        async for line in said:
            word, what = line.decode().split()
            if word == "ended":
                if not is_sender(what):
                    self._ended.add(what)
                continue
            self._ledger.note(what, Outcome(word))
            if word == Outcome.ACKED:
                at_work.set()

    def close(self) -> None:
        self._ledger.close()


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
                machine = Machine(folder / f"disk{number}", rng, moving=moving)
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
