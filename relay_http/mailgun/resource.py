"""POST /v3/{domain}/messages and /v3/{domain}/messages.mime."""

import asyncio
from collections.abc import Callable, Sequence

import falcon.asgi
import msgspec

from relay_http.answer import Answer
from relay_http.body import Request
from relay_http.contents import LARGE
from relay_http.door import Door
from relay_http.forms import MULTIPART, URLENCODED, FormPart, read_form
from relay_http.kept import key_of
from relay_http.mailgun.errors import MAILGUN
from relay_http.mailgun.own import require_domain
from relay_http.mailgun.request import read_letter
from relay_http.mailgun.translate import Asked, translate
from relay_http.once import Sends
from relay_http.sending import Order
from relay_http.writing import Named

_FORMS = (MULTIPART, URLENCODED)
_BATCH = "recipient-variables"
type_read = Callable[[Sequence[FormPart], float], Asked]
"""Reads a form at a time in absolute seconds."""


class Sending(Sends):
    """A resource that sends what `read` makes of a form."""

    def __init__(self, door: Door, name: str, read: type_read) -> None:
        self._door = door
        self._name = name
        self._read = read

    async def on_post(self, req: Request, resp: falcon.asgi.Response, domain: str) -> None:
        """Send mail."""
        door = self._door
        key = await door.enter(req, MAILGUN, "send")
        await require_domain(door, key, domain)
        with door.budget.hold() as held:
            data = await door.body(req, held, _FORMS)
            held.add(len(data) * 4 // 3)  # files become base64
            asked = await self._asked(data, req.content_type or "")
            held.add(asked.filled)
            order = Order(
                key=key,
                endpoint=self._name,
                dialect=MAILGUN.name,
                messages=asked.messages,
                respond=_queued,
                sandbox=asked.sandbox,
                idempotency_key=key_of(req),
                one_message_id=asked.batch,
            )
            sent = await door.sender.send(req, order, held)
        sent.answer.put(resp)

    async def _asked(self, data: bytes, content_type: str) -> Asked:
        """Read a form; off the event loop when it is large, or a batch, which may become so."""
        now = self._door.clock.now()
        if len(data) > LARGE:
            return await asyncio.to_thread(lambda: self._read(read_form(data, content_type), now))
        form = read_form(data, content_type)
        if any(each.name.lower().endswith(_BATCH) for each in form):
            return await asyncio.to_thread(self._read, form, now)
        return self._read(form, now)


def read_messages(form: Sequence[FormPart], now: float) -> Asked:
    """Read a request to `messages`."""
    return translate(read_letter(form, now))


class _Queued(msgspec.Struct, frozen=True):
    id: str
    message: str = "Queued. Thank you."  # clients look at how it begins


_encode = msgspec.json.Encoder().encode


def _queued(named: Sequence[Named]) -> Answer:
    return Answer(status=200, body=_encode(_Queued(named[0].message_id)))
