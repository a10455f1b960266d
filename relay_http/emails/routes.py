"""Where the Emails API lies."""

import falcon.asgi

from relay_http.body import Request
from relay_http.door import Door
from relay_http.emails.resource import Cancel, Email, Emails, Resend

MOUNT = "/api/v1/emails"


def add_routes(app: falcon.asgi.App[Request, falcon.asgi.Response], door: Door) -> None:
    """Add every route of the dialect."""
    app.add_route(MOUNT, Emails(door))
    app.add_route(f"{MOUNT}/{{id_}}", Email(door))
    app.add_route(f"{MOUNT}/{{id_}}/cancel", Cancel(door))
    app.add_route(f"{MOUNT}/{{id_}}/resend", Resend(door))
