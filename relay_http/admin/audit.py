"""/admin/v1/audit: who did what; a tenant reads what concerns it alone, and of operators not who and from where."""

import datetime as dt

import falcon.asgi

from mta.accounts.audit import Record, is_position
from relay_http.admin.asked import answer, who_asks
from relay_http.body import Request
from relay_http.door import Door
from relay_http.parameters import Parameters
from relay_http.problem import Problem, Refusal

_PAGE, _LONGEST_PAGE = 100, 1000


def add_routes(app: falcon.asgi.App[Request, falcon.asgi.Response], door: Door) -> None:
    """Add the route of the audit log."""
    app.add_route("/admin/v1/audit", _Audit(door))


class _Audit:
    def __init__(self, door: Door) -> None:
        self._door = door

    async def on_get(self, req: Request, resp: falcon.asgi.Response) -> None:
        """Read a page, the latest first."""
        who = await who_asks(req, self._door)
        parameters = Parameters(req, ("since", "before", "limit", *(() if who.tenant else ("tenant",))))
        limit, before = parameters.number("limit", _PAGE, _LONGEST_PAGE), parameters.text("before")
        since = _time(parameters.text("since"))
        if before and not is_position(before):
            raise Refusal(400, Problem("not the `next` of a page", "before"))
        tenant = who.tenant or parameters.text("tenant")
        async with self._door.desk.turn("audit", who):
            found, following = await self._door.audit.log.page(tenant, limit, before, since)
        hidden = bool(who.tenant)
        answer(
            resp, {"actions": [_shown(each, hidden=hidden and each.by_operator) for each in found], "next": following}
        )


def _shown(record: Record, *, hidden: bool) -> dict[str, object]:
    return {
        "at": record.at,
        "by": "the operator" if hidden else record.by,
        "address": "" if hidden else record.address,
        "action": record.action,
        "tenant": record.tenant or None,
        "on": record.on,
        "details": record.details,
        "result": record.result,
    }


def _time(text: str) -> float:
    """Read a time with its zone, or absolute seconds; Refusal 400 if it is neither."""
    if text.isascii() and text.isdigit() and len(text) <= 12:
        return float(text)
    try:
        found = dt.datetime.fromisoformat(text) if text else dt.datetime.fromtimestamp(0, dt.UTC)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise Refusal(400, Problem("a time such as 2026-12-01T08:00:00Z, or seconds", "since"))
    return found.timestamp()
