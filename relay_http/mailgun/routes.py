"""Where the vendor's clients look: under a domain, which has a dot, and under `domains`."""

import falcon.asgi

from relay_http.body import Request
from relay_http.door import Door
from relay_http.mailgun.domains import Domains, OneDomain
from relay_http.mailgun.events import Events
from relay_http.mailgun.mime import read_mime
from relay_http.mailgun.own import DomainInPath
from relay_http.mailgun.resource import Sending, read_messages
from relay_http.mailgun.stored import Stored


def add_routes(app: falcon.asgi.App[Request, falcon.asgi.Response], door: Door) -> None:
    """Add every route of the dialect."""
    app.router_options.converters["mail_domain"] = DomainInPath
    events = Events(door)
    app.add_route("/v3/{domain:mail_domain}/messages", Sending(door, "messages", read_messages))
    app.add_route("/v3/{domain:mail_domain}/messages.mime", Sending(door, "messages.mime", read_mime))
    app.add_route("/v3/{domain:mail_domain}/events", events)
    app.add_route("/v3/{domain:mail_domain}/events/{token}", events)
    app.add_route("/v3/domains/{domain:mail_domain}/messages/{key}", Stored(door))
    app.add_route("/v4/domains", Domains(door))
    app.add_route("/v4/domains/{name}", OneDomain(door))
