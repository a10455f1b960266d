"""The spool in the words of the queue: what every implementation promises (tests/contract).

Every call is awaitable and durable on return; `now` and ids come from the caller. No cursor, no
transaction and no key crosses this interface, because a second implementation (PostgreSQL) will stand
behind it. A call that is cancelled has happened or has not; it is never half done.

Failures are three, all SpoolError: Refused (nothing was stored), Uncertain (it may have been stored) and
Unavailable (nothing was tried; the spool is closed, sick or has no room).
"""

from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, Protocol

import msgspec

from mta.mail.event import Event
from mta.spool.records import Claim, Entry, Lane, Message, Segment, Wish


class SpoolError(Exception):
    """The spool did not do what it was asked."""


class Refused(SpoolError):
    """Nothing was stored, and the same call would fail again."""


class Uncertain(SpoolError):
    """The commit failed half-way: the change may or may not be stored."""


class Unavailable(SpoolError):
    """Nothing was tried: the spool is closed or has failed and not been checked since."""


class Full(Unavailable):
    """Nothing was tried: the room left is the reserve for deliveries and outcomes."""


class Acceptance(msgspec.Struct, frozen=True, kw_only=True):
    """A message to be stored whole: record, entries, the event that says so, content not yet stored.

    `content` follows the record's segments (those committed as they arrived); the spool makes a segment of it, and
    `shared` come last: also committed before, they may stand in several messages of one tenant in one call, and go
    with the last of these. An acceptance without entries (all recipients dropped) stores its events alone.
    """

    message: Message
    entries: tuple[Entry, ...]
    events: tuple[Event, ...]
    content: bytes = b""
    shared: tuple[Segment, ...] = ()


KEPT_LIMIT = 600_000  # octets of an answer: of 1,000 messages ids are 40,000 and Message-IDs 510,000 at most


class Keep(msgspec.Struct, frozen=True, array_like=True):
    """What is kept with an acceptance: the answer for whoever asks the same under the same name again.

    `digest` tells what was asked, `value` is the answer, KEPT_LIMIT octets at most, kept until `until` (absolute
    seconds).
    """

    name: str
    digest: bytes
    value: bytes
    until: float


class Toll(msgspec.Struct, frozen=True, array_like=True):
    """So many units of a rate: a unit each `interval` seconds, and `burst` units at once (GCRA).

    More units than `burst` are taken when the rate is all free, and keep it taken up for as long as they last.
    """

    name: str
    interval: float
    burst: int
    units: int


