"""What accepting, claiming, settling and changing do within a transaction, prepared ahead and then put.

Each checks first and puts then, so that a refused operation leaves nothing behind in its group. The
operations themselves, which are data, are in operations.py.
"""

from collections.abc import Sequence

import msgspec

from mta.mail.event import Event
from mta.spool.interface import Acceptance, Change, Refused, Settlement
from mta.spool.lmdb.commit import Group
from mta.spool.lmdb.content import (
    DIRECT_PAGES,
    check_whole,
    loose_value,
    page_count,
    page_keys,
    read_users,
    sealed_pages,
    users_value,
)
from mta.spool.lmdb.environment import Table
from mta.spool.lmdb.keys import (
    MESSAGE_BYTES,
    EntryKeys,
    ended_key,
    entry_keys,
    message_key,
    pieces,
    revision_bytes,
    timer_keys,
)
from mta.spool.lmdb.tally import untried
from mta.spool.records import Claim, Entry, Message, Segment, Wish
from mta.spool.sealing import Keyring, new_content_key

encode = msgspec.msgpack.Encoder().encode
_decode_claim = msgspec.msgpack.Decoder(Claim).decode
Pairs = list[tuple[bytes, bytes]]

_ACCEPTED = (Table.CONTENT, Table.MESSAGES, Table.ENTRIES, Table.DUE, Table.TIMERS)


class Accepted:
    """The puts of acceptances, made ahead: pairs by table, and events that wait for their numbers."""

    def __init__(self, keyring: Keyring, acceptances: Sequence[Acceptance]) -> None:
        self._keyring = keyring
        self.pairs: dict[Table, Pairs] = {table: [] for table in _ACCEPTED}
        self.hints: list[bytes] = []
        self.events: list[Event] = []
        self.adopted: dict[bytes, int] = {}
        self._shared: dict[tuple[Segment, str], Segment] = {}  # what a tenant's messages share -> as it is stored
        self._users: dict[bytes, int] = {}
        self._tallies: list[tuple[bytes, str, int, int]] = []  # message, tenant, octets, entries not tried
        for each in acceptances:
            self._add(each)

    def _add(self, acceptance: Acceptance) -> None:
        message, keyring, pairs = acceptance.message, self._keyring, self.pairs
        self.events += acceptance.events
        if not acceptance.entries:
            return
        segments, fresh = list(message.segments), 0
        for segment in segments:
            self._adopt(segment)
        if acceptance.content:
            segment = Segment(message_key(message.id), len(acceptance.content), new_content_key())
            pairs[Table.CONTENT] += sealed_pages(segment, acceptance.content)
            segments.append(segment)
        segments += [self._share(each, message.tenant) for each in acceptance.shared]
        message = msgspec.structs.replace(message, segments=tuple(segments))
        pairs[Table.MESSAGES] += message_pairs(keyring, message)
        for entry in acceptance.entries:
            keys = entry_keys(entry)
            pairs[Table.ENTRIES] += entry_pairs(keyring, entry, keys.entry)
            pairs[Table.DUE].append((keys.due, revision_bytes(entry)))
            self.hints.append(keys.wake)
            pairs[Table.TIMERS].append((keys.timer, b""))
            fresh += untried(entry, scheduled=message.scheduled)
        self._tallies.append((message_key(message.id), message.tenant, message.size, fresh))

    def _adopt(self, segment: Segment) -> None:
        if segment.content in self.adopted:
            raise Refused("content belongs to one message, or is shared by those of one tenant")
        self.adopted[segment.content] = page_count(segment.size)

    def _share(self, segment: Segment, tenant: str) -> Segment:
        known = self._shared.get((segment, tenant))
        if known is None:
            self._adopt(segment)
            known = self._shared[segment, tenant] = msgspec.structs.replace(segment, shared=True)
        self._users[segment.content] = self._users.get(segment.content, 0) + 1
        return known

    def accept(self, group: Group) -> int:
        """Store them; return the position of the last event."""
        self.check(group)
        self.put(group)
        return group.log(self.events)

    def check(self, group: Group) -> None:
        """Refused unless the content that was committed as it arrived is still there, whole."""
        for content_id, pages in self.adopted.items():
            check_whole(group, content_id, pages)

    def put(self, group: Group) -> None:
        """Add it all to the transaction but the events."""
        for table, pairs in self.pairs.items():
            if pairs:
                group.put(table, pairs)
        group.hint(came=self.hints)
        for key, tenant, octets, fresh in self._tallies:
            group.tally(key, tenant, 1, octets, fresh)
        if self.adopted:
            group.delete(Table.LOOSE, list(self.adopted))
        if self._users:
            group.put(Table.SHARED, [(name, users_value(users)) for name, users in self._users.items()])


def claim(keys: EntryKeys, seen: bytes, row: bytes, group: Group) -> bool:
    """Take an entry out of its lane, if it waits just as it was `seen`; tell whether it does."""
    if group.get(Table.DUE, keys.due) != seen:
        return False
    group.delete(Table.DUE, [keys.due])
    group.hint(gone=[keys.wake])
    group.put(Table.CLAIMS, [(keys.entry, row)])
    return True


def leave_wish(key: bytes, claim: Claim, wish: Wish, group: Group) -> bool:
    """Put a wish into the row of a claim, if that is the stored one; tell whether it is."""
    if not _is_claimed(key, claim, group):
        return False
    group.put(Table.CLAIMS, [(key, encode(msgspec.structs.replace(claim, wish=wish)))])
    return True


