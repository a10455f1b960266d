"""The octets of a request's messages: heads of their own, and what they have in common, written once. Pure."""

from collections.abc import Sequence

import msgspec

from mta.content.compose import Body, Head, Part, head, head_of_raw
from mta.mail.address import domain_of
from mta.mail.envelope import Envelope, Notify, Recipient
from mta.mail.ids import new_message_id
from mta.mail.tls_required import FIELD, tls_required
from mta.queue.submission import Submission
from mta.spool.records import Origin
from relay_http.outgoing import Outgoing, summary_of
from relay_http.problem import Problem, Refusal, Why

HEADS_LIMIT = 8_000_000  # octets: a request cannot multiply itself by its messages beyond this
TEXTS_LIMIT = 60_000_000  # octets of texts that are not the same for all
_MESSAGE_ID = "message-id"
_OURS = "mime-version"  # legal to give, and written anyway


class Named(msgspec.Struct, frozen=True):
    """A message to be: its id, its Message-ID with angle brackets, and what it is made of."""

    id: str
    message_id: str
    outgoing: Outgoing


class Sending(msgspec.Struct, frozen=True, kw_only=True):
    """What messages say that their request does not. `signing` is by From domain: for which it signs, or why for none.

    `at` is absolute seconds. With `one_message_id` all have the Message-ID of the first, but for those that were given
    another.
    """

    tenant: str
    key: str
    dialect: str
    client: str
    hostname: str
    at: float
    signing: dict[str, tuple[str, str]]
    one_message_id: bool


class Draft(msgspec.Struct, frozen=True):
    """A message without its content: a head of its own, and what it may have in common with others."""

    submission: Submission
    head: bytes
    lead: bytes
    rest: bytes

    @property
    def size(self) -> int:
        """Octets of content."""
        return len(self.head) + len(self.lead) + len(self.rest)


class Writing:
    """The octets of a request's messages, what they have in common made once."""

    def __init__(self, sending: Sending) -> None:
        self._sending = sending
        self._bodies: dict[tuple[int, str], Body] = {}
        self._leads: dict[tuple[int, int], bytes] = {}
        self._texts = 0  # octets of these

    def drafts(self, names: Sequence[Named]) -> list[Draft]:
        """Write all of them; Refusal 413 when what is each one's own is too large together."""
        request, heads = names[0].id, 0
        drafts: list[Draft] = []
        for each in names:
            draft = self._draft(each, request)
            heads += len(draft.head)
            if heads > HEADS_LIMIT or self._texts > TEXTS_LIMIT:
                raise Refusal(413, Problem("content too large"), why=Why.TOO_LARGE)
            drafts.append(draft)
        return drafts

    def _draft(self, named: Named, request: str) -> Draft:
        outgoing, sending = named.outgoing, self._sending
        signed = domain_of(outgoing.sender.address)
        sign_domain, note = sending.signing[signed]
        submission = Submission(
            id=named.id,
            tenant=sending.tenant,
            envelope=_envelope(outgoing, sending.at),
            origin=Origin.HTTP,
            message_class=outgoing.message_class,
            sign_domain=sign_domain,
            header_message_id=named.message_id,
            client=sending.client,
            request=request,
            categories=outgoing.categories,
            custom_args=outgoing.custom_args,
            note=note,
            batch=outgoing.batch,
            retry_intervals=outgoing.retry_intervals,
            lifetime=outgoing.lifetime,
            summary=summary_of(outgoing, sending.dialect, sending.key),
        )
        if outgoing.raw:
            return Draft(
                submission, head_of_raw(outgoing.raw, named.id, sending.hostname, sending.at), outgoing.raw, b""
            )
        headers = {name: value for name, value in outgoing.headers.items() if name.lower() != _OURS}
        if sending.one_message_id:
            headers = {name: value for name, value in headers.items() if name.lower() != _MESSAGE_ID}
            headers["Message-ID"] = named.message_id
        fields = Head(
            id=named.id,
            hostname=sending.hostname,
            date=sending.at,
            sender=outgoing.sender,
            to=outgoing.to,
            cc=outgoing.cc,
            reply_to=outgoing.reply_to,
            subject=outgoing.subject,
            headers=headers,
        )
        body = self._body(outgoing, request)
        return Draft(submission, head(fields), self._lead(outgoing.parts, body), body.rest)

    def _body(self, outgoing: Outgoing, request: str) -> Body:
        kinds = "\n".join([each.media_type for each in outgoing.parts])
        key = id(outgoing.attachments), kinds
        found = self._bodies.get(key)
        if found is None:
            found = self._bodies[key] = Body(outgoing.parts, outgoing.attachments, f"{request}{len(self._bodies)}")
        return found

    def _lead(self, parts: tuple[Part, ...], body: Body) -> bytes:
        key = id(parts), id(body)
        found = self._leads.get(key)
        if found is None:
            found = self._leads[key] = body.lead(parts)
            self._texts += len(found)
        return found


def named(messages: Sequence[Outgoing], hostname: str, *, one_message_id: bool) -> list[Named]:
    """Give messages their ids."""
    found: list[Named] = []
    shared = ""
    for each in messages:
        id_ = new_message_id()
        given = ""
        if each.headers:
            given = {name.lower(): value for name, value in each.headers.items()}.get(_MESSAGE_ID, "")
        message_id = given or shared or f"<{id_}@{hostname}>"
        if one_message_id and not shared:
            shared = message_id
        found.append(Named(id_, message_id, each))
    return found


def _envelope(outgoing: Outgoing, now: float) -> Envelope:
    recipients = outgoing.recipients
    sender = outgoing.sender.address if outgoing.envelope_sender is None else outgoing.envelope_sender
    # RFC 6531 3.1: domains are A-labels by now, so only a local part can need SMTPUTF8.
    mailboxes = (*recipients, outgoing.sender, *outgoing.reply_to)
    utf8 = not sender.isascii() or not all(each.address.isascii() for each in mailboxes)
    deliver_by = outgoing.deliver_by
    if outgoing.deliver_within:
        deliver_by = max(outgoing.release_at, now) + outgoing.deliver_within
    demanded = outgoing.tls_required
    if not demanded and outgoing.headers:
        demanded = tls_required([value.encode() for name, value in outgoing.headers.items() if name.lower() == FIELD])
    return Envelope(
        sender=sender,
        # Failures of HTTP mail are told by events; a DSN only when asked for.
        recipients=tuple([Recipient(each.address, Notify.NEVER) for each in recipients]),
        eight_bit=utf8 or not outgoing.raw.isascii(),
        smtputf8=utf8,
        tls_required=demanded,
        release_at=outgoing.release_at,
        deliver_by=deliver_by,
    )


def size_of(outgoing: Outgoing) -> int:
    """The characters that a message is made of, about: by what is its own and what is not."""
    texts = sum([len(each.text) for each in outgoing.parts])
    return len(outgoing.raw) + texts + sum([len(each.encoded) for each in outgoing.attachments])
