"""Postmark's part of the OpenAPI document."""

from relay_http.postmark.request import FILES_LIMIT, HEADERS_LIMIT, METADATA_LIMIT, STREAMS, TAG_CHARS
from relay_http.postmark.resource import BATCH_LIMIT, LONGEST_PAGE, OFFSET_MOST, PAGE
from relay_http.postmark.shown import STATUSES
from relay_http.schemas import (
    BASE64,
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
    ref,
)

_ID = "01a1eeba-0001-75b5-87b0-da5fbbc1269c"
_AT = "2027-01-15T08:00:00Z"
_WORDS = {
    401: ("No good token.", 10, "No server token: X-Postmark-Server-Token should have a valid API token."),
    403: ("The token is not for this.", 10, "the key has not the scope send"),
    404: ("There is no such message.", 701, "This message was not found."),
    409: ("The idempotency key is another request's.", 300, "Invalid 'Idempotency-Key': ..."),
    413: ("More than is taken.", 410, "content too large"),
    415: ("Not a media type that is taken.", 409, "Content-Type should be application/json."),
    422: ("Something is wrong.", 300, "Invalid 'To' address: 'nobody'."),
    429: ("Too much for now; Retry-After says for how long.", 429, "too many requests"),
    503: ("Not now; Retry-After says when.", 100, "service unavailable"),
    507: ("The disk is full.", 100, "insufficient storage"),
}
_READING = (401, 403, 422, 503)
_SENDING = (401, 403, 409, 413, 415, 422, 429, 503, 507)

_ADDRESSES = or_null({**TEXT, "description": "Addresses with commas between them."})
_PLAIN: Schema = {"type": ["string", "number", "boolean"]}
_FILE: dict[str, Schema] = {
    "Name": TEXT,
    "Content": BASE64,
    "ContentType": NEEDED_TEXT,
    "ContentID": or_null({**TEXT, "description": "`cid:ID` for what is inline."}),
}
_OPTIONAL: dict[str, Schema] = {
    "To": _ADDRESSES,
    "Cc": _ADDRESSES,
    "Bcc": _ADDRESSES,
    "Subject": or_null(TEXT),
    "TextBody": or_null({**TEXT, "description": "This, HtmlBody or both."}),
    "HtmlBody": or_null(TEXT),
    "ReplyTo": _ADDRESSES,
    "Tag": or_null({**TEXT, "maxLength": TAG_CHARS}),
    "Metadata": {"type": ["object", "null"], "maxProperties": METADATA_LIMIT, "additionalProperties": _PLAIN},
    "Headers": or_null(array(members({"Name": NEEDED_TEXT, "Value": _PLAIN}), HEADERS_LIMIT)),
    "Attachments": or_null(array(members(_FILE, optional=("ContentID",)), FILES_LIMIT)),
    "MessageStream": {"enum": [*STREAMS, None]},
    "TrackOpens": {"enum": [False, None], "description": "Not supported yet."},
    "TrackLinks": {"enum": ["None", None], "description": "Not supported yet."},
}
_BOX = members({"Email": TEXT, "Name": or_null(TEXT)})
_LISTED: dict[str, Schema] = {
    "Tag": or_null(TEXT),
    "MessageID": TEXT,
    "To": array(_BOX, description="All recipients, those of Cc and Bcc too."),
    "Cc": array(_BOX, 0),
    "Bcc": array(_BOX, 0),
    "Recipients": array(TEXT),
    "ReceivedAt": TIME,
    "From": TEXT,
    "Subject": TEXT,
    "Attachments": array(TEXT),
    "Status": one_of(("Queued", "Sent")),
    "TrackOpens": FLAG,
    "TrackLinks": TEXT,
    "Metadata": map_of_texts(),
    "Sandboxed": FLAG,
    "MessageStream": one_of(tuple(STREAMS)),
}
_EVENT: dict[str, Schema] = {
    "Recipient": TEXT,
    "Type": one_of(("Delivered", "Transient", "Bounced")),
    "ReceivedAt": TIME,
    "Details": map_of_texts(),
}
_DETAILED: dict[str, Schema] = {
    "TextBody": or_null({**TEXT, "description": "null when the content is gone, or larger than 8 MiB."}),
    "HtmlBody": or_null(TEXT),
    "Body": {**TEXT, "description": "Empty: whole messages are shown to those who may see them at /v1/mail/ID/raw."},
    "MessageEvents": array(members(_EVENT)),
}
_RESULT: dict[str, Schema] = {
    "To": TEXT,
    "SubmittedAt": TIME,
    "MessageID": TEXT,
    "ErrorCode": NUMBER,
    "Message": TEXT,
}
SCHEMAS: dict[str, object] = {
    "PostmarkEmail": members({"From": NEEDED_TEXT, **_OPTIONAL}, optional=tuple(_OPTIONAL)),
    "PostmarkBatch": array(ref("PostmarkEmail"), BATCH_LIMIT),
    "PostmarkResult": members(_RESULT, optional=("To", "SubmittedAt", "MessageID")),
    "PostmarkResults": array(ref("PostmarkResult")),
    "PostmarkListed": members(_LISTED),
    "PostmarkPage": members({"TotalCount": NUMBER, "Messages": array(ref("PostmarkListed"))}),
    "PostmarkDetail": members(_LISTED | _DETAILED),
    "PostmarkError": members({"ErrorCode": NUMBER, "Message": TEXT}),
}

