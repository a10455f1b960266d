"""What an attempt came to: one verdict per recipient, and what the events say about the attempt."""

from enum import IntEnum, StrEnum

import msgspec

from mta.mail.reply import Reply


class Verdict(StrEnum):
    """The three ends of an attempt for one recipient. What nobody understands is DEFERRED."""

    DELIVERED = "delivered"
    DEFERRED = "deferred"
    FAILED = "failed"


class Scope(StrEnum):
    """Whom a verdict speaks of; limits and lessons are kept by it."""

    RECIPIENT = "recipient"
    MESSAGE = "message"
    HOST = "host"
    SITE = "site"
    US = "us"


class Reach(IntEnum):
    """How far an attempt got with the hosts of its site, in order."""

    NOBODY = 0  # none was dialled
    HOST = 1  # one was dialled, no session came of it: connection, greeting, EHLO or STARTTLS
    SESSION = 2  # a session, without a MAIL that was accepted
    TRANSACTION = 3  # MAIL was accepted


class Result(msgspec.Struct, frozen=True):
    """The verdict for one recipient and the reply that gave it.

    `remote` tells whether `reply` was spoken by the next hop (False: it is our own words, as for a DNS
    failure). `relayed` means delivered to a next hop that does not do DSN (RFC 3461 5.2.3), `timed` to one that
    keeps deadlines (RFC 2852).
    """

    verdict: Verdict
    reply: Reply
    scope: Scope = Scope.RECIPIENT
    remote: bool = True
    relayed: bool = False
    timed: bool = False


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt for one entry: `results` in the order of the job's recipients, `site` the name of where it went.

    `relay` is `host[address]:port` of the last peer spoken to, "" when none was reached. `reach` is how far
    the attempt got with any of them. `closed_after`: so many transactions after which a kept connection was
    answered 421 to MAIL, 0 if none was; the attempt went on with another. `dialled` is how many connections it
    tried to make. `source` is our address there, `source_name` the configured source that was to be used, ""
    without any. `counted` is False when the attempt failed before anybody could be asked (DNS out): it costs
    no step of the retry schedule. `broken_off`: by us, before the final dot. `retry_after` is the peer's own "try
    again in", in seconds; `greylisted`: it wants the same again, from the same source at the same address. Times are
    absolute seconds by the queue's clock.
    """

    results: tuple[Result, ...]
    started_at: float
    ended_at: float
    site: str
    relay: str = ""
    reach: Reach = Reach.NOBODY
    closed_after: int = 0
    dialled: int = 0
    source: str = ""
    source_name: str = ""
    tls: str = ""
    policy: str = ""
    signed: str = ""
    counted: bool = True
    broken_off: bool = False
    retry_after: float | None = None
    greylisted: bool = False
