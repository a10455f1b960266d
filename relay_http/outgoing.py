"""One message as a dialect wants it sent: what is left of a request when nothing of the vendor's is."""

import msgspec

from mta.content.compose import Attachment, Mailbox, Part
from mta.mail.summary import FILES_SHOWN, SHOWN_CHARS, SUBJECT_CHARS, FileShown, Summary
from mta.spool.records import MessageClass

NO_HEADERS: dict[str, str] = {}


class Outgoing(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One message. What is the same object in several of a request (`parts`, `attachments`) is written and stored once.

    Written for a digest it is without what nobody asked for, so that a new field changes none.

    Addresses have passed mta.mail.address with their domains in ASCII; nothing has CR, LF or NUL where a header or a
    command could be ended. `raw` is a whole message (header and body) that is sent as it is, but for trace and what it
    lacks of Date and Message-ID, instead of all that a header is made of; `files` are what lists show of those in it.
    `release_at` and `deliver_by` are absolute seconds, 0 for none; a `release_at` that has passed means now.
    `envelope_sender` is MAIL FROM where it is not the sender's address. `deliver_within` is in seconds from the release
    on, for those who ask for it so: asked again later it is the same. `retry_intervals` and `lifetime` are as a
    Submission has them, and `tls_required` as the envelope.
    """

    sender: Mailbox
    to: tuple[Mailbox, ...]
    cc: tuple[Mailbox, ...] = ()
    bcc: tuple[Mailbox, ...] = ()
    reply_to: tuple[Mailbox, ...] = ()
    subject: str = ""
    headers: dict[str, str] = NO_HEADERS
    parts: tuple[Part, ...] = ()
    attachments: tuple[Attachment, ...] = ()
    raw: bytes = b""
    files: tuple[FileShown, ...] = ()
    categories: tuple[str, ...] = ()
    custom_args: dict[str, str] = NO_HEADERS
    message_class: MessageClass = MessageClass.NORMAL
    release_at: float = 0.0
    deliver_by: float = 0.0
    deliver_within: float = 0.0
    retry_intervals: tuple[float, ...] = ()
    lifetime: float = 0.0
    batch: str = ""
    tls_required: str = ""
    envelope_sender: str | None = None

    @property
    def recipients(self) -> tuple[Mailbox, ...]:
        """Whom the envelope names: an address that stands in several places gets one copy."""
        if not self.cc and not self.bcc and len(self.to) == 1:
            return self.to
        found = {each.address: each for each in (*self.to, *self.cc, *self.bcc)}
        return tuple(found.values())


def summary_of(outgoing: Outgoing, dialect: str, key: str) -> Summary:
    """Say what lists show of a message."""
    files = outgoing.files
    if outgoing.attachments:
        files = tuple([_file(each) for each in outgoing.attachments[:FILES_SHOWN]])
    return Summary(
        subject=outgoing.subject[:SUBJECT_CHARS],
        from_=_shown(outgoing.sender)[:SHOWN_CHARS],
        to=", ".join([_shown(each) for each in outgoing.to[:8]])[:SHOWN_CHARS],
        dialect=dialect,
        key=key,
        files=files,
    )


def _shown(mailbox: Mailbox) -> str:
    return f"{mailbox.name} <{mailbox.address}>" if mailbox.name else mailbox.address


def _file(file: Attachment) -> FileShown:
    size = decoded_octets(file.encoded)
    return FileShown(file.filename[:SUBJECT_CHARS], file.media_type[:SUBJECT_CHARS], size, file.inline)


def decoded_octets(encoded: str) -> int:
    """Tell how many octets base64 stands for."""
    return len(encoded) * 3 // 4 - encoded[-2:].count("=")
