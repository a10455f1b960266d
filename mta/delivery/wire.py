"""The octets of an SMTP client connection: replies in, commands and content out.

An aiosmtplib protocol, so that aiosmtplib can set a session up over it (EHLO, STARTTLS, AUTH), with its
receiving half replaced: several replies may be awaited at once, each has a total time, and octets that
nobody asked for end the connection (what a man in the middle puts behind the reply to STARTTLS, RFC 3207 5;
a farewell while idle). A step never raises: it leaves `replies`, and `fault` when the connection is over.
"""

import asyncio
import re
from collections.abc import Callable
from functools import lru_cache
from typing import cast

from aiosmtplib import SMTPReadTimeoutError, SMTPResponse, SMTPServerDisconnected
from aiosmtplib.protocol import SMTPProtocol

from mta.delivery.trouble import UNAVAILABLE, Fault
from mta.mail.reply import Reply

REPLY_LIMIT = 64 * 1024  # octets of one reply
REPLY_LINES = 1000
CHUNK = 64 * 1024
FAREWELL = 2.0  # seconds that a peer has to answer QUIT

# The LF alone ends a line: no line of a reply is ever passed on as one, and replies are counted, not scanned for.
_LINE = re.compile(rb"([2-5][0-9][0-9])(?:([ -])(.*))?", re.DOTALL)
_SHORT = 64
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")


