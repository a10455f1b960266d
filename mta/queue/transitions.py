"""What becomes of an entry: pure functions from what happened to its next state and the events that tell it.

Each returns a Transition; the queue stores it in one transaction and accepts the DSNs it asks for in
the same one (promise 4).
"""

from collections.abc import Callable, Iterable

import msgspec

from mta.config import Retry
from mta.mail.dsn import DsnKind
from mta.mail.envelope import Notify, Recipient
from mta.mail.event import Event, EventType, event_id
from mta.mail.reply import Reply
from mta.mail.result import Outcome, Result, Verdict
from mta.queue.job import Job
from mta.queue.retry import retry_interval
from mta.spool.records import Entry, Hold, Message, RecipientState, State, Timer, Wish

EXPIRED_REPLY = Reply(550, "4.4.7", "delivery time expired")
OUT_OF_TIME_REPLY = Reply(550, "5.4.7", "delivery time expired")  # RFC 2852 4.1.3
DELAYED_REPLY = Reply(450, "4.4.7", "delivery is delayed")


class Reported(msgspec.Struct, frozen=True):
    """A recipient that a DSN has to tell of. `remote` says whether the reply was the next hop's own."""

    recipient: RecipientState
    reply: Reply
    remote: bool = True


class Transition(msgspec.Struct, frozen=True, kw_only=True):
    """An entry's next state, its events, and who is to be told of what by DSN."""

    after: Entry
    events: tuple[Event, ...] = ()
    reports: dict[DsnKind, tuple[Reported, ...]] = {}


class _Telling:
    """Makes the events of one entry: numbers run on from what was told before."""

    def __init__(self, message: Message, entry: Entry, at: float) -> None:
        self._message = message
        self._entry = entry
        self._at = at
        self.number = entry.events
        self.events: list[Event] = []

    def tell(self, kind: EventType, recipient: str, *, seen: Outcome | None = None, **fields: object) -> None:
        self.number += 1
        about = {} if seen is None else _attempt_fields(seen)
        event = Event(
            id=event_id(self._message.id, self._entry.number, self.number),
            type=kind,
            at=self._at,
            tenant=self._message.tenant,
            message=self._message.id,
            entry=self._entry.id,
            recipient=recipient,
            sender=self._message.sender,
            request=self._message.request,
            categories=self._message.categories,
            custom_args=self._message.custom_args,
            delay=max(0.0, self._at - self._message.accepted_at),
        )
        self.events.append(msgspec.structs.replace(event, **about, **fields))


def _attempt_fields(outcome: Outcome) -> dict[str, str]:
    return {
        "relay": outcome.relay,
        "source": outcome.source,
        "source_name": outcome.source_name,
        "tls": outcome.tls,
        "policy": outcome.policy,
        "signed": outcome.signed,
    }


_ENDS = {
    Verdict.DELIVERED: (State.DELIVERED, EventType.DELIVERED),
    Verdict.FAILED: (State.BOUNCED, EventType.BOUNCED),
    Verdict.DEFERRED: (State.QUEUED, EventType.DEFERRED),
}


def attempted(job: Job, outcome: Outcome, now: float, retry: Retry, random: Callable[[], float]) -> Transition:
    """Work out what an attempt came to, one event for each of the job's recipients."""
    entry = job.entry
    results = dict(zip(_waiting(entry), outcome.results, strict=True))
    steps = entry.steps + outcome.counted
    retry_at = now + retry_interval(retry, steps, random, outcome.retry_after, job.message.retry_intervals)
    telling = _Telling(job.message, entry, now)
    recipients: list[RecipientState] = []
    failed: list[Reported] = []
    relayed: list[Reported] = []
    for number, each in enumerate(entry.recipients):
        result = results.get(number)
        if result is None:
            recipients.append(each)
            continue
        state, kind = _ENDS[result.verdict]
        recipients.append(RecipientState(each.recipient, state))
        waits = {"retry_at": retry_at} if state is State.QUEUED else {}
        telling.tell(
            kind,
            each.recipient.address,
            seen=outcome,
            attempt=job.claim.attempt,
            reply=str(result.reply),
            status=result.reply.enhanced,
            reason=result.scope.value,
            **waits,
        )
        if state is State.BOUNCED and each.recipient.wants(Notify.FAILURE):
            failed.append(Reported(each, result.reply, result.remote))
        if state is State.DELIVERED and _tells_relayed(job.message, result, each.recipient, now):
            relayed.append(Reported(each, result.reply, result.remote))
    after = msgspec.structs.replace(
        entry,
        recipients=tuple(recipients),
        due_at=retry_at,
        attempts=job.claim.attempt,
        steps=steps,
        events=telling.number,
        last_attempt_at=now,
    )
    if not (outcome.broken_off and entry.last_reply):  # it tells less than the attempt before it
        last = _worst(outcome.results)
        after = msgspec.structs.replace(
            after,
            last_reply=str(last.reply)[:512] if last else "",
            last_relay=outcome.relay,
            again_at=outcome.relay if outcome.greylisted else "",
            again_from=outcome.source_name if outcome.greylisted else "",
        )
    return Transition(
        after=after,
        events=tuple(telling.events),
        reports=_asked({DsnKind.FAILED: failed, DsnKind.RELAYED: relayed}),
    )


