"""Clients of one connection, by SMTP and by HTTP: each tells what came of a letter, and what was said."""

import asyncio
import base64
from collections.abc import Mapping
from typing import NamedTuple, Self

from tests.crash.ledger import Outcome
from tests.crash.letters import letter, recipients_of, request, sender_of

# "Try again" leaves open whether it was stored: the commit may have failed half-way.
_SMTP_OUTCOMES = {"2": Outcome.ACKED, "5": Outcome.REFUSED}
_HTTP_OUTCOMES = {"2": Outcome.ACKED, "4": Outcome.REFUSED}


class Address(NamedTuple):
    """Where the relay listens."""

    host: str
    smtp: int
    http: int
    submission: int
    key: str


class Answer(NamedTuple):
    """What became of a letter, and whether its connection can be used on."""

    outcome: Outcome
    said: str
    goes_on: bool = True


class HttpAnswer(NamedTuple):
    """An answer as it came, names of fields in small letters; without any the connection ended before."""

    status: int = 0
    fields: Mapping[str, str] = {}
    body: str = ""


class _Client:
    """A connection to the relay."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address: Address) -> None:
        self._reader = reader
        self._writer = writer
        self._address = address

    def abort(self) -> None:
        """Hang up."""
        self._writer.transport.abort()


class SmtpClient(_Client):
    """SMTP with PIPELINING."""

    @classmethod
    async def connect(cls, address: Address) -> Self:
        """Connect to where no login is asked for."""
        return await cls._greeted(address, address.smtp)

    @classmethod
    async def log_in(cls, address: Address) -> Self:
        """Connect to where mail is submitted, and log in with the key."""
        client = await cls._greeted(address, address.submission)
        client._writer.write(b"AUTH PLAIN %b\r\n" % base64.b64encode(f"\0apikey\0{address.key}".encode()))
        said = await client._reply()
        assert said.startswith("235"), said
        return client

    @classmethod
    async def _greeted(cls, address: Address, port: int) -> Self:
        client = cls(*await asyncio.open_connection(address.host, port), address)
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


class HttpClient(_Client):
    """HTTP/1.1 with keep-alive, for letters as SendGrid's dialect has them."""

    @classmethod
    async def connect(cls, address: Address) -> Self:
        """Connect."""
        return cls(*await asyncio.open_connection(address.host, address.http), address)

    async def send(self, tag: str) -> Answer:
        """Hand a letter over; the relay may have it as soon as the request is on its way."""
        status, fields, said = await self.post(request(tag))
        if not status:
            return Answer(Outcome.UNKNOWN, said, goes_on=False)
        return Answer(
            _HTTP_OUTCOMES.get(str(status)[:1], Outcome.UNKNOWN),
            f"{status} {fields.get('x-message-id', '')} {said}".strip(),
            goes_on=fields.get("connection") != "close",
        )

    async def post(self, body: bytes, idempotency_key: str = "") -> HttpAnswer:
        """Ask for a body to be sent."""
        once = f"Idempotency-Key: {idempotency_key}\r\n" if idempotency_key else ""
        head = (
            f"POST /v3/mail/send HTTP/1.1\r\nHost: {self._address.host}\r\n"
            f"Authorization: Bearer {self._address.key}\r\n{once}"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        try:
            self._writer.write(head.encode("ascii") + body)
            answer = (await self._reader.readuntil(b"\r\n\r\n")).decode("ascii")
            lines = [line.partition(": ") for line in answer.split("\r\n")[1:] if line]
            fields = {name.lower(): value for name, _, value in lines}
            said = await self._reader.readexactly(int(fields.get("content-length", "0")))
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            return HttpAnswer(body=repr(error))
        return HttpAnswer(int(answer.split(" ", 2)[1]), fields, said.decode())
