"""Counting a spool of which it is not known what each tenant has waiting: an operation, done again until it is done."""

from collections.abc import Callable
from typing import TypeVar

from mta.spool.interface import SpoolError
from mta.spool.lmdb.commit import Group
from mta.spool.lmdb.environment import Table
from mta.spool.lmdb.keys import ENTRY_BYTES, MESSAGE_BYTES, message_key
from mta.spool.lmdb.operations import Operation
from mta.spool.lmdb.tally import COUNTED, COUNTING, untried
from mta.spool.lmdb.view import View, cursor_key
from mta.spool.records import Message
from mta.spool.sealing import Keyring

_MESSAGES = 100  # at a time, or as many entries: they are opened while everybody else who writes waits
_ROWS = 500  # of tenants, at a time
_Record = TypeVar("_Record")


class CountBacklog(Operation, frozen=True, array_like=True, tag=True):
    """Count a bounded part of what each tenant has waiting; the result is whether there is more."""

    def prepare(self, keyring: Keyring) -> Callable[[Group], bool]:  # noqa: ARG002 - rows are sealed with the group
        """Nothing is made ahead."""
        return _count


def _count(group: Group) -> bool:
    view = group.settled()
    sequence = view.get(Table.META, b"sequence") or b"0"
    if view.get(Table.META, COUNTED) != sequence:
        rows = group.keys_from(Table.BACKLOG, b"", _ROWS)
        group.delete(Table.BACKLOG, rows)
        if len(rows) < _ROWS:
            group.put(Table.META, [(COUNTED, sequence), (COUNTING, b"\x00")])
        return True
    after = view.get(Table.META, COUNTING)
    if after is None:
        return False
    found, last = _portion(view, after)
    if last is None:
        group.delete(Table.META, [COUNTING])
    else:
        group.put(Table.META, [(COUNTING, last)])
    for message, fresh in found:
        group.tally(message_key(message.id), message.tenant, 1, message.size, fresh)
    return last is not None


def _portion(view: View, after: bytes) -> tuple[list[tuple[Message, int]], bytes | None]:
    """Read messages behind the one named, with how many entries wait to be tried; and the last one, None at the end.

    What cannot be read is out of the way, and does not wait: an entry, and a message without any other.
    """
    found: list[tuple[Message, int]] = []
    messages, entries = view.cursor(Table.MESSAGES), view.cursor(Table.ENTRIES)
    seen, last = 0, after
    more = messages.set_range(after + b"\xff" if len(after) == MESSAGE_BYTES else after)
    while more:
        if seen >= _MESSAGES:
            return found, last
        last = cursor_key(messages)[:MESSAGE_BYTES]
        message, waiting, fresh = _readable(view.message, last), 0, 0
        there = entries.set_range(last)
        while there and cursor_key(entries).startswith(last):
            entry = _readable(view.entry, cursor_key(entries)[:ENTRY_BYTES])
            if entry is not None and message is not None:
                waiting += 1
                fresh += untried(entry, scheduled=message.scheduled)
            seen += 1
            there = entries.set_range(cursor_key(entries)[:ENTRY_BYTES] + b"\xff")
        if message is not None and waiting:
            found.append((message, fresh))
        seen += 1
        more = messages.set_range(last + b"\xff")
    return found, None


def _readable(read: Callable[[bytes], _Record | None], key: bytes) -> _Record | None:
    try:
        return read(key)
    except SpoolError:
        return None
