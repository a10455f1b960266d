"""Writes the views: takes events in the order of the log, in groups, each in one transaction with its place in the log.

So a crash leaves the views as they were at some place in the log, and they go on from there: nothing is missed or
taken twice. Blocking; use it from one thread.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import msgspec

from mta.events.segments import LoggedEvent
from mta.events.views import terms
from mta.events.views.schema import BLOCK_BITS, SEVERAL
from mta.events.views.standing import QUEUED, SCHEDULED, TYPE_CODES, Standing, decode_standing
from mta.mail.event import Event, EventType
from mta.mail.summary import decoded

_RECIPIENTS_KNOWN = 50_000  # of messages that wait, kept in memory from group to group
_UNKNOWN = 0  # the number of a message whose `accepted` event the log has no more

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Event).decode


class _New(NamedTuple):
    """A message that a group of events begins."""

    standing: Standing
    at: float


class _Rows:
    """What a group of events writes."""

    def __init__(self) -> None:
        self.new: dict[int, _New] = {}
        self.changed: dict[int, Standing] = {}
        self.terms: list[tuple[int, str]] = []
        self.events: list[tuple[int, int, int, int, int, int, float, bytes]] = []
        self.blocks: dict[int, tuple[float, float]] = {}


class Builder:
    """Has a build open for writing. After an exception the group was not taken in; close it when it was SQLite's."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection
        self.seq, self.position, complete = connection.execute(
            "SELECT seq, position, complete FROM progress"
        ).fetchone()
        self.complete = bool(complete)
        self._scopes: dict[tuple[str, str], int] = {
            (tenant, dialect): number for number, tenant, dialect in connection.execute("SELECT * FROM scope")
        }
        self._known: dict[str, Standing] = {}
        self._weight = 0  # recipients in `_known`

    def take(self, events: Sequence[LoggedEvent], *, complete: bool) -> None:
        """Take in the events that follow; the build is `complete` when they reach the end of the log."""
        if not events and complete == self.complete:
            return
        try:
            self._take(events, complete=complete, again=False)
        except sqlite3.IntegrityError:
            # A spool that was restored from a copy tells some messages a second time.
            self._take(events, complete=complete, again=True)

    def release(self, now: float) -> None:
        """Note that scheduled messages whose time has come are queued: no event says so."""
        due = "status = 0 AND release_at <= ?"
        if self._db.execute(f"SELECT 1 FROM message WHERE {due} LIMIT 1", (now,)).fetchone():  # noqa: S608 - our words
            self._db.execute(f"UPDATE message SET status = ? WHERE {due}", (QUEUED, now))  # noqa: S608
            self._forget_known()

    def drop(self, first: int, limit: int) -> bool:
        """Remove up to `limit` events numbered below `first`, and their messages; tell whether there are more."""
        found = self._db.execute(
            "SELECT e.seq, m.scope, e.data FROM event e LEFT JOIN message m ON m.seq = e.seq"
            " WHERE e.seq < ? ORDER BY e.seq LIMIT ?",
            (first, limit),
        ).fetchall()
        if not found:
            return False
        below = found[-1][0] + 1
        indexed = [(seq, terms.text_of(_decode(data), scope)) for seq, scope, data in found if scope is not None]
        db = self._db
        with _transaction(db):
            db.executemany("INSERT INTO term(term, rowid, text) VALUES ('delete', ?, ?)", indexed)
            db.execute("DELETE FROM message WHERE seq < ?", (below,))
            db.execute("DELETE FROM event WHERE seq < ?", (below,))
            db.execute("DELETE FROM block WHERE id < ?", (below >> BLOCK_BITS,))
        self._forget_known()
        return len(found) == limit

    def close(self) -> None:
        """Give the file back."""
        self._db.close()

    def _take(self, events: Sequence[LoggedEvent], *, complete: bool, again: bool) -> None:
        rows = _Rows()
        try:
            with _transaction(self._db):
                for seq, _, event in events:
                    if event.type is not EventType.ACCEPTED:
                        self._told(rows, seq, event)
                    elif not again or self._message(event.message) is None:
                        self._accepted(rows, seq, event)
                self._write(rows)
                if events:
                    place = (events[-1].seq, events[-1].position, complete)
                else:
                    place = (self.seq, self.position, complete)
                self._db.execute("UPDATE progress SET seq = ?, position = ?, complete = ?", place)
        except BaseException:
            self._forget_known()  # they know what was not written
            self._scopes = {}
            raise
        self.seq, self.position, self.complete = place
        for each in (*(new.standing for new in rows.new.values()), *rows.changed.values()):
            if each.ended and each.id in self._known:
                self._weight -= self._known.pop(each.id).weight
        if self._weight > _RECIPIENTS_KNOWN:
            self._forget_known()

    def _accepted(self, rows: _Rows, seq: int, event: Event) -> None:
        summary = event.summary
        if summary is not None and not summary.dialect:
            event = msgspec.structs.replace(event, summary=decoded(summary))
        scope = self._scope(event.tenant, summary.dialect if summary is not None else "")
        standing = Standing(event.message, seq, scope, event.recipients, scheduled=event.release_at > event.at)
        standing.last_at, standing.release_at = event.at, event.release_at
        self._know(standing)
        rows.new[seq] = _New(standing, event.at)
        rows.terms.append((seq, terms.text_of(event, scope)))
        self._event(rows, seq, seq, scope, event)

    def _told(self, rows: _Rows, seq: int, event: Event) -> None:
        standing = self._message(event.message)
        if standing is None:
            self._event(rows, seq, _UNKNOWN, self._scope(event.tenant, ""), event)
            return
        standing.tell(event.type, event.recipient, seq)
        if event.type is EventType.CHANGED and event.release_at:
            standing.release_at, standing.scheduled = event.release_at, event.release_at > event.at
        standing.last_at = event.at
        if standing.seq not in rows.new:
            rows.changed[standing.seq] = standing
        self._event(rows, seq, standing.seq, standing.scope, event)

    def _event(self, rows: _Rows, seq: int, message: int, scope: int, event: Event) -> None:
        tenant, at = event.tenant, event.at
        domain = terms.domain_number(tenant, event.sender.rpartition("@")[2])
        several = event.recipients
        only = event.recipient or (several[0] if len(several) == 1 else "")
        recipient = terms.number_of(tenant, only) if only else SEVERAL
        rows.events.append((seq, message, scope, TYPE_CODES[event.type], domain, recipient, at, _encode(event)))
        earliest, latest = rows.blocks.get(seq >> BLOCK_BITS, (at, at))
        rows.blocks[seq >> BLOCK_BITS] = min(at, earliest), max(at, latest)

    def _write(self, rows: _Rows) -> None:
        db = self._db
        db.executemany(
            "INSERT INTO message VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (seq, each.id, each.scope, each.status, at, each.last_at, each.release_at, each.stored)
                for seq, (each, at) in rows.new.items()
            ],
        )
        db.executemany(
            "UPDATE message SET status = ?, last_at = ?, release_at = ?, standing = ? WHERE seq = ?",
            [(each.status, each.last_at, each.release_at, each.stored, seq) for seq, each in rows.changed.items()],
        )
        db.executemany("INSERT INTO event VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows.events)
        db.executemany("INSERT INTO term(rowid, text) VALUES (?, ?)", rows.terms)
        db.executemany(
            "INSERT INTO block VALUES (?1, ?2, ?3) ON CONFLICT (id) DO UPDATE"
            " SET earliest = min(earliest, ?2), latest = max(latest, ?3)",
            [(number, *times) for number, times in rows.blocks.items()],
        )

    def _scope(self, tenant: str, dialect: str) -> int:
        number = self._scopes.get((tenant, dialect))
        if number is None:
            values = (tenant, dialect)
            self._db.execute("INSERT OR IGNORE INTO scope(tenant, dialect) VALUES (?, ?)", values)
            found = self._db.execute("SELECT id FROM scope WHERE tenant = ? AND dialect = ?", values)
            number = self._scopes[values] = found.fetchone()[0]
        return number

    def _message(self, message_id: str) -> Standing | None:
        standing = self._known.get(message_id)
        if standing is not None:
            return standing
        row = self._db.execute(
            "SELECT m.seq, m.scope, m.status, m.release_at, m.standing, e.data FROM message m"
            " JOIN event e ON e.seq = m.seq WHERE m.id = ?",
            (message_id,),
        ).fetchone()
        if row is None:
            return None
        seq, scope, status, release_at, stored, data = row
        standing = Standing(message_id, seq, scope, _decode(data).recipients, scheduled=status == SCHEDULED)
        standing.told, standing.release_at = decode_standing(stored), release_at
        self._know(standing)
        return standing

    def _know(self, standing: Standing) -> None:
        self._known[standing.id] = standing
        self._weight += standing.weight

    def _forget_known(self) -> None:
        self._known.clear()
        self._weight = 0


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
