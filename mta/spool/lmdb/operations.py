"""Accept, claim, wish, settle and change, as operations for the writer.

An operation is data, because the writer may be another process. It is prepared, which makes the bytes, and
what that returns runs within a transaction (steps.py).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import msgspec

from mta.spool.interface import Acceptance, Change, Kept, Settlement, Taken, Terms, Throttled
from mta.spool.lmdb.commit import Group
from mta.spool.lmdb.keys import entry_id_key, entry_keys, revision_bytes
from mta.spool.lmdb.steps import Accepted, Step, claim, encode, leave_wish
from mta.spool.lmdb.terms import OnTerms
from mta.spool.records import Claim, Entry, Wish
from mta.spool.sealing import Keyring


class Operation(msgspec.Struct, frozen=True, array_like=True):
    """A change to be made in one transaction. `admits` marks new mail, which the reserve keeps out."""

    admits: ClassVar[bool] = False

    def prepare(self, keyring: Keyring) -> Callable[[Group], Any]:
        """Make what is to be put; Refused if it never can be. The function made may raise Refused before its puts."""
        raise NotImplementedError


class Accepting(Operation, frozen=True, array_like=True, tag=True):
    """Store messages; the result is the position of the last event."""

    acceptances: tuple[Acceptance, ...]

    admits: ClassVar[bool] = True

    def prepare(self, keyring: Keyring) -> Callable[[Group], int]:
        """Make records, pages and keys."""
        return Accepted(keyring, self.acceptances).accept


class AcceptingOn(Operation, frozen=True, array_like=True, tag=True):
    """Store messages if the terms allow it; the result tells what came of it."""

    acceptances: tuple[Acceptance, ...]
    terms: Terms

    admits: ClassVar[bool] = True

    def prepare(self, keyring: Keyring) -> Callable[[Group], Taken | Kept | Throttled]:
        """Make records, pages and keys."""
        return OnTerms(keyring, self.terms, Accepted(keyring, self.acceptances)).accept


class Claiming(Operation, frozen=True, array_like=True, tag=True):
    """Take an entry if it waits just as it was read."""

    entry: Entry
    claim: Claim

    def prepare(self, keyring: Keyring) -> Callable[[Group], bool]:  # noqa: ARG002 - as every operation has it
        """Make the claim's row."""
        return partial(claim, entry_keys(self.entry), revision_bytes(self.entry), encode(self.claim))


class Wishing(Operation, frozen=True, array_like=True, tag=True):
    """Leave a wish with a claim if it is the stored one."""

    entry_id: str
    claim: Claim
    wish: Wish

    def prepare(self, keyring: Keyring) -> Callable[[Group], bool]:  # noqa: ARG002 - nothing is sealed
        """Find the claim's key."""
        return partial(leave_wish, entry_id_key(self.entry_id), self.claim, self.wish)


class Settling(Operation, frozen=True, array_like=True, tag=True):
    """Store an outcome if the claim is the stored one."""

    settlement: Settlement

    def prepare(self, keyring: Keyring) -> Callable[[Group], bool]:
        """Make the entry's next state and what goes with it."""
        settled = self.settlement
        after = _next_revision(settled.entry)
        return partial(Step(keyring, settled, after).settle, settled.claim)


class Changing(Operation, frozen=True, array_like=True, tag=True):
    """Change an entry that waits just as it was read."""

    change: Change

    def prepare(self, keyring: Keyring) -> Callable[[Group], bool]:
        """Make the entry's next state and what goes with it."""
        wanted = self.change
        after = _next_revision(wanted.after)
        return partial(Step(keyring, wanted, after).change, wanted.before)


def _next_revision(entry: Entry) -> Entry:
    return msgspec.structs.replace(entry, revision=entry.revision + 1)
