"""A clock that tests move: nothing passes by itself, and what waits wakes in the order of its deadlines.

Only waits on this clock are moved. Sockets in the same loop go on as ever: `advance` lets the loop run a
few times between two wake-ups, and a test that needs a peer's answer awaits that answer.
"""

import asyncio
from typing import NamedTuple

_TURNS = 10  # of the event loop: enough for a woken task to run, set what it sets and wait again


class _Waiter(NamedTuple):
    deadline: float
    number: int
    limit: asyncio.Timeout


class FakeClock:
    """An `mta.clock.Clock` that stands still until it is told to move."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self._now = now
        self._monotonic = 1000.0
        self._waiting: set[_Waiter] = set()
        self._number = 0

    def now(self) -> float:
        """Absolute seconds."""
        return self._now

    def monotonic(self) -> float:
        """Seconds since some fixed instant; never jumps."""
        return self._monotonic

    async def wait(self, event: asyncio.Event, seconds: float) -> bool:
        """Wait for `event` at most `seconds` of this clock; tell whether it was set."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return event.is_set()
        try:
            async with asyncio.timeout(None) as limit:
                self._number += 1
                waiter = _Waiter(self._monotonic + seconds, self._number, limit)
                self._waiting.add(waiter)
                try:
                    await event.wait()
                finally:
                    self._waiting.discard(waiter)
        except TimeoutError:
            return event.is_set()
        return True

    async def advance(self, seconds: float) -> None:
        """Let `seconds` pass on both clocks, waking each waiter at its own instant."""
        if seconds < 0:
            raise ValueError("time does not run backwards; jump() moves the wall clock")
        end = self._monotonic + seconds
        await _turn()
        while due := min((each for each in self._waiting if each.deadline <= end), default=None):
            self._move(due.deadline - self._monotonic)
            self._waiting.discard(due)
            due.limit.reschedule(asyncio.get_running_loop().time())
            await _turn()
        self._move(end - self._monotonic)
        await _turn()

    def jump(self, seconds: float) -> None:
        """Set the wall clock `seconds` forward (or back); monotonic time and waiters do not notice."""
        self._now += seconds

    def _move(self, seconds: float) -> None:
        self._now += seconds
        self._monotonic += seconds


async def _turn() -> None:
    for _ in range(_TURNS):
        await asyncio.sleep(0)