def _tells_relayed(message: Message, result: Result, recipient: Recipient, now: float) -> bool:
    """Tell whether the sender hears that a next hop took it (RFC 3461 5.2.3, RFC 2852 4.1.4)."""
    if result.relayed and recipient.wants(Notify.SUCCESS):
        return True
    if recipient.notify == Notify.NEVER:
        return False
    untimed = message.by_mode.startswith("N") and not result.timed and now < message.deliver_by
    return untimed or message.by_mode.endswith("T")


def _waiting(entry: Entry) -> list[int]:
    """The waiting recipients by position: one address can stand there twice."""
    return [number for number, each in enumerate(entry.recipients) if each.state is State.QUEUED]


def _asked(reports: dict[DsnKind, list[Reported]]) -> dict[DsnKind, tuple[Reported, ...]]:
    return {kind: tuple(recipients) for kind, recipients in reports.items() if recipients}


def _worst(results: Iterable[Result]) -> Result | None:
    ranks = (Verdict.DEFERRED, Verdict.FAILED, Verdict.DELIVERED)
    return min(results, key=lambda each: ranks.index(each.verdict), default=None)


def expired(message: Message, entry: Entry, now: float) -> Transition:
    """End the waiting recipients: their time is over."""
    said = OUT_OF_TIME_REPLY if message.firm else EXPIRED_REPLY
    telling = _Telling(message, entry, now)
    failed: list[Reported] = []
    for each in entry.waiting:
        telling.tell(
            EventType.EXPIRED,
            each.recipient.address,
            attempt=entry.attempts,
            relay=entry.last_relay,
            reply=entry.last_reply,
            status=said.enhanced,
        )
        if each.recipient.wants(Notify.FAILURE):
            text = f"{said.text}; last reply: {entry.last_reply}" if entry.last_reply else said.text
            failed.append(Reported(each, said._replace(text=text), remote=False))
    return _ended(entry, State.EXPIRED, telling, _asked({DsnKind.EXPIRED: failed}))


def wished(message: Message, entry: Entry, wish: Wish, now: float) -> Transition:
    """Do what somebody wants of an entry that nobody has in hand. Nobody is told by DSN.

    An entry that is so already stays as it is, without events.
    """
    if wish.end is not None:
        return _put_an_end(message, entry, wish.end, wish.reason, now)
    held, hold = _held_after(entry, wish, now)
    after = msgspec.structs.replace(
        entry,
        held=held,
        hold=hold,
        relay=entry.relay if wish.relay is None else wish.relay,
        message_class=entry.message_class if wish.message_class is None else wish.message_class,
    )
    return _changed(message, entry, after, wish.reason, now)


def _held_after(entry: Entry, wish: Wish, now: float) -> tuple[bool, Hold | None]:
    """Tell whether an entry is held after a wish, and by whom: an operator takes over what a tenant holds."""
    by_operator = entry.held and (entry.hold is None or not entry.hold.by_tenant)
    if wish.held is None or (wish.by_tenant and by_operator):
        return entry.held, entry.hold
    if not wish.held:
        return False, None
    if entry.held and (by_operator or wish.by_tenant):
        return True, entry.hold
    return True, Hold(now, wish.reason, wish.by_tenant)


def wish_after(earlier: Wish | None, later: Wish) -> Wish:
    """Put a wish behind another: the later word counts, but nothing takes back an end, nor a tenant an operator's."""
    if earlier is None or later.end is not None:
        return later
    if earlier.end is not None:
        return earlier
    stays = later.held is None or (earlier.held is not None and later.by_tenant and not earlier.by_tenant)
    return msgspec.structs.replace(
        later,
        held=earlier.held if stays else later.held,
        by_tenant=earlier.by_tenant if stays else later.by_tenant,
        relay=earlier.relay if later.relay is None else later.relay,
        message_class=earlier.message_class if later.message_class is None else later.message_class,
    )


