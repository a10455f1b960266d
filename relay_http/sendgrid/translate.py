"""A valid request into messages: one for each personalization, with an id, an envelope and octets of its own.

Pure. The MIME body is the same for all of them and written once; scalars of a personalization replace the
request's, maps are merged key by key.
"""

import msgspec

from mta.content.compose import Head, Mailbox, body, head
from mta.mail.envelope import Envelope, Notify, Recipient
from mta.mail.ids import new_message_id
from mta.mail.tls_required import FIELD, tls_required
from mta.queue.submission import Submission
from mta.spool.records import Origin
from relay_http.problem import Problem, Refusal
from relay_http.sendgrid.request import MailSend, Personalization

HEADS_LIMIT = 8_000_000  # octets: a request cannot multiply itself by its personalizations beyond this
_OURS = "mime-version"  # legal to give, and written anyway


class Sending(msgspec.Struct, frozen=True, kw_only=True):
    """What a message says that its request does not. `at` is absolute seconds."""

    tenant: str
    client: str
    sign_domain: str
    note: str
    hostname: str
    at: float


class Draft(msgspec.Struct, frozen=True):
    """A message to be: its content is `head` and the body it has in common with the request's others."""

    submission: Submission
    head: bytes


class Drafts(msgspec.Struct, frozen=True):
    """The messages of a request; the first one's id is the request's."""

    messages: tuple[Draft, ...]
    body: bytes

    @property
    def request(self) -> str:
        """The request's id."""
        return self.messages[0].submission.request


def translate(request: MailSend, sending: Sending) -> Drafts:
    """Write the messages of a request; Refusal 413 when their headers together are too large."""
    ids = [new_message_id() for _ in request.personalizations]
    drafts: list[Draft] = []
    octets = 0
    for message_id, each in zip(ids, request.personalizations, strict=True):
        draft = _draft(request, each, sending, message_id, ids[0])
        octets += len(draft.head)
        if octets > HEADS_LIMIT:
            raise Refusal(413, Problem("content too large"))
        drafts.append(draft)
    return Drafts(tuple(drafts), body(request.parts, request.attachments, ids[0]))


def _draft(request: MailSend, each: Personalization, sending: Sending, message_id: str, request_id: str) -> Draft:
    sender = each.sender or request.sender
    headers = _headers(request.headers, each.headers)
    given_id = next((value for name, value in headers.items() if name.lower() == "message-id"), "")
    recipients = (*each.to, *each.cc, *each.bcc)
    submission = Submission(
        id=message_id,
        tenant=sending.tenant,
        envelope=_envelope(sender, recipients, request.reply_to, headers),
        origin=Origin.HTTP,
        sign_domain=sending.sign_domain,
        header_message_id=given_id or f"<{message_id}@{sending.hostname}>",
        client=sending.client,
        request=request_id,
        categories=request.categories,
        custom_args={**request.custom_args, **each.custom_args},
        note=sending.note,
    )
    fields = Head(
        id=message_id,
        hostname=sending.hostname,
        date=sending.at,
        sender=sender,
        to=each.to,
        cc=each.cc,
        reply_to=request.reply_to,
        subject=each.subject or request.subject,
        headers=headers,
    )
    return Draft(submission, head(fields))


def _envelope(
    sender: Mailbox, recipients: tuple[Mailbox, ...], reply_to: tuple[Mailbox, ...], headers: dict[str, str]
) -> Envelope:
    # RFC 6531 3.1: domains are A-labels by now, so only a local part can need SMTPUTF8.
    utf8 = not all(each.address.isascii() for each in (sender, *recipients, *reply_to))
    return Envelope(
        sender=sender.address,
        # Failures of HTTP mail are told by events; a DSN only when asked for.
        recipients=tuple(Recipient(each.address, Notify.NEVER) for each in recipients),
        eight_bit=utf8,
        smtputf8=utf8,
        tls_required=tls_required([value.encode() for name, value in headers.items() if name.lower() == FIELD]),
    )


def _headers(below: dict[str, str], own: dict[str, str]) -> dict[str, str]:
    """Merge header fields by their names in any case; the personalization's win."""
    merged = {name.lower(): (name, value) for name, value in (*below.items(), *own.items())}
    merged.pop(_OURS, None)
    return dict(merged.values())
