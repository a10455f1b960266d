"""Views in memory, for resources that read: made of events as they are told, or of what a test puts there."""

from collections.abc import Sequence

import msgspec

from mta.clock import Clock
from mta.mail.event import Event, EventType
from mta.mail.summary import NOTHING
from mta.queue.views import (
    EventPage,
    EventSearch,
    EventShown,
    MessageShown,
    Page,
    RecipientShown,
    Search,
    Status,
    ViewsUnavailable,
    WrongCursor,
)
from mta.spool.interface import Spool

_STATUSES = {
    EventType.DEFERRED: Status.DEFERRED,
    EventType.DELIVERED: Status.DELIVERED,
    EventType.BOUNCED: Status.BOUNCED,
    EventType.EXPIRED: Status.EXPIRED,
    EventType.DROPPED: Status.DROPPED,
    EventType.CANCELLED: Status.CANCELLED,
}


class MemoryViews:
    """The protocol of mta.queue.views. With a spool it follows the log of that."""

    def __init__(self, clock: Clock, spool: Spool | None = None) -> None:
        self.shown: dict[str, MessageShown] = {}
        self.told: list[tuple[int, Event]] = []
        self.unavailable = False
        self._clock = clock
        self._spool = spool
        self._position = 0

    def tell(self, event: Event) -> None:
        """Follow one event."""
        self.told.append((len(self.told) + 1, event))
        if event.type is EventType.ACCEPTED:
            self.shown[event.message] = _accepted(event)
        elif event.type in _STATUSES:
            shown = self.shown[event.message]
            changed = tuple([_changed(each, event) for each in shown.recipients])
            self.shown[event.message] = msgspec.structs.replace(shown, recipients=changed, last_at=event.at)

    async def message(self, tenant: str | None, message_id: str) -> MessageShown | None:
        return next((each for each in await self._seen(tenant) if each.id == message_id), None)

    async def messages(
        self, tenant: str | None, search: Search, *, limit: int, cursor: str = "", offset: int = 0, oldest: bool = False
    ) -> Page:
        found = [each for each in await self._seen(tenant) if _matches(each, search)]
        if not oldest:
            found.reverse()
        first = _place(cursor) + offset
        after = first + limit
        return Page(tuple(found[first:after]), f"after-{after}" if len(found) > after else "")

    async def count(self, tenant: str | None, search: Search, limit: int) -> int:
        return min(limit, sum(_matches(each, search) for each in await self._seen(tenant)))

    async def timeline(self, tenant: str | None, message_id: str) -> Sequence[tuple[int, Event]]:
        await self._seen(tenant)
        return [
            (seq, each) for seq, each in self.told if each.message == message_id and tenant in (None, each.tenant)
        ]

    async def events(
        self, tenant: str | None, search: EventSearch, *, limit: int, cursor: str = "", oldest: bool = False
    ) -> EventPage:
        seen = {each.id: each for each in await self._seen(tenant)}
        found = [
            EventShown(seq, each, seen.get(each.message))
            for seq, each in self.told
            if tenant in (None, each.tenant) and _tells(each, seen.get(each.message), search)
        ]
        if not oldest:
            found.reverse()
        first = _place(cursor)
        page = found[first : first + limit]
        return EventPage(tuple(page), f"after-{first + len(page)}")

    async def _seen(self, tenant: str | None) -> list[MessageShown]:
        if self.unavailable:
            raise ViewsUnavailable("the views are being built")
        if self._spool is not None:
            for position, event in await self._spool.events_after(self._position, 10_000):
                self._position = position
                self.tell(event)
        now = self._clock.now()
        return [_standing(each, now) for each in self.shown.values() if tenant in (None, each.tenant)]


def _accepted(event: Event) -> MessageShown:
    recipients = [RecipientShown(address=each, status=Status.QUEUED, at=event.at) for each in event.recipients]
    return MessageShown(
        id=event.message,
        tenant=event.tenant,
        request=event.request,
        batch=event.batch,
        sender=event.sender,
        status=Status.QUEUED,
        at=event.at,
        last_at=event.at,
        release_at=event.release_at or event.at,
        size=event.size,
        origin=event.origin,
        client=event.client,
        message_class=event.message_class,
        message_id=event.message_id,
        categories=event.categories,
        custom_args=event.custom_args,
        summary=event.summary or NOTHING,
        recipients=tuple(recipients),
        deliver_by=event.deliver_by,
    )


def _changed(recipient: RecipientShown, event: Event) -> RecipientShown:
    if recipient.address != event.recipient:
        return recipient
    return RecipientShown(
        address=recipient.address,
        status=_STATUSES[event.type],
        at=event.at,
        attempts=event.attempt,
        reply=event.reply,
        relay=event.relay,
        retry_at=event.retry_at,
    )


def _standing(shown: MessageShown, now: float) -> MessageShown:
    """Say how it stands: the first status that holds of any recipient."""
    waits = Status.SCHEDULED if shown.release_at > now else Status.QUEUED
    recipients = tuple(
        [msgspec.structs.replace(each, status=waits) if each.status is Status.QUEUED else each for each in shown.recipients]
    )
    holding = {each.status for each in recipients}
    return msgspec.structs.replace(
        shown, recipients=recipients, status=next(each for each in Status if each in holding)
    )


def _matches(shown: MessageShown, search: Search) -> bool:
    wanted = [
        (search.ids, shown.id in search.ids),
        (search.request, shown.request == search.request),
        (search.batch, shown.batch == search.batch),
        (search.recipient, search.recipient.lower() in [each.address.lower() for each in shown.recipients]),
        (search.sender, search.sender.lower() in (shown.sender.lower(), shown.summary.from_.lower())),
        (search.words, all(each in shown.summary.subject.lower() for each in search.words.lower().split())),
        (search.category, search.category in shown.categories),
        (search.message_id, shown.message_id.strip("<>") == search.message_id.strip("<>")),
        (search.sent_in, shown.summary.dialect == search.sent_in),
        (search.statuses, shown.status in search.statuses),
        (search.since is not None, search.since is None or shown.at >= search.since),
        (search.until is not None, search.until is None or shown.at < search.until),
    ]
    return all(holds for asked, holds in wanted if asked)


def _tells(event: Event, shown: MessageShown | None, search: EventSearch) -> bool:
    wanted = [
        (search.types, event.type in search.types),
        (search.message, event.message == search.message),
        (search.recipient, search.recipient.lower() in (event.recipient.lower(), *map(str.lower, event.recipients))),
        (search.sender, event.sender.lower() == search.sender.lower()),
        (search.sender_domain, event.sender.lower().endswith(f"@{search.sender_domain.lower()}")),
        (search.category, shown is not None and search.category in shown.categories),
        (search.since is not None, search.since is None or event.at >= search.since),
        (search.until is not None, search.until is None or event.at < search.until),
    ]
    return all(holds for asked, holds in wanted if asked)


def _place(cursor: str) -> int:
    if not cursor:
        return 0
    if not cursor.startswith("after-") or not cursor[6:].isdigit():
        raise WrongCursor(cursor)
    return int(cursor[6:])
