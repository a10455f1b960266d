"""The requests: plain JSON in, messages out, or what is wrong with its path. Pure.

null means absent. Tracking that is on and streams other than the vendor's own two are refused.
"""

import msgspec

from mta.content.compose import Attachment, Mailbox, Part
from mta.mail.address import AddressError
from mta.spool.records import MessageClass
from relay_http.fields import Fields, Problems, without_null
from relay_http.outgoing import NO_HEADERS, Outgoing
from relay_http.problem import Refusal
from relay_http.readers import read_file, read_line
from relay_http.values import is_content_id, mailboxes, wrong_header

RECIPIENTS_LIMIT = 50  # in each of To, Cc, Bcc and ReplyTo
TAG_CHARS = 1000
HEADERS_LIMIT = 100
FILES_LIMIT = 100
METADATA_LIMIT, METADATA_OCTETS = 50, 10_000
FILE = ("Name", "ContentType", "Content")
STREAMS = {"outbound": MessageClass.NORMAL, "broadcast": MessageClass.BULK}
_INLINE = "cid:"


def read_email(plain: object) -> Outgoing:
    """Read a message; Refusal 422."""
    problems = Problems()
    given = Fields.of(plain, "", problems)
    if given is None:
        raise Refusal(422, *problems.found)
    root = Fields(without_null(given.members), "", problems)
    sender = _sender(root)
    to, cc, bcc = (_boxes(root, name) for name in ("To", "Cc", "Bcc"))
    if not (to or cc or bcc or problems.found):
        root.problem("To", "Zero recipients specified.")
    _refuse_tracking(root)
    outgoing = Outgoing(
        sender=sender,
        to=to,
        cc=cc,
        bcc=bcc,
        reply_to=_boxes(root, "ReplyTo"),
        subject=read_line(root, "Subject"),
        headers=_headers(root),
        parts=_parts(root),
        attachments=_files(root),
        categories=_tag(root),
        custom_args=_metadata(root),
        message_class=_stream(root),
    )
    if problems.found:
        raise Refusal(422, *problems.found)
    return outgoing


def _sender(root: Fields) -> Mailbox:
    text = root.text("From")
    try:
        (sender,) = mailboxes(text or "")
    except ValueError:  # or several of them, of which one would have to be chosen
        root.problem("From", f"Invalid 'From' address: '{(text or '')[:320]}'.")
        return Mailbox("")
    return sender


def _boxes(root: Fields, name: str) -> tuple[Mailbox, ...]:
    text = root.text(name)
    if not text:
        return ()
    try:
        found = mailboxes(text)
    except AddressError as error:
        wrong = str(error).rpartition(": ")[2].rpartition("<")[2].rstrip("> ")
        root.problem(name, f"Invalid '{name}' address: '{wrong}'.")
        return ()
    if len(found) > RECIPIENTS_LIMIT:
        root.problem(name, f"At most {RECIPIENTS_LIMIT} addresses are allowed, {len(found)} are given.")
        return ()
    return tuple(found)


def _refuse_tracking(root: Fields) -> None:
    if root.flag("TrackOpens"):
        root.problem("TrackOpens", "Open tracking is not supported yet.")
    if (root.text("TrackLinks") or "None") != "None":
        root.problem("TrackLinks", "Link tracking is not supported yet.")


def _parts(root: Fields) -> tuple[Part, ...]:
    texts = (("text/plain", root.text("TextBody")), ("text/html", root.text("HtmlBody")))
    parts = tuple([Part(kind, text) for kind, text in texts if text])
    if not parts:
        root.problem("TextBody", "Provide either email TextBody or HtmlBody or both.")
    return parts


def _headers(root: Fields) -> dict[str, str]:
    headers: dict[str, str] = {}
    for each in root.objects("Headers", root.array("Headers", HEADERS_LIMIT)):
        name, value = each.text("Name"), _plain(each, "Value")
        if name is None or value is None:
            continue
        if wrong := wrong_header(name, value):
            each.problem("Name", wrong)
        elif name in headers:
            each.problem("Name", "A header may be given once.")
        headers[name] = value
    return headers or NO_HEADERS


def _metadata(root: Fields) -> dict[str, str]:
    fields = root.inner("Metadata")
    if fields is None or not fields.members:
        return NO_HEADERS
    if len(fields.members) > METADATA_LIMIT:
        root.problem("Metadata", f"At most {METADATA_LIMIT} fields are allowed, {len(fields.members)} are given.")
        return NO_HEADERS
    found = {name: _plain(fields, name) or "" for name in fields.members}
    if sum([len(name.encode()) + len(value.encode()) for name, value in found.items()]) > METADATA_OCTETS:
        root.problem("Metadata", f"The metadata of a message have at most {METADATA_OCTETS} bytes.")
    return found


def _plain(fields: Fields, name: str) -> str | None:
    """Read a text, or a number or truth value as JSON writes it: clients leave these as they are."""
    value = fields.members.get(name)
    return msgspec.json.encode(value).decode() if isinstance(value, int | float) else fields.text(name)


def _files(root: Fields) -> tuple[Attachment, ...]:
    read = map(_file, root.objects("Attachments", root.array("Attachments", FILES_LIMIT)))
    return tuple([each for each in read if each is not None])


def _file(given: Fields) -> Attachment | None:
    fields = Fields(without_null(given.members), given.path, given.problems)
    text = fields.text("ContentID") or ""
    content_id = text.removeprefix(_INLINE)
    if text and not is_content_id(content_id):
        fields.problem("ContentID", "A Content-ID is 1 to 255 printable ASCII characters without spaces, < and >.")
    file = read_file(fields, FILE)
    if file is None or not text:
        return file
    return msgspec.structs.replace(file, content_id=content_id, inline=text.startswith(_INLINE))


def _tag(root: Fields) -> tuple[str, ...]:
    tag = read_line(root, "Tag")
    if len(tag) > TAG_CHARS:
        root.problem("Tag", f"A tag is at most {TAG_CHARS} characters.")
    return (tag,) if tag else ()


def _stream(root: Fields) -> MessageClass:
    text = root.text("MessageStream") or "outbound"
    if text not in STREAMS:
        root.problem("MessageStream", f"There are the streams {' and '.join(STREAMS)}.")
    return STREAMS.get(text, MessageClass.NORMAL)
