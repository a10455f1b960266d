"""The way of every message that comes over HTTP, whatever the dialect: standing, terms, octets, the queue.

What is answered leaves after the commit that holds all messages of the request; until then nothing is promised, and a
client that hangs up stops nothing that was begun.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import blake2b
from typing import Protocol, TypeVar

import msgspec

from mta.accounts.keys import ApiKey
from mta.accounts.senders import Standings
from mta.clock import Clock
from mta.mail.address import domain_of
from mta.queue.gate import type_refusal
from mta.queue.submission import Receipt, Submission
from mta.spool.interface import KEPT_LIMIT, Keep, Kept, Spool, Taken, Terms, Throttled, Toll
from relay_http.answer import Answer, encode
from relay_http.body import Held, Request
from relay_http.contents import LARGE, Contents
from relay_http.kept import KEPT_FOR, KEY, check_key, kept_name, replay, under_way
from relay_http.outgoing import Outgoing
from relay_http.problem import Problem, Refusal, Why, too_much
from relay_http.writing import Draft, Named, Sending, Writing, named, size_of

log = logging.getLogger(__name__)

_LONG_ANSWER = "the answer is too long to be kept for this idempotency key: send fewer messages in one request"
_MANY = 50  # messages of one request that are written on the event loop
FOREIGN = (
    "The from address does not match a verified Sender Identity. Mail cannot be sent until this error is resolved:"
    " the domain belongs to another account."
)

_Read = TypeVar("_Read")
type_respond = Callable[[Sequence[Named]], Answer]
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


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What one request asks for. `endpoint` is what an idempotency key is good for, beside the tenant.

    What is `too_late` is only answered if it was asked before. With `one_message_id` all messages have the Message-ID
    of the first, but for those that were given another.
    """

    key: ApiKey
    endpoint: str
    dialect: str
    messages: Sequence[Outgoing]
    respond: type_respond
    sandbox: bool = False
    idempotency_key: str = ""
    one_message_id: bool = False
    too_late: Refusal | None = None


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it. `position` is in the event log, 0 for what was not stored; `milliseconds` are for all of it."""

    answer: Answer
    position: int = 0
    milliseconds: float = 0.0
    replayed: bool = False


class Sender:
    """Sends what dialects have translated."""

    def __init__(self, queue: AcceptingQueue, spool: Spool, clock: Clock, hostname: str, rates: "Rates") -> None:
        self._queue = queue
        self._spool = spool
        self._clock = clock
        self._hostname = hostname
        self._rates = rates
        self._standings = Standings(spool, clock)
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
        kept = await self._spool.kept(kept_name(tenant, endpoint, idempotency_key), self._clock.now())
        return _replayed(kept, kept.digest) if kept is not None else None

    async def send(self, req: Request, order: Order, held: Held) -> Sent:
        """Have all messages of a request accepted, or none; durable on return.

        Refusal for what the order is refused for, SpoolError for a spool that does not take it.
        """
        heavy = len(order.messages) > _MANY or sum(map(size_of, order.messages)) > LARGE
        if not order.idempotency_key:
            _check_time(order)
            return await self._send(req, order, held, heavy=heavy)
        check_key(order.idempotency_key)
        name = kept_name(order.key.tenant, order.endpoint, order.idempotency_key)
        first = name not in self._in_flight
        self._in_flight.add(name)
        try:
            digest = await asyncio.to_thread(_digest, order) if heavy else _digest(order)
            if heavy or not first or order.too_late is not None:  # else the commit looks, which has to anyway
                kept = await self._spool.kept(name, self._clock.now())
                if kept is not None:
                    return _replayed(kept, digest)
            if not first:
                raise under_way()
            _check_time(order)
            return await self._send(req, order, held, digest, name, heavy=heavy)
        finally:
            if first:
                self._in_flight.discard(name)

    async def _send(
        self, req: Request, order: Order, held: Held, digest: bytes | None = None, name: str = "", *, heavy: bool
    ) -> Sent:
        now, began = self._clock.now(), self._clock.monotonic()
        key = order.key
        signing = await self._standing(order)
        names = named(order.messages, self._hostname, one_message_id=order.one_message_id)
        answer = order.respond(names)
        if order.sandbox or key.sandbox:
            log.info("sandbox client=%s tenant=%s key=%s dialect=%s", req.client, key.tenant, key.id, order.dialect)
            return Sent(answer=answer)
        writing = self._writing(req, order, signing, now)
        drafts = await asyncio.to_thread(writing.drafts, names) if heavy else writing.drafts(names)
        tolls = await self._rates.tolls(key, len(names))
        terms = None
        if digest is not None or tolls:
            until = max([now, *[each.release_at for each in order.messages]]) + KEPT_FOR
            keep = None if digest is None else Keep(name, digest, encode(answer), until)
            if keep is not None and len(keep.value) > KEPT_LIMIT:
                raise Refusal(413, Problem(_LONG_ANSWER, KEY), why=Why.TOO_LARGE)
            terms = Terms(now=now, keep=keep, tolls=tolls)
        found = await self._accept(drafts, terms, held)
        if isinstance(found, Kept):
            return _replayed(found, digest or b"")
        if isinstance(found, Throttled):
            raise _throttled(found, tolls[found.toll].name, now)
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
            sum([len(each.submission.envelope.recipients) for each in drafts]),
            took,
        )
        return Sent(answer=answer, position=found.position, milliseconds=took)

    async def rendered(self, req: Request, order: Order) -> Submission:
        """Write the first message of an order as it would be sent, and store nothing; Refusal as `send`."""
        _check_time(order)
        names = named(order.messages[:1], self._hostname, one_message_id=False)
        writing = self._writing(req, order, await self._standing(order), self._clock.now())
        (draft,) = await asyncio.to_thread(writing.drafts, names)
        return msgspec.structs.replace(draft.submission, content=draft.head + draft.lead + draft.rest)

    def _writing(self, req: Request, order: Order, signing: dict[str, tuple[str, str]], now: float) -> Writing:
        return Writing(
            Sending(
                tenant=order.key.tenant,
                key=order.key.id,
                dialect=order.dialect,
                client=req.client,
                hostname=self._hostname,
                at=now,
                signing=signing,
                one_message_id=order.one_message_id,
            )
        )

    async def _accept(self, drafts: Sequence[Draft], terms: Terms | None, held: Held) -> Taken | Kept | Throttled:
        """Have all accepted in one call. What is stored before it is given up if they are not."""
        contents = Contents(self._spool, held)
        outcome: Taken | Kept | Throttled | BaseException
        try:
            submissions = await contents.submissions(drafts)
            # Whatever ends this request, a commit that was begun goes on, and keeps what is then given up.
            outcome = await self._take(submissions, terms)
        except BaseException as error:  # noqa: BLE001 - raised again below
            outcome = error
        if isinstance(outcome, Taken):
            return outcome
        await contents.give_up()
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    async def _take(self, submissions: Sequence[Submission], terms: Terms | None) -> Taken | Kept | Throttled:
        if terms is not None:
            return await self._queue.accept_on(submissions, terms)
        receipts = await self._queue.accept(*submissions)
        return Taken(receipts[-1].position)

    async def _standing(self, order: Order) -> dict[str, tuple[str, str]]:
        """Find what each From domain is signed for, and why not (promise 9); Refusal 403 if it is another tenant's."""
        found: dict[str, tuple[str, str]] = {}
        for each in order.messages:
            for address in (each.sender.address, each.envelope_sender):
                domain = domain_of(address) if address else ""
                if domain in found or not address:
                    continue
                stands = await self._standings.of(order.key.tenant, (domain,))
                if stands.foreign:
                    raise Refusal(403, Problem(FOREIGN, "from"), why=Why.FOREIGN_SENDER)
                found[domain] = stands.sign_domain, stands.note
        return found


