"""Looking after a spool: verify, backup, compact.

`verify` walks everything twice: the file's own structure, page by page, and what the tables say of each
other. It reads one snapshot, so it may run beside the relay; the pages that the relay frees meanwhile
come back into use when it ends. `backup` is a hot copy. `compact` needs the relay stopped.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import lmdb
import msgspec
from lmdb.verify import verify as verify_file

from mta.spool.disk import sync_to_disk
from mta.spool.interface import Backlog, SpoolError, Unavailable
from mta.spool.lmdb.content import page_count, read_loose, read_users
from mta.spool.lmdb.environment import Environment, Table
from mta.spool.lmdb.following import Followed
from mta.spool.lmdb.keys import (
    ENTRY_BYTES,
    LANE_BYTES,
    MESSAGE_BYTES,
    TENANT_BYTES,
    entry_id_text,
    entry_keys,
    kept_until_key,
    message_key,
    revision_bytes,
    tenant_key,
    timer_keys,
)
from mta.spool.lmdb.moving import DATA_FILE, enter, stage
from mta.spool.lmdb.tally import COUNTED, COUNTING, backlog_of, untried
from mta.spool.lmdb.view import View, cursor_key
from mta.spool.records import Entry, Message, Segment
from mta.spool.sealing import Keyring


class Findings(msgspec.Struct, frozen=True):
    """What a walk found: how much of everything there is, and one line for each thing that is wrong."""

    counts: dict[str, int]
    problems: list[str]


def verify(path: Path, keyring: Keyring) -> Findings:
    """Walk the whole spool; SpoolError if it cannot be opened at all."""
    environment = _open(path)
    try:
        with environment.env.begin() as txn:
            return walk(View(txn, environment.tables, keyring))
    finally:
        environment.close()


def walk(view: View) -> Findings:
    """Walk all that one snapshot shows."""
    walking = _Walk(view)
    walking.everything()
    return Findings(walking.counts, walking.problems)


def verify_structure(path: Path) -> list[str]:
    """Check the file of a spool that nobody writes to (a backup, or with the relay stopped), page by page."""
    return list(verify_file(str(path)))  # type: ignore[no-untyped-call]  # py-lmdb has no types for it


def backup(path: Path, target: Path) -> None:
    """Copy the spool as it stands at this moment, compacted, and have it on disk; the relay goes on."""
    followed = Followed(partial(_open, path))
    try:
        target.mkdir(mode=0o700, parents=True)
        while True:
            environment = followed.current()
            environment.env.copy(str(target), compact=True)
            if followed.current() is environment:
                break
            (target / DATA_FILE).unlink()  # the relay had moved into another file
        (target / DATA_FILE).chmod(0o600)
        sync_to_disk(target / DATA_FILE)
        sync_to_disk(target)
    except (OSError, lmdb.Error) as error:
        raise SpoolError(f"backup to {target}: {error}") from None
    finally:
        followed.environment.close()


def compact(path: Path) -> tuple[int, int]:
    """Write the file anew without its free pages; return its size before and after. The relay must be stopped."""
    environment = _open(path, alone=True)  # to the end: who opened the old file now would write into the void
    data = path / DATA_FILE
    before = data.stat().st_size
    try:
        stage(environment.env, path)
        enter(path)
    except (OSError, lmdb.Error) as error:
        raise SpoolError(f"compact: {error}") from None
    finally:
        environment.close()
    return before, data.stat().st_size


def _open(path: Path, *, alone: bool = False) -> Environment:
    if not (path / DATA_FILE).exists():
        raise Unavailable(f"spool {path}: there is none")
    return Environment(path, map_size=0, reserve=0, alone=alone)


class _Walk:
    """One pass over all tables of a snapshot, each row held against those it must agree with."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._referred: dict[bytes, int] = {}
        self._ended: set[bytes] = set()  # messages that are kept without entries
        self._shared: Counter[Segment] = Counter()  # in how many places
        self._hinted: dict[bytes, int] = {}  # tenant and lane -> first second
        self._tallies: Counter[tuple[bytes, str]] = Counter()  # tenant, which number
        self._found: dict[bytes, tuple[int, bool]] = {}  # messages that can be read -> octets, whether scheduled
        self._counted = b""  # the message whose entries are being met
        self._own: Counter[Table] = Counter()  # rows that are where their entries say
        self.counts: dict[str, int] = {}
        self.problems: list[str] = []

    def everything(self) -> None:
        self._whole(Table.ENDED, self._have_ended)
        self._whole(Table.MESSAGES, self._messages)
        self._whole(Table.SHARED, self._users)
        self._whole(Table.WAKE, self._hints)
        self._whole(Table.ENTRIES, self._entries)
        for table in (Table.DUE, Table.HELD, Table.CLAIMS, Table.TIMERS):
            self._whole(table, partial(self._rows_have_entries, table))
        self._whole(Table.BACKLOG, self._backlogs)
        self._whole(Table.EVENTS, self._events)
        self._whole(Table.RECORDS, self._records)
        self._whole(Table.KEPT, self._kept)
        self._whole(Table.KEPT_UNTIL, self._kept_until)
        self._whole(Table.LOOSE, self._loose)
        self._whole(Table.CONTENT, self._content)

    def _whole(self, table: Table, look: Callable[[], None]) -> None:
        """Look through a table. A file that is broken may show anything, keys of no length for instance."""
        try:
            look()
        except Exception as error:  # noqa: BLE001 - which is what is to be found out
            self._wrong(f"{table.value}: cannot be walked to its end: {error!r}")

    def _keys(self, table: Table) -> Iterator[bytes]:
        cursor = self._view.cursor(table)
        more = cursor.first()
        while more:
            key = cursor_key(cursor)
            yield key
            more = cursor.next()

    def _wrong(self, what: str) -> None:
        if len(self.problems) < 1000:
            self.problems.append(what)

    def _count(self, name: str, by: int = 1) -> None:
        self.counts[name] = self.counts.get(name, 0) + by

    def _messages(self) -> None:
        for key in self._keys(Table.MESSAGES):
            if key[-1]:
                continue
            try:
                message = self._view.message(key[:-1])
            except SpoolError as error:
                self._wrong(f"message {key.hex()}: {error}")
                continue
            if message is not None:
                self._count("messages")
                self._message(message)

    def _message(self, message: Message) -> None:
        self._count("octets", message.size)
        self._found[message_key(message.id)] = message.size, message.scheduled
        self._referred.update((each.content, page_count(each.size)) for each in message.segments)
        read = msgspec.structs.replace(  # what is shared, once: a thousand messages may have 30 MB in common
            message, segments=tuple(each for each in message.segments if each not in self._shared)
        )
        self._shared.update(each for each in message.segments if each.shared)
        try:
            self._view.content(read, read.size)
        except SpoolError as error:
            self._wrong(f"message {message.id}: {error}")
        cursor = self._view.cursor(Table.ENTRIES)
        prefix = message_key(message.id)
        waits = cursor.set_range(prefix) and cursor_key(cursor).startswith(prefix)
        if waits and prefix in self._ended:
            self._wrong(f"message {message.id}: is to be removed, and has an entry")
        elif not waits and prefix not in self._ended:
            self._wrong(f"message {message.id}: has no entry")

    def _have_ended(self) -> None:
        for key in self._keys(Table.ENDED):
            self._count("ended")
            self._ended.add(key[8:])
            if self._view.get(Table.MESSAGES, key[8:] + b"\x00") is None:
                self._wrong(f"ended: a row without its message {key[8:].hex()}")

    def _users(self) -> None:
        there = Counter({segment.content: places for segment, places in self._shared.items()})
        counted = Counter(
            {key: read_users(self._view.get(Table.SHARED, key) or b"") for key in self._keys(Table.SHARED)}
        )
        self._count("shared", len(counted))
        for key in there.keys() | counted.keys():
            if there[key] != counted[key]:
                self._wrong(f"content {key.hex()}: stands in {there[key]} places, {counted[key]} were counted")

    def _entries(self) -> None:
        for key in self._keys(Table.ENTRIES):
            if key[-1]:
                continue
            name = entry_id_text(key)
            try:
                entry = self._view.entry(key[:ENTRY_BYTES])
            except SpoolError as error:
                self._wrong(f"entry {name}: {error}")
                continue
            if entry is not None:
                self._count("entries")
                self._entry(name, key[:ENTRY_BYTES], entry)

    def _entry(self, name: str, key: bytes, entry: Entry) -> None:
        self._tally(key[:MESSAGE_BYTES], entry)
        if self._view.get(Table.MESSAGES, key[:16] + b"\x00") is None:
            self._wrong(f"entry {name}: has no message")
        if not entry.waiting:
            self._wrong(f"entry {name}: has ended and is still there")
        keys = entry_keys(entry)
        places = {
            "claimed": self._view.get(Table.CLAIMS, key),
            "waiting": self._view.get(Table.DUE, keys.due),
            "held": self._view.get(Table.HELD, key),
        }
        found = [place for place, row in places.items() if row is not None]
        timed = any(self._view.get(Table.TIMERS, each) is not None for each in timer_keys(keys.timer))
        self._own.update({Table.DUE: "waiting" in found, Table.TIMERS: timed})
        if len(found) != 1:
            self._wrong(f"entry {name}: is {' and '.join(found) or 'neither claimed nor waiting nor held'}")
        elif entry.held != (found == ["held"]):
            self._wrong(f"entry {name}: is {found[0]} and says it is {'' if entry.held else 'not '}held")
        elif found != ["claimed"] and places[found[0]] != revision_bytes(entry):
            self._wrong(f"entry {name}: is {found[0]} in another revision")
        if not timed:
            self._wrong(f"entry {name}: has no timer")
        hinted_at = self._hinted.get(tenant_key(entry.tenant) + keys.due[:LANE_BYTES])
        if "waiting" in found and (hinted_at is None or hinted_at > entry.due_at):
            self._wrong(f"entry {name}: no hint leads to its lane")

    def _tally(self, message: bytes, entry: Entry) -> None:
        """Count what waits as counting.py does: what cannot be read is out of the way."""
        if message not in self._found:
            return
        tenant, (size, scheduled) = tenant_key(entry.tenant), self._found[message]
        self._tallies[tenant, "untried"] += untried(entry, scheduled=scheduled)
        if message != self._counted:
            self._counted = message
            self._tallies[tenant, "messages"] += 1
            self._tallies[tenant, "octets"] += size

    def _rows_have_entries(self, table: Table) -> None:
        for key in self._keys(table):
            self._count(table.value)
            if self._view.get(Table.ENTRIES, key[-ENTRY_BYTES:] + b"\x00") is None:
                self._wrong(f"{table.value}: a row without its entry {entry_id_text(key[-ENTRY_BYTES:])}")
        if table in self._own and self.counts.get(table.value, 0) > self._own[table]:
            self._name_strays(table)

    def _name_strays(self, table: Table) -> None:
        """Name rows that are not where their entries say. It reads these once more, so it is for when there are any."""
        for key in self._keys(table):
            try:
                entry = self._view.entry(key[-ENTRY_BYTES:])
            except SpoolError:  # which was said
                continue
            if entry is None:
                continue
            keys = entry_keys(entry)
            if key not in (keys.due, *timer_keys(keys.timer)):
                self._wrong(f"{table.value}: a row of entry {entry.id} that is not where it says")

    def _hints(self) -> None:
        for key in self._keys(Table.WAKE):
            self._count("hints")
            second = int.from_bytes(key[TENANT_BYTES:-LANE_BYTES], "big")
            self._hinted.setdefault(key[:TENANT_BYTES] + key[-LANE_BYTES:], second)  # in order: the first is the least

    def _backlogs(self) -> None:
        get = self._view.get
        rows = {key: backlog_of(get(Table.BACKLOG, key) or b"") for key in self._keys(Table.BACKLOG)}
        if get(Table.META, COUNTING) is not None or get(Table.META, COUNTED) != get(Table.META, b"sequence"):
            return  # a spool of an earlier version, which delivery counts
        for key in rows.keys() | {key for key, _ in self._tallies}:
            row = rows.get(key, Backlog())
            for name in ("messages", "octets", "untried"):
                there, counted = self._tallies[key, name], getattr(row, name)
                if there != counted:
                    self._wrong(f"backlog {key.hex()}: {there} {name}, {counted} were counted")

    def _events(self) -> None:
        expected: int | None = None
        for key in self._keys(Table.EVENTS):
            if key[-1]:
                continue
            last = int.from_bytes(key[:8], "big")
            try:
                found = self._view.events(key[:8])
            except SpoolError as error:
                self._wrong(f"events up to {last}: {error}")
            else:
                first = last + 1 - len(found)
                if expected is not None and first != expected:
                    self._wrong(f"events: {expected} to {first - 1} are missing")
                self._count("events", len(found))
            expected = last + 1
        last = int(self._view.get(Table.META, b"sequence") or b"0")
        if expected is not None and expected - 1 != last:
            self._wrong(f"events: the last is {expected - 1}, the sequence stands at {last}")

    def _records(self) -> None:
        for key in self._keys(Table.RECORDS):
            if not key[-1]:
                self._count("records")
                try:
                    self._view.named(key[:-1])
                except SpoolError as error:
                    self._wrong(f"record {key.hex()}: {error}")

    def _kept(self) -> None:
        for key in self._keys(Table.KEPT):
            if key[-1]:
                continue
            self._count("kept")
            try:
                answer = self._view.kept(key[:-1])
            except SpoolError as error:
                self._wrong(f"kept {key.hex()}: {error}")
                continue
            if answer is None or self._view.get(Table.KEPT_UNTIL, kept_until_key(answer.until, key[:-1])) is None:
                self._wrong(f"kept {key.hex()}: nothing tells when it is past")

    def _kept_until(self) -> None:
        for key in self._keys(Table.KEPT_UNTIL):
            if self._view.get(Table.KEPT, key[8:] + b"\x00") is None:
                self._wrong(f"kept-until: a row without its answer {key[8:].hex()}")

    def _loose(self) -> None:
        for key in self._keys(Table.LOOSE):
            if key in self._referred:
                self._wrong(f"content {key.hex()}: belongs to a message, and is to be collected")
            self._referred[key] = read_loose(self._view.get(Table.LOOSE, key) or b"")[0]
            self._count("loose")

    def _content(self) -> None:
        for key in self._keys(Table.CONTENT):
            self._count("pages")
            if self._referred.get(key[:16], 0) <= int.from_bytes(key[16:], "big"):
                self._wrong(f"content {key[:16].hex()}: page {int.from_bytes(key[16:], 'big')} belongs to nothing")
