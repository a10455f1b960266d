"""The way of every message that comes over HTTP, whatever the dialect: standing, terms, octets, the queue.

What is answered leaves after the commit that holds all messages of the request; until then nothing is promised, and a
client that hangs up stops nothing that was begun.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Protocol

import msgspec

from mta.accounts.keys import ApiKey
from mta.accounts.senders import standing
from mta.clock import Clock
from mta.content.compose import Body, Head, Part, head, head_of_raw
from mta.mail.address import domain_of
from mta.mail.envelope import Envelope, Notify, Recipient
from mta.mail.ids import new_message_id
from mta.mail.tls_required import FIELD, tls_required
from mta.queue.gate import type_refusal
from mta.queue.submission import Receipt, Submission
from mta.spool.interface import Keep, Kept, Spool, Taken, Terms, Throttled, Toll
from mta.spool.records import Origin, Segment
from relay_http.answer import Answer, decode, encode
from relay_http.body import Held, Request
from relay_http.outgoing import Outgoing, summary_of
from relay_http.problem import Problem, Refusal, Why, invalid, too_much

log = logging.getLogger(__name__)

LARGE = 256 << 10  # octets: content is written off the event loop, and committed before it is accepted
KEPT_FOR = 86_400.0  # seconds that an answer is kept for whoever asks the same again (features C2)
HEADS_LIMIT = 8_000_000  # octets: a request cannot multiply itself by its messages beyond this
TEXTS_LIMIT = 60_000_000  # octets of texts that are not the same for all
KEY_CHARS = 256  # of an idempotency key
_INLINE_LIMIT = 8 << 20  # octets of contents that one call may bring with it
_STORE_STEP = 1 << 20
_MANY = 50  # messages of one request that are written on the event loop
_MESSAGE_ID = "message-id"
_OURS = "mime-version"  # legal to give, and written anyway
FOREIGN = (
    "The from address does not match a verified Sender Identity. Mail cannot be sent until this error is resolved:"
    " the domain belongs to another account."
)

type_respond = Callable[[Sequence["Named"]], Answer]
"""Makes the answer to a request of the messages that come of it, before they are stored."""


class AcceptingQueue(Protocol):
    """The door into the queue."""

    @property
    def refusal(self) -> type_refusal:
        """Tell why new mail of a tenant is refused just now."""

    async def accept(self, *submissions: Submission) -> list[Receipt]:
        """Take responsibility for all of the submissions or none: durable on return."""

    async def accept_on(self, submissions: Sequence[Submission], terms: Terms) -> Taken | Kept | Throttled:
        """Take responsibility for all of the submissions or none, on terms: durable on return."""


class Named(msgspec.Struct, frozen=True):
    """A message to be: its id, its Message-ID with angle brackets, and what it is made of."""

    id: str
    message_id: str
    outgoing: Outgoing


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What one request asks for. `endpoint` is what an idempotency key is good for, beside the tenant.

    With `one_message_id` all messages have the Message-ID of the first, but for those that were given another.
    """

    key: ApiKey
    endpoint: str
    dialect: str
    messages: Sequence[Outgoing]
    respond: type_respond
    sandbox: bool = False
    idempotency_key: str = ""
    one_message_id: bool = False


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it. `position` is in the event log, 0 for what was not stored; `milliseconds` are for all of it."""

    answer: Answer
    position: int = 0
    milliseconds: float = 0.0
    replayed: bool = False


class _Draft(msgspec.Struct, frozen=True):
    """A message without its content: a head of its own, and what it may have in common with others."""

    submission: Submission
    head: bytes
    lead: bytes
    rest: bytes

    @property
    def size(self) -> int:
        return len(self.head) + len(self.lead) + len(self.rest)


class Sender:
    """Sends what dialects have translated."""

    def __init__(self, queue: AcceptingQueue, spool: Spool, clock: Clock, hostname: str, rates: "Rates") -> None:
        self._queue = queue
        self._spool = spool
        self._clock = clock
        self._hostname = hostname
        self._rates = rates
        self._in_flight: set[str] = set()  # names of what is kept; a process that dies takes them with it

    def admit(self, tenant: str) -> None:
        """Refuse with 429 the mail of a tenant of whose there is too much; asked before its body is read."""
        refused = self._queue.refusal(tenant)
        if refused is not None:
            raise too_much(refused.cause, refused.retry_after)

    async def replayed(self, tenant: str, endpoint: str, idempotency_key: str) -> Sent | None:
        """Return what is kept of a request that is all in its endpoint, whatever has become of what it is about."""
        if not idempotency_key:
            return None
        check_key(idempotency_key)
        kept = await self._spool.kept(_name(tenant, endpoint, idempotency_key), self._clock.now())
        return _replayed(kept, kept.digest) if kept is not None else None

    async def send(self, req: Request, order: Order, held: Held) -> Sent:
        """Have all messages of a request accepted, or none; durable on return.

        Refusal for what the order is refused for, SpoolError for a spool that does not take it.
        """
        if not order.idempotency_key:
            return await self._send(req, order, held, None, "")
        check_key(order.idempotency_key)
        name = _name(order.key.tenant, order.endpoint, order.idempotency_key)
        if name in self._in_flight:
            raise Refusal(
                409, Problem("the first request with this idempotency key is still being worked on"), why=Why.IN_FLIGHT
            )
        self._in_flight.add(name)
        try:
            large = sum([len(each.raw) + _size(each) for each in order.messages]) > LARGE
            digest = await asyncio.to_thread(_digest, order) if large else _digest(order)
            return await self._send(req, order, held, digest, name)
        finally:
            self._in_flight.discard(name)

    async def _send(self, req: Request, order: Order, held: Held, digest: bytes | None, name: str) -> Sent:
        now, began = self._clock.now(), self._clock.monotonic()
        key = order.key
        heavy = len(order.messages) > _MANY or sum(map(_size, order.messages)) > LARGE
        if heavy and digest is not None:  # the commit looks, too: this spares the work before
            kept = await self._spool.kept(name, now)
            if kept is not None:
                return _replayed(kept, digest)
        signing = await self._standing(order)
        names = _named(order, self._hostname)
        answer = order.respond(names)
        if order.sandbox or key.sandbox:
            log.info("sandbox client=%s tenant=%s key=%s dialect=%s", req.client, key.tenant, key.id, order.dialect)
            return Sent(answer=answer)
        work = _Work(order, req.client, signing, (self._hostname, now))
        drafts = await asyncio.to_thread(work.drafts, names) if heavy else work.drafts(names)
        submissions = await self._submissions(drafts, held)
        tolls = await self._rates.tolls(key, len(names))
        if digest is None and not tolls:
            # Shielded: whatever ends this request, a commit that was begun is not to be cut off.
            (*_, last) = await asyncio.shield(self._queue.accept(*submissions))
            position = last.position
        else:
            until = max(now, *[each.release_at for each in order.messages]) + KEPT_FOR
            keep = None if digest is None else Keep(name, digest, encode(answer), until)
            terms = Terms(now=now, keep=keep, tolls=tolls)
            found = await asyncio.shield(self._queue.accept_on(submissions, terms))
            if isinstance(found, Kept):
                return _replayed(found, digest or b"")
            if isinstance(found, Throttled):
                raise _throttled(found, tolls[found.toll].name, now)
            position = found.position
            if tolls:
                answer = _with_rate(answer, tolls, found.free_at, now)
        took = (self._clock.monotonic() - began) * 1000
        log.info(
            "accepted request=%s client=%s tenant=%s key=%s dialect=%s messages=%d recipients=%d ms=%.1f",
            names[0].id,
            req.client,
            key.tenant,
            key.id,
            order.dialect,
            len(names),
            sum([len(each.envelope.recipients) for each in submissions]),
            took,
        )
        return Sent(answer=answer, position=position, milliseconds=took)

    async def rendered(self, req: Request, order: Order) -> Submission:
        """Write the first message of an order as it would be sent, and store nothing; Refusal as `send`."""
        work = _Work(order, req.client, await self._standing(order), (self._hostname, self._clock.now()))
        drafts = await asyncio.to_thread(work.drafts, [_named(order.messages[0], self._hostname)])
        draft = drafts[0]
        return msgspec.structs.replace(draft.submission, content=draft.head + draft.lead + draft.rest)

    async def _standing(self, order: Order) -> "dict[str, tuple[str, str]]":
        """Find what each From domain is signed for, and why not (promise 9); Refusal 403 if it is another tenant's."""
        found: dict[str, tuple[str, str]] = {}
        for each in order.messages:
            for address in (each.sender.address, each.envelope_sender):
                domain = domain_of(address) if address else ""
                if domain in found or not address:
                    continue
                stands = await standing(self._spool, order.key.tenant, [domain])
                if stands.foreign:
                    raise Refusal(403, Problem(FOREIGN, "from"), why=Why.FOREIGN_SENDER)
                found[domain] = stands.sign_domain, stands.note
        return found

    async def _submissions(self, drafts: "Sequence[_Draft]", held: Held) -> list[Submission]:
        """Give messages their content: with them what is small, what is large stored before."""
        submissions: list[Submission] = []
        inline = 0
        for each in drafts:
            size = each.size
            if size <= LARGE and inline + size <= _INLINE_LIMIT:
                held.add(size)
                inline += size
                submissions.append(msgspec.structs.replace(each.submission, content=each.head + each.lead + each.rest))
            else:
                stored = await self._store(each)
                submissions.append(msgspec.structs.replace(each.submission, stored=(stored,)))
        return submissions

    async def _store(self, draft: "_Draft") -> Segment:
        writer = self._spool.store_content()
        try:
            for octets in (draft.head + draft.lead[:_STORE_STEP], draft.lead[_STORE_STEP:], draft.rest):
                for at in range(0, len(octets), _STORE_STEP):
                    await writer.write(octets[at : at + _STORE_STEP])
            return await writer.finish()
        except BaseException as error:  # noqa: BLE001 - raised again below
            failure = error
        await writer.abort()
        raise failure


