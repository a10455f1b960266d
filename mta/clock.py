"""Time, passed in: the relay never reads the clock by itself, so that tests can move it."""

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Wall time for what is stored and shown, monotonic time for what is measured."""

    def now(self) -> float:
        """Absolute seconds."""

    def monotonic(self) -> float:
        """Seconds since some fixed instant; never jumps."""

    async def wait(self, event: asyncio.Event, seconds: float) -> bool:
        """Wait for `event` at most `seconds` of this clock; tell whether it was set."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        """Absolute seconds."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds since some fixed instant; never jumps."""
        return time.monotonic()

    async def wait(self, event: asyncio.Event, seconds: float) -> bool:
        """Wait for `event` at most `seconds`; tell whether it was set."""
        try:
            async with asyncio.timeout(seconds):
                await event.wait()
        except TimeoutError:
            return False
        return True
