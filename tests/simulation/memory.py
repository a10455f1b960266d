"""A spool in memory: what mta.spool.interface promises, but for what outlives the process (tests/contract).

It is for the simulation, where a commit takes simulated time. What is asked is done at once and answered when the
commit is over: who is killed meanwhile has done it and does not know.
"""

import asyncio
from bisect import bisect_left, bisect_right, insort
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from heapq import heappop, heappush
from itertools import islice, zip_longest

import msgspec

from mta.mail.event import Event
from mta.spool.interface import (
    KEPT_LIMIT,
    NO_PLACES,
    Acceptance,
    Backlog,
    Change,
    Due,
    Keep,
    Kept,
    LanePlace,
    Refused,
    Settlement,
    Space,
    SpoolError,
    Taken,
    Terms,
    Throttled,
    Unavailable,
)
from mta.spool.records import Claim, Entry, Lane, Message, Segment, Wish
from mta.spool.sealing import SealBroken
from mta.spool.toll import Spent, take

PAGE = 4000
_NONE: frozenset[Lane] = frozenset()


class Stored:
    """What is stored, for all who have the spool open."""

    def __init__(self, heard: Callable[[Event], None] = lambda _: None) -> None:
        """`heard` is told every event, in commit order."""
        self.heard = heard
        self.messages: dict[str, Message] = {}
        self.entries: dict[str, Entry] = {}
        self.of_message: dict[str, dict[str, None]] = defaultdict(dict)
        self.claims: dict[str, Claim] = {}
        self.due: dict[Lane, list[tuple[float, str]]] = {}
        self.lanes: dict[Lane, Lane] = {}  # each always the same object, which is compared quickly
        self.come: set[Lane] = set()  # lanes that had work due when it was last asked for
        self.coming: list[tuple[float, Lane]] = []  # lanes whose first entry has changed since, and when it is due
        self.due_in_all: list[tuple[float, str]] = []
        self.timers: list[tuple[float, str]] = []
        self.contents: dict[bytes, bytes] = {}
        self.users: Counter[bytes] = Counter()  # of shared content: in how many places it stands
        self.loose: dict[bytes, float] = {}  # content that nothing refers to yet, and from when on it may be collected
        self.records: dict[tuple[str, str], bytes] = {}
        self.kept: dict[str, tuple[Keep, int]] = {}  # and the position that it was stored at
        self.ended: dict[str, tuple[Message, float]] = {}  # whose content is kept, and until when
        self.spent: dict[str, Spent] = {}
        self.log: list[tuple[int, Event]] = []
        self.position = 0
        self.epoch = 0
        self.gone: dict[str, Counter[str]] = defaultdict(Counter)  # of tenants: entries tried, messages and octets left

    def accept(self, acceptances: Sequence[Acceptance]) -> int:
        shared = {(each.content, one.message.tenant) for one in acceptances if one.entries for each in one.shared}
        taken = [each.content for acceptance in acceptances for each in acceptance.message.segments]
        taken += [content for content, _ in shared]
        if len(set(taken)) < len(taken) or not all(each in self.loose for each in taken):
            raise Refused("content belongs to one message, or is shared by those of one tenant")
        for each in acceptances:
            message = each.message
            if each.content:
                segment = Segment(message.id.encode(), len(each.content), b"")
                self.contents[segment.content] = each.content
                message = msgspec.structs.replace(message, segments=(*message.segments, segment))
            if each.entries:
                common = tuple(msgspec.structs.replace(one, shared=True) for one in each.shared)
                self.users.update(one.content for one in common)
                message = msgspec.structs.replace(message, segments=(*message.segments, *common))
                self.messages[message.id] = message
            for entry in each.entries:
                self._put(entry)
            self.tell(each.events)
        for content in taken:
            del self.loose[content]
        return self.position

    def accept_on(self, acceptances: Sequence[Acceptance], terms: Terms) -> Taken | Kept | Throttled:
        keep, names = terms.keep, [each.name for each in terms.tolls]
        if keep is not None:
            if len(keep.value) > KEPT_LIMIT:
                raise Refused("the answer is too large to be kept")
            found = self.kept_now(keep.name, terms.now)
            if found is not None:
                return found
        spent = take(terms.tolls, [self.spent.get(each) for each in names], terms.now)
        if isinstance(spent, Throttled):
            return spent
        position = self.accept(acceptances)
        self.spent.update(zip(names, spent, strict=True))
        if keep is not None:
            self.kept[keep.name] = keep, position
        return Taken(position, tuple(each.free_at for each in spent))

    def kept_now(self, name: str, now: float) -> Kept | None:
        keep, position = self.kept.get(name, (None, 0))
        return Kept(keep.digest, keep.value, position) if keep is not None and keep.until > now else None

    def forget_past(self, now: float) -> int:
        past = [name for name, (keep, _) in self.kept.items() if keep.until <= now]
        free = [name for name, spent in self.spent.items() if spent.free_at <= now]
        for name in past:
            del self.kept[name]
        for name in free:
            del self.spent[name]
        return len(past) + len(free)

    def tell(self, events: Sequence[Event]) -> None:
        for event in events:
            self.position += 1
            self.log.append((self.position, event))
            self.heard(event)

    def as_read(self, entry: Entry) -> bool:
        """Whether an entry is as somebody read it."""
        stored = self.entries.get(entry.id)
        return stored is not None and stored.revision == entry.revision and stored.held is entry.held

    def claim(self, entry: Entry, claim: Claim) -> bool:
        if not self.as_read(entry) or entry.held or entry.id in self.claims:
            return False
        self._out_of_lane(self.entries[entry.id])
        self.claims[entry.id] = claim
        return True

    def settle(self, settlement: Settlement) -> bool:
        entry = settlement.entry
        if self.claims.get(entry.id) != settlement.claim:
            return False
        del self.claims[entry.id]
        scheduled = self.messages[entry.message].scheduled
        self.gone[entry.tenant]["tried"] += not (self.entries[entry.id].attempts or scheduled)
        self._step(entry, settlement.events, settlement.acceptances, settlement.keep_until)
        return True

    def change(self, change: Change) -> bool:
        before = change.before
        if not self.as_read(before) or before.id in self.claims:
            return False
        self._out_of_lane(before)
        self._step(change.after, change.events, change.acceptances, change.keep_until)
        return True

    def _step(
        self, after: Entry, events: Sequence[Event], acceptances: Sequence[Acceptance], keep_until: float
    ) -> None:
        _remove(self.timers, (self.entries.pop(after.id).timer_at, after.id))
        self.accept(acceptances)
        self.tell(events)
        if after.waiting:
            self._put(msgspec.structs.replace(after, revision=after.revision + 1))
            return
        of_message = self.of_message[after.message]
        del of_message[after.id]
        if not of_message:
            del self.of_message[after.message]
            message = self.messages.pop(after.message)
            gone = self.gone[message.tenant]
            gone["left"] += 1
            gone["left_octets"] += message.size
            if keep_until:
                self.ended[message.id] = message, keep_until
            else:
                self.drop(message)

    def drop(self, message: Message) -> None:
        """Let go of a message's content, if it is the last that has it."""
        for segment in message.segments:
            self.users[segment.content] -= segment.shared
            if not self.users[segment.content]:
                del self.contents[segment.content], self.users[segment.content]

    def _put(self, entry: Entry) -> None:
        self.entries[entry.id] = entry
        self.of_message[entry.message][entry.id] = None
        insort(self.timers, (entry.timer_at, entry.id))
        if entry.held:
            return
        row, rows = (entry.due_at, entry.id), self.due.setdefault(entry.lane, [])
        insort(rows, row)
        insort(self.due_in_all, row)
        if rows[0] is row:
            self._begins_anew(entry.lane, entry.due_at)

    def _out_of_lane(self, entry: Entry) -> None:
        if entry.held:
            return
        row, rows = (entry.due_at, entry.id), self.due[entry.lane]
        was_first = _remove(rows, row) == 0
        _remove(self.due_in_all, row)
        if not rows:
            del self.due[entry.lane]
            self.come.discard(entry.lane)
        elif was_first:
            self._begins_anew(entry.lane, rows[0][0])

    def _begins_anew(self, lane: Lane, due_at: float) -> None:
        self.come.discard(lane)
        heappush(self.coming, (due_at, self.lanes.setdefault(lane, lane)))

    def lanes_due(self, now: float) -> set[Lane]:
        """List the lanes with work due at `now`, and those that had some before, if `now` was later then."""
        while self.coming and self.coming[0][0] <= now:
            _, lane = heappop(self.coming)
            if lane in self.due and self.due[lane][0][0] <= now:
                self.come.add(lane)
        return self.come


