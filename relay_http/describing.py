"""Describing operations in OpenAPI 3.1, for the fragments of those dialects that answer as our own API does. Pure."""

from collections.abc import Callable, Sequence
from http import HTTPStatus

import msgspec

from relay_http.problem import PROBLEM_JSON

type_kind_schema = Callable[[type], dict[str, object]]

PROBLEM = {
    "type": "object",
    "description": "What is wrong (RFC 9457), with the path of every field that is.",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["field", "detail"],
                "properties": {"field": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
    },
}
_REASONS = {
    400: "Something is wrong with the request",
    401: "No good key",
    403: "Not with this key",
    404: "Nobody here knows it",
    409: "It is not as the request takes it to be, or the idempotency key belongs to another request",
    410: "It is gone",
    413: "More than is taken",
    415: "Not a media type that is taken",
    429: "Too much for now; Retry-After says when there is room",
    503: "Not now; Retry-After says when to ask again",
    507: "The disk is full up to its reserve",
}
_WAITS = (429, 503)
READING = (400, 401, 403, 404, 503)
WRITING = (400, 401, 403, 404, 409, 413, 415, 429, 503, 507)


class Body(msgspec.Struct, frozen=True, kw_only=True):
    """A JSON body: the name of its schema, and an example."""

    schema: str
    example: object
    media_type: str = "application/json"
    required: bool = True


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """An operation: what it does, what it takes, what it is answered, and what it may be refused with."""

    name: str
    tag: str
    summary: str
    says: str = ""
    parameters: Sequence[dict[str, object]] = ()
    body: Body | None = None
    answers: dict[int, Body | None]
    headers: dict[int, dict[str, object]] = {}
    refusals: Sequence[int] = READING
    security: Sequence[dict[str, list[str]]] = ({"bearer": []},)


def described(operation: Operation) -> dict[str, object]:
    """Write an operation object."""
    answers = {
        str(status): {
            "description": HTTPStatus(status).phrase,
            **({"content": _content(body)} if body is not None else {}),
            **({"headers": operation.headers[status]} if status in operation.headers else {}),
        }
        for status, body in operation.answers.items()
    }
    found: dict[str, object] = {
        "operationId": operation.name,
        "tags": [operation.tag],
        "summary": operation.summary,
        "responses": answers | {str(status): _refused(status) for status in operation.refusals},
        "security": list(operation.security),
    }
    if operation.says:
        found["description"] = operation.says
    if operation.parameters:
        found["parameters"] = list(operation.parameters)
    if operation.body is not None:
        found["requestBody"] = {"required": operation.body.required, "content": _content(operation.body)}
    return found


def in_path(name: str, description: str, example: str, pattern: str = "") -> dict[str, object]:
    """Describe a part of the path."""
    schema = {"type": "string", "minLength": 1, **({"pattern": pattern} if pattern else {})}
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": description,
        "schema": schema,
        "example": example,
    }


def in_query(
    name: str, description: str, schema: dict[str, object] | None = None, *, several: bool = False
) -> dict[str, object]:
    """Describe a query parameter; `several`: it may be given several times."""
    one = schema or {"type": "string", "minLength": 1, "maxLength": 512}
    return {
        "name": name,
        "in": "query",
        "description": description,
        "schema": {"type": "array", "items": one} if several else one,
        **({"style": "form", "explode": True} if several else {}),
    }


def in_header(name: str, description: str, schema: dict[str, object]) -> dict[str, object]:
    """Describe a header field of requests."""
    return {"name": name, "in": "header", "description": description, "schema": schema}


def schemas_of(types: Sequence[type], prefix: str, kinds: type_kind_schema | None = None) -> dict[str, object]:
    """Make the schemas of msgspec types and of all that they are made of, each under its name with a prefix."""
    template = f"#/components/schemas/{prefix}{{name}}"
    _, found = msgspec.json.schema_components(types, schema_hook=kinds, ref_template=template)
    return {f"{prefix}{name}": schema for name, schema in found.items()}


def _content(body: Body) -> dict[str, object]:
    schema = {"$ref": f"#/components/schemas/{body.schema}"} if body.schema else {"type": "string"}
    return {body.media_type: {"schema": schema, "example": body.example}}


def _refused(status: int) -> dict[str, object]:
    example = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": _REASONS[status]}
    content = {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}, "example": example}}
    found: dict[str, object] = {"description": _REASONS[status], "content": content}
    if status in _WAITS:
        found["headers"] = {"Retry-After": {"description": "Seconds.", "schema": {"type": "string"}}}
    return found
