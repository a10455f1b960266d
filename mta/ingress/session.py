"""An SMTP server as a state machine without I/O (RFC 5321): bytes in; replies, and questions to the shell, out.

The shell gives what arrives to `receive`, sends what `take_output` returns (the replies to a pipelined group
leave together, RFC 2920 3.2) and answers `question` when there is one; until then nothing more is read. So
every dialog, cut anywhere, runs without a socket. Whether a client may use the listener at all is decided
before it has a session (access.admits).
"""

import re
from collections.abc import Callable
from functools import lru_cache

from mta.config import Limits, Listener
from mta.ingress import auth, replies
from mta.ingress.access import Client, Identity
from mta.ingress.body import Body, Budget
from mta.ingress.parameters import MailFrom, parse_mail, parse_rcpt
from mta.ingress.questions import Abandon, Accept, Authenticate, Question, Refusal, StartTls, Store
from mta.ingress.trace import Trace
from mta.mail.envelope import Envelope, Recipient
from mta.mail.reply import Reply

STORE_AT = 256 * 1024  # octets; content beyond is committed as it arrives
_LINE_LIMIT = 512  # octets with CRLF, RFC 5321 4.5.3.1.4
_LINE_LIMITS = {"MAIL": 2048, "RCPT": 2048, "AUTH": auth.LINE_LIMIT}  # with what the extensions add, rounded up
_CONTENT_LINE = {"pass": 65536, "refuse": 998}  # octets without CRLF, RFC 5321 4.5.3.1.6
_COMMANDS_A_TURN = 128  # then other sessions have theirs
_AHEAD_LIMIT = 1 << 20  # octets that may come while a question is open, although reading is paused
_PROGRESS = 4096  # octets of content that count as a sign of life
_LOGIN_ATTEMPTS = 3
_HTTP = frozenset({"GET", "POST", "PUT", "HEAD", "OPTIONS", "CONNECT"})  # a browser that was made to talk to us
_UNFIT_FOR_TRACE = re.compile(r"[^A-Za-z0-9.:_\[\]\-]")
_wire = lru_cache(maxsize=256)(Reply.wire)


