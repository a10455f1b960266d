"""What SMTP commands mean: who the client says it is, what it may do, and the envelope it gives (RFC 5321 4.1).

Command in, reply or question out: no bytes, no buffers. The session does those.
"""

# ruff: noqa: SLF001 - the table of handlers is below the class, of which a compiler knows no methods while it makes it

import re
from collections.abc import Callable

from mta.config import Limits, Listener
from mta.ingress import auth, replies
from mta.ingress.access import Client, Identity, certified
from mta.ingress.body import Body, Budget
from mta.ingress.parameters import MailFrom, parse_mail, parse_rcpt
from mta.ingress.questions import Authenticate, StartTls, TurnAway
from mta.ingress.timing import NO_TIMING, SHORTEST, longest_hold, timing_of
from mta.ingress.trace import Trace
from mta.mail.envelope import Envelope, Recipient
from mta.mail.reply import Reply
from mta.queue.gate import type_refusal

_CONTENT_LINE = {"pass": 65536, "refuse": 998}  # octets without CRLF, RFC 5321 4.5.3.1.6
_RECIPIENT_SIZE = 256  # octets of a recipient beside its texts
_UNFIT_FOR_TRACE = re.compile(r"[^A-Za-z0-9.:_\[\]\-]")

type_outcome = Reply | Authenticate | StartTls | TurnAway


