"""/admin/v1/tenants: who they are and what they may, for operators' keys alone."""

from typing import Annotated, Literal

import falcon.asgi
import msgspec
from msgspec import UNSET, Meta, UnsetType

from mta.accounts import tenants
from mta.accounts.rates import rate_text
from mta.accounts.tenants import HEAVIEST, LONGEST_KEPT, AccountError, Tenant
from mta.config import DEFAULT_POOL
from relay_http.access import live
from relay_http.admin.asked import answer, operator_asks, read_fields, read_rate, refused
from relay_http.body import Request
from relay_http.door import Door
from relay_http.parameters import Parameters
from relay_http.problem import Problem, Refusal, Why, not_found

_PAGE, _LONGEST_PAGE = 100, 1000
_Most = Annotated[int, Meta(ge=0, lt=1 << 53)]


class Changed(msgspec.Struct):
    """What is to be changed of a tenant; `rate` is null for none."""

    weight: Annotated[int, Meta(ge=1, le=HEAVIEST)] | UnsetType = UNSET
    pool: str | UnsetType = UNSET
    tls: Literal["encrypted", "verified"] | UnsetType | None = UNSET
    rate: str | UnsetType | None = UNSET
    backlog_messages: _Most | UnsetType = UNSET
    backlog_octets: _Most | UnsetType = UNSET
    keep_content: Annotated[int, Meta(ge=0, le=LONGEST_KEPT)] | UnsetType = UNSET


class Asked(Changed, kw_only=True):
    """What is asked for a new tenant."""

    name: str


def add_routes(app: falcon.asgi.App[Request, falcon.asgi.Response], door: Door) -> None:
    """Add every route of tenants."""
    app.add_route("/admin/v1/tenants", _Tenants(door))
    app.add_route("/admin/v1/tenants/{name}", _Tenant(door))


class _Tenants:
    def __init__(self, door: Door) -> None:
        self._door = door

    async def on_get(self, req: Request, resp: falcon.asgi.Response) -> None:
        """List tenants by name."""
        await operator_asks(req, self._door)
        parameters = Parameters(req, ("after", "limit"))
        limit, after = parameters.number("limit", _PAGE, _LONGEST_PAGE), parameters.text("after")
        found = [each for each in await tenants.list_all(self._door.spool) if each.name > after]
        page = found[:limit]
        following = page[-1].name if len(found) > limit else None
        answer(resp, {"tenants": [_shown(each) for each in page], "next": following})

    async def on_post(self, req: Request, resp: falcon.asgi.Response) -> None:
        """Make a tenant."""
        door = self._door
        await operator_asks(req, door)
        live(req.context.key)
        asked = await read_fields(req, door.budget, Asked)
        fields = _fields(asked, door.pools)
        try:
            async with door.audit.doing(req, "tenants.create", asked.name, asked.name, **_told(asked)) as underway:
                created = await tenants.create(door.spool, asked.name, door.clock.now(), **fields)
                underway.result = "done" if created else "unchanged"
        except AccountError as error:
            raise Refusal(400, Problem(str(error), "name")) from None
        if not created:
            raise Refusal(409, Problem("there is a tenant of this name", "name"), why=Why.CONFLICT)
        answer(resp, _shown(await tenants.settings_of(door.spool, asked.name)))
        resp.status = 201
        resp.set_header("Location", f"/admin/v1/tenants/{asked.name}")


class _Tenant:
    def __init__(self, door: Door) -> None:
        self._door = door

    async def on_get(self, req: Request, resp: falcon.asgi.Response, name: str) -> None:
        """Show a tenant."""
        await self._find(req, name)
        answer(resp, _shown(await tenants.settings_of(self._door.spool, name)))

    async def on_patch(self, req: Request, resp: falcon.asgi.Response, name: str) -> None:
        """Change what is given; all roles know it within ten seconds."""
        door = self._door
        await self._find(req, name)
        live(req.context.key)
        asked = await read_fields(req, door.budget, Changed)
        fields = _fields(asked, door.pools)
        if fields:
            try:
                async with door.audit.doing(req, "tenants.set", name, name, **_told(asked)):
                    await tenants.change(door.spool, name, **fields)
            except AccountError as error:
                raise refused(error) from None
        answer(resp, _shown(await tenants.settings_of(door.spool, name)))

    async def _find(self, req: Request, name: str) -> None:
        await operator_asks(req, self._door)
        if not await tenants.exists(self._door.spool, name):
            raise not_found(f"there is no tenant {name[:64]}")


def _fields(asked: Changed, pools: frozenset[str]) -> dict[str, int | str]:
    """Return the fields of a tenant's record that are to be changed; Refusal 400 for what is no value."""
    if asked.pool is not UNSET and asked.pool not in pools:
        raise Refusal(400, Problem(f"the configuration has {', '.join(sorted(pools))}", "pool"))
    rate = read_rate(asked.rate) if asked.rate else None
    found = {
        "weight": asked.weight,
        "pool": asked.pool,
        "tls": asked.tls or "" if asked.tls is not UNSET else UNSET,
        "most_messages": asked.backlog_messages,
        "most_octets": asked.backlog_octets,
        "keep_content": asked.keep_content,
        "rate": UNSET if asked.rate is UNSET else rate.messages if rate else 0,
        "per": UNSET if asked.rate is UNSET else rate.seconds if rate else 0,
    }
    return {name: value for name, value in found.items() if value is not UNSET}


def _told(asked: Changed) -> dict[str, object]:
    """Say for the audit log what is changed."""
    return {
        name: "none" if value is None else value for name, value in msgspec.to_builtins(asked).items() if name != "name"
    }


def _shown(tenant: Tenant) -> dict[str, object]:
    return {
        "name": tenant.name,
        "weight": tenant.weight,
        "pool": tenant.pool or DEFAULT_POOL,
        "tls": tenant.tls or None,
        "rate": rate_text(tenant.rate, tenant.per) or None,
        "backlog_messages": tenant.most_messages,
        "backlog_octets": tenant.most_octets,
        "keep_content": tenant.keep_content,
        "created_at": tenant.created_at,
    }