class Rates(Protocol):
    """What keys and tenants may send in a time."""

    async def tolls(self, key: ApiKey, messages: int) -> tuple[Toll, ...]:
        """Return what is to be taken for so many messages."""


class _Work:
    """The octets of a request's messages, what they have in common made once."""

    def __init__(self, order: Order, client: str, signing: dict[str, tuple[str, str]], host: tuple[str, float]) -> None:
        self._order = order
        self._client = client
        self._signing = signing
        self._hostname, self._at = host
        self._bodies: dict[tuple[int, str], Body] = {}
        self._leads: dict[tuple[int, int], bytes] = {}
        self._texts = 0  # octets of these

    def drafts(self, names: Sequence[Named]) -> list[_Draft]:
        """Write all of them; Refusal 413 when what is each one's own is too large together."""
        request, heads = names[0].id, 0
        drafts: list[_Draft] = []
        for each in names:
            draft = self._draft(each, request)
            heads += len(draft.head)
            if heads > HEADS_LIMIT or self._texts > TEXTS_LIMIT:
                raise Refusal(413, Problem("content too large"), why=Why.TOO_LARGE)
            drafts.append(draft)
        return drafts

    def _draft(self, named: Named, request: str) -> _Draft:
        outgoing, key = named.outgoing, self._order.key
        signed = domain_of(outgoing.sender.address)
        sign_domain, note = self._signing[signed]
        submission = Submission(
            id=named.id,
            tenant=key.tenant,
            envelope=_envelope(outgoing, self._at),
            origin=Origin.HTTP,
            message_class=outgoing.message_class,
            sign_domain=sign_domain,
            header_message_id=named.message_id,
            client=self._client,
            request=request,
            categories=outgoing.categories,
            custom_args=outgoing.custom_args,
            note=note,
            batch=outgoing.batch,
            summary=summary_of(outgoing, self._order.dialect, key.id),
        )
        if outgoing.raw:
            return _Draft(submission, head_of_raw(outgoing.raw, named.id, self._hostname, self._at), outgoing.raw, b"")
        headers = {name: value for name, value in outgoing.headers.items() if name.lower() != _OURS}
        if self._order.one_message_id:
            headers = {name: value for name, value in headers.items() if name.lower() != _MESSAGE_ID}
            headers["Message-ID"] = named.message_id
        fields = Head(
            id=named.id,
            hostname=self._hostname,
            date=self._at,
            sender=outgoing.sender,
            to=outgoing.to,
            cc=outgoing.cc,
            reply_to=outgoing.reply_to,
            subject=outgoing.subject,
            headers=headers,
        )
        body = self._body(outgoing, request)
        return _Draft(submission, head(fields), self._lead(outgoing.parts, body), body.rest)

    def _body(self, outgoing: Outgoing, request: str) -> Body:
        kinds = "\n".join([each.media_type for each in outgoing.parts])
        key = id(outgoing.attachments), kinds
        found = self._bodies.get(key)
        if found is None:
            found = self._bodies[key] = Body(outgoing.parts, outgoing.attachments, f"{request}{len(self._bodies)}")
        return found

    def _lead(self, parts: tuple[Part, ...], body: Body) -> bytes:
        key = id(parts), id(body)
        found = self._leads.get(key)
        if found is None:
            found = self._leads[key] = body.lead(parts)
            self._texts += len(found)
        return found


