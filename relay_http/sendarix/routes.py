"""Where Sendarix lies."""

import falcon.asgi

from relay_http.body import Request
from relay_http.door import Door
from relay_http.sendarix.resource import Message, Messages

MOUNT = "/v1/messages"


def add_routes(app: falcon.asgi.App[Request, falcon.asgi.Response], door: Door) -> None:
    """Add every route of the dialect."""
    app.add_route(MOUNT, Messages(door))
    app.add_route(f"{MOUNT}/{{id_}}", Message(door))
