"""The error policy of SMTP out: the only place where replies and failures become verdicts.

Pure. `Trouble` is what a step came to when it did not come to a reply; `Exchange` is what was said in one
transaction, as far as it went. Whatever nobody understands is deferred. After the final dot only the reply
to it decides (RFC 5321 4.1.1.4).
"""

import re
from enum import StrEnum

import msgspec

from mta.mail.reply import Reply
from mta.mail.result import Result, Scope, Verdict

HINT_LIMIT = 5 * 3600.0  # seconds; no peer's "try again in" is honoured beyond the longest step of our own
START_INPUT = 354
UNAVAILABLE = 421
_TEXT_LIMIT = 1000  # characters of a reply that are kept: events and entries have to stay small
_NO_STORAGE = 552
_TOO_MANY_RECIPIENTS = ("", "5.5.3")  # what the status of a 552 to RCPT is if it does not say otherwise
_OUT_OF_STEP = (500, 502, 503)


class Stage(StrEnum):
    """The step of a session that a reply or a failure belongs to."""

    CONNECT = "connect"
    GREETING = "greeting"
    HELLO = "EHLO"
    TLS = "STARTTLS"
    AUTH = "AUTH"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    CONTENT = "content"
    DOT = "final dot"


_SETTING_UP = frozenset({Stage.CONNECT, Stage.GREETING, Stage.HELLO, Stage.TLS})


class Fault(StrEnum):
    """What went wrong when no reply says so."""

    UNREACHABLE = "unreachable"
    TIMED_OUT = "timed out"
    LOST = "connection lost"
    GARBLED = "not SMTP"
    TLS = "TLS failed"
    FORBIDDEN = "no host that the domain's policy allows"
    UNENCRYPTED = "TLS is required"
    UNVERIFIED = "a verified host is required"
    MISNAMED = "certificate of another domain"
    NO_AUTH = "AUTH not possible"
    OURS = "our own failure"
    BROKEN_OFF = "broken off"
    RECALLED = "recalled"
    OUT_OF_TIME = "out of time"
    MOVED = "site changed"
    NO_ADDRESS = "address cannot be used"
    NO_SOURCE = "no source may be used"
    NEEDS_8BITMIME = "8BITMIME not offered"
    NEEDS_SMTPUTF8 = "SMTPUTF8 not offered"
    NEEDS_LEVEL = "not secure enough for the message"
    NEEDS_TLS = "not secure enough for REQUIRETLS"
    NEEDS_REQUIRETLS = "REQUIRETLS not offered"
    NEEDS_DELIVERBY = "DELIVERBY not offered, or not for so short a time"
    TOO_BIG = "message too big"
    BAD_CONTENT = "content not fit for SMTP"
    BAD_ENVELOPE = "envelope not fit for SMTP"


class NoWay(StrEnum):
    """Why a domain has no next hop to be tried."""

    NULL_MX = "null MX"
    NO_DOMAIN = "no such domain"
    NO_HOST = "neither MX nor address"
    LOOP = "best MX is this relay"
    UNUSABLE = "no usable address"
    DNS = "DNS gave no answer"


