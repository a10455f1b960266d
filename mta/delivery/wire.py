"""The octets of an SMTP client connection: replies in, commands and content out.

An aiosmtplib protocol, so that aiosmtplib can set a session up over it (EHLO, STARTTLS, AUTH), with its
receiving half replaced: several replies may be awaited at once, each has a total time, and octets that
nobody asked for end the connection (what a man in the middle puts behind the reply to STARTTLS, RFC 3207 5;
a farewell while idle). A step never raises: it leaves `replies`, and `fault` when the connection is over.
"""

import asyncio
import re
from collections.abc import Callable
from typing import cast

from aiosmtplib import SMTPReadTimeoutError, SMTPResponse, SMTPServerDisconnected
from aiosmtplib.protocol import SMTPProtocol

from mta.delivery.trouble import Fault
from mta.mail.reply import Reply

REPLY_LIMIT = 64 * 1024  # octets of one reply
REPLY_LINES = 1000
CHUNK = 64 * 1024
FAREWELL = 2.0  # seconds that a peer has to answer QUIT

# The LF alone ends a line: no line of a reply is ever passed on as one, and replies are counted, not scanned for.
_LINE = re.compile(rb"([2-5][0-9][0-9])(?:([ -])(.*))?\r?", re.DOTALL)
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
        """Wait for the reply to what was just written, or for the greeting, which may have come already."""
        if not self._wanted and (self.replies or self.fault is None) and self._greeted:
            self._await_replies(1)
        self._greeted = True
        raise NotImplementedError
