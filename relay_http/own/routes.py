"""The paths of our own API."""

import falcon.asgi

from relay_http.body import Request
from relay_http.door import Door
from relay_http.own.changes import Cancel, Rescheduling, Resending
from relay_http.own.mail import Events, Explain, List, One, Raw
from relay_http.own.send import SendMany, SendOne


class _Mail(SendOne, List):
    """/v1/mail."""


def add_routes(app: falcon.asgi.App[Request, falcon.asgi.Response], door: Door) -> None:
    """Add every route of our own API."""
    app.add_route("/v1/mail", _Mail(door))
    app.add_route("/v1/mail/batch", SendMany(door))
    app.add_route("/v1/mail/{id_}", One(door))
    app.add_route("/v1/mail/{id_}/timeline", Events(door))
    app.add_route("/v1/mail/{id_}/raw", Raw(door))
    app.add_route("/v1/mail/{id_}/explain", Explain(door))
    app.add_route("/v1/mail/{id_}/cancel", Cancel(door))
    app.add_route("/v1/mail/{id_}/reschedule", Rescheduling(door))
    app.add_route("/v1/mail/{id_}/resend", Resending(door))
