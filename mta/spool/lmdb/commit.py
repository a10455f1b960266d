"""A commit: all that waits in one transaction, and what becomes of it when that fails.

A group that fails is retried one operation at a time before anybody is refused, unless the failure was
I/O. After an I/O error nothing is tried until the environment has been reopened and has committed.
Runs in a thread (writer.py) or in a process of its own (apart.py).
"""

import logging
import time
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from queue import Empty
from typing import Any, Protocol, TypeVar, cast

import lmdb

from mta.mail.event import Event
from mta.spool.interface import Full, Refused, SpoolError, Unavailable, Uncertain
from mta.spool.lmdb.environment import Environment, Place, Room, Table
from mta.spool.lmdb.following import Followed
from mta.spool.lmdb.keys import LANE_BYTES, TENANT_BYTES, tenant_key
from mta.spool.lmdb.log import log_pairs
from mta.spool.lmdb.tally import COUNTED, COUNTING, row_after
from mta.spool.lmdb.view import View, head_at
from mta.spool.sealing import Keyring, SealBroken

log = logging.getLogger(__name__)

RECORDS_PER_COMMIT = 1000  # a group stops growing there; one operation may be larger, it is whole or nothing
TOGETHER = 64  # operations that an inbox gives at once: seven records each, for a message with one recipient
REOPEN_INTERVAL = 1.0  # seconds
LOOK_INTERVAL = 60.0  # seconds without any change, after which it is looked whether the spool has moved
_ALL = b"\xff" * 16  # no message is behind it


