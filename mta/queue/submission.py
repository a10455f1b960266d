"""What a door hands to the queue: a translated request, with nothing left of the protocol it came by."""

import msgspec

from mta.mail.envelope import Envelope
from mta.mail.summary import Summary
from mta.spool.records import MessageClass, Origin, Segment


class Submission(msgspec.Struct, frozen=True, kw_only=True):
    """One message, authenticated and validated, as it is to be kept.

    `id` is made by the door, which writes it into the trace header. The content is the `stored`
    segments, then `content`, then the `shared` segments, which several submissions of one call may have in common;
    every line of it ends with CRLF. `sign_domain` is the sender domain to sign
    for, "" with the reason in `note` when it goes unsigned. `request` groups messages of one HTTP request;
    `batch` those that their sender may pause and cancel together. `retry_intervals` and `lifetime` (from the release
    on) are seconds in place of the configured ones, where given.
    """

    id: str
    tenant: str
    envelope: Envelope
    origin: Origin
    content: bytes = b""
    stored: tuple[Segment, ...] = ()
    shared: tuple[Segment, ...] = ()
    message_class: MessageClass = MessageClass.NORMAL
    sign_domain: str = ""
    header_message_id: str = ""
    client: str = ""
    request: str = ""
    categories: tuple[str, ...] = ()
    custom_args: dict[str, str] = msgspec.field(default_factory=dict)
    note: str = ""
    batch: str = ""
    retry_intervals: tuple[float, ...] = ()
    lifetime: float = 0.0
    summary: Summary | None = None


class Receipt(msgspec.Struct, frozen=True):
    """The answer to an accepted submission: durable when it is returned. `position` is in the event log."""

    message_id: str
    position: int
