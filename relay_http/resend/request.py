"""The requests: plain JSON in, messages out, or what is wrong with its path. Pure.

null means absent. What needs templates, topics, or a file that we would have to fetch is refused.
"""

from base64 import b64encode
from mimetypes import MimeTypes

import msgspec

from mta.content.compose import Attachment, Mailbox
from relay_http.fields import Fields, Problems, without_null
from relay_http.outgoing import NO_HEADERS, Outgoing
from relay_http.problem import Problem, Refusal, Why
from relay_http.readers import read_address, read_addresses, read_file, read_line, read_parts, read_release
from relay_http.values import is_content_id, wrong_header

EMAILS_LIMIT = 100  # of a batch
RECIPIENTS_LIMIT = 50  # in each of to, cc, bcc and reply_to
FILES_LIMIT = 100
HEADERS_LIMIT = 100
TAGS_LIMIT, TAG_CHARS = 50, 256
FILE = ("filename", "content_type", "content")
NOT_YET = {"template": "Templates are not supported yet.", "topic_id": "Topics are not supported yet."}
_REQUIRED = ("from", "to", "subject")
_OCTET_STREAM = "application/octet-stream"
_TYPES = MimeTypes()


def read_email(plain: object, now: float, hold: float, path: str = "") -> Outgoing:
    """Read an email; Refusal 422. `now` is absolute seconds, `hold` how many of them ahead it may be scheduled."""
    problems = Problems()
    given = Fields.of(plain, path, problems)
    if given is None:
        raise Refusal(422, *problems.found)
    root = Fields(without_null(given.members), path, problems)
    for name in _REQUIRED:
        if root.members.get(name) in (None, "", []):
            raise Refusal(422, Problem(f"Missing `{name}` field.", root.at(name)), why=Why.MISSING)
    for name, said in NOT_YET.items():
        if root.has(name):
            root.problem(name, said)
    outgoing = Outgoing(
        sender=read_address(root, "from") or Mailbox(""),
        to=_boxes(root, "to"),
        cc=_boxes(root, "cc"),
        bcc=_boxes(root, "bcc"),
        reply_to=_boxes(root, "reply_to"),
        subject=read_line(root, "subject"),
        headers=_headers(root),
        parts=read_parts(root, "template"),
        attachments=_files(root),
        custom_args=_tags(root),
        release_at=_release(root, now, hold),
    )
    if problems.found:
        raise Refusal(422, *problems.found)
    return outgoing


def read_update(plain: object, now: float, hold: float) -> float:
    """Read the time that an email is to have instead; Refusal 422."""
    problems = Problems()
    root = Fields.of(plain, "", problems)
    at = _release(root, now, hold) if root is not None else 0.0
    if problems.found:
        raise Refusal(422, *problems.found)
    if not at:
        raise Refusal(422, Problem("Missing `scheduled_at` field.", "scheduled_at"), why=Why.MISSING)
    return at


def _boxes(root: Fields, name: str) -> tuple[Mailbox, ...]:
    """Read one address, or an array of them."""
    if isinstance(root.members.get(name), str):
        one = read_address(root, name)
        return (one,) if one is not None else ()
    return read_addresses(root, name, RECIPIENTS_LIMIT)


def _headers(root: Fields) -> dict[str, str]:
    headers = root.text_map("headers", HEADERS_LIMIT)
    for name, value in headers.items():
        if wrong := wrong_header(name, value):
            root.problem(f"headers.{name}", wrong)
    return headers or NO_HEADERS


def _files(root: Fields) -> tuple[Attachment, ...]:
    read = map(_file, root.objects("attachments", root.array("attachments", FILES_LIMIT)))
    return tuple([each for each in read if each is not None])


def _file(given: Fields) -> Attachment | None:
    members = without_null(given.members)
    fields = Fields(members, given.path, given.problems)
    if members.get("path"):
        fields.problem("path", "Files are not fetched from elsewhere: give their content.")
        return None
    content, filename = members.get("content"), members.get("filename")
    if isinstance(content, list):  # the Python client's way of writing octets
        try:
            members["content"] = b64encode(bytes(content)).decode()
        except (TypeError, ValueError):
            fields.problem("content", "This is not an array of octets.")
            return None
    if not members.get("content_type") and isinstance(filename, str):
        members["content_type"] = _TYPES.guess_type(filename)[0] or _OCTET_STREAM
    content_id = fields.text("content_id") or fields.text("inline_content_id") or ""
    if content_id and not is_content_id(content_id):
        fields.problem("content_id", "This is not 1 to 255 printable ASCII characters without spaces, < and >.")
    file = read_file(fields, FILE)
    return msgspec.structs.replace(file, content_id=content_id, inline=True) if file and content_id else file


def _tags(root: Fields) -> dict[str, str]:
    tags: dict[str, str] = {}
    for each in root.objects("tags", root.array("tags", TAGS_LIMIT)):
        name, value = each.text("name"), each.text("value")
        if not (_is_tag(name) and _is_tag(value)):
            root.problems.add(each.path, f"A name and a value are 1 to {TAG_CHARS} ASCII letters, digits, _ and -.")
        elif name in tags:
            root.problems.add(each.path, "Each name may be given once.")
        else:
            tags[str(name)] = str(value)
    return tags or NO_HEADERS


def _is_tag(text: str | None) -> bool:
    plain = (text or "").replace("_", "a").replace("-", "a")
    return len(plain) <= TAG_CHARS and plain.isascii() and plain.isalnum()


def _release(root: Fields, now: float, hold: float) -> float:
    at = read_release(root, "scheduled_at", now)
    if at > now + hold:
        root.problem("scheduled_at", f"An email can be scheduled at most {hold:.0f} seconds ahead.")
    return at
