"""The loop that ends what is out of time: timers that have come, and attempts under way past their deadline.

It has a loop of its own in the delivery role, beside the dispatcher's: neither waits for the other. What it does at
once is bounded, and the event loop has its turn between.
"""

import asyncio
import logging
from collections.abc import Callable

from mta.clock import Clock
from mta.queue.job import Job
from mta.queue.queue import Queue
from mta.spool.interface import Spool, SpoolError, Unavailable

log = logging.getLogger(__name__)

_SOON = 1.0  # seconds
BreakOff = Callable[[Callable[[Job], bool]], int]


class Deadlines:
    """Expires entries within seconds of their deadline, wherever they wait, and sends delay notices."""

    def __init__(self, spool: Spool, queue: Queue, break_off: BreakOff, clock: Clock, *, poll: float = 1.0) -> None:
        """Use `break_off` to end those attempts of which it is told True, unless they are past their final dot.

        `poll` is the safety poll in seconds: how long a deadline that came in meanwhile may go unnoticed.
        """
        self._spool = spool
        self._queue = queue
        self._break_off = break_off
        self._clock = clock
        self._poll = poll
        self._bell = asyncio.Event()
        self._stopping = asyncio.Event()

    def ring(self) -> None:
        """Look again: there may be an earlier deadline."""
        self._bell.set()

    def stop(self) -> None:
        """Begin nothing more."""
        self._stopping.set()
        self._bell.set()

    async def run(self) -> None:
        """Keep deadlines until stopped. Durable state alone says what is to be done, so this can die at any point."""
        while not self._stopping.is_set():
            self._bell.clear()
            try:
                pause = await self._turn()
            except SpoolError as error:
                log.error("deadlines=waiting error=%s", error)
                pause = self._poll
            # whoever rings, for each message, is not worth a look if there will be one in a second
            await self._clock.wait(self._bell if pause > _SOON else self._stopping, pause)

    async def _turn(self) -> float:
        """Do what is due, and return the seconds until there is more."""
        if not self._spool.healthy():
            raise Unavailable("the spool is sick")
        looked_at = self._clock.now()
        try:
            done = await self._queue.run_timers()
        finally:  # what cannot be stored lets nobody deliver late
            broken_off = self._break_off(lambda job: self._queue.overdue(job.message, job.entry))
            if broken_off:  # they expire when their outcome is stored
                log.info("deadlines=over attempts_broken_off=%d", broken_off)
        if done:  # there may be more
            return 0.0
        next_at = await self._spool.next_timer_at(looked_at)
        return self._poll if next_at is None else min(self._poll, max(0.0, next_at - self._clock.now()))
