"""Where Resend lies."""

import falcon.asgi

from relay_http.body import Request
from relay_http.door import Door
from relay_http.resend.resource import Batch, Cancel, Email, Emails


def add_routes(app: falcon.asgi.App[Request, falcon.asgi.Response], door: Door) -> None:
    """Add every route of the dialect."""
    app.add_route("/emails", Emails(door))
    app.add_route("/emails/batch", Batch(door))
    app.add_route("/emails/{id_}", Email(door))
    app.add_route("/emails/{id_}/cancel", Cancel(door))
