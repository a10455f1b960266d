"""Who asks the management API, and for what: keys with the scope `manage`, query parameters and bodies."""

import re
from collections.abc import Collection, Sequence
from typing import Annotated, Any, Literal, TypeVar

import falcon.asgi
import msgspec
from msgspec import UNSET, Meta, UnsetType

from mta.accounts import rates
from mta.accounts.keys import ApiKey, Beyond
from mta.accounts.rates import RateError
from mta.accounts.tenants import AccountError
from mta.accounts.tolls import Rate
from mta.queue.actions import Who
from mta.queue.where import Where, WhereError
from relay_http.access import live, require, who
from relay_http.body import Budget, Request, read
from relay_http.door import Door
from relay_http.own.errors import OWN
from relay_http.problem import Problem, Refusal, Why

_BODY_LIMIT = 64 << 10  # octets
_CONDITIONS = 20
_CONDITION_LIMIT = 512  # characters

_Condition = Annotated[str, Meta(max_length=_CONDITION_LIMIT)]


class Asked(msgspec.Struct, forbid_unknown_fields=True, rename={"class_": "class"}):
    """What the body of a POST says. `confirm` is how many entries were counted before."""

    where: Annotated[list[_Condition], Meta(min_length=1, max_length=_CONDITIONS)] | UnsetType = UNSET
    confirm: Annotated[int, Meta(ge=0)] | UnsetType = UNSET
    to: Annotated[str, Meta(max_length=_CONDITION_LIMIT)] | UnsetType | None = UNSET
    class_: Literal["high", "normal", "bulk"] | UnsetType = UNSET


_read_body = msgspec.json.Decoder(Asked).decode
_read_object = msgspec.json.Decoder(dict[str, Any]).decode
_encode = msgspec.json.Encoder().encode
type_struct = TypeVar("type_struct", bound=msgspec.Struct)
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_AT = re.compile(r"(?P<said>.*) - at `\$(?P<path>.*)`", re.DOTALL)


async def who_asks(req: Request, door: Door) -> Who:
    """Return on whose word the request is: an operator's, or a tenant's; Refusal 401 or 403."""
    return who(await _manager(req, door))


async def who_changes(req: Request, door: Door) -> Who:
    """Return on whose word mail in the queue is to be changed; Refusal 401 or 403."""
    return who(live(await _manager(req, door)))


async def _manager(req: Request, door: Door) -> ApiKey:
    key = await door.access.key(req, OWN)
    require(key, "manage")
    if not key.tenant and not key.operator:  # it would pass for an operator's
        raise Refusal(403, Problem("access forbidden"), why=Why.FORBIDDEN)
    return key


async def operator_asks(req: Request, door: Door) -> None:
    """Let operators pass; Refusal 401 or 403."""
    if (await who_asks(req, door)).tenant:
        raise Refusal(403, Problem("only an operator's key can do this"), why=Why.FORBIDDEN)


async def read_asked(req: Request, budget: Budget, fields: Collection[str]) -> Asked:
    """Read a body that may have these fields; Refusal 400 with the path of what is wrong."""
    data = await _read_small(req, budget)
    try:
        asked = _read_body(data or b"{}")
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Refusal(400, Problem("the body is not JSON")) from None
    for name in asked.__struct_encode_fields__:
        given = getattr(asked, "class_" if name == "class" else name) is not UNSET
        if given and name not in fields:
            raise Refusal(400, Problem("not a field of this request", name))
    return asked


async def read_fields(req: Request, budget: Budget, kind: type[type_struct]) -> type_struct:
    """Read a body that has the fields of a struct; Refusal 400 with the path of everything that is wrong."""
    data = await _read_small(req, budget)
    try:
        given = _read_object(data or b"{}")
    except msgspec.ValidationError:
        raise Refusal(400, Problem("the body is not a JSON object")) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Refusal(400, Problem("the body is not JSON")) from None
    fields = {each.encode_name: each for each in msgspec.structs.fields(kind)}
    problems = [Problem("not a field of this request", name[:128]) for name in given if name not in fields]
    found: dict[str, Any] = {}
    for name, field in fields.items():
        if name not in given:
            if field.required:
                problems.append(Problem("is required", name))
            continue
        try:
            found[field.name] = msgspec.convert(given[name], field.type)
        except msgspec.ValidationError as error:
            (problem,) = _invalid(str(error)).problems
            problems.append(Problem(problem.message, ".".join(filter(None, (name, problem.field)))))
    if problems:
        raise Refusal(400, *problems)
    return kind(**found)


def read_rate(text: str) -> Rate:
    """Read a rate; Refusal 400 if it is none."""
    try:
        return rates.read_rate(text)
    except RateError as error:
        raise Refusal(400, Problem(str(error), "rate")) from None


def refused(error: AccountError) -> Refusal:
    """Refuse what accounts refuse: 403 what is beyond the key, 400 what is wrong with fields, else 409."""
    problems = [Problem(each.message, each.field) for each in error.faults] or [Problem(str(error))]
    if isinstance(error, Beyond):
        return Refusal(403, *problems, why=Why.FORBIDDEN)
    return Refusal(400, *problems) if error.faults else Refusal(409, *problems, why=Why.CONFLICT)


def answer(resp: falcon.asgi.Response, shown: object) -> None:
    """Answer with JSON that nobody keeps."""
    resp.data = _encode(shown)
    resp.content_type = "application/json"
    resp.set_header("Cache-Control", "no-store")


async def _read_small(req: Request, budget: Budget) -> bytes:
    with budget.hold() as held:
        if (req.content_length or 0) > _BODY_LIMIT:
            raise _too_large()
        data = await read(req, held)
    if len(data) > _BODY_LIMIT:
        raise _too_large()
    return data


def _too_large() -> Refusal:
    return Refusal(413, Problem("content too large"), why=Why.TOO_LARGE)


def _invalid(said: str) -> Refusal:
    """Turn `Expected ... - at `$.where[0]`` into a message and the path `where.0`; an unknown field is its own path."""
    unknown = _UNKNOWN.fullmatch(said)
    if unknown is not None:
        return Refusal(400, Problem("not a field of this request", unknown[1][:128]))
    found = _AT.fullmatch(said)
    if found is None:
        return Refusal(400, Problem(said[:256]))
    path = re.sub(r"[.\[]+", ".", found["path"].replace("]", "")).strip(".")
    return Refusal(400, Problem(found["said"][:256], path[:128]))


def read_where(conditions: Sequence[str], who: Who) -> Where:
    """Read conditions on what a tenant has in the queue, or on all; Refusal 400 with the number of the wrong one."""
    if len(conditions) > _CONDITIONS:
        raise Refusal(400, Problem(f"at most {_CONDITIONS} conditions", "where"))
    for number, each in enumerate(conditions):
        try:
            if len(each) > _CONDITION_LIMIT:
                raise WhereError(f"at most {_CONDITION_LIMIT} characters")
            Where([each])
        except WhereError as error:
            raise Refusal(400, Problem(str(error), f"where.{number}")) from None
    return Where(conditions, who.tenant)
