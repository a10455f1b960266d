"""A message between DATA and its answer: checked, given its trace, and handed to the queue.

Small content goes to the queue with the message; content that the session delivers in stretches is committed
as it comes, and the message then refers to it. The header block has to be complete in the first stretch.
"""

import logging
import math
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple, Protocol

import msgspec

from mta.accounts.tolls import tolls_of
from mta.certificate import OwnCertificate
from mta.clock import Clock
from mta.config import Limits
from mta.ingress import replies
from mta.ingress.access import Access, Identity
from mta.ingress.body import Budget
from mta.ingress.once import Likeness, likeness_of
from mta.ingress.questions import Accept
from mta.ingress.trace import Trace, received_field, repaired
from mta.mail import headers
from mta.mail.address import domain_of
from mta.mail.envelope import Envelope
from mta.mail.ids import new_message_id
from mta.mail.reply import Reply
from mta.mail.summary import NOTHING, of_header
from mta.mail.tls_required import FIELD, tls_required
from mta.queue.gate import type_refusal
from mta.queue.submission import Receipt, Submission
from mta.spool.interface import (
    ContentWriter,
    Full,
    Kept,
    Refused,
    Spool,
    SpoolError,
    Terms,
    Throttled,
    Uncertain,
)
from mta.spool.records import MessageClass, Origin, Segment

log = logging.getLogger(__name__)

_MESSAGE_ID_LIMIT = 512  # octets of a Message-ID worth remembering
_TLS_REQUIRED = FIELD.encode()


class Queue(Protocol):
    """The one door in, as mta.queue has it."""

    @property
    def refusal(self) -> type_refusal:
        """Tell why new mail of a tenant is refused just now."""

    async def accept_each(
        self, submissions: Sequence[Submission], terms: Sequence[Terms | None]
    ) -> Sequence[Receipt | Kept | Throttled | SpoolError]:
        """Take responsibility for each that can be stored on its terms: durable on return. For the others, why not."""


class Intake(msgspec.Struct, frozen=True):
    """What all sessions of the process share."""

    hostname: str
    limits: Limits
    queue: Queue
    spool: Spool
    access: Access
    clock: Clock
    budget: Budget
    tls: OwnCertificate


class Provenance(msgspec.Struct, frozen=True):
    """Where a message comes from: the session's id, the door, for whom, from whom and how, and by whose login."""

    session: str
    origin: Origin
    tenant: str
    client: str
    trace: Trace
    login: Identity | None = None


