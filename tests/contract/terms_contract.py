"""What every spool must do with terms: answers that are kept, and tolls. As spool_contract.py, which see."""

import asyncio
import os

import msgspec
import pytest

from mta.spool.interface import (
    KEPT_LIMIT,
    Acceptance,
    Keep,
    Kept,
    Refused,
    Spool,
    Taken,
    Terms,
    Throttled,
    Toll,
    Unavailable,
)
from mta.spool.records import Segment
from tests.contract.spool_contract import NOW, OpenSpool, a_message

DAY = 86_400.0
ONE = Toll("key\0k", 0.5, 10, 1)


def keeping(name: str = "acme\0send\0k", value: bytes = b"answer", *, now: float = NOW, tolls: tuple[Toll, ...] = ()):
    return Terms(now=now, keep=Keep(name, b"digest of " + value[:9], value, now + DAY), tolls=tolls)


def units(toll: Toll, count: int) -> Toll:
    return msgspec.structs.replace(toll, units=count)


def at(now: float, *tolls: Toll) -> Terms:
    return Terms(now=now, tolls=tolls or (ONE,))


def impossible() -> Acceptance:
    """A message with content that is not there."""
    accepted = a_message()
    gone = (Segment(b"x" * 16, 10, b"k" * 32),)
    return msgspec.structs.replace(accepted, message=msgspec.structs.replace(accepted.message, segments=gone))


async def take(spool: Spool, terms: Terms) -> Taken | Kept | Throttled:
    """Accept a message on these terms; it is stored if it is taken, and else nothing is."""
    accepted, end = a_message(), await spool.log_end()
    result = await spool.accept_on([accepted], terms)
    assert (await spool.message(accepted.message.id) is not None) is isinstance(result, Taken)
    assert await spool.log_end() == end + isinstance(result, Taken)
    return result


async def drained(spool: Spool, now: float) -> int:
    """Collect all there is to be collected; return how much that was."""
    gone = 0
    for minute in range(256):
        while found := await spool.collect(now + 60 * minute):
            gone += found
    return gone


