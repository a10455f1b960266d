"""The dialect's part of the OpenAPI document."""

from relay_http.emails.request import FILE, FILES_LIMIT, FILES_OCTETS, RECIPIENTS_LIMIT, REPLY_TO_LIMIT
from relay_http.emails.resource import LIMIT, LIMIT_MOST, OFFSET_MOST
from relay_http.emails.routes import MOUNT
from relay_http.emails.shown import STATUSES
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
    members,
    not_yet,
    one_of,
    or_nothing,
    or_null,
    page_size,
    ref,
)

_ID = "AZvQkPRdcsqTn1x3bLxVhw"
_AT, _LATER = "2027-01-15T08:00:00Z", "2027-06-01T15:00:00Z"
_STATUS = one_of(tuple(STATUSES))
_WORDS = {
    400: ("The request cannot be read.", "Bad Request"),
    401: ("No good key.", "Not authenticated: give an API key as a bearer token."),
    403: ("The key has not the scope, or the sender's domain is another account's.", "the key has not the scope send"),
    404: ("There is no such email.", "Not found"),
    409: ("It is not as the request takes it to be, or the idempotency key is another request's.", "..."),
    410: ("The content is gone.", "The content of this message is gone."),
    413: ("More than is taken.", "content too large"),
    415: ("Not a media type or an encoding that is taken.", "Content-Type should be application/json."),
    429: ("Too much for now; Retry-After says for how long.", "too many requests: ..."),
    503: ("Not now; Retry-After says when.", "service unavailable"),
    507: ("The disk is full.", "insufficient storage"),
}
_UNPROCESSABLE = 422
_READING = (400, 401, 403, 404, 503)
_SENDING = (400, 401, 403, 409, 413, 429, 503, 507)

_NEEDED: dict[str, Schema] = {
    "to": array(EMAIL, RECIPIENTS_LIMIT, minItems=1),
    "subject": NEEDED_TEXT,
    "from_": EMAIL,
}
_FILE = members(dict(zip(FILE, (NEEDED_TEXT, NEEDED_TEXT, {**BASE64, "minLength": 1}), strict=True)))
_OPTIONAL: dict[str, Schema] = {
    "html": or_nothing({**TEXT, "description": "This, text or both."}),
    "text": or_nothing(TEXT),
    "cc": or_nothing(array(EMAIL, RECIPIENTS_LIMIT)),
    "bcc": or_nothing(array(EMAIL, RECIPIENTS_LIMIT)),
    "reply_to": or_nothing(array(EMAIL, REPLY_TO_LIMIT)),
    "scheduled_at": or_nothing({**TIME, "description": "In the future."}),
    "attachments": or_nothing(array(_FILE, FILES_LIMIT, description=f"{FILES_OCTETS} bytes together, decoded.")),
    "template_id": not_yet("A template."),
    "template_vars": not_yet("What goes into it."),
    "domain_id": not_yet("A domain's id: the domain is that of from_."),
    "track_opens": not_yet("Open tracking."),
    "track_clicks": not_yet("Click tracking."),
    "enable_unsubscribe": not_yet("Unsubscribe links."),
}
_LISTED: dict[str, Schema] = {
    "id": TEXT,
    "status": _STATUS,
    "from_": TEXT,
    "to": array(TEXT, description="All recipients, those of cc and bcc too."),
    "subject": TEXT,
    "created_at": TIME,
    "updated_at": TIME,
    "scheduled_at": or_null(TIME),
}
_ATTEMPT: dict[str, Schema] = {
    "attempt": NUMBER,
    "at": TIME,
    "recipient": TEXT,
    "outcome": one_of(("deferred", "delivered", "bounced")),
    "provider": or_null(TEXT),
    "response": or_null(TEXT),
    "retry_at": or_null(TIME),
}
_DETAILED: dict[str, Schema] = {
    "sent_at": or_null(TIME),
    "delivered_at": or_null(TIME),
    "html": or_null({**TEXT, "description": "null when the content is gone, or larger than 8 MiB."}),
    "text": or_null(TEXT),
    "attachments": array(members({"filename": TEXT, "content_type": TEXT, "size": NUMBER})),
    "recipients": array(members({"email": TEXT, "status": _STATUS})),
    "attempts": array(members(_ATTEMPT)),
}
_PLACE = array({"type": ["string", "integer"]})
SCHEMAS: dict[str, object] = {
    "EmailsRequest": members(_NEEDED | _OPTIONAL, optional=tuple(_OPTIONAL)),
    "EmailsAccepted": members({name: _LISTED[name] for name in ("id", "status", "created_at", "scheduled_at")}),
    "EmailsListed": members(_LISTED),
    "EmailsPage": members(
        {"items": array(ref("EmailsListed")), "limit": NUMBER, "offset": NUMBER, "has_more": FLAG},
    ),
    "EmailsDetail": members(_LISTED | _DETAILED),
    "EmailsError": members({"detail": TEXT}),
    "EmailsInvalid": members({"detail": array(members({"loc": _PLACE, "msg": TEXT, "type": TEXT}))}),
}

