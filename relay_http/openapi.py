"""/openapi.json and /docs: what all dialects say of themselves, joined; made when it is asked for first."""

import pkgutil
from collections.abc import Iterator
from functools import cached_property
from hashlib import blake2b
from http import HTTPStatus
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import falcon.asgi
import msgspec

import relay_http
from relay_http import describing
from relay_http.answer import JSON
from relay_http.body import Request
from relay_http.dialect import Dialect
from relay_http.errors import type_of_path
from relay_http.kept import KEY, KEY_CHARS, under_way
from relay_http.problem import Problem, Refusal, Why, invalid
from relay_http.reference import HTML, page

_STATUS = {"type": "object", "additionalProperties": True}
_KEY = {
    "name": KEY,
    "in": "header",
    "description": "Whoever asks the same again with it is answered as the first time, and nothing more is done: for 24"
    " hours, and for 24 hours after the send time.",
    "schema": {"type": "string", "minLength": 1, "maxLength": KEY_CHARS, "pattern": "^[!-~]+$"},
}
_REPLAYED = {"Idempotent-Replayed": {"description": "true: this is the first answer.", "schema": {"type": "string"}}}
_WRITES = ("post", "put", "patch", "delete")
_REFUSALS = (
    invalid(f"an idempotency key is 1 to {KEY_CHARS} printable ASCII characters", KEY),
    under_way(),
    Refusal(413, Problem("content too large"), why=Why.TOO_LARGE),
)
_HEAD_TOO_LARGE = Refusal(431, Problem("request header too large"))
_HEALTH = {
    "/healthz": {
        "get": describing.described(
            describing.Operation(
                name="live",
                tag="Health",
                summary="Say that the process lives",
                answers={200: describing.Body(schema="Status", example={"status": "ok"})},
                refusals=(),
                security=(),
            )
        )
    },
    "/readyz": {
        "get": describing.described(
            describing.Operation(
                name="ready",
                tag="Health",
                summary="Say whether mail can be taken now",
                answers={
                    200: describing.Body(schema="Status", example={"ready": True, "reason": "", "delivery": {}}),
                    503: describing.Body(
                        schema="Status", example={"ready": False, "reason": "the spool is full", "delivery": {}}
                    ),
                },
                refusals=(),
                security=(),
            )
        )
    },
}


def fragments() -> Iterator[ModuleType]:
    """Import the part of each package that has one (`PATHS`, `SCHEMAS`); not before, a start is quicker without."""
    for found in pkgutil.iter_modules(relay_http.__path__):
        if found.ispkg and find_spec(f"relay_http.{found.name}.openapi") is not None:
            yield import_module(f"relay_http.{found.name}.openapi")


def document(dialect_of: type_of_path) -> dict[str, object]:
    """Join what the dialects say of themselves."""
    paths, schemas = dict[str, Any](_HEALTH), dict[str, object](Problem=describing.PROBLEM, Status=_STATUS)
    for fragment in fragments():
        paths |= fragment.PATHS
        schemas |= fragment.SCHEMAS
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Fairlead",
            "version": version("fairlead"),
            "description": "A self-hosted SMTP relay and MTA. What is accepted is durable when it is answered.",
        },
        "paths": {path: _completed(paths[path], dialect_of(path)) for path in sorted(paths)},
        "components": {
            "parameters": {"IdempotencyKey": _KEY},
            "schemas": dict(sorted(schemas.items())),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "basic": {"type": "http", "scheme": "basic", "description": "The user is `api`."},
                "serverToken": {"type": "apiKey", "in": "header", "name": "X-Postmark-Server-Token"},
            },
        },
        "security": [{"bearer": []}],
    }


def _completed(operations: dict[str, Any], dialect: Dialect) -> dict[str, object]:
    """Say what holds of all operations but those for everybody: refusals and idempotency, in a dialect's words."""
    return {
        verb: _once(each, dialect) if verb in _WRITES else _refusing(each, dialect) if each["security"] else each
        for verb, each in operations.items()
    }


def _once(operation: dict[str, Any], dialect: Dialect) -> dict[str, Any]:
    """Say that a write takes an idempotency key."""
    responses = {
        status: each | {"headers": _REPLAYED | each.get("headers", {})} if status.startswith("2") else each
        for status, each in operation["responses"].items()
    }
    parameters = [*operation.get("parameters", ()), {"$ref": "#/components/parameters/IdempotencyKey"}]
    return _refusing(operation | {"parameters": parameters, "responses": responses}, dialect, *_REFUSALS)


def _refusing(operation: dict[str, Any], dialect: Dialect, *refusals: Refusal) -> dict[str, Any]:
    """Say what may be refused, and that a head may be too large, which whoever reads it does not ask the dialect."""
    responses = dict(operation["responses"])
    ((_, as_others),) = responses["401"]["content"].items()
    for refusal in (*refusals, _HEAD_TOO_LARGE):
        status, body, media_type = dialect.refused(refusal)
        status = refusal.status if refusal is _HEAD_TOO_LARGE else status
        content = {media_type: {"schema": as_others["schema"], "example": msgspec.json.decode(body)}}
        responses.setdefault(str(status), {"description": HTTPStatus(status).phrase, "content": content})
    return operation | {"responses": responses}


class _Page(msgspec.Struct, frozen=True):
    body: bytes
    etag: str


def _paged(body: bytes) -> _Page:
    return _Page(body, f'"{blake2b(body, digest_size=12).hexdigest()}"')


class _Pages:
    """Both pages, made once."""

    def __init__(self, dialect_of: type_of_path) -> None:
        self._dialect_of = dialect_of

    @cached_property
    def json(self) -> _Page:
        return _paged(msgspec.json.encode(document(self._dialect_of)))

    @cached_property
    def html(self) -> _Page:
        return _paged(page(document(self._dialect_of)))


class _Json:
    def __init__(self, pages: _Pages) -> None:
        self._pages = pages

    async def on_get(self, req: Request, resp: falcon.asgi.Response) -> None:
        """Return the document."""
        _put(req, resp, self._pages.json, JSON)


class _Docs:
    def __init__(self, pages: _Pages) -> None:
        self._pages = pages

    async def on_get(self, req: Request, resp: falcon.asgi.Response) -> None:
        """Return the document for people."""
        resp.set_header("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
        _put(req, resp, self._pages.html, HTML)


def _put(req: Request, resp: falcon.asgi.Response, page: _Page, media_type: str) -> None:
    resp.set_header("ETag", page.etag)
    resp.set_header("Cache-Control", "no-cache")
    if req.get_header("If-None-Match") == page.etag:
        resp.status = 304
        return
    resp.data = page.body
    resp.content_type = media_type


def add_routes(app: falcon.asgi.App[Request, falcon.asgi.Response], dialect_of: type_of_path) -> None:
    """Add the pages; they are for everybody."""
    pages = _Pages(dialect_of)
    app.add_route("/openapi.json", _Json(pages))
    app.add_route("/docs", _Docs(pages))
