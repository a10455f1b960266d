"""/v3/messages, the activity feed: a row for each recipient of a message, from the views.

A row's id is the id that mail/send answered with, a dot, the message's own id, a dot, and the number of the recipient:
clients find what they sent by what stands before the first dot.
"""

import datetime as dt

import falcon.asgi
import msgspec

from mta.accounts.keys import ApiKey
from mta.mail.event import Event, EventType
from mta.queue.views import MessageShown, RecipientShown
from relay_http.answer import put_json
from relay_http.body import Request
from relay_http.door import Door
from relay_http.problem import Problem, Refusal, Why, invalid, not_found
from relay_http.sendgrid.errors import SENDGRID
from relay_http.sendgrid.query import Activity, message_of, read_query, status_of

_ROWS, _MOST_ROWS = 10, 1000
_PAGE = 500  # messages
_LOOKED_AT = 10_000  # messages, for one answer
_NAMES = {
    EventType.ACCEPTED: "processed",
    EventType.DELIVERED: "delivered",
    EventType.DEFERRED: "deferred",
    EventType.BOUNCED: "bounce",
    EventType.EXPIRED: "bounce",
    EventType.DROPPED: "dropped",
    EventType.CANCELLED: "dropped",
}


class Messages:
    """The resource of messages."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def on_get(self, req: Request, resp: falcon.asgi.Response) -> None:
        """List rows that a query means, the last accepted first."""
        key = await _reader(self._door, req)
        activity, limit = read_query(req.get_param("query") or ""), _limit(req)
        rows: list[dict[str, object]] = []
        cursor, looked_at = "", 0
        while len(rows) < limit and looked_at < _LOOKED_AT:
            page = await self._door.views.messages(key.tenant, activity.search, limit=_PAGE, cursor=cursor)
            rows += _rows(page.messages, activity)
            cursor, looked_at = page.next, looked_at + _PAGE
            if not cursor:
                break
        put_json(resp, {"messages": rows[:limit]})

    async def on_get_one(self, req: Request, resp: falcon.asgi.Response, row: str) -> None:
        """Show a row with its events."""
        key = await _reader(self._door, req)
        message = await self._door.views.message(key.tenant, message_of(row))
        number = _number(row)
        if message is None or not 0 <= number < len(message.recipients):
            raise not_found()
        recipient = message.recipients[number]
        events = [event for _, event in await self._door.views.timeline(key.tenant, message.id)]
        put_json(
            resp,
            _row(message, recipient, number)
            | {
                "template_id": "",
                "asm_group_id": 0,
                "teammate": "",
                "api_key_id": message.summary.key,
                "categories": message.categories,
                "unique_args": msgspec.json.encode(message.custom_args).decode(),
                "originating_ip": message.client,
                "outbound_ip": "",
                "outbound_ip_type": "",
                "events": [_event(each) for each in events if _is_about(each, recipient)],
            },
        )


async def _reader(door: Door, req: Request) -> ApiKey:
    key = await door.enter(req, SENDGRID, "messages.read")
    if not key.tenant:  # an operator's: there is no feed of everybody's mail
        raise Refusal(403, Problem("access forbidden"), why=Why.FORBIDDEN)
    return key


def _limit(req: Request) -> int:
    text = req.get_param("limit", default=str(_ROWS))
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(_MOST_ROWS)) and 1 <= int(text) <= _MOST_ROWS):
        raise invalid(f"The limit is a number from 1 to {_MOST_ROWS}.", "limit")
    return int(text)


def _rows(messages: tuple[MessageShown, ...], activity: Activity) -> list[dict[str, object]]:
    return [
        _row(message, recipient, number)
        for message in messages
        for number, recipient in enumerate(message.recipients)
        if activity.admits(message, recipient, _row_id(message, number))
    ]


def _row(message: MessageShown, recipient: RecipientShown, number: int) -> dict[str, object]:
    return {
        "from_email": message.sender,
        "msg_id": _row_id(message, number),
        "subject": message.summary.subject,
        "to_email": recipient.address,
        "status": status_of(recipient.status),
        "opens_count": 0,
        "clicks_count": 0,
        "last_event_time": _time(recipient.at),
    }


def _row_id(message: MessageShown, number: int) -> str:
    return f"{message.request or message.id}.{message.id}.{number}"


def _number(row: str) -> int:
    """Return the number of the recipient, 0 where none is named, -1 if it is none."""
    _, _, text = row.partition(".")[2].partition(".")
    if not text:
        return 0
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 4 else -1


def _is_about(event: Event, recipient: RecipientShown) -> bool:
    return event.type in _NAMES and event.recipient in ("", recipient.address)


def _event(event: Event) -> dict[str, object]:
    shown: dict[str, object] = {"event_name": _NAMES[event.type], "processed": _time(event.at)}
    if event.relay:
        shown["mx_server"] = event.relay
    if event.attempt:
        shown["attempt_num"] = event.attempt
    if event.type in (EventType.BOUNCED, EventType.EXPIRED):
        shown["bounce_type"] = "hard" if event.type is EventType.BOUNCED else "soft"
    if event.type is not EventType.ACCEPTED and (event.reply or event.reason):
        shown["reason"] = event.reply or event.reason
    return shown


def _time(at: float) -> str:
    return dt.datetime.fromtimestamp(int(at), dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
