"""What a session asks its shell, and what it has for the log. A question is answered before more is read."""

import msgspec

from mta.ingress.auth import Login
from mta.mail.envelope import Envelope
from mta.mail.reply import Reply


class Authenticate(msgspec.Struct, frozen=True):
    """Who is this? Answered by `answer_login`. `failures` logins have failed in this session before."""

    login: Login
    failures: int


class StartTls(msgspec.Struct, frozen=True):
    """Do the handshake. Answered by `tls_started`."""


class TurnAway(msgspec.Struct, frozen=True):
    """No question: say `reply`, which the queue logs once for all who are turned away; 421 is the last word."""

    reply: Reply


class Store(msgspec.Struct, frozen=True):
    """Commit this stretch of a large message, of which more is to come.

    Answered by `answer`: nothing, or the reply to give at the end of data; then the shell forgets the message.
    """

    envelope: Envelope
    content: bytes


class Accept(msgspec.Struct, frozen=True):
    """Take responsibility for the message, of which this is the last stretch. Answered by `answer`: the reply."""

    envelope: Envelope
    content: bytes


class Abandon(msgspec.Struct, frozen=True):
    """Forget the message whose first stretches were stored: it is refused. Answered by `answer`."""


Question = Authenticate | StartTls | Store | Accept | Abandon


class Refusal(msgspec.Struct, frozen=True):
    """A negative reply for the log: one of a kind in a session. `about` is fit for a log and holds no secret."""

    reply: Reply
    about: str
