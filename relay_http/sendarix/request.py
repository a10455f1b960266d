"""The request to send: plain JSON in, one message out, or every problem with its path. Pure.

The document names recipient, from, subject, headers, scheduled_time, attachments, metadata and priority tiers, and not
how all of them are written: that is ours. null, false and empty mean absent. Templates are refused.
"""

import msgspec

from mta.content.compose import Attachment, Mailbox
from mta.spool.records import MessageClass
from relay_http.fields import Fields, Problems, without_empty
from relay_http.kept import is_key
from relay_http.outgoing import NO_HEADERS, Outgoing
from relay_http.problem import Refusal
from relay_http.readers import (
    read_address,
    read_addresses,
    read_file,
    read_line,
    read_parts,
    read_release,
    refuse_unknown,
)
from relay_http.values import wrong_header

COPIES_LIMIT = 100  # of each of cc, bcc and reply_to
FILES_LIMIT = 100
HEADERS_LIMIT = 100
METADATA_LIMIT, METADATA_OCTETS = 50, 10_000
FILE = ("filename", "content_type", "content")
PRIORITIES = {"high": MessageClass.HIGH, "normal": MessageClass.NORMAL, "low": MessageClass.BULK}
_IDEMPOTENCY = "x-idempotency-key"
_REQUIRED = ("recipient", "from", "subject")
_NOT_YET = ("template", "template_data")
KNOWN = frozenset(
    (
        *(*_REQUIRED, *_NOT_YET, "cc", "bcc", "reply_to", "text", "html", "attachments", "headers"),
        *("metadata", "priority", "scheduled_time"),
    )
)


class Send(msgspec.Struct, frozen=True):
    """A valid request: the message, and the idempotency key that stands among its headers, "" for none."""

    outgoing: Outgoing
    idempotency_key: str


def read_send(plain: object, now: float) -> Send:
    """Read a request; Refusal 400 for what is no object, 422 with all that is wrong. `now` is absolute seconds."""
    problems = Problems()
    root = Fields.of(plain, "", problems)
    if root is None:
        raise Refusal(400, *problems.found)
    send = _send(Fields(without_empty(root.members), "", problems), now)
    if problems.found:
        raise Refusal(422, *problems.found)
    return send


def _send(root: Fields, now: float) -> Send:
    refuse_unknown(root, KNOWN)
    for name in _NOT_YET:
        if root.has(name):
            root.problem(name, "Templates are not supported yet: give subject and html or text.")
    for name in _REQUIRED:
        if not root.has(name):
            root.problem(name, "This field is required.")
    recipient, sender = read_address(root, "recipient"), read_address(root, "from")
    headers, idempotency_key = _headers(root)
    outgoing = Outgoing(
        sender=sender or Mailbox(""),
        to=(recipient,) if recipient is not None else (),
        cc=read_addresses(root, "cc", COPIES_LIMIT),
        bcc=read_addresses(root, "bcc", COPIES_LIMIT),
        reply_to=read_addresses(root, "reply_to", COPIES_LIMIT),
        subject=read_line(root, "subject"),
        headers=headers,
        parts=read_parts(root, "template"),
        attachments=_files(root),
        custom_args=_metadata(root),
        message_class=_priority(root),
        release_at=read_release(root, "scheduled_time", now),
    )
    return Send(outgoing, idempotency_key)


def _headers(root: Fields) -> tuple[dict[str, str], str]:
    """Read the caller's own header fields, and the idempotency key among them, which is not sent."""
    headers, idempotency_key = {}, ""
    for name, value in root.text_map("headers", HEADERS_LIMIT).items():
        path = f"headers.{name}"
        if name.lower() != _IDEMPOTENCY:
            headers[name] = value
            wrong = wrong_header(name, value)
            if wrong:
                root.problem(path, wrong)
        elif idempotency_key:
            root.problem(path, "This header may be given once.")
        elif value and not is_key(value):
            root.problem(path, "An idempotency key is 1 to 256 printable ASCII characters.")
        else:
            idempotency_key = value
    return headers, idempotency_key


def _files(root: Fields) -> tuple[Attachment, ...]:
    read = [read_file(each, FILE) for each in root.objects("attachments", root.array("attachments", FILES_LIMIT))]
    return tuple([each for each in read if each is not None])


def _metadata(root: Fields) -> dict[str, str]:
    metadata = root.text_map("metadata", METADATA_LIMIT)
    if sum([len(name.encode()) + len(value.encode()) for name, value in metadata.items()]) > METADATA_OCTETS:
        root.problem("metadata", f"The metadata of a message have at most {METADATA_OCTETS} bytes.")
    return metadata or NO_HEADERS


def _priority(root: Fields) -> MessageClass:
    text = root.text("priority")
    if text and text not in PRIORITIES:
        root.problem("priority", f"This is none of {', '.join(PRIORITIES)}.")
    return PRIORITIES.get(text or "", MessageClass.NORMAL)
