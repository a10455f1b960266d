"""When keys were used last: noted in memory, and stored once a minute at most, off the way of requests.

What a process that dies has noted since is lost: a minute of it.
"""

import asyncio
import logging

from mta.clock import Clock
from mta.spool.interface import Spool, SpoolError

log = logging.getLogger(__name__)

KIND = "key use"
PAUSE = 60.0  # seconds
_MOST = 10_000  # keys that are noted between two stores; more are noted in the next minute
_AT_ONCE = 250


class Uses:
    """The uses that a process knows of and has not stored."""

    def __init__(self, spool: Spool, clock: Clock) -> None:
        self._spool = spool
        self._clock = clock
        self._used: dict[str, float] = {}
        self._stop = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    def note(self, key_id: str, now: float) -> None:
        """Note that a key is used."""
        if key_id in self._used or len(self._used) < _MOST:
            self._used[key_id] = now

    def start(self) -> None:
        """Begin to store what is noted."""
        self._running = asyncio.create_task(self._run(), name="uses")

    async def close(self) -> None:
        """Store what is left, and stop."""
        self._stop.set()
        if self._running is not None:
            await self._running

    async def _run(self) -> None:
        while not await self._clock.wait(self._stop, PAUSE):
            await self.store()
        await self.store()

    async def store(self) -> None:
        """Store what was noted, unless another process knows of a later use; what fails is tried again in a minute."""
        noted, self._used = list(self._used.items()), {}
        for start in range(0, len(noted), _AT_ONCE):
            portion = noted[start : start + _AT_ONCE]
            try:
                await asyncio.gather(*(self._store(*each) for each in portion))
            except SpoolError as error:
                log.warning("key uses=%d not stored: %s", len(noted) - start, error)
                self._used = dict(noted[start:]) | self._used
                return

    async def _store(self, key_id: str, at: float) -> None:
        if at > await last_used(self._spool, key_id):
            await self._spool.put_record(KIND, key_id, repr(at).encode("ascii"), replace=True)


async def last_used(spool: Spool, key_id: str) -> float:
    """Return when a key was used last, 0 for never."""
    return float(await spool.get_record(KIND, key_id) or 0)
