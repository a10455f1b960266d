"""Power cuts under load: what was acknowledged is there when the disk comes back (D3)."""

import asyncio
import random
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from mta.spool.sealing import load_or_create_keyring
from tests.crash import disk
from tests.crash.checker import Judgement, Place, Remains, judge, survey
from tests.crash.conftest import Report, size
from tests.crash.disk import Disk
from tests.crash.ledger import Ledger, Outcome
from tests.crash.letters import recipients_of
from tests.crash.sabotage import Sabotage

CUTS = size("CUTS", 10)
_CONTROL_CUTS = max(2, CUTS // 10)
_FIRST_ACK = 20.0  # seconds


@pytest.fixture
def plugged(tmp_path: Path) -> Iterator[Disk]:
    found = Disk(tmp_path)
    yield found
    found.unplug()


class Cuts:
    """An acceptor on a disk, power cuts, and a ledger elsewhere."""

    def __init__(self, folder: Path, found: Disk, seed: int) -> None:
        self._disk = found
        self._rng = random.Random(seed)
        self._key_file = folder / "keys" / "spool.key"
        load_or_create_keyring(self._key_file)
        self._ledger_file = folder / "ledger"
        self._cycle = 0

    async def cycle(self, sabotage: Sabotage = Sabotage.NONE) -> tuple[Ledger, set[str], Remains]:
        """Load the spool, cut the power at some instant, plug in again: what was said, and what is there."""
        self._cycle += 1
        self._disk.plug()
        place = Place(self._disk.root / "state" / "spool", self._key_file, self._disk.root / "state" / "events")
        with Ledger(self._ledger_file) as ledger:
            ended = await self._until_the_cut(place, sabotage, ledger)
            self._disk.unplug()
            self._disk.plug()
            remains = await survey(place)
        self._disk.unplug()
        return ledger, ended, remains
