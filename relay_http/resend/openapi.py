"""Resend's part of the OpenAPI document."""

from relay_http.resend.request import EMAILS_LIMIT, FILES_LIMIT, RECIPIENTS_LIMIT, TAG_CHARS, TAGS_LIMIT
from relay_http.resend.resource import LIMIT, LIMIT_MOST, PERMISSIVE, STRICT
from relay_http.resend.shown import LAST_EVENTS
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
    one_of,
    or_null,
    page_size,
    ref,
)

_ID = "01a1eeba-0001-75b5-87b0-da5fbbc1269c"
_AT, _LATER = "2027-01-15T08:00:00Z", "2027-06-01T15:00:00Z"
_WORDS = {
    400: ("The request cannot be read.", "validation_error", "Bad Request"),
    401: ("No key, or not for this.", "missing_api_key", "authorization required"),
    403: ("No good key, or the sender's domain is another account's.", "invalid_api_key", "the key is not known"),
    404: ("There is no such email.", "not_found", "Email not found"),
    409: ("It is not as the request takes it to be.", "conflict", "The email is not scheduled any more."),
    413: ("More than is taken.", "too_large", "content too large"),
    415: ("Not a media type that is taken.", "media_type", "Content-Type should be application/json."),
    422: ("A field is missing or wrong.", "missing_required_field", "Missing `to` field."),
    429: ("Too much for now; Retry-After says for how long.", "rate_limit_exceeded", "too many requests"),
    503: ("Not now; Retry-After says when.", "service_unavailable", "service unavailable"),
    507: ("The disk is full.", "insufficient_storage", "insufficient storage"),
}
_READING = (400, 401, 403, 404, 503)
_SENDING = (400, 401, 403, 409, 413, 415, 422, 429, 503, 507)

_BOXES: Schema = {"anyOf": [EMAIL, array(EMAIL, RECIPIENTS_LIMIT), {"type": "null"}]}
_FILE: dict[str, Schema] = {
    "content": {"anyOf": [BASE64, array({**NUMBER, "minimum": 0, "maximum": 255})]},
    "filename": NEEDED_TEXT,
    "content_type": or_null(TEXT),
    "content_id": or_null({**TEXT, "description": "With it, the file is inline."}),
    "inline_content_id": or_null(TEXT),
    "path": {"type": "null", "description": "Files are not fetched from elsewhere."},
}
_TAG: Schema = {**TEXT, "pattern": "^[A-Za-z0-9_-]+$", "maxLength": TAG_CHARS}
_OPTIONAL: dict[str, Schema] = {
    "cc": _BOXES,
    "bcc": _BOXES,
    "reply_to": _BOXES,
    "html": or_null({**TEXT, "description": "This, text or both."}),
    "text": or_null(TEXT),
    "headers": or_null(map_of_texts()),
    "attachments": or_null(array(members(_FILE, optional=tuple(_FILE)[2:]), FILES_LIMIT)),
    "tags": or_null(array(members({"name": _TAG, "value": _TAG}), TAGS_LIMIT)),
    "scheduled_at": or_null({**TIME, "description": "In the future."}),
    "template": {"type": "null", "description": "Not supported yet."},
    "topic_id": {"type": "null", "description": "Not supported yet."},
}
_TO: Schema = {"anyOf": [EMAIL, array(EMAIL, RECIPIENTS_LIMIT, minItems=1)]}
_LISTED: dict[str, Schema] = {
    "id": TEXT,
    "message_id": TEXT,
    "to": array(TEXT, description="All recipients, those of cc and bcc too."),
    "from": TEXT,
    "created_at": TIME,
    "subject": TEXT,
    "bcc": array(TEXT, 0),
    "cc": array(TEXT, 0),
    "reply_to": array(TEXT, 0),
    "last_event": one_of(sorted(set(LAST_EVENTS.values()))),
    "scheduled_at": or_null(TIME),
}
_DETAILED: dict[str, Schema] = {
    "object": TEXT,
    "html": or_null({**TEXT, "description": "null when the content is gone, or larger than 8 MiB."}),
    "text": or_null(TEXT),
    "tags": array(members({"name": TEXT, "value": TEXT})),
}
_WRONG = members({"index": NUMBER, "message": TEXT})
SCHEMAS: dict[str, object] = {
    "ResendEmail": members({"from": EMAIL, "to": _TO, "subject": NEEDED_TEXT, **_OPTIONAL}, optional=tuple(_OPTIONAL)),
    "ResendBatch": array(ref("ResendEmail"), EMAILS_LIMIT, minItems=1),
    "ResendUpdate": members({"scheduled_at": TIME}),
    "ResendAccepted": members({"id": TEXT}),
    "ResendAcceptedBatch": members({"data": array(ref("ResendAccepted")), "errors": array(_WRONG)}, ("errors",)),
    "ResendChanged": members({"object": TEXT, "id": TEXT}),
    "ResendListed": members(_LISTED),
    "ResendPage": members({"object": TEXT, "has_more": FLAG, "data": array(ref("ResendListed"))}),
    "ResendDetail": members(_LISTED | _DETAILED),
    "ResendError": members({"statusCode": NUMBER, "name": TEXT, "message": TEXT}),
}

