"""The dialect's part of the OpenAPI document: its paths and schemas."""

from relay_http.forms import MULTIPART, URLENCODED
from relay_http.mailgun.events import LIMIT as EVENTS_LIMIT
from relay_http.mailgun.options import TAG_CHARS, TAGS_LIMIT
from relay_http.mailgun.shown import Json

_ID = "<AZqYx0bTcM2gkq3V9d1ZUw@mail.example.com>"
_KEY = "AZqYx0bTcM2gkq3V9d1ZUw"


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/Mailgun{name}"}


def _object(required: tuple[str, ...] = (), **properties: Json) -> Json:
    return {
        "type": "object",
        "required": list(required),
        "properties": {name.replace("_", "-"): each for name, each in properties.items()},
    }


def _array(items: Json) -> Json:
    return {"type": "array", "items": items}


def _text(description: str = "", **more: object) -> Json:
    return {"type": "string", **({"description": description} if description else {}), **more}


_TEXT = _text()
_NUMBER: Json = {"type": "number"}
_FLAG: Json = {"type": "boolean"}
_YES_NO = _text(enum=["yes", "no", "true", "false"])
_LIST = _array(_TEXT)


def _one_or_more(description: str) -> Json:
    return {"description": description, "oneOf": [_TEXT, {**_LIST, "minItems": 1}]}


_OPTIONS: dict[str, Json] = {
    "o:tag": {"description": f"Of {TAG_CHARS} ASCII characters each.", **_LIST, "maxItems": TAGS_LIMIT},
    "o:testmode": _YES_NO,
    "o:deliverytime": _text("When it may go out: an RFC 2822 date, or seconds since 1970; at most 7 days ahead."),
    "o:deliver-within": _text("For how long from then on: a duration from 5m to 24h, such as 1h30m."),
    "o:require-tls": _YES_NO,
    "o:skip-verification": _YES_NO,
    "o:suppress-headers": _text("`all`, or `X-Mailgun-Variables`."),
    "o:tracking": _text("`no` alone: there is no tracking yet.", enum=["no", "false"]),
    "o:tracking-clicks": _text(enum=["no", "false"]),
    "o:tracking-opens": _text(enum=["no", "false"]),
}
_FREE = (
    "`h:NAME` is a header field (`h:Reply-To`, `h:Message-Id`), `v:NAME` a variable that events tell. All o:, h: and v:"
    " parameters together have at most 16 kB."
)
_LETTER: dict[str, Json] = {
    "from": _text("One address: `a@b`, or `Name <a@b>`."),
    "to": _one_or_more("Addresses; a parameter may have several with commas between."),
    "cc": _one_or_more("As `to`."),
    "bcc": _one_or_more("As `to`."),
    "subject": _TEXT,
    "text": _text("At least one of text, html and amp-html is needed."),
    "html": _TEXT,
    "amp-html": _TEXT,
    "recipient-variables": _text(
        "JSON, `{address: {name: value}}`: each of `to` gets a message of its own, with `%recipient.name%` filled in."
    ),
    **_OPTIONS,
}
_FILE = _array({"type": "string", "contentMediaType": "application/octet-stream"})


def _form(fields: dict[str, Json], *required: str) -> Json:
    return {"type": "object", "description": _FREE, "required": list(required), "properties": fields}


def _body(schemas: dict[str, Json], example: Json) -> Json:
    return {
        "required": True,
        "content": {kind: {"schema": schema, "example": example} for kind, schema in schemas.items()},
    }


_SAID = {
    400: ("A parameter is wrong; the message names it.", "to parameter is missing"),
    403: ("The key has not the scope, or the sender's domain is another tenant's.", "Forbidden"),
    404: ("The domain is not the tenant's, or there is no such message.", "Domain not found: example.com"),
    405: ("Another method is allowed.", "POST method allowed only"),
    409: ("The idempotency key was used for another request, or its first request is under way.", "..."),
    410: ("The content is not kept any more.", "The content of the message is not kept any more"),
    413: ("Too large.", "Message is larger than 25 MB"),
    415: ("The body is of another type, or compressed in another way.", "Content-Type should be multipart/form-data."),
    429: ("Too much for now; Retry-After says for how long.", "too many requests, try again in 3 seconds"),
    500: ("Something that nobody expected.", "internal server error"),
    503: ("Not now; Retry-After says when.", "service unavailable"),
    507: ("The disk is full.", "insufficient storage"),
}
_WRITING = (400, 403, 404, 405, 409, 413, 415, 429, 500, 503, 507)
_READING = (400, 403, 404, 405, 500, 503)


