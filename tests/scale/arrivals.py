"""A receiver that tells when messages come, whoever sent them."""

import asyncio
import time

from tests.bench.sink import Sink


class Arrivals(Sink):
    """Notes when each message came, in order: (time.monotonic(), content)."""

    def __init__(self) -> None:
        super().__init__()
        self.came: list[tuple[float, bytes]] = []
        self._some = asyncio.Event()

    def forget(self) -> None:
        """Begin anew."""
        self.came = []
        self._some.clear()

    async def first(self, timeout: float) -> float:
        """Wait for the first message since; return when it came. TimeoutError if none comes."""
        async with asyncio.timeout(timeout):
            await self._some.wait()
        return self.came[0][0]

    def take(self, content: bytes) -> None:
        """Note a message."""
        self.came.append((time.monotonic(), content))
        self._some.set()
