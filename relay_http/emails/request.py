"""The request to send: plain JSON in, one message out, or every problem with its path. Pure.

false, null and empty mean absent, as the example of the document has it. What needs templates or tracking is refused.
"""

from collections.abc import Sequence

from mta.content.compose import Attachment, Mailbox
from relay_http.fields import Fields, Problems, without_empty
from relay_http.outgoing import Outgoing, decoded_octets
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

RECIPIENTS_LIMIT = 1000
REPLY_TO_LIMIT = 100
FILES_LIMIT = 5
FILES_OCTETS = 5 << 20  # decoded, together
FILE = ("filename", "content_type", "content_b64")
_NO_TEMPLATES = "Templates are not supported yet: give subject and html or text."
_NOT_YET = {
    "template_id": _NO_TEMPLATES,
    "template_vars": _NO_TEMPLATES,
    "domain_id": "There is no domain with this id: leave it out, the domain is that of from_.",
}
_FLAGS_NOT_YET = {
    "track_opens": "Open tracking is not supported yet.",
    "track_clicks": "Click tracking is not supported yet.",
    "enable_unsubscribe": "Unsubscribe links are not supported yet.",
}
_RECIPIENTS = ("to", "cc", "bcc")
_REQUIRED = ("from_", "to", "subject")
KNOWN = frozenset(
    (*_REQUIRED, *_RECIPIENTS, "html", "text", "reply_to", "scheduled_at", "attachments", *_NOT_YET, *_FLAGS_NOT_YET)
)


def read_email(plain: object, now: float) -> Outgoing:
    """Read a request; Refusal 422 with all that is wrong. `now` is absolute seconds."""
    problems = Problems()
    root = Fields.of(plain, "", problems)
    outgoing = _email(Fields(without_empty(root.members), "", problems), now) if root is not None else None
    if problems.found or outgoing is None:
        raise Refusal(422, *problems.found)
    return outgoing


def _email(root: Fields, now: float) -> Outgoing | None:
    refuse_unknown(root, KNOWN)
    for name, said in _NOT_YET.items():
        if root.has(name):
            root.problem(name, said)
    for name, said in _FLAGS_NOT_YET.items():
        if root.flag(name):
            root.problem(name, said)
    for name in _REQUIRED:
        if not root.has(name):
            root.problem(name, "This field is required.")
    sender = read_address(root, "from_")
    to, cc, bcc = _recipients(root)
    outgoing = Outgoing(
        sender=sender or Mailbox(""),
        to=to,
        cc=cc,
        bcc=bcc,
        reply_to=read_addresses(root, "reply_to", REPLY_TO_LIMIT),
        subject=read_line(root, "subject"),
        parts=read_parts(root, "template_id"),
        attachments=_files(root),
        release_at=read_release(root, "scheduled_at", now),
    )
    return None if sender is None else outgoing


def _recipients(root: Fields) -> Sequence[tuple[Mailbox, ...]]:
    given = sum([len(each) for name in _RECIPIENTS if isinstance(each := root.members.get(name), list)])
    if given > RECIPIENTS_LIMIT:
        root.problem("to", f"At most {RECIPIENTS_LIMIT} recipients are allowed, {given} are given.")
        return (), (), ()
    return [read_addresses(root, name, RECIPIENTS_LIMIT) for name in _RECIPIENTS]


def _files(root: Fields) -> tuple[Attachment, ...]:
    given = root.objects("attachments", root.array("attachments", FILES_LIMIT))
    read = [read_file(Fields(without_empty(each.members), each.path, each.problems), FILE) for each in given]
    files = tuple([each for each in read if each is not None])
    if sum([decoded_octets(each.encoded) for each in files]) > FILES_OCTETS:
        root.problem("attachments", f"Attachments have at most {FILES_OCTETS} bytes together, decoded.")
    return files
