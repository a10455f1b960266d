"""Where the vendor's clients look: at the root, and at both forms that they make of the base URL /api/v1."""

import falcon.asgi

from relay_http.body import Request
from relay_http.door import Door
from relay_http.sendgrid.resource import MailSend

MOUNTS = ("/v3", "/api/v1", "/api/v1/v3")


def add_routes(app: falcon.asgi.App[Request, falcon.asgi.Response], door: Door) -> None:
    """Add every route of the dialect."""
    mail_send = MailSend(door)
    for mount in MOUNTS:
        app.add_route(f"{mount}/mail/send", mail_send)
