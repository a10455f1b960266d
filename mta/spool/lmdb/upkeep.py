"""The operations beside the queue's own: content on its way in, named records, the log, hints, what is out of use."""

from collections.abc import Callable
from functools import partial
from typing import ClassVar

from mta.spool.interface import Refused
from mta.spool.lmdb.commit import Group
from mta.spool.lmdb.content import GRACE, check_whole, loose_value, read_loose, sealed_pages
from mta.spool.lmdb.ended import remove_ended
from mta.spool.lmdb.environment import Table
from mta.spool.lmdb.keys import ENTRY_BYTES, content_key, entry_keys, pieces, record_key, timer_keys
from mta.spool.lmdb.log import log_key, log_pairs_behind
from mta.spool.lmdb.operations import Operation
from mta.spool.lmdb.steps import delete_record, encode, replace_record
from mta.spool.lmdb.tally import COUNTED, COUNTING
from mta.spool.lmdb.terms import FORGOTTEN, forget_past
from mta.spool.lmdb.view import record_of
from mta.spool.records import Segment
from mta.spool.sealing import Keyring, SealBroken

_COLLECTED = 500  # pages in one transaction
_DISCARDED = 1000  # records of the log in one transaction


class StorePages(Operation, frozen=True, array_like=True, tag=True):
    """Add `data` to content that nothing refers to yet, after `before` pages that must still be there.

    `segment` names the content and has its key; `since` is when it began.
    """

    segment: Segment
    before: int
    data: bytes
    since: float

    admits: ClassVar[bool] = True

    def prepare(self, keyring: Keyring) -> Callable[[Group], None]:  # noqa: ARG002 - content has its own key
        """Seal the pages."""
        name, before = self.segment.content, self.before
        pairs = sealed_pages(self.segment, self.data, before)
        row = [(name, loose_value(before + len(pairs), self.since))]

        def change(group: Group) -> None:
            if before:
                check_whole(group, name, before)
            group.put(Table.CONTENT, pairs)
            group.put(Table.LOOSE, row)

        return change


class GiveUp(Operation, frozen=True, array_like=True, tag=True):
    """Leave content to the collector, if nothing refers to it."""

    content: bytes

    def prepare(self, keyring: Keyring) -> Callable[[Group], None]:  # noqa: ARG002 - nothing is sealed
        """Nothing is made ahead."""

        def change(group: Group) -> None:
            row = group.get(Table.LOOSE, self.content)
            if row is not None:
                group.put(Table.LOOSE, [(self.content, loose_value(read_loose(row)[0], 0))])

        return change


class Collect(Operation, frozen=True, array_like=True, tag=True):
    """Remove a bounded amount of content that nothing refers to, and of what is past; the result is how much went."""

    now: float

    def prepare(self, keyring: Keyring) -> Callable[[Group], int]:
        """Nothing is made ahead."""
        return partial(self._collect, keyring)

    def _collect(self, keyring: Keyring, group: Group) -> int:
        ended = remove_ended(group, keyring, self.now)
        gone = 0
        for content_id in group.keys_from(Table.LOOSE, b"", _COLLECTED):
            value = group.get(Table.LOOSE, content_id)
            if value is None:
                continue
            pages, since = read_loose(value)
            if since + GRACE > self.now:
                continue
            first = max(0, pages - (_COLLECTED - gone))
            group.delete(Table.CONTENT, [content_key(content_id, number) for number in range(first, pages)])
            gone += pages - first
            if first:
                group.put(Table.LOOSE, [(content_id, loose_value(first, since))])
                break
            group.delete(Table.LOOSE, [content_id])
        forgotten = forget_past(group, self.now)
        group.may_move = not (gone or ended) and forgotten < FORGOTTEN  # something has always just come to its end
        return gone + forgotten + ended


class PutRecord(Operation, frozen=True, array_like=True, tag=True):
    """Store a named record, sealed under the day of `at`; the result is False if it is there and not to be replaced."""

    kind: str
    name: str
    value: bytes
    at: float
    replace: bool

    def prepare(self, keyring: Keyring) -> Callable[[Group], bool]:
        """Seal it."""
        key = record_key(self.kind, self.name)
        pairs = _record_pairs(keyring, key, self.at, encode((self.name, self.value)))

        def change(group: Group) -> bool:
            if not self.replace and group.get(Table.RECORDS, key + b"\x00") is not None:
                return False
            replace_record(group, Table.RECORDS, key, pairs)
            return True

        return change


