"""Stories of mail that has to be there in time, or not before: BY, HOLDFOR and their reports."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from mta.config import HostPort
from mta.lab.commands import Extension
from mta.lab.mx import MxSettings
from mta.mail.envelope import Envelope, Recipient
from mta.mail.event import Event
from mta.mail.ids import new_message_id
from mta.queue.submission import Submission
from mta.spool.records import Origin, Wish
from tests.scenarios.conftest import HOUR, Story


def ends(events: list[Event]) -> list[tuple[str, float, str]]:
    return [(each.type.value, each.delay, each.status) for each in events if each.type in ("expired", "delivered")]


async def test_returned_at_its_deadline(story: Story) -> None:
    message = await story.send("tempfail-99@rcpt.test", mail_options=["BY=60;R"])
    await story.count("deferred", 1)
    await story.clock.advance(30)
    await story.count("deferred", 2)
    await story.clock.advance(29)
    assert len(await story.events()) == 3
    await story.clock.advance(2)
    await story.count("delivered", 1)  # the report
    events = await story.told(
        "accepted", *["deferred tempfail-99@rcpt.test"] * 2, "expired tempfail-99@rcpt.test",
        "dsn_sent tempfail-99@rcpt.test", "accepted", "delivered sender@origin.test",
    )  # fmt: skip
    (kind, delay, status), _ = ends(events)
    assert (kind, status) == ("expired", "5.4.7")
    assert 60 <= delay <= 65
    assert events[0].deliver_by == events[0].at + 60
    (dsn,) = await story.arrived(1)
    for part in (b"Action: failed", b"Status: 5.4.7", b"Deliver-By-Date: ", b"last reply: 451", message.encode()):
        assert part in dsn.content
    assert await story.waiting() == 0


async def test_returned_at_its_deadline_while_held(story: Story) -> None:
    message = await story.send("tempfail-99@rcpt.test", mail_options=["BY=60;R"])
    await story.count("deferred", 1)
    await story.wish(message, Wish(held=True))
    await story.clock.advance(61)
    await story.count("expired", 1)


@contextlib.asynccontextmanager
async def mx_of_mute_test(
    story: Story, answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
) -> AsyncIterator[None]:
    """Have a server of our own take the mail for mute.test."""
    server = await asyncio.start_server(answer, "127.0.0.3", story.lab.mx_port)
    story.lab.zone.set("mute.test", "MX", "10 mute.lab.test.")
    story.lab.zone.set("mute.lab.test", "A", "127.0.0.3")
    async with server:
        yield


@contextlib.asynccontextmanager
async def under_way(story: Story) -> AsyncIterator[None]:
    """Send a message that has a minute, to who says nothing."""
    mute = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        mute.set()
        await reader.read()
        writer.close()

    async with mx_of_mute_test(story, say_nothing):
        await story.send("a@mute.test", sender="", mail_options=["BY=60;R"])
        await asyncio.wait_for(mute.wait(), 10)
        yield


async def test_broken_off_at_its_deadline(story: Story) -> None:
    async with under_way(story):
        await story.clock.advance(61)
        await story.count("deferred", 1)
    await story.clock.advance(HOUR)  # the safety poll of these tests
    events = await story.told("accepted", "deferred a@mute.test", "expired a@mute.test")
    assert events[1].status == "4.4.7"
    assert events[1].at - events[0].at <= 65


async def test_broken_off_at_its_deadline_and_returned_with_the_last_reply(story: Story) -> None:
    mute, connections = asyncio.Event(), 0

    async def put_off_and_then_say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        if connections == 1:
            for reply in (b"220 hello", b"250-hello\r\n250 DELIVERBY", b"451 4.3.0 not now", b"221 bye"):
                writer.write(reply + b"\r\n")
                await reader.readline()
        else:
            mute.set()
            await reader.read()
        writer.close()

    async with mx_of_mute_test(story, put_off_and_then_say_nothing):
        await story.send("a@mute.test", mail_options=["BY=60;R"])
        await story.count("deferred", 1)
        await story.clock.advance(40)
        await asyncio.wait_for(mute.wait(), 10)
        await story.clock.advance(21)
        await story.count("deferred", 2)
    await story.clock.advance(HOUR)
    await story.count("delivered", 1)  # the report
    expired = next(each for each in await story.events() if each.type == "expired")
    assert expired.reply == "451 4.3.0 not now"
    assert expired.relay.startswith("mute.lab.test[127.0.0.3]")
    (dsn,) = await story.arrived(1)
    assert b"delivery time expired; last reply: 451 4.3.0 not now" in dsn.content.replace(b"\r\n ", b" ")


async def test_broken_off_at_its_deadline_while_the_relay_drains(story: Story) -> None:
    async with under_way(story):
        draining = asyncio.create_task(story.delivery.drain(HOUR))
        await story.clock.advance(61)
        await story.count("deferred", 1)
        await asyncio.wait_for(draining, 10)


async def test_told_of_a_delay_and_delivered_after_it(story: Story) -> None:
    await story.send("tempfail-2@rcpt.test", mail_options=["BY=60;N"])
    await story.count("deferred", 1)
    await story.clock.advance(30)
    await story.count("deferred", 2)
    await story.clock.advance(31)
    await story.arrived(1)
    await story.clock.advance(300)
    events = await story.told(
        "accepted", *["deferred tempfail-2@rcpt.test"] * 2, "dsn_sent tempfail-2@rcpt.test", "accepted",
        "delivered sender@origin.test", "delivered tempfail-2@rcpt.test",
    )  # fmt: skip
    delivered = next(each for each in events if each.type == "delivered" and each.recipient != "sender@origin.test")
    assert 330 <= delivered.delay <= 365
    notice, _ = await story.arrived(2)
    for part in (b"Action: delayed", b"Status: 4.4.7", b"Deliver-By-Date: "):
        assert part in notice.content


async def test_not_passed_on_to_who_keeps_no_deadlines(story: Story) -> None:
    plain = frozenset(Extension) - {Extension.DELIVERBY}
    where = HostPort(host="127.0.0.2", port=story.lab.mx_port)
    await story.lab.start_mx(MxSettings(address=where, hostname="plain.lab.test", extensions=plain))
    story.lab.zone.set("plain.test", "MX", "10 plain.lab.test.")
    await story.send("ok@plain.test", mail_options=["BY=60;R"])
    events = await story.told(
        "accepted", "bounced ok@plain.test", "dsn_sent ok@plain.test", "accepted", "delivered sender@origin.test"
    )
    assert events[1].status == "5.3.3"
    await story.send("ok@plain.test", mail_options=["BY=60;N"])
    report, message = sorted(await story.arrived(3), key=lambda each: each.envelope.sender)[1:]
    assert b"Action: relayed" in report.content
    assert [each.notify for each in message.envelope.recipients] == [12]  # failure and delay


async def test_tried_again_after_its_own_intervals_and_given_up_after_its_own_lifetime(story: Story) -> None:
    envelope = Envelope(sender="s@origin.test", recipients=(Recipient("tempfail-99@rcpt.test"),))
    submission = Submission(
        id=new_message_id(),
        tenant="lab",
        envelope=envelope,
        origin=Origin.HTTP,
        content=b"Subject: s\r\n\r\n",
        retry_intervals=(10.0, 60.0),
        lifetime=180.0,
    )
    await story.parts.queue.accept(submission)
    await story.count("deferred", 1)
    await story.clock.advance(12)
    await story.count("deferred", 2)
    await story.clock.advance(70)
    await story.count("deferred", 3)
    await story.clock.advance(110)
    expired = await story.last("expired")
    assert 180 <= expired.delay <= 195


async def test_held_for_an_hour(story: Story) -> None:
    now = story.clock.now()
    envelope = Envelope(
        sender="s@origin.test",
        recipients=(Recipient("ok@rcpt.test"),),
        release_at=now + HOUR,
        deliver_by=now + HOUR + 60,
    )
    await story.parts.queue.accept(
        Submission(
            id=new_message_id(), tenant="lab", envelope=envelope, origin=Origin.HTTP, content=b"Subject: s\r\n\r\n"
        )
    )
    await story.clock.advance(HOUR - 1)
    assert [each.type.value for each in await story.events()] == ["accepted"]
    await story.clock.advance(2)
    accepted, delivered = await story.told("accepted", "delivered ok@rcpt.test")
    assert accepted.release_at == accepted.at + HOUR
    assert HOUR <= delivered.delay <= HOUR + 2
