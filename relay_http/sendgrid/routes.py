"""Where the vendor's clients look: at the root, and at both forms that they make of the base URL /api/v1."""

import falcon.asgi

from relay_http.body import Request
from relay_http.door import Door
from relay_http.sendgrid.activity import Messages
from relay_http.sendgrid.api_keys import ApiKeys, Scopes
from relay_http.sendgrid.resource import MailSend
from relay_http.sendgrid.scheduled import MailBatch, ScheduledSends

MOUNTS = ("/v3", "/api/v1", "/api/v1/v3")


def add_routes(app: falcon.asgi.App[Request, falcon.asgi.Response], door: Door) -> None:
    """Add every route of the dialect."""
    mail_send, mail_batch, scheduled = MailSend(door), MailBatch(door), ScheduledSends(door)
    messages, api_keys, scopes = Messages(door), ApiKeys(door), Scopes(door)
    for mount in MOUNTS:
        app.add_route(f"{mount}/mail/send", mail_send)
        app.add_route(f"{mount}/mail/batch", mail_batch)
        app.add_route(f"{mount}/mail/batch/{{batch}}", mail_batch, suffix="one")
        app.add_route(f"{mount}/user/scheduled_sends", scheduled)
        app.add_route(f"{mount}/user/scheduled_sends/{{batch}}", scheduled, suffix="one")
        app.add_route(f"{mount}/messages", messages)
        app.add_route(f"{mount}/messages/{{row}}", messages, suffix="one")
        app.add_route(f"{mount}/api_keys", api_keys)
        app.add_route(f"{mount}/api_keys/{{key_id}}", api_keys, suffix="one")
        app.add_route(f"{mount}/scopes", scopes)
