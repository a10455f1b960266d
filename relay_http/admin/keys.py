"""/admin/v1/keys: a tenant's keys by its keys with the scope manage, those of all tenants by operators'.

A key is never good for more than the one it is made with (mta.accounts.keys.beyond); an operator's is made at the
command line alone. The text of a key is answered once, when it is made.
"""

from collections.abc import Sequence
from typing import Annotated

import falcon.asgi
import msgspec
from msgspec import UNSET, Meta, UnsetType

from mta.accounts import keys, tenants
from mta.accounts.keys import ApiKey
from mta.accounts.particulars import NAME_LIMIT, Particulars
from mta.accounts.rates import rate_text
from mta.accounts.tenants import AccountError
from mta.accounts.uses import last_used
from mta.spool.interface import Spool
from relay_http.access import live
from relay_http.admin.asked import answer, read_fields, read_rate, refused, who_asks
from relay_http.body import Request
from relay_http.door import Door
from relay_http.parameters import Parameters
from relay_http.problem import Problem, Refusal, Why, not_found

_PAGE, _LONGEST_PAGE = 100, 1000
_OVERLAP = 86_400.0  # seconds
_Scopes = Annotated[list[Annotated[str, Meta(max_length=100)]], Meta(min_length=1, max_length=200)]
_Name = Annotated[str, Meta(max_length=NAME_LIMIT)]
_Networks = Annotated[list[Annotated[str, Meta(max_length=64)]], Meta(max_length=100)]


class Asked(msgspec.Struct):
    """What is asked for a new key."""

    scopes: _Scopes
    tenant: str | None = None
    name: _Name = ""
    networks: _Networks = []
    rate: str | None = None
    expires_at: float | None = None
    sandbox: bool = False
    once: float = 0.0


class Changed(msgspec.Struct):
    """What is to be changed of a key."""

    name: _Name | UnsetType = UNSET
    scopes: _Scopes | UnsetType = UNSET


class Rotated(msgspec.Struct):
    """How a key is to be replaced: the old one is good for so many seconds more."""

    overlap: Annotated[float, Meta(ge=0, le=keys.LONGEST_OVERLAP)] = _OVERLAP


def add_routes(app: falcon.asgi.App[Request, falcon.asgi.Response], door: Door) -> None:
    """Add every route of keys."""
    app.add_route("/admin/v1/keys", _Keys(door))
    app.add_route("/admin/v1/keys/{id_}", _Key(door))
    app.add_route("/admin/v1/keys/{id_}/rotate", _Rotate(door))


class _Keys:
    def __init__(self, door: Door) -> None:
        self._door = door

    async def on_get(self, req: Request, resp: falcon.asgi.Response) -> None:
        """List keys, oldest first, those that have ended too."""
        who, spool = await who_asks(req, self._door), self._door.spool
        parameters = Parameters(req, ("after", "limit", *(() if who.tenant else ("tenant",))))
        limit, after = parameters.number("limit", _PAGE, _LONGEST_PAGE), parameters.text("after")
        tenant = who.tenant or parameters.text("tenant")
        found = await (keys.list_of(spool, tenant) if tenant else keys.list_all(spool))
        page, following = _page(found, after, limit)
        answer(resp, {"keys": [await _shown(spool, each) for each in page], "next": following})

    async def on_post(self, req: Request, resp: falcon.asgi.Response) -> None:
        """Make a key."""
        door, who = self._door, await who_asks(req, self._door)
        asked = await read_fields(req, door.budget, Asked)
        particulars = Particulars(
            name=asked.name,
            networks=tuple(asked.networks),
            rate=read_rate(asked.rate) if asked.rate else None,
            expires_at=asked.expires_at or 0.0,
            sandbox=asked.sandbox,
            once=asked.once,
        )
        if who.tenant and asked.tenant not in (None, who.tenant):
            raise Refusal(403, Problem("your key makes keys of its own tenant alone", "tenant"), why=Why.FORBIDDEN)
        tenant = who.tenant or asked.tenant
        if tenant is None:
            raise Refusal(400, Problem("say whose it is", "tenant"))
        told = {name: value for name, value in msgspec.to_builtins(asked).items() if value and name != "tenant"}
        try:
            known = await tenants.exists(door.spool, tenant)
            async with door.audit.doing(req, "keys.create", tenant if known else "", **told) as underway:
                key, text = await keys.create(
                    door.spool, tenant, asked.scopes, door.clock.now(), particulars, req.context.key
                )
                underway.on = key.id
        except AccountError as error:
            raise refused(error) from None
        _made(resp, {**await _shown(door.spool, key), "key": text})


