"""What several dialects read in the same way: addresses as strings, header texts, files; each problem with its path."""

from mta.content.compose import Attachment, Mailbox, Part
from mta.mail.address import AddressError
from relay_http.fields import Fields
from relay_http.iso import read_time
from relay_http.values import BREAKS, breaks, is_base64, mailbox, media_type


def refuse_unknown(fields: Fields, known: frozenset[str]) -> None:
    """Note every member that nobody knows: what it would mean, nobody can do."""
    for name in fields.members.keys() - known:
        fields.problem(name, "This is not a field of the request.")


def read_address(fields: Fields, name: str) -> Mailbox | None:
    """Read `a@b` or `Name <a@b>`; None too when it is absent."""
    text = fields.text(name)
    return _address(fields, fields.at(name), text) if text else None


def read_addresses(fields: Fields, name: str, limit: int) -> tuple[Mailbox, ...]:
    """Read an array of addresses."""
    found = [_address(fields, path, text) for path, text in fields.texts(name, limit).items()]
    return tuple([each for each in found if each is not None])


def _address(fields: Fields, path: str, text: str) -> Mailbox | None:
    try:
        return mailbox(text)
    except AddressError:
        fields.problems.add(path, "This is not a valid email address.")
        return None


def read_line(fields: Fields, name: str) -> str:
    """Read a text that goes into a header."""
    text = fields.text(name) or ""
    if breaks(text):
        fields.problem(name, BREAKS)
        return ""
    return text


def read_parts(fields: Fields, instead: str) -> tuple[Part, ...]:
    """Read `text` and `html`, of which one is needed but with the member `instead`."""
    if not (fields.has("text") or fields.has("html") or fields.has(instead)):
        fields.problem("html", "Give html, text or both.")
    texts = (("text/plain", fields.text("text")), ("text/html", fields.text("html")))
    return tuple([Part(kind, text) for kind, text in texts if text])


def read_file(fields: Fields, names: tuple[str, str, str]) -> Attachment | None:
    """Read a file, whose name, media type and base64 are under `names` and all needed."""
    for name in names:
        if not fields.has(name):
            fields.problem(name, "This field is required.")
    filename, kind, encoded = read_line(fields, names[0]), fields.text(names[1]), fields.text(names[2])
    if encoded and not is_base64(encoded):
        fields.problem(names[2], "This is not base64.")
    try:
        described = media_type(kind or "application/octet-stream", "name")
    except ValueError as error:
        fields.problem(names[1], str(error))
        return None
    return Attachment(encoded=encoded, media_type=described, filename=filename) if encoded is not None else None


def read_release(fields: Fields, name: str, now: float) -> float:
    """Read when a message goes out, which is in the future; 0 when that is absent."""
    text = fields.text(name)
    if not text:
        return 0.0
    try:
        at = read_time(text)
    except ValueError:
        fields.problem(name, "This is not an ISO 8601 timestamp such as 2027-06-01T15:00:00Z.")
        return 0.0
    if at <= now:
        fields.problem(name, "This is not in the future: leave it out to send at once.")
    return at


def number_of(text: str, least: int, most: int) -> int | None:
    """Read a number in decimal digits; None if it is none, or out of bounds."""
    if text.isascii() and text.isdigit() and len(text) <= len(str(most)) and least <= int(text) <= most:
        return int(text)
    return None