class Session:
    """One connection's dialog."""

    def __init__(self, listener: Listener, limits: Limits, hostname: str, client: Client, budget: Budget) -> None:
        self.question: Question | None = None
        self.closed = False  # after take_output nothing more will be said
        self.abrupt = False  # closed while the client may still be sending
        self.behind = False  # input waits for `resume`
        self.progress = 0  # grows with each command, and with content
        self.tls = ""
        self.identity: Identity | None = None
        self._listener = listener
        self._limits = limits
        self._hostname = hostname
        self._client = client
        self._budget = budget
        self._charged = 0  # octets in the budget
        self._output: list[bytes] = []
        self._refusals: list[Refusal] = []
        self._refused: set[Reply] = set()
        self._buffer = b""
        self._at = 0  # where in the buffer the next line begins
        self._skipping = False  # within a line that is too long
        self._eof = False
        self._retiring: Reply | None = None
        self._commands = self._errors = self._failures = self._octets = 0
        self._forget_client()

    def _forget_client(self) -> None:
        """Know nothing of the client, as at the start and after STARTTLS (RFC 3207 4.2)."""
        self._helo = ""
        self._extended = False
        self._exchange: auth.Exchange | None = None
        self.identity = None
        self._reset()

    def _reset(self) -> None:
        self._mail: MailFrom | None = None
        self._recipients: dict[str, Recipient] = {}
        self._body: Body | None = None
        self._storing = False

    @property
    def busy(self) -> bool:
        """Whether a message is on its way in."""
        return self._body is not None

    @property
    def trace(self) -> Trace:
        """How the message of this transaction comes."""
        utf8 = self._mail is not None and self._mail.smtputf8
        protocol = ("UTF8SMTP" if utf8 else "ESMTP") if self._extended else "SMTP"
        if self._extended:
            protocol += "S" * bool(self.tls) + "A" * (self.identity is not None)
        return Trace(self._helo, self._client.literal, protocol, self.tls)

    # What the shell calls

    def greet(self) -> None:
        """Say that the service is ready (RFC 5321 3.1)."""
        self._say(Reply(220, "", f"{self._hostname} ESMTP Fairlead"))

    def receive(self, data: bytes) -> None:
        """Take in what has arrived."""
        if self.closed:
            return
        self._buffer = self._buffer + data if self._buffer else data
        if isinstance(self.question, StartTls):
            self._end(replies.AFTER_STARTTLS)
        elif self.question is None:
            self._go_on()
        elif len(self._buffer) > _AHEAD_LIMIT:
            self._end(replies.TOO_MUCH_INPUT)
        self._account()

    def resume(self) -> None:
        """Go on with input that was left waiting."""
        self.behind = False
        self._go_on()

    def eof(self) -> None:
        """Note that the client will send nothing more; what it has asked for is still answered."""
        self._eof = True
        self._go_on()

    def answer_login(self, answer: Identity | Reply | None) -> None:
        """Answer Authenticate: who it is, None for nobody, or why that cannot be told."""
        question, self.question = self.question, None
        assert isinstance(question, Authenticate)
        if isinstance(answer, Identity):
            self.identity = answer
            self._say(replies.AUTHENTICATED)
        else:
            self._failures += answer is None
            self._refused.discard(replies.AUTH_FAILED)  # each failure is a line in the log
            self._say(answer or replies.AUTH_FAILED, ascii(question.login.user[:100]))
            if self._failures == _LOGIN_ATTEMPTS:
                self._end(replies.TOO_MANY_LOGINS)
        self._go_on()

    def tls_started(self, description: str) -> None:
        """Answer StartTls, or say that the connection began with TLS: `description` is version and cipher."""
        self.question = None
        self._forget_client()
        self.tls = description
        self._go_on()

    def answer(self, reply: Reply | None = None) -> None:
        """Answer Store, Accept or Abandon."""
        question, self.question = self.question, None
        body = self._body
        if self.closed or body is None:
            return
        if isinstance(question, Accept) and reply is not None:
            self._finish(reply)
        elif reply is not None:
            body.refuse(reply)
        self._storing = isinstance(question, Store) and reply is None
        if body.ended and body.refusal is not None:
            self._finish(body.refusal)
        self._go_on()

    def retire(self, reply: Reply) -> None:
        """Close with `reply` (421) at the next command; a message on its way may finish."""
        self._retiring = reply

    def hang_up(self, reply: Reply) -> None:
        """Say `reply` and close."""
        self._end(reply)
        self._account()

    def release(self) -> None:
        """Give back what is held: the connection is gone."""
        self.closed = True
        self.question = None
        self._body = None
        self._account()

    def take_output(self) -> bytes:
        """Return what is to be sent."""
        output = b"".join(self._output)
        self._output.clear()
        return output

    def take_refusals(self) -> list[Refusal]:
        """Return what is to be logged."""
        refusals, self._refusals = self._refusals, []
        return refusals

    # Input

    def _go_on(self) -> None:
        """Work through the input until it ends, a question comes up or it is the turn of others."""
        turns = _COMMANDS_A_TURN
        while self._at < len(self._buffer) and self.question is None and not (self.closed or self.behind):
            if self._body is not None:
                self._receive_content(self._body)
            elif turns == 0:
                self.behind = True
            elif not self._receive_line():
                break
            turns -= 1
        self._buffer = self._buffer[self._at :]
        self._at = 0
        if self._eof and self.question is None and not self.behind:
            self.closed = True
        self._account()

    def _receive_line(self) -> bool:
        """Take a line off the buffer; False if none is complete. Only CRLF ends a line (RFC 5321 2.3.8)."""
        end = self._buffer.find(b"\r\n", self._at)
        line = self._buffer[self._at : end] if end >= 0 else self._buffer[self._at :]
        bare = b"\n" in line or b"\0" in line or b"\r" in (line if end >= 0 else line[:-1])
        if bare:
            self._end(replies.BARE_IN_COMMAND)
        elif end < 0:
            if self._skipping or len(line) > auth.LINE_LIMIT:
                self._skipping = True
                self._at = len(self._buffer) - line.endswith(b"\r")
            return False
        else:
            self._at = end + 2
            self.progress += 1
            self._commands += 1
            if self._skipping:
                self._skipping = False
                self._say(replies.LINE_TOO_LONG)
            elif self._commands > self._limits.commands:
                self._end(replies.TOO_MANY_COMMANDS)
            else:
                self._receive_command(line)
        return True

    def _receive_command(self, line: bytes) -> None:
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError:
            return self._say(replies.NOT_UTF8)
        if self._exchange is not None:
            return self._receive_response(self._exchange, text)
        verb, _, argument = text.partition(" ")
        verb = verb.upper()
        handler = _HANDLERS.get(verb)
        if self._retiring is not None and verb != "QUIT":
            self._end(self._retiring)
        elif len(line) + 2 > _LINE_LIMITS.get(verb, _LINE_LIMIT):
            self._say(replies.LINE_TOO_LONG)
        elif handler is not None:
            reply = handler(self, argument)
            if reply is not None:
                # The argument of other verbs may be a secret.
                self._say(reply, ascii(text[:200]) if verb in ("MAIL", "RCPT") else verb)
        elif verb in _HTTP:
            self._end(replies.NOT_SMTP)
        else:
            self._say(replies.UNKNOWN)
        return None

    def _receive_content(self, body: Body) -> None:
        data = self._buffer[self._at :]
        self._buffer, self._at = b"", 0
        self._octets += len(data)
        self.progress += self._octets // _PROGRESS
        self._octets %= _PROGRESS
        if self._budget.exhausted:
            body.refuse(replies.NO_BUFFERS)
        self._buffer = body.receive(data) or b""
        if body.fatal and body.refusal is not None:
            self._end(body.refusal)
        elif body.refusal is not None:
            if self._storing:
                self.question = Abandon()
            elif body.ended:
                self._finish(body.refusal)
        elif body.ended:
            self.question = Accept(self._envelope(body), body.take())
        elif body.held >= STORE_AT:
            self.question = Store(self._envelope(body), body.take())

    def _envelope(self, body: Body) -> Envelope:
        mail = self._mail
        assert mail is not None
        return Envelope(
            sender=mail.address,
            recipients=tuple(self._recipients.values()),
            eight_bit=mail.eight_bit or body.eight_bit,
            smtputf8=mail.smtputf8,
            ret=mail.ret,
            envid=mail.envid,
        )

    # Output

    def _say(self, reply: Reply, about: str = "") -> None:
        self._output.append(_wire(reply))
        if reply.code < 400:
            return
        if reply not in self._refused:
            self._refused.add(reply)
            self._refusals.append(Refusal(reply, about))
        self._errors += reply.permanent
        if self._errors > self._limits.errors and not self.closed:
            self._end(replies.TOO_MANY_ERRORS)

    def _end(self, reply: Reply) -> None:
        self.closed = self.abrupt = True
        self._buffer, self._at = b"", 0
        self._say(reply)

    def _finish(self, reply: Reply) -> None:
        """Answer the end of data."""
        self._reset()
        self._say(reply)

    def _account(self) -> None:
        """Bring what this session holds up to date in the budget."""
        held = len(self._buffer)
        if self._body is not None:
            held += self._body.held
        if isinstance(self.question, Store | Accept):
            held += len(self.question.content)
        self._budget.used += held - self._charged
        self._charged = held

    # Commands: each returns its reply, None if that comes later or has been given

    def _hello(self, argument: str) -> Reply:
        self._extended = False
        return self._introduce(argument) or Reply(250, "", self._hostname)

    def _extended_hello(self, argument: str) -> Reply:
        self._extended = True
        return self._introduce(argument) or Reply(250, "", "\n".join([self._hostname, *self._extensions()]))

    def _introduce(self, argument: str) -> Reply | None:
        name = argument.strip(" ")
        if not name or " " in name or len(name) > 255 or not name.isprintable():
            return replies.BAD_HELO
        self._helo = _UNFIT_FOR_TRACE.sub("?", name)
        self._reset()  # RFC 5321 4.1.4
        return None

    def _extensions(self) -> list[str]:
        offered = ["PIPELINING", f"SIZE {self._limits.size}", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "DSN"]
        if self._listener.tls == "starttls" and not self.tls:
            offered.append("STARTTLS")
        if self._listener.kind == "submission" and self._may_log_in:
            offered.append(f"AUTH {auth.MECHANISMS}")
        return offered

    @property
    def _may_log_in(self) -> bool:
        """Whether a password can be sent: over TLS, or without leaving this machine."""
        return bool(self.tls) or (self._listener.tls == "none" and self._client.local)

    def _start_tls(self, argument: str) -> Reply | None:
        if self._listener.tls != "starttls":
            return replies.TLS_ALREADY if self.tls else replies.TLS_NOT_OFFERED
        if argument:
            return replies.NO_ARGUMENT
        if self.tls:
            return replies.TLS_ALREADY
        if self._mail is not None:
            return replies.IN_TRANSACTION
        if self._at < len(self._buffer):  # else they would be obeyed as if they had come encrypted
            self._end(replies.AFTER_STARTTLS)
            return None
        self.question = StartTls()
        return replies.START_TLS

    def _auth(self, argument: str) -> Reply | None:
        refusal = self._auth_forbidden()
        if refusal is not None:
            return refusal
        mechanism, _, initial = argument.partition(" ")
        try:
            self._exchange = auth.Exchange(mechanism.upper())
        except KeyError:
            return replies.AUTH_UNKNOWN if mechanism else replies.NEEDS_ARGUMENT
        if not initial:
            return self._exchange.prompt
        self._receive_response(self._exchange, initial)
        return None

    def _auth_forbidden(self) -> Reply | None:
        if self._listener.kind != "submission":
            return replies.AUTH_NOT_OFFERED
        if not self._may_log_in:
            return replies.AUTH_NEEDS_TLS
        if not self._helo:
            return replies.HELO_FIRST
        if self.identity is not None:
            return replies.AUTH_ALREADY
        return replies.IN_TRANSACTION if self._mail is not None else None

    def _receive_response(self, exchange: auth.Exchange, response: str) -> None:
        outcome = exchange.receive(response)
        if isinstance(outcome, auth.Login):
            self.question = Authenticate(outcome, self._failures)
        else:
            self._say(outcome)
        if isinstance(outcome, auth.Login) or outcome.permanent:
            self._exchange = None

    def _mail_from(self, argument: str) -> Reply:
        if not self._helo:
            return replies.HELO_FIRST
        if self._listener.kind == "submission" and self.identity is None:
            needs_tls = self._listener.tls == "starttls" and not self.tls
            return replies.STARTTLS_FIRST if needs_tls else replies.AUTH_FIRST
        if self._mail is not None:
            return replies.NESTED_MAIL
        if self._budget.exhausted:
            return replies.NO_BUFFERS
        parsed = parse_mail(argument, self._limits.size)
        if isinstance(parsed, Reply):
            return parsed
        self._mail = parsed
        return replies.SENDER_OK

    def _rcpt_to(self, argument: str) -> Reply:
        if self._mail is None:
            return replies.MAIL_FIRST
        if len(self._recipients) >= self._limits.recipients:
            return replies.TOO_MANY_RECIPIENTS  # RFC 5321 4.5.3.1.10
        parsed = parse_rcpt(argument, self._hostname, utf8=self._mail.smtputf8)
        if isinstance(parsed, Reply):
            return parsed
        self._recipients.setdefault(parsed.address, parsed)  # named twice, it gets one copy
        return replies.RECIPIENT_OK

    def _data(self, argument: str) -> Reply | None:
        if argument:
            return replies.NO_ARGUMENT
        if self._mail is None:
            return replies.MAIL_FIRST
        if not self._recipients:
            return replies.NO_RECIPIENTS
        if self._at < len(self._buffer):  # nobody has read our 354 yet: a smuggler's sign
            self._end(replies.AFTER_DATA)
            return None
        listener = self._listener
        line_limit = _CONTENT_LINE[listener.long_lines]
        self._body = Body(self._limits.size, line_limit, fix_newlines=listener.bare_newlines == "fix")
        return replies.GO_AHEAD

    def _rset(self, argument: str) -> Reply:
        if argument:
            return replies.NO_ARGUMENT
        self._reset()
        return replies.OK

    def _quit(self, argument: str) -> Reply:
        if argument:
            return replies.NO_ARGUMENT
        self.closed = True
        return replies.BYE

    def _vrfy(self, argument: str) -> Reply:
        return replies.NOT_VERIFIED if argument else replies.NEEDS_ARGUMENT  # RFC 5321 3.5.3


_HANDLERS: dict[str, Callable[[Session, str], Reply | None]] = {
    "HELO": Session._hello,
    "EHLO": Session._extended_hello,
    "STARTTLS": Session._start_tls,
    "AUTH": Session._auth,
    "MAIL": Session._mail_from,
    "RCPT": Session._rcpt_to,
    "DATA": Session._data,
    "RSET": Session._rset,
    "QUIT": Session._quit,
    "VRFY": Session._vrfy,
    "NOOP": lambda _, __: replies.OK,
    "HELP": lambda _, __: replies.HELP,
    "EXPN": lambda _, __: replies.NOT_IMPLEMENTED,
    "BDAT": lambda _, __: replies.NOT_IMPLEMENTED,
}
