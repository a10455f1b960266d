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
from mta.events.segments import Batch, Writer, retire
from mta.spool.interface import Spool
from mta.spool.sealing import Keyring

log = logging.getLogger(__name__)

GATHER = 1.0  # seconds
BATCH = 500  # events; bounds what is in memory and the time of one fsync and one discard
_SLOWEST = 60.0  # seconds between tries while it fails
_RETIRE_EVERY = 3600.0  # seconds, the first time as long after the start: at boot the clock may still be wrong


class MoverStatus(msgspec.Struct, frozen=True):
    """The last number moved (0: none since the start), and what keeps the log in the spool ("": nothing)."""

    seq: int
    trouble: str


class Mover:
    """Owns the segment directory; one in all processes. `run` it once."""

    def __init__(self, spool: Spool, directory: Path, keyring: Keyring, clock: Clock) -> None:
        self._spool = spool
        self._directory = directory
        self._keyring = keyring
        self._clock = clock
        self._writer: Writer | None = None
        # One thread, so that no file is closed under a write that a cancelled task left behind.
        self._thread = ThreadPoolExecutor(1, "segments")
        self._retire_at = clock.monotonic() + _RETIRE_EVERY
        self._status = MoverStatus(0, "")

    def status(self) -> MoverStatus:
        """Tell how moving goes."""
        return self._status

    async def run(self, stop: asyncio.Event) -> None:
        """Move what the spool holds, each second until `stop` is set."""
        pause = GATHER
        try:
            while not await self._clock.wait(stop, pause):
                pause = GATHER if await self._moved() else min(2 * pause, _SLOWEST)
        finally:
            self._thread.submit(self._close)
            self._thread.shutdown(wait=False)

    async def _moved(self) -> bool:
        loop = asyncio.get_running_loop()
        try:
            more = True
            while more and (batch := await self._spool.events_after(0, BATCH)):
                seq = await loop.run_in_executor(self._thread, self._append, batch)
                await self._spool.discard_events(batch[-1][0])
                self._status = MoverStatus(seq, "")
                more = len(batch) == BATCH
            if self._clock.monotonic() >= self._retire_at:
                self._retire_at = self._clock.monotonic() + _RETIRE_EVERY
                await loop.run_in_executor(self._thread, retire, self._directory, self._clock.now())
        except Exception as error:  # noqa: BLE001 - boundary: one background loop; a full disk or a sick spool must not end it
            log.error("cannot move the log, it stays in the spool: %r", error)
            self._status = MoverStatus(self._status.seq, repr(error))
            await loop.run_in_executor(self._thread, self._close)
            return False
        self._status = MoverStatus(self._status.seq, "")
        return True

    def _append(self, batch: Batch) -> int:
        if self._writer is None:
            self._writer = Writer(self._directory, self._keyring, batch)
        self._writer.append(batch, self._clock.now())
        return self._writer.seq

    def _close(self) -> None:
        # A writer that failed must go: what it left behind the last discard is cut by the next one.
        if self._writer is not None:
            self._writer.close()
            self._writer = None
