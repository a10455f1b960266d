"""An SMTP server as a state machine without I/O (RFC 5321): bytes in; replies, and questions to the shell, out.

This is the framing: lines, content, replies and their limits. What commands mean, dialog.py knows. The shell
gives what arrives to `receive`, sends what `take_output` returns (the replies to a pipelined group leave
together, RFC 2920 3.2) and answers `question` when there is one; until then nothing more is read. So every
dialog, cut anywhere, runs without a socket. Whether a client may use the listener at all is decided before it
has a session (access.admits).
"""

from collections.abc import Callable
from functools import lru_cache

from mta.config import Limits, Listener
from mta.ingress import auth, replies
from mta.ingress.access import Client, Identity
from mta.ingress.body import Body, Budget
from mta.ingress.dialog import Dialog, type_outcome
from mta.ingress.questions import Abandon, Accept, Authenticate, Question, Refusal, StartTls, Store, TurnAway
from mta.mail.reply import Reply
from mta.queue.gate import admit_all, type_refusal

STORE_AT = 256 * 1024  # octets; content beyond is committed as it arrives
_LINE_LIMIT = 512  # octets with CRLF, RFC 5321 4.5.3.1.4
_LINE_LIMITS = {"MAIL": 2048, "RCPT": 2048, "AUTH": auth.LINE_LIMIT}  # with what the extensions add, rounded up
_COMMANDS_A_TURN = 128  # then other sessions have theirs
_AHEAD_LIMIT = 1 << 20  # octets that may come while a question is open, although reading is paused
_PROGRESS = 4096  # octets of content that count as a sign of life
LOGIN_ATTEMPTS = 3
_HTTP = frozenset({"GET", "POST", "PUT", "HEAD", "OPTIONS", "CONNECT"})  # a browser that was made to talk to us
_wire = lru_cache(maxsize=256)(Reply.wire)


