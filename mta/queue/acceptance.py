"""A submission as the spool stores it: records, entries and the event, made without I/O."""

import msgspec

from mta.mail.envelope import Notify, Recipient
from mta.mail.event import Event, EventType, event_id
from mta.queue.submission import Submission
from mta.spool.interface import Acceptance
from mta.spool.records import (
    RECIPIENTS_PER_ENTRY,
    Entry,
    Message,
    MessageClass,
    RecipientState,
    Timer,
)

_CLASS_NAMES = [each.name.lower() for each in MessageClass]


class Lifetimes(msgspec.Struct, frozen=True):
    """Seconds from release: until recipients expire, and until the sender is told of a delay."""

    expiry: float
    delay_notice: float


def acceptance(submission: Submission, now: float, lifetimes: Lifetimes) -> Acceptance:
    """Make what the spool stores of a submission: one entry for 50 recipients of one domain at most."""
    envelope = submission.envelope
    groups = _groups(envelope.recipients)
    release_at = max(now, envelope.release_at)
    expires_at = release_at + (submission.lifetime or lifetimes.expiry)
    if envelope.deliver_by and not envelope.by_mode.startswith("N"):
        expires_at = min(expires_at, envelope.deliver_by)  # RFC 2852 4: never later than without it
    message = Message(
        id=submission.id,
        tenant=submission.tenant,
        sender=envelope.sender,
        origin=submission.origin,
        message_class=submission.message_class,
        accepted_at=now,
        release_at=release_at,
        expires_at=expires_at,
        segments=submission.stored,
        entries=len(groups),
        eight_bit=envelope.eight_bit,
        smtputf8=envelope.smtputf8,
        ret=envelope.ret,
        envid=envelope.envid,
        sign_domain=submission.sign_domain,
        header_message_id=submission.header_message_id,
        request=submission.request,
        categories=submission.categories,
        custom_args=submission.custom_args,
        deliver_by=envelope.deliver_by,
        by_mode=envelope.by_mode,
        hold=envelope.hold,
        priority=envelope.priority,
        tls_required=envelope.tls_required,
        batch=submission.batch,
        retry_intervals=submission.retry_intervals,
    )
    entries = tuple(
        _entry(message, number, domain, recipients, lifetimes)
        for number, (domain, recipients) in enumerate(groups, start=1)
    )
    return Acceptance(
        message=message,
        entries=entries,
        events=(_accepted(submission, message, now),),
        content=submission.content,
        shared=submission.shared,
    )


def _groups(recipients: tuple[Recipient, ...]) -> list[tuple[str, tuple[Recipient, ...]]]:
    if len(recipients) == 1:
        return [(recipients[0].domain, recipients)]
    by_domain: dict[str, list[Recipient]] = {}
    for each in recipients:
        by_domain.setdefault(each.domain, []).append(each)
    return [
        (domain, tuple(several[first : first + RECIPIENTS_PER_ENTRY]))
        for domain, several in by_domain.items()
        for first in range(0, len(several), RECIPIENTS_PER_ENTRY)
    ]


def _entry(
    message: Message, number: int, domain: str, recipients: tuple[Recipient, ...], lifetimes: Lifetimes
) -> Entry:
    notice_at = message.release_at + lifetimes.delay_notice
    if message.by_mode.startswith("N") and message.deliver_by > message.accepted_at:
        notice_at = message.deliver_by  # RFC 2852 4.1.3; one that was over before is told of already
    tells_delay = (
        bool(message.sender) and notice_at < message.expires_at and any(each.wants(Notify.DELAY) for each in recipients)
    )
    return Entry(
        message=message.id,
        number=number,
        tenant=message.tenant,
        message_class=message.message_class,
        domain=domain,
        recipients=tuple(RecipientState(each) for each in recipients),
        due_at=message.release_at,
        expires_at=message.expires_at,
        timer_at=notice_at if tells_delay else message.expires_at,
        timer=Timer.DELAY_NOTICE if tells_delay else Timer.EXPIRY,
    )


def _accepted(submission: Submission, message: Message, now: float) -> Event:
    envelope = submission.envelope
    return Event(
        id=event_id(message.id, 0, 1),
        type=EventType.ACCEPTED,
        at=now,
        tenant=message.tenant,
        message=message.id,
        sender=message.sender,
        recipients=tuple(each.address for each in envelope.recipients),
        size=len(submission.content) + sum([each.size for each in (*submission.stored, *submission.shared)]),
        origin=message.origin,
        client=submission.client,
        message_class=_CLASS_NAMES[message.message_class],
        signed=submission.sign_domain,
        request=submission.request,
        categories=submission.categories,
        custom_args=submission.custom_args,
        note=submission.note,
        deliver_by=message.deliver_by,
        release_at=message.release_at if message.release_at > now else 0,
        priority=message.priority,
        tls_required=message.tls_required,
        message_id=submission.header_message_id,
        batch=submission.batch,
        summary=submission.summary,
    )