class Wire(SMTPProtocol):
    """One connection, which begins by awaiting the greeting. `on_end` is called once when it is over."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.replies: list[Reply] = []
        self.fault: Fault | None = None
        self.fault_text = ""
        self.past_dot = False
        self.on_end: Callable[[], None] | None = None
        self._wanted = 1
        self._seconds = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._ended: asyncio.Future[None] | None = None
        self._unfinished = b""  # a line
        self._lines: list[bytes] = []  # of a reply
        self._code = b""
        self._size = 0

    async def ask(self, octets: bytes, replies: int, seconds: float) -> None:
        """Write commands and wait for their replies, `seconds` for each."""
        self._await_replies(replies)
        self._arm(seconds)
        self._write(octets)
        await self._finish()

    async def pour(self, octets: bytes, block_seconds: float, final_seconds: float) -> None:
        """Write content with its final dot and wait for the reply, at most `block_seconds` for each block.

        A reply that comes before all is written ends it; `past_dot` tells whether the dot went out.
        """
        self._await_replies(1)
        if len(octets) > CHUNK:
            view = memoryview(octets)
            whole = len(octets) - CHUNK
            for start in range(0, whole, CHUNK):
                self._arm(block_seconds)
                self._write(view[start : start + CHUNK])
                while self._paused and self._wanted and self.fault is None:
                    await self._wait()
                if not self._wanted or self.fault is not None:
                    return
            octets = octets[start + CHUNK :]
        self.past_dot = True
        self._arm(final_seconds)
        self._write(octets)
        await self._finish()

    def abort(self, fault: Fault = Fault.LOST, text: str = "") -> None:
        """End the connection at once; the first fault stands."""
        if self.fault is None:
            self.fault, self.fault_text = fault, text
        self._disarm()
        if self.transport is not None:
            cast("asyncio.Transport", self.transport).abort()
        self._wake()

    def farewell(self) -> asyncio.Future[None]:
        """Say QUIT and hang up when it is answered, or FAREWELL seconds later; done when that has happened."""
        ended = self._ended = self._loop.create_future()
        if self.transport is None:
            ended.set_result(None)
        else:
            self._await_replies(1)
            self._arm(FAREWELL)
            self._write(b"QUIT\r\n")
        return ended

    # What aiosmtplib calls while it sets the session up.

    async def execute_command(self, *args: bytes, timeout: float | None = None) -> SMTPResponse:
        """Do one command; raises as aiosmtplib's own does."""
        self.write(b" ".join(args) + b"\r\n")
        return await self.read_response(timeout)

    async def read_response(self, timeout: float | None = None) -> SMTPResponse:
        """Wait for the reply to what has just been written."""
        self._await_replies(1)
        if timeout is not None:
            self._arm(timeout)
        await self._finish()
        if self.fault is Fault.TIMED_OUT:
            raise SMTPReadTimeoutError(self.fault_text)
        if not self.replies or self.fault is Fault.GARBLED:
            raise SMTPServerDisconnected(self.fault_text)
        return SMTPResponse(self.replies[0].code, self.replies[0].text)

    async def greeting(self, seconds: float) -> None:
        """Wait for the reply that opens the session."""
        self._arm(seconds)
        await self._finish()

    # What the event loop calls.

    def data_received(self, data: bytes) -> None:
        """Take in what the peer says."""
        before = self._wanted
        lines = (self._unfinished + data).split(b"\n")
        self._unfinished = lines.pop()
        for line in lines:
            if not self._wanted:
                return self.abort(Fault.GARBLED, "peer spoke out of turn")
            if not self._take(line):
                return self.abort(Fault.GARBLED, f"not a reply: {line[:80]!r}")
            if self.replies and self.replies[-1].code == UNAVAILABLE:
                return self.abort(Fault.LOST, "peer closes the connection")  # RFC 5321 3.8
        if self._size + len(self._unfinished) > REPLY_LIMIT or len(self._lines) > REPLY_LINES:
            return self.abort(Fault.GARBLED, "reply is too long")
        if not self._wanted:
            self._disarm()
            if self._unfinished:
                return self.abort(Fault.GARBLED, "peer spoke out of turn")
            if self._ended is not None:
                return self.abort()
            self._wake()
        elif self._wanted < before:
            self._arm(self._seconds)
        return None

    def eof_received(self) -> bool:
        """Let the connection close: half of one is of no use."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end."""
        super().connection_lost(exc)
        if self.fault is None:
            self.fault, self.fault_text = Fault.LOST, str(exc or "")
        self._disarm()
        self._wake()
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)
        if self.on_end is not None:
            self.on_end()

    def resume_writing(self) -> None:
        """Go on with content."""
        super().resume_writing()
        self._wake()

    def _take(self, line: bytes) -> bool:
        """Take in one line of a reply (RFC 5321 4.2.1); False if it is not one."""
        reply = _whole_reply(line) if not self._lines and len(line) <= _SHORT else None
        if reply is None:
            found = _LINE.fullmatch(line.removesuffix(b"\r"))
            if found is None or (self._lines and found[1] != self._code):
                return False
            self._lines.append(found[3] or b"")
            if found[2] == b"-":
                self._code = found[1]
                self._size += len(line)
                return True
            reply = _reply(found[1], b"\n".join(self._lines))
            self._lines.clear()
            self._size = 0
        self.replies.append(reply)
        self._wanted -= 1
        return True

    def _await_replies(self, number: int) -> None:
        self._wanted = number
        self.replies = []

    async def _finish(self) -> None:
        while self._wanted and self.fault is None:
            await self._wait()

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _write(self, octets: bytes | memoryview) -> None:
        if self.transport is not None and self.fault is None:
            cast("asyncio.Transport", self.transport).write(octets)

    def _arm(self, seconds: float) -> None:
        self._disarm()
        self._seconds = seconds
        if self.fault is None:
            self._timer = self._loop.call_later(seconds, self._expire)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        self._timer = None
        self.abort(Fault.TIMED_OUT, f"no reply within {self._seconds:g} s")


@lru_cache(maxsize=1024)
def _whole_reply(line: bytes) -> Reply | None:
    """Read a reply of one line; None if it is not whole. Peers say the same few things over and over."""
    found = _LINE.fullmatch(line.removesuffix(b"\r"))
    return None if found is None or found[2] == b"-" else _reply(found[1], found[3] or b"")


def _reply(code: bytes, octets: bytes) -> Reply:
    text = octets.decode("utf-8", "replace")
    return Reply.parse(int(code), text if text.isprintable() else _CONTROL.sub("?", text))
