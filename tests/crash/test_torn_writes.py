"""Crash states of the spool's file, torn and reordered: each opens, and has what was acknowledged by then (D4)."""

import asyncio
import multiprocessing
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import pytest

from mta.spool.sealing import load_or_create_keyring
from tests.crash import torn
from tests.crash.checker import Judgement, Place, Remains, judge, survey
from tests.crash.conftest import Report, size
from tests.crash.ledger import Outcome
from tests.crash.letters import is_sender
from tests.crash.sabotage import ROOT, Sabotage, environ
from tests.crash.torn import Keep, State

STATES = size("STATES", 300)
_STATES_A_TRACE = 500
_CONTROL_STATES = 30
_LETTERS_BEFORE = 20
_LETTERS = 120
_LOOK = 60.0  # seconds for one crash state


@pytest.fixture
def folder() -> Iterator[Path]:
    """In memory where there is such a place: thousands of files are written."""
    memory = Path("/dev/shm")
    made = Path(tempfile.mkdtemp(prefix="crash-", dir=memory if memory.is_dir() else None))
    yield made
    shutil.rmtree(made)


class Found(NamedTuple):
    """What one crash state shows. `forgotten` are recipients whose committed end is not there."""

    at: int
    keep: Keep
    judgement: Judgement
    forgotten: list[str]

    @property
    def bad(self) -> bool:
        return bool(self.judgement or self.forgotten)


class Bench:
    """A traced acceptor, and the crash states of its spool, looked at one by one."""

    def __init__(self, folder: Path, sabotage: Sabotage) -> None:
        key_file, spool = folder / "spool.key", folder / "spool"
        load_or_create_keyring(key_file)
        before = ["tests.crash.acceptor", str(spool), str(key_file), "before", Sabotage.NONE, str(_LETTERS_BEFORE)]
        done = subprocess.run([sys.executable, "-m", *before], check=True, capture_output=True, text=True, cwd=ROOT)
        self._said_before = done.stdout.splitlines()
        self._base = (spool / "data.mdb").read_bytes()
        traced = ["tests.crash.acceptor", str(spool), str(key_file), "traced", sabotage, str(_LETTERS)]
        torn.record(traced, environ(sabotage), folder / "trace")
        self._trace = torn.read_trace(folder / "trace", spool / "data.mdb")
        self._place = Place(folder / "crashed" / "spool", key_file, folder / "crashed" / "events")

    def look(self, count: int, rng: random.Random) -> Iterator[Found]:
        """Make crash states and open each, in a process that may die of it."""
        surveyor = Surveyor()
        for state in torn.states(self._base, self._trace, count, rng):
            self._place.spool.mkdir(parents=True)
            (self._place.spool / "data.mdb").write_bytes(state.image)
            remains = surveyor.survey(self._place)
            if remains is None:
                surveyor.kill()
                surveyor = Surveyor()
            shutil.rmtree(self._place.spool.parent)
            yield self._judged(state, remains or Remains(problems=[f"it cannot be read, or not in {_LOOK} s"]))
        surveyor.kill()

    def _judged(self, state: State, remains: Remains) -> Found:
        outcomes: dict[str, Outcome] = {}
        forgotten: list[str] = []
        for line in (*self._said_before, *state.said):
            word, what = line.split()
            if word != "ended":
                outcomes[what] = Outcome(word)
            elif not is_sender(what) and not remains.ends.get(what):
                forgotten.append(what)
        return Found(state.at, state.keep, judge(outcomes, remains), forgotten)


class Surveyor:
    """A process that opens spools, one after another: a torn file may make it fail, die, or go round for ever."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=_survey_all, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def survey(self, place: Place) -> Remains | None:
        """What is there; None where the process has failed, has died, or is still at it: kill it."""
        self._ours.send(place)
        try:
            return self._ours.recv() if self._ours.poll(_LOOK) else None
        except EOFError:
            return None

    def kill(self) -> None:
        self._process.kill()
        self._process.join()
        self._ours.close()


def _survey_all(asked: "Connection[Remains, Place]") -> None:
    while True:
        asked.send(asyncio.run(survey(asked.recv())))


def _say(report: Report, found: list[Found], seed: int) -> None:
    report.say(
        states=len(found),
        bad=sum(each.bad for each in found),
        lost=sum(len(each.judgement.lost) for each in found),
        forgotten=sum(len(each.forgotten) for each in found),
        kinds=",".join(f"{kind}:{number}" for kind, number in sorted(Counter(each.keep for each in found).items())),
        seed=seed,
    )


def test_every_crash_state_has_what_was_acknowledged(folder: Path, seed: int, report: Report) -> None:
    rng, found = random.Random(seed), list[Found]()
    for start in range(0, STATES, _STATES_A_TRACE):
        part = folder / str(start)
        part.mkdir()
        found += Bench(part, Sabotage.NONE).look(min(_STATES_A_TRACE, STATES - start), rng)
        shutil.rmtree(part)
    _say(report, found, seed)
    assert [each for each in found if each.bad] == []


@pytest.mark.parametrize("sabotage", [Sabotage.NO_SYNC, Sabotage.ANSWER_FIRST, Sabotage.FORGET_OUTCOME])
def test_control_what_is_not_durable_is_missing(folder: Path, seed: int, report: Report, sabotage: Sabotage) -> None:
    found = list(Bench(folder, sabotage).look(_CONTROL_STATES, random.Random(seed)))
    _say(report, found, seed)
    missing = [each.forgotten if sabotage is Sabotage.FORGET_OUTCOME else each.judgement.lost for each in found]
    assert sum(map(bool, missing)) > _CONTROL_STATES // 3, "the harness cannot see a loss"
