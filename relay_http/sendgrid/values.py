"""Single values of a mail/send request, read with their paths."""

from mta.content.compose import Attachment, Mailbox, Part
from mta.mail.address import AddressError
from relay_http.fields import Fields
from relay_http.values import (
    ADDRESS_CHARS,
    BREAKS,
    address,
    breaks,
    is_base64,
    is_content_id,
    media_type,
    wrong_header,
    wrong_name,
)

CUSTOM_ARGS_OCTETS = 10_000
HEADERS_LIMIT = 1000
CATEGORIES_LIMIT = 10
CATEGORY_CHARS = 255
REPLACEMENTS_LIMIT = 10_000
AHEAD = 72 * 3600  # seconds that mail can be scheduled in advance
BAD_ADDRESS = "Does not contain a valid address."
_OURS = frozenset(
    (
        "x-sg-id",
        "x-sg-eid",
        "received",
        "dkim-signature",
        "content-type",
        "content-transfer-encoding",
        "to",
        "from",
        "subject",
        "reply-to",
        "cc",
        "bcc",
    )
)


def read_mailbox(fields: Fields, missing: str, invalid: str) -> Mailbox | None:
    """Read `{email, name}`; the address gets its domain in ASCII."""
    name = fields.text("name")
    wrong = wrong_name(name) if name else ""
    if wrong:
        fields.problem("name", wrong)
        name = None
    email = fields.text("email")
    if not email:
        if email is not None:
            fields.problem("email", missing)
        return None
    if len(email) > ADDRESS_CHARS:
        fields.problem("email", f"The email address is longer than {ADDRESS_CHARS} characters.")
        return None
    try:
        found = address(email)
    except AddressError:
        fields.problem("email", invalid)
        return None
    return None if name is None else Mailbox(found, name)


def header_text(fields: Fields, name: str) -> str | None:
    """Read a string that goes into a header."""
    text = fields.text(name)
    if text and breaks(text):
        fields.problem(name, BREAKS)
        return None
    return text


def read_part(fields: Fields) -> Part | None:
    """Read `{type, value}`."""
    value = fields.text("value")
    if value == "":
        fields.problem("value", "The content value must be a string at least one character in length.")
    kind = _media_type(fields, but="charset")
    if kind == "":
        fields.problem("type", "The content type is required.")
    elif kind and kind.startswith(("multipart/", "message/")):
        fields.problem("type", "Multipart and message types cannot be content.")
        return None
    return Part(kind, value) if kind and value else None


def read_attachment(fields: Fields) -> Attachment | None:
    """Read `{content, filename, type, disposition, content_id}`. An empty filename means none."""
    content = fields.text("content")
    if content == "":
        fields.problem("content", "The attachment content is required.")
    elif content and not is_base64(content):
        fields.problem("content", "The attachment content must be base64 encoded.")
    filename = header_text(fields, "filename")
    if not fields.has("filename"):
        fields.problem("filename", "The attachment filename is required.")
    disposition = fields.text("disposition")
    if fields.has("disposition") and disposition not in (None, "inline", "attachment"):
        fields.problem("disposition", "The disposition of your attachment can be either 'inline' or 'attachment'.")
    content_id = (fields.text("content_id") or "").removeprefix("<").removesuffix(">")
    if content_id and not is_content_id(content_id):
        fields.problem("content_id", "The content_id is 1 to 255 printable ASCII characters without spaces, < and >.")
    kind = _media_type(fields, but="name")
    if content is None or filename is None or kind is None:
        return None
    return Attachment(
        encoded=content,
        media_type=kind or "application/octet-stream",
        filename=filename,
        content_id=content_id,
        inline=disposition == "inline",
    )


def _media_type(fields: Fields, *, but: str) -> str | None:
    """Read a media type with its parameters but the one that is ours to write."""
    text = fields.text("type")
    if not text:
        return text
    try:
        return media_type(text, but)
    except ValueError as error:
        fields.problem("type", str(error))
        return None


def read_headers(fields: Fields) -> dict[str, str]:
    """Read the caller's own header fields."""
    headers = fields.text_map("headers", HEADERS_LIMIT)
    for name, value in headers.items():
        wrong = wrong_header(name, value, _OURS)
        if wrong:
            fields.problem(f"headers.{name}", wrong)
    return headers


def read_categories(root: Fields) -> tuple[str, ...]:
    """Read the categories."""
    categories = root.texts("categories", CATEGORIES_LIMIT)
    for path, category in categories.items():
        if not category.isascii() or not 0 < len(category) <= CATEGORY_CHARS:
            root.problems.add(path, f"A category is 1 to {CATEGORY_CHARS} ASCII characters.")
    if len(set(categories.values())) < len(categories):
        root.problem("categories", "Each category may be given once.")
    return tuple(categories.values())


def read_custom_args(fields: Fields, below: dict[str, str], octets: int = 0) -> dict[str, str]:
    """Read custom_args; over those of the request (`below`, `octets` long) they have at most 10,000 bytes."""
    own = fields.text_map("custom_args", CUSTOM_ARGS_OCTETS)
    if not own:
        return own
    # not all of them merged: a thousand personalizations may be over the same
    hidden = {key: below[key] for key in own if key in below}
    if octets + text_octets(own) - text_octets(hidden) > CUSTOM_ARGS_OCTETS:
        fields.problem("custom_args", f"The custom_args of a message are at most {CUSTOM_ARGS_OCTETS} bytes.")
        return {}
    return own


def text_octets(texts: dict[str, str]) -> int:
    """Count the octets of names and texts."""
    return sum([len(key.encode()) + len(value.encode()) for key, value in texts.items()])


def read_replacements(fields: Fields, name: str, octets: int = 0) -> dict[str, str]:
    """Read what stands in place of keys: any texts, of at most so many octets together, 0 for any number."""
    found = fields.text_map(name, REPLACEMENTS_LIMIT)
    if "" in found:
        fields.problem(name, "A key is at least one character in length.")
    if octets and text_octets(found) > octets:
        fields.problem(name, f"The {name} of a message are at most {octets} bytes.")
        return {}
    return found


def read_send_at(fields: Fields, now: float) -> int | None:
    """Read when to send, in absolute seconds; None if it is not said. A time that has passed means now."""
    send_at = fields.integer("send_at")
    if send_at is not None and send_at > now + AHEAD:
        fields.problem("send_at", "The send_at cannot be more than 72 hours in advance: scheduling that is forbidden.")
        return None
    return None if send_at is None else max(0, send_at)
