"""One SMTP connection on asyncio (uvloop or not): the thin shell around a Session.

It moves bytes, answers the session's questions and keeps time. There is a task only while a question is
being answered, and none is ever cancelled because the client went away: a commit that has begun ends as it
ends, and a client that sees no reply sends the message again.
"""

import asyncio
import logging
from typing import Protocol, cast

from mta.certificate import names_of
from mta.config import Listener, UnixPath
from mta.ingress import replies
from mta.ingress.access import HIDDEN_CLIENT, UNIX_CLIENT, Client, Identity, client_at
from mta.ingress.arrival import Arrival, Intake, Provenance, Whole, accept_each
from mta.ingress.questions import Abandon, Accept, Authenticate, Question, StartTls, Store
from mta.ingress.session import Session
from mta.mail.ids import new_message_id
from mta.mail.reply import Reply
from mta.spool.interface import SpoolError
from mta.spool.records import Origin

log = logging.getLogger(__name__)

LINGER = 3.0  # seconds for a client to read the last reply and hang up
HANDSHAKE = 30.0  # seconds at most for a TLS handshake
_MUCH = 1 << 14  # octets that are worked on as they come
_LOGIN_DELAY = 1.0  # seconds that the first wrong login costs, doubled with each more


class House(Protocol):
    """Where connections live, as server.py has it."""

    intake: Intake

    def enter(self, connection: "Connection") -> Reply | None:
        """Take in a connection; the reply to turn it away with if it may not be, or there is no room."""

    def leave(self, connection: "Connection") -> None:
        """Forget a connection that has gone and has nothing left to do."""

    def accept_soon(self, connection: "Connection", message: Whole) -> None:
        """Have a message accepted, with the others of this turn of the loop, and `connection.accepted` called."""

    def answered(self) -> None:
        """Hear that a question has been answered, perhaps the end of a message."""

    def work_soon(self, connection: "Connection") -> None:
        """Have `connection.work` called when the next turn of the loop is over."""

    def send_soon(self, connection: "Connection") -> None:
        """Have `connection.send` called when this turn of the loop is over."""