class _Key:
    def __init__(self, door: Door) -> None:
        self._door = door

    async def on_get(self, req: Request, resp: falcon.asgi.Response, id_: str) -> None:
        """Show a key."""
        answer(resp, await _shown(self._door.spool, await _found(req, self._door, id_)))

    async def on_patch(self, req: Request, resp: falcon.asgi.Response, id_: str) -> None:
        """Give a key another name, or other scopes."""
        door, key = self._door, await _found(req, self._door, id_)
        asked = await read_fields(req, door.budget, Changed)
        name = key.name if asked.name is UNSET else asked.name
        names: Sequence[str] = key.grants or key.scopes
        if asked.scopes is not UNSET:
            names = asked.scopes
        try:
            async with door.audit.doing(req, "keys.set", key.tenant, key.id, name=name, scopes=names):
                changed = await keys.change(door.spool, key, names, door.clock.now(), req.context.key, name)
        except AccountError as error:
            raise refused(error) from None
        answer(resp, await _shown(door.spool, changed))

    async def on_delete(self, req: Request, resp: falcon.asgi.Response, id_: str) -> None:
        """Revoke a key."""
        door, key = self._door, await _found(req, self._door, id_)
        if not key.sandbox:
            live(req.context.key)
        async with door.audit.doing(req, "keys.revoke", key.tenant, key.id):
            await keys.revoke(door.spool, key.id, door.clock.now())
        resp.status = 204


class _Rotate:
    def __init__(self, door: Door) -> None:
        self._door = door

    async def on_post(self, req: Request, resp: falcon.asgi.Response, id_: str) -> None:
        """Make a key that is good for the same, and let the old one end."""
        door, key = self._door, await _found(req, self._door, id_)
        asked = await read_fields(req, door.budget, Rotated)
        try:
            async with door.audit.doing(req, "keys.rotate", key.tenant, key.id, overlap=asked.overlap) as underway:
                made, text = await keys.rotate(door.spool, key, asked.overlap, door.clock.now(), req.context.key)
                underway.result = f"done: {made.id}"
        except AccountError as error:
            raise refused(error) from None
        _made(resp, {**await _shown(door.spool, made), "key": text, "instead_of": key.id})


async def _found(req: Request, door: Door, id_: str) -> ApiKey:
    """Find a key for who asks; one of another tenant is none."""
    who = await who_asks(req, door)
    key = await keys.find(door.spool, id_, who.tenant)
    if key is None:
        raise not_found(f"there is no key {id_[:64]}")
    return key


async def _shown(spool: Spool, key: ApiKey) -> dict[str, object]:
    return {
        "id": key.id,
        "name": key.name,
        "tenant": key.tenant or None,
        "operator": key.operator,
        "scopes": key.scopes,
        "grants": key.grants or key.scopes,
        "networks": key.networks,
        "rate": rate_text(key.rate, key.per) or None,
        "once": key.once,
        "sandbox": key.sandbox,
        "created_at": key.created_at,
        "expires_at": key.expires_at or None,
        "revoked_at": key.revoked_at or None,
        "last_used_at": await last_used(spool, key.id) or None,
    }


def _page(found: Sequence[ApiKey], after: str, limit: int) -> tuple[Sequence[ApiKey], str | None]:
    """Cut the page behind a key out of all; Refusal 400 if there is no such key."""
    start = next((number for number, each in enumerate(found, 1) if each.id == after), None) if after else 0
    if start is None:
        raise Refusal(400, Problem("not a key's ID", "after"))
    page = found[start : start + limit]
    return page, page[-1].id if start + limit < len(found) else None


def _made(resp: falcon.asgi.Response, shown: dict[str, object]) -> None:
    answer(resp, shown)
    resp.status = 201
    resp.set_header("Location", f"/admin/v1/keys/{shown['id']}")
