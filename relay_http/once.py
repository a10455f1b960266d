"""Idempotency of writes that send nothing: keys, batches, tenants, the queue (features C2).

What sends is kept in the transaction that accepts it (sending.py); here the answer is kept when the work is done. Who
is killed between the two is asked again, and does it again: a key whose text nobody has seen may be left over.
An answer is for the key that it was given to, since it may have another key in it.
"""

import logging
from contextlib import suppress
from hashlib import blake2b

import falcon.asgi
import msgspec

from mta.accounts.keys import ApiKey
from mta.clock import Clock
from mta.spool.interface import KEPT_LIMIT, Keep, Spool, SpoolError, Terms
from relay_http.access import Access
from relay_http.answer import JSON, Answer, encode
from relay_http.body import Budget, Request, decompressed, read
from relay_http.errors import type_of_path
from relay_http.kept import KEPT_FOR, check_key, kept_name, key_of, replay, under_way

log = logging.getLogger(__name__)

_WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_BODY_LIMIT = 1 << 20  # octets
_DONE = range(200, 300)  # what was refused has done nothing, and is looked at again
_NOT_KEPT = frozenset({"content-type", "content-length"})
_encode_asked = msgspec.msgpack.Encoder(order="deterministic").encode


class Sends:
    """A resource whose POST sends, and keeps its answer with that."""


class _Asked(msgspec.Struct, frozen=True):
    name: str
    digest: bytes


class Once:
    """The middleware: it looks before every resource whether this was asked before, and keeps the answer behind it."""

    def __init__(self, access: Access, spool: Spool, clock: Clock, budget: Budget, dialect_of: type_of_path) -> None:
        self._access = access
        self._spool = spool
        self._clock = clock
        self._budget = budget
        self._dialect_of = dialect_of
        self._in_flight: set[str] = set()  # a process that dies takes them with it

    async def process_resource(
        self, req: Request, resp: falcon.asgi.Response, resource: object, _params: object
    ) -> None:
        """Answer what was asked before; Refusal 400, 401, 403, 409, 413."""
        text = key_of(req)
        if not text or req.method not in _WRITES or isinstance(resource, Sends):
            return
        check_key(text)
        key = await self._access.key(req, self._dialect_of(req.path))
        with self._budget.hold() as held:
            data = await read(req, held, _BODY_LIMIT)
            req.put_back(data)
            if data:
                data = await decompressed(req, data, held, _BODY_LIMIT)
            digest = _digest(req, key, data)
        name = kept_name(key.tenant or f"key {key.id}", f"{req.method} {req.path}", text)
        if name in self._in_flight:
            raise under_way()
        self._in_flight.add(name)
        req.context.asked = _Asked(name, digest)
        kept = await self._spool.kept(name, self._clock.now())
        if kept is not None:
            replay(kept, digest).put(resp)
            resp.complete = True

    async def process_response(self, req: Request, resp: falcon.asgi.Response, *_: object) -> None:
        """Keep the answer to what was done."""
        asked: _Asked | None = getattr(req.context, "asked", None)
        if asked is None:
            return
        try:
            if not resp.complete and resp.status_code in _DONE:
                await self._keep(asked, resp)
        finally:
            self._in_flight.discard(asked.name)

    async def _keep(self, asked: _Asked, resp: falcon.asgi.Response) -> None:
        answer = Answer(
            status=resp.status_code,
            body=resp.data or b"",
            media_type=resp.content_type or JSON,
            headers={name: value for name, value in resp.headers.items() if name not in _NOT_KEPT},
        )
        now, value = self._clock.now(), encode(answer)
        if len(value) > KEPT_LIMIT:
            log.warning("kept=no octets=%d reason=too-long", len(value))
            return
        try:
            await self._spool.accept_on((), Terms(now=now, keep=Keep(asked.name, asked.digest, value, now + KEPT_FOR)))
        except SpoolError as error:  # it is done, and who asked is to know
            log.warning("kept=no reason=%s", error)


def _digest(req: Request, key: ApiKey, data: bytes) -> bytes:
    """Hash what is asked for; the order of JSON members and compression differ between requests."""
    with suppress(ValueError, OverflowError, RecursionError):  # whoever reads it says what is wrong with it
        data = _encode_asked(msgspec.json.decode(data))
    asked = _encode_asked((key.id, req.query_string, data))
    return blake2b(asked, digest_size=16).digest()
