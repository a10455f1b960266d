"""What the resources of all dialects share: who asks, the body, sending, the views; built once for a process."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

import msgspec

from mta.accounts.keys import ApiKey
from mta.clock import Clock
from mta.queue.desk import Desk
from mta.queue.views import Views
from mta.spool.interface import Spool
from relay_http.access import Access, require
from relay_http.audited import Audited
from relay_http.body import (
    BODY_LIMIT,
    Budget,
    Held,
    Request,
    decode,
    decoded_size,
    decompressed,
    encoding_of,
    read,
)
from relay_http.contents import LARGE
from relay_http.dialect import Dialect
from relay_http.problem import Problem, Refusal, Why
from relay_http.sending import Sender

_Read = TypeVar("_Read")
_JSON = ("application/json",)


class Door(msgspec.Struct, frozen=True, kw_only=True):
    """What resources work with.

    `pools` are those of the configuration, `hostname` is our own, `smtp_port` that of relays named without one. `hold`
    is how many seconds a message may wait for its release, `lifetime` how long it may live from there on.
    """

    access: Access
    sender: Sender
    spool: Spool
    desk: Desk
    views: Views
    clock: Clock
    budget: Budget
    audit: Audited
    pools: frozenset[str]
    hostname: str
    smtp_port: int
    hold: float
    lifetime: float

    async def enter(self, req: Request, dialect: Dialect, scope: str) -> ApiKey:
        """Return the key of a request, which has the scope; Refusal 401, 403, or 429 for one who sends too much."""
        key = await self.allowed(req, dialect, scope)
        if scope == "send":
            self.sender.admit(key.tenant)
        return key

    async def allowed(self, req: Request, dialect: Dialect, scope: str) -> ApiKey:
        """Return the key of a request, which has the scope, for what sends nothing; Refusal 401, 403."""
        key = await self.access.key(req, dialect)
        require(key, scope)
        return key

    async def json(
        self, req: Request, held: Held, interpret: Callable[[object], _Read], limit: int = BODY_LIMIT
    ) -> _Read:
        """Read a JSON body and have it interpreted, off the event loop when it is large; Refusal 400, 413, 415."""
        data = await self.body(req, held, _JSON, limit)
        if len(data) > LARGE:
            held.add(await asyncio.to_thread(decoded_size, data))
            return await asyncio.to_thread(_interpreted, interpret, data)
        held.add(decoded_size(data))
        return interpret(decode(data))

    async def body(self, req: Request, held: Held, media_types: tuple[str, ...], limit: int = BODY_LIMIT) -> bytes:
        """Read a body of one of these types whole, inflated; Refusal 413, 415."""
        media_type = (req.content_type or "").partition(";")[0].strip().lower()
        if media_type not in media_types:
            said = f"Content-Type should be {' or '.join(media_types)}."
            raise Refusal(415, Problem(said), why=Why.MEDIA_TYPE)
        if encoding_of(req) not in ("", "identity", "gzip"):
            raise Refusal(
                415,
                Problem("Content-Encoding should be gzip or none."),
                why=Why.MEDIA_TYPE,
                headers={"Accept-Encoding": "gzip"},
            )
        return await decompressed(req, await read(req, held, limit), held, limit)


def _interpreted(interpret: Callable[[object], _Read], data: bytes) -> _Read:
    return interpret(decode(data))
