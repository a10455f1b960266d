"""Health: does the process live, and can it take responsibility for mail."""

from collections.abc import Awaitable, Callable

import falcon.asgi
import msgspec

from mta.spool.interface import Spool

DeliveryStatus = Callable[[], Awaitable[msgspec.Struct]]
_encode = msgspec.json.Encoder().encode


class Readiness(msgspec.Struct, frozen=True):
    """The body of /readyz. `delivery` is for reading: mail is accepted while delivery is down."""

    ready: bool
    reason: str
    delivery: msgspec.Struct


class Live:
    """GET /healthz: 200 as long as the event loop turns."""

    async def on_get(self, _req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Answer."""
        _json(resp, {"status": "ok"})


class Ready:
    """GET /readyz: 200 when this process can commit new mail, 503 when not."""

    def __init__(self, spool: Spool, delivery_status: DeliveryStatus) -> None:
        self._spool = spool
        self._delivery_status = delivery_status

    async def on_get(self, _req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Say whether, and why not."""
        reason = ""
        if not self._spool.healthy():
            reason = "the spool cannot commit"
        elif not self._spool.space().accepting:
            reason = "the spool is full up to its reserve"
        if reason:
            resp.status = 503
        _json(resp, Readiness(ready=not reason, reason=reason, delivery=await self._delivery_status()))


def _json(resp: falcon.asgi.Response, shown: msgspec.Struct | dict[str, str]) -> None:
    resp.data = _encode(shown)
    resp.content_type = "application/json"
    resp.set_header("Cache-Control", "no-store")
