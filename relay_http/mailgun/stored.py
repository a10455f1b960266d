"""GET /v3/domains/{domain}/messages/{key}: a message as it is stored, while it is."""

import asyncio

import falcon.asgi
import msgspec

from mta.content.texts import read_texts
from mta.mail import headers
from mta.mail.ids import message_id_bytes
from mta.queue.views import MessageShown
from relay_http.access import require
from relay_http.body import Request
from relay_http.door import Door
from relay_http.mailgun.errors import MAILGUN
from relay_http.mailgun.own import require_domain
from relay_http.mailgun.shown import Json
from relay_http.problem import Problem, Refusal, Why, not_found
from relay_http.stored import SEES_CONTENT, read_stored

_COPIES = 2  # of the content, beside it, that an answer is made of
_MIME = "message/rfc2822"


class Stored:
    """The resource of stored messages."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def on_get(self, req: Request, resp: falcon.asgi.Response, domain: str, key: str) -> None:
        """Show a message: read, or with `Accept: message/rfc2822` as it is."""
        door = self._door
        asking = await door.enter(req, MAILGUN, "read")
        require(asking, SEES_CONTENT)
        await require_domain(door, asking, domain)
        try:
            message_id_bytes(key)
        except ValueError:
            raise not_found("Message not found") from None
        shown = await door.views.message(asking.tenant or None, key)
        if shown is None:
            raise not_found("Message not found")
        show = _as_it_is if _MIME in (req.get_header("Accept") or "") else _read
        with door.budget.hold() as held:
            stored = await read_stored(door.spool, shown.tenant, key, held)
            if stored is None:
                raise Refusal(410, Problem("The content of the message is not kept any more"), why=Why.GONE)
            held.add(stored.record.size * _COPIES)
            resp.data = await asyncio.to_thread(show, shown, stored.content)
        resp.content_type = falcon.MEDIA_JSON


def _common(shown: MessageShown) -> Json:
    return {
        "sender": shown.sender,
        "recipients": ", ".join([each.address for each in shown.recipients]),
        "from": shown.summary.from_,
        "subject": shown.summary.subject,
    }


def _as_it_is(shown: MessageShown, content: bytes) -> bytes:
    return msgspec.json.encode(_common(shown) | {"body-mime": content.decode("utf-8", "replace")})


def _read(shown: MessageShown, content: bytes) -> bytes:
    header = content[: headers.header_length(content)]
    pairs = [
        (each.raw.partition(b":")[0].decode("ascii"), each.value.decode("utf-8", "replace"))
        for each in headers.fields(header)
    ]
    texts = read_texts(content)
    plain, html = texts.plain or "", texts.html or ""
    files = [{"name": each.name, "content-type": each.media_type, "size": each.size} for each in shown.summary.files]
    return msgspec.json.encode(
        {
            **dict(reversed(pairs)),  # of several fields the first
            **_common(shown),
            "body-plain": plain,
            "body-html": html,
            "stripped-text": plain,
            "stripped-html": html,
            "attachments": files,
            "content-id-map": {},
            "message-headers": pairs,
        }
    )