class Dialog:
    """The state that commands read and change."""

    def __init__(
        self,
        listener: Listener,
        limits: Limits,
        hostname: str,
        client: Client,
        budget: Budget,
        refusal: type_refusal,
        *,
        now: Callable[[], float],
    ) -> None:
        self.tls = ""  # version and cipher
        self.certificate: tuple[str, ...] = ()  # whom the client's names, if it has shown one
        self.failures = 0  # logins that went wrong
        self._listener = listener
        self._limits = limits
        self._hostname = hostname
        self._client = client
        self._literal = client.literal
        self._budget = budget
        self._now = now
        self._refusal = refusal
        self.forget_client()

    def forget_client(self) -> None:
        """Know nothing of the client, as at the start and after STARTTLS (RFC 3207 4.2)."""
        self.identity: Identity | None = None
        self.exchange: auth.Exchange | None = None
        self._helo = ""
        self._extended = False
        self.reset()

    def reset(self) -> None:
        """End the mail transaction, if there is one."""
        self.body: Body | None = None
        self._mail: MailFrom | None = None
        self._timing = NO_TIMING
        self._recipients: dict[str, Recipient] = {}
        self.held = 0  # octets that the recipients take, for the budget

    @property
    def trace(self) -> Trace:
        """How the message of this transaction comes (RFC 3848, RFC 6531 4.3)."""
        protocol = "SMTP"
        if self._extended:
            utf8 = self._mail is not None and self._mail.smtputf8
            protocol = "UTF8SMTP" if utf8 else "ESMTP"
            protocol += "S" * bool(self.tls) + "A" * (self.identity is not None)
        return Trace(self._helo, self._literal, protocol, self.tls)

    def envelope(self, *, eight_bit: bool) -> Envelope:
        """Return the envelope of this transaction; `eight_bit` tells of its content."""
        mail = self._mail
        assert mail is not None
        return Envelope(
            sender=mail.address,
            recipients=tuple(self._recipients.values()),
            eight_bit=mail.eight_bit or eight_bit,
            smtputf8=mail.smtputf8,
            ret=mail.ret,
            envid=mail.envid,
            deliver_by=self._timing.deliver_by,
            by_mode=mail.by_mode,
            release_at=self._timing.release_at,
            hold=mail.hold,
            priority=mail.priority,
            tls_required="yes" if mail.requiretls else "",
        )

    def obey(self, verb: str, argument: str) -> type_outcome:
        """Do what a command (in upper case) asks for."""
        handler = _HANDLERS.get(verb)
        return replies.UNKNOWN if handler is None else handler(self, argument)

    def respond(self, exchange: auth.Exchange, response: str) -> type_outcome:
        """Take the client's part of an AUTH exchange."""
        outcome = exchange.receive(response)
        if isinstance(outcome, auth.Login):
            self.exchange = None
            return Authenticate(outcome, self.failures)
        self.exchange = None if outcome.permanent else exchange
        return outcome

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
        self.reset()  # RFC 5321 4.1.4
        return None

    def _extensions(self) -> list[str]:
        offered = ["PIPELINING", f"SIZE {self._limits.size}", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "DSN"]
        offered += [f"DELIVERBY {SHORTEST}", "MT-PRIORITY"]
        if self._submits:  # RFC 4865 4.2: never elsewhere
            offered.append(f"FUTURERELEASE {longest_hold(self._now(), self._limits.hold)}")
        if self.tls:
            offered.append("REQUIRETLS")  # RFC 8689 2: never without TLS
        elif self._listener.tls == "starttls":
            offered.append("STARTTLS")
        if self._submits and self._may_log_in:
            offered.append(f"AUTH {' '.join(auth.MECHANISMS)}")
        return offered

    @property
    def _submits(self) -> bool:
        return self._listener.kind == "submission"

    @property
    def _may_log_in(self) -> bool:
        """Whether a password can be sent: over TLS, or without leaving this machine."""
        return bool(self.tls) or (self._listener.tls == "none" and self._client.local)

    def _start_tls(self, argument: str) -> type_outcome:
        if self.tls:
            return replies.TLS_ALREADY
        if self._listener.tls != "starttls":
            return replies.TLS_NOT_OFFERED
        if self._mail is not None:
            return replies.IN_TRANSACTION
        return replies.NO_ARGUMENT if argument else StartTls()

    def _auth(self, argument: str) -> type_outcome:
        refusal = self._auth_forbidden()
        if refusal is not None:
            return refusal
        mechanism, _, initial = argument.partition(" ")
        if mechanism.upper() not in auth.MECHANISMS:
            return replies.AUTH_UNKNOWN if mechanism else replies.NEEDS_ARGUMENT
        self.exchange = auth.Exchange(mechanism.upper())
        return self.respond(self.exchange, initial) if initial else self.exchange.prompt

    def _auth_forbidden(self) -> Reply | None:
        if not self._submits:
            return replies.AUTH_NOT_OFFERED
        if not self._may_log_in:
            return replies.AUTH_NEEDS_TLS
        if not self._helo:
            return replies.HELO_FIRST
        # Nobody has a transaction before logging in.
        return replies.AUTH_ALREADY if self.identity is not None else None

    def _mail_from(self, argument: str) -> Reply | TurnAway:
        if not self._helo:
            return replies.HELO_FIRST
        unknown = self._unknown()
        if unknown is not None:
            return unknown
        if self._mail is not None:
            return replies.NESTED_MAIL
        if self._budget.exhausted:
            return replies.NO_BUFFERS
        tenant = self._listener.tenant if self.identity is None else self.identity.tenant
        refused = self._refusal(tenant or "")
        if refused is not None:
            return TurnAway(replies.tenant_refused(refused.cause, refused.retry_after))
        parsed = parse_mail(argument, self._limits.size, holds=self._submits, tls=bool(self.tls))
        if isinstance(parsed, Reply):
            return parsed
        timing = timing_of(parsed, self._now(), self._limits.hold)
        if isinstance(timing, Reply):
            return timing
        self._mail, self._timing = parsed, timing
        return replies.SENDER_OK

    def _unknown(self) -> Reply | None:
        """Say how a client makes itself known, if it has to and has not (RFC 4954 6)."""
        if self.identity is not None or not (self._submits or self._listener.by_certificate):
            return None
        if self._listener.tls == "starttls" and not self.tls:
            return replies.STARTTLS_FIRST
        if self._submits:
            return replies.AUTH_FIRST
        return None if certified(self._listener, self.certificate) else replies.CERTIFICATE_FIRST

    def _rcpt_to(self, argument: str) -> Reply:
        if self._mail is None:
            return replies.MAIL_FIRST
        if len(self._recipients) >= self._limits.recipients:
            return replies.TOO_MANY_RECIPIENTS  # RFC 5321 4.5.3.1.10
        if self._budget.exhausted:
            return replies.NO_BUFFERS
        parsed = parse_rcpt(argument, self._hostname, utf8=self._mail.smtputf8)
        if isinstance(parsed, Reply):
            return parsed
        self.held += _RECIPIENT_SIZE + len(argument)
        self._recipients.setdefault(parsed.address, parsed)  # named twice, it gets one copy
        return replies.RECIPIENT_OK

    def _data(self, argument: str) -> Reply:
        if argument:
            return replies.NO_ARGUMENT
        if self._mail is None:
            return replies.MAIL_FIRST
        if not self._recipients:
            return replies.NO_RECIPIENTS
        listener = self._listener
        line_limit = _CONTENT_LINE[listener.long_lines]
        self.body = Body(self._limits.size, line_limit, fix_newlines=listener.bare_newlines == "fix")
        return replies.GO_AHEAD

    def _rset(self, argument: str) -> Reply:
        if argument:
            return replies.NO_ARGUMENT
        self.reset()
        return replies.OK

    def _quit(self, argument: str) -> Reply:
        return replies.NO_ARGUMENT if argument else replies.BYE

    def _vrfy(self, argument: str) -> Reply:
        return replies.NOT_VERIFIED if argument else replies.NEEDS_ARGUMENT  # RFC 5321 3.5.3

    def _noop(self, _: str) -> Reply:
        return replies.OK

    def _help(self, _: str) -> Reply:
        return replies.HELP

    def _not_here(self, _: str) -> Reply:
        return replies.NOT_IMPLEMENTED


_HANDLERS: dict[str, Callable[[Dialog, str], type_outcome]] = {
    "HELO": Dialog._hello,
    "EHLO": Dialog._extended_hello,
    "STARTTLS": Dialog._start_tls,
    "AUTH": Dialog._auth,
    "MAIL": Dialog._mail_from,
    "RCPT": Dialog._rcpt_to,
    "DATA": Dialog._data,
    "RSET": Dialog._rset,
    "QUIT": Dialog._quit,
    "NOOP": Dialog._noop,
    "HELP": Dialog._help,
    "VRFY": Dialog._vrfy,
    "EXPN": Dialog._not_here,
    "BDAT": Dialog._not_here,
}
