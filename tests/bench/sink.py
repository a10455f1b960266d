"""The cheapest next hop: an SMTP server that counts each message of a run once, keeps a few and forgets the rest.

As cheap as smtp-sink, and exact: a run of the benchmark ends when its last message has been counted. As a tarpit it
lets its clients wait for every reply. At a further port it offers STARTTLS.
"""

import asyncio
import ssl
import time
from collections.abc import Coroutine
from typing import cast

from mta.config import HostPort

_SUBJECT = b"\nSubject: bench."
_END = b"\r\n.\r\n"
_EHLO = b"250-sink.test\r\n250-PIPELINING\r\n250-SIZE 0\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 ENHANCEDSTATUSCODES\r\n"
_REPLIES = {
    b"EHLO": _EHLO,
    b"HELO": b"250 sink.test\r\n",
    b"DATA": b"354 go ahead\r\n",
    b"QUIT": b"221 2.0.0 bye\r\n",
}
_OFFERING = _REPLIES | {b"EHLO": _EHLO.replace(b"250-PIPELINING", b"250-STARTTLS\r\n250-PIPELINING")}
_SAMPLED = 500  # of so many messages one is kept, the first of a run always


class Sink:
    """Takes all mail at a port of the system's choice."""

    def __init__(self) -> None:
        self.address = HostPort(host="127.0.0.1", port=0)
        self.pause = 0.0  # seconds before each reply
        self.sample: list[bytes] = []
        self.repeated = 0
        self.in_clear = 0  # messages, whatever run they are of
        self.transports = set[asyncio.Transport]()
        self.last_at = 0.0  # time.monotonic() of the last that was counted
        self._run = b""
        self._seen = set[bytes]()
        self._wanted = 0
        self._reached = asyncio.Event()
        self._servers: list[asyncio.Server] = []
        self._handshakes = set[asyncio.Task[None]]()

    @property
    def count(self) -> int:
        """How many different messages of this run have come."""
        return len(self._seen)

    async def start(self) -> None:
        """Listen."""
        self.address = await self._listen(None)

    async def offer_starttls(self, context: ssl.SSLContext) -> HostPort:
        """Listen at a port where STARTTLS is offered, too; return where that is."""
        return await self._listen(context)

    async def _listen(self, context: ssl.SSLContext | None) -> HostPort:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Session(self, context), self.address.host, 0, backlog=1024)
        self._servers.append(server)
        return HostPort(host=self.address.host, port=server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop listening, and hang up."""
        for server in self._servers:
            server.close()
        for task in list(self._handshakes):
            task.cancel()
        for each in list(self.transports):
            each.abort()
        await asyncio.sleep(0)  # that is when it is done

    def expect(self, run: int) -> None:
        """Count a run's messages, from zero; those of others no more."""
        self._run = b"%d" % run
        self._seen, self._wanted, self.sample, self.repeated, self.in_clear = set(), 0, [], 0, 0

    async def reached(self, count: int, timeout: float) -> float:
        """Wait for so many; return when the last one came. TimeoutError if no more come."""
        self._wanted = count
        self._reached.clear()
        if self.count < count:
            async with asyncio.timeout(timeout):
                await self._reached.wait()
        return self.last_at

    def take(self, content: bytes) -> None:
        """Count a message."""
        start = content.find(_SUBJECT) + len(_SUBJECT)
        run, _, number = content[start : content.find(b"\r\n", start)].partition(b".")
        if run != self._run:
            return
        if number in self._seen:
            self.repeated += 1
            return
        if self.count % _SAMPLED == 0:
            self.sample.append(content)
        self._seen.add(number)
        self.last_at = time.monotonic()
        if self.count == self._wanted:
            self._reached.set()

    def handshake(self, work: Coroutine[object, object, None]) -> None:
        """Own a handshake until it is over."""
        task = asyncio.get_running_loop().create_task(work)
        self._handshakes.add(task)
        task.add_done_callback(self._handshakes.discard)


class _Session(asyncio.Protocol):
    """One connection. Replies to one read are one write."""

    def __init__(self, sink: Sink, context: ssl.SSLContext | None) -> None:
        self._sink = sink
        self._context = context  # for STARTTLS, where it is offered
        self._replies = _REPLIES if context is None else _OFFERING
        self._encrypted = False
        self._buffer = bytearray()
        self._searched = 0  # octets of the buffer
        self._in_data = False
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._use(transport)
        self._transport.write(b"220 sink.test ESMTP\r\n")

    def connection_lost(self, _: Exception | None) -> None:
        self._sink.transports.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        replies = b""
        while (end := buffer.find(_END if self._in_data else b"\r\n", self._searched)) >= 0:
            self._searched = 0
            if self._in_data:
                self._sink.in_clear += not self._encrypted
                self._sink.take(bytes(buffer[: end + 2]))
                del buffer[: end + len(_END)]
                replies += b"250 2.0.0 taken\r\n"
                self._in_data = False
            else:
                verb = bytes(buffer[:4]).upper()
                del buffer[: end + 2]
                if verb == b"STAR" and self._context is not None:
                    self._start_tls(self._context, replies)
                    return
                self._in_data = verb == b"DATA"
                replies += self._replies.get(verb, b"250 2.0.0 ok\r\n")
        self._searched = max(0, len(buffer) - len(_END))
        if replies and self._sink.pause:
            asyncio.get_running_loop().call_later(self._sink.pause, self._reply, replies)
        elif replies:
            self._transport.write(replies)

    def _reply(self, replies: bytes) -> None:
        if not self._transport.is_closing():  # its client may have lost its patience
            self._transport.write(replies)

    def _use(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none of asyncio's classes
        self._sink.transports.add(self._transport)

    def _start_tls(self, context: ssl.SSLContext, replies: bytes) -> None:
        self._buffer.clear()
        self._transport.pause_reading()  # until somebody is there for the hello
        self._transport.write(replies + b"220 2.0.0 go ahead\r\n")
        self._sink.handshake(self._shake_hands(context))

    async def _shake_hands(self, context: ssl.SSLContext) -> None:
        below = self._transport
        try:
            above = await asyncio.get_running_loop().start_tls(below, self, context, server_side=True)
        except OSError:  # the client has hung up, or it would not go on
            above = None
        self._sink.transports.discard(below)
        if above is None:
            below.abort()
            return
        self._encrypted, self._context, self._replies = True, None, _REPLIES
        self._use(above)
