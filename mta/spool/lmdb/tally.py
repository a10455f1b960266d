"""What each tenant has waiting, counted in the transactions that change it: rows, and how far a spool is counted.

A row is six numbers and the tenant's sealed name. `meta` has `counted`, which is the log's sequence as long as
everybody who writes counts: a program from before the counters leaves it behind, and then all is counted anew
(counting.py), message by message in the order of their ids, beside the relay. While that goes on, `counting` is the
id up to which it has come, and changes of messages behind it are left to it.
"""

import struct
from collections.abc import Sequence

from mta.spool.interface import Backlog
from mta.spool.records import Entry
from mta.spool.sealing import Keyring

COUNTED = b"counted"
COUNTING = b"counting"
_numbers = struct.Struct(">6Q")


def untried(entry: Entry, *, scheduled: bool) -> bool:
    """Tell whether an entry waits for its first attempt, and may have it.

    None of a scheduled message counts, then or later: no change tells when its time has come.
    """
    return not (entry.attempts or entry.held or scheduled)


def row_after(row: bytes | None, by: Sequence[int], keyring: Keyring, key: bytes, tenant: str) -> bytes:
    """Make a tenant's next row, with numbers that have changed `by`. None goes below 0, whatever was miscounted."""
    if row is None:
        return _packed(by) + keyring.seal("backlog", 0, tenant.encode(), key)
    before = _numbers.unpack_from(row)
    return _packed([number + change for number, change in zip(before, by, strict=True)]) + row[_numbers.size :]


def backlog_of(row: bytes) -> Backlog:
    """Read the numbers of a row."""
    return Backlog(*_numbers.unpack_from(row))


def tenant_of(row: bytes, keyring: Keyring, key: bytes) -> str:
    """Open the name in a row; SealBroken if that cannot be."""
    return keyring.open("backlog", row[_numbers.size :], key).decode()


def _packed(numbers: Sequence[int]) -> bytes:
    return _numbers.pack(*[max(0, each) for each in numbers])
