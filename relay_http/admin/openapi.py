"""The management API in OpenAPI 3.1 (docs/api.md)."""

from mta.queue.shape import ROWS, By, Shape
from mta.queue.site_row import SiteRow
from relay_http.admin import openapi_accounts as accounts
from relay_http.admin.queue import LONGEST_PAGE, PAGE, action_fields
from relay_http.describing import READING, Body, Operation, described, in_path, in_query, schemas_of

_TAG = "Queue"
_ID = "AaH7ugABdbWHsNpfu8EmnA"
_AT = 1_800_000_000.0
_CONDITION = {"type": "string", "minLength": 1, "maxLength": 512}
_WHERE = in_query(
    "where", "A condition, such as `domain=example.com` or `age>2h`. All have to hold.", _CONDITION, several=True
)
_ID_PATH = in_path("id", "The ID of a message, or of an entry (`ID.1`).", _ID)
_LISTING = (400, 401, 403, 429, 503)
_CHANGING = (*_LISTING, 413)
_NULL_TEXT = {"type": ["string", "null"]}
_NULL_TIME = {"type": ["number", "null"]}
_TEXTS = {"type": "array", "items": {"type": "string"}}


def _object(properties: dict[str, object], optional: tuple[str, ...] = ()) -> dict[str, object]:
    return {
        "type": "object",
        "required": [each for each in properties if each not in optional],
        "properties": properties,
    }


_ENTRY: dict[str, object] = {
    "entry": {"type": "string"},
    "message": {"type": "string"},
    "tenant": {"type": "string"},
    "domain": {"type": "string"},
    "state": {"type": "string", "enum": ["queued", "held", "in_flight"]},
    "recipients": _TEXTS,
    "attempts": {"type": "integer"},
    "due_at": {"type": "number"},
    "expires_at": {"type": "number"},
}
_COUNTS = ("changed", "unchanged", "in_flight", "ended", "busy")
_ENTRY_EXAMPLE = {
    "entry": f"{_ID}.1",
    "message": _ID,
    "tenant": "shop",
    "domain": "example.net",
    "state": "queued",
    "recipients": ["ann@example.net"],
    "attempts": 1,
    "due_at": _AT,
    "expires_at": _AT + 259_200,
}
_ROW = {"name": "TOTAL", "total": 1, "ages": {"5": 1, "10": 0}}
_SHAPE_EXAMPLE = {"by": "domain", "total": _ROW, "rows": [{**_ROW, "name": "example.net"}], "short_by": 0}
_FIELDS: dict[str, dict[str, object]] = {
    "to": {"type": ["string", "null"], "maxLength": 512, "description": "HOST[:PORT]; null for routes and MX."},
    "class": {"type": "string", "enum": ["high", "normal", "bulk"]},
}

SCHEMAS: dict[str, object] = {
    **accounts.SCHEMAS,
    "AdminEntries": _object({"entries": {"type": "array", "items": _object(_ENTRY)}, "next": _NULL_TEXT}),
    **schemas_of((Shape, SiteRow), "Admin"),
    "AdminSites": _object({"sites": {"type": "array", "items": {"$ref": "#/components/schemas/AdminSiteRow"}}}),
    "AdminFound": {"type": "object", "description": "A message with its `entries`, or an entry."},
    "AdminExplained": {"$ref": "#/components/schemas/OwnExplained"},
    "AdminResults": _object(
        {
            "results": {
                "type": "array",
                "items": _object(
                    {"entry": {"type": "string"}, "recipient": {"type": "string"}, "result": {"type": "string"}},
                    optional=("recipient",),
                ),
            }
        }
    ),
    "AdminCounted": _object(
        {
            "confirmed": {"type": "boolean"},
            "entries": {"type": "integer"},
            "recipients": {"type": "integer"},
            **{each: {"type": "integer"} for each in _COUNTS},
        }
    ),
}


def _body_of(name: str, fields: tuple[str, ...], *, conditions: bool) -> str:
    """Add the schema of an action's body, and return its name."""
    properties: dict[str, object] = {each: _FIELDS[each] for each in fields}
    required = list(fields)
    if conditions:
        properties["where"] = {"type": "array", "items": _CONDITION, "minItems": 1, "maxItems": 20}
        properties["confirm"] = {"type": "integer", "minimum": 0, "description": "How many were counted before."}
        required.append("where")
    schema = f"Admin{name.capitalize()}{'Many' if conditions else ''}"
    SCHEMAS[schema] = {
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        **({"required": required} if required else {}),
    }
    return schema