_ACCEPTED: dict[str, object] = {"id": _ID, "status": "scheduled", "created_at": _AT, "scheduled_at": _LATER}
_SENT: dict[str, object] = {
    "to": ["user@example.net"],
    "subject": "Your receipt",
    "text": "Thanks for your order.",
    "from_": "billing@example.com",
    "scheduled_at": _LATER,
    "attachments": [{"filename": "invoice.pdf", "content_type": "application/pdf", "content_b64": "UERG"}],
}
_ONE: dict[str, object] = {
    **_ACCEPTED,
    "from_": "billing@example.com",
    "to": ["user@example.net"],
    "subject": "Your receipt",
    "updated_at": _AT,
}
_WHOLE: dict[str, object] = {
    **_ONE,
    "sent_at": None,
    "delivered_at": None,
    "html": None,
    "text": "Thanks for your order.",
    "attachments": [{"filename": "invoice.pdf", "content_type": "application/pdf", "size": 3}],
    "recipients": [{"email": "user@example.net", "status": "scheduled"}],
    "attempts": [],
}
_WRONG = {"detail": [{"loc": ["body", "to", 0], "msg": "This is not a valid email address.", "type": "value_error"}]}


def _refused(status: int) -> Schema:
    if status == _UNPROCESSABLE:
        return {"description": "A field is wrong.", "content": json_of("EmailsInvalid", _WRONG)}
    description, said = _WORDS[status]
    return {"description": description, "content": json_of("EmailsError", {"detail": said})}


def _operation(name: str, summary: str, answer: Schema, refusals: tuple[int, ...], **more: object) -> Schema:
    """Describe an operation; `answer` is the response to what is done, by its status."""
    return {
        "operationId": name,
        "tags": ["Emails API"],
        "summary": summary,
        "security": [{"bearer": []}],
        "responses": {**answer, **{str(each): _refused(each) for each in sorted(refusals)}},
        **more,
    }


def _answer(status: int, schema: str, example: object) -> Schema:
    return {str(status): {"description": "Done.", "content": json_of(schema, example)}}


_PATH = in_path("id", _ID)
PATHS: dict[str, object] = {
    MOUNT: {
        "post": _operation(
            "emailsSend",
            "Send an email",
            _answer(202, "EmailsAccepted", _ACCEPTED),
            (*_SENDING, 415, 422),
            requestBody={"required": True, "content": json_of("EmailsRequest", _SENT)},
        ),
        "get": _operation(
            "emailsList",
            "List emails, the last first",
            _answer(200, "EmailsPage", {"items": [_ONE], "limit": LIMIT, "offset": 0, "has_more": False}),
            (400, 401, 403, 422, 503),
            parameters=[
                in_query("status", _STATUS, "Pages of queued, sent and delivering may be short."),
                page_size(LIMIT, LIMIT_MOST),
                in_query("offset", {"type": "integer", "minimum": 0, "maximum": OFFSET_MOST, "default": 0}),
            ],
        ),
    },
    f"{MOUNT}/{{id}}": {
        "get": _operation(
            "emailsGet",
            "Show an email with its attempts, and with its texts while they are stored",
            _answer(200, "EmailsDetail", _WHOLE),
            (*_READING, 413),
            parameters=[_PATH],
        )
    },
    f"{MOUNT}/{{id}}/cancel": {
        "post": _operation(
            "emailsCancel",
            "Cancel an email that is scheduled",
            _answer(200, "EmailsListed", {**_ONE, "status": "cancelled"}),
            (*_READING, 409, 429),
            parameters=[_PATH],
        )
    },
    f"{MOUNT}/{{id}}/resend": {
        "post": _operation(
            "emailsResend",
            "Send an email once more, to all of its recipients",
            _answer(202, "EmailsAccepted", {**_ACCEPTED, "status": "queued", "scheduled_at": None}),
            (*_SENDING, 404, 410),
            parameters=[_PATH],
        )
    },
}