class Arrival:
    """One message on its way in. Its id stands in the trace field and in the reply. Once whole, it has its `terms`."""

    def __init__(self, intake: Intake, provenance: Provenance) -> None:
        self.id = new_message_id()
        self.terms: Terms | None = None
        self._intake = intake
        self._from = provenance
        self._writer: ContentWriter | None = None
        self._size = 0
        self._sign_domain = ""
        self._note = ""
        self._header_message_id = ""
        self._summary = NOTHING
        self._tls_required = ""
        self._likeness: Likeness | None = None

    async def store(self, envelope: Envelope, content: bytes) -> Reply | None:
        """Commit a stretch of content; the reply for the end of data if the message is refused."""
        try:
            if self._writer is None:
                if headers.header_length(content) == len(content):
                    return replies.HEADER_TOO_BIG
                opened = await self._open(envelope, content)
                if isinstance(opened, Reply):
                    return opened
                content = opened
                self._writer = self._intake.spool.store_content()
            elif self._likeness is not None:
                self._likeness.add(content)
            self._size += len(content)
            await self._writer.write(content)
        except SpoolError as error:
            failed = error
        else:
            return None
        return await self.failed(failed)

    async def complete(self, envelope: Envelope, content: bytes) -> Submission | Reply:
        """End the message with its last stretch; return what the queue is to take, or the reply that refuses it."""
        stored: tuple[Segment, ...] = ()
        try:
            if self._writer is None:
                opened = await self._open(envelope, content)
                if isinstance(opened, Reply):
                    return opened
                content = opened
            elif await self._has_ended():
                await self.abandon()
                return replies.LOGIN_ENDED
            elif self._likeness is not None:
                self._likeness.add(content)
            self._size += len(content)
            self.terms = await self._terms(envelope)
            if self._writer is not None:
                await self._writer.write(content)
                stored, content = (await self._writer.finish(),), b""
        except SpoolError as error:
            failed = error
        else:
            return self._submission(envelope, stored, content)
        return await self.failed(failed)

    def taken(self, envelope: Envelope) -> Reply:
        """Note that the message is durable; return the reply that says so."""
        log.info(
            "session=%s client=%s tenant=%s message=%s from=%a recipients=%d size=%d signed=%s%s",
            self._from.session,
            self._from.client,
            self._from.tenant,
            self.id,
            envelope.sender,
            len(envelope.recipients),
            self._size,
            self._sign_domain or "no",
            f" note={self._note!a}" if self._note else "",
        )
        return replies.queued_as(self.id)

    @property
    def sandboxed(self) -> bool:
        """Whether it is sent for a trial: answered as any other, and not delivered."""
        login = self._from.login
        return login is not None and login.sandbox

    async def let_go(self, envelope: Envelope) -> Reply:
        """Give up a message that is sent for a trial; return the reply that says so."""
        await self.abandon()
        log.info(
            "session=%s client=%s tenant=%s message=%s from=%a recipients=%d size=%d sandbox=yes",
            self._from.session,
            self._from.client,
            self._from.tenant,
            self.id,
            envelope.sender,
            len(envelope.recipients),
            self._size,
        )
        return replies.sandboxed_as(self.id)

    async def not_taken(self, result: Kept | Throttled | SpoolError) -> Reply:
        """Return the reply to a message that the queue has not stored."""
        if isinstance(result, Uncertain):
            self._writer = None  # the message may be stored, and refer to what was written
        if isinstance(result, SpoolError):
            return await self.failed(result)
        await self.abandon()
        if isinstance(result, Throttled):
            return replies.throttled(math.ceil(result.retry_after))
        first = result.value.decode("ascii")
        log.info(
            "session=%s client=%s tenant=%s message=%s taken=before",
            self._from.session,
            self._from.client,
            self._from.tenant,
            first,
        )
        return replies.queued_as(first)

    async def failed(self, error: SpoolError) -> Reply:
        """Give the message up, which was not stored; return the reply that says why."""
        await self.abandon()
        log.warning(
            "session=%s message=%s not stored: %s: %a", self._from.session, self.id, type(error).__name__, str(error)
        )
        if isinstance(error, Full):
            return replies.SPOOL_FULL
        return replies.SPOOL_REFUSED if isinstance(error, Refused) else replies.SPOOL_UNAVAILABLE

    async def abandon(self) -> None:
        """Give up what was stored. What cannot be given up now, the spool collects later."""
        writer, self._writer = self._writer, None
        if writer is not None:
            with suppress(SpoolError):
                await writer.abort()

    async def _open(self, envelope: Envelope, content: bytes) -> bytes | Reply:
        """Judge the header block, which `content` begins with, and return the content as it is to be kept."""
        length = headers.header_length(content)
        header, rest = content[:length], content[length:]
        if headers.count(header, b"received") > self._intake.limits.received:  # RFC 5321 6.3
            return replies.LOOP
        if await self._has_ended():
            return replies.LOGIN_ENDED
        self._likeness = likeness_of(self._from.login, header)
        if self._likeness is not None:
            self._likeness.add(content)
        submitted = self._from.origin is Origin.SUBMISSION
        refusal = await self._judge_sender(header) or (await self._judge_return_path(envelope) if submitted else None)
        if refusal is not None:
            return refusal
        asked = envelope.tls_required == "yes"
        self._tls_required = tls_required(headers.values(header, _TLS_REQUIRED), requiretls=asked)
        now = self._intake.clock.now()
        if submitted:
            header = repaired(header, self._intake.hostname, self.id, now)
        elif header and not headers.names(header):  # a body alone: our field must not be taken for its first line
            header = b"\r\n" + header
        message_id = headers.first(header, b"message-id") or b""
        if len(message_id) <= _MESSAGE_ID_LIMIT:
            self._header_message_id = message_id.decode("ascii", "replace")
        subject, from_, to = headers.firsts(header, b"subject", b"from", b"to")
        self._summary = of_header(subject, from_, to)
        return received_field(self._from.trace, self._intake.hostname, self.id, envelope, now) + header + rest

    async def _has_ended(self) -> bool:
        """Tell whether the login that the message comes by is not good any more."""
        login = self._from.login
        return login is not None and not await self._intake.access.good(login)

    async def _judge_sender(self, header: bytes) -> Reply | None:
        """Find out for which domain the message is signed (promise 9).

        A submission is refused if its From names another tenant's domain, or none: RFC 6409 6.1 leaves that to
        the site, and nobody could be held to such a message. A relay listener takes it unsigned.
        """
        submitted = self._from.origin is Origin.SUBMISSION
        try:
            domains = headers.from_domains(header)
        except headers.FromError as error:
            self._note = str(error)
            return Reply(554, "5.6.0", str(error)) if submitted else None
        # An encoded word is no domain (RFC 2047 5), but there are readers that would decode it to one.
        if submitted and (not domains or any("=?" in domain for domain in domains)):
            return replies.NO_FROM
        standing = await self._intake.access.standing(self._from.tenant, domains)
        if submitted and standing.foreign:
            return Reply(550, "5.7.1", f"From domain {standing.foreign[:100]!a} belongs to another account")
        self._note = standing.note
        self._sign_domain = "" if standing.foreign else standing.sign_domain
        return None

    async def _judge_return_path(self, envelope: Envelope) -> Reply | None:
        """Refuse a submission whose reports would go to another tenant: MAIL FROM is as much a claim as From."""
        if not envelope.sender:
            return None
        standing = await self._intake.access.standing(self._from.tenant, (domain_of(envelope.sender),))
        if not standing.foreign:
            return None
        return Reply(550, "5.7.1", f"MAIL FROM domain {standing.foreign[:100]!a} belongs to another account")

    async def _terms(self, envelope: Envelope) -> Terms | None:
        """Find out on what terms the message is taken: most have none."""
        login, tenant = self._from.login, self._from.tenant
        tenant_rate = await self._intake.access.rate(tenant)
        key, key_rate = ("", None) if login is None else (login.key, login.rate)
        if tenant_rate is None and key_rate is None and self._likeness is None:
            return None
        now = self._intake.clock.now()
        keep = None if self._likeness is None else self._likeness.keep(envelope, self.id, now)
        return Terms(now=now, keep=keep, tolls=tolls_of(key, key_rate, tenant, tenant_rate, 1))

    def _submission(self, envelope: Envelope, stored: tuple[Segment, ...], content: bytes) -> Submission:
        if envelope.tls_required != self._tls_required:
            envelope = msgspec.structs.replace(envelope, tls_required=self._tls_required)
        return Submission(
            id=self.id,
            tenant=self._from.tenant,
            envelope=envelope,
            origin=self._from.origin,
            content=content,
            stored=stored,
            sign_domain=self._sign_domain,
            header_message_id=self._header_message_id,
            client=self._from.client,
            note=self._note,
            message_class=_class_of(envelope.priority),
            summary=self._summary,
        )