class Terms(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """On what terms messages are stored, looked at in the transaction that stores them."""

    now: float
    keep: Keep | None = None
    tolls: tuple[Toll, ...] = ()


class Taken(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """All is stored. `position` is that of the last event, `free_at` when each toll's rate is all free again."""

    position: int
    free_at: tuple[float, ...] = ()


class Kept(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Nothing was stored: something is kept under that name, stored at `position`."""

    digest: bytes
    value: bytes
    position: int


class Throttled(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Nothing was stored: the rate of the toll of this number has room again in `retry_after` seconds."""

    toll: int
    retry_after: float
    free_at: tuple[float, ...] = ()


class Due(msgspec.Struct, frozen=True):
    """An entry that may be claimed, and the message it belongs to."""

    entry: Entry
    message: Message


class Settlement(msgspec.Struct, frozen=True, kw_only=True):
    """What an attempt came to: the entry's next state, the events that tell of it, DSNs accepted with it.

    An entry with nobody waiting has ended: it is removed, and its message with its last sibling; with a `keep_until`
    this stays until then, with its content. `entry.timer_at` is as it was. A claim with whom somebody left a wish is
    not the one that was made.
    """

    message: Message
    entry: Entry
    claim: Claim
    events: tuple[Event, ...] = ()
    acceptances: tuple[Acceptance, ...] = ()
    keep_until: float = 0.0


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A change of an entry nobody has claimed, held or not: `before` must be what is stored, or nothing happens.

    `keep_until` is as in a Settlement.
    """

    message: Message
    before: Entry
    after: Entry
    events: tuple[Event, ...] = ()
    acceptances: tuple[Acceptance, ...] = ()
    keep_until: float = 0.0


class Space(msgspec.Struct, frozen=True):
    """Octets: what can still be written, what the reserve keeps back, what the file holds."""

    free: int
    reserve: int
    used: int

    @property
    def accepting(self) -> bool:
        """Whether new mail may come in."""
        return self.free > self.reserve


class Backlog(msgspec.Struct, frozen=True):
    """What a tenant has waiting, and what has gone through since it was counted first.

    `messages` and `octets` of content wait; `untried` entries wait for their first attempt and are not held. `tried`
    have had it (neither has those of scheduled messages), and messages have `left` with `left_octets`: these only
    grow, but for a spool that is counted anew.
    """

    messages: int = 0
    octets: int = 0
    untried: int = 0
    tried: int = 0
    left: int = 0
    left_octets: int = 0


class ContentWriter(Protocol):
    """Large or shared content, committed as it arrives; collected by the spool if never referred to."""

    async def write(self, data: bytes) -> None:
        """Add to the content. Durable on return."""

    async def finish(self) -> Segment:
        """End the content and name it; accept a message that refers to it within an hour."""

    async def abort(self) -> None:
        """Give the content up, ended or not; nothing happens if a message refers to it."""


class LanePlace(NamedTuple):
    """Where a lane stands among those of its tenant, by when its first entry was due."""

    due_at: float
    lane: Lane


NO_PLACES: Mapping[str, LanePlace] = MappingProxyType({})


class Spool(Protocol):
    """The durable store. See the module's text for what holds of every call."""

    async def accept_on(self, acceptances: Sequence[Acceptance], terms: Terms) -> Taken | Kept | Throttled:
        """Store all of the messages or none, if nothing is kept under the name and the rates have room."""

    async def kept(self, name: str, now: float) -> Kept | None:
        """Tell what is kept under a name, None if nothing is; it costs no commit."""

    async def accept(self, acceptances: Sequence[Acceptance]) -> int:
        """Store all of the messages or none; return the log position of the last event."""

    async def accept_each(
        self, acceptances: Sequence[Acceptance], terms: Sequence[Terms | None] = ()
    ) -> list[int | Kept | Throttled | SpoolError]:
        """Store messages that have nothing to do with each other: for each what `accept` returns or raises.

        Those that have terms of their own (none has, or each may) are stored as `accept_on` does; what is taken is told
        by its position alone.
        """

    def store_content(self) -> ContentWriter:
        """Begin content that is committed as it arrives (over 256 KiB, or shared by several messages)."""

    async def lanes(
        self,
        now: float,
        limit: int,
        skip: Collection[Lane] = (),
        but_of: Collection[str] = (),
        after: Mapping[str, LanePlace] = NO_PLACES,
    ) -> list[Lane]:
        """List up to `limit` lanes that have work due at `now`, tenants in turn, each's longest waiting first.

        Those in `skip` are passed over, and at no cost all of the tenants `but_of` and what comes before a tenant's
        place, or is there.
        """

    async def heads(self, lane: Lane, now: float, limit: int, skip: Collection[str]) -> list[Due]:
        """Read up to `limit` entries of a lane due at `now`, neither claimed nor held, in due order.

        Entry ids in `skip` (claims on their way) are passed over.
        """

    async def ahead_of(self, entry: Entry, limit: int) -> int:
        """Count the entries that come before this one in its lane, due or not, `limit` at most."""

    async def next_due_at(self, after: float) -> float | None:
        """Return the first due time after `after`, or a time before it; None when nothing waits for one."""

    async def claim(self, entry: Entry, claim: Claim) -> bool:
        """Take an entry for an attempt; False if it changed, was claimed, is held or is gone."""

    async def wish(self, entry_id: str, claim: Claim, wish: Wish) -> bool:
        """Leave a wish with a claim, in place of the one it has; False if the claim is not the stored one."""

    async def claims(self) -> list[tuple[Due, Claim]]:
        """List what is in flight, for a restart."""

    async def settle(self, settlement: Settlement) -> bool:
        """Store an attempt's outcome; False (and no change) if the claim is not the stored one."""

    async def change(self, change: Change) -> bool:
        """Change an entry nobody has claimed; False (and no change) if it is claimed or not as before."""

    async def timers(self, now: float, limit: int, skip: Collection[str] = ()) -> list[Due]:
        """Read up to `limit` unclaimed entries whose timer has come, tenants in turn, each's earliest first.

        When timers of so many seconds have come that they are not looked through at once, the next call goes on behind
        them. Entry ids in `skip` (changes on their way) are passed over.
        """

    async def next_timer_at(self, after: float) -> float | None:
        """Return when the first timer after `after` comes; None when there is none."""

    async def content(self, message: Message, limit: int | None = None) -> bytes:
        """Read a message's content, or its first `limit` octets; SpoolError if it fails its seal."""

    async def message(self, message_id: str) -> Message | None:
        """Read a message's record."""

    async def entry(self, entry_id: str) -> Entry | None:
        """Read an entry."""

    async def entries(self, message_id: str) -> list[tuple[Entry, Claim | None]]:
        """Read the entries of a message, with their claims."""

    def walk_entries(self, after: str = "") -> AsyncGenerator[tuple[Entry, Claim | None], None]:
        """Walk all entries, or those after an entry id, oldest first, a bounded number at a time; not a snapshot."""

    async def backlogs(self) -> dict[str, Backlog]:
        """Tell what each tenant has waiting; less, while a spool of an earlier version is being counted."""

    async def count_backlog(self) -> bool:
        """Count a bounded part of what has not been counted; tell whether there is more."""

    async def next_epoch(self) -> int:
        """Make this caller the owner of deliveries: a new epoch, greater than any before."""

    async def events_after(self, position: int, limit: int) -> list[tuple[int, Event]]:
        """Read the log's tail in commit order, after `position`."""

    async def discard_events(self, position: int) -> None:
        """Forget events up to `position`: they are safe in a segment."""

    async def log_end(self) -> int:
        """Return the position of the last event, 0 before the first."""

    async def get_record(self, kind: str, name: str) -> bytes | None:
        """Read a named record (tenants, keys, credentials, domains, cursors)."""

    async def put_record(self, kind: str, name: str, value: bytes, *, replace: bool) -> bool:
        """Store a named record; False (and no change) if it exists and `replace` is not set."""

    async def change_record(self, kind: str, name: str, before: bytes, after: bytes) -> bool:
        """Replace a named record that is still what was read; False (and no change) if it is another one or gone."""

    async def delete_record(self, kind: str, name: str) -> bool:
        """Remove a named record; False if there was none."""

    async def list_records(self, kind: str) -> list[tuple[str, bytes]]:
        """Read all records of a kind, by name."""

    async def collect(self, now: float) -> int:
        """Remove a bounded amount of content that nothing refers to, and of what was kept and is past.

        Return how much went: 0 when there is no more.
        """

    def space(self) -> Space:
        """Tell the room that is left, at most a second old."""

    def healthy(self) -> bool:
        """Tell whether this process can commit."""

    async def close(self) -> None:
        """Finish what was begun, then close."""
