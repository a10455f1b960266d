"""The dialect's part of the OpenAPI document: each operation once, under all its mounts."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus

from mta.accounts.particulars import NAME_LIMIT
from relay_http.sendgrid.openapi_mail import EXAMPLE, MAIL
from relay_http.sendgrid.query import LENGTH
from relay_http.sendgrid.routes import MOUNTS

_ID = "AaH7ugABdbWHsNpfu8EmnA"
_KEY_ID = "AaH7ugABdbWHsNpfu8EmnB"
_ROW_ID = f"{_ID}.{_ID}.0"
_TEXT = {"type": "string"}
_TEXTS = {"type": "array", "items": _TEXT}
_WORD = {"type": "string", "enum": ["pause", "cancel"]}
_REASONS = {
    400: ("Something is wrong with the request", "The status must be pause or cancel."),
    401: ("No good key", "Permission denied, wrong credentials"),
    403: ("Not with this key", "access forbidden"),
    404: ("There is none", "not found"),
    409: ("The idempotency key belongs to another request", "this idempotency key was used for another request"),
    413: ("More than is taken", "content too large"),
    415: ("Not a media type that is taken", "Content-Type should be application/json."),
    429: ("Too much for now; Retry-After says when there is room", "too many requests"),
    503: ("Not now; Retry-After says when to ask again", "service unavailable"),
    507: ("The disk is full up to its reserve", "insufficient storage"),
}
_READING = (400, 401, 403, 503)
_WRITING = (*_READING, 413, 415, 429, 507)
_SETTING = (400, 401, 403, 429, 503, 507)  # without a body

type_schema = dict[str, object]


def _object(required: Sequence[str], /, **properties: object) -> type_schema:
    return {"type": "object", "required": list(required), "properties": properties}


def _ref(name: str) -> type_schema:
    return {"$ref": f"#/components/schemas/SendGrid{name}"}


def _list_of(name: str) -> type_schema:
    return {"type": "array", "items": _ref(name)}


def _content(schema: Mapping[str, object], example: object) -> dict[str, object]:
    return {"application/json": {"schema": schema, "example": example}}


def _refused(status: int) -> dict[str, object]:
    description, message = _REASONS[status]
    example = {"errors": [{"message": message, "field": None, "help": None}]}
    found: dict[str, object] = {"description": description, "content": _content(_ref("Errors"), example)}
    if status in (429, 503):
        found["headers"] = {"Retry-After": {"description": "Seconds.", "schema": _TEXT}}
    return found


def _answer(status: int, schema: Mapping[str, object] | None = None, example: object = None) -> dict[str, object]:
    found: dict[str, object] = {"description": HTTPStatus(status).phrase}
    return {str(status): found if schema is None else found | {"content": _content(schema, example)}}


def _operation(
    name: str,
    summary: str,
    answers: Mapping[str, object],
    refusals: Sequence[int],
    /,
    **more: object,
) -> dict[str, object]:
    return {
        "operationId": name,
        "tags": ["SendGrid"],
        "summary": summary,
        "responses": {**answers, **{str(status): _refused(status) for status in refusals}},
        "security": [{"bearer": []}],
        **more,
    }


def _body(schema: type_schema, example: object) -> dict[str, object]:
    return {"required": True, "content": _content(schema, example)}


def _in_path(name: str, description: str, example: str) -> list[object]:
    schema = {"type": "string", "minLength": 1}
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": description,
            "schema": schema,
            "example": example,
        }
    ]


_SENT = {
    "202": {
        "description": "Accepted, and on disk",
        "headers": {
            "X-Message-Id": {"description": "The id of the request, and of its first message.", "schema": _TEXT},
        },
    },
    "200": {"description": "Valid, in the sandbox: nothing is sent"},
}
_SCHEDULED = _object(("batch_id", "status"), batch_id=_TEXT, status=_WORD)
_SCHEDULED_EXAMPLE = {"batch_id": _ID, "status": "pause"}
_KEY = _object(("api_key_id", "name", "scopes"), api_key_id=_TEXT, name=_TEXT, scopes=_TEXTS)
_KEY_EXAMPLE = {"api_key_id": _KEY_ID, "name": "shop", "scopes": ["mail.send"]}
_NAME = {"type": "string", "minLength": 1, "maxLength": NAME_LIMIT}
_ROW = _object(
    ("from_email", "msg_id", "subject", "to_email", "status", "opens_count", "clicks_count", "last_event_time"),
    from_email=_TEXT,
    msg_id=_TEXT,
    subject=_TEXT,
    to_email=_TEXT,
    status={"type": "string", "enum": ["processed", "delivered", "not_delivered"]},
    opens_count={"type": "integer"},
    clicks_count={"type": "integer"},
    last_event_time=_TEXT,
)
_ROW_EXAMPLE = {
    "from_email": "billing@example.com",
    "msg_id": _ROW_ID,
    "subject": "Your order",
    "to_email": "ann@example.net",
    "status": "delivered",
    "opens_count": 0,
    "clicks_count": 0,
    "last_event_time": "2027-01-15T08:00:01Z",
}
_DETAIL_EXAMPLE = _ROW_EXAMPLE | {
    "template_id": "",
    "asm_group_id": 0,
    "teammate": "",
    "api_key_id": _KEY_ID,
    "categories": ["orders"],
    "unique_args": '{"order":"4711"}',
    "originating_ip": "192.0.2.7",
    "outbound_ip": "",
    "outbound_ip_type": "",
    "events": [
        {"event_name": "processed", "processed": "2027-01-15T08:00:00Z"},
        {
            "event_name": "delivered",
            "processed": "2027-01-15T08:00:01Z",
            "mx_server": "mx.example.net[192.0.2.25]:25",
            "attempt_num": 1,
            "reason": "250 2.0.0 ok",
        },
    ],
}

SCHEMAS: dict[str, object] = {
    "SendGridErrors": _object(
        ("errors",),
        errors={
            "type": "array",
            "minItems": 1,
            "items": _object(
                ("message", "field", "help"),
                message=_TEXT,
                field={"type": ["string", "null"], "description": "A path such as personalizations.0.to.0.email."},
                help={"type": ["string", "null"]},
            ),
        },
    ),
    "SendGridMail": MAIL,
    "SendGridBatch": _object(("batch_id",), batch_id=_TEXT),
    "SendGridScheduledSend": _SCHEDULED,
    "SendGridKey": _KEY,
    "SendGridKeyAsked": _object(("name",), name=_NAME, scopes=_TEXTS | {"minItems": 1, "maxItems": 200}),
    "SendGridActivity": _ROW,
    "SendGridActivityDetail": {
        "allOf": [
            _ref("Activity"),
            _object(
                ("categories", "unique_args", "events"),
                categories=_TEXTS,
                unique_args={"type": "string", "description": "The custom_args, as JSON."},
                events={"type": "array", "items": _object(("event_name", "processed"), event_name=_TEXT)},
            ),
        ]
    },
}

_BATCH = _in_path("batch", "The id of a batch.", _ID)
_KEY_IN_PATH = _in_path("key_id", "The id of a key.", _KEY_ID)
_GZIP = {
    "name": "Content-Encoding",
    "in": "header",
    "description": "The body may be gzip.",
    "schema": {"type": "string", "enum": ["gzip", "identity"]},
}
_QUERY = {
    "name": "query",
    "in": "query",
    "required": True,
    "description": 'Such as `to_email="ann@example.net" AND status="delivered"`.',
    "schema": {"type": "string", "minLength": 1, "maxLength": LENGTH},
    "example": 'status="delivered"',
}
_LIMIT = {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 10}}


def _paths(mount: str, mark: str) -> dict[str, object]:
    ids = f"sendgrid{mark}_"
    return {
        f"{mount}/mail/send": {
            "post": _operation(
                f"{ids}mail_send", "Send mail", _SENT, (*_WRITING, 409),
                parameters=[_GZIP], requestBody=_body(_ref("Mail"), EXAMPLE),
            )
        },
        f"{mount}/mail/batch": {
            "post": _operation(
                f"{ids}batch_create", "Make an id for a batch",
                _answer(201, _ref("Batch"), {"batch_id": _ID}), (401, 403, 503),
            )
        },
        f"{mount}/mail/batch/{{batch}}": {
            "get": _operation(
                f"{ids}batch_get", "Say that an id is one of a batch",
                _answer(200, _ref("Batch"), {"batch_id": _ID}), (*_READING, 404), parameters=_BATCH,
            )
        },
        f"{mount}/user/scheduled_sends": {
            "get": _operation(
                f"{ids}scheduled_list", "List the batches that are paused or cancelled",
                _answer(200, _list_of("ScheduledSend"), [_SCHEDULED_EXAMPLE]), (401, 403, 503),
            ),
            "post": _operation(
                f"{ids}scheduled_create", "Pause or cancel a batch",
                _answer(201, _ref("ScheduledSend"), _SCHEDULED_EXAMPLE), _WRITING,
                requestBody=_body(_ref("ScheduledSend"), _SCHEDULED_EXAMPLE),
            ),
        },
        f"{mount}/user/scheduled_sends/{{batch}}": {
            "get": _operation(
                f"{ids}scheduled_get", "Show a batch, as a list of one or none",
                _answer(200, _list_of("ScheduledSend"), [_SCHEDULED_EXAMPLE]),
                (401, 403, 404, 503), parameters=_BATCH,
            ),
            "patch": _operation(
                f"{ids}scheduled_update", "Pause instead of cancelling, or the other way round",
                _answer(204), (*_WRITING, 404), parameters=_BATCH,
                requestBody=_body(_object(("status",), status=_WORD), {"status": "cancel"}),
            ),
            "delete": _operation(
                f"{ids}scheduled_delete", "Let a batch go", _answer(204), (*_SETTING, 404), parameters=_BATCH
            ),
        },
        f"{mount}/messages": {
            "get": _operation(
                f"{ids}messages_list", "List what became of messages, a row for each recipient",
                _answer(
                    200,
                    _object(("messages",), messages=_list_of("Activity")),
                    {"messages": [_ROW_EXAMPLE]},
                ),
                _READING, parameters=[_QUERY, _LIMIT],
            )
        },
        f"{mount}/messages/{{row}}": {
            "get": _operation(
                f"{ids}messages_get", "Show a row with its events",
                _answer(200, _ref("ActivityDetail"), _DETAIL_EXAMPLE), (401, 403, 404, 503),
                parameters=_in_path("row", "A msg_id; X-Message-Id is the first recipient's.", _ROW_ID),
            )
        },
    } | _keys(mount, ids)  # fmt: skip


def _keys(mount: str, ids: str) -> dict[str, object]:
    bare = _object(("api_key_id", "name"), api_key_id=_TEXT, name=_TEXT)
    bare_example = {"api_key_id": _KEY_ID, "name": "shop"}
    full = _object(("name", "scopes"), name=_NAME, scopes=_TEXTS | {"minItems": 1, "maxItems": 200})
    made = {"allOf": [_ref("Key"), _object(("api_key",), api_key=_TEXT)]}
    return {
        f"{mount}/api_keys": {
            "get": _operation(
                f"{ids}keys_list", "List keys",
                _answer(200, _object(("result",), result={"type": "array", "items": bare}), {"result": [bare_example]}),
                (401, 403, 503),
            ),
            "post": _operation(
                f"{ids}keys_create", "Make a key, whose text is answered once",
                _answer(201, made, {"api_key": f"SG.{_KEY_ID}.secret", **_KEY_EXAMPLE}), _WRITING,
                requestBody=_body(_ref("KeyAsked"), {"name": "shop", "scopes": ["mail.send"]}),
            ),
        },
        f"{mount}/api_keys/{{key_id}}": {
            "get": _operation(
                f"{ids}keys_get", "Show a key, as a list of one",
                _answer(200, _object(("result",), result=_list_of("Key")), {"result": [_KEY_EXAMPLE]}),
                (401, 403, 404, 503), parameters=_KEY_IN_PATH,
            ),
            "patch": _operation(
                f"{ids}keys_rename", "Give a key another name", _answer(200, bare, bare_example), (*_WRITING, 404),
                parameters=_KEY_IN_PATH, requestBody=_body(_object(("name",), name=_NAME), {"name": "shop"}),
            ),
            "put": _operation(
                f"{ids}keys_update", "Give a key another name and other scopes",
                _answer(200, _ref("Key"), _KEY_EXAMPLE), (*_WRITING, 404), parameters=_KEY_IN_PATH,
                requestBody=_body(full, {"name": "shop", "scopes": ["mail.send"]}),
            ),
            "delete": _operation(
                f"{ids}keys_delete", "Revoke a key", _answer(204), (*_SETTING, 404), parameters=_KEY_IN_PATH
            ),
        },
        f"{mount}/scopes": {
            "get": _operation(
                f"{ids}scopes", "List what the key is good for",
                _answer(200, _object(("scopes",), scopes=_TEXTS), {"scopes": ["mail.send"]}), (401, 403, 503),
            )
        },
    }  # fmt: skip


PATHS: dict[str, object] = {}
for _mount in MOUNTS:
    PATHS |= _paths(_mount, _mount.replace("/", "_"))
