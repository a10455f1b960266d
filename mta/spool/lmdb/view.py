"""Reading inside one transaction: records opened and decoded, lanes and heads found by cursor.

A View lives as long as its transaction, which begins and ends without an await, so that it pins no pages.
"""

import logging
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar, cast

import lmdb
import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mta.mail.event import Event
from mta.spool.interface import Due
from mta.spool.lmdb.content import PAGE_OCTETS, page_count
from mta.spool.lmdb.environment import Table
from mta.spool.lmdb.keys import (
    ENTRY_BYTES,
    LANE_BYTES,
    TENANT_BYTES,
    content_key,
    entry_id_text,
    lane_key,
    milliseconds,
    seconds,
    timer_tenant,
)
from mta.spool.lmdb.log import decode_events
from mta.spool.records import Claim, Entry, KeptAnswer, Lane, Message
from mta.spool.sealing import Keyring, SealBroken, open_page

_decode_message = msgspec.msgpack.Decoder(Message).decode
_decode_entry = msgspec.msgpack.Decoder(Entry).decode
_decode_claim = msgspec.msgpack.Decoder(Claim).decode
_decode_kept = msgspec.msgpack.Decoder(KeptAnswer).decode
_decode_record = msgspec.msgpack.Decoder(tuple[str, bytes]).decode

_HINTS_LOOKED_AT = 256
_TIMERS_LOOKED_AT = 4096  # seconds of tenants: some milliseconds
_HINTS_PASSED = 8192  # of one tenant, by one look: those of lanes that it has found already, or that are empty
HINTS_MENDED = 500  # at a time: each is a record deleted and one put
_Decoded = TypeVar("_Decoded")

log = logging.getLogger(__name__)


class DueLanes(NamedTuple):
    """What a look at the hints found: lanes by tenant, hints to mend, rows of `due` whose entry cannot be read."""

    by_tenant: list[list[Lane]]
    stale: list[bytes]
    broken: list[bytes]


class TimerRows(NamedTuple):
    """What a look at the timers found: keys, and where the next look goes on, b"" after the last that has come."""

    rows: list[bytes]
    then: bytes


