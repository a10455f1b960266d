"""POST /v3/mail/send: read, check, translate, accept, answer.

202 leaves after the commit that holds all messages of the request; until then nothing is promised, and a
client that hangs up stops nothing that was begun.
"""

import asyncio
import logging
from typing import Protocol

import falcon.asgi
import msgspec

from mta.accounts.senders import standing
from mta.clock import Clock
from mta.mail.address import domain_of
from mta.queue.gate import type_refusal
from mta.queue.submission import Receipt, Submission
from mta.spool.interface import Spool
from mta.spool.records import Segment
from relay_http import auth
from relay_http.body import Budget, Held, Request, decode, decoded_size, inflate, inflated_size, read
from relay_http.problem import Problem, Refusal, too_much
from relay_http.sendgrid.request import MailSend as MailSendRequest
from relay_http.sendgrid.request import read_mail_send
from relay_http.sendgrid.translate import Draft, Drafts, Sending, translate

log = logging.getLogger(__name__)

LARGE = 256 << 10  # octets: bodies are read off the event loop, contents committed before they are accepted
_INLINE_LIMIT = 8 << 20  # octets of contents that one call may bring with it
_STORE_STEP = 1 << 20
_MANY = 50  # messages of one request that are written on the event loop

_FOREIGN = (
    "The from address does not match a verified Sender Identity. Mail cannot be sent until this error is resolved:"
    " the domain belongs to another account."
)


class AcceptingQueue(Protocol):
    """The door into the queue."""

    @property
    def refusal(self) -> type_refusal:
        """Tell why new mail of a tenant is refused just now."""

    async def accept(self, *submissions: Submission) -> list[Receipt]:
        """Take responsibility for all of the submissions or none: durable on return."""


class MailSend:
    """The resource of mail/send, under all its paths."""

    def __init__(self, queue: AcceptingQueue, spool: Spool, clock: Clock, hostname: str, budget: Budget) -> None:
        self._queue = queue
        self._spool = spool
        self._clock = clock
        self._hostname = hostname
        self._budget = budget

    async def on_post(self, req: Request, resp: falcon.asgi.Response) -> None:
        """Send mail."""
        started = self._clock.monotonic()
        key = await auth.authenticate(req, self._spool)
        auth.require(key, "send")
        refused = self._queue.refusal(key.tenant)
        if refused is not None:
            raise too_much(refused.cause, refused.retry_after)
        _require_json(req)
        resp.content_type = "text/plain; charset=utf-8"
        with self._budget.hold() as held:
            request, size = await self._request(req, held)
            sending = await self._sending(req, key.tenant, request)
            if request.sandbox:
                resp.status = 200
                log.info("sandbox client=%s tenant=%s key=%s size=%d", req.client, key.tenant, key.id, size)
                return
            heavy = size > LARGE or len(request.personalizations) > _MANY
            drafts = await asyncio.to_thread(translate, request, sending) if heavy else translate(request, sending)
            await self._accept(drafts, held)
        resp.status = 202
        resp.set_header("X-Message-Id", drafts.request)
        log.info(
            "accepted request=%s client=%s tenant=%s key=%s messages=%d recipients=%d size=%d ms=%.1f",
            drafts.request,
            req.client,
            key.tenant,
            key.id,
            len(drafts.messages),
            sum(len(each.submission.envelope.recipients) for each in drafts.messages),
            size,
            (self._clock.monotonic() - started) * 1000,
        )

    async def _request(self, req: Request, held: Held) -> tuple[MailSendRequest, int]:
        """Read the request and the octets of its JSON."""
        data = await read(req, held)
        now = self._clock.now()
        if req.get_header("Content-Encoding") not in (None, "identity"):
            size = inflated_size(data)
            held.add(size)
            data = await asyncio.to_thread(inflate, data, size)
        if len(data) > LARGE:
            held.add(await asyncio.to_thread(decoded_size, data))
            return await asyncio.to_thread(_read, data, now), len(data)
        held.add(decoded_size(data))
        return _read(data, now), len(data)

    async def _sending(self, req: Request, tenant: str, request: MailSendRequest) -> Sending:
        stands = await standing(self._spool, tenant, [domain_of(request.sender.address)])
        if stands.foreign:
            raise Refusal(403, Problem(_FOREIGN, "from"))
        return Sending(
            tenant=tenant,
            client=req.client,
            sign_domain=stands.sign_domain,
            note=stands.note,
            hostname=self._hostname,
            at=self._clock.now(),
        )

    async def _accept(self, drafts: Drafts, held: Held) -> None:
        """Have all messages accepted in one call; what is large is stored before."""
        held.add(len(drafts.body) + sum(len(each.head) for each in drafts.messages))
        submissions = []
        inline = 0
        for each in drafts.messages:
            size = len(each.head) + len(drafts.body)
            if size <= LARGE and inline + size <= _INLINE_LIMIT:
                held.add(size)
                inline += size
                submissions.append(msgspec.structs.replace(each.submission, content=each.head + drafts.body))
            else:
                stored = await self._store(each, drafts.body)
                submissions.append(msgspec.structs.replace(each.submission, stored=(stored,)))
        # Shielded: whatever ends this request, a commit that was begun is not to be cut off.
        await asyncio.shield(self._queue.accept(*submissions))

    async def _store(self, draft: Draft, body: bytes) -> Segment:
        writer = self._spool.store_content()
        try:
            await writer.write(draft.head + body[:_STORE_STEP])
            for at in range(_STORE_STEP, len(body), _STORE_STEP):
                await writer.write(body[at : at + _STORE_STEP])
            return await writer.finish()
        except BaseException as error:  # noqa: BLE001 - raised again below
            failure = error
        await writer.abort()
        raise failure


def _require_json(req: Request) -> None:
    media_type = (req.content_type or "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise Refusal(415, Problem("Content-Type should be application/json."))
    encoding = req.get_header("Content-Encoding")
    if encoding not in (None, "identity", "gzip"):
        raise Refusal(415, Problem("Content-Encoding should be gzip or none."), headers={"Accept-Encoding": "gzip"})


def _read(data: bytes, now: float) -> MailSendRequest:
    return read_mail_send(decode(data), now)
