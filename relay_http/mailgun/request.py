"""The vendor's send requests: a form in, typed fields out, or what is wrong with the first parameter that is.

The sentences that the vendor's users know are kept. What the API names and we do not do yet is refused, in its
disabled and empty forms accepted, never ignored; names that the API does not have are ignored, as the vendor does.
"""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from mimetypes import MimeTypes
from urllib.parse import quote

import msgspec

from mta.content.compose import Attachment, Mailbox, Part
from relay_http.forms import FormPart
from relay_http.mailgun.options import Options, read_options
from relay_http.mailgun.parameters import Parameters
from relay_http.mailgun.values import addresses, recipient_variables
from relay_http.problem import Problem, Refusal, Why, invalid
from relay_http.values import BREAKS, breaks, is_content_id, media_type

RECIPIENTS_LIMIT = 1000  # in one request, to, cc and bcc together
COPIES_LIMIT = 10_000  # that a batch comes to: cc and bcc get one of each message
MESSAGE_LIMIT = 25 << 20  # octets, encoded
_TEXTS = (("text", "text/plain"), ("amp-html", "text/x-amp-html"), ("html", "text/html"))
_UNSUBSCRIBE = ("%unsubscribe_url%", "%tag_unsubscribe_url%", "%mailing_list_unsubscribe_url%", "%unsubscribe_email%")
_types = MimeTypes(())  # of Python's own list: what a machine's has is no part of an answer


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """A valid request. With `variables`, by address, it is a batch: each of `to` gets a message of its own."""

    sender: Mailbox
    to: tuple[Mailbox, ...]
    cc: tuple[Mailbox, ...]
    bcc: tuple[Mailbox, ...]
    subject: str
    parts: tuple[Part, ...]
    attachments: tuple[Attachment, ...]
    options: Options
    variables: Mapping[str, Mapping[str, str]] | None


def read_letter(form: Sequence[FormPart], now: float) -> Letter:
    """Read a request to `messages`; Refusal 400 or 413. `now` is absolute seconds."""
    given = Parameters(form)
    sender = _sender(given)
    to = read_to(given)
    cc, bcc = (addresses(name, given.texts(name)) for name in ("cc", "bcc"))
    _count(len(to) + len(cc) + len(bcc))
    variables = recipient_variables(given.text("recipient-variables")) if given.has("recipient-variables") else None
    if variables is not None and len(to) * (1 + len(cc) + len(bcc)) > COPIES_LIMIT:
        raise invalid(f"Too many copies: cc and bcc get one for each of 'to', {COPIES_LIMIT} in all are allowed", "to")
    subject = given.text("subject")
    if breaks(subject):
        raise invalid(f"'subject' parameter: {BREAKS}", "subject")
    refuse_templates(given)
    parts = _texts(given)
    files = (*_files(given, "attachment"), *_files(given, "inline"))
    _weigh(parts, files)
    return Letter(
        sender=sender,
        to=to,
        cc=cc,
        bcc=bcc,
        subject=subject,
        parts=parts,
        attachments=files,
        options=read_options(given, now, batch=variables is not None),
        variables=variables,
    )


def read_to(given: Parameters) -> tuple[Mailbox, ...]:
    """Read whom a message is for."""
    found = addresses("to", given.texts("to"))
    if not found:
        raise invalid("to parameter is missing", "to")
    _count(len(found))
    return found


def refuse_templates(given: Parameters) -> None:
    """Refuse stored templates, which are not there yet."""
    for name in ("template", "t:version", "t:text", "t:variables"):
        if given.texts(name):
            raise invalid(f"'{name}' parameter is not supported yet", name)


def too_large() -> Refusal:
    """Refuse a message for its size."""
    return Refusal(413, Problem(f"Message is larger than {MESSAGE_LIMIT >> 20} MB"), why=Why.TOO_LARGE)


def _count(recipients: int) -> None:
    if recipients > RECIPIENTS_LIMIT:
        raise invalid(f"Too many recipients, max is {RECIPIENTS_LIMIT}", "to")


def _sender(given: Parameters) -> Mailbox:
    found = addresses("from", given.texts("from"))
    if not found:
        raise invalid("from parameter is missing", "from")
    if len(found) > 1:
        raise invalid("'from' parameter: several addresses are not supported yet", "from")
    return found[0]


def _texts(given: Parameters) -> tuple[Part, ...]:
    parts: list[Part] = []
    for name, kind in _TEXTS:
        text = given.text(name)
        named = next((each for each in _UNSUBSCRIBE if each in text), "") if "unsubscribe_" in text else ""
        if named:
            raise invalid(f"'{name}' parameter: {named} is not supported yet", name)
        if text:
            parts.append(Part(kind, text))
    if not parts:
        raise invalid("Need at least one of 'text' or 'html' parameters specified", "text")
    return tuple(parts)


def _files(given: Parameters, name: str) -> list[Attachment]:
    return [_file(each, inline=name == "inline") for each in given.parts(name) if each.filename or each.data]


def _file(part: FormPart, *, inline: bool) -> Attachment:
    filename = part.filename or ""
    if isinstance(part.data, bytes):  # out of an urlencoded form
        raise invalid(f"'{part.name}' parameter must be a file", part.name)
    if breaks(filename):
        raise invalid(f"'{part.name}' parameter: the file's name: {BREAKS}", part.name)
    given = part.media_type or _types.guess_type(filename)[0] or "application/octet-stream"
    try:
        kind = media_type(given, "name")
    except ValueError as error:
        raise invalid(f"'{part.name}' parameter: {error}", part.name) from None
    return Attachment(
        encoded=b64encode(part.data).decode("ascii"),
        media_type=kind,
        filename=filename,
        content_id=_content_id(filename) if inline else "",
        inline=inline,
    )


def _content_id(filename: str) -> str:
    """Name an inline file as html does: `cid:` and its name, which is escaped where it cannot stand (RFC 2392)."""
    found = filename if is_content_id(filename) else quote(filename, safe="!$&'()*+,;=:@/")
    if found and not is_content_id(found):
        raise invalid("'inline' parameter: the file's name is too long for a Content-ID", "inline")
    return found


def _weigh(parts: Sequence[Part], files: Sequence[Attachment]) -> None:
    if sum([len(each.text) for each in parts]) + sum([len(each.encoded) for each in files]) > MESSAGE_LIMIT:
        raise too_large()
