"""The load: SMTP over kept and fresh connections and HTTP at once, each answer into the ledger.

Clients go on whatever happens to the relay. They stop for a moment when so much is under way that draining
would take longer than crashing.
"""

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable

from tests.crash.clients import Address, Answer, HttpClient, SmtpClient
from tests.crash.ledger import Ledger, Outcome
from tests.crash.letters import recipients_of

_PATIENCE = 30.0  # seconds for one answer
_AGAIN = 0.05  # seconds before a client that found nobody tries again


class Load:
    """Clients. `start` them once; `hold` and `go` stop and start all of them between two letters."""

    def __init__(self, address: Address, ledger: Ledger, rng: random.Random, busy: Callable[[int], bool]) -> None:
        """`busy` is asked, with the number of recipients acknowledged so far, whether enough is under way."""
        self._address = address
        self._ledger = ledger
        self._rng = rng
        self._busy = busy
        self._acked = 0
        self._numbers = itertools.count()
        self._going = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._at_work = 0
        self._quiet = asyncio.Event()
        self._quiet.set()

    def start(self, *, kept: int, fresh: int, http: int) -> None:
        """Begin, with this many clients of each kind."""
        kinds = [self._kept] * kept + [self._fresh] * fresh + [self._by_http] * http
        self._tasks = [asyncio.create_task(self._forever(kind)) for kind in kinds]
        self._going.set()

    def go(self) -> None:
        """Go on."""
        self._going.set()

    async def hold(self) -> None:
        """Offer nothing more, and return when every letter under way has its outcome."""
        self._going.clear()
        await self._quiet.wait()

    async def close(self) -> None:
        """End all clients; what was under way stays as it is in the ledger."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for task in self._tasks:
            if not task.cancelled():
                task.result()

    async def _forever(self, kind: Callable[[], Awaitable[None]]) -> None:
        while True:
            await self._going.wait()
            try:
                async with asyncio.timeout(_PATIENCE):
                    await kind()
            except (ConnectionError, asyncio.IncompleteReadError):
                await asyncio.sleep(_AGAIN)

    async def _may_go_on(self) -> None:
        await self._going.wait()
        while self._busy(self._acked):
            await asyncio.sleep(_AGAIN)
            await self._going.wait()

    async def _kept(self) -> None:
        await self._by_smtp(self._rng.randint(5, 200))

    async def _fresh(self) -> None:
        await self._by_smtp(1)

    async def _by_smtp(self, letters: int) -> None:
        client = await SmtpClient.connect(self._address)
        try:
            for _ in range(letters):
                await self._may_go_on()
                async with asyncio.timeout(_PATIENCE):
                    await self._offer(f"s{next(self._numbers)}", client.send)
        finally:
            client.abort()

    async def _by_http(self) -> None:
        client = await HttpClient.connect(self._address)
        try:
            for _ in range(self._rng.choice((1, 20, 100))):
                await self._may_go_on()
                async with asyncio.timeout(_PATIENCE):
                    await self._offer(f"h{next(self._numbers)}", client.send)
        finally:
            client.abort()

    async def _offer(self, tag: str, send: Callable[[str], Awaitable[Answer]]) -> None:
        self._at_work += 1
        self._quiet.clear()
        self._ledger.note(tag, Outcome.OFFERED)
        try:
            answer = await send(tag)
            self._ledger.note(tag, answer.outcome, answer.said)
            self._acked += len(recipients_of(tag)) * (answer.outcome is Outcome.ACKED)
        finally:
            self._at_work -= 1
            if not self._at_work:
                self._quiet.set()
        if not answer.goes_on:
            raise ConnectionResetError
