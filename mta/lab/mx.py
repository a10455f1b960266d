"""The receiving MX: aiosmtpd with its own MAIL, RCPT and DATA, so that it behaves as told and keeps what came.

It accepts mail for every domain; `mta.lab.behaviour` says what becomes of a recipient. Content is taken
literally: it ends with CRLF.CRLF and nothing else (RFC 5321 4.1.1.4), and bare CR or LF, long lines and
8-bit octets are kept as they are, for a test to find. Mail is captured when nothing but its reply is left.
"""

# ruff: noqa: N802 - aiosmtpd finds its verbs by the names of methods

import asyncio
import logging
import ssl
from collections import defaultdict
from collections.abc import Callable
from typing import Literal, cast

import aiosmtpd.smtp
import msgspec

from mta.clock import Clock
from mta.config import HostPort
from mta.lab.behaviour import Judge, Kind, behaviour_of
from mta.lab.ca import ServerCertificate
from mta.lab.commands import Extension, Refused, read_mail, read_rcpt
from mta.lab.mailbox import Captured
from mta.mail.envelope import Envelope, Recipient

log = logging.getLogger(__name__)

_IDLE = 300.0  # seconds for one command, DATA included; on the machine's clock, aiosmtpd knows no other
_COMMAND_LIMIT = 4096  # octets: a path, and DSN parameters at their longest (RFC 3461 5.4)
_BUFFER = 1 << 16


class MxSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How one receiving MX is set up.

    With `tls` "broken" STARTTLS is offered and then answered with something that is not TLS. `size` is in
    octets; `greylist` (until a retry is welcome) and `slow` (before the reply to DATA) in seconds.
    """

    address: HostPort = HostPort(host="127.0.0.1", port=0)
    hostname: str = "mx1.lab.test"
    extensions: frozenset[Extension] = frozenset(Extension)
    tls: Literal["starttls", "none", "broken"] = "starttls"
    size: int = 50 * (1 << 20)
    greylist: float = 5.0
    slow: float = 10.0


class ReceivingMx:
    """One receiving MX. `capture` is called with each accepted message and returns what it is kept as.

    `connections` and `transactions` count since the beginning, a transaction being a DATA that was sent whole.
    """

    def __init__(
        self, settings: MxSettings, certificate: ServerCertificate, clock: Clock, capture: Callable[[Captured], str]
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.capture = capture
        self.address = settings.address
        self.connections = 0
        self.transactions = 0
        self.judge = Judge(settings.greylist)
        self.closing = asyncio.Event()
        self.sessions: set[_Session] = set()
        self.tls_context: ssl.SSLContext | None = None
        if settings.tls != "none":
            self.tls_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.tls_context.load_cert_chain(certificate.certificate, certificate.key)
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen; OSError if the port is taken. Port 0 is the system's choice, and kept over a restart."""
        # Below this aiosmtpd logs every line of every dialog, and what clients say as they say it.
        logging.getLogger("mail.log").setLevel(logging.ERROR)
        self.closing.clear()
        self._server = await asyncio.get_running_loop().create_server(
            lambda: _Session(self), self.address.host, self.address.port
        )
        self.address = HostPort(host=self.address.host, port=self._server.sockets[0].getsockname()[1])
        log.info("lab=mx hostname=%s address=%s", self.settings.hostname, self.address)

    async def close(self) -> None:
        """Stop listening and hang up on every client, whatever it is about."""
        if self._server is None:
            return
        self._server.close()
        self.closing.set()
        sessions = list(self.sessions)
        for session in sessions:
            session.hang_up()
        await asyncio.gather(*(session.ended() for session in sessions))
        await self._server.wait_closed()
        self._server = None


class _Transaction(aiosmtpd.smtp.Envelope):
    """What aiosmtpd makes anew at EHLO, STARTTLS, RSET and the end of DATA."""

    def __init__(self) -> None:
        super().__init__()
        self.mail: Envelope | None = None
        self.recipients: list[Recipient] = []


