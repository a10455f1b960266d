"""The dialect's part of the OpenAPI document."""

from relay_http.schemas import (
    BASE64,
    EMAIL,
    FLAG,
    NEEDED_TEXT,
    NUMBER,
    TEXT,
    TIME,
    Schema,
    array,
    in_path,
    in_query,
    json_of,
    map_of_texts,
    members,
    not_yet,
    one_of,
    or_nothing,
    or_null,
    page_size,
    ref,
)
from relay_http.sendarix.request import COPIES_LIMIT, FILE, FILES_LIMIT, HEADERS_LIMIT, METADATA_LIMIT, PRIORITIES
from relay_http.sendarix.resource import LIMIT, LIMIT_MOST
from relay_http.sendarix.routes import MOUNT
from relay_http.sendarix.shown import STATUSES

_ID = "msg_AZvQkPRdcsqTn1x3bLxVhw"
_AT = "2027-01-15T08:00:00Z"
_STATUS = one_of(tuple(STATUSES))
_WORDS = {
    401: ("No good key.", "unauthorized", "authorization required"),
    403: ("Not with this key, or from another account's domain.", "forbidden", "the key has not the scope send"),
    404: ("There is no such message, or it was sent.", "not_found", "There is no message with this id."),
    409: ("It is being delivered, or the idempotency key is another request's.", "conflict", "..."),
    413: ("More than is taken.", "too_large", "content too large"),
    415: ("Not a media type or an encoding that is taken.", "media_type", "Content-Type should be application/json."),
    429: ("Too much for now; Retry-After and X-RateLimit-Reset say until when.", "rate_limited", "..."),
    503: ("Not now; Retry-After says when.", "service_unavailable", "service unavailable"),
    507: ("The disk is full.", "insufficient_storage", "insufficient storage"),
}
_INVALID = {400: "bad_request", 422: "validation_failed"}
_READING = (400, 401, 403, 404, 503)

_NEEDED: dict[str, Schema] = {"recipient": EMAIL, "from": EMAIL, "subject": NEEDED_TEXT}
_FILE = members(dict(zip(FILE, (NEEDED_TEXT, NEEDED_TEXT, {**BASE64, "minLength": 1}), strict=True)))
_OPTIONAL: dict[str, Schema] = {
    "text": or_nothing({**TEXT, "description": "This, html or both."}),
    "html": or_nothing(TEXT),
    "cc": or_nothing(array(EMAIL, COPIES_LIMIT)),
    "bcc": or_nothing(array(EMAIL, COPIES_LIMIT)),
    "reply_to": or_nothing(array(EMAIL, COPIES_LIMIT)),
    "attachments": or_nothing(array(_FILE, FILES_LIMIT)),
    "headers": or_nothing(map_of_texts(HEADERS_LIMIT, description="X-Idempotency-Key among them is not sent.")),
    "metadata": or_nothing(map_of_texts(METADATA_LIMIT, description="What events tell with the message.")),
    "priority": or_nothing(one_of(tuple(PRIORITIES))),
    "scheduled_time": or_nothing({**TIME, "description": "In the future."}),
    "template": not_yet("A template."),
    "template_data": not_yet("What goes into it."),
}
_LISTED: dict[str, Schema] = {
    "message_id": TEXT,
    "status": _STATUS,
    "recipient": TEXT,
    "from": TEXT,
    "subject": TEXT,
    "created_at": TIME,
    "updated_at": TIME,
    "scheduled_time": or_null(TIME),
    "metadata": map_of_texts(),
}
_OUTCOME: dict[str, Schema] = {
    "recipient": TEXT,
    "status": _STATUS,
    "timestamp": TIME,
    "attempts": NUMBER,
    "mail_server": or_null(TEXT),
    "response": or_null(TEXT),
    "retry_at": or_null(TIME),
}
_TOLD: dict[str, Schema] = {
    "event": one_of(("scheduled", "queued", "accepted", "deferred", "delivered", "bounced", "dropped", "cancelled")),
    "timestamp": TIME,
    "recipient": TEXT,
    "response": or_null(TEXT),
}
_QUEUED = {name: _LISTED[name] for name in ("message_id", "status", "recipient", "created_at")}
_ERROR: dict[str, Schema] = {"error": TEXT, "message": TEXT}
SCHEMAS: dict[str, object] = {
    "SendarixRequest": members(_NEEDED | _OPTIONAL, optional=tuple(_OPTIONAL)),
    "SendarixQueued": members(_QUEUED | {"scheduled_time": TIME}, optional=("scheduled_time",)),
    "SendarixListed": members(_LISTED),
    "SendarixPage": members({"data": array(ref("SendarixListed")), "has_more": FLAG, "next_cursor": or_null(TEXT)}),
    "SendarixDetail": members(
        _LISTED
        | {
            "outcomes": array(members(_OUTCOME)),
            "timeline": array(members(_TOLD, optional=("recipient", "response"))),
        }
    ),
    "SendarixError": members(_ERROR),
    "SendarixInvalid": members(_ERROR | {"errors": array(members({"field": TEXT, "message": TEXT}))}),
}