class Rates(Protocol):
    """What keys and tenants may send in a time."""

    async def tolls(self, key: ApiKey, messages: int) -> tuple[Toll, ...]:
        """Return what is to be taken for so many messages."""


def by_the_time(read: Callable[[float], _Read], now: float) -> tuple[_Read, Refusal | None]:
    """Read a request, and say what refuses it for its times alone, that are over: as for who asks it first.

    Who asks again is answered as before, and its times may be over by then. `read` takes the time that it is.
    """
    try:
        return read(now), None
    except Refusal as refusal:
        with suppress(Refusal):
            return read(0.0), refusal
        raise


def _check_time(order: Order) -> None:
    if order.too_late is not None:
        raise order.too_late


_encode_asked = msgspec.msgpack.Encoder(order="deterministic").encode


def _digest(order: Order) -> bytes:
    """Hash what is asked for, as it was translated: framing, compression and the order of JSON members differ."""
    digest = blake2b(b"sandbox" if order.sandbox else b"", digest_size=16)
    if len(order.messages) == 1:
        digest.update(_encode_asked(order.messages[0]))
        return digest.digest()
    seen: dict[int, bytes] = {}
    for each in order.messages:
        bare = msgspec.structs.replace(each, parts=(), attachments=())
        digest.update(_encode_asked(bare))
        for shared in (each.parts, each.attachments):
            found = seen.get(id(shared))
            if found is None:
                found = seen[id(shared)] = blake2b(_encode_asked(shared), digest_size=16).digest()
            digest.update(found)
    return digest.digest()


def _replayed(kept: Kept, digest: bytes) -> Sent:
    return Sent(answer=replay(kept, digest), position=kept.position, replayed=True)


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