def _name(tenant: str, endpoint: str, idempotency_key: str) -> str:
    return f"{tenant}\0{endpoint}\0{idempotency_key}"


def is_key(text: str) -> bool:
    """Tell whether a text can be an idempotency key: 1 to 256 printable ASCII characters."""
    return 0 < len(text) <= KEY_CHARS and text.isascii() and text.isprintable()


def check_key(text: str) -> None:
    """Refuse what is no idempotency key."""
    if not is_key(text):
        raise invalid(f"an idempotency key is 1 to {KEY_CHARS} printable ASCII characters", "Idempotency-Key")


def _named(order: Order, hostname: str) -> list[Named]:
    found: list[Named] = []
    shared = ""
    for each in order.messages:
        id_ = new_message_id()
        given = ""
        if each.headers:
            given = next((value for name, value in each.headers.items() if name.lower() == _MESSAGE_ID), "")
        message_id = given or shared or f"<{id_}@{hostname}>"
        if order.one_message_id and not shared:
            shared = message_id
        found.append(Named(id_, message_id, each))
    return found


def _envelope(outgoing: Outgoing, now: float) -> Envelope:
    recipients = outgoing.recipients
    sender = outgoing.sender.address if outgoing.envelope_sender is None else outgoing.envelope_sender
    # RFC 6531 3.1: domains are A-labels by now, so only a local part can need SMTPUTF8.
    mailboxes = (*recipients, outgoing.sender, *outgoing.reply_to)
    utf8 = not sender.isascii() or not all(each.address.isascii() for each in mailboxes)
    deliver_by = outgoing.deliver_by
    if outgoing.deliver_within:
        deliver_by = max(outgoing.release_at, now) + outgoing.deliver_within
    demanded = outgoing.tls_required
    if not demanded and outgoing.headers:
        demanded = tls_required([value.encode() for name, value in outgoing.headers.items() if name.lower() == FIELD])
    return Envelope(
        sender=sender,
        # Failures of HTTP mail are told by events; a DSN only when asked for.
        recipients=tuple([Recipient(each.address, Notify.NEVER) for each in recipients]),
        eight_bit=utf8 or not outgoing.raw.isascii(),
        smtputf8=utf8,
        tls_required=demanded,
        release_at=outgoing.release_at,
        deliver_by=deliver_by,
    )


