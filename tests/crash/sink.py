"""The next hop: an SMTP server that behaves by address, keeps what arrives and counts what a kill can repeat.

A transaction is uncertain from the moment the sink has taken it until the same connection begins the next
one: only then has the relay committed its outcome (promise 2). Those that are uncertain when the relay is
killed may come again; no others may.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.crash.checker import Arrival
from tests.crash.letters import Fate, fate_of, is_sender, is_whole, tag_of

_EHLO = b"250-sink.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 50000000\r\n"
_SLOW = 0.1  # seconds
_REPLIES = {
    b"RSET": b"250 reset\r\n",
    b"NOOP": b"250 ok\r\n",
}


class _Connection:
    """One connection. `taken` is the transaction that its client may not have committed yet."""

    def __init__(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.number = number
        self.reader = reader
        self.writer = writer
        self.taken: int | None = None
        self.cut = False
        self.recipients: list[str] = []


class _HangUp(Exception):
    """The sink ends the connection here."""


class Sink:
    """Listens on a port of the system's choice, whatever happens to the relay."""

    def __init__(self) -> None:
        self.arrivals: list[Arrival] = []
        self.uncertain: dict[int, int] = {}
        self.answered: set[str] = set()  # recipients that have their final answer
        self.port = 0
        self._server: asyncio.Server | None = None
        self._open: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections = 0
        self._transactions = 0
        self._cutting = False
        self._met: Counter[tuple[str, Fate]] = Counter()

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0, limit=1 << 20)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Hang up on everybody."""
        assert self._server is not None
        self._server.close()
        for connection in self._open:
            connection.writer.transport.abort()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._server.wait_closed()

    @contextmanager
    def cut(self) -> Iterator[None]:
        """Enter before the relay's delivery is killed, leave when it is dead: what is uncertain may be repeated."""
        self._cutting = True
        for connection in self._open:
            self._is_cut(connection)
        yield
        self._cutting = False

    def _is_cut(self, connection: _Connection) -> None:
        connection.cut = True
        if connection.taken is not None:
            self.uncertain[connection.taken] = connection.number

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._connections += 1
        connection = _Connection(self._connections, reader, writer)
        self._open.add(connection)
        if self._cutting:
            self._is_cut(connection)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, _HangUp):
                await self._talk(connection)
        finally:
            self._open.discard(connection)
            self._tasks.discard(task)
            writer.transport.abort()

    async def _talk(self, connection: _Connection) -> None:
        connection.writer.write(b"220 sink.test ESMTP\r\n")
        while True:
            line = await connection.reader.readuntil(b"\r\n")
            verb = line[:4].upper()
            if verb == b"QUIT":
                connection.writer.write(b"221 bye\r\n")
                await connection.writer.drain()
                return
            if verb == b"DATA":
                await self._data(connection)
            else:
                connection.writer.write(self._command(connection, verb, line))

    def _command(self, connection: _Connection, verb: bytes, line: bytes) -> bytes:
        if verb == b"EHLO":
            return _EHLO
        if verb == b"MAIL":
            connection.recipients = []
            if not connection.cut:
                connection.taken = None
            return b"250 2.1.0 sender\r\n"
        if verb == b"RCPT":
            return self._recipient(connection, _path(line))
        return _REPLIES.get(verb, b"500 5.5.1 what\r\n")

    def _recipient(self, connection: _Connection, address: str) -> bytes:
        fate = fate_of(address)
        if fate is Fate.REJECT:
            self.answered.add(address)
            return b"550 5.1.1 nobody\r\n"
        if fate is Fate.TEMPFAIL and self._first_time(address, fate):
            return b"451 4.7.1 come again\r\n"
        if fate is Fate.DROP_AT_RCPT and self._first_time(address, fate):
            raise _HangUp
        connection.recipients.append(address)
        return b"250 2.1.5 recipient\r\n"

    def _first_time(self, address: str, fate: Fate) -> bool:
        self._met[address, fate] += 1
        return self._met[address, fate] == 1

    async def _data(self, connection: _Connection) -> None:
        if not connection.recipients:
            connection.writer.write(b"554 5.5.1 no recipients\r\n")
            return
        connection.writer.write(b"354 go on\r\n")
        lines: list[bytes] = []
        while (line := await connection.reader.readuntil(b"\r\n")) != b".\r\n":
            lines.append(line[1:] if line.startswith(b".") else line)
        fates = [(each, fate_of(each)) for each in connection.recipients]
        drops = [each for each, fate in fates if fate is Fate.DROP_AT_DOT and self._first_time(each, fate)]
        if drops:
            raise _HangUp
        self._take(connection, b"".join(lines))
        if any(fate is Fate.SLOW for _, fate in fates):
            await asyncio.sleep(_SLOW)
        connection.writer.write(b"250 2.0.0 taken\r\n")

    def _take(self, connection: _Connection, content: bytes) -> None:
        self._transactions += 1
        connection.taken = self._transactions
        if connection.cut:
            self._is_cut(connection)
        self.answered.update(connection.recipients)
        for each in connection.recipients:
            dsn = is_sender(each)
            message = _message_id(content) if dsn else ""
            whole = dsn or is_whole(content, tag_of(each))
            self.arrivals.append(Arrival(each, message, self._transactions, connection.number, whole))


def _path(line: bytes) -> str:
    return line[line.index(b"<") + 1 : line.index(b">")].decode("ascii")


def _message_id(content: bytes) -> str:
    found = re.search(rb"^Message-ID: (\S+)", content, re.MULTILINE | re.IGNORECASE)
    assert found is not None, content[:500]
    return found[1].decode("ascii")
