"""Stories of an operator: what he holds, sends elsewhere and cancels, waiting and in flight."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from mta.config import HostPort
from mta.lab.mx import MxSettings
from mta.queue.answer import Answer
from mta.spool.records import State, Wish
from tests.scenarios.conftest import DAY, HOUR, Story


@pytest.fixture
async def mute(story: Story) -> AsyncIterator[asyncio.Event]:
    """A receiver of mute.test that says nothing; set when somebody has called."""
    called = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        called.set()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.2", story.lab.mx_port)
    story.lab.zone.set("mute.test", "MX", "10 mute.lab.test.")
    story.lab.zone.set("mute.lab.test", "A", "127.0.0.2")
    yield called
    server.close()


async def test_held_then_released(story: Story) -> None:
    await story.lab.mx.close()
    message = await story.send("ok@rcpt.test")
    await story.count("deferred", 1)
    await story.lab.mx.start()
    assert await story.wish(message, Wish(held=True, reason="by the operator")) is Answer.DONE
    await story.clock.advance(HOUR)
    await story.send("ok@other.test")
    await story.arrived(1)  # whoever is not held goes on
    await story.clock.advance(HOUR)
    held = ("accepted", "deferred ok@rcpt.test", "changed ok@rcpt.test", "accepted", "delivered ok@other.test")
    events = await story.told(*held)
    assert next(each.reason for each in events if each.type == "changed") == "held, by the operator"
    assert await story.wish(message, Wish(held=False)) is Answer.DONE
    await story.arrived(2)
    await story.told(*held, "changed ok@rcpt.test", "delivered ok@rcpt.test")
    assert await story.waiting() == 0


async def test_held_to_its_end(story: Story) -> None:
    await story.lab.mx.close()
    message = await story.send("ok@rcpt.test")
    await story.count("deferred", 1)
    await story.lab.mx.start()
    await story.wish(message, Wish(held=True))
    await story.clock.advance(5 * HOUR)
    await story.count("delivered", 1)  # the notice of a delay: a held message is late as any other
    await story.clock.advance(3 * DAY - 5 * HOUR - 1)
    assert not [each for each in await story.events() if each.type == "expired"]
    await story.clock.advance(3)
    await story.count("delivered", 2)
    events = await story.events()
    (expired,) = [each for each in events if each.type == "expired"]
    assert 3 * DAY <= expired.delay <= 3 * DAY + 5
    assert {each.recipient for each in events if each.type == "delivered"} == {"sender@origin.test"}
    assert await story.waiting() == 0


async def test_a_hold_outlives_a_restart(story: Story) -> None:
    await story.lab.mx.close()
    message = await story.send("ok@rcpt.test")
    await story.count("deferred", 1)
    await story.wish(message, Wish(held=True))
    await story.stop()
    await story.lab.mx.start()
    await story.start()
    await story.clock.advance(HOUR)
    await story.send("ok@other.test")
    await story.arrived(1)
    await story.wish(message, Wish(held=False))
    await story.arrived(2)


async def test_cancelled_before_the_final_dot(story: Story, mute: asyncio.Event) -> None:
    message = await story.send("a@mute.test")
    await asyncio.wait_for(mute.wait(), 10)
    assert await story.wish(message, Wish(end=State.CANCELLED, reason="cancelled by the operator")) is Answer.IN_FLIGHT
    events = await story.told("accepted", "deferred a@mute.test", "cancelled a@mute.test")
    assert (events[1].reply, events[2].reason) == (
        "451 4.3.0 broken off on an operator's word",
        "cancelled by the operator",
    )
    assert await story.waiting() == 0


async def test_cancelled_too_late(story: Story) -> None:
    message = await story.send("slow@rcpt.test")  # answers ten seconds after the final dot
    await story.until(lambda _: story.lab.mx.transactions == 1)
    assert await story.wish(message, Wish(end=State.CANCELLED)) is Answer.IN_FLIGHT
    await story.clock.advance(11)
    await story.told("accepted", "delivered slow@rcpt.test")
    assert await story.waiting() == 0


async def test_redirected_while_nobody_answers(story: Story, mute: asyncio.Event) -> None:
    other = MxSettings(address=HostPort(host="127.0.0.3", port=story.lab.mx_port), hostname="other.lab.test")
    await story.lab.start_mx(other)
    message = await story.send("a@mute.test")
    await asyncio.wait_for(mute.wait(), 10)
    assert await story.wish(message, Wish(relay=f"127.0.0.3:{story.lab.mx_port}")) is Answer.IN_FLIGHT
    await story.count("changed", 1)
    await story.clock.advance(30)
    events = await story.told("accepted", "deferred a@mute.test", "changed a@mute.test", "delivered a@mute.test")
    assert events[3].relay == f"127.0.0.3[127.0.0.3]:{story.lab.mx_port}"