MOVED_REPLY = Reply(451, "4.4.3", "the DNS or a policy names another site than a moment ago")
# Our own words for each fault: reply, verdict, scope.
_FAULTS: dict[Fault, tuple[Reply, Verdict, Scope]] = {
    Fault.UNREACHABLE: (Reply(451, "4.4.1", "connection failed"), Verdict.DEFERRED, Scope.HOST),
    Fault.TIMED_OUT: (Reply(451, "4.4.2", "timed out"), Verdict.DEFERRED, Scope.HOST),
    Fault.LOST: (Reply(451, "4.4.2", "connection lost"), Verdict.DEFERRED, Scope.HOST),
    Fault.GARBLED: (Reply(451, "4.5.0", "peer does not speak SMTP"), Verdict.DEFERRED, Scope.HOST),
    Fault.TLS: (Reply(451, "4.7.5", "TLS failed"), Verdict.DEFERRED, Scope.HOST),
    # What a policy, a route, a tenant or memory asks for and a host does not show (mta.delivery.policy)
    Fault.FORBIDDEN: (Reply(451, "4.7.0", "policy forbids this host"), Verdict.DEFERRED, Scope.HOST),
    Fault.UNENCRYPTED: (Reply(451, "4.7.10", "TLS is required"), Verdict.DEFERRED, Scope.HOST),
    Fault.UNVERIFIED: (Reply(451, "4.7.5", "a verified host is required"), Verdict.DEFERRED, Scope.HOST),
    Fault.NO_AUTH: (Reply(451, "4.7.0", "AUTH not possible"), Verdict.DEFERRED, Scope.US),
    Fault.OURS: (Reply(451, "4.3.0", "local error"), Verdict.DEFERRED, Scope.US),
    Fault.BROKEN_OFF: (Reply(451, "4.3.2", "shutting down"), Verdict.DEFERRED, Scope.US),
    Fault.MOVED: (MOVED_REPLY, Verdict.DEFERRED, Scope.US),
    Fault.NO_ADDRESS: (Reply(451, "4.3.5", "our address cannot be used"), Verdict.DEFERRED, Scope.US),
    Fault.NO_SOURCE: (Reply(451, "4.3.2", "no source may be used"), Verdict.DEFERRED, Scope.US),
    Fault.RECALLED: (Reply(451, "4.3.0", "broken off on an operator's word"), Verdict.DEFERRED, Scope.US),
    Fault.OUT_OF_TIME: (Reply(451, "4.4.7", "broken off at its deadline"), Verdict.DEFERRED, Scope.US),
    # Not for another host of the site (_UNFIT) to do better: RFC 2852 7
    Fault.NEEDS_DELIVERBY: (Reply(554, "5.3.3", "DELIVERBY"), Verdict.FAILED, Scope.MESSAGE),
    # By what one message or one domain wants, and others for the same host may not
    Fault.MISNAMED: (Reply(451, "4.7.5", "certificate of another domain"), Verdict.DEFERRED, Scope.MESSAGE),
    Fault.NEEDS_LEVEL: (Reply(451, "4.7.10", "encryption needed"), Verdict.DEFERRED, Scope.MESSAGE),
    # RFC 8689 4.2.1: when no host of the site does, the sender is told
    Fault.NEEDS_TLS: (Reply(550, "5.7.10", "encryption needed for REQUIRETLS"), Verdict.FAILED, Scope.MESSAGE),
    Fault.NEEDS_REQUIRETLS: (Reply(550, "5.7.30", "REQUIRETLS support required"), Verdict.FAILED, Scope.MESSAGE),
    Fault.NEEDS_8BITMIME: (Reply(554, "5.6.3", "8-bit content"), Verdict.FAILED, Scope.MESSAGE),
    Fault.NEEDS_SMTPUTF8: (Reply(550, "5.6.7", "internationalised addresses or fields"), Verdict.FAILED, Scope.MESSAGE),
    Fault.TOO_BIG: (Reply(552, "5.3.4", "message too big"), Verdict.FAILED, Scope.MESSAGE),
    Fault.BAD_CONTENT: (Reply(554, "5.6.0", "content not fit for SMTP"), Verdict.FAILED, Scope.MESSAGE),
    Fault.BAD_ENVELOPE: (Reply(553, "5.1.3", "address not fit for SMTP"), Verdict.FAILED, Scope.MESSAGE),
}
_INSECURE = frozenset({Fault.MISNAMED, Fault.NEEDS_LEVEL, Fault.NEEDS_TLS})
_UNFIT = _INSECURE | {Fault.NEEDS_REQUIRETLS, Fault.NEEDS_8BITMIME, Fault.NEEDS_SMTPUTF8, Fault.TOO_BIG}


class Trouble(Exception):
    """A step that came to nothing: the peer refused it (`reply`), or `fault` happened (`text` says how)."""

    def __init__(self, stage: Stage, fault: Fault | None = None, text: str = "", *, reply: Reply | None = None) -> None:
        self.stage = stage
        self.fault = fault
        self.text = text
        self.reply = reply
        super().__init__(f"{stage}: {reply or text or fault}")

    @property
    def by_message(self) -> bool:
        """Whether a session was given up for what this message or its domain alone wants: for others it is as good."""
        return self.fault in _INSECURE

    @property
    def elsewhere(self) -> bool:
        """Whether another host of the site may do better, so that it is worth asking at once.

        Not after the final dot: the message may have been taken.
        """
        if self.reply is not None:
            return (
                self.stage in _SETTING_UP or self.stage is Stage.AUTH
            )  # RFC 5321 4.3.1: a host that refuses the session is passed over
        if self.fault in _UNFIT:
            return True
        return _FAULTS[self.fault or Fault.OURS][2] is Scope.HOST and self.stage is not Stage.DOT


