"""The write path: one thread that puts everything that waits into one transaction and commits it.

While one commit runs, the next group gathers; futures resolve after the fsync. Operations give their
puts as bytes made on the loop, so that the thread has little to do but hand them over: py-lmdb gives the
GIL away at every put and delete, and one `putmulti` a table is what keeps a busy loop from starving it.

A group that fails is retried one operation at a time before anybody is refused, unless the failure was
I/O. After an I/O error nothing is tried until the environment has been reopened and has committed.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, cast

import lmdb

from mta.mail.event import Event
from mta.spool.interface import Full, Refused, SpoolError, Unavailable, Uncertain
from mta.spool.lmdb.environment import Environment, Table
from mta.spool.lmdb.log import log_pairs
from mta.spool.sealing import Keyring

log = logging.getLogger(__name__)

RECORDS_PER_COMMIT = 1000  # a group stops growing there; one operation may be larger, it is whole or nothing
_REOPEN_INTERVAL = 1.0


class Group:
    """One transaction in the making: reads see what the operations before have put."""

    def __init__(self, txn: lmdb.Transaction, tables: Any, keyring: Keyring) -> None:
        self._txn = txn
        self._tables = tables
        self._keyring = keyring
        self._puts: dict[Table, dict[bytes, bytes]] = {}
        self._gone: dict[Table, set[bytes]] = {}
        self._events: list[Event] = []
        self._sequence: int | None = None
        self.records = 0

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

    def flush(self) -> None:
        """Hand everything to LMDB; Refused if it did not take all of it."""
        if self._sequence is not None and self._events:
            self._puts.setdefault(Table.EVENTS, {}).update(log_pairs(self._keyring, self._sequence, self._events))
            self._puts.setdefault(Table.META, {})[b"sequence"] = b"%d" % (self._sequence + len(self._events))
        for table, gone in self._gone.items():
            database = self._tables[table]
            for key in gone:
                self._txn.delete(key, db=database)
        for table, puts in self._puts.items():
            if puts:
                _, added = self._txn.cursor(self._tables[table]).putmulti(sorted(puts.items()))
                if added != len(puts):
                    raise Refused(f"{table}: {added} of {len(puts)} records were taken")


Change = Callable[[Group], Any]
"""An operation: checks first, then puts. It raises SpoolError only before its first put."""


@dataclass(slots=True)
class _Waiting:
    change: Change
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Any]"
    admits: bool
    result: Any = None
    error: SpoolError | None = None


class Writer:
    """Owns the write transactions of a process. `submit` from the loop, from any task."""

    def __init__(
        self,
        environment: Environment,
        keyring: Keyring,
        reopen: Callable[[], Environment],
        admitting: Callable[[], bool],
    ) -> None:
        """Start the thread. `reopen` makes a new environment after an I/O error; `admitting` is asked before
        operations that bring in new mail.
        """
        self._keyring = keyring
        self._environment = environment
        self._reopen = reopen
        self._admitting = admitting
        self._inbox: SimpleQueue[list[_Waiting] | None] = SimpleQueue()
        self._gathered: list[_Waiting] = []
        self._closing = False
        self._closed = False  # as the thread has seen it
        self.sick: str = ""
        self._thread = threading.Thread(target=self._run, name="spool-writer", daemon=True)
        self._thread.start()

    @property
    def environment(self) -> Environment:
        """The environment in use; another one after an I/O error."""
        return self._environment

    async def submit(self, change: Change, *, admits: bool = False) -> Any:
        """Have `change` committed and return its result; SpoolError says what became of it otherwise.

        A cancelled caller does not undo it: the commit goes on. `admits` marks new mail, which the reserve
        keeps out.
        """
        if self._closing:
            raise Unavailable("the spool is closed")
        loop = asyncio.get_running_loop()
        waiting = _Waiting(change, loop, loop.create_future(), admits)
        if not self._gathered:
            loop.call_soon(self._hand_over)
        self._gathered.append(waiting)
        return await waiting.future

    def end(self) -> None:
        """Take nothing more, and let the thread end when it has committed what waits; call from the loop."""
        if not self._closing:
            self._closing = True
            self._hand_over()
            self._inbox.put(None)

    def join(self) -> None:
        """Wait until the thread has ended."""
        self._thread.join()

    def _hand_over(self) -> None:
        """Give the thread what one turn of the loop brought.

        PERF: a put for each operation woke the thread each time, a fifth of an accept's CPU (cProfile).
        """
        gathered, self._gathered = self._gathered, []
        if gathered:
            self._inbox.put(gathered)

    # What follows runs in the thread.

    def _run(self) -> None:
        while True:
            if self.sick and (self._refuse_for(_REOPEN_INTERVAL) or not self._recover()):
                if self._closed:
                    return
                continue
            first = self._inbox.get()
            if first is None:
                return
            group, last = self._commit_group(first)
            _resolve(group)
            if last:
                return

    def _refuse_for(self, seconds: float) -> bool:
        """Refuse what comes for some time; tell whether the end came."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            try:
                waiting = self._inbox.get(timeout=left)
            except Empty:
                break
            if waiting is None:
                self._closed = True
                return True
            for each in waiting:
                each.error = Unavailable(f"spool: {self.sick}")
            _resolve(waiting)
        return False

    def _commit_group(self, first: list[_Waiting]) -> tuple[list[_Waiting], bool]:
        """Commit `first` and what waits behind it; return the group, and whether the last was seen."""
        group: list[_Waiting] = []
        current: list[_Waiting] | None = first
        try:
            with self._environment.env.begin(write=True) as txn:
                transaction = Group(txn, self._environment.tables, self._keyring)
                while current is not None:
                    group += current
                    for each in current:
                        self._apply(each, transaction)
                    if transaction.records >= RECORDS_PER_COMMIT or self._inbox.empty():
                        break
                    current = self._inbox.get()
                transaction.flush()
        except (lmdb.Error, OSError) as error:
            if _is_io(error):
                self._fail(group, error)
            else:
                self._one_by_one(group, error)
        except Exception as error:
            log.exception("spool=%s doing=one-by-one", self._environment.path)
            self._one_by_one(group, error)
        return group, current is None

    def _apply(self, waiting: _Waiting, transaction: Group) -> None:
        try:
            if waiting.admits and not self._admitting():
                raise Full("all that is free is the reserve (spool.reserve) for deliveries: make room on the disk")
            waiting.result = waiting.change(transaction)
        except SpoolError as error:
            waiting.error = error

    def _one_by_one(self, group: list[_Waiting], cause: Exception) -> None:
        """Give each operation of a failed group a transaction of its own: one bad key refuses nobody else."""
        if len(group) == 1:
            group[0].error = group[0].error or _as_spool_error(cause)
            return
        for number, each in enumerate(group):
            if each.error is not None:
                continue
            try:
                with self._environment.env.begin(write=True) as txn:
                    transaction = Group(txn, self._environment.tables, self._keyring)
                    self._apply(each, transaction)
                    transaction.flush()
            except SpoolError as error:
                each.error = error
            except Exception as error:  # noqa: BLE001 - the same boundary
                if _is_io(error):
                    self._fail(group[number:], error)
                    return
                each.error = _as_spool_error(error)

    def _fail(self, group: list[_Waiting], error: Exception) -> None:
        self.sick = str(error) or type(error).__name__
        log.error("spool=%s error=%r doing=refuse-and-reopen", self._environment.path, self.sick)
        for each in group:
            each.error = each.error or Uncertain(f"spool: {self.sick}")

    def _recover(self) -> bool:
        """Reopen, check and commit once; the kernel may have dropped what the failed fsync should have kept."""
        try:
            self._environment.close()
            self._environment = self._reopen()
            with self._environment.env.begin(write=True) as txn:
                txn.put(b"checked", b"1", db=self._environment.tables[Table.META])
        except (lmdb.Error, OSError, Unavailable) as error:
            self.sick = str(error) or type(error).__name__
            return False
        log.warning("spool=%s state=healthy-again", self._environment.path)
        self.sick = ""
        return True


def _is_io(error: Exception) -> bool:
    text = str(error)
    return isinstance(error, lmdb.PanicError | lmdb.DiskError | lmdb.CorruptedError) or any(
        os_text in text for os_text in ("Input/output error", "No space left", "Disk quota", "Read-only")
    )


def _as_spool_error(error: Exception) -> SpoolError:
    if isinstance(error, SpoolError):
        return error
    if isinstance(error, lmdb.MapFullError):
        return Full("the spool's map is full")
    return Refused(f"{type(error).__name__}: {error}")


def _resolve(group: list[_Waiting]) -> None:
    by_loop: dict[asyncio.AbstractEventLoop, list[_Waiting]] = {}
    for each in group:
        by_loop.setdefault(each.loop, []).append(each)
    for loop, several in by_loop.items():
        try:
            loop.call_soon_threadsafe(_deliver, several)
        except RuntimeError:  # the loop was closed while its commit ran; the commit stands
            log.debug("loop closed before %d results", len(several))


def _deliver(group: list[_Waiting]) -> None:
    for each in group:
        if each.future.cancelled():
            continue
        if each.error is not None:
            each.future.set_exception(each.error)
        else:
            each.future.set_result(each.result)