def _responses(answer: Json, example: Json, statuses: tuple[int, ...]) -> Json:
    found: Json = {"200": _response("Done.", answer, example), "401": _response(*_UNAUTHORIZED)}
    for status in statuses:
        description, said = _SAID[status]
        schema: Json = {"anyOf": [_ref("Error"), _ELSEWHERE]} if status == 404 else _ref("Error")
        found[str(status)] = _response(description, schema, {"message": said})
    return found


def _response(description: str, schema: Json, example: Json) -> Json:
    return {"description": description, "content": {"application/json": {"schema": schema, "example": example}}}


# A path whose domain has no dot is none of this dialect's, and is answered in the words of those that begin so.
_ELSEWHERE: Json = {"$ref": "#/components/schemas/SendGridErrors"}
_UNAUTHORIZED: tuple[str, Json, Json] = (
    "There is no key, or it is not good.",
    {"anyOf": [_ref("Error"), _ref("Unauthorized"), _ELSEWHERE]},
    {"message": "Invalid private key"},
)


def _in(where: str, name: str, schema: Json, description: str = "") -> Json:
    return {"in": where, "name": name, "required": where == "path", "schema": schema, "description": description}


_DOMAIN = _in("path", "domain", _text(pattern=r"^[^/]*\.[^/]*$"), "A domain of the tenant, or one below it.")


def _operation(name: str, summary: str, parameters: list[Json], responses: Json, **more: object) -> Json:
    return {
        "operationId": f"mailgun{name}",
        "tags": ["Mailgun"],
        "summary": summary,
        "security": [{"basic": []}],
        "parameters": parameters,
        "responses": responses,
        **more,
    }


_QUEUED: Json = {"id": _ID, "message": "Queued. Thank you."}
_EXAMPLE: Json = {"from": "Shop <billing@example.com>", "to": "ann@example.net", "subject": "Order", "text": "Thanks"}
_ITEM: Json = {
    "event": "delivered",
    "id": f"{_KEY}.1.1",
    "timestamp": 1800000000.5,
    "log-level": "info",
    "recipient": "ann@example.net",
    "recipient-domain": "example.net",
    "message": {
        "headers": {"to": "ann@example.net", "from": "b@example.com", "subject": "Order", "message-id": _ID[1:-1]},
        "attachments": [],
        "recipients": ["ann@example.net"],
        "size": 1024,
    },
    "envelope": {"transport": "smtp", "sender": "b@example.com", "sending-ip": "", "targets": "ann@example.net"},
    "flags": {"is-routed": False, "is-authenticated": True, "is-system-test": False, "is-test-mode": False},
    "tags": [],
    "campaigns": [],
    "user-variables": {},
    "storage": {"url": f"https://mail.example.com/v3/domains/example.com/messages/{_KEY}", "key": _KEY},
}
_PAGE: Json = {
    "items": [_ITEM],
    "paging": dict.fromkeys(("next", "previous"), "https://mail.example.com/v3/example.com/events/lgA?page=lgA"),
}
_DOMAIN_EXAMPLE: Json = {
    "id": "example.com",
    "name": "example.com",
    "state": "active",
    "created_at": "Fri, 15 Jan 2027 08:00:00 +0000",
    "type": "custom",
    "is_disabled": False,
    "require_tls": False,
    "skip_verification": False,
    "spam_action": "disabled",
    "wildcard": False,
}
_STORED: Json = {
    "sender": "b@example.com",
    "recipients": "ann@example.net",
    "from": "Shop <b@example.com>",
    "subject": "Order",
    "body-plain": "Thanks",
    "body-html": "",
    "stripped-text": "Thanks",
    "stripped-html": "",
    "attachments": [],
    "content-id-map": {},
    "message-headers": [["Subject", "Order"]],
}
_FILTERS = [
    _in("query", "event", _text("`accepted`, `delivered`, `failed`, or several with ` OR ` between.")),
    _in("query", "severity", _text(enum=["permanent", "temporary"])),
    _in("query", "begin", _text("An RFC 2822 date, or seconds since 1970.")),
    _in("query", "end", _text("As `begin`.")),
    _in("query", "ascending", _YES_NO),
    _in("query", "limit", {"type": "integer", "minimum": 1, "maximum": EVENTS_LIMIT, "default": 100}),
    *[_in("query", name, _text()) for name in ("recipient", "from", "message-id", "tags", "page")],
]

