"""Single values of a mail/send request: addresses, header texts, media types, files, maps of strings.

Each reader notes what is wrong under its path. CR, LF and NUL reach no header and no envelope.
"""

import re
from binascii import a2b_base64

from mta.content.compose import Attachment, Mailbox, Part
from mta.mail.address import AddressError, a_label, parse_mailbox
from relay_http.sendgrid.schema import Fields

ADDRESS_CHARS = 320
CUSTOM_ARGS_OCTETS = 10_000
HEADERS_LIMIT = 1000
CATEGORIES_LIMIT = 10
CATEGORY_CHARS = 255
_VALUE_CHARS = 255  # of a media type or a Message-ID

RESERVED_HEADERS = frozenset(
    (
        *("x-sg-id", "x-sg-eid", "received", "dkim-signature", "content-type", "content-transfer-encoding"),
        *("to", "from", "subject", "reply-to", "cc", "bcc"),
    )
)
_BREAKS = "It must not contain line breaks or NUL."
_BREAK = re.compile(r"[\r\n\0]")
_HEADER_NAME = re.compile(r"[!-9;-~]{1,76}")
_MESSAGE_ID = re.compile(r"<[!-;=?-~]+@[!-;=?-~]+>")
_CONTENT_ID = re.compile(r"[!-;=?-~]{1,255}")
_WORD = r"[A-Za-z0-9!#$%&'*+\-.^_`{|}~]+"  # token of RFC 2045 5.1
_PARAMETER = re.compile(rf'\s*;\s*({_WORD})=({_WORD}|"[ !#-\[\]-~]*")', re.ASCII)
_MEDIA_TYPE = re.compile(rf"({_WORD}/{_WORD})((?:{_PARAMETER.pattern})*)\s*;?\s*", re.ASCII)


def read_mailbox(fields: Fields, missing: str, invalid: str) -> Mailbox | None:
    """Read `{email, name}`; the address gets its domain in ASCII."""
    name = header_text(fields, "name")
    email = fields.text("email")
    if not email:
        if email is not None:
            fields.problem("email", missing)
        return None
    if len(email) > ADDRESS_CHARS:
        fields.problem("email", f"The email address is longer than {ADDRESS_CHARS} characters.")
        return None
    try:
        address = _address(email)
    except AddressError:
        fields.problem("email", invalid)
        return None
    return None if name is None else Mailbox(address, name)


def _address(text: str) -> str:
    parse_mailbox(text, utf8=True)
    if text.isascii():
        return text
    local, _, domain = text.rpartition("@")
    return parse_mailbox(f"{local}@{a_label(domain)}", utf8=True)  # again: A-labels are longer


def header_text(fields: Fields, name: str) -> str | None:
    """Read a string that goes into a header."""
    text = fields.text(name)
    if text and _BREAK.search(text):
        fields.problem(name, _BREAKS)
        return None
    return text


def read_part(fields: Fields) -> Part | None:
    """Read `{type, value}`."""
    value = fields.text("value")
    if value == "":
        fields.problem("value", "The content value must be a string at least one character in length.")
    media_type = _media_type(fields, but="charset")
    if media_type == "":
        fields.problem("type", "The content type is required.")
    elif media_type and media_type.startswith(("multipart/", "message/")):
        fields.problem("type", "Multipart and message types cannot be content.")
        return None
    return Part(media_type, value) if media_type and value else None


def read_attachment(fields: Fields) -> Attachment | None:
    """Read `{content, filename, type, disposition, content_id}`. An empty filename means none."""
    content = fields.text("content")
    if content == "":
        fields.problem("content", "The attachment content is required.")
    elif content and not _is_base64(content):
        fields.problem("content", "The attachment content must be base64 encoded.")
    filename = header_text(fields, "filename")
    if not fields.has("filename"):
        fields.problem("filename", "The attachment filename is required.")
    disposition = fields.text("disposition")
    if fields.has("disposition") and disposition not in (None, "inline", "attachment"):
        fields.problem("disposition", "The disposition of your attachment can be either 'inline' or 'attachment'.")
    content_id = (fields.text("content_id") or "").removeprefix("<").removesuffix(">")
    if content_id and not _CONTENT_ID.fullmatch(content_id):
        fields.problem("content_id", "The content_id is 1 to 255 printable ASCII characters without spaces, < and >.")
    media_type = _media_type(fields, but="name")
    if content is None or filename is None or media_type is None:
        return None
    return Attachment(
        encoded=content,
        media_type=media_type or "application/octet-stream",
        filename=filename,
        content_id=content_id,
        inline=disposition == "inline",
    )


def _media_type(fields: Fields, *, but: str) -> str | None:
    """Read a media type with its parameters but the one that is ours to write."""
    text = fields.text("type")
    if not text:
        return text
    found = _MEDIA_TYPE.fullmatch(text) if len(text) <= _VALUE_CHARS else None
    if found is None:
        fields.problem("type", "The type must be a media type such as text/html.")
        return None
    parameters = [f"; {name}={value}" for name, value in _PARAMETER.findall(found[2]) if name.lower() != but]
    return found[1].lower() + "".join(parameters)


def _is_base64(text: str) -> bool:
    try:
        a2b_base64(text, strict_mode=True)
    except ValueError:
        return False
    return True


def read_headers(fields: Fields) -> dict[str, str]:
    """Read the caller's own header fields."""
    headers = fields.text_map("headers", HEADERS_LIMIT)
    for name, value in headers.items():
        wrong = _wrong_header(name, value)
        if wrong:
            fields.problem(f"headers.{name}", wrong)
    return headers


def _wrong_header(name: str, value: str) -> str:
    if not _HEADER_NAME.fullmatch(name):
        return "A header name is 1 to 76 printable ASCII characters without spaces and colons."
    if name.lower() in RESERVED_HEADERS:
        return "This header is reserved: it is made from other fields of the request."
    if _BREAK.search(value):
        return _BREAKS
    if name.lower() == "message-id" and not (_MESSAGE_ID.fullmatch(value) and len(value) <= _VALUE_CHARS):
        return f"A Message-ID is <left@right>, at most {_VALUE_CHARS} characters."
    return ""


def read_categories(root: Fields) -> tuple[str, ...]:
    """Read the categories."""
    categories = root.texts("categories", CATEGORIES_LIMIT)
    for path, category in categories.items():
        if not category.isascii() or not 0 < len(category) <= CATEGORY_CHARS:
            root.problems.add(path, f"A category is 1 to {CATEGORY_CHARS} ASCII characters.")
    if len(set(categories.values())) < len(categories):
        root.problem("categories", "Each category may be given once.")
    return tuple(categories.values())


def read_custom_args(fields: Fields, below: dict[str, str]) -> dict[str, str]:
    """Read custom_args; over those of the request (`below`) they have at most 10,000 bytes."""
    own = fields.text_map("custom_args", CUSTOM_ARGS_OCTETS)
    merged = {**below, **own} if own else own
    if sum(len(key.encode()) + len(value.encode()) for key, value in merged.items()) > CUSTOM_ARGS_OCTETS:
        fields.problem("custom_args", f"The custom_args of a message are at most {CUSTOM_ARGS_OCTETS} bytes.")
        return {}
    return own
