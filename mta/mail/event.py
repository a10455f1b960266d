"""Events: what is told of a message, in the words that webhooks, log and API share (features C12)."""

from enum import StrEnum
from typing import Any

import msgspec

from mta.mail.summary import Summary, summary_json


class EventType(StrEnum):
    """The closed list of event types; docs/events.md is checked against it."""

    ACCEPTED = "accepted"
    DROPPED = "dropped"
    DEFERRED = "deferred"
    DELIVERED = "delivered"
    BOUNCED = "bounced"
    EXPIRED = "expired"
    DSN_SENT = "dsn_sent"
    CANCELLED = "cancelled"
    CHANGED = "changed"


ENDS = frozenset({EventType.DELIVERED, EventType.BOUNCED, EventType.EXPIRED, EventType.DROPPED, EventType.CANCELLED})
"""The types of which each recipient has exactly one, its last."""


class Event(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One thing that happened; one recipient per event, except `accepted`, which has one a message.

    `id` is the message id with the event's number within the message and never changes. Fields at
    their default mean "does not apply". New fields go to the end: stored events are arrays.
    """

    version: int = 1
    id: str
    type: EventType
    at: float
    tenant: str
    message: str
    entry: str = ""
    recipient: str = ""
    sender: str = ""
    recipients: tuple[str, ...] = ()
    size: int = 0
    origin: str = ""
    client: str = ""
    message_class: str = ""
    attempt: int = 0
    relay: str = ""
    source: str = ""
    tls: str = ""
    policy: str = ""
    signed: str = ""
    reply: str = ""
    status: str = ""
    reason: str = ""
    delay: float = 0.0
    retry_at: float = 0.0
    dsn: str = ""
    request: str = ""
    categories: tuple[str, ...] = ()
    custom_args: dict[str, str] = msgspec.field(default_factory=dict)
    note: str = ""
    deliver_by: float = 0  # ints, of which most events have to store one octet each
    release_at: float = 0
    priority: int = 0
    source_name: str = ""
    tls_required: str = ""
    message_id: str = ""
    batch: str = ""
    summary: Summary | None = None


def event_id(message_id: str, entry_number: int, number: int) -> str:
    """Name an event: message id, entry number (0: the message itself), number within the entry."""
    return f"{message_id}.{entry_number}.{number}"


_ALWAYS = ("id", "type", "at", "tenant", "message")


def event_json(event: Event, seq: int) -> dict[str, Any]:
    """Show an event as the API, the command line and webhooks do; fields that do not apply are left out."""
    shown: dict[str, Any] = {"seq": seq}
    for name in Event.__struct_fields__:
        value = getattr(event, name)
        if name != "version" and (value or name in _ALWAYS):
            shown[name] = summary_json(value) if isinstance(value, Summary) else value
    return shown
