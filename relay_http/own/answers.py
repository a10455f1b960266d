"""What our own API answers with, as JSON writes it; the OpenAPI document is made from these types."""

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from mta.mail.event import Event, event_json
from mta.queue.prospect import Alignment, Destination, Signature
from mta.queue.views import MessageShown, RecipientShown, Status


class Durability(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the answer is worth: all of the request is on disk (`fsync`), up to this position of the event log.

    A replay has the position, not the `milliseconds` that it took.
    """

    position: int
    scope: Literal["fsync"]
    milliseconds: float | None = None


class Accepted(msgspec.Struct, frozen=True):
    """A message that was accepted. `message_id` is that of its header."""

    id: str
    message_id: str


class SentOne(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer to POST /v1/mail. In the sandbox there is no receipt: nothing is stored."""

    id: str
    message_id: str
    sandbox: bool = False
    receipt: Durability | None = None


class SentMany(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer to POST /v1/mail/batch, the messages in the order of the request."""

    request: str
    messages: tuple[Accepted, ...]
    sandbox: bool = False
    receipt: Durability | None = None


class Foreseen(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a dry run: the message as it would be written, and what would become of it.

    `mime` is cut off after 256 KiB. What only the delivery role knows is null while that does not answer, and `trouble`
    says why. There are `more` destinations than are told of.
    """

    mime: str
    size: int
    sender: str
    recipients: tuple[str, ...]
    signature: Signature | None
    alignment: Alignment | None
    destinations: tuple[Destination, ...] | None
    more: int = 0
    trouble: str = ""


class Recipient(msgspec.Struct, frozen=True, kw_only=True):
    """One recipient, by its last event; null is what does not apply."""

    address: str
    status: Status
    at: float
    attempts: int
    reply: str | None
    relay: str | None
    retry_at: float | None


class Attached(msgspec.Struct, frozen=True, rename={"media_type": "type"}):
    """A file without its content. `size` is in octets."""

    filename: str
    media_type: str
    size: int
    inline: bool


class Shown(msgspec.Struct, frozen=True, kw_only=True, rename={"from_": "from", "message_class": "class"}):
    """A message. `from` and `to` are as its header shows them, `sender` and `recipients` are the envelope's."""

    id: str
    tenant: str
    request: str | None
    batch: str | None
    message_id: str | None
    status: Status
    accepted_at: float
    last_at: float
    send_at: float | None
    deliver_by: float | None
    sender: str
    from_: str
    to: str
    subject: str
    size: int
    message_class: str
    tags: tuple[str, ...]
    metadata: dict[str, str]
    origin: str
    dialect: str | None
    client: str | None
    key: str | None
    attachments: tuple[Attached, ...]
    recipients: tuple[Recipient, ...]


class Listed(msgspec.Struct, frozen=True):
    """A page of messages, and where the next begins, null at the end."""

    messages: tuple[Shown, ...]
    next: str | None


class Timeline(msgspec.Struct, frozen=True):
    """The events of a message, in order (docs/events.md)."""

    id: str
    events: tuple[dict[str, Any], ...]


Outcome = Literal[
    "cancelled", "rescheduled", "in_flight", "busy", "released", "delivered", "bounced", "expired", "dropped"
]


class Result(msgspec.Struct, frozen=True):
    """What came of it for a recipient: `cancelled` or `rescheduled`, or why not."""

    recipient: str
    result: Outcome


class Changed(msgspec.Struct, frozen=True):
    """The answer to cancel and reschedule."""

    id: str
    results: tuple[Result, ...]


def shown(message: MessageShown) -> Shown:
    """Show a message."""
    summary = message.summary
    return Shown(
        id=message.id,
        tenant=message.tenant,
        request=message.request or None,
        batch=message.batch or None,
        message_id=message.message_id or None,
        status=message.status,
        accepted_at=message.at,
        last_at=message.last_at,
        send_at=message.release_at or None,
        deliver_by=message.deliver_by or None,
        sender=message.sender,
        from_=summary.from_,
        to=summary.to,
        subject=summary.subject,
        size=message.size,
        message_class=message.message_class,
        tags=message.categories,
        metadata=message.custom_args,
        origin=message.origin,
        dialect=summary.dialect or None,
        client=message.client or None,
        key=summary.key or None,
        attachments=tuple([Attached(each.name, each.media_type, each.size, each.inline) for each in summary.files]),
        recipients=tuple(map(_recipient, message.recipients)),
    )


def _recipient(of: RecipientShown) -> Recipient:
    return Recipient(
        address=of.address,
        status=of.status,
        at=of.at,
        attempts=of.attempts,
        reply=of.reply or None,
        relay=of.relay or None,
        retry_at=of.retry_at or None,
    )


def timeline(id_: str, events: Sequence[tuple[int, Event]]) -> Timeline:
    """Show the events of a message."""
    return Timeline(id_, tuple([event_json(event, seq) for seq, event in events]))
