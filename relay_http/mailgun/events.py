"""GET /v3/{domain}/events: pages of what happened to the mail of a domain.

A page's address says all that was asked for, so that it is read again as it was; the token stands in it twice, because
one of the vendor's clients takes the path and another the query.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode

import falcon.asgi
import msgspec

from mta.accounts.keys import ApiKey
from mta.mail.event import EventType
from mta.queue.views import EventPage, EventSearch, WrongCursor
from relay_http.body import Request
from relay_http.door import Door
from relay_http.mailgun.errors import MAILGUN
from relay_http.mailgun.own import require_domain
from relay_http.mailgun.shown import PERMANENT, SHOWN, TEMPORARY, event_item
from relay_http.mailgun.values import date, flag
from relay_http.problem import Refusal, invalid
from relay_http.readers import number_of

LIMIT = 300
_USUAL = 100
_VALUE_CHARS = 512
_TOKEN_CHARS = 8192
_KINDS = {
    "accepted": (EventType.ACCEPTED,),
    "delivered": (EventType.DELIVERED,),
    "failed": (*TEMPORARY, *PERMANENT),
    **dict.fromkeys(("rejected", "opened", "clicked", "unsubscribed", "complained", "stored"), ()),
}
_SEVERITIES = {"permanent": PERMANENT, "temporary": TEMPORARY}
_UNSUPPORTED = ("list", "attachment", "subject", "size", "method")
_OPERATORS = (" AND ", " OR ", "NOT ", ">", "<", "(", ")")


class Place(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """A page: what is searched for, and where it begins, None for before the first; or, `back`, where it ends."""

    cursor: str | None = ""
    back: bool = False
    limit: int
    oldest: bool
    search: EventSearch


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Place).decode
_NOTHING = EventPage((), "")


class Events:
    """The resource of events."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def on_get(self, req: Request, resp: falcon.asgi.Response, domain: str, token: str = "") -> None:
        """List events."""
        key = await self._door.enter(req, MAILGUN, "read")
        await require_domain(self._door, key, domain)
        token = token or req.get_param("page", default="")
        place = _read_token(token, domain) if token else read_place(req, domain)
        page = await self._page(key, place)
        path = f"{self._door.access.prefix(req)}/v3"
        messages = f"{path}/domains/{domain}/messages"
        items = [event_item(each, place.search.recipient, messages) for each in page.events]
        links = {name: f"{path}/{domain}/events/{to}?page={to}" for name, to in _links(place, page).items()}
        resp.data = msgspec.json.encode({"items": items, "paging": links})
        resp.content_type = falcon.MEDIA_JSON

    async def _page(self, key: ApiKey, place: Place) -> EventPage:
        if place.cursor is None or not place.search.types:
            return _NOTHING
        oldest = place.oldest != place.back
        tenant = key.tenant or None
        try:
            page = await self._door.views.events(
                tenant, place.search, limit=place.limit, cursor=place.cursor, oldest=oldest
            )
        except WrongCursor:
            raise _no_page() from None
        return EventPage(page.events[::-1], page.next) if place.back else page


def read_place(req: Request, domain: str) -> Place:
    """Read what is asked for in the query; Refusal 400."""
    asked = {name: value for name in req.params if (value := _value(req, name))}
    for name in _UNSUPPORTED:
        if name in asked:
            raise invalid(f"'{name}' filter is not supported yet", name)
    since, until, oldest = _times(asked)
    limit = asked.get("limit", str(_USUAL))
    number = number_of(limit, 1, LIMIT)
    if number is None:
        raise invalid(f"'limit' parameter must be from 1 to {LIMIT}", "limit")
    search = EventSearch(
        types=_types(asked),
        message_id=_one(asked, "message-id").removeprefix("<").removesuffix(">"),
        recipient=_one(asked, "recipient") or _one(asked, "recipients") or _one(asked, "to"),
        sender=_one(asked, "from"),
        sender_domain=domain.lower(),
        category=_one(asked, "tags"),
        since=since,
        until=until,
    )
    return Place(limit=number, oldest=oldest, search=search)


def _value(req: Request, name: str) -> str:
    value = req.get_param(name, default="").strip()
    if len(value) > _VALUE_CHARS or "\0" in value:
        raise invalid(f"'{name[:64]}' parameter is longer than {_VALUE_CHARS} characters or has NUL", name[:64])
    return value


def _one(asked: dict[str, str], name: str) -> str:
    value = asked.get(name, "")
    if value.startswith('"') and value.endswith('"') and len(value) > 1:
        return value[1:-1]
    if any(each in value for each in _OPERATORS) and not (name == "message-id" and value.startswith("<")):
        raise invalid(f"'{name}' filter: only a single value is supported", name)
    return value


def _types(asked: dict[str, str]) -> tuple[EventType, ...]:
    """Say which types are meant; none for those that never happen here."""
    kinds = [each.strip() for each in asked.get("event", "").split(" OR ") if each.strip()]
    unknown = next((each for each in kinds if each not in _KINDS), None)
    if unknown is not None:
        raise invalid(f"'event' filter: there is no event '{unknown[:64]}'", "event")
    types = tuple(dict.fromkeys(type_ for each in kinds for type_ in _KINDS[each])) if kinds else SHOWN
    severity = asked.get("severity", "").lower()
    if severity not in ("", *_SEVERITIES):
        raise invalid("'severity' filter must be permanent or temporary", "severity")
    return tuple([each for each in types if each in _SEVERITIES[severity]]) if severity else types


def _times(asked: dict[str, str]) -> tuple[float | None, float | None, bool]:
    """Say since when, until when, and whether the oldest come first. `begin` is where the walk begins."""
    begin, end = (date(name, asked[name]) if name in asked else None for name in ("begin", "end"))
    if "ascending" in asked:
        oldest = flag("ascending", asked["ascending"])
    else:
        oldest = begin is not None and end is not None and begin <= end
    if begin is not None and end is not None:
        return min(begin, end), max(begin, end), oldest
    return (begin, end, oldest) if oldest else (end, begin, oldest)


def _read_token(token: str, domain: str) -> Place:
    try:
        if len(token) > _TOKEN_CHARS:
            raise ValueError
        place = _decode(urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    except (ValueError, msgspec.DecodeError):
        raise _no_page() from None
    if not 1 <= place.limit <= LIMIT:
        raise _no_page()
    types = tuple([each for each in place.search.types if each in SHOWN])
    search = msgspec.structs.replace(place.search, types=types, sender_domain=domain.lower())
    return msgspec.structs.replace(place, search=search)


def _no_page() -> Refusal:
    return invalid("'page' is no page of these events", "page")


def _links(place: Place, page: EventPage) -> dict[str, str]:
    """Name the pages around one; both always, as the vendor does. The same cursor leads back in the other direction."""
    here, there = place.cursor, page.next or place.cursor
    following, previous = (here or "", there) if place.back else (there or "", here or None)
    return {
        "next": _token(msgspec.structs.replace(place, cursor=following, back=False)),
        "previous": _token(msgspec.structs.replace(place, cursor=previous, back=True)),
    }


def _token(place: Place) -> str:
    return urlsafe_b64encode(_encode(place)).rstrip(b"=").decode("ascii")
