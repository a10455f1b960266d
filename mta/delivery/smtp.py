"""SMTP sessions with next hops: set up by aiosmtplib, transactions by ourselves (RFC 5321, RFC 2920).

MAIL, all RCPT and DATA go out in one write when PIPELINING is offered, content and final dot in another.
A connection whose `alive` is true is in step with its peer and may be used again.
"""

import asyncio
import contextlib
import ipaddress
import logging
import os
import socket
import ssl
from collections.abc import Iterator

import aiosmtplib

from mta.config import Delivery
from mta.delivery import tls
from mta.delivery.letter import Extensions, Letter, extensions
from mta.delivery.policy import Level
from mta.delivery.route import Login, Site, Target
from mta.delivery.source import Leaving
from mta.delivery.tls import Hello
from mta.delivery.trouble import START_INPUT, Exchange, Fault, Stage, Trouble
from mta.delivery.wire import Wire
from mta.mail.reply import Reply

log = logging.getLogger(__name__)

_GREETING = 220
# ip(7): the port is chosen when the peer is known, so that one may serve many peers. Python names it from 3.12 on.
_IP_BIND_ADDRESS_NO_PORT = 24


class Connection:
    """A session that is ready for transactions."""

    def __init__(
        self, target: Target, wire: Wire, offered: Extensions, settings: Delivery, source_name: str = ""
    ) -> None:
        self.target = target
        self.offered = offered
        self.wire = wire
        self.transactions = 0
        self.level = Level.CLEAR  # which messages that ask for one may count on
        self.judged_at = 0.0  # monotonic
        self.tls = ""
        self.policy = ""  # who demanded what, when it was made
        self.single = False  # for one message alone
        self.source = ""
        self.source_name = source_name
        self._settings = settings
        self._envelope_open = False
        if wire.transport is not None:
            self.source = str(wire.transport.get_extra_info("sockname", ("",))[0])

    @property
    def alive(self) -> bool:
        """Whether another transaction may begin."""
        return self.wire.fault is None

    async def transact(self, letter: Letter, now: float) -> Exchange:
        """Send a message, at most once. Never raises for what a peer does."""
        said = Exchange(dsn=self.offered.dsn, deliver_by=self.offered.deliver_by is not None)
        self.transactions += 1
        commands = letter.commands(self.offered, now)
        try:
            if self.offered.pipelining:
                await self._pipelined(commands, said)
            else:
                await self._in_lock_step(commands, said)
            self._envelope_open = True
            if self.alive and said.data is not None and said.data.code == START_INPUT:
                await self._content(letter.octets, said)
        except asyncio.CancelledError:
            self.wire.abort()  # somewhere in a transaction: of no use to anyone else
            raise
        if not self.alive:
            said.trouble = self._trouble(said.open_stage(len(letter.recipients), past_dot=self.wire.past_dot))
        elif not said.in_step:
            self.wire.abort(Fault.GARBLED)
        self.wire.past_dot = False
        return said

    def _trouble(self, stage: Stage | None) -> Trouble | None:
        if stage is None:
            return None
        fault = self.wire.fault or Fault.LOST
        return Trouble(stage, fault, f"{self.target}: {self.wire.fault_text or fault} ({stage})")

    async def _pipelined(self, commands: list[bytes], said: Exchange) -> None:
        reset = self._reset()
        await self.wire.ask(b"".join([*reset, *commands]), len(reset) + len(commands), self._settings.command_timeout)
        replies = self.wire.replies[len(reset) :]
        # RFC 2920 3.1: replies come in the order of the commands
        said.mail = replies[0] if replies else None
        said.rcpts = replies[1 : len(commands) - 1]
        said.data = replies[-1] if len(replies) == len(commands) else None

    async def _in_lock_step(self, commands: list[bytes], said: Exchange) -> None:
        for reset in self._reset():
            await self._one(reset)
        said.mail = await self._one(commands[0])
        if said.mail is None or not said.mail.positive:
            return
        for command in commands[1:-1]:
            reply = await self._one(command)
            if reply is None:
                return
            said.rcpts.append(reply)
        if any(reply.positive for reply in said.rcpts):
            said.data = await self._one(commands[-1])

    async def _one(self, command: bytes) -> Reply | None:
        if not self.alive:
            return None
        await self.wire.ask(command, 1, self._settings.command_timeout)
        return self.wire.replies[0] if self.wire.replies else None

    def _reset(self) -> list[bytes]:
        """Whatever a transaction left open that ended before its dot is closed together with the next one."""
        return [b"RSET\r\n"] if self._envelope_open else []

    async def _content(self, octets: bytes, said: Exchange) -> None:
        wire = self.wire
        if said.mail is None or not said.mail.positive:
            wire.abort(Fault.GARBLED, "DATA accepted without MAIL")
        elif not any(reply.positive for reply in said.rcpts):
            # RFC 2920 3.1: the server waits for content, nobody is to get it
            await wire.ask(b".\r\n", 1, self._settings.final_timeout)
        else:
            await wire.pour(octets, self._settings.block_timeout, self._settings.final_timeout)
            if not wire.replies:
                return
            if wire.past_dot or not wire.replies[0].positive:
                said.final = wire.replies[0]
            if wire.past_dot:
                self._envelope_open = not wire.replies[0].positive
            else:
                wire.abort(Fault.GARBLED, "reply before the final dot")


