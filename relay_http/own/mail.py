"""GET /v1/mail and what is below a message: what has become of mail, and why it is where it is."""

from contextlib import suppress
from hashlib import blake2b

import falcon.asgi
import msgspec

from mta.accounts.keys import ApiKey
from mta.mail.ids import message_id_bytes
from mta.queue.views import MessageShown, Search, Status, WrongCursor
from relay_http.access import require, who
from relay_http.answer import JSON
from relay_http.body import Request
from relay_http.door import Door
from relay_http.own.answers import Listed, shown, timeline
from relay_http.own.errors import OWN
from relay_http.own.kinds import Moment
from relay_http.parameters import Parameters
from relay_http.problem import Problem, Refusal, Why, invalid, not_found
from relay_http.stored import SEES_CONTENT, read_stored

PAGE, LONGEST_PAGE = 50, 500
SEVERAL = ("id", "status")
FILTERS = (
    *("request", "batch", "recipient", "sender", "words", "tag", "message_id", "dialect", "since", "until"),
    *SEVERAL,
)
IDS_LIMIT = 100
_encode = msgspec.json.Encoder().encode


class List:
    """GET /v1/mail."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def on_get(self, req: Request, resp: falcon.asgi.Response) -> None:
        """List messages, the last accepted first."""
        key = await enter(self._door, req, "read")
        given = Parameters(req, (*FILTERS, "order", "limit", "cursor"), several=SEVERAL)
        order = given.text("order", "newest")
        if order not in ("newest", "oldest"):
            raise invalid("newest or oldest", "order")
        limit = given.number("limit", PAGE, LONGEST_PAGE)
        search, cursor = _search(given), given.text("cursor")
        try:
            page = await self._door.views.messages(
                tenant_of(key), search, limit=limit, cursor=cursor, oldest=order == "oldest"
            )
        except WrongCursor:
            raise invalid("no page was given out with it", "cursor") from None
        answer(resp, Listed(tuple(map(shown, page.messages)), page.next or None))


class One:
    """GET /v1/mail/{id}."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def on_get(self, req: Request, resp: falcon.asgi.Response, id_: str) -> None:
        """Show a message; 304 to who has it so already."""
        key = await enter(self._door, req, "read")
        body = _encode(shown(await found(self._door, key, id_)))
        etag = f'"{blake2b(body, digest_size=12).hexdigest()}"'
        resp.set_header("ETag", etag)
        resp.set_header("Cache-Control", "private, no-cache")
        has = [each.strip().removeprefix("W/") for each in (req.get_header("If-None-Match") or "").split(",")]
        if etag in has or "*" in has:  # RFC 9110 13.1.2
            resp.status = 304
            return
        resp.data = body
        resp.content_type = JSON


class Events:
    """GET /v1/mail/{id}/timeline."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def on_get(self, req: Request, resp: falcon.asgi.Response, id_: str) -> None:
        """List the events of a message."""
        key = await enter(self._door, req, "read")
        events = await self._door.views.timeline(tenant_of(key), known_id(id_))
        if not events:
            raise not_found(f"{id_[:64]} is not known here")
        answer(resp, timeline(id_, events))


class Raw:
    """GET /v1/mail/{id}/raw."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def on_get(self, req: Request, resp: falcon.asgi.Response, id_: str) -> None:
        """Return the octets of a message while it lives, to keys that may see contents."""
        key = await enter(self._door, req, "read")
        require(key, SEES_CONTENT)
        message = await found(self._door, key, id_)
        with self._door.budget.hold() as held:
            stored = await read_stored(self._door.spool, message.tenant, message.id, held)
            if stored is None:
                raise Refusal(410, Problem("the content of this message is gone"), why=Why.GONE)
            resp.data = stored.content
        resp.content_type = "message/rfc822"
        resp.set_header("Cache-Control", "no-store")


class Explain:
    """GET /v1/mail/{id}/explain."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def on_get(self, req: Request, resp: falcon.asgi.Response, id_: str) -> None:
        """Say what holds each part of a message."""
        key = await enter(self._door, req, "read")
        explained = await self._door.desk.explain(known_id(id_), who(key))
        if explained is None:
            raise not_found(f"{id_[:64]} is not known here")
        answer(resp, explained)


async def enter(door: Door, req: Request, scope: str) -> ApiKey:
    """Return the key of a request, which has the scope; Refusal 401 or 403. Too much mail is no reason to refuse."""
    key = await door.access.key(req, OWN)
    require(key, scope)
    if not key.tenant and not key.operator:
        raise Refusal(403, Problem("access forbidden"), why=Why.FORBIDDEN)
    return key


def tenant_of(key: ApiKey) -> str | None:
    """Say whose mail a key is for: None for everybody's."""
    return None if key.operator else key.tenant


def known_id(id_: str) -> str:
    """Return what can be the ID of a message; Refusal 404."""
    try:
        message_id_bytes(id_)
    except ValueError:
        raise not_found(f"{id_[:64]} is not known here") from None
    return id_


async def found(door: Door, key: ApiKey, id_: str) -> MessageShown:
    """Find a message of the key's; Refusal 404."""
    message = await door.views.message(tenant_of(key), known_id(id_))
    if message is None:
        raise not_found(f"{id_} is not known here")
    return message


def answer(resp: falcon.asgi.Response, shown: msgspec.Struct) -> None:
    """Answer with what is true now."""
    resp.data = _encode(shown)
    resp.content_type = JSON
    resp.set_header("Cache-Control", "no-store")


def _search(given: Parameters) -> Search:
    ids = given.texts("id")
    if len(ids) > IDS_LIMIT:
        raise invalid(f"at most {IDS_LIMIT} of them", "id")
    try:
        statuses = tuple(map(Status, given.texts("status")))
    except ValueError:
        raise invalid(f"one of {', '.join(Status)}", "status") from None
    return Search(
        ids=tuple(ids),
        request=given.text("request"),
        batch=given.text("batch"),
        recipient=given.text("recipient"),
        sender=given.text("sender"),
        words=given.text("words"),
        category=given.text("tag"),
        message_id=given.text("message_id"),
        sent_in=given.text("dialect"),
        statuses=statuses,
        since=_moment(given, "since"),
        until=_moment(given, "until"),
    )


def _moment(given: Parameters, name: str) -> float | None:
    if not given.has(name):
        return None
    text = given.text(name)
    moment: float | str = text
    with suppress(ValueError):
        moment = float(text)
    try:
        return Moment(moment).at
    except ValueError as error:
        raise invalid(str(error), name) from None
