"""kill -9 at random instants under mixed load: nothing is lost, nothing repeated but what was in flight (D1)."""

import asyncio
import itertools
import random
import time
from pathlib import Path

from mta.clock import SystemClock
from mta.config import Retry
from mta.queue.queue import Queue
from mta.spool.interface import Change
from mta.spool.lmdb.care import verify
from mta.spool.lmdb.spool import LmdbSpool
from mta.spool.sealing import Keyring, load_keyring
from tests.contract.spool_contract import ended
from tests.crash.conftest import Report, size
from tests.crash.disk import Shelf
from tests.crash.machine import Machine
from tests.crash.sabotage import Sabotage
from tests.crash.storm import EVERYTHING, VICTIMS, storm

KILLS = size("KILLS", 20)
SPOOL_KILLS = size("SPOOL_KILLS", 5)
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


async def test_kills_leave_shared_content_as_long_as_it_is_needed_and_no_longer(
    tmp_path: Path, seed: int, report: Report
) -> None:
    machine = Machine(Shelf(tmp_path), tmp_path, random.Random(seed))
    cuts = [await machine.cycle() for _ in range(SPOOL_KILLS)]
    machine.close()
    report.say(kills=len(cuts), acked=sum(each.acked for each in cuts), seed=seed)
    assert [each for each in cuts if each.judgement or each.forgotten] == []
    keyring = load_keyring(machine.place.key_file)
    assert verify(machine.place.spool, keyring).counts["shared"] > 0
    await _end_all(machine.place.spool, keyring)
    left = verify(machine.place.spool, keyring)
    assert left.problems == []
    assert {name for name, count in left.counts.items() if count} == {"events"}


async def _end_all(path: Path, keyring: Keyring) -> None:
    """Give back what was claimed, end all that waits, and collect what is left."""
    clock = SystemClock()
    spool = LmdbSpool(path, keyring, clock, map_size=1 << 30, reserve=0, sync=False)
    await Queue(spool, clock, "relay.test", Retry(), lambda: None).take_over()
    entries = [entry async for entry, _ in spool.walk_entries()]
    messages = [await spool.message(each.message) for each in entries]
    changes = [
        Change(message=message, before=entry, after=ended(entry))
        for entry, message in zip(entries, messages, strict=True)
        if message is not None
    ]
    assert all(await asyncio.gather(*map(spool.change, changes)))
    while await spool.collect(clock.now() + 7200):
        pass
    await spool.close()


async def test_control_shared_content_that_goes_too_early_is_seen(tmp_path: Path, seed: int, report: Report) -> None:
    machine = Machine(Shelf(tmp_path), tmp_path, random.Random(seed))
    cuts = [await machine.cycle(Sabotage.END_SHARED) for _ in range(2)]
    machine.close()
    problems = [len(each.judgement.problems) for each in cuts]
    report.say(acked=sum(each.acked for each in cuts), problems=sum(problems), seed=seed)
    assert any(problems), "the harness cannot see that content is missing"


async def test_control_an_answer_before_the_commit_is_seen(tmp_path: Path, seed: int, report: Report) -> None:
    seen = await storm(tmp_path, random.Random(seed), [EVERYTHING] * 2, sabotage=Sabotage.ANSWER_FIRST)
    report.say(**seen.figures(), seed=seed)
    assert any(each.lost for each in seen.after_kills), "the harness cannot see a loss"


async def test_control_an_outcome_that_is_not_stored_is_seen(tmp_path: Path, seed: int, report: Report) -> None:
    kills, rng = [EVERYTHING] * 2, random.Random(seed)
    seen = await storm(tmp_path, rng, kills, sabotage=Sabotage.FORGET_OUTCOME, drain=False)
    report.say(**seen.figures(), seed=seed)
    assert len(seen.arrivals.duplicates) > seen.in_flight, "the harness cannot see that mail is repeated"
