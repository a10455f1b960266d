"""The spool on LMDB: mta.spool.interface.Spool, reads on the loop, writes through the writer.

A read is a transaction that begins and ends without an await, so that it pins no pages; what may take
long (large content, walks over everything) is cut into bounded pieces. Records are opened and decoded
here; a record that fails its seal raises SealBroken, which the queue quarantines.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import cast

import lmdb

from mta.clock import Clock
from mta.companion import Household
from mta.mail.event import Event
from mta.spool.interface import (
    NO_PLACES,
    Acceptance,
    Backlog,
    Change,
    ContentWriter,
    Due,
    Kept,
    LanePlace,
    Settlement,
    Space,
    SpoolError,
    Taken,
    Terms,
    Throttled,
    Unavailable,
)
from mta.spool.lmdb.apart import ProcessWriter
from mta.spool.lmdb.arriving import LmdbContentWriter
from mta.spool.lmdb.commit import committer_at
from mta.spool.lmdb.counting import CountBacklog
from mta.spool.lmdb.environment import Environment, Place, Room, Table
from mta.spool.lmdb.following import Followed
from mta.spool.lmdb.keys import (
    ENTRY_BYTES,
    entry_id_key,
    entry_id_text,
    entry_keys,
    kept_key,
    kind_key,
    message_key,
    record_key,
    tenant_key,
    timer_keys,
    timer_tenant,
    wake_key,
)
from mta.spool.lmdb.log import log_key
from mta.spool.lmdb.operations import Accepting, AcceptingOn, Changing, Claiming, Settling, Wishing
from mta.spool.lmdb.tally import backlog_of, tenant_of
from mta.spool.lmdb.terms import kept_answer
from mta.spool.lmdb.upkeep import (
    ChangeRecord,
    Collect,
    DeleteRecord,
    DiscardEvents,
    MendHints,
    MendTimers,
    NextEpoch,
    PutRecord,
    Quarantine,
)
from mta.spool.lmdb.view import HINTS_MENDED, View, cursor_key
from mta.spool.lmdb.walk import Portion, walk
from mta.spool.lmdb.writer import ThreadWriter, Writer
from mta.spool.records import Claim, Entry, Lane, Message, Wish
from mta.spool.sealing import Keyring, SealBroken

log = logging.getLogger(__name__)

_IN_THREAD = 256 * 1024  # content above this is read off the loop
_WALK = 64  # entries read in one transaction of a walk, and in one turn of the loop: a few milliseconds
_KNOWN = 16_384  # named records, as many as tenants or keys that may be in use
_KNOWN_OCTETS = 1024  # of one of these


class LmdbSpool:
    """One process's hold on the environment."""

    def __init__(
        self,
        path: Path,
        keyring: Keyring,
        clock: Clock,
        *,
        map_size: int,
        reserve: str | int,
        sync: bool = True,
        apart: Household | None = None,
    ) -> None:
        """Open or create the spool; Unavailable with the reason when that fails.

        With `apart` a process of its own makes the changes: call from a running loop. `sync=False` is for the
        control of the durability tests, which must lose mail with it.
        """
        self._keyring = keyring
        self._clock = clock
        place = Place(str(path), map_size, reserve, sync)
        self._writer: Writer
        if apart is None:
            committer = committer_at(place, keyring)
            self._room = committer.room
            self._writer = ThreadWriter(committer, keyring)
        else:
            self._writer = ProcessWriter(place, keyring, apart)
            self._room = Room(self._writer.followed.current, lambda: True)
        self._lanes: dict[bytes, Lane] = {}
        self._names: dict[bytes, str] = {}  # of tenants
        self._timed = b""  # the tenant whose timer was read last
        self._timed_to = b""  # where the next look at timers goes on, b"": at the first
        self._known: dict[bytes, tuple[bytes, bytes]] = {}  # named records by key: the row as it is sealed, its value

    # Changes

    async def accept(self, acceptances: Sequence[Acceptance]) -> int:
        """Store all of the messages or none; return the log position of the last event."""
        return cast("int", await self._writer.perform(Accepting(tuple(acceptances))))

    async def accept_on(self, acceptances: Sequence[Acceptance], terms: Terms) -> Taken | Kept | Throttled:
        """Store all of the messages or none, if nothing is kept under the name and the rates have room."""
        return cast("Taken | Kept | Throttled", await self._writer.perform(AcceptingOn(tuple(acceptances), terms)))

    async def accept_each(
        self, acceptances: Sequence[Acceptance], terms: Sequence[Terms | None] = ()
    ) -> list[int | Kept | Throttled | SpoolError]:
        """Store messages independently: for each what `accept` returns or raises, or what its terms do not allow."""
        asked: list[asyncio.Future[int | Taken | Kept | Throttled] | SpoolError] = []
        for number, each in enumerate(acceptances):
            on = terms[number] if terms else None
            try:
                asked.append(self._writer.perform(Accepting((each,)) if on is None else AcceptingOn((each,), on)))
            except SpoolError as error:
                asked.append(error)
        results: list[int | Kept | Throttled | SpoolError] = []
        for future in asked:
            try:
                result = future if isinstance(future, SpoolError) else await future
            except SpoolError as error:
                result = error
            results.append(result.position if isinstance(result, Taken) else result)
        return results

    async def kept(self, name: str, now: float) -> Kept | None:
        """Tell what is kept under a name, None if nothing is."""
        with self._view() as view:
            found = kept_answer(view.get, self._keyring, kept_key(name))
        return None if found is None or found.until <= now else Kept(found.digest, found.value, found.position)

    def store_content(self) -> ContentWriter:
        """Begin content that is committed as it arrives."""
        return LmdbContentWriter(self._writer, self._clock.now())

    async def claim(self, entry: Entry, claim: Claim) -> bool:
        """Take an entry for an attempt; False if it changed, was claimed, is held or is gone."""
        return cast("bool", await self._writer.perform(Claiming(entry, claim)))

    async def wish(self, entry_id: str, claim: Claim, wish: Wish) -> bool:
        """Leave a wish with a claim; False if the claim is not the stored one."""
        return cast("bool", await self._writer.perform(Wishing(entry_id, claim, wish)))

    async def settle(self, settlement: Settlement) -> bool:
        """Store an attempt's outcome; False if the claim is not the stored one."""
        return cast("bool", await self._writer.perform(Settling(settlement)))

    async def change(self, change: Change) -> bool:
        """Change an entry nobody has claimed; False if it is claimed or not as before."""
        return cast("bool", await self._writer.perform(Changing(change)))

    async def next_epoch(self) -> int:
        """Make this caller the owner of deliveries."""
        return cast("int", await self._writer.perform(NextEpoch()))

    # The queue

    async def lanes(
        self,
        now: float,
        limit: int,
        skip: Collection[Lane] = (),
        but_of: Collection[str] = (),
        after: Mapping[str, LanePlace] = NO_PLACES,
    ) -> list[Lane]:
        """List lanes that have work due, tenants in turn; hints that turn out stale are put right first."""
        others = {tenant_key(each) for each in but_of}
        places = {tenant_key(each): wake_key(place.lane, place.due_at) + b"\0" for each, place in after.items()}
        while True:
            with self._view() as view:
                found = view.due_lanes(now, limit, self._lanes, skip, others, places)
            await self._quarantine(Table.DUE, found.broken)
            if found.stale:
                await self._writer.perform(MendHints(found.stale))
            if found.by_tenant or len(found.stale) < HINTS_MENDED:
                return _in_turn(found.by_tenant, limit)
            # nothing but hints of an older version's, with what is due behind them

    async def heads(self, lane: Lane, now: float, limit: int, skip: Collection[str]) -> list[Due]:
        """Read unclaimed entries of a lane due at `now`, in due order."""
        with self._view() as view:
            found, broken = _opened(view, view.due_rows(lane, now, limit, skip))
        await self._quarantine(Table.DUE, broken)
        return found

    async def ahead_of(self, entry: Entry, limit: int) -> int:
        """Count the entries that come before this one in its lane, `limit` at most."""
        with self._view() as view:
            return view.rows_before(entry_keys(entry).due, limit)

    async def next_due_at(self, after: float) -> float | None:
        """Return the first due time after `after`, or a time before it; None when nothing waits for one."""
        with self._view() as view:
            return view.next_due_after(after)

    async def timers(self, now: float, limit: int, skip: Collection[str] = ()) -> list[Due]:
        """Read unclaimed entries whose timer has come, tenants in turn, each's earliest first; strays are put right."""
        while True:
            with self._view() as view:
                rows = self._timer_rows(view, now, limit, skip)
                found, broken = _opened(view, rows)
            if rows:
                self._timed = timer_tenant(rows[-1])
            await self._quarantine(Table.TIMERS, broken)
            strays = set(rows).difference(broken, *[timer_keys(entry_keys(each.entry).timer) for each in found])
            if not strays:
                return found
            await self._writer.perform(MendTimers(list(strays)))

    def _timer_rows(self, view: View, now: float, limit: int, skip: Collection[str]) -> list[bytes]:
        """Look on from where the last look ended, around once until there are some."""
        around = not self._timed_to
        while True:
            rows, self._timed_to = view.timer_rows(now, limit, skip, self._timed, self._timed_to)
            if rows or (around and not self._timed_to):
                return rows
            around = around or not self._timed_to

    async def next_timer_at(self, after: float) -> float | None:
        """Return when the first timer after `after` comes; None when there is none."""
        with self._view() as view:
            return view.next_timer_after(after)

    async def claims(self) -> list[tuple[Due, Claim]]:
        """List what is in flight, for a restart."""
        with self._view() as view:
            keys = [cast("bytes", key) for key in view.cursor(Table.CLAIMS).iternext(values=False)]
            found, _ = _opened(view, keys)  # what cannot be read stays claimed, which is out of the way
            claims = [view.claim(entry_id_key(due.entry.id)) for due in found]
        return [(due, claim) for due, claim in zip(found, claims, strict=True) if claim is not None]

    async def _quarantine(self, table: Table, rows: list[bytes]) -> None:
        """Take rows whose records cannot be read out of the way, so that the others flow; the records stay."""
        if rows:
            await self._writer.perform(Quarantine(table, rows))

    # Reading what there is

    async def content(self, message: Message, limit: int | None = None) -> bytes:
        """Read a message's content, or its first `limit` octets; SpoolError if it fails its seal."""
        wanted = message.size if limit is None else min(limit, message.size)
        if wanted > _IN_THREAD:
            return await asyncio.to_thread(self._read_content, message, wanted)
        return self._read_content(message, wanted)

    def _read_content(self, message: Message, wanted: int) -> bytes:
        with self._view() as view:
            return view.content(message, wanted)

    async def message(self, message_id: str) -> Message | None:
        """Read a message's record."""
        with self._view() as view:
            return view.message(message_key(message_id))

    async def entry(self, entry_id: str) -> Entry | None:
        """Read an entry."""
        with self._view() as view:
            return view.entry(entry_id_key(entry_id))

    async def entries(self, message_id: str) -> list[tuple[Entry, Claim | None]]:
        """Read the entries of a message, with their claims."""
        return self._walk(message_key(message_id), message_key(message_id), 1 << 16)[0]

    def walk_entries(self, after: str = "") -> AsyncGenerator[tuple[Entry, Claim | None], None]:
        """Walk all entries, or those after an entry id, a bounded number at a time; not a snapshot."""
        return walk(lambda start: self._walk(start, b"", _WALK), entry_id_key(after) + b"\xff" if after else b"")

    def _walk(self, start: bytes, prefix: bytes, limit: int) -> Portion:
        found: list[tuple[Entry, Claim | None]] = []
        with self._view() as view:
            cursor = view.cursor(Table.ENTRIES)
            more = cursor.set_range(start)
            while more and cursor_key(cursor).startswith(prefix):
                key = cursor_key(cursor)[:ENTRY_BYTES]
                if len(found) == limit:
                    return found, key
                try:
                    entry = view.entry(key)
                except SealBroken as error:
                    log.error("entry=%s left-out=yes error=%s", entry_id_text(key), error)
                    entry = None
                if entry is not None:
                    found.append((entry, view.claim(key)))
                more = cursor.set_range(key + b"\xff")
        return found, None

    # What tenants have waiting

    async def backlogs(self) -> dict[str, Backlog]:
        """Tell what each tenant has waiting."""
        found: dict[str, Backlog] = {}
        with self._view() as view:
            for key, row in cast("Iterator[tuple[bytes, bytes]]", view.cursor(Table.BACKLOG)):
                name = self._names.get(key)
                if name is None:
                    try:
                        name = self._names[key] = tenant_of(row, self._keyring, key)
                    except SealBroken as error:
                        log.error("backlog=%s left-out=yes error=%s", key.hex(), error)
                        continue
                found[name] = backlog_of(row)
        return found

    async def count_backlog(self) -> bool:
        """Count a bounded part of what has not been counted; tell whether there is more."""
        return cast("bool", await self._writer.perform(CountBacklog()))

    # The log

    async def events_after(self, position: int, limit: int) -> list[tuple[int, Event]]:
        """Read the log's tail in commit order, after `position`."""
        found: list[tuple[int, Event]] = []
        with self._view() as view:
            cursor = view.cursor(Table.EVENTS)
            more = cursor.set_range(log_key(position + 1))
            while more and len(found) < limit:
                key = cursor_key(cursor)[:8]
                last = int.from_bytes(key, "big")
                try:
                    events = view.events(key)
                except SealBroken as error:  # it must not stop the log
                    log.error("events-up-to=%d left-out=yes error=%s", last, error)
                    events = []
                numbered = enumerate(events, start=last + 1 - len(events))
                found += [(number, event) for number, event in numbered if number > position]
                more = cursor.set_range(key + b"\xff")
        return found[:limit]

    async def discard_events(self, position: int) -> None:
        """Forget events up to `position`, at most 1,000 records a transaction."""
        more = True
        while more:
            more = await self._writer.perform(DiscardEvents(position))

    async def log_end(self) -> int:
        """Return the position of the last event, 0 before the first."""
        with self._view() as view:
            return int(view.get(Table.META, b"sequence") or b"0")

    # Named records

    async def get_record(self, kind: str, name: str) -> bytes | None:
        """Read a named record.

        PERF: keys and domains are asked for again with every message. The row is read each time, so that a change
        counts at once; it is opened when it is another one: each is sealed under a nonce of its own.
        """
        key = record_key(kind, name)
        with self._view() as view:
            row = view.get(Table.RECORDS, key + b"\x00")
            if row is None:
                return None
            known = self._known.get(key)
            if known is not None and known[0] == row:
                return known[1]
            found = view.named(key)
        if found is None:
            return None
        if row[:1] == b"\x01" and len(row) <= _KNOWN_OCTETS:  # it is in one piece, as nearly all are
            if len(self._known) >= _KNOWN:
                self._known.clear()
            self._known[key] = row, found[1]
        return found[1]

    async def put_record(self, kind: str, name: str, value: bytes, *, replace: bool) -> bool:
        """Store a named record; False if it exists and `replace` is not set."""
        return cast("bool", await self._writer.perform(PutRecord(kind, name, value, self._clock.now(), replace)))

    async def change_record(self, kind: str, name: str, before: bytes, after: bytes) -> bool:
        """Replace a named record that is still what was read; False if it is another one or gone."""
        changing = ChangeRecord(kind, name, before, after, self._clock.now())
        return cast("bool", await self._writer.perform(changing))

    async def delete_record(self, kind: str, name: str) -> bool:
        """Remove a named record; False if there was none."""
        return cast("bool", await self._writer.perform(DeleteRecord(kind, name)))

    async def list_records(self, kind: str) -> list[tuple[str, bytes]]:
        """Read all records of a kind, by name."""
        prefix, found = kind_key(kind), list[tuple[str, bytes]]()
        with self._view() as view:
            cursor = view.cursor(Table.RECORDS)
            more = cursor.set_range(prefix)
            while more and cursor_key(cursor).startswith(prefix):
                key = cursor_key(cursor)[:-1]
                record = view.named(key)
                if record is not None:
                    found.append(record)
                more = cursor.set_range(key + b"\xff")
        return sorted(found)

    # Room, health, end

    async def collect(self, now: float) -> int:
        """Remove a bounded amount of content that nothing refers to, and of what is past; return how much went.

        Readers that died are forgotten too, so that they pin no pages. With nothing left to remove, a spool that has
        been drained moves into a new file (decision 23).
        """
        self._writer.followed.environment.env.reader_check()
        return cast("int", await self._writer.perform(Collect(now)))

    def space(self) -> Space:
        """Tell the room that is left, at most a second old."""
        return self._room.space()

    def healthy(self) -> bool:
        """Tell whether this process can commit."""
        return not self._writer.sick

    async def close(self) -> None:
        """Finish what was begun, then close."""
        await self._writer.close()

    def _view(self) -> "_Reading":
        return _Reading(self._writer.followed, self._keyring)