async def connect(target: Target, site: Site, leaving: Leaving, settings: Delivery, guard: tls.Guard) -> Connection:
    """Set up a session with one address of a site; Trouble if that fails, NO_ADDRESS if nobody could be dialled.

    A handshake that fails is given up for a new connection with a smaller one, and where the guard's demand lets it for
    one in the clear. Nothing but EHLO is said over a session that the guard has not admitted.
    """
    hellos = list(tls.ladder(site.tls, guard.demand))
    while True:
        hello = hellos.pop(0)
        try:
            return await _Setup(target, leaving, settings, guard).run(hello, site)
        except Trouble as trouble:
            if trouble.stage is not Stage.TLS or trouble.fault not in (None, Fault.TLS):
                raise
            if trouble.reply is not None:  # STARTTLS itself was refused, whatever the hello
                hellos = [each for each in hellos if each is Hello.CLEAR]
            if not hellos:
                raise
            log.info("relay=%s tls=failed hello=%s reason=%r", target, hello.name.lower(), str(trouble))
            guard.stumbled(trouble)


class _Setup:
    """The way from an address to a session. aiosmtplib works on our wire through its public names alone."""

    def __init__(self, target: Target, leaving: Leaving, settings: Delivery, guard: tls.Guard) -> None:
        self._target = target
        self._leaving = leaving
        self._settings = settings
        self._guard = guard
        self._level = Level.CLEAR
        self._wire = Wire(asyncio.get_running_loop())
        self._client = aiosmtplib.SMTP(
            hostname=target.host,
            local_hostname=leaving.source.hostname,
            timeout=settings.command_timeout,
            start_tls=False,
        )

    async def run(self, hello: Hello, site: Site) -> Connection:
        implicit = site.tls == "implicit"
        try:
            await self._connect(self._guard.context(hello) if implicit else None)
            if implicit:
                self._admit()
            await self._greeting()
            await self._hello()
            if not implicit:
                await self._protect(hello)
            if site.login is not None:
                await self._log_in(site.login)
        except BaseException:  # whoever gives up, CancelledError too, leaves no connection behind
            self._wire.abort()
            raise
        return self._connection()

    def _connection(self) -> Connection:
        offered = extensions(self._client.esmtp_extensions)
        made = Connection(self._target, self._wire, offered, self._settings, self._leaving.source.name)
        session, demand = self._session(), self._guard.demand
        made.policy = demand.by
        made.tls = tls.note(session, demand, self._level) if session is not None else ""
        return made

    def _session(self) -> ssl.SSLObject | None:
        transport = self._wire.transport
        found: ssl.SSLObject | None = transport.get_extra_info("ssl_object") if transport is not None else None
        return found

    def _admit(self) -> None:
        """Have what the peer showed judged."""
        try:
            self._level = self._guard.admit(self._session())
        except Trouble as refused:
            raise Trouble(refused.stage, refused.fault, f"{self._target}: {refused.text}") from None

    async def _protect(self, hello: Hello) -> None:
        """Have the session encrypted if the peer offers it, and judged in any case."""
        encrypts = hello is not Hello.CLEAR and "starttls" in self._client.esmtp_extensions
        if encrypts:
            await self._start_tls(self._guard.context(hello))
        self._admit()
        if encrypts:
            # RFC 3207 4.2: what was offered in the clear means nothing any more, aiosmtplib has forgotten it
            await self._hello()

    async def _connect(self, context: ssl.SSLContext | None) -> None:
        address = ipaddress.ip_address(self._target.address)
        sock = socket.socket(socket.AF_INET6 if address.version == 6 else socket.AF_INET, socket.SOCK_STREAM)
        loop = asyncio.get_running_loop()
        try:
            sock.setblocking(False)  # noqa: FBT003 - the standard library's signature
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._leaving.address:
                with self._step(Stage.CONNECT, Fault.NO_ADDRESS):
                    sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
                    sock.bind((self._leaving.address, 0))
            with self._step(Stage.CONNECT, Fault.UNREACHABLE):
                async with asyncio.timeout(self._settings.connect_timeout):
                    await loop.sock_connect(sock, (self._target.address, self._target.port))
            with self._step(Stage.TLS, Fault.TLS) if context else self._step(Stage.CONNECT, Fault.UNREACHABLE):
                self._client.transport, _ = await loop.create_connection(
                    lambda: self._wire,
                    sock=sock,
                    ssl=context,
                    server_hostname=self._guard.demand.names[0] if context else None,
                    ssl_handshake_timeout=self._settings.command_timeout if context else None,
                )
        except BaseException:
            sock.close()
            raise
        self._client.protocol = self._wire

    async def _greeting(self) -> None:
        await self._wire.greeting(self._settings.greeting_timeout)
        for reply in self._wire.replies:
            if reply.code != _GREETING:
                raise Trouble(Stage.GREETING, reply=reply)
        if self._wire.fault is not None:
            raise self._trouble(Stage.GREETING, self._wire.fault, "")

    async def _hello(self) -> None:
        old = False
        with self._step(Stage.HELLO, Fault.LOST):
            try:
                await self._client.ehlo()
            except aiosmtplib.SMTPHeloError as refused:
                if not 500 <= refused.code < 600:
                    raise
                old = True
            if old:
                await self._client.helo()  # RFC 5321 3.2: a server from before extensions

    async def _start_tls(self, context: ssl.SSLContext) -> None:
        name = self._guard.demand.names[0]  # RFC 8461 4.1 and RFC 7672 8.1: the name that the certificate has to be for
        with self._step(Stage.TLS, Fault.TLS):
            await self._client.starttls(tls_context=context, server_hostname=name)

    async def _log_in(self, login: Login) -> None:
        try:
            password = login.password_file.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            log.error("relay=%s password_file=%r error=%r", self._target, str(login.password_file), str(error))
            raise Trouble(Stage.AUTH, Fault.OURS, "password of the route cannot be read") from None
        offered = self._client.server_auth_methods
        with self._step(Stage.AUTH, Fault.LOST):
            # not client.login(): it tries one mechanism after the other, and each failure counts with the peer
            if "plain" in offered:
                await self._client.auth_plain(login.username, password)
            elif "login" in offered:
                await self._client.auth_login(login.username, password)
            else:
                raise Trouble(Stage.AUTH, Fault.NO_AUTH, f"{self._target}: neither AUTH PLAIN nor LOGIN is offered")

    @contextlib.contextmanager
    def _step(self, stage: Stage, fault: Fault) -> Iterator[None]:
        """Turn what aiosmtplib, ssl and sockets raise into Trouble; `fault` where the wire knows of none."""
        try:
            yield
        except aiosmtplib.SMTPResponseException:
            raise Trouble(stage, reply=self._wire.replies[0]) from None
        except (aiosmtplib.SMTPException, OSError, ValueError) as error:  # ValueError: a name that TLS cannot have
            raise self._trouble(stage, fault, _words(error)) from error

    def _trouble(self, stage: Stage, fault: Fault, words: str) -> Trouble:
        known = self._wire.fault or fault
        if stage is Stage.TLS and known is not Fault.GARBLED:
            known = Fault.TLS
        said = ": ".join(part for part in (str(self._target), known, self._wire.fault_text or words) if part)
        return Trouble(stage, known, said)


def _words(error: Exception) -> str:
    """Say in few words what happened."""
    if isinstance(error, ssl.SSLError):
        return str(getattr(error, "verify_message", "") or error.reason or error)
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)  # the event loop's own text has no reason
    return str(error)