def _actions() -> dict[str, object]:
    paths: dict[str, object] = {}
    for name, fields in action_fields().items():
        example: dict[str, object] = {each: "relay.example.net:25" if each == "to" else "bulk" for each in fields}
        many = _body_of(name, fields, conditions=True)
        counted = {"confirmed": True, "entries": 120, "recipients": 131, **dict.fromkeys(_COUNTS, 0), "changed": 120}
        paths[f"/admin/v1/queue/{name}"] = {
            "post": described(
                Operation(
                    name=f"{name}Queue",
                    tag=_TAG,
                    summary=f"Count what is meant, or {name} it",
                    says="Without `confirm` it only counts.",
                    body=Body(schema=many, example={"where": ["domain=example.com"], "confirm": 120, **example}),
                    answers={200: Body(schema="AdminCounted", example=counted)},
                    refusals=(*_CHANGING, 409),
                )
            )
        }
        one = _body_of(name, fields, conditions=False)
        paths[f"/admin/v1/queue/{{id}}/{name}"] = {
            "post": described(
                Operation(
                    name=f"{name}One",
                    tag=_TAG,
                    summary=f"{name.capitalize()} a message's entries, or one",
                    parameters=[_ID_PATH],
                    body=Body(schema=one, example=example, required=bool(fields)),
                    answers={
                        200: Body(
                            schema="AdminResults",
                            example={"results": [{"entry": f"{_ID}.1", "result": "changed"}]},
                        )
                    },
                    refusals=(*_CHANGING, 404),
                )
            )
        }
    return paths


PATHS: dict[str, object] = {
    "/admin/v1/queue": {
        "get": described(
            Operation(
                name="listQueue",
                tag=_TAG,
                summary="List entries, oldest first",
                parameters=[
                    _WHERE,
                    in_query(
                        "limit",
                        "How many.",
                        {"type": "integer", "minimum": 1, "maximum": LONGEST_PAGE, "default": PAGE},
                    ),
                    in_query("after", "The `next` of the page before."),
                ],
                answers={200: Body(schema="AdminEntries", example={"entries": [_ENTRY_EXAMPLE], "next": None})},
                refusals=_LISTING,
            )
        )
    },
    "/admin/v1/queue/shape": {
        "get": described(
            Operation(
                name="shapeQueue",
                tag=_TAG,
                summary="Count entries by age and destination",
                parameters=[
                    _WHERE,
                    in_query("by", "What rows are of.", {"type": "string", "enum": [str(each) for each in By]}),
                    in_query("limit", "How many rows.", {"type": "integer", "minimum": 1, "maximum": ROWS}),
                ],
                answers={200: Body(schema="AdminShape", example=_SHAPE_EXAMPLE)},
                refusals=_LISTING,
            )
        )
    },
    "/admin/v1/queue/sites": {
        "get": described(
            Operation(
                name="listSites",
                tag=_TAG,
                summary="Show the sites that have work or taught something; for operators",
                answers={200: Body(schema="AdminSites", example={"sites": []})},
                refusals=(400, 401, 403, 503),
            )
        )
    },
    "/admin/v1/queue/{id}": {
        "get": described(
            Operation(
                name="getQueued",
                tag=_TAG,
                summary="Show a message with its entries, or one entry",
                parameters=[_ID_PATH],
                answers={200: Body(schema="AdminFound", example=_ENTRY_EXAMPLE)},
                refusals=READING,
            )
        )
    },
    "/admin/v1/queue/{id}/explain": {
        "get": described(
            Operation(
                name="explainQueued",
                tag=_TAG,
                summary="Say what holds a message or an entry",
                parameters=[_ID_PATH],
                answers={200: Body(schema="AdminExplained", example={"message": _ID, "entries": [], "more": 0})},
                refusals=(*READING, 429),
            )
        )
    },
    **_actions(),
    **accounts.PATHS,
}