class MemoryContentWriter:
    """Content in the making; nothing refers to it until it is accepted."""

    def __init__(self, stored: Stored, name: bytes, until: float) -> None:
        self._stored = stored
        self._name = name
        stored.contents[name], stored.loose[name] = b"", until

    async def write(self, data: bytes) -> None:
        self._stored.contents[self._name] += data

    async def finish(self) -> Segment:
        return Segment(self._name, len(self._stored.contents[self._name]), b"")

    async def abort(self) -> None:
        if self._name in self._stored.loose:
            self._stored.loose[self._name] = 0.0


class MemorySpool:
    """One process's hold on what is stored."""

    def __init__(self, stored: Stored, now: Callable[[], float], commit: float = 0.0) -> None:
        """A commit takes `commit` seconds of the loop's time."""
        self._stored = stored
        self._now = now
        self._commit = commit
        self._closed = False

    async def _committed(self) -> None:
        await asyncio.sleep(self._commit)

    async def accept(self, acceptances: Sequence[Acceptance]) -> int:
        if self._closed:
            raise Unavailable("closed")
        position = self._stored.accept(acceptances)
        await self._committed()
        return position

    async def accept_on(self, acceptances: Sequence[Acceptance], terms: Terms) -> Taken | Kept | Throttled:
        if self._closed:
            raise Unavailable("closed")
        result = self._stored.accept_on(acceptances, terms)
        await self._committed()
        return result

    async def accept_each(
        self, acceptances: Sequence[Acceptance], terms: Sequence[Terms | None] = ()
    ) -> list[int | Kept | Throttled | SpoolError]:
        results: list[int | Kept | Throttled | SpoolError] = []
        for each, on in zip_longest(acceptances, terms):
            try:
                if on is None:
                    results.append(await self.accept([each]))
                    continue
                found = await self.accept_on([each], on)
                results.append(found.position if isinstance(found, Taken) else found)
            except SpoolError as error:
                results.append(error)
        return results

    async def kept(self, name: str, now: float) -> Kept | None:
        return self._stored.kept_now(name, now)

    def store_content(self) -> MemoryContentWriter:
        name = f"stored {len(self._stored.contents)}".encode()
        return MemoryContentWriter(self._stored, name, self._now() + 3600)

    async def lanes(
        self,
        now: float,
        limit: int,
        skip: Collection[Lane] = (),
        but_of: Collection[str] = (),
        after: Mapping[str, LanePlace] = NO_PLACES,
    ) -> list[Lane]:
        by_tenant: dict[str, list[LanePlace]] = defaultdict(list)
        # as a set that has their hashes, because most looks find nothing new
        known = skip - _NONE if isinstance(skip, AbstractSet) else set(skip)
        for lane in self._stored.lanes_due(now) - known:
            place = LanePlace(self._stored.due[lane][0][0], lane)
            passed = lane.tenant in but_of or (lane.tenant in after and place <= after[lane.tenant])
            if place.due_at <= now and not passed:
                by_tenant[lane.tenant].append(place)
        in_turn = zip_longest(*[sorted(places) for places in by_tenant.values()])
        return [each.lane for turn in in_turn for each in turn if each is not None][:limit]

    async def heads(self, lane: Lane, now: float, limit: int, skip: Collection[str]) -> list[Due]:
        rows = self._stored.due.get(lane, [])
        come = islice(rows, bisect_right(rows, (now, "~")))
        found = (self._due(entry_id) for _, entry_id in come if entry_id not in skip)
        return list(islice(found, limit))

    def _due(self, entry_id: str) -> Due:
        entry = self._stored.entries[entry_id]
        return Due(entry, self._stored.messages[entry.message])

    async def ahead_of(self, entry: Entry, limit: int) -> int:
        return min(limit, bisect_left(self._stored.due.get(entry.lane, []), (entry.due_at, entry.id)))

    async def backlogs(self) -> dict[str, Backlog]:
        stored = self._stored
        found: dict[str, Counter[str]] = defaultdict(Counter)
        for message in stored.messages.values():
            found[message.tenant].update(messages=1, octets=message.size)
        for entry in stored.entries.values():
            scheduled = stored.messages[entry.message].scheduled
            found[entry.tenant]["untried"] += not (entry.attempts or entry.held or scheduled)
        tenants = {*found, *stored.gone}
        return {each: Backlog(**(found[each] + stored.gone[each])) for each in tenants}

    async def count_backlog(self) -> bool:
        return False

    async def next_due_at(self, after: float) -> float | None:
        return _first_after(self._stored.due_in_all, after)

    async def claim(self, entry: Entry, claim: Claim) -> bool:
        done = self._stored.claim(entry, claim)
        await self._committed()
        return done

    async def wish(self, entry_id: str, claim: Claim, wish: Wish) -> bool:
        if self._stored.claims.get(entry_id) != claim:
            return False
        self._stored.claims[entry_id] = msgspec.structs.replace(claim, wish=wish)
        await self._committed()
        return True

    async def claims(self) -> list[tuple[Due, Claim]]:
        return [(self._due(entry_id), claim) for entry_id, claim in self._stored.claims.items()]

    async def settle(self, settlement: Settlement) -> bool:
        done = self._stored.settle(settlement)
        await self._committed()
        return done

    async def change(self, change: Change) -> bool:
        done = self._stored.change(change)
        await self._committed()
        return done

    async def timers(self, now: float, limit: int, skip: Collection[str] = ()) -> list[Due]:
        by_tenant: dict[str, list[Due]] = defaultdict(list)
        for _, entry_id in self._stored.timers[: bisect_right(self._stored.timers, (now, "~"))]:
            if entry_id not in self._stored.claims and entry_id not in skip:
                due = self._due(entry_id)
                by_tenant[due.entry.tenant].append(due)
        in_turn = zip_longest(*by_tenant.values())
        return [each for turn in in_turn for each in turn if each is not None][:limit]

    async def next_timer_at(self, after: float) -> float | None:
        return _first_after(self._stored.timers, after)

    async def content(self, message: Message, limit: int | None = None) -> bytes:
        found = [self._stored.contents.get(each.content) for each in message.segments]
        if None in found:  # the message has ended since it was read
            raise SealBroken(f"content of {message.id} is missing")
        return b"".join(filter(None, found))[:limit]

    async def message(self, message_id: str) -> Message | None:
        ended = self._stored.ended.get(message_id)
        return self._stored.messages.get(message_id) if ended is None else ended[0]

    async def entry(self, entry_id: str) -> Entry | None:
        return self._stored.entries.get(entry_id)

    async def entries(self, message_id: str) -> list[tuple[Entry, Claim | None]]:
        of_message = self._stored.of_message.get(message_id, {})
        return [(self._stored.entries[each], self._stored.claims.get(each)) for each in of_message]

    async def walk_entries(self, after: str = "") -> AsyncGenerator[tuple[Entry, Claim | None], None]:
        for entry_id, entry in sorted(self._stored.entries.items()):
            if entry_id > after:
                yield entry, self._stored.claims.get(entry_id)

    async def next_epoch(self) -> int:
        self._stored.epoch += 1
        return self._stored.epoch

    async def events_after(self, position: int, limit: int) -> list[tuple[int, Event]]:
        return [each for each in self._stored.log if each[0] > position][:limit]

    async def discard_events(self, position: int) -> None:
        self._stored.log = [each for each in self._stored.log if each[0] > position]

    async def log_end(self) -> int:
        return self._stored.position

    async def get_record(self, kind: str, name: str) -> bytes | None:
        return self._stored.records.get((kind, name))

    async def put_record(self, kind: str, name: str, value: bytes, *, replace: bool) -> bool:
        if (kind, name) in self._stored.records and not replace:
            return False
        self._stored.records[kind, name] = value
        return True

    async def change_record(self, kind: str, name: str, before: bytes, after: bytes) -> bool:
        if self._stored.records.get((kind, name)) != before:
            return False
        self._stored.records[kind, name] = after
        return True

    async def delete_record(self, kind: str, name: str) -> bool:
        return self._stored.records.pop((kind, name), None) is not None

    async def list_records(self, kind: str) -> list[tuple[str, bytes]]:
        return sorted((name, value) for (of, name), value in self._stored.records.items() if of == kind)

    async def collect(self, now: float) -> int:
        stored = self._stored
        gone = [name for name, until in stored.loose.items() if until < now]
        pages = sum(-(-len(stored.contents.pop(name)) // PAGE) for name in gone)
        for name in gone:
            del stored.loose[name]
        past = [name for name, (_, until) in stored.ended.items() if until < now]
        for name in past:
            stored.drop(stored.ended.pop(name)[0])
        return pages + len(past) + stored.forget_past(now)

    def space(self) -> Space:
        return Space(free=1 << 40, reserve=0, used=0)

    def healthy(self) -> bool:
        return True

    async def close(self) -> None:
        self._closed = True


def _remove(rows: list[tuple[float, str]], row: tuple[float, str]) -> int:
    """Remove a row from a sorted list, and return its place."""
    number = bisect_left(rows, row)
    assert rows[number] == row
    del rows[number]
    return number


def _first_after(rows: list[tuple[float, str]], after: float) -> float | None:
    number = bisect_right(rows, (after, "~"))
    return rows[number][0] if number < len(rows) else None
