"""POST /v3/mail/send."""

from collections.abc import Sequence

import falcon.asgi

from relay_http.answer import Answer
from relay_http.body import Request
from relay_http.door import Door
from relay_http.sendgrid.errors import SENDGRID
from relay_http.sendgrid.request import MailSend as MailSendRequest
from relay_http.sendgrid.request import read_mail_send
from relay_http.sendgrid.translate import translate
from relay_http.sending import Named, Order

_PLAIN = "text/plain; charset=utf-8"


class MailSend:
    """The resource of mail/send, under all its paths."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def on_post(self, req: Request, resp: falcon.asgi.Response) -> None:
        """Send mail."""
        door = self._door
        key = await door.enter(req, SENDGRID, "send")
        with door.budget.hold() as held:
            request = await door.json(req, held, self._read)
            order = Order(
                key=key,
                endpoint="mail/send",
                dialect=SENDGRID.name,
                messages=translate(request),
                respond=_accepted if not request.sandbox else _valid,
                sandbox=request.sandbox,
                idempotency_key=req.get_header("Idempotency-Key") or "",
            )
            sent = await door.sender.send(req, order, held)
        sent.answer.put(resp)

    def _read(self, plain: object) -> MailSendRequest:
        return read_mail_send(plain, self._door.clock.now())


def _accepted(named: Sequence[Named]) -> Answer:
    return Answer(status=202, media_type=_PLAIN, headers={"X-Message-Id": named[0].id})


def _valid(_: Sequence[Named]) -> Answer:
    return Answer(status=200, media_type=_PLAIN)