def _is_claimed(key: bytes, claim: Claim, group: Group) -> bool:
    row = group.get(Table.CLAIMS, key)
    # what an older version stored has fewer fields, and other octets for the same
    return row is not None and (row == encode(claim) or _decode_claim(row) == claim)


def _place(entry: Entry, keys: EntryKeys) -> tuple[Table, bytes]:
    """Where an entry stands that nobody has claimed."""
    return (Table.HELD, keys.entry) if entry.held else (Table.DUE, keys.due)


class Step:
    """An entry's next state: stored and put back where it waits, or ended and removed."""

    def __init__(self, keyring: Keyring, wanted: Settlement | Change, after: Entry) -> None:
        """Make what becomes of an entry as `wanted`, where it is `after` but for its revision."""
        self._message = wanted.message
        self._keep_until = wanted.keep_until
        self._after = after
        self._accepted = Accepted(keyring, wanted.acceptances)
        self._events = [*wanted.events, *self._accepted.events]
        self._keys = entry_keys(after)
        self._pairs = entry_pairs(keyring, after, self._keys.entry) if after.waiting else []

    def settle(self, owner: Claim, group: Group) -> bool:
        """Store what an attempt came to, if it had the claim that is stored; tell whether it had."""
        if not _is_claimed(self._keys.entry, owner, group):
            return False
        self._accepted.check(group)
        group.delete(Table.CLAIMS, [self._keys.entry])
        first = int(owner.attempt == 1 and not self._message.scheduled)
        self._put(group, -first, first)
        return True

    def change(self, before: Entry, group: Group) -> bool:
        """Store a change of an entry that waits just as `before`; tell whether it does."""
        keys = entry_keys(before)
        table, row = _place(before, keys)
        if group.get(table, row) != revision_bytes(before):
            return False
        self._accepted.check(group)
        group.delete(table, [row])
        if not before.held:
            group.hint(gone=[keys.wake])
        group.delete(Table.TIMERS, timer_keys(keys.timer))
        scheduled = self._message.scheduled
        still = bool(self._after.waiting) and untried(self._after, scheduled=scheduled)
        self._put(group, still - untried(before, scheduled=scheduled))
        if self._after.waiting:
            group.put(Table.TIMERS, [(self._keys.timer, b"")])
        return True

    def _put(self, group: Group, fresh: int, tried: int = 0) -> None:
        """Store it; `fresh` and `tried` are by how much that changes what waits for its first attempt or had it."""
        self._accepted.put(group)
        group.log(self._events)
        after, keys, message = self._after, self._keys, self._message
        messages = octets = 0
        if after.waiting:
            replace_record(group, Table.ENTRIES, keys.entry, self._pairs)
            table, row = _place(after, keys)
            group.put(table, [(row, revision_bytes(after))])
            if not after.held:
                group.hint(came=[keys.wake])
        else:
            delete_record(group, Table.ENTRIES, keys.entry)
            group.delete(Table.TIMERS, timer_keys(keys.timer))
            if message.entries == 1 or not group.keys_from(Table.ENTRIES, message_key(after.message), 1):
                if self._keep_until:
                    group.put(Table.ENDED, [(ended_key(self._keep_until, message_key(message.id)), b"")])
                else:
                    remove_message(group, message)
                messages, octets = -1, -message.size
        if messages or fresh or tried:
            group.tally(keys.entry[:MESSAGE_BYTES], message.tenant, messages, octets, fresh, tried)


def remove_message(group: Group, message: Message) -> None:
    """Remove a message whose entries have ended; much content is left to the collector, and others keep theirs."""
    delete_record(group, Table.MESSAGES, message_key(message.id))
    segments = [each for each in message.segments if not each.shared or _was_last(group, each.content)]
    if sum([page_count(each.size) for each in segments]) <= DIRECT_PAGES:
        group.delete(Table.CONTENT, [key for each in segments for key in page_keys(each)])
    else:
        group.put(Table.LOOSE, [(each.content, loose_value(page_count(each.size), 0)) for each in segments])


def _was_last(group: Group, name: bytes) -> bool:
    """Count a place less in which shared content stands; tell whether there is none left."""
    row = group.get(Table.SHARED, name)
    if row is None:  # not counted, so that nobody knows who else needs it
        return False
    users = read_users(row) - 1
    if users > 0:
        group.put(Table.SHARED, [(name, users_value(users))])
        return False
    group.delete(Table.SHARED, [name])
    return True


def replace_record(group: Group, table: Table, key: bytes, pairs: Pairs) -> None:
    """Put a record over the one that is there, which may have had more pieces."""
    first = group.get(table, key + b"\x00")
    surplus = range(len(pairs), first[0]) if first is not None else range(0)
    if surplus:
        group.delete(table, [key + number.to_bytes(1, "big") for number in surplus])
    group.put(table, pairs)


def delete_record(group: Group, table: Table, key: bytes) -> bool:
    """Remove a record in all its pieces; False if there was none."""
    first = group.get(table, key + b"\x00")
    if first is None:
        return False
    group.delete(table, [key + number.to_bytes(1, "big") for number in range(first[0])])
    return True


def message_pairs(keyring: Keyring, message: Message) -> Pairs:
    """A message record as it is stored."""
    key = message_key(message.id)
    return pieces(key, keyring.seal("messages", message.accepted_at, encode(message), key))


def entry_pairs(keyring: Keyring, entry: Entry, key: bytes) -> Pairs:
    """An entry as it is stored under its key."""
    return pieces(key, keyring.seal("entries", entry.due_at, encode(entry), key))