class Exchange(msgspec.Struct, kw_only=True):
    """What was said in one transaction, as far as it went. `rcpts` are in the order of the recipients."""

    mail: Reply | None = None
    rcpts: list[Reply] = msgspec.field(default_factory=list)
    data: Reply | None = None
    final: Reply | None = None
    trouble: Trouble | None = None
    dsn: bool = False
    deliver_by: bool = False

    @property
    def elsewhere(self) -> bool:
        """Whether another host may be asked at once, for all recipients: none of them has failed yet."""
        return self.trouble is not None and self.trouble.elsewhere and not any(each.permanent for each in self.rcpts)

    def open_stage(self, recipients: int, *, past_dot: bool) -> Stage | None:
        """Name the step whose reply is still missing; None when every recipient's fate is known without it."""
        if self.mail is None:
            return Stage.MAIL
        if not self.mail.positive or self.final is not None:
            return None
        if len(self.rcpts) < recipients:
            return Stage.RCPT
        if not any(reply.positive for reply in self.rcpts):
            return None
        if self.data is None:
            return Stage.DATA
        if self.data.code != START_INPUT:
            return None
        return Stage.DOT if past_dot else Stage.CONTENT

    @property
    def in_step(self) -> bool:
        """Whether each reply was one that its command can have, so that the next will be for the next command."""
        if self.final is not None and self.final.positive:
            return True
        if self.data is not None and self.data.code != START_INPUT and not 400 <= self.data.code < 600:
            return False
        others = (reply for reply in (self.mail, *self.rcpts, self.final) if reply is not None)
        return all(reply.code < 300 or reply.code >= 400 for reply in others)

    @property
    def stale(self) -> bool:
        """Whether a kept connection had ended before MAIL was answered: nobody was asked (RFC 5321 3.8)."""
        if self.mail is None:
            return self.trouble is not None and self.trouble.fault in (Fault.LOST, Fault.TIMED_OUT)
        return self.mail.code == UNAVAILABLE


def verdicts(said: Exchange, recipients: int) -> tuple[Result, ...]:
    """Give each of `recipients` its verdict."""
    if said.mail is None or not said.mail.positive:
        whole = _judge(Stage.MAIL, said.mail) if said.mail else of_trouble(said.trouble)
        return (whole,) * recipients
    rest = _rest(said)
    answered = [rest if reply.positive else _judge(Stage.RCPT, reply) for reply in said.rcpts]
    return (*answered, *[rest] * (recipients - len(answered)))


def _rest(said: Exchange) -> Result:
    """Judge for the recipients that were not refused by name."""
    if said.final is not None:
        if said.final.positive:
            return Result(Verdict.DELIVERED, _clipped(said.final), relayed=not said.dsn, timed=said.deliver_by)
        return _judge(Stage.DOT, said.final)
    closing = next((reply for reply in said.rcpts if reply.code == UNAVAILABLE), None)
    if closing is not None:
        return _judge(Stage.RCPT, closing)
    if said.data is not None and said.data.code != START_INPUT:
        return _judge(Stage.DATA, said.data)
    return of_trouble(said.trouble)


def of_trouble(trouble: Trouble | None) -> Result:
    """Judge a step that came to nothing."""
    if trouble is None:
        return _own(Fault.OURS, "")
    if trouble.reply is not None:
        return _judge(trouble.stage, trouble.reply)
    return _own(trouble.fault or Fault.OURS, trouble.text)


def _own(fault: Fault, text: str) -> Result:
    reply, verdict, scope = _FAULTS[fault]
    return Result(verdict, _clipped(reply._replace(text=text or reply.text)), scope, remote=False)