_SENT: dict[str, object] = {
    "recipient": "user@example.net",
    "from": "login@example.com",
    "subject": "Your verification code",
    "text": "847291",
    "headers": {"X-Idempotency-Key": "9b2f9c1e-6c1b-4f0e-8d57-2f1f3a1d7c11"},
}
_ANSWER: dict[str, object] = {
    "message_id": _ID,
    "status": "queued",
    "recipient": "user@example.net",
    "created_at": _AT,
}
_ONE: dict[str, object] = {
    **_ANSWER,
    "from": "login@example.com",
    "subject": "Your verification code",
    "updated_at": _AT,
    "scheduled_time": None,
    "metadata": {},
}
_WHOLE: dict[str, object] = {
    **_ONE,
    "outcomes": [
        {
            "recipient": "user@example.net",
            "status": "queued",
            "timestamp": _AT,
            "attempts": 0,
            "mail_server": None,
            "response": None,
            "retry_at": None,
        }
    ],
    "timeline": [{"event": "queued", "timestamp": _AT}, {"event": "accepted", "timestamp": _AT}],
}
_WRONG = {"field": "recipient", "message": "This field is required."}


def _refused(status: int) -> Schema:
    if status in _INVALID:
        example = {"error": _INVALID[status], "message": _WRONG["message"], "errors": [_WRONG]}
        return {"description": "Something is wrong.", "content": json_of("SendarixInvalid", example)}
    description, error, message = _WORDS[status]
    return {"description": description, "content": json_of("SendarixError", {"error": error, "message": message})}


def _operation(
    name: str, summary: str, answer: tuple[str, object], refusals: tuple[int, ...], **more: object
) -> Schema:
    """Describe an operation; `answer` is the schema of what is answered when it is done, and an example."""
    done = {"description": "Done.", "content": json_of(*answer)}
    return {
        "operationId": name,
        "tags": ["Sendarix"],
        "summary": summary,
        "security": [{"bearer": []}],
        "responses": {"200": done, **{str(each): _refused(each) for each in sorted(refusals)}},
        **more,
    }


_PATH = in_path("id", _ID)
PATHS: dict[str, object] = {
    MOUNT: {
        "post": _operation(
            "sendarixSend",
            "Send a message",
            ("SendarixQueued", _ANSWER),
            (400, 401, 403, 409, 413, 415, 422, 429, 503, 507),
            requestBody={"required": True, "content": json_of("SendarixRequest", _SENT)},
        ),
        "get": _operation(
            "sendarixList",
            "List messages, the last first",
            ("SendarixPage", {"data": [_ONE], "has_more": False, "next_cursor": None}),
            (400, 401, 403, 503),
            parameters=[
                in_query("status", _STATUS),
                in_query("recipient", {"type": "string", "format": "email"}),
                in_query("date_from", TEXT, "Accepted from this day, or moment, on."),
                in_query("date_to", TEXT, "Accepted until the end of this day, or before this moment."),
                page_size(LIMIT, LIMIT_MOST),
                in_query("cursor", TEXT, "The `next_cursor` of the page before."),
            ],
        ),
    },
    f"{MOUNT}/{{id}}": {
        "get": _operation(
            "sendarixGet",
            "Show a message with its timeline",
            ("SendarixDetail", _WHOLE),
            _READING,
            parameters=[_PATH],
        ),
        "delete": _operation(
            "sendarixCancel",
            "Cancel a message that is scheduled",
            ("SendarixListed", {**_ONE, "status": "cancelled"}),
            (*_READING, 409, 429),
            parameters=[_PATH],
        ),
    },
}
