"""/v3/api_keys and /v3/scopes: the keys of a tenant, in the vendor's words. Keys that have ended are not shown."""

import falcon.asgi
import msgspec

from mta.accounts import keys
from mta.accounts.keys import ApiKey
from mta.accounts.particulars import NAME_LIMIT, Particulars
from mta.accounts.scopes import ENOUGH, SCOPES
from mta.accounts.tenants import AccountError
from relay_http.access import live
from relay_http.answer import put_json
from relay_http.body import Request
from relay_http.door import Door
from relay_http.fields import Fields, Problems
from relay_http.problem import Problem, Refusal, Why, not_found
from relay_http.sendgrid.errors import SENDGRID

_SCOPES_LIMIT = 200
NAMES = tuple(sorted([name for name in ENOUGH if "." in name]))
"""The vendor's names of what a key can be good for."""


class _Asked(msgspec.Struct, frozen=True):
    name: str
    scopes: tuple[str, ...] | None


class ApiKeys:
    """The resource of api_keys."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def on_get(self, req: Request, resp: falcon.asgi.Response) -> None:
        """List keys."""
        door = self._door
        maker = await _manager(door, req, "api_keys.read")
        now = door.clock.now()
        found = [each for each in await keys.list_of(door.spool, maker.tenant) if each.good(now)]
        put_json(resp, {"result": [{"api_key_id": each.id, "name": each.name} for each in found]})

    async def on_post(self, req: Request, resp: falcon.asgi.Response) -> None:
        """Make a key; without scopes, one that is good for all that this one is."""
        door = self._door
        maker = await _manager(door, req, "api_keys.create")
        asked = await _asked(door, req, scoped=False)
        names = _all_of(maker) if asked.scopes is None else asked.scopes
        like_maker = Particulars(
            name=asked.name,
            networks=maker.networks,
            rate=keys.stored_rate(maker),
            expires_at=maker.expires_at,
            sandbox=maker.sandbox,
        )
        try:
            async with door.audit.doing(
                req, "keys.create", maker.tenant, name=asked.name, scopes=",".join(names)
            ) as underway:
                made, text = await keys.create(door.spool, maker.tenant, names, door.clock.now(), like_maker, maker)
                underway.on = made.id
        except AccountError as error:
            raise _refused(error) from None
        put_json(resp, {"api_key": text, **_shown(made)}, 201)

    async def on_get_one(self, req: Request, resp: falcon.asgi.Response, key_id: str) -> None:
        """Show a key, as a list of one."""
        maker = await _manager(self._door, req, "api_keys.read")
        put_json(resp, {"result": [_shown(await self._found(maker, key_id))]})

    async def on_patch_one(self, req: Request, resp: falcon.asgi.Response, key_id: str) -> None:
        """Give a key another name."""
        maker = await _manager(self._door, req, "api_keys.update")
        asked = await _asked(self._door, req, scoped=False)
        key = await self._found(maker, key_id)
        changed = await self._change(req, maker, key, _Asked(asked.name, _all_of(key)))
        put_json(resp, {"api_key_id": changed.id, "name": changed.name})

    async def on_put_one(self, req: Request, resp: falcon.asgi.Response, key_id: str) -> None:
        """Give a key another name and other scopes."""
        maker = await _manager(self._door, req, "api_keys.update")
        asked = await _asked(self._door, req, scoped=True)
        put_json(resp, _shown(await self._change(req, maker, await self._found(maker, key_id), asked)))

    async def on_delete_one(self, req: Request, resp: falcon.asgi.Response, key_id: str) -> None:
        """Revoke a key."""
        door = self._door
        maker = await _manager(door, req, "api_keys.delete")
        key = await self._found(maker, key_id)
        if not key.sandbox:
            live(maker)
        async with door.audit.doing(req, "keys.revoke", key.tenant, key.id):
            await keys.revoke(door.spool, key.id, door.clock.now(), maker.tenant)
        resp.status = 204

    async def _found(self, maker: ApiKey, key_id: str) -> ApiKey:
        key = await keys.find(self._door.spool, key_id, maker.tenant)
        if key is None or not key.good(self._door.clock.now()):
            raise not_found()
        return key

    async def _change(self, req: Request, maker: ApiKey, key: ApiKey, asked: _Asked) -> ApiKey:
        door, names = self._door, asked.scopes or ()
        try:
            async with door.audit.doing(req, "keys.set", key.tenant, key.id, name=asked.name, scopes=",".join(names)):
                return await keys.change(door.spool, key, names, door.clock.now(), maker, asked.name)
        except AccountError as error:
            raise _refused(error) from None


class Scopes:
    """The resource of scopes."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def on_get(self, req: Request, resp: falcon.asgi.Response) -> None:
        """List what the calling key is good for; every good key may ask."""
        key = await self._door.access.key(req, SENDGRID)
        put_json(resp, {"scopes": _names(key)})


async def _manager(door: Door, req: Request, scope: str) -> ApiKey:
    key = await door.enter(req, SENDGRID, scope)
    if not key.tenant:  # an operator's, whose keys the command line makes
        raise Refusal(403, Problem("access forbidden"), why=Why.FORBIDDEN)
    return key


async def _asked(door: Door, req: Request, *, scoped: bool) -> _Asked:
    """Read a name and scopes, which may be left out unless it is `scoped`."""
    with door.budget.hold() as held:
        plain = await door.json(req, held, _plain)
    problems = Problems()
    root = Fields.of(plain, "", problems)
    if root is None:
        raise Refusal(400, *problems.found)
    name, scopes = root.text("name"), tuple(root.texts("scopes", _SCOPES_LIMIT).values())
    if name == "":
        root.problem("name", "The name is required.")
    elif name and len(name) > NAME_LIMIT:
        root.problem("name", f"The name is at most {NAME_LIMIT} characters.")
    if scoped and not root.has("scopes"):
        root.problem("scopes", "The scopes are required.")
    if problems.found or name is None:
        raise Refusal(400, *problems.found)
    return _Asked(name, scopes if root.has("scopes") else None)


def _plain(plain: object) -> object:
    return plain


def _all_of(key: ApiKey) -> tuple[str, ...]:
    return key.grants or key.scopes


def _names(key: ApiKey) -> list[str]:
    return [name for name in NAMES if key.allows(name)]


def _shown(key: ApiKey) -> dict[str, object]:
    given = [name for name in key.grants if name not in SCOPES]
    return {"api_key_id": key.id, "name": key.name, "scopes": given or _names(key)}


def _refused(error: AccountError) -> Refusal:
    """Say what is wrong: 400 with the fields, 403 for more than the maker's own, or than there may be."""
    problems = [Problem(each.message, each.field) for each in error.faults]
    if problems and not isinstance(error, keys.Beyond):
        return Refusal(400, *problems)
    return Refusal(403, *(problems or [Problem(str(error))]), why=Why.CONFLICT)