class TermsContract:
    """Promises of mta.spool.interface.Terms, one test each."""

    async def test_what_is_kept_is_the_answer_to_whoever_comes_again(self, open_spool: OpenSpool) -> None:
        spool, other = await open_spool(), await open_spool()
        assert await spool.kept("acme\0send\0k", NOW) is None
        assert await take(spool, keeping()) == Taken(1)
        first = Kept(b"digest of answer", b"answer", 1)
        for each in (spool, other):
            assert await take(each, keeping(value=b"another")) == first
            assert await each.kept("acme\0send\0k", NOW + DAY - 0.001) == first
        assert await take(other, keeping("acme\0send\0other")) == Taken(2)
        await other.close()
        await spool.close()
        spool = await open_spool()
        assert await take(spool, keeping(value=b"another")) == first
        await spool.close()

    async def test_what_is_past_is_replaced(self, open_spool: OpenSpool) -> None:
        spool, name = await open_spool(), "acme\0send\0k"
        await take(spool, keeping(value=os.urandom(20_000)))
        assert await spool.kept(name, NOW + DAY) is None
        assert await take(spool, keeping(value=b"new", now=NOW + DAY)) == Taken(2)
        assert await take(spool, keeping(now=NOW + DAY + 1)) == Kept(b"digest of new", b"new", 2)
        assert await drained(spool, NOW + DAY + 1) == 0
        assert await spool.kept(name, NOW + DAY + 1) is not None
        await spool.close()

    async def test_of_those_who_come_together_one_is_taken(self, open_spool: OpenSpool) -> None:
        spool, other = await open_spool(), await open_spool()
        results = await asyncio.gather(
            *(each.accept_on([a_message(), a_message()], keeping(tolls=(ONE,))) for each in (spool, other) * 25)
        )
        assert sorted(type(each).__name__ for each in results) == ["Kept"] * 49 + ["Taken"]
        assert {each.position for each in results if not isinstance(each, Throttled)} == {2}
        await spool.close()
        await other.close()

    async def test_a_large_answer_comes_back_whole_and_one_that_is_too_large_is_refused(
        self, open_spool: OpenSpool
    ) -> None:
        spool, value = await open_spool(), os.urandom(KEPT_LIMIT)
        accepted = a_message()
        with pytest.raises(Refused, match="answer"):
            await spool.accept_on([accepted], keeping(value=value + b"x"))
        assert await spool.log_end() == 0
        assert await take(spool, keeping(value=value)) == Taken(1)
        kept = await spool.kept("acme\0send\0k", NOW)
        assert kept is not None
        assert kept.value == value
        await spool.close()

    async def test_what_is_refused_keeps_nothing_and_costs_nothing(self, open_spool: OpenSpool) -> None:
        spool = await open_spool()
        terms = keeping(tolls=(units(ONE, 10),))
        with pytest.raises(Refused):
            await spool.accept_on([a_message(), impossible()], terms)
        assert await spool.kept("acme\0send\0k", NOW) is None
        assert await take(spool, terms) == Taken(1, (NOW + 5,))
        await spool.close()

    async def test_a_rate_has_room_for_a_burst_and_then_for_one_each_interval(self, open_spool: OpenSpool) -> None:
        spool, other = await open_spool(), await open_spool()
        for number in range(10):
            assert await take((spool, other)[number % 2], at(NOW)) == Taken(number + 1, (NOW + (number + 1) / 2,))
        assert await take(other, at(NOW)) == Throttled(0, 0.5, (NOW + 5,))
        assert isinstance(await take(spool, at(NOW + 0.49)), Throttled)
        assert await take(spool, at(NOW + 0.5)) == Taken(11, (NOW + 5.5,))
        assert await take(spool, at(NOW, msgspec.structs.replace(ONE, name="another"))) == Taken(12, (NOW + 0.5,))
        await other.close()
        await spool.close()
        spool = await open_spool()
        assert isinstance(await take(spool, at(NOW + 0.5)), Throttled)
        assert await take(spool, at(NOW + 100)) == Taken(13, (NOW + 100.5,))
        await spool.close()

    async def test_tolls_are_taken_all_or_none(self, open_spool: OpenSpool) -> None:
        spool = await open_spool()
        narrow, wide = Toll("narrow", 10, 2, 1), Toll("wide", 1, 3, 1)
        for number in (1, 2):
            await take(spool, at(NOW, wide, narrow))
            assert await spool.log_end() == number
        for _ in range(5):
            assert await take(spool, at(NOW, wide, narrow)) == Throttled(1, 10, (NOW + 2, NOW + 20))
        assert await take(spool, at(NOW, wide)) == Taken(3, (NOW + 3,))
        assert await take(spool, at(NOW, wide, narrow)) == Throttled(1, 10, (NOW + 3, NOW + 20))
        await spool.close()

    async def test_what_is_kept_costs_no_toll(self, open_spool: OpenSpool) -> None:
        spool = await open_spool()
        for _ in range(5):
            await take(spool, keeping(tolls=(units(ONE, 4),)))
        assert await take(spool, at(NOW, units(ONE, 6))) == Taken(2, (NOW + 5,))
        assert await take(spool, keeping("acme\0send\0new", tolls=(ONE,))) == Throttled(0, 0.5, (NOW + 5,))
        assert await spool.kept("acme\0send\0new", NOW) is None
        await spool.close()

    async def test_more_than_a_burst_comes_when_all_is_free_and_takes_its_time(self, open_spool: OpenSpool) -> None:
        spool, many = await open_spool(), units(ONE, 100)
        await take(spool, at(NOW))
        assert await take(spool, at(NOW, many)) == Throttled(0, 0.5, (NOW + 0.5,))
        assert await take(spool, at(NOW + 0.5, many)) == Taken(2, (NOW + 50.5,))
        assert await take(spool, at(NOW + 45.5)) == Throttled(0, 0.5, (NOW + 50.5,))
        assert await take(spool, at(NOW + 46)) == Taken(3, (NOW + 51,))
        await spool.close()

    async def test_a_clock_that_is_set_back_locks_nobody_out(self, open_spool: OpenSpool) -> None:
        spool = await open_spool()
        await take(spool, at(NOW + 1000 * DAY, units(ONE, 10)))
        assert await take(spool, at(NOW, units(ONE, 10))) == Taken(2, (NOW + 5,))
        assert await take(spool, at(NOW + 0.25)) == Throttled(0, 0.25, (NOW + 5,))
        assert await take(spool, at(NOW + 0.5)) == Taken(3, (NOW + 5.5,))
        await spool.close()

    async def test_clocks_that_differ_a_little_give_nothing_away(self, open_spool: OpenSpool) -> None:
        spool = await open_spool()
        for number in range(10):
            assert isinstance(await take(spool, at(NOW + number % 2 * 0.01)), Taken)
        for number in range(10):
            assert isinstance(await take(spool, at(NOW + number % 2 * 0.01)), Throttled)
        await spool.close()

    async def test_a_rate_that_is_changed_holds_for_what_was_taken_too(self, open_spool: OpenSpool) -> None:
        spool = await open_spool()
        slow, fast = Toll("t", 3600, 1, 1), Toll("t", 0.1, 10, 1)
        await take(spool, at(NOW, slow))
        assert await take(spool, at(NOW, fast)) == Taken(2, (pytest.approx(NOW + 0.2),))
        assert await take(spool, at(NOW, slow)) == Throttled(0, pytest.approx(7200), (pytest.approx(NOW + 7200),))
        await spool.close()

    async def test_each_of_several_has_terms_of_its_own(self, open_spool: OpenSpool) -> None:
        spool = await open_spool()
        asked = [a_message() for _ in range(5)] + [impossible()]
        terms = [None, keeping(), keeping(value=b"b"), at(NOW, units(ONE, 10)), at(NOW), keeping("bad")]
        *results, bad = await spool.accept_each(asked, terms)
        kept = Kept(b"digest of answer", b"answer", 2)
        assert results == [1, 2, kept, 3, Throttled(0, 0.5, (NOW + 5,))]
        assert isinstance(bad, Refused)
        there = [await spool.message(each.message.id) is not None for each in asked]
        assert there == [True, True, False, True, False, False]
        await spool.close()
        (closed,) = await spool.accept_each([a_message()], [keeping()])
        assert isinstance(closed, Unavailable)

    async def test_what_is_past_goes_and_nothing_else(self, open_spool: OpenSpool) -> None:
        spool = await open_spool()
        await take(spool, keeping("late", now=NOW + DAY, tolls=(Toll("late", DAY, 1, 3),)))
        await take(spool, keeping("large", os.urandom(100_000), tolls=(ONE,)))
        for number in range(500):
            await spool.accept_on([], keeping(f"{number}", tolls=(Toll(f"{number}", 1, 1, 1),)))
        assert await spool.collect(NOW) == 0
        assert await drained(spool, NOW + DAY + 2) == 2 * 501
        assert await spool.kept("late", NOW + DAY + 2) is not None
        assert await take(spool, at(NOW + DAY + 2, Toll("late", DAY, 1, 1))) == Throttled(
            0, pytest.approx(3 * DAY - 2), (NOW + 4 * DAY,)
        )
        await spool.close()

    async def test_content_of_what_was_not_taken_can_be_given_up_at_once(self, open_spool: OpenSpool) -> None:
        spool = await open_spool()
        writer = spool.store_content()
        await writer.write(b"x" * 10_000)
        accepted = a_message(content=b"")
        stored = msgspec.structs.replace(accepted.message, segments=(await writer.finish(),))
        await take(spool, at(NOW, units(ONE, 10)))
        refused = await spool.accept_on([msgspec.structs.replace(accepted, message=stored)], at(NOW))
        assert isinstance(refused, Throttled)
        assert await spool.collect(NOW) == 0
        for _ in range(2):
            await writer.abort()
        assert await spool.collect(NOW) == 3
        assert await spool.collect(NOW) == 0
        await spool.close()