PATHS: Json = {
    "/v3/{domain}/messages": {
        "post": _operation(
            "Messages",
            "Send a message",
            [_DOMAIN],
            _responses(_ref("Queued"), _QUEUED, _WRITING),
            requestBody=_body({URLENCODED: _ref("Letter"), MULTIPART: _ref("LetterWithFiles")}, _EXAMPLE),
        )
    },
    "/v3/{domain}/messages.mime": {
        "post": _operation(
            "Mime",
            "Send a message that is MIME already",
            [_DOMAIN],
            _responses(_ref("Queued"), _QUEUED, _WRITING),
            requestBody=_body(
                {MULTIPART: _ref("Mime"), URLENCODED: _ref("Mime")},
                {"to": "ann@example.net", "message": "From: b@example.com\r\nSubject: Order\r\n\r\nThanks\r\n"},
            ),
        )
    },
    "/v3/{domain}/events": {
        "get": _operation("Events", "List events", [_DOMAIN, *_FILTERS], _responses(_ref("Events"), _PAGE, _READING))
    },
    "/v3/{domain}/events/{token}": {
        "get": _operation(
            "EventsPage",
            "List events: a page whose address another page has told",
            [_DOMAIN, _in("path", "token", _TEXT)],
            _responses(_ref("Events"), _PAGE, _READING),
        )
    },
    "/v3/domains/{domain}/messages/{key}": {
        "get": _operation(
            "Stored",
            "Read a stored message",
            [_DOMAIN, _in("path", "key", _TEXT), _in("header", "Accept", _text("`message/rfc2822` for it as it is."))],
            _responses(_ref("Stored"), _STORED, (*_READING, 410, 413)),
        )
    },
    "/v4/domains": {
        "get": _operation(
            "Domains",
            "List the sender domains",
            [
                _in("query", "limit", {"type": "integer", "minimum": 0, "maximum": 1000, "default": 100}),
                _in("query", "skip", {"type": "integer", "minimum": 0, "maximum": 1_000_000, "default": 0}),
                _in("query", "search", _TEXT),
            ],
            _responses(_ref("Domains"), {"total_count": 1, "items": [_DOMAIN_EXAMPLE]}, _READING),
        )
    },
    "/v4/domains/{name}": {
        "get": _operation(
            "Domain",
            "Show a sender domain and its DNS records",
            [_in("path", "name", _TEXT)],
            _responses(
                _ref("DomainDetail"),
                {"domain": _DOMAIN_EXAMPLE, "sending_dns_records": [], "receiving_dns_records": []},
                _READING,
            ),
        )
    },
}

SCHEMAS: Json = {
    "MailgunError": _object(("message",), message=_TEXT),
    "MailgunUnauthorized": _object(("Error",), Error=_TEXT),
    "MailgunQueued": _object(("id", "message"), id=_text("The Message-ID."), message=_TEXT),
    "MailgunLetter": _form(_LETTER, "from", "to"),
    "MailgunLetterWithFiles": _form({**_LETTER, "attachment": _FILE, "inline": _FILE}, "from", "to"),
    "MailgunMime": _form({"to": _LETTER["to"], "message": _text("The message."), **_OPTIONS}, "to", "message"),
    "MailgunEvent": {
        **_object(
            ("event", "id", "timestamp", "recipient", "message"),
            event=_text(enum=["accepted", "delivered", "failed"]),
            id=_TEXT,
            timestamp=_NUMBER,
            log_level=_TEXT,
            recipient=_TEXT,
            recipient_domain=_TEXT,
            severity=_text(enum=["permanent", "temporary"]),
            reason=_TEXT,
            message={"type": "object"},
            envelope={"type": "object"},
            flags={"type": "object"},
            tags=_LIST,
            campaigns=_LIST,
            user_variables={"type": "object", "additionalProperties": _TEXT},
            storage=_object(("url", "key"), url=_TEXT, key=_TEXT),
            delivery_status={"type": "object"},
        )
    },
    "MailgunEvents": _object(
        ("items", "paging"),
        items=_array(_ref("Event")),
        paging=_object(("next", "previous"), next=_TEXT, previous=_TEXT),
    ),
    "MailgunStored": {
        "type": "object",
        "required": ["sender", "recipients", "from", "subject"],
        "properties": dict.fromkeys(("sender", "recipients", "from", "subject", "body-plain", "body-mime"), _TEXT),
    },
    "MailgunDomain": {
        "type": "object",
        "required": ["id", "name", "state", "created_at"],
        "properties": {
            **dict.fromkeys(("id", "name", "created_at", "type", "spam_action"), _TEXT),
            "state": _text(enum=["active", "unverified"]),
            **dict.fromkeys(("is_disabled", "require_tls", "skip_verification", "wildcard"), _FLAG),
        },
    },
    "MailgunDomains": {
        "type": "object",
        "required": ["total_count", "items"],
        "properties": {"total_count": {"type": "integer"}, "items": _array(_ref("Domain"))},
    },
    "MailgunDomainDetail": {
        "type": "object",
        "required": ["domain", "sending_dns_records", "receiving_dns_records"],
        "properties": {
            "domain": _ref("Domain"),
            "sending_dns_records": _array({"type": "object"}),
            "receiving_dns_records": _array({"type": "object"}),
        },
    },
}