def fulfilled(message: Message, transition: Transition, wish: Wish, now: float) -> Transition:
    """Do what was wished of an entry while it was in flight, with those whom its attempt left waiting."""
    then = wished(message, transition.after, wish, now)
    return msgspec.structs.replace(transition, after=then.after, events=transition.events + then.events)


def due_now(message: Message, entry: Entry, now: float, reason: str) -> Transition:
    """Have the next attempt made now."""
    return _changed(message, entry, msgspec.structs.replace(entry, due_at=now), reason, now)


def rescheduled(message: Message, entry: Entry, at: float, reason: str, now: float) -> Transition:
    """Have the first attempt made at another time, never before `now`; what follows from the time moves with it.

    A deadline that the sender set stays. The events tell the new time as that of release.
    """
    at = max(at, now)
    later = at - entry.due_at
    expires_at = entry.expires_at + later
    if message.deliver_by and not message.by_mode.startswith("N"):
        expires_at = min(expires_at, message.deliver_by)
    timer_at = expires_at if entry.timer is Timer.EXPIRY else min(entry.timer_at + later, expires_at)
    after = msgspec.structs.replace(entry, due_at=at, expires_at=expires_at, timer_at=timer_at)
    telling = _Telling(message, entry, now)
    for each in entry.waiting:
        telling.tell(EventType.CHANGED, each.recipient.address, release_at=at, reason=f"rescheduled, {reason}")
    return Transition(after=msgspec.structs.replace(after, events=telling.number), events=tuple(telling.events))


def _changed(message: Message, entry: Entry, after: Entry, reason: str, now: float) -> Transition:
    """Tell the waiting recipients' next state, if it is another."""
    if after == entry:
        return Transition(after=entry)
    said = ", ".join(part for part in (_differences(entry, after), reason) if part)
    telling = _Telling(message, entry, now)
    for each in entry.waiting:
        telling.tell(EventType.CHANGED, each.recipient.address, attempt=entry.attempts, reason=said)
    return Transition(after=msgspec.structs.replace(after, events=telling.number), events=tuple(telling.events))


def _differences(before: Entry, after: Entry) -> str:
    words: list[str] = []
    if after.hold != before.hold or after.held is not before.held:
        words.append("held" if after.held else "released")
    if after.relay != before.relay:
        words.append(f"redirected to {after.relay}" if after.relay else "no longer redirected")
    if after.message_class is not before.message_class:
        words.append(f"class {after.message_class.name.lower()}")
    if after.due_at != before.due_at:
        words.append("due now")
    return ", ".join(words)


def _put_an_end(message: Message, entry: Entry, end: State, reason: str, now: float) -> Transition:
    kind = EventType.CANCELLED if end is State.CANCELLED else EventType.DROPPED
    telling = _Telling(message, entry, now)
    for each in entry.waiting:
        telling.tell(kind, each.recipient.address, attempt=entry.attempts, reason=reason)
    return _ended(entry, end, telling, {})


def _ended(entry: Entry, state: State, telling: _Telling, reports: dict[DsnKind, tuple[Reported, ...]]) -> Transition:
    recipients = tuple(
        RecipientState(each.recipient, state) if each.state is State.QUEUED else each for each in entry.recipients
    )
    after = msgspec.structs.replace(entry, recipients=recipients, events=telling.number)
    return Transition(after=after, events=tuple(telling.events), reports=reports)


def delay_noticed(entry: Entry) -> Transition:
    """Move on from the delay notice to the entry's end, naming those who want to be told (RFC 3461 4.1)."""
    delayed = [
        Reported(each, DELAYED_REPLY._replace(text=entry.last_reply or DELAYED_REPLY.text), remote=False)
        for each in entry.waiting
        if each.recipient.wants(Notify.DELAY)
    ]
    after = msgspec.structs.replace(entry, timer=Timer.EXPIRY, timer_at=entry.expires_at)
    return Transition(after=after, reports=_asked({DsnKind.DELAYED: delayed}))


def told(
    message: Message, transition: Transition, reported: tuple[Reported, ...], dsn_id: str, now: float
) -> Transition:
    """Add the dsn_sent events for recipients that the DSN message `dsn_id` tells of."""
    telling = _Telling(message, transition.after, now)
    for each in reported:
        telling.tell(EventType.DSN_SENT, each.recipient.recipient.address, dsn=dsn_id, status=each.reply.enhanced)
    return msgspec.structs.replace(
        transition,
        after=msgspec.structs.replace(transition.after, events=telling.number),
        events=transition.events + tuple(telling.events),
    )
