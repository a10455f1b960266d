"""Our own API in OpenAPI 3.1: the schemas are made from the types that requests are read and answers written by."""

from mta.queue.desk import Explained
from mta.queue.views import Status
from relay_http.describing import READING, WRITING, Body, Operation, described, in_header, in_path, in_query, schemas_of
from relay_http.own.answers import Changed, Foreseen, Listed, SentMany, SentOne, Shown, Timeline
from relay_http.own.kinds import schema_of_kind
from relay_http.own.letter import Batch, Mail, Reschedule, Resend
from relay_http.own.mail import IDS_LIMIT, LONGEST_PAGE, PAGE

_TAG = "Mail"
_ID = "AaH7ugABdbWHsNpfu8EmnA"
_AT = 1_800_000_000.0
_MESSAGE_ID = f"<{_ID}@mail.example.com>"
_RECEIPT = {"position": 4711, "scope": "fsync", "milliseconds": 1.9}
_SENT = {"id": _ID, "message_id": _MESSAGE_ID, "receipt": _RECEIPT}
_MAIL = {
    "from": "Shop <billing@example.com>",
    "to": ["ann@example.net", {"address": "bob@example.net", "name": "Bob"}],
    "subject": "Your order",
    "text": "Thank you!",
    "html": "<p>Thank you!</p>",
    "tags": ["order"],
    "metadata": {"order": "4711"},
}
_SHOWN = {
    "id": _ID,
    "tenant": "shop",
    "request": _ID,
    "batch": None,
    "message_id": _MESSAGE_ID,
    "status": "delivered",
    "accepted_at": _AT,
    "last_at": _AT + 1,
    "send_at": None,
    "deliver_by": None,
    "sender": "billing@example.com",
    "from": "Shop <billing@example.com>",
    "to": "ann@example.net",
    "subject": "Your order",
    "size": 2048,
    "class": "normal",
    "tags": ["order"],
    "metadata": {"order": "4711"},
    "origin": "http",
    "dialect": "fairlead",
    "client": "192.0.2.7",
    "key": "AaH7ugABdbWHsNpfu8EmnB",
    "attachments": [],
    "recipients": [
        {
            "address": "ann@example.net",
            "status": "delivered",
            "at": _AT + 1,
            "attempts": 1,
            "reply": "250 2.0.0 ok",
            "relay": "mx.example.net[192.0.2.25]:25",
            "retry_at": None,
        }
    ],
}
_EVENT = {
    "seq": 4711,
    "id": f"{_ID}.0.1",
    "type": "accepted",
    "at": _AT,
    "tenant": "shop",
    "message": _ID,
    "recipients": ["ann@example.net"],
}
_EXPLAINED = {
    "message": _ID,
    "entries": [
        {
            "entry": f"{_ID}.1",
            "tenant": "shop",
            "domain": "example.net",
            "gate": "retry",
            "why": "waits for its next attempt, after one attempt",
            "since_at": _AT,
            "next_at": _AT + 30,
            "attempts": 1,
            "reply": "451 4.7.1 later",
            "relay": None,
            "ahead": 0,
            "site": None,
            "rate": None,
            "rate_of": None,
            "estimated_at": None,
            "no_estimate": "it is not known",
            "delivery": None,
        }
    ],
    "more": 0,
}
_FORESEEN = {
    "mime": "Received: ...",
    "size": 2048,
    "sender": "billing@example.com",
    "recipients": ["ann@example.net"],
    "signature": {"domain": "example.com", "selectors": ["s1"], "why": ""},
    "alignment": {
        "policy": "reject",
        "dkim_aligned": True,
        "spf_aligned": True,
        "trouble": "",
        "spf": [{"address": "192.0.2.1", "result": "pass"}],
    },
    "destinations": [
        {
            "domain": "example.net",
            "routed": False,
            "sts": "enforce",
            "trouble": "",
            "hosts": [
                {"host": "mx.example.net", "port": 25, "tls": "verified", "by": "sts enforce", "refused": ""},
            ],
        }
    ],
    "more": 0,
    "trouble": "",
}

_ID_PATH = in_path("id", "The message's ID.", _ID)
_TIME: dict[str, object] = {
    "anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "format": "date-time", "maxLength": 40}]
}
_FILTERS = [
    in_query("id", f"IDs, at most {IDS_LIMIT}.", {"type": "string", "minLength": 1}, several=True),
    in_query("request", "The ID of the first message of a request."),
    in_query("batch", "The batch."),
    in_query("recipient", "A recipient's address."),
    in_query("sender", "The envelope's sender."),
    in_query("words", "Words of the subject."),
    in_query("tag", "A tag."),
    in_query("message_id", "The Message-ID, with its angle brackets."),
    in_query("dialect", "What it was sent in."),
    in_query("status", "How it stands.", {"type": "string", "enum": [str(each) for each in Status]}, several=True),
    in_query("since", "Accepted then or later.", _TIME),
    in_query("until", "Accepted before that.", _TIME),
    in_query("order", "Which come first.", {"type": "string", "enum": ["newest", "oldest"], "default": "newest"}),
    in_query("limit", "How many.", {"type": "integer", "minimum": 1, "maximum": LONGEST_PAGE, "default": PAGE}),
    in_query("cursor", "The `next` of the page before."),
]
_ETAG: dict[str, object] = {"ETag": {"description": "Changes with what is shown.", "schema": {"type": "string"}}}

