"""The resources: send, list, get, cancel."""

from collections.abc import Sequence

import falcon.asgi
import msgspec

from mta.accounts.keys import ApiKey
from mta.mail.address import AddressError
from mta.queue.views import MessageShown, Search, WrongCursor
from relay_http.answer import JSON, Answer
from relay_http.body import Request
from relay_http.door import Door
from relay_http.iso import read_day, write_time
from relay_http.kept import key_of
from relay_http.once import Sends
from relay_http.problem import Problem, Refusal, Why, busy, invalid, not_found
from relay_http.readers import number_of
from relay_http.scheduled import Cancelling, cancel_scheduled, is_message_id
from relay_http.sendarix.errors import SENDARIX
from relay_http.sendarix.request import Send, read_send
from relay_http.sendarix.shown import PREFIX, STATUSES, detailed, listed
from relay_http.sending import Order, by_the_time, type_respond
from relay_http.values import address
from relay_http.writing import Named

BODY_LIMIT = 50_000_000  # octets
LIMIT, LIMIT_MOST = 25, 100
_encode = msgspec.json.Encoder().encode


class Messages(Sends):
    """`/messages`."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def on_post(self, req: Request, resp: falcon.asgi.Response) -> None:
        """Send a message."""
        door = self._door
        key = await door.enter(req, SENDARIX, "send")
        with door.budget.hold() as held:
            now = door.clock.now()
            send, late = await door.json(
                req, held, lambda plain: by_the_time(lambda at: read_send(plain, at), now), BODY_LIMIT
            )
            order = Order(
                key=key,
                endpoint="messages",
                dialect=SENDARIX.name,
                messages=[send.outgoing],
                respond=_responding(send, now),
                idempotency_key=_idempotency_key(req, send),
                too_late=late,
            )
            sent = await door.sender.send(req, order, held)
        sent.answer.put(resp)

    async def on_get(self, req: Request, resp: falcon.asgi.Response) -> None:
        """List messages, the last first."""
        door = self._door
        key = await door.enter(req, SENDARIX, "read")
        search, limit, cursor = _search(req), _limit(req), req.get_param("cursor") or ""
        try:
            page = await door.views.messages(key.tenant, search, limit=limit, cursor=cursor)
        except WrongCursor:
            raise invalid("No page was given out with this cursor.", "cursor") from None
        shown = {"data": [listed(each) for each in page.messages], "has_more": bool(page.next)}
        _answer(resp, shown | {"next_cursor": page.next or None})


class Message:
    """`/messages/{message_id}`."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def on_get(self, req: Request, resp: falcon.asgi.Response, id_: str) -> None:
        """Show a message with its timeline."""
        door = self._door
        key = await door.enter(req, SENDARIX, "read")
        shown = await _found(door, key, id_)
        events = [event for _, event in await door.views.timeline(key.tenant, shown.id)]
        _answer(resp, detailed(shown, events))

    async def on_delete(self, req: Request, resp: falcon.asgi.Response, id_: str) -> None:
        """Cancel a message that is scheduled; one that is cancelled stays so."""
        door = self._door
        key = await door.allowed(req, SENDARIX, "send")
        came = await cancel_scheduled(door, key, id_.removeprefix(PREFIX))
        if came is Cancelling.UNKNOWN:
            raise _unknown()
        if came is Cancelling.RELEASED:
            raise not_found("There is no scheduled message with this id: it was sent, or its time has come.")
        if came is Cancelling.BUSY:
            raise busy("The message was changed meanwhile, time and again: ask once more.", 1)
        if came is Cancelling.IN_FLIGHT:
            said = "The message is being delivered: it is cancelled unless that succeeds."
            raise Refusal(409, Problem(said), why=Why.CONFLICT)
        _answer(resp, listed(await _found(door, key, id_)))


def _responding(send: Send, now: float) -> type_respond:
    def queued(named: Sequence[Named]) -> Answer:
        at = send.outgoing.release_at
        body = {
            "message_id": PREFIX + named[0].id,
            "status": "scheduled" if at else "queued",
            "recipient": send.outgoing.to[0].address,
            "created_at": write_time(now),
        }
        return Answer(status=200, body=_encode(body | {"scheduled_time": write_time(at)} if at else body))

    return queued


def _idempotency_key(req: Request, send: Send) -> str:
    given = key_of(req)
    if given and send.idempotency_key not in ("", given):
        raise Refusal(422, Problem("This is not the key of the header Idempotency-Key.", "headers.X-Idempotency-Key"))
    return given or send.idempotency_key


def _search(req: Request) -> Search:
    status, recipient = req.get_param("status") or "", req.get_param("recipient") or ""
    if status and status not in STATUSES:
        raise invalid(f"This is none of {', '.join(STATUSES)}.", "status")
    try:
        recipient = address(recipient) if recipient else ""
    except AddressError:
        raise invalid("This is not a valid email address.", "recipient") from None
    since, until = _day(req, "date_from"), _day(req, "date_to")
    return Search(
        sent_in=SENDARIX.name,
        statuses=STATUSES.get(status, ()),
        recipient=recipient,
        since=since and since[0],
        until=until and until[1],
    )


def _day(req: Request, name: str) -> tuple[float, float] | None:
    text = req.get_param(name)
    try:
        return read_day(text) if text else None
    except ValueError:
        raise invalid("This is neither a date such as 2027-06-01 nor an ISO 8601 timestamp.", name) from None


def _limit(req: Request) -> int:
    number = number_of(req.get_param("limit") or str(LIMIT), 1, LIMIT_MOST)
    if number is None:
        raise invalid(f"This is not a number from 1 to {LIMIT_MOST}.", "limit")
    return number


async def _found(door: Door, key: ApiKey, id_: str) -> MessageShown:
    message_id = id_.removeprefix(PREFIX)
    shown = await door.views.message(key.tenant, message_id) if is_message_id(message_id) else None
    if shown is None:
        raise _unknown()
    return shown


def _unknown() -> Refusal:
    return not_found("There is no message with this id.")


def _answer(resp: falcon.asgi.Response, shown: object) -> None:
    resp.data = _encode(shown)
    resp.content_type = JSON
