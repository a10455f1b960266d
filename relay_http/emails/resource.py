"""The resources: send, list, detail, cancel, resend."""

from collections.abc import Sequence

import falcon.asgi
import msgspec

from mta.accounts.keys import ApiKey
from mta.queue.views import MessageShown, Search
from relay_http.answer import JSON, Answer
from relay_http.body import Held, Request
from relay_http.door import Door
from relay_http.emails.errors import EMAILS
from relay_http.emails.request import read_email
from relay_http.emails.shown import DELIVERING, STATUSES, WAITING, detailed, listed, status_word
from relay_http.iso import write_time
from relay_http.kept import key_of
from relay_http.once import Sends
from relay_http.outgoing import Outgoing
from relay_http.problem import Problem, Refusal, Why, busy, not_found
from relay_http.readers import number_of
from relay_http.scheduled import Cancelling, cancel_scheduled, is_message_id
from relay_http.sending import Order, by_the_time
from relay_http.stored import read_again, read_stored_texts
from relay_http.writing import Named

LIMIT, LIMIT_MOST, OFFSET_MOST = 50, 100, 10_000
_encode = msgspec.json.Encoder().encode


class Emails(Sends):
    """`/emails`."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def on_post(self, req: Request, resp: falcon.asgi.Response) -> None:
        """Send an email."""
        door = self._door
        key = await door.enter(req, EMAILS, "send")
        with door.budget.hold() as held:
            now = door.clock.now()
            outgoing, late = await door.json(
                req, held, lambda plain: by_the_time(lambda at: read_email(plain, at), now)
            )
            order = _order(req, key, outgoing, "emails", now)
            await _send(door, req, resp, held, msgspec.structs.replace(order, too_late=late))

    async def on_get(self, req: Request, resp: falcon.asgi.Response) -> None:
        """List emails, the last first."""
        door = self._door
        key = await door.enter(req, EMAILS, "read")
        asked = req.get_param("status") or ""
        if asked and asked not in STATUSES:
            raise _wrong("status", f"This is none of {', '.join(STATUSES)}.")
        limit, offset = _number(req, "limit", LIMIT, 1, LIMIT_MOST), _number(req, "offset", 0, 0, OFFSET_MOST)
        ids = await _in_flight(door, key) if asked == DELIVERING else ()
        items: list[dict[str, object]] = []
        more = False
        if ids or asked != DELIVERING:
            search = Search(sent_in=EMAILS.name, statuses=STATUSES.get(asked, ()), ids=ids)
            page = await door.views.messages(key.tenant, search, limit=limit, offset=offset)
            shown = [(each, status_word(each, in_flight=await _claimed(door, each))) for each in page.messages]
            items, more = [listed(*each) for each in shown if asked in ("", each[1])], bool(page.next)
        _answer(resp, {"items": items, "limit": limit, "offset": offset, "has_more": more})


class Email:
    """`/emails/{id}`."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def on_get(self, req: Request, resp: falcon.asgi.Response, id_: str) -> None:
        """Show an email with its attempts, and with its texts while they are stored."""
        door = self._door
        key = await door.enter(req, EMAILS, "read")
        shown = await _found(door, key, id_)
        events = [event for _, event in await door.views.timeline(key.tenant, id_)]
        texts = await read_stored_texts(door.spool, door.budget, key, shown)
        word = status_word(shown, in_flight=await _claimed(door, shown))
        _answer(resp, detailed(shown, word, events, texts))


class Cancel:
    """`/emails/{id}/cancel`."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def on_post(self, req: Request, resp: falcon.asgi.Response, id_: str) -> None:
        """Cancel an email that is scheduled; one that is cancelled stays so."""
        door = self._door
        key = await door.allowed(req, EMAILS, "send")
        came = await cancel_scheduled(door, key, id_)
        if came is Cancelling.UNKNOWN:
            raise not_found()
        if came is Cancelling.BUSY:
            raise busy("The email was changed meanwhile, time and again: ask once more.", 1)
        if came is Cancelling.IN_FLIGHT:
            said = "The email is being delivered: it is cancelled unless that succeeds."
            raise Refusal(409, Problem(said), why=Why.CONFLICT)
        shown = await _found(door, key, id_)
        word = status_word(shown)
        if came is Cancelling.RELEASED:
            said = f"Only a scheduled email can be cancelled, and the status of this one is {word}."
            raise Refusal(409, Problem(said), why=Why.CONFLICT)
        _answer(resp, listed(shown, word))


class Resend(Sends):
    """`/emails/{id}/resend`."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def on_post(self, req: Request, resp: falcon.asgi.Response, id_: str) -> None:
        """Send the same once more, to all of its recipients."""
        door = self._door
        key = await door.enter(req, EMAILS, "send")
        shown = await _found(door, key, id_)
        endpoint = f"emails/{id_}/resend"
        replayed = await door.sender.replayed(key.tenant, endpoint, key_of(req))
        if replayed is not None:  # the content may be gone by now
            replayed.answer.put(resp)
            return
        with door.budget.hold() as held:
            outgoing = await read_again(door.spool, shown, held)
            await _send(door, req, resp, held, _order(req, key, outgoing, endpoint, door.clock.now()))


async def _send(door: Door, req: Request, resp: falcon.asgi.Response, held: Held, order: Order) -> None:
    sent = await door.sender.send(req, order, held)
    sent.answer.put(resp)


def _order(req: Request, key: ApiKey, outgoing: Outgoing, endpoint: str, now: float) -> Order:
    def accepted(named: Sequence[Named]) -> Answer:
        at = outgoing.release_at
        body = {
            "id": named[0].id,
            "status": "scheduled" if at else "queued",
            "created_at": write_time(now),
            "scheduled_at": write_time(at) if at else None,
        }
        return Answer(status=202, body=_encode(body))

    return Order(
        key=key,
        endpoint=endpoint,
        dialect=EMAILS.name,
        messages=[outgoing],
        respond=accepted,
        idempotency_key=key_of(req),
    )


async def _found(door: Door, key: ApiKey, id_: str) -> MessageShown:
    shown = await door.views.message(key.tenant, id_) if is_message_id(id_) else None
    if shown is None:
        raise not_found()
    return shown


async def _claimed(door: Door, shown: MessageShown) -> bool:
    """Tell whether a message is being delivered at this moment, by its claims if it can have any."""
    if shown.status not in WAITING:
        return False
    return any(claim is not None for _, claim in await door.spool.entries(shown.id))


async def _in_flight(door: Door, key: ApiKey) -> tuple[str, ...]:
    """Return the IDs of all that is being delivered: none is in the views, which know what has happened alone."""
    claims = await door.spool.claims()
    return tuple({due.message.id for due, _ in claims if due.message.tenant == key.tenant})


def _number(req: Request, name: str, default: int, least: int, most: int) -> int:
    number = number_of(req.get_param(name) or str(default), least, most)
    if number is None:
        raise _wrong(name, f"This is not a number from {least} to {most}.")
    return number


def _wrong(name: str, said: str) -> Refusal:
    return Refusal(422, Problem(said, f"query.{name}"))


def _answer(resp: falcon.asgi.Response, shown: object) -> None:
    resp.data = _encode(shown)
    resp.content_type = JSON