PATHS: dict[str, object] = {
    "/v1/mail": {
        "post": described(
            Operation(
                name="sendMail",
                tag=_TAG,
                summary="Send a message",
                says="Accepted is durable: the receipt says up to where. With `dry_run` it says what would come of it,"
                " and sends nothing.",
                body=Body(schema="OwnMail", example=_MAIL),
                answers={
                    200: Body(schema="OwnForeseen", example=_FORESEEN),
                    202: Body(schema="OwnSentOne", example=_SENT),
                },
                refusals=[each for each in WRITING if each != 404],
            )
        ),
        "get": described(
            Operation(
                name="listMail",
                tag=_TAG,
                summary="List messages",
                says="All filters that are given have to hold.",
                parameters=_FILTERS,
                answers={200: Body(schema="OwnListed", example={"messages": [_SHOWN], "next": None})},
                refusals=(400, 401, 403, 503),
            )
        ),
    },
    "/v1/mail/batch": {
        "post": described(
            Operation(
                name="sendBatch",
                tag=_TAG,
                summary="Send several messages, all or none",
                body=Body(
                    schema="OwnBatch",
                    example={
                        "common": {"from": "billing@example.com", "subject": "Your order", "text": "Thank you!"},
                        "messages": [
                            {"to": ["ann@example.net"], "metadata": {"order": "4711"}},
                            {"to": ["bob@example.net"], "metadata": {"order": "4712"}},
                        ],
                    },
                ),
                answers={
                    202: Body(
                        schema="OwnSentMany",
                        example={
                            "request": _ID,
                            "messages": [{"id": _ID, "message_id": _MESSAGE_ID}],
                            "receipt": _RECEIPT,
                        },
                    )
                },
                refusals=[each for each in WRITING if each != 404],
            )
        )
    },
    "/v1/mail/{id}": {
        "get": described(
            Operation(
                name="getMail",
                tag=_TAG,
                summary="Show a message",
                parameters=[_ID_PATH, in_header("If-None-Match", "An ETag that one has.", {"type": "string"})],
                answers={200: Body(schema="OwnShown", example=_SHOWN), 304: None},
                headers={200: _ETAG, 304: _ETAG},
            )
        )
    },
    "/v1/mail/{id}/timeline": {
        "get": described(
            Operation(
                name="getTimeline",
                tag=_TAG,
                summary="List the events of a message",
                parameters=[_ID_PATH],
                answers={200: Body(schema="OwnTimeline", example={"id": _ID, "events": [_EVENT]})},
            )
        )
    },
    "/v1/mail/{id}/raw": {
        "get": described(
            Operation(
                name="getRaw",
                tag=_TAG,
                summary="Return a message's octets while it lives",
                says="For keys with the scope `read` and with `content.read`, or `manage`.",
                parameters=[_ID_PATH],
                answers={200: Body(schema="", example="Subject: ...", media_type="message/rfc822")},
                refusals=(*READING, 410, 413),
            )
        )
    },
    "/v1/mail/{id}/explain": {
        "get": described(
            Operation(
                name="explainMail",
                tag=_TAG,
                summary="Say what holds a message",
                parameters=[_ID_PATH],
                answers={200: Body(schema="OwnExplained", example=_EXPLAINED)},
                refusals=(*READING, 429),
            )
        )
    },
    "/v1/mail/{id}/cancel": {
        "post": described(
            Operation(
                name="cancelMail",
                tag=_TAG,
                summary="Withdraw a message",
                says="From everybody who has not got it yet. What is being delivered is `in_flight`, and withdrawn"
                " unless that succeeds.",
                parameters=[_ID_PATH],
                answers={
                    200: Body(
                        schema="OwnChanged",
                        example={"id": _ID, "results": [{"recipient": "ann@example.net", "result": "cancelled"}]},
                    )
                },
                refusals=(*READING, 429),
            )
        )
    },
    "/v1/mail/{id}/reschedule": {
        "post": described(
            Operation(
                name="rescheduleMail",
                tag=_TAG,
                summary="Give a scheduled message another time",
                parameters=[_ID_PATH],
                body=Body(schema="OwnReschedule", example={"send_at": "2027-01-31T09:00:00Z"}),
                answers={
                    200: Body(
                        schema="OwnChanged",
                        example={"id": _ID, "results": [{"recipient": "ann@example.net", "result": "rescheduled"}]},
                    )
                },
                refusals=[each for each in WRITING if each not in (429, 507)],
            )
        )
    },
    "/v1/mail/{id}/resend": {
        "post": described(
            Operation(
                name="resendMail",
                tag=_TAG,
                summary="Send the same content once more, as a new message",
                parameters=[_ID_PATH],
                body=Body(schema="OwnResend", example={"to": ["ann@example.net"]}),
                answers={202: Body(schema="OwnSentOne", example=_SENT)},
                refusals=(*WRITING, 410),
            )
        )
    },
}


def _schemas() -> dict[str, object]:
    types = (Mail, Batch, Reschedule, Resend, SentOne, SentMany, Foreseen, Shown, Listed, Timeline, Changed, Explained)
    found = schemas_of(types, "Own", schema_of_kind)
    mail = found["OwnMail"]
    assert isinstance(mail, dict)
    # what is between fields, which the types do not say
    mail["allOf"] = [
        {"oneOf": [{"required": ["from"]}, {"required": ["raw"]}]},
        {"anyOf": [{"required": [each]} for each in ("to", "cc", "bcc")]},
        {"anyOf": [{"required": [each]} for each in ("text", "html", "parts", "raw")]},
    ]
    return found


SCHEMAS: dict[str, object] = _schemas()