class Session:
    """One connection, from the greeting to the last reply."""

    def __init__(
        self,
        listener: Listener,
        limits: Limits,
        hostname: str,
        client: Client,
        budget: Budget,
        refusal: type_refusal = admit_all,
        *,
        now: Callable[[], float],
    ) -> None:
        """`refusal` tells why new mail of a tenant is refused just now."""
        self.dialog = Dialog(listener, limits, hostname, client, budget, refusal, now=now)
        self.question: Question | None = None
        self.closed = False  # after take_output nothing more will be said
        self.abrupt = False  # closed while the client may still be sending
        self.behind = False  # input waits for `resume`
        self.progress = 0  # grows with each command, and with content
        self._limits = limits
        self._hostname = hostname
        self._budget = budget
        self._charged = 0  # octets in the budget
        self._output: list[bytes] = []
        self._refusals: list[Refusal] = []
        self._refused: set[Reply] = set()
        self._buffer = b""
        self._at = 0  # where in the buffer the next line begins
        self._skipping = False  # within a line that is too long
        self._storing = False  # the first stretches of this message are stored
        self._eof = False
        self._retiring: Reply | None = None
        self._commands = self._errors = self._octets = 0

    @property
    def busy(self) -> bool:
        """Whether a message is on its way in."""
        return self.dialog.body is not None

    @property
    def hungry(self) -> bool:
        """Whether more input is of use. With a question open it is kept, but need not be fetched twice."""
        if self.question is not None:
            return not self._buffer and not isinstance(self.question, StartTls)
        return not self.behind

    # What the shell calls

    def greet(self) -> None:
        """Say that the service is ready (RFC 5321 3.1)."""
        self._say(Reply(220, "", f"{self._hostname} ESMTP Fairlead"))

    def receive(self, data: bytes) -> None:
        """Take in what has arrived."""
        if self.closed:
            return
        self._buffer = self._buffer + data if self._buffer else data
        if self.question is not None:
            self._receive_ahead(self.question)
        self._go_on()

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
        if self.closed:
            return
        if isinstance(answer, Identity):
            self.dialog.identity = answer
            self._say(replies.AUTHENTICATED)
        else:
            self.dialog.failures += answer is None
            self._refused.discard(replies.AUTH_FAILED)  # each failure is a line in the log
            self._say(answer or replies.AUTH_FAILED, question.login.user)
            if self.dialog.failures == LOGIN_ATTEMPTS:
                self._end(replies.TOO_MANY_LOGINS)
        self._go_on()

    def tls_started(self, description: str, certificate: tuple[str, ...] = ()) -> None:
        """Answer StartTls, or say at first that there is TLS already: `description` is version and cipher.

        `certificate` is whom the client's names, which has been verified.
        """
        self.question = None
        self.dialog.forget_client()
        self.dialog.tls = description
        self.dialog.certificate = certificate
        self._go_on()

    def answer(self, reply: Reply | None = None) -> None:
        """Answer Store, Accept or Abandon."""
        question, self.question = self.question, None
        body = self.dialog.body
        if self.closed or body is None:
            return
        self._storing = isinstance(question, Store) and reply is None
        if isinstance(question, Accept) and reply is not None:
            self._finish(reply)
        elif reply is not None:
            body.refuse(reply)
        elif body.ended and body.refusal is not None:
            self._finish(body.refusal)
        self._go_on()

    def retire(self, reply: Reply) -> None:
        """Close with `reply` (421) at the next command; a message on its way may finish."""
        self._retiring = reply

    def hang_up(self, reply: Reply) -> None:
        """Say `reply` and close."""
        self._end(reply)
        self._go_on()

    def release(self) -> None:
        """Give back what is held: the connection is gone."""
        self.closed = True
        self.question = None
        self.dialog.reset()
        self._go_on()

    def take_output(self) -> bytes:
        """Return what is to be sent."""
        output, self._output = b"".join(self._output), []
        return output

    def take_refusals(self) -> list[Refusal]:
        """Return what is to be logged."""
        refusals, self._refusals = self._refusals, []
        return refusals

    # Input

    def _receive_ahead(self, question: Question) -> None:
        if isinstance(question, StartTls):
            self._end(replies.AFTER_STARTTLS)
        elif len(self._buffer) > _AHEAD_LIMIT:
            self._end(replies.TOO_MUCH_INPUT)

    def _go_on(self) -> None:
        """Work through the input until it ends, a question comes up or it is the turn of others."""
        turns = _COMMANDS_A_TURN
        while self._at < len(self._buffer) and self.question is None and not (self.closed or self.behind):
            if self.dialog.body is not None:
                self._receive_content(self.dialog.body)
            elif turns == 0:
                self.behind = True
            elif not self._receive_line():
                break
            turns -= 1
        self._buffer = b"" if self.closed else self._buffer[self._at :]
        self._at = 0
        if self._eof and self.question is None and not self.behind:
            self.closed = True
        self._account()

    def _receive_line(self) -> bool:
        """Take a line off the buffer; False if none is complete. Only CRLF ends a line (RFC 5321 2.3.8)."""
        end = self._buffer.find(b"\r\n", self._at)
        if end < 0:
            self._keep_line_begun()
            return False
        line = self._buffer[self._at : end]
        self._at = end + 2
        self.progress += 1
        self._commands += 1
        if _bare(line):
            self._end(replies.BARE_IN_COMMAND)
        elif self._commands > self._limits.commands:
            self._end(replies.TOO_MANY_COMMANDS)
        elif self._skipping:
            self._skipping = False
            self._say(replies.LINE_TOO_LONG)
        else:
            self._receive_command(line)
        return True

    def _keep_line_begun(self) -> None:
        line = self._buffer[self._at :]
        if _bare(line.removesuffix(b"\r")):
            self._end(replies.BARE_IN_COMMAND)
        elif self._skipping or len(line) > auth.LINE_LIMIT:
            self._skipping = True
            self._at = len(self._buffer) - line.endswith(b"\r")

    def _receive_command(self, line: bytes) -> None:
        dialog = self.dialog
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError:
            return self._say(replies.NOT_UTF8)
        if dialog.exchange is not None:
            return self._act(dialog.respond(dialog.exchange, text), "AUTH")
        verb, _, argument = text.partition(" ")
        verb = verb.upper()
        if len(line) + 2 > _LINE_LIMITS.get(verb, _LINE_LIMIT):
            self._say(replies.LINE_TOO_LONG)
        elif self._retiring is not None and verb != "QUIT":
            self._end(self._retiring)
        elif verb in _HTTP:
            self._end(replies.NOT_SMTP)
        else:
            self._act(dialog.obey(verb, argument), text if verb in ("MAIL", "RCPT") else verb)
        return None

    def _act(self, outcome: type_outcome, about: str) -> None:
        ahead = self._at < len(self._buffer)
        if ahead and isinstance(outcome, StartTls):  # it would be obeyed as if it had come encrypted
            self._end(replies.AFTER_STARTTLS)
        elif ahead and outcome is replies.GO_AHEAD:  # nobody has read our 354 yet: a sign of smuggling
            self._end(replies.AFTER_DATA)
        elif isinstance(outcome, Reply):
            self._say(outcome, "" if outcome is replies.UNKNOWN else about)  # it may be a password
            if outcome is replies.BYE:
                self.closed = True
        elif isinstance(outcome, TurnAway):
            self._output.append(outcome.reply.wire())
            self.closed = self.abrupt = outcome.reply.code == 421  # RFC 5321 3.8
        else:
            self.question = outcome
            if isinstance(outcome, StartTls):
                self._say(replies.START_TLS)

    def _receive_content(self, body: Body) -> None:
        data = self._buffer[self._at :]
        self._at = 0
        self._octets += len(data)
        self.progress += self._octets // _PROGRESS
        self._octets %= _PROGRESS
        if self._budget.exhausted:
            body.refuse(replies.NO_BUFFERS)
        self._buffer = body.receive(data) or b""
        if body.refusal is not None and body.fatal:
            self._end(body.refusal)
        elif body.refusal is not None and self._storing:
            self.question = Abandon()
        elif body.refusal is not None:
            if body.ended:
                self._finish(body.refusal)
        elif body.ended or body.held >= STORE_AT:
            envelope = self.dialog.envelope(eight_bit=body.eight_bit)
            self.question = Accept(envelope, body.take()) if body.ended else Store(envelope, body.take())

    # Output

    def _say(self, reply: Reply, about: str = "") -> None:
        self._output.append(_wire(reply))
        if reply.code < 400:
            return
        if reply not in self._refused:
            self._refused.add(reply)
            self._refusals.append(Refusal(reply, ascii(about[:200])))
        self._errors += reply.permanent
        if self._errors > self._limits.errors and not self.closed:
            self._end(replies.TOO_MANY_ERRORS)

    def _end(self, reply: Reply) -> None:
        if not self.closed:
            self.closed = self.abrupt = True
            self._say(reply)

    def _finish(self, reply: Reply) -> None:
        """Answer the end of data."""
        if reply.positive:  # not by way of `_wire`: it names the message, and is like no other
            self.dialog.reset()
            self._output.append(reply.wire())
            return
        about = f"message from <{self.dialog.envelope(eight_bit=False).sender}>"
        self.dialog.reset()
        self._refused.discard(reply)  # each refused message is a line in the log
        self._say(reply, about)

    def _account(self) -> None:
        """Bring what this session holds up to date in the budget."""
        dialog, question = self.dialog, self.question
        held = len(self._buffer) + dialog.held
        if dialog.body is not None:
            held += dialog.body.held
        if question is not None and isinstance(question, Store | Accept):
            held += len(question.content)
        if held != self._charged:
            self._budget.used += held - self._charged
            self._charged = held


def _bare(line: bytes) -> bool:
    """Tell whether a line holds what only ends a line, or NUL."""
    return b"\n" in line or b"\r" in line or b"\0" in line
