"""The vendor's errors: every answer from 400 on is `{"errors": [{message, field, help}, ...]}`; but our own API's."""

import logging

import falcon
import falcon.asgi
import msgspec

from mta.accounts.keys import ApiKey
from mta.queue.desk import TurnTaken
from mta.spool.interface import Full, SpoolError, Unavailable, Uncertain
from relay_http.body import Request, discard
from relay_http.problem import PROBLEM_JSON, Problem, Refusal, TooMuch, busy, problem_json

log = logging.getLogger(__name__)

_TURN_RETRY_AFTER = 10  # seconds
_SPOOL_RETRY_AFTER = 30  # seconds: a sick spool is reopened and checked, or a person is on the way
_SERVER_ERROR = Refusal(500, Problem("internal server error"))


class Errors(msgspec.Struct, frozen=True):
    """The body of an error."""

    errors: tuple[Problem, ...]


_encode = msgspec.json.Encoder().encode


async def refuse(req: Request, resp: falcon.asgi.Response, error: Refusal, _params: object) -> None:
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
    await _answer(req, resp, error)


async def refuse_quietly(req: Request, resp: falcon.asgi.Response, error: TooMuch, _params: object) -> None:
    """Answer a refusal that is not logged for each request."""
    await _answer(req, resp, error)


async def refuse_http(req: Request, resp: falcon.asgi.Response, error: falcon.HTTPError, params: object) -> None:
    """Answer what the framework refuses: verbs, and headers it cannot read."""
    headers = dict(error.headers or {})
    verbs = headers.get("Allow", "").removesuffix(", OPTIONS")
    message = f"{verbs} method allowed only" if verbs else error.title or "Bad Request"
    refusal = Refusal(error.status_code, Problem(message), headers=headers)
    await refuse(req, resp, refusal, params)


async def refuse_spool(req: Request, resp: falcon.asgi.Response, error: SpoolError, params: object) -> None:
    """Answer for a spool that did not take the messages: 507 when it is full, 503 when it may again."""
    if isinstance(error, Full):
        await refuse(req, resp, Refusal(507, Problem("insufficient storage")), params)
    elif isinstance(error, Unavailable | Uncertain):
        await refuse(req, resp, busy("service unavailable", _SPOOL_RETRY_AFTER), params)
    else:
        await fail(req, resp, error, params)


async def refuse_turn(req: Request, resp: falcon.asgi.Response, _error: TurnTaken, params: object) -> None:
    """Answer who has another request at what takes long with 429 (RFC 6585 4)."""
    said = f"another request of yours walks the queue or reads the log, try again in {_TURN_RETRY_AFTER} seconds"
    await refuse(req, resp, Refusal(429, Problem(said), headers={"Retry-After": str(_TURN_RETRY_AFTER)}), params)


async def fail(req: Request, resp: falcon.asgi.Response, error: Exception, _params: object) -> None:
    """Answer what nobody expected, without a word of it."""
    log.error("failed client=%s method=%s path=%r", req.client, req.method, req.path[:128], exc_info=error)
    await _answer(req, resp, _SERVER_ERROR)


async def _answer(req: Request, resp: falcon.asgi.Response, error: Refusal) -> None:
    resp.status = error.status
    if req.path.startswith("/admin/"):
        resp.data, resp.content_type = problem_json(error), PROBLEM_JSON
    else:
        resp.data, resp.content_type = _encode(Errors(error.problems)), "application/json"
    resp.set_headers(error.headers)
    if not await discard(req):
        resp.set_header("Connection", "close")
