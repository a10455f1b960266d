"""What the spool stores of a message: typed records, arrays on disk, a version first.

New fields go to the end with a default, so that older records can still be read. Times are absolute
seconds. Text fields come from outside; they are values, never keys.
"""

from enum import IntEnum, StrEnum
from typing import NamedTuple

import msgspec

from mta.mail.envelope import Recipient


class MessageClass(IntEnum):
    """How urgent a message is against others of its tenant."""

    HIGH = 0
    NORMAL = 1
    BULK = 2


class Origin(StrEnum):
    """The door a message came in by."""

    SUBMISSION = "submission"
    RELAY = "relay"
    HTTP = "http"
    DSN = "dsn"
    TLS_REPORT = "tls_report"


class State(IntEnum):
    """The state of one recipient. All but QUEUED are ends (promise 3)."""

    QUEUED = 0
    DELIVERED = 1
    BOUNCED = 2
    EXPIRED = 3
    DROPPED = 4
    CANCELLED = 5


class Segment(msgspec.Struct, frozen=True, array_like=True):
    """A stretch of content in the spool: `size` octets under id `content`, sealed with `key`.

    One that is `shared` stands in other messages too, and stays until the last of them has ended.
    """

    content: bytes
    size: int
    key: bytes
    shared: bool = False


class Message(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """What is known of a message beside its recipients. Lives until its last entry has ended.

    `entries` is how many it began with. `release_at` is when its lifetime starts (acceptance or send time). What
    `deliver_by`, `by_mode`, `hold`, `priority` and `tls_required` mean, the envelope says. `retry_intervals`
    (seconds) are its own, in place of the configured ones.
    """

    version: int = 1
    id: str
    tenant: str
    sender: str
    origin: Origin
    message_class: MessageClass = MessageClass.NORMAL
    accepted_at: float
    release_at: float
    expires_at: float
    segments: tuple[Segment, ...]
    entries: int
    eight_bit: bool = False
    smtputf8: bool = False
    ret: str = ""
    envid: str = ""
    sign_domain: str = ""
    header_message_id: str = ""
    request: str = ""
    categories: tuple[str, ...] = ()
    custom_args: dict[str, str] = msgspec.field(default_factory=dict)
    deliver_by: float = 0  # an int, of which most messages have to store one octet
    by_mode: str = ""
    hold: str = ""
    priority: int = 0
    tls_required: str = ""
    batch: str = ""
    retry_intervals: tuple[float, ...] = ()

    @property
    def scheduled(self) -> bool:
        """Whether it came before its time to go out."""
        return self.release_at > self.accepted_at

    @property
    def needs_tls(self) -> bool:
        """Whether it goes out with REQUIRETLS or not at all; a report is not lost for want of it (RFC 8689 5)."""
        return self.tls_required == "yes" and bool(self.sender)

    @property
    def firm(self) -> bool:
        """Whether it ends at a deadline that its sender set: no attempt is made after that."""
        return 0 < self.deliver_by <= self.expires_at and not self.by_mode.startswith("N")

    @property
    def size(self) -> int:
        """Octets of content, those that are shared too."""
        segments = self.segments
        return segments[0].size if len(segments) == 1 else sum(segment.size for segment in segments)


class Timer(IntEnum):
    """What is to be done with an entry at its `timer_at`, whatever else it waits for."""

    DELAY_NOTICE = 1
    EXPIRY = 2


class RecipientState(msgspec.Struct, frozen=True, array_like=True):
    """One recipient of an entry and how it stands."""

    recipient: Recipient
    state: State = State.QUEUED


class Hold(msgspec.Struct, frozen=True, array_like=True):
    """Since when an entry is held, and on whose word: what a tenant holds, its own word and an operator's release."""

    at: float
    reason: str
    by_tenant: bool = False


class Entry(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """One message for one destination domain, at most 50 recipients: the unit of work and of fairness.

    `attempts` counts those begun; `steps` those that cost a step of the retry schedule; `events` the
    events told of this entry so far (the next one's number). `last_reply` explains the wait. The spool
    counts `revision` up with every change. One that is `held` is in no lane, and its timer comes all the
    same; `hold` says more, but for what was held before there was one. `relay` is the next hop that an
    operator named (`host:port`), "" for what routes and MX say. `again_at` is where it was greylisted
    (`host[address]:port`), to be asked first at the next attempt, and `again_from` from which source; "" for
    as it comes.
    """

    version: int = 1
    message: str
    number: int
    tenant: str
    message_class: MessageClass
    domain: str
    recipients: tuple[RecipientState, ...]
    due_at: float
    expires_at: float
    timer_at: float
    timer: Timer = Timer.EXPIRY
    attempts: int = 0
    steps: int = 0
    events: int = 0
    last_reply: str = ""
    last_relay: str = ""
    last_attempt_at: float = 0.0
    revision: int = 0
    held: bool = False
    relay: str = ""
    hold: Hold | None = None
    again_at: str = ""
    again_from: str = ""

    @property
    def id(self) -> str:
        """The entry id."""
        return f"{self.message}.{self.number}"

    @property
    def lane(self) -> "Lane":
        """Where it waits."""
        return Lane(self.tenant, self.message_class, self.destination)

    @property
    def destination(self) -> str:
        """What says where it goes: its domain, or the relay it was redirected to, which has a lane of its own."""
        return self.relay or self.domain

    @property
    def waiting(self) -> tuple[RecipientState, ...]:
        """The recipients whose state is not an end yet."""
        found = self.recipients
        if len(found) == 1:  # PERF: nearly every entry, asked a dozen times a delivery: 0.3 instead of 1.1 us
            return found if found[0].state is State.QUEUED else ()
        return tuple(each for each in found if each.state is State.QUEUED)


class Wish(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """What somebody wants of an entry that has not ended; None is "as it is".

    `end` (DROPPED or CANCELLED) is for all who wait, and comes before everything else. `relay` "" gives a
    redirected entry back to routes and MX. `reason` is told in the events. `by_tenant` says that `held` is a
    tenant's word, which does not undo an operator's.
    """

    version: int = 1
    end: State | None = None
    held: bool | None = None
    relay: str | None = None
    message_class: MessageClass | None = None
    reason: str = ""
    by_tenant: bool = False

    def stops(self, entry: "Entry") -> bool:
        """Whether a delivery of an entry that is under way is not wanted any more."""
        return self.end is not None or self.held is True or self.relay not in (None, entry.relay)


class Claim(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """Who works on an entry: the owner's epoch, the attempt's number, and when it is due should we die.

    `wish` was left by somebody meanwhile, for when the attempt is over.
    """

    version: int = 1
    epoch: int
    attempt: int
    retry_at: float
    wish: Wish | None = None


class KeptAnswer(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """What is kept under a name until `until`: the digest of what was asked, the answer, and its log position."""

    version: int = 1
    until: float
    digest: bytes
    value: bytes
    position: int


class Lane(NamedTuple):
    """What a tenant has waiting of one class for one destination domain (or redirected to one relay, `host:port`)."""

    tenant: str
    message_class: MessageClass
    domain: str


RECIPIENTS_PER_ENTRY = 50
