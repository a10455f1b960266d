"""What each tenant has waiting, counted in the transactions that change it: rows, and how far a spool is counted.

A row is six numbers and the tenant's sealed name. `meta` has `counted`, which is the log's sequence as long as
everybody who writes counts: a program from before the counters leaves it behind, and then all is counted anew
(counting.py), message by message in the order of their ids, beside the relay. While that goes on, `counting` is the
id up to which it has come, and changes of messages behind it are left to it.
"""

import struct
from typing import NamedTuple

from mta.spool.interface import Backlog
from mta.spool.records import Entry
from mta.spool.sealing import Keyring

COUNTED = b"counted"
COUNTING = b"counting"
_numbers = struct.Struct(">6Q")


class Tally(NamedTuple):
    """By how much a change moves the numbers of Backlog."""

    messages: int = 0
    octets: int = 0
    untried: int = 0
    tried: int = 0
    left: int = 0
    left_octets: int = 0

    def plus(self, other: "Tally") -> "Tally":
        """Add another."""
        return Tally(
            self.messages + other.messages,
            self.octets + other.octets,
            self.untried + other.untried,
            self.tried + other.tried,
            self.left + other.left,
            self.left_octets + other.left_octets,
        )


def untried(entry: Entry) -> bool:
    """Tell whether an entry waits for its first attempt, and may have it."""
    return not entry.attempts and not entry.held


def row_after(row: bytes | None, by: Tally, keyring: Keyring, key: bytes, tenant: str) -> bytes:
    """Make a tenant's next row. No number goes below 0, whatever was miscounted."""
    if row is None:
        return _packed(by) + keyring.seal("backlog", 0, tenant.encode(), key)
    return _packed(Tally(*_numbers.unpack_from(row)).plus(by)) + row[_numbers.size :]


def backlog_of(row: bytes) -> Backlog:
    """Read the numbers of a row."""
    return Backlog(*_numbers.unpack_from(row))


def tenant_of(row: bytes, keyring: Keyring, key: bytes) -> str:
    """Open the name in a row; SealBroken if that cannot be."""
    return keyring.open("backlog", row[_numbers.size :], key).decode()


def _packed(tally: Tally) -> bytes:
    return _numbers.pack(*[max(0, each) for each in tally])
