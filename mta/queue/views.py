"""What lists, details and timelines ask of the views: the words that every dialect translates from.

The views follow the log, so what they show is what events have told. A tenant sees its own alone (promise 9); `tenant`
None is for operators.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

import msgspec

from mta.mail.event import Event, EventType
from mta.mail.summary import Summary


class Status(StrEnum):
    """How a message stands, by its recipients: the first that holds of any of them, in this order."""

    SCHEDULED = "scheduled"  # not released yet
    QUEUED = "queued"  # not tried yet
    DEFERRED = "deferred"  # tried, and waits
    BOUNCED = "bounced"
    EXPIRED = "expired"
    DROPPED = "dropped"
    CANCELLED = "cancelled"
    DELIVERED = "delivered"


class RecipientShown(msgspec.Struct, frozen=True, kw_only=True):
    """One recipient: how it stands, by its last event."""

    address: str
    status: Status
    at: float
    attempts: int = 0
    reply: str = ""
    relay: str = ""
    retry_at: float = 0.0


class MessageShown(msgspec.Struct, frozen=True, kw_only=True):
    """One message. `at` is when it was accepted, `last_at` its last event's time, `size` in octets."""

    id: str
    tenant: str
    request: str
    batch: str
    sender: str
    status: Status
    at: float
    last_at: float
    release_at: float
    size: int
    origin: str
    client: str
    message_class: str
    message_id: str
    categories: tuple[str, ...]
    custom_args: dict[str, str]
    summary: Summary
    recipients: tuple[RecipientShown, ...]
    deliver_by: float = 0.0


class Search(msgspec.Struct, frozen=True, kw_only=True):
    """Which messages. All that is given has to hold; `words` are of the subject, dates of acceptance.

    `since` is included, `until` is not. `sent_in` is a dialect ("" for any).
    """

    ids: tuple[str, ...] = ()
    request: str = ""
    batch: str = ""
    recipient: str = ""
    sender: str = ""
    words: str = ""
    category: str = ""
    message_id: str = ""
    sent_in: str = ""
    statuses: tuple[Status, ...] = ()
    since: float | None = None
    until: float | None = None


class EventSearch(msgspec.Struct, frozen=True, kw_only=True):
    """Which events. `sender_domain` is that of the envelope's sender; `message_id` its header's."""

    types: tuple[EventType, ...] = ()
    message: str = ""
    message_id: str = ""
    recipient: str = ""
    sender: str = ""
    sender_domain: str = ""
    category: str = ""
    since: float | None = None
    until: float | None = None


class Page(msgspec.Struct, frozen=True):
    """Messages in order, and where the next page begins, "" at the end."""

    messages: tuple[MessageShown, ...]
    next: str = ""


class EventShown(msgspec.Struct, frozen=True):
    """An event and the message that it tells of."""

    seq: int
    event: Event
    message: MessageShown | None


class EventPage(msgspec.Struct, frozen=True):
    """Events in order, and where the next page begins: always somewhere, because more can come."""

    events: tuple[EventShown, ...]
    next: str


class WrongCursor(ValueError):
    """No page was given out with this cursor."""


class ViewsUnavailable(Exception):
    """The views cannot be read now: not built yet, or broken."""


class Views(Protocol):
    """Reads. Each waits until the views have reached the log's end as of its call, a second at most."""

    async def caught_up(self) -> None:
        """Wait likewise, for what must miss nothing that was accepted before: ViewsUnavailable if they do not."""

    async def message(self, tenant: str | None, message_id: str) -> MessageShown | None:
        """Show a message."""

    async def messages(
        self, tenant: str | None, search: Search, *, limit: int, cursor: str = "", offset: int = 0, oldest: bool = False
    ) -> Page:
        """List messages, the last accepted first, or the oldest; WrongCursor.

        `cursor` is a page's `next`, or the ID of a message, behind which the page begins.
        """

    async def count(self, tenant: str | None, search: Search, limit: int) -> int:
        """Count messages, up to `limit`."""

    async def timeline(self, tenant: str | None, message_id: str) -> Sequence[tuple[int, Event]]:
        """List the events of a message in order, with their sequence numbers; none if there is no such message."""

    async def events(
        self, tenant: str | None, search: EventSearch, *, limit: int, cursor: str = "", oldest: bool = False
    ) -> EventPage:
        """List events, the newest first, or the oldest; WrongCursor."""
