"""Views in memory, for the dialects' tests: in the words of mta.queue.views, of what a test puts there."""

import fnmatch
from collections.abc import Sequence
from typing import Any

import msgspec

from mta.mail.event import Event
from mta.mail.ids import MESSAGE_ID_CHARS
from mta.mail.summary import Summary
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


def message_shown(id_: str, *recipients: str, tenant: str = "shop", **more: Any) -> MessageShown:
    """Make a message as it is shown, queued unless something else is said."""
    at = more.pop("at", 1_800_000_000.0)
    status = more.pop("status", Status.QUEUED)
    fields: dict[str, Any] = {
        "id": id_,
        "tenant": tenant,
        "request": id_,
        "batch": "",
        "sender": "billing@shop.test",
        "status": status,
        "at": at,
        "last_at": at,
        "release_at": 0.0,
        "size": 1000,
        "origin": "http",
        "client": "192.0.2.7",
        "message_class": "normal",
        "message_id": f"<{id_}@mail.shop.test>",
        "categories": (),
        "custom_args": {},
        "summary": Summary(subject="Your order", from_="Shop <billing@shop.test>", to=", ".join(recipients)),
        "recipients": tuple(RecipientShown(address=each, status=status, at=at) for each in recipients),
    }
    return MessageShown(**{**fields, **more})


class MemoryViews:
    """What has happened, as far as a test says. A cursor is the number of what comes next."""

    def __init__(self) -> None:
        self.shown: list[MessageShown] = []  # the oldest first
        self.told: list[tuple[int, Event]] = []
        self.error: Exception | None = None
        self.behind = False

    async def caught_up(self) -> None:
        self._raise()
        if self.behind:
            raise ViewsUnavailable

    async def message(self, tenant: str | None, message_id: str) -> MessageShown | None:
        found = [each for each in self._of(tenant) if each.id == message_id]
        return found[0] if found else None

    async def messages(
        self, tenant: str | None, search: Search, *, limit: int, cursor: str = "", offset: int = 0, oldest: bool = False
    ) -> Page:
        found = [each for each in self._of(tenant) if _meant(each, search)]
        found = found if oldest else found[::-1]
        if len(cursor) == MESSAGE_ID_CHARS:
            behind = [number for number, each in enumerate(found) if each.id == cursor]
            if not behind:
                raise WrongCursor
            cursor = str(behind[0] + 1)
        page, following = _page(found, limit, cursor, offset)
        return Page(tuple(page), following)

    async def count(self, tenant: str | None, search: Search, limit: int) -> int:
        return min(limit, sum(_meant(each, search) for each in self._of(tenant)))

    async def timeline(self, tenant: str | None, message_id: str) -> Sequence[tuple[int, Event]]:
        self._raise()
        return [each for each in self.told if each[1].message == message_id and tenant in (None, each[1].tenant)]

    async def events(
        self, tenant: str | None, search: EventSearch, *, limit: int, cursor: str = "", oldest: bool = False
    ) -> EventPage:
        self._raise()
        with_message_id = {each.id for each in self._of(tenant) if search.message_id == each.message_id.strip("<>")}
        found = [
            EventShown(seq, event, await self.message(tenant, event.message))
            for seq, event in self.told
            if tenant in (None, event.tenant)
            and _event_meant(event, search)
            and (not search.message_id or event.message in with_message_id)
        ]
        # Here a cursor counts those before it, so that it leads back in the other direction.
        at = _number(cursor, 0 if oldest else len(found))
        page = found[at : at + limit] if oldest else found[max(0, at - limit) : at][::-1]
        return EventPage(tuple(page), str(at + len(page) if oldest else at - len(page)))

    def _of(self, tenant: str | None) -> list[MessageShown]:
        self._raise()
        return [each for each in self.shown if tenant in (None, each.tenant)]

    def _raise(self) -> None:
        if self.error is not None:
            raise self.error

    def change(self, id_: str, **fields: Any) -> None:
        """Give fields of a message other values."""
        self.shown = [msgspec.structs.replace(each, **fields) if each.id == id_ else each for each in self.shown]


def _number(cursor: str, first: int) -> int:
    if cursor and not cursor.isdigit():
        raise WrongCursor
    return int(cursor) if cursor else first


def _page(found: Sequence[Any], limit: int, cursor: str, offset: int) -> tuple[Sequence[Any], str]:
    first = _number(cursor, 0) + offset
    more = first + limit < len(found)
    return found[first : first + limit], str(first + limit) if more else ""


def _meant(message: MessageShown, search: Search) -> bool:
    words = message.summary.subject.lower().split()
    return all(
        (
            not search.ids or message.id in search.ids,
            search.request in ("", message.request),
            search.batch in ("", message.batch),
            not search.recipient or any(_fits(each.address, search.recipient) for each in message.recipients),
            not search.sender or _fits(message.sender, search.sender),
            all(word in words for word in search.words.lower().split()),
            not search.category or search.category in message.categories,
            search.message_id in ("", message.message_id),
            search.sent_in in ("", message.summary.dialect),
            not search.statuses or message.status in search.statuses,
            search.since is None or message.at >= search.since,
            search.until is None or message.at < search.until,
        )
    )


def _event_meant(event: Event, search: EventSearch) -> bool:
    return all(
        (
            not search.types or event.type in search.types,
            search.message in ("", event.message),
            not search.recipient or _fits(event.recipient, search.recipient),
            not search.sender or _fits(event.sender, search.sender),
            search.sender_domain in ("", event.sender.rpartition("@")[2]),
            not search.category or search.category in event.categories,
            search.since is None or event.at >= search.since,
            search.until is None or event.at < search.until,
        )
    )


def _fits(address: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(address.lower(), pattern.lower())
