"""kill -9 at random instants under mixed load: nothing is lost, nothing repeated but what was in flight (D1)."""

import itertools
import random
import time
from pathlib import Path

from tests.crash.conftest import Report, size
from tests.crash.sabotage import Sabotage
from tests.crash.storm import EVERYTHING, VICTIMS, storm

KILLS = size("KILLS", 20)
_KILLS_A_STORM = 50  # after which the ledger begins anew: every kill is judged over all of it


async def test_kills_lose_and_repeat_nothing(tmp_path: Path, seed: int, report: Report) -> None:
    rng, began = random.Random(seed), time.monotonic()
    victims = list(itertools.islice(itertools.cycle(VICTIMS), KILLS))
    for start in range(0, KILLS, _KILLS_A_STORM):
        folder = tmp_path / f"storm{start}"
        folder.mkdir()
        seen = await storm(folder, rng, victims[start : start + _KILLS_A_STORM])
        report.say(**seen.figures(), seconds=f"{time.monotonic() - began:.0f}", seed=seed)
        seen.assert_promises_kept()


async def test_control_an_answer_before_the_commit_is_seen(tmp_path: Path, seed: int, report: Report) -> None:
    seen = await storm(tmp_path, random.Random(seed), [EVERYTHING] * 2, sabotage=Sabotage.ANSWER_FIRST)
    report.say(**seen.figures(), seed=seed)
    assert any(each.lost for each in seen.after_kills), "the harness cannot see a loss"


async def test_control_an_outcome_that_is_not_stored_is_seen(tmp_path: Path, seed: int, report: Report) -> None:
    kills, rng = [EVERYTHING] * 2, random.Random(seed)
    seen = await storm(tmp_path, rng, kills, sabotage=Sabotage.FORGET_OUTCOME, drain=False)
    report.say(**seen.figures(), seed=seed)
    assert len(seen.arrivals.duplicates) > seen.in_flight, "the harness cannot see that mail is repeated"