class ChangeRecord(Operation, frozen=True, array_like=True, tag=True):
    """Replace a named record that is `before`, sealed under the day of `at`; the result is False if it is another."""

    kind: str
    name: str
    before: bytes
    after: bytes
    at: float

    def prepare(self, keyring: Keyring) -> Callable[[Group], bool]:
        """Seal what it becomes."""
        key = record_key(self.kind, self.name)
        before = encode((self.name, self.before))
        pairs = _record_pairs(keyring, key, self.at, encode((self.name, self.after)))

        def change(group: Group) -> bool:
            try:  # what is stored was sealed under a nonce of its own: it has to be opened to be compared
                stored = record_of(group.get, keyring, Table.RECORDS, key)
            except SealBroken as error:
                raise Refused(str(error)) from None
            if stored != before:
                return False
            replace_record(group, Table.RECORDS, key, pairs)
            return True

        return change


def _record_pairs(keyring: Keyring, key: bytes, at: float, plain: bytes) -> list[tuple[bytes, bytes]]:
    return pieces(key, keyring.seal(Table.RECORDS.value, at, plain, key))


class DeleteRecord(Operation, frozen=True, array_like=True, tag=True):
    """Remove a named record; the result is False if there was none."""

    kind: str
    name: str

    def prepare(self, keyring: Keyring) -> Callable[[Group], bool]:  # noqa: ARG002 - nothing is sealed
        """Find its key."""
        key = record_key(self.kind, self.name)
        return lambda group: delete_record(group, Table.RECORDS, key)


class NextEpoch(Operation, frozen=True, array_like=True, tag=True):
    """Count the owners of deliveries; the result is the new owner's number."""

    def prepare(self, keyring: Keyring) -> Callable[[Group], int]:  # noqa: ARG002 - nothing is sealed
        """Nothing is made ahead."""

        def change(group: Group) -> int:
            epoch = int(group.get(Table.META, b"epoch") or b"0") + 1
            group.put(Table.META, [(b"epoch", b"%d" % epoch)])
            return epoch

        return change


class Quarantine(Operation, frozen=True, array_like=True, tag=True):
    """Take rows whose records cannot be read out of the way, so that the others flow; the records stay.

    Nobody knows what they were, so that what tenants have waiting is to be counted anew, if that is not being done.
    """

    table: Table
    rows: list[bytes]

    def prepare(self, keyring: Keyring) -> Callable[[Group], None]:  # noqa: ARG002 - nothing is sealed
        """Nothing is made ahead."""

        def change(group: Group) -> None:
            group.delete(self.table, self.rows)
            if group.get(Table.META, COUNTING) is None:
                group.delete(Table.META, [COUNTED])

        return change


class MendHints(Operation, frozen=True, array_like=True, tag=True):
    """Put hints right that lead to no lane, or to one whose head is later."""

    stale: list[bytes]

    def prepare(self, keyring: Keyring) -> Callable[[Group], None]:  # noqa: ARG002 - nothing is sealed
        """Nothing is made ahead."""
        return lambda group: group.hint(gone=self.stale)


class MendTimers(Operation, frozen=True, array_like=True, tag=True):
    """Remove timers that are not where their entries say, as an earlier version leaves them, and have those there."""

    strays: list[bytes]

    def prepare(self, keyring: Keyring) -> Callable[[Group], None]:  # noqa: ARG002 - nothing is sealed
        """Nothing is made ahead."""
        return self._mend

    def _mend(self, group: Group) -> None:
        view = group.settled()
        entries = [view.entry(each[-ENTRY_BYTES:]) for each in self.strays]
        for stray, entry in zip(self.strays, entries, strict=True):
            places = [] if entry is None else timer_keys(entry_keys(entry).timer)
            if stray in places:
                continue
            group.delete(Table.TIMERS, [stray])
            if places and all(group.get(Table.TIMERS, each) is None for each in places):
                group.put(Table.TIMERS, [(places[0], b"")])


class DiscardEvents(Operation, frozen=True, array_like=True, tag=True):
    """Forget events up to `position`, a bounded number; the result is whether there may be more."""

    position: int

    def prepare(self, keyring: Keyring) -> Callable[[Group], bool]:
        """Nothing is made ahead."""

        def change(group: Group) -> bool:
            keys = group.keys_from(Table.EVENTS, b"", _DISCARDED)
            gone = [key for key in keys if key[:8] <= log_key(self.position)]
            group.delete(Table.EVENTS, gone)
            for key in keys[len(gone) : len(gone) + 1]:
                found = [group.get(Table.EVENTS, each) or b"" for each in group.keys_from(Table.EVENTS, key[:8], 256)]
                shortened = log_pairs_behind(keyring, key[:8], found, self.position)
                if shortened:
                    replace_record(group, Table.EVENTS, key[:8], shortened)
            return len(gone) == _DISCARDED

        return change
