"""What a request is answered with when it is not done: each in the words of the dialect that its path belongs to."""

import logging
from collections.abc import Callable

import falcon
import falcon.asgi

from mta.accounts.keys import ApiKey
from mta.queue.desk import TurnTaken
from mta.queue.views import ViewsUnavailable
from mta.spool.interface import Full, SpoolError, Unavailable, Uncertain
from relay_http.body import Request, discard
from relay_http.dialect import Dialect
from relay_http.problem import Problem, Refusal, TooMuch, Why, busy

log = logging.getLogger(__name__)

_TURN_RETRY_AFTER = 10  # seconds
_SPOOL_RETRY_AFTER = 30  # seconds: a sick spool is reopened and checked, or a person is on the way
_VIEWS_RETRY_AFTER = 5  # seconds
_SERVER_ERROR = Refusal(500, Problem("internal server error"), why=Why.FAILED)
_KINDS = {404: Why.NOT_FOUND, 405: Why.METHOD, 413: Why.TOO_LARGE, 415: Why.MEDIA_TYPE}

type_of_path = Callable[[str], Dialect]
"""Tells the dialect of a path."""


class Refusing:
    """Falcon's error handlers."""

    def __init__(self, dialect_of: type_of_path) -> None:
        self._dialect_of = dialect_of

    async def refuse(self, req: Request, resp: falcon.asgi.Response, error: Refusal, _params: object) -> None:
        """Answer a refusal."""
        key = getattr(req.context, "key", None)
        first = error.problems[0]
        log.info(
            "refused status=%d client=%s tenant=%s key=%s method=%s path=%r problems=%d field=%r problem=%r",
            error.status,
            req.client,
            key.tenant if isinstance(key, ApiKey) else "",
            key.id if isinstance(key, ApiKey) else "",
            req.method,
            req.path[:128],
            len(error.problems),
            (first.field or "")[:128],
            first.message[:256],
        )
        await self._answer(req, resp, error)

    async def refuse_quietly(self, req: Request, resp: falcon.asgi.Response, error: TooMuch, _params: object) -> None:
        """Answer a refusal that is not logged for each request."""
        await self._answer(req, resp, error)

    async def refuse_http(
        self, req: Request, resp: falcon.asgi.Response, error: falcon.HTTPError, params: object
    ) -> None:
        """Answer what the framework refuses: verbs, and headers it cannot read."""
        headers = dict(error.headers or {})
        verbs = headers.get("Allow", "").removesuffix(", OPTIONS")
        message = f"{verbs} method allowed only" if verbs else error.title or "Bad Request"
        why = _KINDS.get(error.status_code, Why.INVALID)
        await self.refuse(req, resp, Refusal(error.status_code, Problem(message), why=why, headers=headers), params)

    async def refuse_spool(self, req: Request, resp: falcon.asgi.Response, error: SpoolError, params: object) -> None:
        """Answer for a spool that did not take the messages: 507 when it is full, 503 when it may again."""
        if isinstance(error, Full):
            await self.refuse(req, resp, Refusal(507, Problem("insufficient storage"), why=Why.FULL), params)
        elif isinstance(error, Unavailable | Uncertain):
            await self.refuse(req, resp, busy("service unavailable", _SPOOL_RETRY_AFTER), params)
        else:
            await self.fail(req, resp, error, params)

    async def refuse_turn(self, req: Request, resp: falcon.asgi.Response, _error: TurnTaken, params: object) -> None:
        """Answer who has another request at what takes long with 429 (RFC 6585 4)."""
        said = f"another request of yours walks the queue or reads the log, try again in {_TURN_RETRY_AFTER} seconds"
        headers = {"Retry-After": str(_TURN_RETRY_AFTER)}
        await self.refuse(req, resp, Refusal(429, Problem(said), why=Why.RATE, headers=headers), params)

    async def refuse_views(
        self, req: Request, resp: falcon.asgi.Response, error: ViewsUnavailable, params: object
    ) -> None:
        """Answer while the views cannot be read."""
        await self.refuse(req, resp, busy(str(error) or "the views are being built", _VIEWS_RETRY_AFTER), params)

    async def fail(self, req: Request, resp: falcon.asgi.Response, error: Exception, _params: object) -> None:
        """Answer what nobody expected, without a word of it."""
        log.error("failed client=%s method=%s path=%r", req.client, req.method, req.path[:128], exc_info=error)
        await self._answer(req, resp, _SERVER_ERROR)

    async def _answer(self, req: Request, resp: falcon.asgi.Response, error: Refusal) -> None:
        resp.status, resp.data, resp.content_type = self._dialect_of(req.path).refused(error)
        resp.set_headers(error.headers)
        if not await discard(req):
            resp.set_header("Connection", "close")