class Group:
    """One transaction in the making: reads see what the operations before have put."""

    def __init__(self, txn: lmdb.Transaction, tables: Any, keyring: Keyring) -> None:
        self._txn = txn
        self._tables = tables
        self._keyring = keyring
        self._puts: dict[Table, dict[bytes, bytes]] = {}
        self._gone: dict[Table, set[bytes]] = {}
        self._came: set[bytes] = set()
        self._left: set[bytes] = set()
        self._events: list[Event] = []
        self._sequence: int | None = None
        self._tallies: dict[str, list[int]] = {}  # by tenant, as Backlog has them
        self._counting: bytes | None = None  # up to which message all are counted, once looked up
        self.records = 0
        self.may_move = False  # the spool, into a new file, when this is committed: the collector has found nothing

    def put(self, table: Table, pairs: list[tuple[bytes, bytes]]) -> None:
        """Store pairs, over what is there."""
        self._puts.setdefault(table, {}).update(pairs)
        gone = self._gone.get(table)
        if gone:
            gone.difference_update([key for key, _ in pairs])
        self.records += len(pairs)

    def delete(self, table: Table, keys: list[bytes]) -> None:
        """Remove keys, whether they are there or not."""
        puts = self._puts.get(table)
        if puts:
            for key in keys:
                puts.pop(key, None)
        self._gone.setdefault(table, set()).update(keys)
        self.records += len(keys)

    def get(self, table: Table, key: bytes) -> bytes | None:
        """Read a key as the transaction stands."""
        found = self._puts.get(table, {}).get(key)
        if found is not None:
            return found
        if key in self._gone.get(table, ()):
            return None
        return cast("bytes | None", self._txn.get(key, db=self._tables[table]))

    def keys_from(self, table: Table, prefix: bytes, limit: int) -> list[bytes]:
        """List up to `limit` keys that begin with `prefix`, in order, as the transaction stands."""
        gone = self._gone.get(table, set())
        found = {key for key in self._puts.get(table, {}) if key.startswith(prefix)}
        stored = 0
        cursor = self._txn.cursor(self._tables[table])
        more = cursor.set_range(prefix)
        while more and stored < limit:
            key = cast("bytes", cursor.key())
            if not key.startswith(prefix):
                break
            if key not in gone:
                found.add(key)
                stored += 1
            more = cursor.next()
        return sorted(found)[:limit]

    def log(self, events: Sequence[Event]) -> int:
        """Append events; return the number of the last."""
        if self._sequence is None:
            self._sequence = int(self.get(Table.META, b"sequence") or b"0")
        self._events += events
        self.records += len(events)
        return self._sequence + len(self._events)

    def hint(self, *, came: Collection[bytes] = (), gone: Collection[bytes] = ()) -> None:
        """Have hints put right when all else is stored: rows of their lanes and seconds have come, or have gone.

        PERF: with a hint put for every row, a million entries over 10,000 lanes had 550,000 hints, and a message wrote
        7.8 pages in commits of eight; now 10,000 hints and 6.6 pages. Hints of rows that went out of their order were
        left to whoever looks for due lanes, 500 a look: after a million, 1,100 looks with a commit each before the next
        due entry was found.
        """
        self._came.update(came)
        self._left.update(gone)
        self.records += len(came) + len(gone)

    def tally(
        self,
        message: bytes,
        tenant: str,
        messages: int = 0,
        octets: int = 0,
        untried: int = 0,
        tried: int = 0,
    ) -> None:
        """Have what a tenant has waiting counted, by what happens to a message (its key): -1 for one that leaves.

        PERF: with a tuple for what happens, and another for each sum, it took 2 µs a message instead of half a one.
        """
        if self._counting is None:
            self._counting = self.get(Table.META, COUNTING) or _ALL
        if message > self._counting:
            return
        numbers = self._tallies.get(tenant)
        if numbers is None:
            numbers = self._tallies[tenant] = [0, 0, 0, 0, 0, 0]
        numbers[0] += messages
        numbers[1] += octets
        numbers[2] += untried
        numbers[3] += tried
        if messages < 0:
            numbers[4] -= messages
            numbers[5] -= octets

    def settled(self) -> View:
        """Hand everything to LMDB, so that a cursor meets it, and return a look at it."""
        try:
            self.flush()
        except SpoolError as error:  # it is not for who looks to answer for the operations before
            raise RuntimeError(str(error)) from None
        for each in (self._puts, self._gone, self._came, self._left, self._events, self._tallies):
            each.clear()
        self._sequence = self._counting = None
        return View(self._txn, self._tables, self._keyring)

    def flush(self) -> None:
        """Hand everything to LMDB; Refused if it did not take all of it."""
        if self._sequence is not None and self._events:
            first, last = b"%d" % self._sequence, b"%d" % (self._sequence + len(self._events))
            if self.get(Table.META, COUNTED) == first:
                self._puts.setdefault(Table.META, {})[COUNTED] = last
            self._puts.setdefault(Table.EVENTS, {}).update(log_pairs(self._keyring, self._sequence, self._events))
            self._puts.setdefault(Table.META, {})[b"sequence"] = last
        for table, gone in self._gone.items():
            database = self._tables[table]
            for key in gone:
                self._txn.delete(key, db=database)
        for table, puts in self._puts.items():
            if puts:
                _, added = self._txn.cursor(self._tables[table]).putmulti(sorted(puts.items()))
                if added != len(puts):
                    raise Refused(f"{table}: {added} of {len(puts)} records were taken")
        for tenant, by in self._tallies.items():
            key, backlogs = tenant_key(tenant), self._tables[Table.BACKLOG]
            row = cast("bytes | None", self._txn.get(key, db=backlogs))
            self._txn.put(key, row_after(row, by, self._keyring, key, tenant), db=backlogs)
        if self._came or self._left:
            self._put_hints()

    def _put_hints(self) -> None:
        """Have a hint at the head of each lane that rows came to or left, and none where a lane has no rows."""
        heads, hints = self._txn.cursor(self._tables[Table.DUE]), self._tables[Table.WAKE]
        for hint in sorted(self._came | self._left):
            lane = hint[-LANE_BYTES:]
            at = head_at(heads, lane)
            belongs = None if at is None else hint[:TENANT_BYTES] + (at // 1000).to_bytes(8, "big") + lane
            if belongs == hint:
                if hint in self._came:
                    self._txn.put(hint, b"", overwrite=False, db=hints)
            elif hint in self._left:
                self._txn.delete(hint, db=hints)
                if belongs is not None:
                    self._txn.put(belongs, b"", overwrite=False, db=hints)


Change = Callable[[Group], Any]
"""What an operation does: checks first, then puts. It raises SpoolError only before its first put."""


class Waiting:
    """An operation that waits for its commit; afterwards what came of it."""

    __slots__ = ("admits", "change", "error", "result")

    def __init__(self, change: Change, *, admits: bool, error: SpoolError | None = None) -> None:
        self.change = change
        self.admits = admits
        self.result: Any = None
        self.error = error


_Waiting = TypeVar("_Waiting", bound=Waiting)


class Inbox(Protocol[_Waiting]):
    """Where operations come from, those together that came together; None is the end."""

    def get(self, block: bool = True, timeout: float | None = None) -> list[_Waiting] | None:  # noqa: FBT001, FBT002 - as queue.SimpleQueue has it
        """Wait for some; queue.Empty when `timeout` is over."""

    def empty(self) -> bool:
        """Tell whether `get` would wait."""


class Committer:
    """Commits what an inbox brings. The only one who writes to the environment in its process."""

    def __init__(self, followed: Followed, keyring: Keyring) -> None:
        """Commit to the environment in use; it is reopened after an I/O error."""
        self.followed = followed
        self.sick = ""
        self.room = Room(followed.current, lambda: not self.sick)
        self._keyring = keyring
        self._may_move = False

    def run(
        self,
        inbox: Inbox[_Waiting],
        deliver: Callable[[list[_Waiting]], None],
        recovered: Callable[[], None] = lambda: None,
    ) -> None:
        """Commit until the inbox ends; `deliver` takes each group when it is done."""
        while True:
            if self.sick:
                if self._refuse_for(REOPEN_INTERVAL, inbox, deliver):
                    return
                if self._recover():
                    recovered()
                continue
            try:
                first = inbox.get(timeout=LOOK_INTERVAL)
            except Empty:
                self._look()
                continue
            if first is None:
                return
            group, last = self._commit_group(first, inbox)
            deliver(group)
            if last:
                return
            if self._may_move:
                self._move()

    def _look(self) -> None:
        """Go over into the file in use: one that has been left stays on the disk while anybody has it open."""
        try:
            self.followed.current()
        except (lmdb.Error, OSError, SpoolError) as error:
            self._fail([], error)

    def _move(self) -> None:
        self._may_move = False
        try:
            self.followed.move()
        except SpoolError as error:
            log.warning("spool=%s moved=no error=%r", self.followed.environment.path, str(error))
        except (lmdb.Error, OSError) as error:
            self._fail([], error)

    def _refuse_for(self, seconds: float, inbox: Inbox[_Waiting], deliver: Callable[[list[_Waiting]], None]) -> bool:
        """Refuse what comes for some time; tell whether the end came."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            try:
                waiting = inbox.get(timeout=left)
            except Empty:
                break
            if waiting is None:
                return True
            for each in waiting:
                each.error = Unavailable(f"spool: {self.sick}")
            deliver(waiting)
        return False

    def _commit_group(self, first: list[_Waiting], inbox: Inbox[_Waiting]) -> tuple[list[_Waiting], bool]:
        """Commit `first` and what waits behind it; return the group, and whether the last was seen."""
        group: list[_Waiting] = []
        current: list[_Waiting] | None = first
        try:
            environment, begun = self.followed.begin(write=True)
        except Exception as error:  # noqa: BLE001 - whatever it is, everybody has to hear of it
            for each in first:
                each.error = each.error or Unavailable(f"spool: {error}")
            self._fail(first, error)
            return first, False
        try:
            with begun as txn:
                transaction = Group(txn, environment.tables, self._keyring)
                while current is not None:
                    group += current
                    for each in current:
                        self._apply(each, transaction)
                    if transaction.records >= RECORDS_PER_COMMIT or inbox.empty():
                        break
                    current = inbox.get()
                transaction.flush()
            self._may_move = transaction.may_move
        except (lmdb.Error, OSError) as error:
            if _is_io(error):
                self._fail(group, error)
            else:
                self._one_by_one(group, error)
        except Exception as error:
            log.exception("spool=%s doing=one-by-one", self.followed.environment.path)
            self._one_by_one(group, error)
        return group, current is None

    def _apply(self, waiting: Waiting, transaction: Group) -> None:
        if waiting.error is not None:
            return
        try:
            if waiting.admits and not self.room.space().accepting:
                raise Full("all that is free is the reserve (spool.reserve) for deliveries: make room on the disk")
            waiting.result = waiting.change(transaction)
        except SpoolError as error:
            waiting.error = error

    def _one_by_one(self, group: Sequence[Waiting], cause: Exception) -> None:
        """Give each operation of a failed group a transaction of its own: one bad key refuses nobody else."""
        if len(group) == 1:
            group[0].error = group[0].error or as_spool_error(cause)
            return
        for number, each in enumerate(group):
            if each.error is not None:
                continue
            try:
                environment, begun = self.followed.begin(write=True)
                with begun as txn:
                    transaction = Group(txn, environment.tables, self._keyring)
                    self._apply(each, transaction)
                    transaction.flush()
            except SpoolError as error:
                each.error = error
            except Exception as error:  # noqa: BLE001 - the same boundary
                if _is_io(error):
                    self._fail(group[number:], error)
                    return
                each.error = as_spool_error(error)

    def _fail(self, group: Sequence[Waiting], error: Exception) -> None:
        self.sick = str(error) or type(error).__name__
        log.error("spool=%s error=%r doing=refuse-and-reopen", self.followed.environment.path, self.sick)
        for each in group:
            each.error = each.error or Uncertain(f"spool: {self.sick}")

    def _recover(self) -> bool:
        """Reopen, check and commit once; the kernel may have dropped what the failed fsync should have kept."""
        try:
            self.followed.reopen()
            environment, begun = self.followed.begin(write=True)
            with begun as txn:
                txn.put(b"checked", b"1", db=environment.tables[Table.META])
        except (lmdb.Error, OSError, Unavailable) as error:
            self.sick = str(error) or type(error).__name__
            return False
        log.warning("spool=%s state=healthy-again", self.followed.environment.path)
        self.sick = ""
        return True


def opened(place: Place, keyring: Keyring) -> Environment:
    """Open or create the spool; Unavailable with the reason when that fails.

    That the key that sealed here last, whoever it was, is not in our key file is one: every record would look broken.
    """
    environment = Environment(Path(place.path), map_size=place.map_size, reserve=place.reserve, sync=place.sync)
    try:
        _check_keys(environment, keyring)
    except BaseException:
        environment.close()
        raise
    return environment


def committer_at(place: Place, keyring: Keyring) -> Committer:
    """Open or create the spool for changes; Unavailable with the reason when that fails."""
    return Committer(Followed(partial(opened, place, keyring)), keyring)


def _check_keys(environment: Environment, keyring: Keyring) -> None:
    meta = environment.tables[Table.META]
    with environment.env.begin(write=True) as txn:
        if environment.has_moved(txn):  # where it is followed to, it is looked at again
            return
        sealed = txn.get(b"sealed", db=meta)
        if sealed is not None:
            try:
                keyring.open("meta", sealed, b"sealed")
            except SealBroken:
                raise Unavailable(f"spool {environment.path}: its key is not in the key file") from None
        if sealed is None or not keyring.seals(sealed):
            txn.put(b"sealed", keyring.seal("meta", 0, b"", b"sealed"), db=meta)


def _is_io(error: Exception) -> bool:
    text = str(error)
    return isinstance(error, lmdb.PanicError | lmdb.DiskError | lmdb.CorruptedError) or any(
        os_text in text for os_text in ("Input/output error", "No space left", "Disk quota", "Read-only")
    )


def as_spool_error(error: Exception) -> SpoolError:
    """What a caller is told of a failure that was not I/O."""
    if isinstance(error, SpoolError):
        return error
    if isinstance(error, lmdb.MapFullError):
        return Full("the spool's map is full")
    return Refused(f"{type(error).__name__}: {error}")