def _size(outgoing: Outgoing) -> int:
    """The characters that a message is made of, about: by what is its own and what is not."""
    texts = sum([len(each.text) for each in outgoing.parts])
    return len(outgoing.raw) + texts + sum([len(each.encoded) for each in outgoing.attachments])


_encode_asked = msgspec.msgpack.Encoder().encode


def _digest(order: Order) -> bytes:
    """Hash what is asked for, as it was translated: framing, compression and the order of JSON members differ."""
    digest = blake2b(digest_size=16)
    seen: dict[int, bytes] = {}
    for each in order.messages:
        bare = msgspec.structs.replace(each, parts=(), attachments=())
        digest.update(_encode_asked(bare))
        for shared in (each.parts, each.attachments):
            found = seen.get(id(shared))
            if found is None:
                found = seen[id(shared)] = blake2b(_encode_asked(shared), digest_size=16).digest()
            digest.update(found)
    digest.update(b"sandbox" if order.sandbox else b"")
    return digest.digest()


def _replayed(kept: Kept, digest: bytes) -> Sent:
    if kept.digest != digest:
        raise Refusal(
            409, Problem("this idempotency key was used for another request", "Idempotency-Key"), why=Why.OTHER_REQUEST
        )
    answer = decode(kept.value)
    headers = {**answer.headers, "Idempotent-Replayed": "true"}
    return Sent(answer=msgspec.structs.replace(answer, headers=headers), position=kept.position, replayed=True)


def _with_rate(answer: Answer, tolls: Sequence[Toll], free_at: Sequence[float], now: float) -> Answer:
    """Tell of the rate that has the least room left: messages that can be sent at once, and when it is all free."""
    left, toll, at = min(
        [
            (math.floor(each.burst - max(0.0, free - now) / each.interval + 1e-6), number, free)
            for number, (each, free) in enumerate(zip(tolls, free_at, strict=True))
        ]
    )
    headers = {
        "X-RateLimit-Limit": str(tolls[toll].burst),
        "X-RateLimit-Remaining": str(max(0, left)),
        "X-RateLimit-Reset": str(math.ceil(at)),
    }
    return msgspec.structs.replace(answer, headers={**answer.headers, **headers})


def _throttled(found: Throttled, toll: str, now: float) -> Refusal:
    seconds = max(1, math.ceil(found.retry_after))
    whose = "key" if toll.startswith("key") else "account"
    return Refusal(
        429,
        Problem(f"too many requests: the rate of this {whose} has room in {seconds} seconds"),
        why=Why.RATE,
        headers={
            "Retry-After": str(seconds),
            "X-RateLimit-Remaining": "0",
            "X-RateLimit-Reset": str(math.ceil(now + found.retry_after)),
        },
    )
