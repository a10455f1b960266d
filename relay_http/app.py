"""The HTTP API: every route on one screen.

A dialect translates a request into submissions; what everyone needs (keys, bodies, refusals) lies beside it.
Until there is a second dialect, paths that nobody knows are answered in the first one's words.
"""

import falcon.asgi

from mta.clock import Clock
from mta.config import Config
from mta.queue.desk import Desk, TurnTaken
from mta.spool.interface import Spool, SpoolError
from relay_http import auth
from relay_http.admin import queue as admin_queue
from relay_http.body import Budget, Request
from relay_http.health import DeliveryStatus, Live, Ready
from relay_http.problem import Problem, Refusal, TooMuch
from relay_http.sendgrid import errors
from relay_http.sendgrid.resource import AcceptingQueue, MailSend

App = falcon.asgi.App[Request, falcon.asgi.Response]


def create_app(
    config: Config, queue: AcceptingQueue, spool: Spool, clock: Clock, delivery_status: DeliveryStatus, desk: Desk
) -> App:
    """Build the ASGI application. `delivery_status` answers within a second and never raises."""
    budget = Budget(config.limits.buffered)
    mail_send = MailSend(queue, spool, clock, config.hostname, budget)

    app = App(request_type=Request)
    app.add_route("/healthz", Live())
    app.add_route("/readyz", Ready(spool, delivery_status))
    app.add_route("/v3/mail/send", mail_send)
    app.add_route("/api/v1/mail/send", mail_send)
    app.add_route("/api/v1/v3/mail/send", mail_send)  # what client libraries make of the base URL /api/v1

    admin_queue.add_routes(app, desk, budget, config.delivery.port)

    async def elsewhere(req: Request, resp: falcon.asgi.Response | None, **_: str) -> None:  # noqa: ARG001 Falcon's name
        await auth.authenticate(req, spool, "authorization required")
        raise Refusal(404, Problem("not found"))

    app.add_sink(elsewhere)
    app.add_error_handler(Exception, errors.fail)
    app.add_error_handler(falcon.HTTPError, errors.refuse_http)
    app.add_error_handler(SpoolError, errors.refuse_spool)
    app.add_error_handler(TurnTaken, errors.refuse_turn)
    app.add_error_handler(Refusal, errors.refuse)
    app.add_error_handler(TooMuch, errors.refuse_quietly)
    return app
