"""What every spool must do: run by each implementation's own test module, which gives `open_spool`.

`open_spool()` returns an open spool on the same durable state each time it is called within a test; two
open at once are two processes' views.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from mta.mail.envelope import Recipient
from mta.mail.event import Event, EventType, event_id
from mta.mail.ids import new_message_id
from mta.spool.interface import (
    Acceptance,
    Backlog,
    Change,
    LanePlace,
    Refused,
    Settlement,
    Spool,
    SpoolError,
    Unavailable,
)
from mta.spool.records import Claim, Entry, Message, MessageClass, Origin, RecipientState, Segment, State, Timer, Wish

NOW = 1_800_000_000.0
OpenSpool = Callable[[], Awaitable[Spool]]


def a_message(
    *,
    domain: str = "example.org",
    domains: tuple[str, ...] = (),
    tenant: str = "acme",
    due_at: float = NOW,
    timer_at: float = NOW + 1000,
    content: bytes = b"Subject: hello\r\n\r\nbody\r\n",
    recipients: int = 1,
) -> Acceptance:
    names = domains or (domain,)
    message = Message(
        id=new_message_id(), tenant=tenant, sender="a@acme.test", origin=Origin.RELAY, accepted_at=NOW,
        release_at=NOW, expires_at=NOW + 259_200, segments=(), entries=len(names),
    )  # fmt: skip
    entries = tuple(
        Entry(
            message=message.id,
            number=number,
            tenant=tenant,
            message_class=MessageClass.NORMAL,
            domain=name,
            recipients=tuple(RecipientState(Recipient(f"user{n}@{name}")) for n in range(recipients)),
            due_at=due_at,
            expires_at=message.expires_at,
            timer_at=timer_at,
            timer=Timer.EXPIRY,
        )
        for number, name in enumerate(names, start=1)
    )
    return Acceptance(message=message, entries=entries, events=(an_event(message, 0),), content=content)


def an_event(message: Message, entry: int, number: int = 1, kind: EventType = EventType.ACCEPTED) -> Event:
    return Event(id=event_id(message.id, entry, number), type=kind, at=NOW, tenant=message.tenant, message=message.id)


def ended(entry: Entry, state: State = State.DELIVERED) -> Entry:
    recipients = tuple(RecipientState(each.recipient, state) for each in entry.recipients)
    return msgspec.structs.replace(entry, recipients=recipients)


CLAIM = Claim(epoch=1, attempt=1, retry_at=NOW + 30)
STRANGER = Claim(epoch=2, attempt=1, retry_at=NOW + 30)


async def the_head(spool: Spool, entry: Entry, now: float = NOW) -> tuple[Entry, Message]:
    heads = await spool.heads(entry.lane, now, 100, ())
    return next((due.entry, due.message) for due in heads if due.entry.id == entry.id)


class SpoolContract:
    """Promises of mta.spool.interface, one test each."""

    @pytest.fixture
    def open_spool(self) -> OpenSpool:
        raise NotImplementedError

    async def test_accepted_is_there_after_reopening(self, open_spool: OpenSpool) -> None:
        spool = await open_spool()
        accepted = a_message(content=os.urandom(20_000))
        position = await spool.accept([accepted])
        await spool.close()
        spool = await open_spool()
        entry, message = await the_head(spool, accepted.entries[0])
        assert await spool.content(message) == accepted.content
        assert await spool.content(message, 5000) == accepted.content[:5000]
        assert entry == accepted.entries[0]
        assert await spool.log_end() == position == 1
        await spool.close()

    async def test_all_of_several_messages_or_none(self, open_spool: OpenSpool) -> None:
        spool = await open_spool()
        good, bad = a_message(), a_message()
        gone = spool.store_content()
        await gone.write(b"x" * 10_000)
        segment = await gone.finish()
        taken = msgspec.structs.replace(good.message, segments=(segment,))
        await spool.accept([msgspec.structs.replace(good, message=taken)])
        stolen = msgspec.structs.replace(bad.message, segments=(segment,))
        other = a_message()
        with pytest.raises(Refused):
            await spool.accept([other, msgspec.structs.replace(bad, message=stolen)])
        assert await spool.message(other.message.id) is None
        assert await spool.log_end() == 1
        await spool.close()

    async def test_each_of_several_messages_by_itself(self, open_spool: OpenSpool) -> None:
        spool = await open_spool()
        gone = Segment(b"x" * 16, 10, b"k" * 32)
        bad = a_message()
        bad = msgspec.structs.replace(bad, message=msgspec.structs.replace(bad.message, segments=(gone,)))
        first, last = a_message(), a_message()
        results = await spool.accept_each([first, bad, last])
        assert results[0] == 1
        assert isinstance(results[1], Refused)
        assert results[2] == 2
        for each, there in ((first, True), (bad, False), (last, True)):
            assert (await spool.message(each.message.id) is not None) is there
        assert await spool.accept_each([]) == []
        await spool.close()
        (closed,) = await spool.accept_each([a_message()])
        assert isinstance(closed, Unavailable)

    async def test_a_hung_up_caller_does_not_undo_a_commit(self, open_spool: OpenSpool) -> None:
        spool = await open_spool()
        accepted = a_message()
        task = asyncio.create_task(spool.accept([accepted]))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await spool.accept([a_message()])
        assert await spool.message(accepted.message.id) is not None
        await spool.close()

    async def test_large_content_is_committed_as_it_arrives(self, open_spool: OpenSpool) -> None:
        spool = await open_spool()
        data = os.urandom(3_000_000)
        writer = spool.store_content()
        for start in range(0, len(data), 300_000):
            await writer.write(data[start : start + 300_000])
        segment = await writer.finish()
        assert segment.size == len(data)
        accepted = a_message(content=b"tail\r\n")
        stored = msgspec.structs.replace(accepted.message, segments=(segment,))
        await spool.accept([msgspec.structs.replace(accepted, message=stored)])
        _, message = await the_head(spool, accepted.entries[0])
        assert await spool.content(message) == data + b"tail\r\n"
        await spool.close()

    async def test_content_nobody_refers_to_is_collected_and_the_other_kept(self, open_spool: OpenSpool) -> None:
        spool = await open_spool()
        kept = spool.store_content()
        await kept.write(b"k" * 500_000)
        segment = await kept.finish()
        accepted = a_message(content=b"")
        stored = msgspec.structs.replace(accepted.message, segments=(segment,))
        await spool.accept([msgspec.structs.replace(accepted, message=stored)])
        lost = spool.store_content()
        await lost.write(b"l" * 500_000)
        given_up = spool.store_content()
        await given_up.write(b"g" * 500_000)
        await given_up.abort()
        assert await self.collect_all(spool, NOW) > 100  # what was given up goes at once
        assert await self.collect_all(spool, NOW) == 0  # what may still be accepted stays
        assert await self.collect_all(spool, NOW + 7200) > 100
        _, message = await the_head(spool, accepted.entries[0])
        assert await spool.content(message) == b"k" * 500_000
        await spool.close()

    async def collect_all(self, spool: Spool, now: float) -> int:
        total = 0
        while gone := await spool.collect(now):
            total += gone
        return total

    async def a_batch(
        self, spool: Spool, contents: list[bytes], common: bytes, tenants: tuple[str, ...] = ("acme",)
    ) -> list[Acceptance]:
        """Make messages that have `common` behind their own contents; not accepted yet."""
        writer = spool.store_content()
        await writer.write(common)
        shared = (await writer.finish(),)
        made = [a_message(content=each, tenant=tenants[n % len(tenants)]) for n, each in enumerate(contents)]
        return [msgspec.structs.replace(each, shared=shared) for each in made]

    async def end(self, spool: Spool, accepted: Acceptance) -> None:
        """Deliver a message to its end."""
        for each in accepted.entries:
            entry, message = await the_head(spool, each)
            assert await spool.claim(entry, CLAIM)
            assert await spool.settle(Settlement(message=message, entry=ended(entry), claim=CLAIM))

    @pytest.mark.parametrize("size", [50, 700_000])
    async def test_shared_content_stays_until_the_last_message_has_ended(
        self, open_spool: OpenSpool, size: int
    ) -> None:
        spool, common = await open_spool(), os.urandom(size)
        own = [b"one\r\n", b"", os.urandom(9000), b"four\r\n"]
        batch = await self.a_batch(spool, own, common)
        position = await spool.accept(batch)
        assert position == 4
        await self.collect_all(spool, NOW + 7200)  # nothing of it is loose any more
        await spool.close()
        spool = await open_spool()
        left = list(zip(batch, own, strict=True))
        for number in (2, 0, 1, 0):
            for each, content in left:
                _, message = await the_head(spool, each.entries[0])
                assert message.size == len(content) + size
                assert await spool.content(message) == content + common
                assert await spool.content(message, 20) == (content + common)[:20]
            await self.end(spool, left.pop(number)[0])
        await self.collect_all(spool, NOW)
        with pytest.raises(SpoolError):
            await spool.content(message)
        assert await self.collect_all(spool, NOW + 7200) == 0
        await spool.close()

    async def test_a_message_may_have_stored_own_and_several_shared_stretches(self, open_spool: OpenSpool) -> None:
        spool = await open_spool()
        parts = [b"stored\r\n", b"own\r\n", b"first\r\n", b"second\r\n"]
        writers = [spool.store_content() for _ in range(3)]
        for writer, data in zip(writers, [parts[0], *parts[2:]], strict=True):
            await writer.write(data)
        stored, first, second = [await each.finish() for each in writers]
        one, other = a_message(content=parts[1]), a_message(content=parts[1])
        with_stored = msgspec.structs.replace(one.message, segments=(stored,))
        one = msgspec.structs.replace(one, message=with_stored, shared=(first, second))
        other = msgspec.structs.replace(other, shared=(second, first, second))
        await spool.accept([one, other])
        _, message = await the_head(spool, one.entries[0])
        assert await spool.content(message) == b"".join(parts)
        await self.end(spool, one)
        _, message = await the_head(spool, other.entries[0])
        assert await spool.content(message) == b"own\r\nsecond\r\nfirst\r\nsecond\r\n"
        await self.end(spool, other)
        assert await self.collect_all(spool, NOW + 7200) == 0
        await spool.close()

    async def test_content_is_shared_in_one_call_and_by_one_tenant(self, open_spool: OpenSpool) -> None:
        spool = await open_spool()
        batch = await self.a_batch(spool, [b"1", b"2"], b"c" * 50, ("acme", "other"))
        with pytest.raises(Refused):
            await spool.accept(batch)
        assert await spool.log_end() == 0
        first, second, third = await self.a_batch(spool, [b"1", b"2", b"3"], b"c" * 50)
        as_own = msgspec.structs.replace(second.message, segments=second.shared)
        for owning in (
            msgspec.structs.replace(second, message=as_own),
            msgspec.structs.replace(second, message=as_own, shared=()),
        ):
            with pytest.raises(Refused):
                await spool.accept([first, owning])
        results = await spool.accept_each([first, second])
        assert results[0] == 1
        assert isinstance(results[1], Refused)
        _, message = await the_head(spool, first.entries[0])
        late = msgspec.structs.replace(third, shared=message.segments[-1:])
        for each in (second, third, late, msgspec.structs.replace(third, message=as_own, shared=())):
            with pytest.raises(Refused):
                await spool.accept([each])
        assert await spool.content(message) == b"1" + b"c" * 50
        await self.end(spool, first)
        assert await self.collect_all(spool, NOW) == 0
        assert await self.collect_all(spool, NOW + 7200) == 1  # that of the batch of two tenants
        await spool.close()

    async def test_a_tenant_has_waiting_what_its_messages_are_as_if_nothing_was_shared(
        self, open_spool: OpenSpool
    ) -> None:
        spool = await open_spool()
        batch = await self.a_batch(spool, [b"1\r\n", b"22\r\n"], b"c" * 50)
        nobody = msgspec.structs.replace(batch[0], message=a_message().message, entries=())
        await spool.accept([*batch, nobody])
        assert await spool.backlogs() == {"acme": Backlog(messages=2, octets=107, untried=2)}
        await self.end(spool, batch[0])
        assert await spool.backlogs() == {"acme": Backlog(1, 54, 1, tried=1, left=1, left_octets=53)}
        await self.end(spool, batch[1])
        assert await spool.backlogs() == {"acme": Backlog(tried=2, left=2, left_octets=107)}
        await spool.close()

    async def test_ended_content_is_given_up_unless_a_message_refers_to_it(self, open_spool: OpenSpool) -> None:
        spool = await open_spool()
        refused, accepted = spool.store_content(), spool.store_content()
        for each in (refused, accepted):
            await each.write(b"c" * 50)
        await refused.finish()
        one = msgspec.structs.replace(a_message(), shared=(await accepted.finish(),))
        await spool.accept([one])
        assert await self.collect_all(spool, NOW) == 0
        for each in (refused, accepted, refused):
            await each.abort()
        assert await self.collect_all(spool, NOW) == 1
        _, message = await the_head(spool, one.entries[0])
        assert (await spool.content(message)).endswith(b"c" * 50)
        await spool.close()

    async def test_an_entry_is_claimed_once(self, open_spool: OpenSpool) -> None:
        spool, other = await open_spool(), None
        accepted = a_message()
        await spool.accept([accepted])
        entry, _ = await the_head(spool, accepted.entries[0])
        answers = await asyncio.gather(*(spool.claim(entry, CLAIM) for _ in range(5)))
        assert sorted(answers) == [False, False, False, False, True]
        assert await spool.heads(entry.lane, NOW + 1e6, 10, ()) == []
        await spool.close()
        other = await open_spool()
        ((due, claim),) = await other.claims()
        assert (due.entry, claim) == (entry, CLAIM)
        await other.close()

    async def test_a_stale_claim_settles_nothing(self, open_spool: OpenSpool) -> None:
        spool = await open_spool()
        accepted = a_message()
        await spool.accept([accepted])
        entry, message = await the_head(spool, accepted.entries[0])
        await spool.claim(entry, CLAIM)
        event = an_event(message, 1, kind=EventType.DELIVERED)
        for stale in (Claim(epoch=2, attempt=1, retry_at=NOW + 30), Claim(epoch=1, attempt=2, retry_at=NOW + 30)):
            assert not await spool.settle(Settlement(message=message, entry=ended(entry), claim=stale, events=(event,)))
        assert await spool.log_end() == 1
        assert await spool.settle(Settlement(message=message, entry=ended(entry), claim=CLAIM, events=(event,)))
        assert not await spool.settle(Settlement(message=message, entry=ended(entry), claim=CLAIM, events=(event,)))
        assert [each.type for _, each in await spool.events_after(0, 10)] == ["accepted", "delivered"]
        await spool.close()

    async def test_a_message_goes_with_its_last_entry(self, open_spool: OpenSpool) -> None:
        spool = await open_spool()
        accepted = a_message(domains=("one.test", "two.test", "three.test"))
        await spool.accept([accepted])
        for number, each in enumerate(accepted.entries):
            entry, message = await the_head(spool, each)
            assert await spool.content(message) == accepted.content
            assert await spool.claim(entry, CLAIM)
            assert await spool.settle(Settlement(message=message, entry=ended(entry), claim=CLAIM))
            assert len(await spool.entries(message.id)) == 2 - number
        assert await spool.message(accepted.message.id) is None
        with pytest.raises(SpoolError):
            await spool.content(message)
        assert [each async for each in spool.walk_entries()] == []
        assert await spool.timers(NOW + 1e7, 10) == []
        await spool.close()

    @pytest.mark.parametrize("size", [1000, 600_000])
    async def test_a_message_that_has_ended_is_kept_as_was_asked(self, open_spool: OpenSpool, size: int) -> None:
        spool = await open_spool()
        accepted = a_message(content=os.urandom(size // 2).hex().encode(), domains=("one.test", "two.test"))
        await spool.accept([accepted])
        entry, message = await the_head(spool, accepted.entries[0])
        assert await spool.claim(entry, CLAIM)
        until = NOW + 100
        kept = Settlement(message=message, entry=ended(entry), claim=CLAIM, keep_until=until)
        assert await spool.settle(kept)
        other, _ = await the_head(spool, accepted.entries[1])
        assert await spool.change(Change(message=message, before=other, after=ended(other), keep_until=until))
        assert await spool.entries(message.id) == []
        assert (await spool.backlogs()).get(message.tenant, Backlog()).messages == 0
        await spool.collect(until)
        found = await spool.message(message.id)
        assert found is not None
        assert await spool.content(found) == accepted.content
        while await spool.collect(until + 1):
            pass
        assert await spool.message(message.id) is None
        with pytest.raises(SpoolError):
            await spool.content(message)
        await spool.close()

    async def test_a_deferred_entry_waits_for_its_time(self, open_spool: OpenSpool) -> None:
        spool = await open_spool()
        accepted = a_message(recipients=50)
        await spool.accept([accepted])
        entry, message = await the_head(spool, accepted.entries[0])
        await spool.claim(entry, CLAIM)
        later = msgspec.structs.replace(entry, due_at=NOW + 30, attempts=1, last_reply="451 4.7.1 later " + "x" * 400)
        assert await spool.settle(Settlement(message=message, entry=later, claim=CLAIM))
        assert await spool.heads(entry.lane, NOW + 29.9, 10, ()) == []
        assert await spool.lanes(NOW + 29.9, 10) == []
        assert await spool.lanes(NOW + 30, 10) == [entry.lane]
        found, _ = await the_head(spool, entry, NOW + 30)
        assert (found.attempts, found.last_reply) == (1, later.last_reply)
        assert await spool.claims() == []
        shorter = msgspec.structs.replace(found, recipients=found.recipients[:1], due_at=NOW + 60)
        assert await spool.change(Change(message=message, before=found, after=shorter))
        assert (await the_head(spool, entry, NOW + 60))[0].recipients == found.recipients[:1]
        await spool.close()

    async def test_a_change_needs_the_entry_unclaimed_and_as_it_was(self, open_spool: OpenSpool) -> None:
        spool, other = await open_spool(), await open_spool()
        accepted = a_message(timer_at=NOW + 100)
        await spool.accept([accepted])
        entry, message = await the_head(other, accepted.entries[0])
        moved = msgspec.structs.replace(entry, timer_at=NOW + 500)
        assert await other.change(Change(message=message, before=entry, after=moved))
        assert not await spool.claim(entry, CLAIM)  # what it was read as is no more
        assert not await spool.change(Change(message=message, before=entry, after=ended(entry)))
        assert [due.entry.id for due in await spool.timers(NOW + 499, 10)] == []
        assert [due.entry.id for due in await spool.timers(NOW + 501, 10)] == [entry.id]
        fresh, _ = await the_head(spool, entry)
        assert await spool.claim(fresh, CLAIM)
        assert not await spool.change(Change(message=message, before=fresh, after=ended(fresh, State.DROPPED)))
        assert await spool.timers(NOW + 501, 10) == []  # claimed: the attempt decides first
        await spool.close()
        await other.close()

    async def test_timers_come_tenants_in_turn(self, open_spool: OpenSpool) -> None:
        spool = await open_spool()
        many = [a_message(tenant="flood", timer_at=NOW + n // 10) for n in range(30)]
        later = [a_message(tenant="flood", timer_at=NOW + 50)]
        others = [a_message(tenant=each, timer_at=NOW + 30) for each in ("a", "b", "b")]
        await spool.accept([*many, *later, *others])
        found = await spool.timers(NOW + 40, 6)
        assert sorted(each.message.tenant for each in found[:3]) == ["a", "b", "flood"]
        assert sorted(each.message.tenant for each in found) == ["a", "b", "b", "flood", "flood", "flood"]
        skip = {each.entry.id for each in found}
        more = await spool.timers(NOW + 40, 100, skip)
        assert {each.message.id for each in (*found, *more)} == {each.message.id for each in (*many, *others)}
        assert len(more) == 27
        firsts = [each.entry.timer_at for each in (*found, *more) if each.message.tenant == "flood"]
        assert firsts == sorted(firsts)
        await spool.close()

    async def test_a_held_entry_is_in_no_lane_and_its_timer_comes(self, open_spool: OpenSpool) -> None:
        spool = await open_spool()
        accepted = a_message(timer_at=NOW + 100)
        await spool.accept([accepted])
        entry, message = await the_head(spool, accepted.entries[0])
        assert await spool.change(
            Change(message=message, before=entry, after=msgspec.structs.replace(entry, held=True))
        )
        await spool.close()
        spool = await open_spool()
        ((held, claim),) = await spool.entries(message.id)
        assert (held.held, claim) == (True, None)
        assert await spool.lanes(NOW, 10) == []
        assert await spool.heads(entry.lane, NOW, 10, ()) == []
        assert await spool.next_due_at(NOW - 1) is None
        assert not await spool.claim(entry, CLAIM)
        assert not await spool.claim(held, CLAIM)
        assert [due.entry for due in await spool.timers(NOW + 101, 10)] == [held]
        assert not await spool.change(Change(message=message, before=entry, after=ended(entry)))  # as it was no more
        released = msgspec.structs.replace(held, held=False)
        assert await spool.change(Change(message=message, before=held, after=released))
        assert not await spool.change(Change(message=message, before=held, after=ended(held)))
        assert await spool.lanes(NOW, 10) == [entry.lane]
        assert await spool.claim((await the_head(spool, entry))[0], CLAIM)
        await spool.close()

    async def test_a_held_entry_can_end(self, open_spool: OpenSpool) -> None:
        spool = await open_spool()
        accepted = a_message()
        await spool.accept([accepted])
        entry, message = await the_head(spool, accepted.entries[0])
        await spool.change(Change(message=message, before=entry, after=msgspec.structs.replace(entry, held=True)))
        ((held, _),) = await spool.entries(message.id)
        assert await spool.change(Change(message=message, before=held, after=ended(held, State.EXPIRED)))
        assert await spool.message(message.id) is None
        assert [each async for each in spool.walk_entries()] == []
        assert await spool.timers(NOW + 1e7, 10) == []
        await spool.close()

    async def test_an_attempt_can_leave_an_entry_held_and_in_another_lane(self, open_spool: OpenSpool) -> None:
        spool = await open_spool()
        accepted = a_message()
        await spool.accept([accepted])
        entry, message = await the_head(spool, accepted.entries[0])
        await spool.claim(entry, CLAIM)
        after = msgspec.structs.replace(entry, held=True, message_class=MessageClass.BULK, relay="relay.test:25")
        assert await spool.settle(Settlement(message=message, entry=after, claim=CLAIM))
        assert await spool.lanes(NOW, 10) == []
        ((held, _),) = await spool.entries(message.id)
        released = msgspec.structs.replace(held, held=False)
        assert await spool.change(Change(message=message, before=held, after=released))
        found, _ = await the_head(spool, after)
        assert (found.message_class, found.relay) == (MessageClass.BULK, "relay.test:25")
        await spool.close()

    async def test_a_wish_is_kept_with_its_claim_and_makes_it_another(self, open_spool: OpenSpool) -> None:
        spool = await open_spool()
        accepted = a_message()
        await spool.accept([accepted])
        entry, message = await the_head(spool, accepted.entries[0])
        wish = Wish(held=True, relay="relay.test:25", reason="why not")
        assert not await spool.wish(entry.id, CLAIM, wish)  # nobody has claimed it
        await spool.claim(entry, CLAIM)
        assert not await spool.wish(entry.id, msgspec.structs.replace(CLAIM, epoch=2), wish)
        assert await spool.wish(entry.id, CLAIM, Wish(end=State.CANCELLED))
        assert not await spool.wish(entry.id, CLAIM, wish)  # it has one meanwhile
        cancelled = msgspec.structs.replace(CLAIM, wish=Wish(end=State.CANCELLED))
        assert await spool.wish(entry.id, cancelled, wish)
        await spool.close()
        spool = await open_spool()
        wished = msgspec.structs.replace(CLAIM, wish=wish)
        assert [claim for _, claim in await spool.claims()] == [wished]
        assert [claim for _, claim in await spool.entries(message.id)] == [wished]
        for stale in (CLAIM, cancelled):
            assert not await spool.settle(Settlement(message=message, entry=ended(entry), claim=stale))
        assert await spool.settle(Settlement(message=message, entry=ended(entry), claim=wished))
        assert not await spool.wish(entry.id, wished, wish)
        await spool.close()

    async def test_lanes_come_tenants_in_turn_and_heads_in_due_order(self, open_spool: OpenSpool) -> None:
        spool = await open_spool()
        flood = [a_message(domain=f"d{n}.test", tenant="flood") for n in range(20)]
        late, early = a_message(tenant="light", due_at=NOW - 5), a_message(tenant="light", due_at=NOW - 10)
        await spool.accept([*flood, late, early])
        lanes = await spool.lanes(NOW, 4)
        assert {lane.tenant for lane in lanes[:2]} == {"flood", "light"}
        light = next(lane for lane in lanes if lane.tenant == "light")
        heads = await spool.heads(light, NOW, 10, ())
        assert [due.message.id for due in heads] == [early.message.id, late.message.id]
        assert [due.message.id for due in await spool.heads(light, NOW, 10, {heads[0].entry.id})] == [late.message.id]
        every = await spool.lanes(NOW, 100)
        assert len(every) == 21
        assert await spool.lanes(NOW, 4, set(every[:18])) == every[18:]
        of_flood = [lane for lane in every if lane.tenant == "flood"]
        after = {"flood": LanePlace(NOW, of_flood[14]), "nobody": LanePlace(NOW, light)}
        assert {*await spool.lanes(NOW, 100, after=after)} == {light, *of_flood[15:]}
        assert await spool.lanes(NOW, 100, after={"flood": LanePlace(NOW, of_flood[-1])}) == [light]
        await spool.close()

    async def test_entries_ahead_are_counted_up_to_a_limit(self, open_spool: OpenSpool) -> None:
        spool = await open_spool()
        several = [a_message(due_at=NOW + n) for n in (2, 0, 5, 1, 900)]
        others = [a_message(due_at=NOW - 1, tenant="other"), a_message(due_at=NOW - 1, domain="other.test")]
        await spool.accept([*several, *others])
        assert [await spool.ahead_of(each.entries[0], 10) for each in several] == [2, 0, 3, 1, 4]
        assert await spool.ahead_of(several[4].entries[0], 3) == 3
        entry, _ = await the_head(spool, several[1].entries[0])
        assert await spool.claim(entry, CLAIM)
        assert await spool.ahead_of(several[4].entries[0], 10) == 3
        await spool.close()

    async def test_a_walk_goes_on_after_an_entry(self, open_spool: OpenSpool) -> None:
        spool = await open_spool()
        await spool.accept([a_message(domains=("a.test", "b.test", "c.test")) for _ in range(3)])
        every = [entry.id async for entry, _ in spool.walk_entries()]
        assert len(every) == 9
        for number, each in enumerate(every, start=1):
            assert [entry.id async for entry, _ in spool.walk_entries(each)] == every[number:]
        await spool.close()

    async def test_every_waiting_entry_is_found_however_hints_went_stale(self, open_spool: OpenSpool) -> None:
        spool = await open_spool()
        many = [a_message(due_at=NOW + n) for n in range(50)]
        await spool.accept(many)
        lane = many[0].entries[0].lane
        for n in range(50):
            assert await spool.lanes(NOW + n, 10) == [lane]
            (head,) = await spool.heads(lane, NOW + n, 10, ())
            assert await spool.next_due_at(NOW + n - 1) == NOW + n
            assert await spool.claim(head.entry, CLAIM)
            assert await spool.settle(Settlement(message=head.message, entry=ended(head.entry), claim=CLAIM))
            assert await spool.lanes(NOW + n, 10) == []
        assert await spool.lanes(NOW + 1e6, 10) == []
        assert await spool.next_due_at(NOW - 100) is None
        await spool.close()

    async def test_a_dsn_is_accepted_with_what_it_reports(self, open_spool: OpenSpool) -> None:
        spool = await open_spool()
        accepted, dsn = a_message(), a_message(domain="acme.test")
        await spool.accept([accepted])
        entry, message = await the_head(spool, accepted.entries[0])
        stale = Claim(epoch=9, attempt=1, retry_at=0)
        await spool.claim(entry, CLAIM)
        assert not await spool.settle(Settlement(message=message, entry=ended(entry), claim=stale, acceptances=(dsn,)))
        assert await spool.message(dsn.message.id) is None
        assert await spool.settle(Settlement(message=message, entry=ended(entry), claim=CLAIM, acceptances=(dsn,)))
        assert (await the_head(spool, dsn.entries[0]))[1].id == dsn.message.id
        await spool.close()

    async def test_the_log_is_gapless_over_processes_and_restarts(self, open_spool: OpenSpool) -> None:
        spool, other = await open_spool(), await open_spool()
        await asyncio.gather(*(each.accept([a_message()]) for each in (spool, other) * 20))
        log = await spool.events_after(0, 1000)
        assert [number for number, _ in log] == list(range(1, 41))
        await other.discard_events(35)
        assert [number for number, _ in await spool.events_after(0, 1000)] == [36, 37, 38, 39, 40]
        await other.discard_events(40)
        await spool.close()
        await other.close()
        spool = await open_spool()
        assert await spool.log_end() == 40
        assert await spool.accept([a_message()]) == 41
        await spool.close()

    async def test_what_tenants_have_waiting_is_counted(self, open_spool: OpenSpool) -> None:
        spool = await open_spool()
        assert await spool.backlogs() == {}
        two = a_message(domains=("a.test", "b.test"), content=b"12345\r\n")
        held, other = a_message(content=b"1\r\n"), a_message(tenant="other", content=b"12\r\n")
        for each in (two, held, other):
            await spool.accept([each])
        acme = Backlog(messages=2, octets=10, untried=3)
        assert await spool.backlogs() == {"acme": acme, "other": Backlog(messages=1, octets=4, untried=1)}
        entry, message = await the_head(spool, held.entries[0])
        at_rest = msgspec.structs.replace(entry, held=True)
        assert await spool.change(Change(message=message, before=entry, after=at_rest))
        assert (await spool.backlogs())["acme"] == msgspec.structs.replace(acme, untried=2)
        later = msgspec.structs.replace(two.entries[0], attempts=1, due_at=NOW + 30)
        entry, whole = await the_head(spool, two.entries[0])
        await spool.claim(entry, CLAIM)
        assert (await spool.backlogs())["acme"] == msgspec.structs.replace(acme, untried=2)
        assert not await spool.settle(Settlement(message=whole, entry=later, claim=STRANGER))
        assert await spool.settle(Settlement(message=whole, entry=later, claim=CLAIM))
        assert (await spool.backlogs())["acme"] == msgspec.structs.replace(acme, untried=1, tried=1)
        entry, _ = await the_head(spool, later, NOW + 30)
        again = msgspec.structs.replace(CLAIM, attempt=2)
        await spool.claim(entry, again)
        await spool.settle(Settlement(message=whole, entry=ended(entry), claim=again))
        assert (await spool.backlogs())["acme"] == msgspec.structs.replace(acme, untried=1, tried=1)
        entry, _ = await the_head(spool, two.entries[1])
        dropped = ended(entry, State.DROPPED)
        assert await spool.change(Change(message=whole, before=entry, after=dropped))
        assert (await spool.backlogs())["acme"] == Backlog(1, 3, 0, tried=1, left=1, left_octets=7)
        await spool.close()
        spool = await open_spool()
        assert (await spool.backlogs())["acme"] == Backlog(1, 3, 0, tried=1, left=1, left_octets=7)
        assert not await spool.count_backlog()
        await spool.close()

    async def test_what_is_scheduled_is_not_counted_as_work(self, open_spool: OpenSpool) -> None:
        spool = await open_spool()
        accepted = a_message(domains=("a.test", "b.test"), content=b"12345\r\n")
        scheduled = msgspec.structs.replace(accepted.message, release_at=NOW + 10)
        await spool.accept([msgspec.structs.replace(accepted, message=scheduled)])
        waiting = {"acme": Backlog(messages=1, octets=7)}
        assert await spool.backlogs() == waiting
        entry, message = await the_head(spool, accepted.entries[0])
        await spool.claim(entry, CLAIM)
        assert await spool.settle(Settlement(message=message, entry=ended(entry), claim=CLAIM))
        assert await spool.backlogs() == waiting
        before, _ = await the_head(spool, accepted.entries[1])
        for after in (msgspec.structs.replace(before, held=True), before):
            assert await spool.change(Change(message=message, before=before, after=after))
            assert await spool.backlogs() == waiting
            ((before, _),) = await spool.entries(message.id)
        assert await spool.change(Change(message=message, before=before, after=ended(before, State.DROPPED)))
        assert await spool.backlogs() == {"acme": Backlog(left=1, left_octets=7)}
        await spool.close()

    async def test_epochs_grow(self, open_spool: OpenSpool) -> None:
        spool, other = await open_spool(), await open_spool()
        epochs = [await each.next_epoch() for each in (spool, other, spool)]
        assert epochs == sorted(set(epochs))
        await spool.close()
        await other.close()

    async def test_named_records(self, open_spool: OpenSpool) -> None:
        spool = await open_spool()
        long = "n" * 5000
        assert await spool.put_record("tenant", "b", b"1", replace=False)
        assert not await spool.put_record("tenant", "b", b"2", replace=False)
        assert await spool.put_record("tenant", long, os.urandom(30_000), replace=False)
        assert await spool.put_record("tenant", long, b"short", replace=True)
        assert await spool.put_record("key", "a", b"3", replace=True)
        assert await spool.get_record("tenant", "b") == b"1"
        assert await spool.get_record("tenant", "a") is None
        assert [await spool.get_record("tenant", long) for _ in range(2)] == [b"short"] * 2
        assert await spool.list_records("tenant") == [("b", b"1"), (long, b"short")]
        assert await spool.delete_record("tenant", "b")
        assert not await spool.delete_record("tenant", "b")
        assert await spool.get_record("tenant", "b") is None
        assert await spool.get_record("key", "a") == b"3"
        await spool.close()

    async def test_a_record_is_changed_by_whoever_has_read_it_last(self, open_spool: OpenSpool) -> None:
        spool, other = await open_spool(), await open_spool()
        long = os.urandom(10_000)
        assert not await spool.change_record("key", "a", b"", b"1")
        assert await spool.get_record("key", "a") is None
        await spool.put_record("key", "a", b"1", replace=False)
        assert await other.change_record("key", "a", b"1", long)
        assert not await spool.change_record("key", "a", b"1", b"2")
        assert await spool.get_record("key", "a") == long
        assert await spool.change_record("key", "a", long, b"short")
        assert await other.get_record("key", "a") == b"short"
        # two who have read the same at the same time: one has to read again
        both = await asyncio.gather(*(each.change_record("key", "a", b"short", b"3") for each in (spool, other)))
        assert sorted(both) == [False, True]
        await spool.delete_record("key", "a")
        assert not await spool.change_record("key", "a", b"3", b"4")
        assert await spool.get_record("key", "a") is None
        await spool.close()
        await other.close()

    async def test_what_another_process_changes_in_a_record_counts_at_once(self, open_spool: OpenSpool) -> None:
        spool, other = await open_spool(), await open_spool()
        long = os.urandom(10_000)
        for value in (b"1", b"2", long + b"3", long + b"4", b"2"):
            await other.put_record("key", "a", value, replace=True)
            assert [await spool.get_record("key", "a") for _ in range(2)] == [value] * 2
        await other.delete_record("key", "a")
        assert await spool.get_record("key", "a") is None
        await spool.close()
        await other.close()

    async def test_wide_events_and_many_recipients_come_back_whole(self, open_spool: OpenSpool) -> None:
        spool = await open_spool()
        accepted = a_message()
        wide = msgspec.structs.replace(
            accepted.events[0],
            recipients=tuple(f"user{n}@example.org" for n in range(1000)),
            custom_args={"k": "v" * 10_000},
        )
        await spool.accept([msgspec.structs.replace(accepted, events=(wide,))])
        assert await spool.events_after(0, 10) == [(1, wide)]
        await spool.close()
