"""The cheapest next hop: an SMTP server that counts what it takes, keeps the last message and forgets the rest.

As cheap as smtp-sink, and exact: a run of the benchmark ends when the last message has been counted.
"""

import asyncio
import time
from typing import cast

from mta.config import HostPort

_END = b"\r\n.\r\n"
_EHLO = b"250-sink.test\r\n250-PIPELINING\r\n250-SIZE 0\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 ENHANCEDSTATUSCODES\r\n"
_REPLIES = {
    b"EHLO": _EHLO,
    b"HELO": b"250 sink.test\r\n",
    b"DATA": b"354 go ahead\r\n",
    b"QUIT": b"221 2.0.0 bye\r\n",
}


class Sink:
    """Takes all mail at a port of the system's choice."""

    def __init__(self) -> None:
        self.count = 0
        self.last = b""
        self.address = HostPort(host="127.0.0.1", port=0)
        self._server: asyncio.Server | None = None
        self._wanted = 0
        self._reached = asyncio.Event()
        self._reached_at = 0.0

    async def start(self) -> None:
        """Listen."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Session(self), self.address.host, 0, backlog=1024)
        self.address = HostPort(host=self.address.host, port=self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()

    def expect(self, count: int) -> None:
        """Count from zero up to `count`."""
        self.count, self._wanted = 0, count
        self._reached.clear()

    async def reached(self, timeout: float) -> float:
        """Wait for as many as were expected; return when the last one came, by time.perf_counter()."""
        async with asyncio.timeout(timeout):
            await self._reached.wait()
        return self._reached_at

    def take(self, content: bytes) -> None:
        """Count a message."""
        self.count += 1
        self.last = content
        if self.count == self._wanted:
            self._reached_at = time.perf_counter()
            self._reached.set()


class _Session(asyncio.Protocol):
    """One connection. Replies to one read are one write."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._buffer = bytearray()
        self._in_data = False
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none of asyncio's classes
        self._transport.write(b"220 sink.test ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        replies = b""
        while (end := buffer.find(_END if self._in_data else b"\r\n")) >= 0:
            if self._in_data:
                self._sink.take(bytes(buffer[:end]))
                del buffer[: end + len(_END)]
                replies += b"250 2.0.0 taken\r\n"
                self._in_data = False
            else:
                verb = bytes(buffer[:4]).upper()
                del buffer[: end + 2]
                self._in_data = verb == b"DATA"
                replies += _REPLIES.get(verb, b"250 2.0.0 ok\r\n")
        if replies:
            self._transport.write(replies)