class View:
    """One read transaction over all tables."""

    def __init__(self, txn: lmdb.Transaction, tables: Mapping[Table, Any], keyring: Keyring) -> None:
        self._txn = txn
        self._tables = tables
        self._keyring = keyring

    def cursor(self, table: Table) -> lmdb.Cursor:
        """Begin at no key of a table."""
        return self._txn.cursor(self._tables[table])

    def get(self, table: Table, key: bytes) -> bytes | None:
        """Read a value."""
        return cast("bytes | None", self._txn.get(key, db=self._tables[table]))

    def record(self, table: Table, key: bytes) -> bytes | None:
        """Read a record in all its pieces and open its seal; SealBroken if it cannot be opened."""
        return record_of(self.get, self._keyring, table, key)

    def message(self, key: bytes) -> Message | None:
        """Read a message's record."""
        return message_of(self.get, self._keyring, key)

    def entry(self, key: bytes) -> Entry | None:
        """Read an entry."""
        return self._decoded(Table.ENTRIES, key, _decode_entry)

    def claim(self, key: bytes) -> Claim | None:
        """Read who works on an entry."""
        row = self.get(Table.CLAIMS, key)
        return None if row is None else _decode_claim(row)

    def events(self, key: bytes) -> list[Event]:
        """Read the events of one record, the last of which is the key's; none if there is no such record."""
        return self._decoded(Table.EVENTS, key, decode_events) or []

    def named(self, key: bytes) -> tuple[str, bytes] | None:
        """Read a named record with its name."""
        return self._decoded(Table.RECORDS, key, _decode_record)

    def kept(self, key: bytes) -> KeptAnswer | None:
        """Read an answer that is kept, past or not."""
        return kept_of(self.get, self._keyring, key)

    def due(self, key: bytes) -> Due | None:
        """Read an entry and its message."""
        entry, message = self.entry(key), self.message(key[:16])
        return Due(entry, message) if entry is not None and message is not None else None

    def _decoded(self, table: Table, key: bytes, decode: Callable[[bytes], _Decoded]) -> _Decoded | None:
        return _decoded(self.record(table, key), table, decode)

    def content(self, message: Message, wanted: int) -> bytes:
        """Read the first `wanted` octets of a message's content; SealBroken if a page is missing or changed."""
        found: list[bytes] = []
        have = 0
        for segment in message.segments:
            cipher = AESGCM(segment.key)
            for number in range(page_count(segment.size)):
                if have >= wanted:
                    break
                page = self.get(Table.CONTENT, content_key(segment.content, number))
                if page is None:
                    raise SealBroken(f"content of {message.id}: page {number} is missing")
                plain = open_page(cipher, number, page, segment.content)
                if len(plain) != min(PAGE_OCTETS, segment.size - number * PAGE_OCTETS):
                    raise SealBroken(f"content of {message.id}: page {number} was cut")
                found.append(plain)
                have += len(plain)
        return b"".join(found)[:wanted]

    def due_lanes(
        self,
        now: float,
        limit: int,
        known: dict[bytes, Lane],
        skip: Collection[Lane],
        but_of: Collection[bytes],
        after: Mapping[bytes, bytes],
    ) -> "DueLanes":
        """Find the lanes with due work, by tenant, from after its place on; and the rows that stand in the way.

        A hint needs mending when it is before its lane's head, or when it is not the lane's first.
        """
        until, by_tenant, stale, broken = seconds(now), list[list[Lane]](), list[bytes](), list[bytes]()
        hints, heads = self.cursor(Table.WAKE), self.cursor(Table.DUE)
        more = hints.first()
        while more:
            tenant = cursor_key(hints)[:TENANT_BYTES]
            lanes, passed = dict[bytes, Lane](), 0
            skipped = set[bytes]()
            more = tenant not in but_of and hints.set_range(after.get(tenant, tenant))
            while more and len(lanes) < limit and passed < _HINTS_PASSED:
                key = cursor_key(hints)
                if not key.startswith(tenant) or key[TENANT_BYTES:-LANE_BYTES] > until:
                    break
                lane = key[-LANE_BYTES:]
                if skip and known.get(lane) in skip:
                    if lane in skipped:  # not the lane's first
                        passed += 1
                        if len(stale) < HINTS_MENDED:
                            stale.append(key)
                    skipped.add(lane)
                    more = hints.next()
                    continue
                at = head_at(heads, lane)
                hinted_at = int.from_bytes(key[TENANT_BYTES:-LANE_BYTES], "big")
                if lane in lanes or at is None or at // 1000 > hinted_at:
                    passed += 1
                    if len(stale) < HINTS_MENDED:
                        stale.append(key)
                if at is not None and at <= int(now * 1000) and lane not in lanes:
                    try:
                        lanes[lane] = known.get(lane) or self._lane(heads, known)
                    except SealBroken as error:
                        log.error("entry=%s doing=quarantine error=%s", entry_id_text(_entry_of(heads)), error)
                        broken.append(cursor_key(heads))
                more = hints.next()
            if lanes:
                by_tenant.append(list(lanes.values()))
            more = hints.set_range(tenant + b"\xff" * (8 + LANE_BYTES))
        return DueLanes(by_tenant, stale, broken)

    def _lane(self, at: lmdb.Cursor, known: dict[bytes, Lane]) -> Lane:
        entry = self.entry(_entry_of(at))
        if entry is None:
            raise SealBroken("entries: the record is missing")
        if len(known) > 65_536:
            known.clear()
        known[cursor_key(at)[:LANE_BYTES]] = entry.lane
        return entry.lane

    def due_rows(self, lane: Lane, now: float, limit: int, skip: Collection[str]) -> list[bytes]:
        """Find the keys of a lane's due entries, in due order."""
        prefix, until, rows = lane_key(lane), milliseconds(now), list[bytes]()
        cursor = self.cursor(Table.DUE)
        more = cursor.set_range(prefix)
        while more and len(rows) < limit:
            key = cursor_key(cursor)
            if not key.startswith(prefix) or key[LANE_BYTES:-ENTRY_BYTES] > until:
                break
            if entry_id_text(key[-ENTRY_BYTES:]) not in skip:
                rows.append(key)
            more = cursor.next()
        return rows

    def rows_before(self, row: bytes, limit: int) -> int:
        """Count the rows of a lane before one of `due`, whether that is there or not; `limit` at most."""
        cursor = self.cursor(Table.DUE)
        count, more = 0, cursor.set_range(row[:LANE_BYTES])
        while more and count < limit and cursor_key(cursor) < row:
            count += 1
            more = cursor.next()
        return count

    def timer_rows(
        self, now: float, limit: int, skip: Collection[str], after: bytes = b"", begin: bytes = b""
    ) -> TimerRows:
        """Find the keys of timers that have come, of entries nobody has claimed: tenants in turn, the earliest first.

        The turn is that of the tenant `after` this key. A tenant's timers of one second are together, so that one step
        passes over a million. It makes a bounded number of steps, from `begin` on.
        """
        until, cursor = seconds(now), self.cursor(Table.TIMERS)
        waiting: dict[bytes, list[bytes]] = {}  # by tenant, the beginnings of the keys of each second, in order
        more, looked_at, then = cursor.set_range(begin), 0, b""
        while more and cursor_key(cursor)[:8] <= until:
            together = cursor_key(cursor)[: 8 + TENANT_BYTES]
            if looked_at == _TIMERS_LOOKED_AT:
                then = together
                break
            waiting.setdefault(timer_tenant(together), []).append(together)
            more = cursor.set_range(together + b"\xff" * ENTRY_BYTES)
            looked_at += 1
        tenants = sorted(waiting)
        first = bisect_right(tenants, after)
        turns = deque([self._timers_of(waiting[each], skip) for each in tenants[first:] + tenants[:first]])
        rows: list[bytes] = []
        while turns and len(rows) < limit:
            row = next(turns[0], None)
            if row is None:
                turns.popleft()
            else:
                rows.append(row)
                turns.rotate(-1)
        return TimerRows(rows, then)

    def _timers_of(self, beginnings: list[bytes], skip: Collection[str]) -> Iterator[bytes]:
        cursor = self.cursor(Table.TIMERS)
        for each in beginnings:
            more = cursor.set_range(each)
            while more and cursor_key(cursor).startswith(each):
                key = cursor_key(cursor)
                entry = key[-ENTRY_BYTES:]
                if not (skip and entry_id_text(entry) in skip) and self.get(Table.CLAIMS, entry) is None:
                    yield key
                more = cursor.next()

    def next_due_after(self, after: float) -> float | None:
        """Find the first due time after `after`, or a time before it: among the hints of a tenant, the first few."""
        first: int | None = None
        hints, heads = self.cursor(Table.WAKE), self.cursor(Table.DUE)
        more = hints.first()
        while more:
            tenant = cursor_key(hints)[:TENANT_BYTES]
            more = hints.set_range(tenant + seconds(after))
            for _ in range(_HINTS_LOOKED_AT):
                if not more or not cursor_key(hints).startswith(tenant):
                    break
                at = head_at(heads, cursor_key(hints)[-LANE_BYTES:])
                if at is not None and at > int(after * 1000):
                    first = at if first is None else min(first, at)
                    break
                more = hints.next()
            more = hints.set_range(tenant + b"\xff" * (8 + LANE_BYTES))
        return None if first is None else first / 1000

    def next_timer_after(self, after: float) -> float | None:
        """Find the first timer after `after`."""
        cursor = self.cursor(Table.TIMERS)
        if not cursor.set_range((int(after) + 1).to_bytes(8, "big")):
            return None
        return float(int.from_bytes(cursor_key(cursor)[:8], "big"))