_SENT: dict[str, object] = {
    "From": "Shop <billing@example.com>",
    "To": "Ann <ann@example.net>, bob@example.net",
    "Subject": "Your receipt",
    "TextBody": "Thanks for your order.",
    "Tag": "order",
    "Metadata": {"order": "4711"},
    "Attachments": [{"Name": "invoice.pdf", "Content": "UERG", "ContentType": "application/pdf"}],
}
_RECIPIENTS = ("ann@example.net", "bob@example.net")
_DONE: dict[str, object] = {
    "To": ", ".join(_RECIPIENTS),
    "SubmittedAt": _AT,
    "MessageID": _ID,
    "ErrorCode": 0,
    "Message": "OK",
}
_ONE: dict[str, object] = {
    "Tag": "order",
    "MessageID": _ID,
    "To": [{"Email": each, "Name": None} for each in _RECIPIENTS],
    "Cc": [],
    "Bcc": [],
    "Recipients": list(_RECIPIENTS),
    "ReceivedAt": _AT,
    "From": "Shop <billing@example.com>",
    "Subject": "Your receipt",
    "Attachments": ["invoice.pdf"],
    "Status": "Sent",
    "TrackOpens": False,
    "TrackLinks": "None",
    "Metadata": {"order": "4711"},
    "Sandboxed": False,
    "MessageStream": "outbound",
}
_SAID = {"DeliveryMessage": "250 2.0.0 ok", "DestinationServer": "mx.example.net[192.0.2.25]:25", "DestinationIP": ""}
_TOLD = {"Recipient": "ann@example.net", "Type": "Delivered", "ReceivedAt": _AT, "Details": _SAID}
_WHOLE = {**_ONE, "TextBody": "Thanks for your order.", "HtmlBody": None, "Body": "", "MessageEvents": [_TOLD]}


def _refused(status: int) -> Schema:
    description, code, message = _WORDS[status]
    return {"description": description, "content": json_of("PostmarkError", {"ErrorCode": code, "Message": message})}


def _operation(
    name: str, summary: str, answer: tuple[str, object] | None, refusals: tuple[int, ...], **more: object
) -> Schema:
    """Describe an operation; `answer` is the schema of what is answered when it is done, and an example."""
    done = {"200": {"description": "Done.", "content": json_of(*answer)}} if answer else {}
    return {
        "operationId": name,
        "tags": ["Postmark"],
        "summary": summary,
        "security": [{"serverToken": []}],
        "responses": {**done, **{str(each): _refused(each) for each in sorted(refusals)}},
        **more,
    }


def _body(schema: str, example: object) -> Schema:
    return {"required": True, "content": json_of(schema, example)}


def _templates(name: str) -> dict[str, object]:
    return {"post": _operation(name, "Refuse: there are no templates yet", None, (401, 403, 422, 429, 503))}


PATHS: dict[str, object] = {
    "/email": {
        "post": _operation(
            "postmarkSend",
            "Send a message",
            ("PostmarkResult", _DONE),
            _SENDING,
            requestBody=_body("PostmarkEmail", _SENT),
        )
    },
    "/email/batch": {
        "post": _operation(
            "postmarkBatch",
            "Send those messages that are right, and say of each what came of it",
            ("PostmarkResults", [_DONE]),
            _SENDING,
            requestBody=_body("PostmarkBatch", [_SENT]),
        )
    },
    "/email/withTemplate": _templates("postmarkSendWithTemplate"),
    "/email/batchWithTemplates": _templates("postmarkBatchWithTemplates"),
    "/messages/outbound": {
        "get": _operation(
            "postmarkList",
            "List messages, the last first",
            ("PostmarkPage", {"TotalCount": 1, "Messages": [_ONE]}),
            _READING,
            parameters=[
                in_query("count", {**NUMBER, "minimum": 1, "maximum": LONGEST_PAGE, "default": PAGE}),
                in_query("offset", {**NUMBER, "minimum": 0, "maximum": OFFSET_MOST, "default": 0}),
                in_query("recipient", TEXT, "A recipient's address."),
                in_query("fromemail", TEXT, "The envelope's sender."),
                in_query("tag", TEXT, "The tag."),
                in_query("status", one_of(tuple(STATUSES)), "Whether somebody still waits for it."),
                in_query("subject", TEXT, "Words of the subject."),
                in_query("fromdate", TEXT, "Accepted on this day, or at this moment, or later."),
                in_query("todate", TEXT, "Accepted until the end of this day, or before this moment."),
            ],
        )
    },
    "/messages/outbound/{id}/details": {
        "get": _operation(
            "postmarkDetails",
            "Show a message with its events, and with its texts while they are stored",
            ("PostmarkDetail", _WHOLE),
            (*_READING, 404, 413),
            parameters=[in_path("id", _ID)],
        )
    },
}