class Connection(asyncio.Protocol):
    """The shell. `client` is the peer, or who a proxy says it is."""

    client: Client

    def __init__(self, house: House, listener: Listener, client: Client | None = None) -> None:
        self.id = new_message_id()
        self._house = house
        self._intake = house.intake
        self.listener = listener
        self._announced = client
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None  # None once lost
        self._session: Session | None = None  # None for a client that was turned away
        self._arrival: Arrival | None = None
        self._answering = False  # a question, by this task if the house does not
        self._task: asyncio.Task[None] | None = None
        self._lost = asyncio.Event()
        self._reading = True
        self._choked = False  # the client does not read its replies
        self._leaving = False  # the process wants to end
        self._closing_at: float | None = None
        self._started = self._alive = self._loop.time()
        self._progress = 0
        self._arrived = b""
        self._unsent = b""
        self._origin = Origin(listener.kind)

    @property
    def busy(self) -> bool:
        """Whether a message is on its way in."""
        return self._session is not None and self._session.busy

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet the client, or turn it away."""
        transport = cast("asyncio.Transport", transport)  # uvloop's are ones without saying so
        self._transport = transport
        if self._announced is not None:
            self.client = self._announced
        elif isinstance(self.listener.address, UnixPath):
            self.client = UNIX_CLIENT
        else:
            peer = transport.get_extra_info("peername")
            self.client = client_at(peer[0]) if peer else HIDDEN_CLIENT  # gone already
        refusal = self._house.enter(self)
        if refusal is not None:
            transport.write(refusal.wire())
            transport.close()
            return
        intake = self._intake
        session = Session(
            self.listener,
            intake.limits,
            intake.hostname,
            self.client,
            intake.budget,
            intake.queue.refusal,
            now=intake.clock.now,
        )
        self._session = session
        if self.listener.tls == "implicit":
            self._tls_started(session, transport)
        session.greet()
        self._advance(session)

    def data_received(self, data: bytes) -> None:
        """Keep what has arrived until everybody's has been read, unless it is much."""
        waits = bool(self._arrived)
        self._arrived += data
        if len(self._arrived) >= _MUCH:
            self.work()
        elif not waits:
            self._house.work_soon(self)

    def work(self) -> None:
        """Give what has arrived to the session."""
        data, self._arrived = self._arrived, b""
        session = self._session
        if not data or session is None or session.closed:
            return
        try:
            session.receive(data)
        except Exception as error:  # noqa: BLE001 - one SMTP session: whatever it was, others must not suffer from it
            self._break_off(session, error)
        self._advance(session)

    def eof_received(self) -> bool:
        """Let the client hang up its half: what it has asked for is still answered."""
        self.work()
        session = self._session
        if session is None or session.closed:
            return False
        session.eof()
        self._advance(session)
        return not session.dialog.tls  # TLS has no half-closed connections

    def pause_writing(self) -> None:
        """Read no more commands from a client that does not read the replies."""
        self._choked = True
        self._set_reading()

    def resume_writing(self) -> None:
        """Go on reading."""
        self._choked = False
        self._set_reading()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Tidy up, after the question that is being answered."""
        self._arrived = b""  # nobody would hear the replies
        self._gone()

    # What the house calls

    def sweep(self, now: float) -> None:
        """Look for time-outs at loop time `now`."""
        session = self._session
        if session is None or self._transport is None:
            return
        if self._closing_at is not None:
            if now - self._closing_at > LINGER:
                self._transport.abort()
            return
        if session.question is not None or session.progress != self._progress:  # it is our turn, or it was theirs
            self._progress = session.progress
            self._alive = now
        limits, age = self._intake.limits, now - self._started
        if session.question is None and age > limits.session + limits.idle:
            self._hang_up(session, replies.SESSION_TOO_LONG)
        elif now - self._alive > limits.idle:
            self._hang_up(session, replies.TIMED_OUT)
        elif age > limits.session:
            session.retire(replies.SESSION_TOO_LONG)

    def drain(self) -> None:
        """Close at the next command; a message on its way may finish."""
        if self._session is not None:
            self._session.retire(replies.DRAINING)

    def close(self) -> None:
        """Close now, but for a message that is being committed: that one is answered first."""
        self._leaving = True
        if self._closing_at is not None:
            self.abort()
        elif self._session is not None:
            self._advance(self._session)

    def abort(self) -> None:
        """Close without a word."""
        if self._transport is not None:
            self._transport.abort()

    def give_up(self, error: Exception) -> None:
        """Close without a word after an error that left nothing to say it with."""
        log.error("session=%s client=%s internal error", self.id, self.client.name, exc_info=error)
        self.abort()

    # Inside

    def _advance(self, session: Session) -> None:
        """Do what the session's state asks for, after each change of it."""
        if self._leaving and not isinstance(session.question, Accept):
            session.hang_up(replies.DRAINING)
        for each in session.take_refusals():
            log.info("session=%s client=%s refused: %s about=%s", self.id, self.client.name, each.reply, each.about)
        transport, question = self._transport, session.question
        if transport is None:
            return
        output = session.take_output()
        if output and not self._unsent:
            self._house.send_soon(self)
        self._unsent += output
        if session.closed or isinstance(question, StartTls):
            self.send()
        if session.behind:
            self._loop.call_soon(self._resume, session)
        elif self._answering:
            pass  # whoever does comes here when it is done
        elif session.closed:
            self._say_goodbye(session, transport)
        elif question is not None:
            self._ask(session, question)
        elif self._reading and not self._choked:
            return  # and go on reading, as after most commands
        self._set_reading()

    def send(self) -> None:
        """Send what has been said."""
        unsent, self._unsent = self._unsent, b""
        if unsent and self._transport is not None:
            self._transport.write(unsent)

    def _resume(self, session: Session) -> None:
        if session.behind:
            session.resume()
            self._advance(session)

    def _set_reading(self) -> None:
        transport, session = self._transport, self._session
        if transport is None or session is None:
            return
        wanted = session.closed or (session.hungry and not self._choked)
        if wanted is not self._reading and not transport.is_closing():
            self._reading = wanted
            if wanted:
                transport.resume_reading()
            else:
                transport.pause_reading()

    def _say_goodbye(self, session: Session, transport: asyncio.Transport) -> None:
        """Close. If the client may be sending, read on for a while: a reset would take our reply from it."""
        if self._closing_at is not None:
            return
        self._closing_at = self._loop.time()
        if self._leaving or not session.abrupt:
            transport.close()
        elif not session.dialog.tls:
            transport.write_eof()

    def _hang_up(self, session: Session, reply: Reply) -> None:
        session.hang_up(reply)
        self._advance(session)

    def _gone(self) -> None:
        self._transport = None
        self._lost.set()
        session = self._session
        if session is None or self._answering:
            return
        if self._arrival is not None:
            self._ask(session, Abandon())
            return
        session.release()
        self._session = None
        self._house.leave(self)

    # Questions

    def _ask(self, session: Session, question: Question) -> None:
        if isinstance(question, Accept) and self._arrival is None:
            self._house.accept_soon(self, Whole(self._arriving(session), question))
        else:
            self._task = self._loop.create_task(self._answer(session, question))
        self._answering = True

    async def _answer(self, session: Session, question: Question) -> None:
        try:
            await self._find_answer(session, question)
        except Exception as error:  # noqa: BLE001 - one SMTP session, as in data_received
            self._break_off(session, error)
        self._answered(session)

    def accepted(self, answer: Reply | None) -> None:
        """Hear what became of the message that the house was to have accepted; None if that cannot be told."""
        session = self._session
        assert session is not None  # it stays until it has its answer
        try:
            self._end_message(session, answer)
        except Exception as error:  # noqa: BLE001 - one SMTP session, as in data_received
            self._break_off(session, error)
        self._answered(session)

    def _end_message(self, session: Session, answer: Reply | None) -> None:
        if answer is None:
            session.hang_up(replies.INTERNAL)
        else:
            session.answer(answer)

    def _answered(self, session: Session) -> None:
        self._answering = False
        self._task = None
        self._house.answered()
        if self._transport is None:
            self._gone()
        else:
            self._advance(session)

    def _break_off(self, session: Session, error: Exception) -> None:
        log.error("session=%s client=%s internal error", self.id, self.client.name, exc_info=error)
        session.hang_up(replies.INTERNAL)

    async def _find_answer(self, session: Session, question: Question) -> None:
        match question:
            case Accept():
                arrival, self._arrival = self._arrival, None
                assert arrival is not None  # one that came whole is the house's
                (answer,) = await accept_each(self._intake.queue, [Whole(arrival, question)])
                self._end_message(session, answer)
            case Store(envelope, content):
                self._arrival = self._arrival or self._arriving(session)
                refusal = await self._arrival.store(envelope, content)
                if refusal is not None:
                    self._arrival = None
                session.answer(refusal)
            case Authenticate():
                session.answer_login(await self._log_in(question))
            case StartTls():
                await self._start_tls(session)
            case Abandon():
                abandoned, self._arrival = self._arrival, None
                if abandoned is not None:
                    await abandoned.abandon()
                session.answer()

    def _arriving(self, session: Session) -> Arrival:
        dialog = session.dialog
        tenant = dialog.identity.tenant if dialog.identity else self.listener.tenant
        assert tenant is not None
        provenance = Provenance(self.id, self._origin, tenant, self.client.name, dialog.trace, login=dialog.identity)
        return Arrival(self._intake, provenance)

    async def _log_in(self, question: Authenticate) -> Identity | Reply | None:
        """Ask who that is. A wrong credential is answered at a fixed time, whatever was wrong with it."""
        clock = self._intake.clock
        answer_at = clock.monotonic() + _LOGIN_DELAY * 2**question.failures
        try:
            identity = await self._intake.access.authenticate(question.login.user, question.login.password, self.client)
        except SpoolError as error:
            log.warning("session=%s accounts cannot be read: %s: %a", self.id, type(error).__name__, str(error))
            return replies.AUTH_UNAVAILABLE
        if identity is None:
            await clock.wait(self._lost, answer_at - clock.monotonic())
        else:
            log.info("session=%s client=%s user=%a logged in", self.id, self.client.name, identity.user)
        return identity

    async def _start_tls(self, session: Session) -> None:
        """Do the handshake, then begin anew on the transport that it gives."""
        plain, context = self._transport, self._intake.tls.context(self.listener.client_ca)
        self.work()
        if plain is None or session.closed:  # lost, or something was sent in the clear
            return
        early = _Early()
        limit = min(HANDSHAKE, self._intake.limits.idle)
        transport: asyncio.Transport | None = None
        try:
            transport = await self._loop.start_tls(plain, early, context, server_side=True, ssl_handshake_timeout=limit)
        except OSError as error:  # ssl.SSLError and time-outs are OSErrors too
            log.info("session=%s client=%s TLS handshake failed: %a", self.id, self.client.name, str(error))
        if transport is None or early.lost:
            plain.abort()
            self._transport = None  # nobody else would tell us
            return
        transport.set_protocol(self)
        self._transport = transport
        self._reading = True
        self._tls_started(session, transport)
        if early.data:
            session.receive(early.data)

    def _tls_started(self, session: Session, transport: asyncio.Transport) -> None:
        tls = transport.get_extra_info("ssl_object")
        names = names_of(tls.getpeercert())
        if names:
            log.info("session=%s client=%s certificate=%a", self.id, self.client.name, names[0])
        session.tls_started(f"{tls.version()} {tls.cipher()[0]}", names)


class _Early(asyncio.Protocol):
    """Takes what comes over TLS before the coroutine that awaits the handshake hears of its end.

    The connection itself would take that for something that was sent in the clear.
    """

    def __init__(self) -> None:
        self.data = b""
        self.lost = False

    def data_received(self, data: bytes) -> None:
        """Keep it."""
        self.data += data

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Note it."""
        self.lost = True