def _judge(stage: Stage, reply: Reply) -> Result:
    """Judge a reply that did not bring the transaction on."""
    scope = Scope.RECIPIENT if stage is Stage.RCPT else Scope.MESSAGE
    verdict = Verdict.FAILED if reply.permanent else Verdict.DEFERRED
    if stage is Stage.AUTH:
        # a wrong password is ours to mend: mail that waits for that must not bounce
        scope, verdict = Scope.US, Verdict.DEFERRED
    elif stage in _SETTING_UP or reply.code == UNAVAILABLE or not 400 <= reply.code < 600:
        scope, verdict = Scope.HOST, Verdict.DEFERRED
    elif reply.code in _OUT_OF_STEP and reply.enhanced[:4] in ("", "5.5."):
        # it speaks of the protocol (RFC 3463 3.6), not of the message or the recipient
        scope, verdict = Scope.HOST, Verdict.DEFERRED
    elif stage is Stage.RCPT and reply.code == _NO_STORAGE and reply.enhanced in _TOO_MANY_RECIPIENTS:
        # RFC 5321 4.5.3.1.10: it is a 452; where the status says that a mailbox is full (5.2.2), it is that
        verdict = Verdict.DEFERRED
    return Result(verdict, _clipped(reply), scope)


def _clipped(reply: Reply) -> Reply:
    return reply if len(reply.text) <= _TEXT_LIMIT else reply._replace(text=reply.text[:_TEXT_LIMIT] + "...")


def of_no_way(why: NoWay, domain: str, *, rechecked: bool) -> Result:
    """Judge a domain without a next hop.

    What may be a mistake of the moment in somebody's zone (`UNUSABLE`) fails only when it was seen before.
    """
    table = {
        NoWay.NULL_MX: (Reply(556, "5.1.10", f"{domain} accepts no mail (null MX)"), Verdict.FAILED),  # RFC 7505 3
        NoWay.NO_DOMAIN: (Reply(550, "5.1.2", f"{domain} does not exist"), Verdict.FAILED),
        NoWay.NO_HOST: (Reply(550, "5.1.2", f"{domain} has neither MX nor address records"), Verdict.FAILED),
        NoWay.LOOP: (Reply(550, "5.4.6", f"mail for {domain} loops back to this relay"), Verdict.FAILED),
        NoWay.DNS: (Reply(451, "4.4.3", f"DNS gave no answer for {domain}"), Verdict.DEFERRED),
        NoWay.UNUSABLE: (
            Reply(550, "5.4.4", f"no next hop of {domain} has an address that may be used"),
            Verdict.FAILED,
        ),
    }
    reply, verdict = table[why]
    if why is NoWay.UNUSABLE and not rechecked:
        reply, verdict = reply._replace(code=451, enhanced="4.4.4"), Verdict.DEFERRED
    return Result(verdict, reply, Scope.US if why is NoWay.DNS else Scope.SITE, remote=False)


_HINT = re.compile(
    r"\b(?:try|retry|again|later|wait|back|delayed|deferred|greylist(?:ed|ing)?|graylist(?:ed|ing)?)\b"
    r"[^0-9\n]{0,60}?(?:(?P<clock>\d{1,2}:\d\d(?::\d\d)?)|(?P<number>\d{1,6})\s*"
    r"(?P<unit>s(?:ec(?:ond)?s?)?|m(?:in(?:ute)?s?)?|h(?:(?:ou)?rs?)?))\b",
    re.IGNORECASE,
)
_UNIT = {"s": 1, "m": 60, "h": 3600}


def retry_after(text: str) -> float | None:
    """Read a peer's "try again in 5 minutes" as seconds, at most HINT_LIMIT; None if it says no such thing."""
    found = _HINT.search(text[:_TEXT_LIMIT])
    if found is None:
        return None
    if found["clock"]:
        seconds = 0
        for part in found["clock"].split(":"):
            seconds = seconds * 60 + int(part)
        seconds *= 60 if found["clock"].count(":") == 1 else 1
    else:
        seconds = int(found["number"]) * _UNIT[found["unit"][0].lower()]
    return min(float(seconds), HINT_LIMIT) or None


def hint(results: tuple[Result, ...]) -> float | None:
    """Return the longest wait that peers asked for among deferred recipients, in seconds."""
    asked = [
        wait
        for each in results
        if each.verdict is Verdict.DEFERRED and each.remote and (wait := retry_after(each.reply.text)) is not None
    ]
    return max(asked, default=None)