class _Session(aiosmtpd.smtp.SMTP):
    """One connection."""

    line_length_limit = _BUFFER  # of the reader; a longer command line is refused below it

    def __init__(self, mx: ReceivingMx) -> None:
        # aiosmtpd keeps one table for all connections, clears it at each and lets it grow at each EHLO
        self.command_size_limits = defaultdict(lambda: _COMMAND_LIMIT)
        super().__init__(
            None,
            data_size_limit=mx.settings.size,
            enable_SMTPUTF8=Extension.SMTPUTF8 in mx.settings.extensions,
            hostname=mx.settings.hostname,
            ident="ESMTP Fairlead laboratory",
            tls_context=mx.tls_context,
            timeout=_IDLE,
            loop=asyncio.get_running_loop(),
        )
        self._mx = mx
        self._corked = bytearray()

    # no properties here: aiosmtpd's constructor reads every member
    def _transaction(self) -> _Transaction:
        assert isinstance(self.envelope, _Transaction)
        return self.envelope

    def _create_envelope(self) -> _Transaction:
        return _Transaction()

    def _offered(self) -> frozenset[Extension]:
        within_tls = self._tls_protocol is not None
        return self._mx.settings.extensions - (frozenset() if within_tls else {Extension.REQUIRETLS})

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet a client, or go on after the handshake of STARTTLS."""
        super().connection_made(transport)
        if self not in self._mx.sessions:
            self._mx.sessions.add(self)
            self._mx.connections += 1
            assert self._handler_coroutine is not None
            self._handler_coroutine.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._mx.sessions.discard(self)
        if self._timeout_handle is not None:
            self._timeout_handle.cancel()  # connection_lost does, but is not called within a handshake
        if not task.cancelled() and (error := task.exception()):
            log.info("lab=mx session broken error=%r", error)

    def hang_up(self) -> None:
        """Break the connection off."""
        if self.transport is not None:
            cast("asyncio.WriteTransport", self.transport).abort()

    async def ended(self) -> None:
        """End the session's task, wherever it waits."""
        if self._handler_coroutine is not None:
            self._handler_coroutine.cancel()
            await asyncio.wait([self._handler_coroutine])

    def _unread(self) -> bytearray:
        # private to asyncio, but aiosmtpd itself empties it at STARTTLS
        return cast("bytearray", self._reader._buffer)  # type: ignore[attr-defined]  # noqa: SLF001 - see above

    async def handle_exception(self, error: Exception) -> str:
        """Answer what nobody expected; aiosmtpd's own answer is permanent and shows the error's text."""
        log.error("lab=mx error=%r", error, exc_info=error)
        return "451 4.3.0 laboratory failed"

    async def push(self, status: str | bytes) -> None:
        """Send a reply, with those that were held back before it."""
        held = bytes(self._corked)
        self._corked.clear()
        await super().push(held + (status.encode() if isinstance(status, str) else status))

    async def _reply(self, status: str) -> None:
        """Send the reply to a command of a pipelined group, with the group's others (RFC 2920 3.2)."""
        if b"\n" in self._unread():
            self._corked += status.encode() + b"\r\n"
        else:
            await self.push(status)

    async def smtp_EHLO(self, hostname: str) -> None:
        """EHLO, in one write."""
        if not hostname:
            await self.push("501 5.5.4 EHLO needs a name")
            return
        assert self.session is not None
        self.envelope = self._create_envelope()
        self.session.extended_smtp = True
        self.session.host_name = hostname
        lines = [self.hostname, f"SIZE {self._mx.settings.size}", *sorted(self._offered())]
        if self.tls_context is not None and self._tls_protocol is None:
            lines.append("STARTTLS")
        await self.push("\r\n".join([*(f"250-{line}" for line in lines[:-1]), f"250 {lines[-1]}"]))

    async def smtp_STARTTLS(self, arg: str) -> None:
        """STARTTLS (RFC 3207), or the pretence of it."""
        if self._tls_protocol is not None:
            await self.push("503 5.5.1 TLS is active")
        elif self._mx.settings.tls == "broken" and not arg:
            await self.push("220 2.0.0 ready to start TLS")
            await self._reader.read(1)  # said before the client's hello it would be an injected reply
            await self.push("This is not TLS.")
            self._writer.close()
        else:
            await super().smtp_STARTTLS(arg)

    async def smtp_MAIL(self, arg: str | None) -> None:
        """MAIL FROM."""
        settings = self._mx.settings
        if await self.check_helo_needed():
            return
        try:
            if self._transaction().mail is not None:
                raise Refused("503 5.5.1 nested MAIL")
            self._transaction().mail = read_mail(arg, self._offered(), settings.size)
        except Refused as refused:
            await self._reply(str(refused))
        else:
            await self._reply("250 2.1.0 sender taken")

    async def smtp_RCPT(self, arg: str | None) -> None:
        """RCPT TO, answered as the local part wants it."""
        mx, mail = self._mx, self._transaction().mail
        try:
            if mail is None:
                raise Refused("503 5.5.1 RCPT needs MAIL")
            recipient = read_rcpt(arg, mx.settings.extensions, smtputf8=mail.smtputf8)
            mx.judge.hear(mail.sender, recipient.address, mx.clock.monotonic())
        except Refused as refused:
            await self._reply(str(refused))
        else:
            self._transaction().recipients.append(recipient)
            await self._reply("250 2.1.5 recipient taken")

    async def smtp_DATA(self, arg: str | None) -> None:
        """DATA, in time linear in its size, and the end that its recipients want."""
        transaction = self._transaction()
        if not transaction.recipients or arg:
            await self.push("501 5.5.4 DATA has no argument" if arg else "503 5.5.1 DATA needs a recipient")
            return
        if self._unread():
            # RFC 2920 3.1: DATA ends a group; what is already here was sent without waiting for 354
            await self.push("503 5.5.0 content before 354")
            self._writer.close()
            return
        self._reader.feed_data(b"\r\n")  # so that a lone dot at once is CRLF.CRLF, too
        await self.push("354 go ahead, end with <CR><LF>.<CR><LF>")
        content = await self._content()
        self.envelope = self._create_envelope()
        self._mx.transactions += 1
        if content is None:
            await self.push("552 5.3.4 message too big")
        else:
            await self._finish(transaction, content)

    async def _content(self) -> bytes | None:
        """Read to the end of data; None if it was longer than SIZE allows. EOF cancels the session."""
        pieces: list[bytes] = []
        size = 0
        ended = False
        while not ended:
            try:
                piece = await self._reader.readuntil(b"\r\n.\r\n")
                ended = True
            except asyncio.LimitOverrunError as error:
                piece = await self._reader.readexactly(error.consumed)
            size += len(piece)
            if size <= self._mx.settings.size + len(b"\r\n.\r\n"):
                pieces.append(piece)
            else:
                pieces.clear()
        if not pieces:
            return None
        # RFC 5321 4.5.2: the first dot of a line is not content
        return b"".join(pieces)[: -len(b".\r\n")].replace(b"\r\n.", b"\r\n").removeprefix(b"\r\n")

    async def _finish(self, transaction: _Transaction, content: bytes) -> None:
        mx = self._mx
        kinds = {behaviour_of(recipient.address).kind for recipient in transaction.recipients}
        if Kind.DROP in kinds:
            self.hang_up()
            return
        if Kind.SLOW in kinds:
            await mx.clock.wait(mx.closing, mx.settings.slow)
        reply = "250 2.0.0 captured as "
        if Kind.TARPIT in kinds:
            while reply and not mx.closing.is_set():
                self._writer.write(reply[0].encode())
                reply = reply[1:]
                await mx.clock.wait(mx.closing, 1)
        if not mx.closing.is_set():
            await self.push(reply + self._capture(transaction, content))

    def _capture(self, transaction: _Transaction, content: bytes) -> str:
        assert self.session is not None
        assert self.session.peer is not None
        assert transaction.mail is not None
        envelope = msgspec.structs.replace(transaction.mail, recipients=tuple(transaction.recipients))
        for recipient in envelope.recipients:
            self._mx.judge.accepted(envelope.sender, recipient.address)
        peer = HostPort(host=self.session.peer[0], port=int(self.session.peer[1]))
        captured = Captured(
            envelope=envelope,
            content=content,
            tls=self._tls(),
            peer=str(peer),
            at=self._mx.clock.now(),
            ehlo=str(self.session.host_name),
        )
        name = self._mx.capture(captured)
        log.info("lab=mx captured=%s client=%s recipients=%d", name, peer, len(envelope.recipients))
        return name

    def _tls(self) -> str:
        if self._tls_protocol is None or self.transport is None:
            return ""
        connection: ssl.SSLObject = self.transport.get_extra_info("ssl_object")
        cipher = connection.cipher()
        return f"{connection.version()} {cipher[0] if cipher else ''}"
