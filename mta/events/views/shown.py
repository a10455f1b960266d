"""Rows of the views as the values that dialects are given."""

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from mta.events.views.lists import among
from mta.events.views.standing import QUEUED, SCHEDULED, STATUSES, decode_standing
from mta.mail.event import Event
from mta.mail.summary import NOTHING
from mta.queue.views import EventShown, MessageShown, RecipientShown

RECIPIENTS_IN_LISTS = 50
"""Of a message with more recipients, lists tell their statuses and not what was said of each."""

_AT_ONCE = 500  # numbers in one question
_decode = msgspec.msgpack.Decoder(Event).decode


def messages_shown(
    db: sqlite3.Connection, numbers: Sequence[int], told_of: int = RECIPIENTS_IN_LISTS
) -> list[MessageShown]:
    """Show messages in the order of `numbers`; each event of recipients is read if a message has at most `told_of`."""
    rows: dict[int, tuple[int, float, float, list[int], Event]] = {}
    for seq, status, last_at, release_at, stored, data in _rows(
        db,
        "SELECT m.seq, m.status, m.last_at, m.release_at, m.standing, e.data FROM message m"
        " JOIN event e ON e.seq = m.seq WHERE",
        "m.seq",
        numbers,
    ):
        rows[seq] = status, last_at, release_at, decode_standing(stored), _decode(data)
    wanted = {
        number
        for *_, standing, _ in rows.values()
        if len(standing) <= 2 * told_of
        for number in standing[1::2]
        if number
    }
    told = events_of(db, wanted)
    return [_message(*rows[number], told) for number in numbers if number in rows]


def events_shown(db: sqlite3.Connection, numbers: Sequence[int]) -> tuple[EventShown, ...]:
    """Show events in the order of `numbers`, with their messages."""
    found = {
        seq: (message, _decode(data))
        for seq, message, data in _rows(db, "SELECT seq, message, data FROM event WHERE", "seq", numbers)
    }
    several = list(dict.fromkeys(message for message, _ in found.values()))
    messages = {each.id: each for each in messages_shown(db, several)}
    return tuple(EventShown(seq, found[seq][1], messages.get(found[seq][1].message)) for seq in numbers)


def events_of(db: sqlite3.Connection, numbers: Iterable[int]) -> dict[int, Event]:
    """Read events by their numbers."""
    rows = _rows(db, "SELECT seq, data FROM event WHERE", "seq", sorted(numbers))
    return {seq: _decode(data) for seq, data in rows}


def timeline_of(db: sqlite3.Connection, seq: int) -> list[tuple[int, Event]]:
    """List the events of a message in order; one that a restored spool told again, once."""
    rows = db.execute(
        "SELECT seq, data FROM event WHERE seq = ?1 UNION ALL"
        " SELECT seq, data FROM event WHERE message = ?1 AND message != seq ORDER BY seq",
        (seq,),
    )
    found: dict[str, tuple[int, Event]] = {}
    for number, data in rows:
        event = _decode(data)
        found.setdefault(event.id, (number, event))
    return list(found.values())


def _message(
    status: int, last_at: float, release_at: float, standing: list[int], accepted: Event, told: dict[int, Event]
) -> MessageShown:
    waits = SCHEDULED if status == SCHEDULED else QUEUED
    recipients = tuple(
        _recipient(address, waits if code == QUEUED else code, told.get(number), last_at if number else accepted.at)
        for address, code, number in zip(accepted.recipients, standing[::2], standing[1::2], strict=True)
    )
    return MessageShown(
        id=accepted.message,
        tenant=accepted.tenant,
        request=accepted.request,
        batch=accepted.batch,
        sender=accepted.sender,
        status=STATUSES[status],
        at=accepted.at,
        last_at=last_at,
        release_at=release_at or accepted.at,
        size=accepted.size,
        origin=accepted.origin,
        client=accepted.client,
        message_class=accepted.message_class,
        message_id=accepted.message_id,
        categories=accepted.categories,
        custom_args=accepted.custom_args,
        summary=accepted.summary or NOTHING,
        recipients=recipients,
        deliver_by=accepted.deliver_by,
    )


def _recipient(address: str, code: int, told: Event | None, at: float) -> RecipientShown:
    if told is None:
        return RecipientShown(address=address, status=STATUSES[code], at=at)
    return RecipientShown(
        address=address,
        status=STATUSES[code],
        at=told.at,
        attempts=told.attempt,
        reply=told.reply,
        relay=told.relay,
        retry_at=told.retry_at,
    )


def _rows(db: sqlite3.Connection, select: str, column: str, numbers: Sequence[int]) -> Iterable[tuple[Any, ...]]:
    for first in range(0, len(numbers), _AT_ONCE):
        some = among(column, numbers[first : first + _AT_ONCE])
        yield from db.execute(f"{select} {some.text}", some.values)