_SENT: dict[str, object] = {
    "from": "Shop <billing@example.com>",
    "to": ["user@example.net"],
    "subject": "Your receipt",
    "text": "Thanks for your order.",
    "attachments": [{"filename": "invoice.pdf", "content": "UERG"}],
    "tags": [{"name": "order", "value": "4711"}],
}
_ONE: dict[str, object] = {
    "id": _ID,
    "message_id": "<AaHuugABdbWHsNpfu8EmnA@mail.example.com>",
    "to": ["user@example.net"],
    "from": "Shop <billing@example.com>",
    "created_at": _AT,
    "subject": "Your receipt",
    "bcc": [],
    "cc": [],
    "reply_to": [],
    "last_event": "delivered",
    "scheduled_at": None,
}
_WHOLE = {"object": "email", **_ONE, "html": None, "text": "Thanks for your order.", "tags": _SENT["tags"]}
_CHANGED = {"object": "email", "id": _ID}


def _refused(status: int) -> Schema:
    description, name, message = _WORDS[status]
    example = {"statusCode": status, "name": name, "message": message}
    return {"description": description, "content": json_of("ResendError", example)}


def _operation(
    name: str, summary: str, answer: tuple[str, object], refusals: tuple[int, ...], **more: object
) -> Schema:
    """Describe an operation; `answer` is the schema of what is answered when it is done, and an example."""
    done = {"description": "Done.", "content": json_of(*answer)}
    return {
        "operationId": name,
        "tags": ["Resend"],
        "summary": summary,
        "security": [{"bearer": []}],
        "responses": {"200": done, **{str(each): _refused(each) for each in sorted(refusals)}},
        **more,
    }


def _body(schema: str, example: object) -> Schema:
    return {"required": True, "content": json_of(schema, example)}


_PATH = in_path("id", _ID)
_VALIDATION: Schema = {
    "name": "x-batch-validation",
    "in": "header",
    "description": "Whether emails that are right are sent when others are not.",
    "schema": {**one_of((STRICT, PERMISSIVE)), "default": STRICT},
}
PATHS: dict[str, object] = {
    "/emails": {
        "post": _operation(
            "resendSend",
            "Send an email",
            ("ResendAccepted", {"id": _ID}),
            _SENDING,
            requestBody=_body("ResendEmail", _SENT),
        ),
        "get": _operation(
            "resendList",
            "List emails, the last first",
            ("ResendPage", {"object": "list", "has_more": False, "data": [_ONE]}),
            (400, 401, 403, 422, 503),
            parameters=[
                page_size(LIMIT, LIMIT_MOST),
                in_query("after", NEEDED_TEXT, "The id of an email: those before it in time."),
                in_query("before", NEEDED_TEXT, "The id of an email: those after it in time."),
            ],
        ),
    },
    "/emails/batch": {
        "post": _operation(
            "resendBatch",
            "Send several emails",
            ("ResendAcceptedBatch", {"data": [{"id": _ID}]}),
            _SENDING,
            parameters=[_VALIDATION],
            requestBody=_body("ResendBatch", [_SENT]),
        )
    },
    "/emails/{id}": {
        "get": _operation(
            "resendGet",
            "Show an email, with its texts while they are stored",
            ("ResendDetail", _WHOLE),
            (*_READING, 413),
            parameters=[_PATH],
        ),
        "patch": _operation(
            "resendReschedule",
            "Give a scheduled email another time",
            ("ResendChanged", _CHANGED),
            (*_READING, 409, 413, 415, 422, 429, 507),
            parameters=[_PATH],
            requestBody=_body("ResendUpdate", {"scheduled_at": _LATER}),
        ),
    },
    "/emails/{id}/cancel": {
        "post": _operation(
            "resendCancel",
            "Cancel a scheduled email",
            ("ResendChanged", _CHANGED),
            (*_READING, 409, 429, 507),
            parameters=[_PATH],
        )
    },
}
