"""POST /v3/mail/send."""

import asyncio
from collections.abc import Sequence

import falcon.asgi

from mta.accounts.tenants import pool_of
from mta.config import DEFAULT_POOL
from mta.queue.batches import is_batch
from relay_http.answer import Answer
from relay_http.body import Held, Request
from relay_http.contents import LARGE
from relay_http.door import Door
from relay_http.kept import key_of
from relay_http.once import Sends
from relay_http.outgoing import Outgoing
from relay_http.problem import invalid
from relay_http.sendgrid.errors import SENDGRID
from relay_http.sendgrid.request import MailSend as MailSendRequest
from relay_http.sendgrid.request import read_mail_send
from relay_http.sendgrid.translate import translate
from relay_http.sending import Order
from relay_http.writing import Named

_PLAIN = "text/plain; charset=utf-8"


class MailSend(Sends):
    """The resource of mail/send, under all its paths."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def on_post(self, req: Request, resp: falcon.asgi.Response) -> None:
        """Send mail."""
        door = self._door
        key = await door.enter(req, SENDGRID, "send")
        with door.budget.hold() as held:
            request = await door.json(req, held, self._read)
            if request.batch or request.pool:
                await self._check(request, key.tenant)
            order = Order(
                key=key,
                endpoint="mail/send",
                dialect=SENDGRID.name,
                messages=await _substituted(request, held) if request.substitutes else translate(request),
                respond=_accepted if not request.sandbox else _valid,
                sandbox=request.sandbox,
                idempotency_key=key_of(req),
            )
            sent = await door.sender.send(req, order, held)
        sent.answer.put(resp)

    def _read(self, plain: object) -> MailSendRequest:
        return read_mail_send(plain, self._door.clock.now())

    async def _check(self, request: MailSendRequest, tenant: str) -> None:
        """Refuse a batch or a pool that the tenant does not have."""
        if request.batch and not is_batch(tenant, request.batch, self._door.clock.now()):
            raise invalid("invalid batch id", "batch_id")
        if request.pool and request.pool != (await pool_of(self._door.spool, tenant) or DEFAULT_POOL):
            raise invalid("The ip pool does not exist, or is not the one that your mail leaves from.", "ip_pool_name")


async def _substituted(request: MailSendRequest, held: Held) -> list[Outgoing]:
    """Translate a request with substitutions, off the event loop when there is much to replace."""
    texts = sum([len(each.text) for each in request.parts])
    keys = sum([len(each.substitutions) + len(request.sections) for each in request.personalizations])
    large = texts * len(request.personalizations) + sum(map(len, request.sections.values())) + keys > LARGE
    messages = await asyncio.to_thread(translate, request) if large else translate(request)
    held.add(sum([len(part.text) for each in messages for part in each.parts if each.parts is not request.parts]))
    return messages


def _accepted(named: Sequence[Named]) -> Answer:
    return Answer(status=202, media_type=_PLAIN, headers={"X-Message-Id": named[0].id})


def _valid(_: Sequence[Named]) -> Answer:
    return Answer(status=200, media_type=_PLAIN)
