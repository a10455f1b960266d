"""The load: SMTP over kept and fresh connections and HTTP at once, each answer into the ledger.

Clients go on whatever happens to the relay. They stop for a moment when so much is under way that draining
would take longer than crashing.
"""

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from tests.crash.ledger import Ledger, Outcome
from tests.crash.letters import letter, recipients_of, request, sender_of

_PATIENCE = 30.0  # seconds for one answer
_AGAIN = 0.05  # seconds before a client that found nobody tries again
# "Try again" leaves open whether it was stored: the commit may have failed half-way.
_SMTP_OUTCOMES = {"2": Outcome.ACKED, "5": Outcome.REFUSED}
_HTTP_OUTCOMES = {"2": Outcome.ACKED, "4": Outcome.REFUSED}


class Address(NamedTuple):
    """Where the relay listens."""

    host: str
    smtp: int
    http: int
    key: str


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
        client = await _Smtp.connect(self._address)
        try:
            for _ in range(letters):
                await self._may_go_on()
                async with asyncio.timeout(_PATIENCE):
                    await self._offer(f"s{next(self._numbers)}", client.send)
        finally:
            client.abort()

    async def _by_http(self) -> None:
        client = await _Http.connect(self._address)
        try:
            for _ in range(self._rng.choice((1, 20, 100))):
                await self._may_go_on()
                async with asyncio.timeout(_PATIENCE):
                    await self._offer(f"h{next(self._numbers)}", client.send)
        finally:
            client.abort()

    async def _offer(self, tag: str, send: "Callable[[str], Awaitable[Answer]]") -> None:
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


class Answer(NamedTuple):
    """What became of a letter, and whether its connection can be used on."""

    outcome: Outcome
    said: str
    goes_on: bool = True


class _Client:
    """A connection to the relay."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address: Address) -> None:
        self._reader = reader
        self._writer = writer
        self._address = address

    def abort(self) -> None:
        self._writer.transport.abort()


class _Smtp(_Client):
    """SMTP with PIPELINING."""

    @classmethod
    async def connect(cls, address: Address) -> "_Smtp":
        client = cls(*await asyncio.open_connection(address.host, address.smtp), address)
        try:
            await client._reply()
            client._writer.write(b"EHLO client.test\r\n")
            await client._reply()
        except BaseException:
            client.abort()
            raise
        return client

    async def _reply(self) -> str:
        lines = [await self._reader.readuntil(b"\r\n")]
        while lines[-1][3:4] == b"-":
            lines.append(await self._reader.readuntil(b"\r\n"))
        return b"".join(lines).decode("ascii").rstrip()

    async def send(self, tag: str) -> Answer:
        """Hand a letter over. Before the final dot the relay cannot have it; after it only the reply tells."""
        recipients = recipients_of(tag)
        commands = [f"MAIL FROM:<{sender_of(tag)}>", *(f"RCPT TO:<{each}>" for each in recipients), "DATA"]
        try:
            self._writer.write("".join(f"{each}\r\n" for each in commands).encode("ascii"))
            replies = [await self._reply() for _ in commands]
            if not all(each.startswith("2") for each in replies[:-1]) or not replies[-1].startswith("354"):
                return Answer(Outcome.REFUSED, " / ".join(replies), goes_on=False)
            self._writer.write(letter(tag).replace(b"\r\n.", b"\r\n.."))
            await self._writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            return Answer(Outcome.REFUSED, repr(error), goes_on=False)
        try:
            self._writer.write(b".\r\n")
            reply = await self._reply()
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            return Answer(Outcome.UNKNOWN, repr(error), goes_on=False)
        return Answer(_SMTP_OUTCOMES.get(reply[:1], Outcome.UNKNOWN), reply)


class _Http(_Client):
    """HTTP/1.1 with keep-alive."""

    @classmethod
    async def connect(cls, address: Address) -> "_Http":
        return cls(*await asyncio.open_connection(address.host, address.http), address)

    async def send(self, tag: str) -> Answer:
        """Hand a letter over; the relay may have it as soon as the request is on its way."""
        body = request(tag)
        head = (
            f"POST /v3/mail/send HTTP/1.1\r\nHost: {self._address.host}\r\n"
            f"Authorization: Bearer {self._address.key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        try:
            self._writer.write(head.encode("ascii") + body)
            answer = (await self._reader.readuntil(b"\r\n\r\n")).decode("ascii")
            fields = dict(line.lower().split(": ", 1) for line in answer.split("\r\n")[1:] if line)
            said = await self._reader.readexactly(int(fields.get("content-length", "0")))
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            return Answer(Outcome.UNKNOWN, repr(error), goes_on=False)
        status = answer.split(" ", 2)[1]
        return Answer(
            _HTTP_OUTCOMES.get(status[:1], Outcome.UNKNOWN),
            f"{status} {fields.get('x-message-id', '')} {said.decode()}".strip(),
            goes_on=fields.get("connection") != "close",
        )