def _class_of(priority: int) -> MessageClass:
    """Round a priority up to one that there is (RFC 6710 5): -1 is bulk, 0 normal, 9 high.

    Nobody is refused the higher ones: who may send at all is known to the operator, and competes with its tenant's own.
    """
    if priority == 0:
        return MessageClass.NORMAL
    return MessageClass.HIGH if priority > 0 else MessageClass.BULK


class Whole(NamedTuple):
    """A message that has come to its end: its arrival, and the last stretch with the envelope."""

    arrival: Arrival
    last: Accept

    async def complete(self) -> Submission | Reply | None:
        """Return what the queue is to take, the reply that refuses it, or None if that failed as nobody foresaw."""
        try:
            return await self.arrival.complete(self.last.envelope, self.last.content)
        except Exception:  # one message: others must not suffer from it
            log.exception("message=%s internal error", self.arrival.id)
            return None


async def accept_each(queue: Queue, messages: Sequence[Whole]) -> list[Reply | None]:
    """Hand messages to the queue together; return the reply to each, positive when it is durable, None as above.

    PERF: message by message, each step was cold again when the next one came to it.
    """
    completed = [await each.complete() for each in messages]
    submissions: list[Submission] = []
    terms: list[Terms | None] = []
    for each, found in zip(messages, completed, strict=True):
        if isinstance(found, Submission) and not each.arrival.sandboxed:
            submissions.append(found)
            terms.append(each.arrival.terms)
    results = iter(await queue.accept_each(submissions, terms) if submissions else ())
    answers: list[Reply | None] = []
    for (arrival, last), found in zip(messages, completed, strict=True):
        if not isinstance(found, Submission):
            answers.append(found)
        elif arrival.sandboxed:
            answers.append(await arrival.let_go(last.envelope))
        elif isinstance(result := next(results), Receipt):
            answers.append(arrival.taken(last.envelope))
        else:
            answers.append(await arrival.not_taken(result))
    return answers