def record_of(get: Callable[[Table, bytes], bytes | None], keyring: Keyring, table: Table, key: bytes) -> bytes | None:
    """Read a record in all its pieces, of which `get` gives each, and open its seal; SealBroken if that fails."""
    first = get(table, key + b"\x00")
    if first is None:
        return None
    if not first:
        raise SealBroken(f"{table}: the record has no octets")
    pieces = [first[1:]]
    pieces += [(get(table, key + bytes([number])) or b"")[1:] for number in range(1, first[0])]
    return keyring.open(table.value, b"".join(pieces), key)


def message_of(get: Callable[[Table, bytes], bytes | None], keyring: Keyring, key: bytes) -> Message | None:
    """Read a message's record; SealBroken if that fails."""
    return _decoded(record_of(get, keyring, Table.MESSAGES, key), Table.MESSAGES, _decode_message)


def kept_of(get: Callable[[Table, bytes], bytes | None], keyring: Keyring, key: bytes) -> KeptAnswer | None:
    """Read an answer that is kept, past or not; SealBroken if that fails."""
    return _decoded(record_of(get, keyring, Table.KEPT, key), Table.KEPT, _decode_kept)


def _decoded(plain: bytes | None, table: Table, decode: Callable[[bytes], _Decoded]) -> _Decoded | None:
    if plain is None:
        return None
    try:
        return decode(plain)
    except msgspec.DecodeError as error:  # written by a later version; FORMAT_VERSION should have said so
        raise SealBroken(f"{table}: not a record that this version reads: {error}") from None


def cursor_key(cursor: lmdb.Cursor) -> bytes:
    """Tell where a cursor stands."""
    return cast("bytes", cursor.key())


def _entry_of(row: lmdb.Cursor) -> bytes:
    return cursor_key(row)[-ENTRY_BYTES:]


def head_at(heads: lmdb.Cursor, lane: bytes) -> int | None:
    """Put the cursor on a lane's head and return its due time in milliseconds; None if the lane is empty."""
    if not heads.set_range(lane):
        return None
    key = cursor_key(heads)
    return int.from_bytes(key[LANE_BYTES:-ENTRY_BYTES], "big") if key.startswith(lane) else None
