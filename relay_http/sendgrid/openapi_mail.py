"""The schema of a mail/send request: what request.py reads. Members that nobody knows are left alone."""

from relay_http.sendgrid.request import (
    ATTACHMENTS_LIMIT,
    CONTENT_LIMIT,
    PERSONALIZATIONS_LIMIT,
    RECIPIENTS_LIMIT,
    REPLY_TO_LIMIT,
)
from relay_http.sendgrid.values import CATEGORIES_LIMIT, CATEGORY_CHARS, HEADERS_LIMIT, REPLACEMENTS_LIMIT
from relay_http.values import ADDRESS_CHARS, NAME_CHARS

_LATER = "Not there yet: refused unless it is empty."
_TEXT = {"type": "string"}
_MAILBOX = {
    "type": "object",
    "required": ["email"],
    "properties": {
        "email": {"type": "string", "minLength": 1, "maxLength": ADDRESS_CHARS},
        "name": {"type": "string", "maxLength": NAME_CHARS},
    },
}
_MAILBOXES = {"type": "array", "maxItems": RECIPIENTS_LIMIT, "items": _MAILBOX}
_SEND_AT = {"type": "integer", "description": "Absolute seconds, at most 72 hours ahead; what has passed is now."}
_MAP = {"type": "object", "additionalProperties": _TEXT}
_HEADERS = _MAP | {"maxProperties": HEADERS_LIMIT, "description": "Names in ASCII; those of other fields are reserved."}
_ARGS = _MAP | {"description": "At most 10,000 bytes in a message."}
_REPLACED = _MAP | {"maxProperties": REPLACEMENTS_LIMIT}
_NOTHING = {"type": "object", "maxProperties": 0, "description": _LATER}
_NO_TEXT = {"type": "string", "maxLength": 0, "description": _LATER}
_OFF = {"type": "object", "properties": {"enable": {"type": "boolean", "const": False}}, "description": _LATER}
_SWITCH = {"type": "object", "properties": {"enable": {"type": "boolean"}}}
_PERSONALIZATION = {
    "type": "object",
    "description": "One message; what is not said is the request's.",
    "required": ["to"],
    "properties": {
        "to": _MAILBOXES | {"minItems": 1},
        "cc": _MAILBOXES,
        "bcc": _MAILBOXES,
        "from": _MAILBOX,
        "subject": {"type": "string", "minLength": 1},
        "headers": _HEADERS,
        "custom_args": _ARGS,
        "substitutions": _REPLACED
        | {"description": "Replaced literally in the subject, the content and the reply_to; at most 10,000 bytes."},
        "send_at": _SEND_AT,
        "dynamic_template_data": _NOTHING,
    },
}
_CONTENT = {
    "type": "object",
    "required": ["type", "value"],
    "properties": {
        "type": {"type": "string", "minLength": 1},
        "value": {"type": "string", "minLength": 1},
    },
}
_ATTACHMENT = {
    "type": "object",
    "required": ["content", "filename"],
    "properties": {
        "content": {"type": "string", "minLength": 1, "description": "Base64."},
        "filename": _TEXT,
        "type": _TEXT,
        "disposition": {"type": "string", "enum": ["inline", "attachment"]},
        "content_id": _TEXT,
    },
}
MAIL: dict[str, object] = {
    "type": "object",
    "required": ["personalizations", "from", "content"],
    "properties": {
        "personalizations": {
            "type": "array",
            "minItems": 1,
            "maxItems": PERSONALIZATIONS_LIMIT,
            "items": _PERSONALIZATION,
            "description": "At most 1,000 recipients together.",
        },
        "from": _MAILBOX,
        "reply_to": _MAILBOX,
        "reply_to_list": {"type": "array", "maxItems": REPLY_TO_LIMIT, "items": _MAILBOX},
        "subject": _TEXT | {"description": "Required unless every personalization has one."},
        "content": {
            "type": "array",
            "minItems": 1,
            "maxItems": CONTENT_LIMIT,
            "items": _CONTENT,
            "description": "text/plain, text/html, then others.",
        },
        "attachments": {"type": "array", "maxItems": ATTACHMENTS_LIMIT, "items": _ATTACHMENT},
        "headers": _HEADERS,
        "categories": {
            "type": "array",
            "maxItems": CATEGORIES_LIMIT,
            "uniqueItems": True,
            "items": {"type": "string", "minLength": 1, "maxLength": CATEGORY_CHARS},
        },
        "custom_args": _ARGS,
        "sections": _REPLACED | {"description": "What values of substitutions may name."},
        "send_at": _SEND_AT,
        "batch_id": _TEXT | {"description": "Made with mail/batch."},
        "ip_pool_name": _TEXT | {"description": "That of the sources from which the account's mail leaves."},
        "mail_settings": {
            "type": "object",
            "properties": {
                "sandbox_mode": _SWITCH | {"description": "All is looked at, nothing is sent."},
                "footer": _SWITCH | {"description": "`text` and `html`, put behind the texts."},
                "bcc": _SWITCH | {"description": "`email` gets a copy of the first personalization's message."},
                "bypass_list_management": _OFF,
                "bypass_spam_management": _OFF,
                "bypass_bounce_management": _OFF,
                "bypass_unsubscribe_management": _OFF,
                "spam_check": _OFF,
            },
        },
        "tracking_settings": {
            "type": "object",
            "properties": {
                "click_tracking": _OFF,
                "open_tracking": _OFF,
                "subscription_tracking": _OFF,
                "ganalytics": _OFF,
            },
        },
        "template_id": _NO_TEXT,
        "asm": _NOTHING,
    },
}
EXAMPLE = {
    "personalizations": [{"to": [{"email": "ann@example.net", "name": "Ann"}], "custom_args": {"order": "4711"}}],
    "from": {"email": "billing@example.com", "name": "Shop"},
    "subject": "Your order",
    "content": [
        {"type": "text/plain", "value": "Thank you!"},
        {"type": "text/html", "value": "<p>Thank you!</p>"},
    ],
    "categories": ["orders"],
}
