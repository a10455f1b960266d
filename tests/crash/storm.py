"""A storm: the whole relay under mixed load, killed again and again, then drained and judged."""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

from mta.clock import SystemClock
from mta.spool.lmdb.spool import LmdbSpool
from mta.spool.sealing import load_keyring
from tests.crash.checker import Arrivals, Judgement, judge, judge_arrivals, survey
from tests.crash.disk import Disk
from tests.crash.ledger import Ledger, Outcome
from tests.crash.load import Load
from tests.crash.relay import Relay
from tests.crash.sabotage import Sabotage
from tests.crash.sink import Sink

EVERYTHING = "everything"
PARENT = "parent"
POWER = "power"  # of everything and of the disk
WRITER = " spool"  # of a role
VICTIMS = (
    EVERYTHING, "delivery", "ingress", PARENT, "delivery spool", "http",
    EVERYTHING, "ingress spool", "events", "delivery",
)  # fmt: skip
_LONGEST = 1.2  # seconds from ready to kill
_STARTING = 0.15  # the share of kills that come while the relay starts
_START = 1.0  # seconds that a start takes
_UNDER_WAY = 800  # recipients; what is more is not offered
_DRAINED = 60.0
_REPEATS = 3.0  # seconds: the longest interval of a retry, and more
_LOOK = 0.1


class Storm(NamedTuple):
    """What came of it. `after_kills` are the judgements of what was there while nothing ran."""

    kills: Counter[str]
    acked: int
    unknown: int
    refused: int
    after_kills: list[Judgement]
    drained: Judgement
    arrivals: Arrivals
    in_flight: int  # transactions whose outcome may not have been committed at a kill
    slowest_start: float

    def assert_promises_kept(self) -> None:
        """What every storm must come to."""
        assert [each for each in self.after_kills if each] == []
        assert not self.drained, self.drained
        assert self.arrivals == self.arrivals._replace(duplicates=[], torn=[], ghosts=[], untold=[])
        assert self.arrivals.excused <= self.in_flight
        assert self.acked > 10 * self.kills.total(), "hardly any load"

    def figures(self) -> dict[str, object]:
        """What to report."""
        judged = [*self.after_kills, self.drained]
        return {
            "kills": self.kills.total(),
            "of": ",".join(f"{name}:{number}" for name, number in self.kills.items()),
            "acked": self.acked,
            "unknown": self.unknown,
            "refused": self.refused,
            "lost": sum(len(each.lost) for each in judged),
            "half": sum(len(each.half) for each in judged),
            "problems": sum(len(each.ghosts) + len(each.problems) for each in judged),
            "in_flight": self.in_flight,
            "repeated": self.arrivals.excused,
            "unexplained": len(self.arrivals.duplicates),
            "slowest_start": f"{self.slowest_start:.1f}",
        }


async def storm(
    folder: Path,
    rng: random.Random,
    kills: Sequence[str],
    *,
    disk: Disk | None = None,
    sabotage: Sabotage = Sabotage.NONE,
    drain: bool = True,
) -> Storm:
    """Let a storm go over a relay, whose state is on `disk` if there is one, plugged in.

    Without `drain` it is only given the time to repeat what it would repeat.
    """
    weather = _Weather(folder, rng, disk, sabotage)
    await weather.rage(kills, drain=drain)
    outcomes, sink = weather.ledger.outcomes, weather.sink
    remains = await survey(weather.relay.place)
    return Storm(
        kills=Counter(kills),
        acked=len(weather.ledger.tags(Outcome.ACKED)),
        unknown=len(weather.ledger.tags(Outcome.UNKNOWN)),
        refused=len(weather.ledger.tags(Outcome.REFUSED)),
        after_kills=weather.after_kills,
        drained=judge(outcomes, remains, drained=drain),
        arrivals=judge_arrivals(outcomes, remains, sink.arrivals, sink.uncertain),
        in_flight=len(sink.uncertain),
        slowest_start=weather.slowest_start,
    )


class _Weather:
    """The parts of a storm, and its course."""

    def __init__(self, folder: Path, rng: random.Random, disk: Disk | None, sabotage: Sabotage) -> None:
        self._rng = rng
        self._folder = folder
        self._disk = disk
        self._sabotage = sabotage
        self._shortest = 0.1 if sabotage is Sabotage.NONE else _LONGEST / 2  # a control needs mail to get lost
        self.ledger = Ledger(folder / "ledger")
        self.sink = Sink()
        self.after_kills: list[Judgement] = []
        self.slowest_start = 0.0

    async def rage(self, kills: Sequence[str], *, drain: bool) -> None:
        """Load, kill, drain, end."""
        await self.sink.start()
        state = (self._folder if self._disk is None else self._disk.root) / "state"
        self.relay = Relay(self._folder, state, self.sink.port, self._sabotage)
        try:
            await self._kill_under_load(kills)
            if not drain:
                await asyncio.sleep(_REPEATS)
            else:
                await self._drained()
                code = await self.relay.stop()
                assert code == 0, f"serve ended with {code}"
        finally:
            self.relay.close()
            await self.sink.close()
            self.ledger.close()

    async def _kill_under_load(self, kills: Sequence[str]) -> None:
        load = Load(self.relay.prepare(), self.ledger, self._rng, self._busy)
        await self._start()
        load.start(kept=4, fresh=2, http=3)
        try:
            for victim in kills:
                await asyncio.sleep(self._rng.uniform(self._shortest, _LONGEST))
                if victim in (EVERYTHING, PARENT, POWER):
                    await self._kill_all(victim, load)
                else:
                    await self._kill_role(victim)
            await load.hold()
        finally:
            await load.close()

    def _busy(self, acked: int) -> bool:
        return acked - len(self.sink.answered) > _UNDER_WAY

    async def _start(self) -> None:
        self.relay.start()
        while self._rng.random() < _STARTING:
            await asyncio.sleep(self._rng.uniform(0.0, _START))
            with self.sink.cut():
                await self.relay.kill()
            self.relay.start()
        self.slowest_start = max(self.slowest_start, await self.relay.ready())

    async def _kill_all(self, victim: str, load: Load) -> None:
        with self.sink.cut():
            if self._disk is not None and victim == POWER:
                self._disk.cut()
            await self.relay.kill(*(("serve",) if victim == PARENT else ()))
        await load.hold()
        if self._disk is not None:
            self._disk.unplug()
            self._disk.plug()
        remains = await survey(self.relay.place)
        self.after_kills.append(judge(self.ledger.outcomes, remains))
        await self._start()
        load.go()

    async def _kill_role(self, role: str) -> None:
        with self.sink.cut() if role == "delivery" else nullcontext():
            await self.relay.kill(role)
        if role.endswith(WRITER):  # its role goes on, and has it started again
            await self.relay.lives(role)
        else:
            await self.relay.ready(role)

    async def _drained(self) -> None:
        place = self.relay.place
        spool = LmdbSpool(place.spool, load_keyring(place.key_file), SystemClock(), map_size=0, reserve=0)
        try:
            async with asyncio.timeout(_DRAINED):
                while [each async for each in spool.walk_entries()]:
                    await asyncio.sleep(_LOOK)
        finally:
            await spool.close()
