"""Where Postmark lies."""

import falcon.asgi

from relay_http.body import Request
from relay_http.door import Door
from relay_http.postmark.resource import Batch, Details, Email, Messages, Templates


def add_routes(app: falcon.asgi.App[Request, falcon.asgi.Response], door: Door) -> None:
    """Add every route of the dialect."""
    app.add_route("/email", Email(door))
    app.add_route("/email/batch", Batch(door))
    app.add_route("/email/withTemplate", Templates(door))
    app.add_route("/email/batchWithTemplates", Templates(door))
    app.add_route("/messages/outbound", Messages(door))
    app.add_route("/messages/outbound/{id_}/details", Details(door))
