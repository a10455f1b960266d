"""A spool under load whose processes die at some instant, over and over: by a power cut, or by a kill alone."""

import asyncio
import random
import sys
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from mta.spool.sealing import load_or_create_keyring
from tests.crash.checker import Judgement, Place, judge, survey
from tests.crash.disk import Disk, Shelf
from tests.crash.ledger import Ledger, Outcome
from tests.crash.letters import is_sender
from tests.crash.sabotage import ROOT, Sabotage, environ

_EARLY = 0.2  # the share of cuts that come while the process starts
_START = 20.0  # seconds that an acceptor may need until it acknowledges something


class Cut(NamedTuple):
    """What it has cost. `forgotten` are recipients whose committed end is not there."""

    judgement: Judgement
    forgotten: list[str]
    acked: int  # in this cycle
    moved: int  # how often the spool moved in it


class Machine:
    """An acceptor on a disk of its own; the ledger and the key file are elsewhere.

    `moving`: the spool moves into a new file all the time.
    """

    def __init__(self, disk: Disk | Shelf, folder: Path, rng: random.Random, *, moving: bool = False) -> None:
        self._rng = rng
        self._moving = moving
        self._moved = 0
        self._disk = disk
        state = disk.root / "state"
        self.place = Place(state / "spool", folder / "spool.key", state / "events")
        load_or_create_keyring(self.place.key_file)
        self._ledger = Ledger(folder / "ledger")
        self._ended: set[str] = set()
        self._cycle = 0

    async def cycle(self, sabotage: Sabotage = Sabotage.NONE) -> Cut:
        """Run, let it die at some instant, plug in again, look."""
        self._cycle += 1
        acked_before = len(self._ledger.tags(Outcome.ACKED))
        self._disk.plug()
        try:
            await self._until_the_cut(sabotage)
            self._disk.unplug()
            self._disk.plug()
            remains = await survey(self.place)
        finally:
            self._disk.unplug()
        judgement = judge(self._ledger.outcomes, remains)
        forgotten = sorted(recipient for recipient in self._ended if not remains.ends.get(recipient))
        return Cut(judgement, forgotten, len(self._ledger.tags(Outcome.ACKED)) - acked_before, self._moved)

    async def _until_the_cut(self, sabotage: Sabotage) -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.crash.acceptor", self.place.spool, self.place.key_file,
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
            sys.executable, "-m", "tests.crash.mover", self.place.spool, self.place.key_file,
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