class _Reading:
    """A View for a block; Unavailable for what LMDB says meanwhile."""

    def __init__(self, followed: Followed, keyring: Keyring) -> None:
        self._followed = followed
        self._keyring = keyring
        self._environment: Environment | None = None  # which is closed when nobody reads from it
        self._txn: lmdb.Transaction | None = None

    def __enter__(self) -> View:
        try:
            self._environment, self._txn = self._followed.begin()
        except lmdb.Error as error:
            raise Unavailable(f"spool: {error}") from None
        return View(self._txn, self._environment.tables, self._keyring)

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        if self._txn is not None:
            self._txn.abort()
        if isinstance(error, lmdb.Error):
            raise Unavailable(f"spool: {error}") from None


def _opened(view: View, rows: list[bytes]) -> tuple[list[Due], list[bytes]]:
    """Read what rows that end with an entry's key stand for, and name the rows that cannot be read."""
    found: list[Due] = []
    broken: list[bytes] = []
    for row in rows:
        try:
            due = view.due(row[-ENTRY_BYTES:])
        except SealBroken as error:
            log.error("entry=%s cannot-be-read error=%s", entry_id_text(row[-ENTRY_BYTES:]), error)
            due = None
        if due is None:
            broken.append(row)
        else:
            found.append(due)
    return found, broken


def _in_turn(by_tenant: list[list[Lane]], limit: int) -> list[Lane]:
    found: list[Lane] = []
    depth = 0
    while len(found) < limit:
        row = [lanes[depth] for lanes in by_tenant if depth < len(lanes)]
        if not row:
            break
        found += row
        depth += 1
    return found[:limit]
