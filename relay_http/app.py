"""The HTTP API: every dialect and every error on one screen.

A dialect translates requests into messages (`Outgoing`) and answers; what everyone needs lies beside the packages: who
asks (access), bodies (body, fields, values), the way of a message (sending), refusals (problem, errors).
"""

import re

import falcon.asgi

from mta.accounts.uses import Uses
from mta.clock import Clock
from mta.config import DEFAULT_POOL, Config
from mta.queue.desk import Desk, TurnTaken
from mta.queue.views import Views, ViewsUnavailable
from mta.spool.interface import Spool, SpoolError
from relay_http import openapi
from relay_http.access import Access
from relay_http.admin import audit as admin_audit
from relay_http.admin import keys as admin_keys
from relay_http.admin import queue as admin_queue
from relay_http.admin import tenants as admin_tenants
from relay_http.audited import Audited
from relay_http.body import Budget, Request
from relay_http.dialect import Dialect
from relay_http.door import Door
from relay_http.emails import routes as emails
from relay_http.emails.errors import EMAILS
from relay_http.errors import Refusing
from relay_http.health import DeliveryStatus, Live, Ready
from relay_http.mailgun import routes as mailgun
from relay_http.mailgun.errors import MAILGUN
from relay_http.once import Once
from relay_http.own import routes as own
from relay_http.own.errors import OWN
from relay_http.postmark import routes as postmark
from relay_http.postmark.errors import POSTMARK
from relay_http.problem import Problem, Refusal, TooMuch, not_found
from relay_http.proxies import Proxies
from relay_http.resend import routes as resend
from relay_http.resend.errors import RESEND
from relay_http.sendarix import routes as sendarix
from relay_http.sendarix.errors import SENDARIX
from relay_http.sendgrid import routes as sendgrid
from relay_http.sendgrid.errors import SENDGRID
from relay_http.sending import AcceptingQueue, Rates, Sender

App = falcon.asgi.App[Request, falcon.asgi.Response]
_PATHS: tuple[tuple[re.Pattern[str], Dialect], ...] = (
    (re.compile(r"/v3/([^/]*\.[^/]*|domains)(/|$)|/v4/domains(/|$)"), MAILGUN),
    (re.compile(r"/api/v1/emails(/|$)"), EMAILS),  # before SendGrid's mount of the same beginning
    (re.compile(r"/v1/messages(/|$)"), SENDARIX),
    (re.compile(r"/email(/|$)|/messages/outbound(/|$)"), POSTMARK),
    (re.compile(r"/emails(/|$)"), RESEND),
    (re.compile(r"/v3(/|$)|/api/v1(/|$)"), SENDGRID),
)


def dialect_of(path: str) -> Dialect:
    """Tell in whose words a path is answered: the first whose pattern it begins with."""
    return next((dialect for pattern, dialect in _PATHS if pattern.match(path)), OWN)


def create_app(
    config: Config,
    queue: AcceptingQueue,
    spool: Spool,
    clock: Clock,
    delivery_status: DeliveryStatus,
    desk: Desk,
    views: Views,
    rates: Rates,
    uses: Uses,
) -> App:
    """Build the ASGI application. `delivery_status` answers within a second and never raises."""
    access = Access(spool, clock, Proxies(config.http.trusted_proxies), uses)
    door = Door(
        access=access,
        sender=Sender(queue, spool, clock, config.hostname, rates),
        spool=spool,
        desk=desk,
        views=views,
        clock=clock,
        budget=Budget(config.limits.buffered),
        audit=Audited(spool, clock),
        pools=frozenset({DEFAULT_POOL, *config.pools}),
        hostname=config.hostname,
        smtp_port=config.delivery.port,
        hold=config.limits.hold,
        lifetime=config.retry.lifetime,
    )

    once = Once(access, spool, clock, door.budget, dialect_of)
    app = App(request_type=Request, middleware=[once])
    app.req_options.strip_url_path_trailing_slash = True  # some of the vendors' clients write one
    app.add_route("/healthz", Live())
    app.add_route("/readyz", Ready(spool, delivery_status))
    mailgun.add_routes(app, door)
    sendgrid.add_routes(app, door)
    emails.add_routes(app, door)
    sendarix.add_routes(app, door)
    postmark.add_routes(app, door)
    resend.add_routes(app, door)
    openapi.add_routes(app, dialect_of)
    own.add_routes(app, door)
    admin_queue.add_routes(app, door)
    admin_keys.add_routes(app, door)
    admin_tenants.add_routes(app, door)
    admin_audit.add_routes(app, door)

    async def elsewhere(req: Request, resp: falcon.asgi.Response | None, **_: str) -> None:  # noqa: ARG001 Falcon's name
        dialect = dialect_of(req.path)
        if dialect.credential(req) is None:
            raise Refusal(401, Problem("authorization required"))
        await access.key(req, dialect)
        raise not_found()

    app.add_sink(elsewhere)
    refusing = Refusing(dialect_of)
    app.add_error_handler(Exception, refusing.fail)
    app.add_error_handler(falcon.HTTPError, refusing.refuse_http)
    app.add_error_handler(SpoolError, refusing.refuse_spool)
    app.add_error_handler(TurnTaken, refusing.refuse_turn)
    app.add_error_handler(ViewsUnavailable, refusing.refuse_views)
    app.add_error_handler(Refusal, refusing.refuse)
    app.add_error_handler(TooMuch, refusing.refuse_quietly)
    return app
