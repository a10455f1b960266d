"""The loop that moves the log from the spool into segment files, and retires the oldest of them.

It gathers for a second: moving at once would put an fsync of its own beside each commit of the other
roles. Nothing waits for it, because readers read the spool's tail too. While it fails (disk full) the log
stays in the spool, whole.
"""

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from mta.clock import Clock
from mta.events.segments import Writer, retire
from mta.spool.interface import Spool
from mta.spool.sealing import Keyring

log = logging.getLogger(__name__)

GATHER = 1.0  # seconds
BATCH = 500  # events; bounds what is in memory and the time of one fsync and one discard
_SLOWEST = 60.0  # seconds between tries while it fails
_RETIRE_EVERY = 3600.0  # seconds, the first time as long after the start: a clock may still be wrong at boot


class MoverStatus(msgspec.Struct, frozen=True):
    """The last number in the segments (0: none written since the start), and why moving fails, "" if not."""

    seq: int
    trouble: str


class Mover:
    """Owns the segment directory. Give it `run` once."""

    def __init__(self, spool: Spool, directory: Path, keyring: Keyring, clock: Clock) -> None:
        self._spool = spool
        self._directory = directory
        self._keyring = keyring
        self._clock = clock
        self._writer: Writer | None = None
        self._seq = 0
        self._trouble = ""

    def status(self) -> MoverStatus:
        """Tell how moving goes."""
        return MoverStatus(self._seq, self._trouble)

    async def run(self, stop: asyncio.Event) -> None:
        """Move what the spool holds, each second until `stop` is set. Never raises."""
        # One thread of its own: the file is not closed under a write that a cancelled task left behind.
        with ThreadPoolExecutor(1, "segments") as thread:
            pause, retire_at = GATHER, self._clock.monotonic() + _RETIRE_EVERY
            try:
                while True:
                    try:
                        await self._move(thread)
                        if self._clock.monotonic() >= retire_at:
                            await self._on(thread, retire, self._directory, self._clock.now())
                            retire_at = self._clock.monotonic() + _RETIRE_EVERY
                        pause = GATHER
                    ...
