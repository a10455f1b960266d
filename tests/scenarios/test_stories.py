"""Stories of single messages, each with its whole list of events."""

import msgspec
import pytest

from mta.config import HostPort
from mta.lab.dns import Failure
from mta.lab.mx import MxSettings
from tests.scenarios.conftest import DAY, HOUR, Story


async def test_delivered(story: Story) -> None:
    message = await story.send("ok@rcpt.test")
    (captured,) = await story.arrived(1)
    assert captured.content.endswith(b"Subject: a story\r\n\r\nOnce upon a time.\r\n")
    assert message.encode() in captured.content.split(b"Subject:")[0]  # the trace header
    _, delivered = await story.told("accepted", "delivered ok@rcpt.test")
    assert (delivered.message, delivered.attempt, delivered.tls[:7]) == (message, 1, "TLSv1.3")
    assert await story.waiting() == 0


async def test_tempfail_twice_then_delivered(story: Story) -> None:
    await story.send("tempfail-2@rcpt.test")
    await story.count("deferred", 1)
    await story.clock.advance(30)
    await story.count("deferred", 2)
    await story.clock.advance(300)
    events = await story.told(
        "accepted", "deferred tempfail-2@rcpt.test", "deferred tempfail-2@rcpt.test", "delivered tempfail-2@rcpt.test"
    )
    assert [each.attempt for each in events] == [0, 1, 2, 3]
    assert [each.delay for each in events] == [0, 0, 30, 330]
    assert events[1].reply.startswith("451")


async def test_greylisted_then_delivered(story: Story) -> None:
    await story.send("greylist@rcpt.test")
    await story.count("deferred", 1)
    await story.clock.advance(300)  # by the shaping rules
    await story.told("accepted", "deferred greylist@rcpt.test", "delivered greylist@rcpt.test")


async def test_rejected_with_a_dsn_to_the_sender(story: Story) -> None:
    message = await story.send("reject@rcpt.test")
    (dsn,) = await story.arrived(1)
    assert (dsn.envelope.sender, [each.address for each in dsn.envelope.recipients]) == ("", ["sender@origin.test"])
    for part in (b"Final-Recipient: rfc822; reject@rcpt.test", b"Status: 5.1.1", b"Action: failed", message.encode()):
        assert part in dsn.content
    events = await story.told(
        "accepted", "bounced reject@rcpt.test", "dsn_sent reject@rcpt.test", "accepted", "delivered sender@origin.test"
    )
    assert {each.message for each in events[:2]} == {message}
    told = next(each for each in events if each.type == "dsn_sent")
    assert (told.message, told.dsn) == (
        message,
        next(e.message for e in events if e.sender == "" and e.origin == "dsn"),
    )
    assert await story.waiting() == 0


async def test_no_dsn_to_a_null_sender(story: Story) -> None:
    await story.send("reject@rcpt.test", sender="")
    await story.told("accepted", "bounced reject@rcpt.test")
    assert await story.waiting() == 0


async def test_partial_recipients(story: Story) -> None:
    await story.send("ok@rcpt.test", "tempfail-1@rcpt.test", "reject@rcpt.test", "full@rcpt.test")
    await story.arrived(2)
    await story.clock.advance(30)
    events = await story.told(
        "accepted", "delivered ok@rcpt.test", "deferred tempfail-1@rcpt.test", "bounced reject@rcpt.test",
        "bounced full@rcpt.test", "dsn_sent reject@rcpt.test", "dsn_sent full@rcpt.test", "accepted",
        "delivered sender@origin.test", "delivered tempfail-1@rcpt.test",
    )  # fmt: skip
    assert {each.status for each in events if each.type == "bounced"} == {"5.1.1", "5.2.2"}
    assert len({each.dsn for each in events if each.type == "dsn_sent"}) == 1  # one DSN tells of both


async def test_120_recipients_of_one_domain(story: Story) -> None:
    recipients = [f"user{n}@big.test" for n in range(120)]
    await story.send(*recipients)
    captured = await story.arrived(3)
    assert sorted(len(each.envelope.recipients) for each in captured) == [20, 50, 50]
    await story.told("accepted", *(f"delivered {each}" for each in recipients))


async def test_expired_after_72_hours(story: Story) -> None:
    events_began = story.clock.now()
    await story.send("tempfail-999@rcpt.test")
    await story.count("deferred", 1)
    expected = 1
    for pause in (30, 300, 1800, 7200, *[18000] * 13):
        await story.clock.advance(pause)
        expected += 1
        await story.count("deferred", expected)
    await story.clock.advance(3 * DAY - story.clock.now() + events_began)
    assert not [each for each in await story.events() if each.type == "expired"]
    await story.clock.advance(2)
    await story.count("expired", 1)
    events = await story.until(lambda events: events[-1].type == "delivered")
    (expired,) = [each for each in events if each.type == "expired"]
    assert (expired.status, 3 * DAY <= expired.delay <= 3 * DAY + 5) == ("4.4.7", True)
    kinds = [each.type.value for each in events]
    assert (kinds.count("deferred"), kinds.count("dsn_sent"), kinds.count("delivered")) == (expected, 2, 2)
    captured = await story.arrived(2)
    assert b"Action: delayed" in captured[0].content
    assert b"Action: failed" in captured[1].content
    assert b"Status: 4.4.7" in captured[1].content
    assert await story.waiting() == 0


async def test_first_mx_broken_second_used(story: Story) -> None:
    zone = story.lab.zone
    zone.set("two.test", "MX", "10 dead.lab.test.", "20 mx1.lab.test.")
    zone.set("dead.lab.test", "A", "127.0.0.9")
    await story.send("ok@two.test")
    events = await story.told("accepted", "delivered ok@two.test")
    assert "mx1.lab.test" in events[1].relay


async def test_tls_that_breaks_is_done_without(story: Story) -> None:
    port = story.lab.mx_port
    await story.lab.start_mx(
        MxSettings(address=HostPort(host="127.0.0.2", port=port), hostname="broken.lab.test", tls="broken")
    )
    story.lab.zone.set("plain.test", "MX", "10 broken.lab.test.")
    await story.send("ok@plain.test")
    events = await story.told("accepted", "delivered ok@plain.test")
    assert "TLSv1" not in events[1].tls


async def test_null_mx_fails_at_once(story: Story) -> None:
    story.lab.zone.set("nomail.test", "MX", "0 .")
    await story.send("a@nomail.test")
    events = await story.told(
        "accepted", "bounced a@nomail.test", "dsn_sent a@nomail.test", "accepted", "delivered sender@origin.test"
    )
    assert next(each.status for each in events if each.type == "bounced") == "5.1.10"


async def test_no_such_domain_fails_at_once(story: Story) -> None:
    story.lab.zone.fail("nothing.here.test", Failure.NXDOMAIN)
    await story.send("a@nothing.here.test", sender="")
    events = await story.told("accepted", "bounced a@nothing.here.test")
    assert events[1].status == "5.1.2"


async def test_dns_out_for_an_hour_bounces_nothing(story: Story) -> None:
    story.lab.zone.outage = True
    senders = [f"user{n}@late{n}.test" for n in range(5)]
    for each in senders:
        await story.send(each)
    await story.count("deferred", 5)
    for _ in range(12):
        before = len(await story.events())
        await story.clock.advance(300)
        await story.until(lambda events, before=before: len(events) > before)  # type: ignore[misc]
    story.lab.zone.outage = False
    await story.clock.advance(HOUR)
    await story.count("delivered", 5)
    events = await story.events()
    assert {each.type.value for each in events} == {"accepted", "deferred", "delivered"}
    assert {each.status for each in events if each.type == "deferred"} == {"4.4.3"}
    assert await story.waiting() == 0


async def test_a_clock_that_jumps_three_days_expires_nothing(story: Story) -> None:
    await story.send("tempfail-3@rcpt.test")
    await story.count("deferred", 1)
    story.clock.jump(3 * DAY + HOUR)
    await story.clock.advance(30)
    await story.count("deferred", 2)
    await story.clock.advance(300)
    await story.count("deferred", 3)
    await story.clock.advance(HOUR)  # the safety poll of these tests: whoever waits does not see the wall
    await story.told(
        "accepted", *["deferred tempfail-3@rcpt.test"] * 3, "delivered tempfail-3@rcpt.test",
        # the notice of a delay is told by the wall clock, which says that four hours are over
        "dsn_sent tempfail-3@rcpt.test", "accepted", "delivered sender@origin.test",
    )  # fmt: skip


async def test_a_disconnect_in_data_is_tried_again(story: Story) -> None:
    await story.send("drop@rcpt.test")
    await story.count("deferred", 1)
    await story.clock.advance(30)
    await story.count("deferred", 2)
    events = await story.told("accepted", "deferred drop@rcpt.test", "deferred drop@rcpt.test")
    assert events[1].status.startswith("4.4")
    assert await story.waiting() == 1


async def test_a_receiver_that_restarts(story: Story) -> None:
    await story.send("ok@rcpt.test")
    await story.arrived(1)
    await story.lab.mx.close()
    await story.send("ok@rcpt.test")
    await story.count("deferred", 1)
    await story.lab.mx.start()
    await story.clock.advance(30)
    await story.arrived(2)
    await story.told(
        "accepted", "delivered ok@rcpt.test", "accepted", "deferred ok@rcpt.test", "delivered ok@rcpt.test"
    )


async def test_spool_full_and_space_back(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    await story.lab.mx.close()
    await story.send("ok@rcpt.test")
    await story.count("deferred", 1)
    spool = story.parts.spool
    full = msgspec.structs.replace(spool.space(), reserve=1 << 60)
    with monkeypatch.context() as patched:
        patched.setattr(spool._room, "space", lambda: full)
        with pytest.raises(Exception, match=r"4\.3\.1"):
            await story.send("other@rcpt.test")
        await story.lab.mx.start()
        await story.clock.advance(30)
        await story.arrived(1)  # deliveries and their outcomes go on
        await story.told("accepted", "deferred ok@rcpt.test", "delivered ok@rcpt.test")
    await story.send("again@rcpt.test")
    await story.arrived(2)


async def test_sigterm_drains_what_is_under_way(story: Story) -> None:
    await story.send("slow@rcpt.test")  # answers ten seconds after the final dot
    await story.until(lambda _: story.delivery.detail()["in_flight"] == 1 and story.lab.mx.connections == 1)
    await story.stop(drain=15)
    await story.start()
    await story.told("accepted", "delivered slow@rcpt.test")
    assert await story.waiting() == 0


async def test_a_restart_keeps_the_queue(story: Story) -> None:
    await story.lab.mx.close()
    for n in range(10):
        await story.send(f"user{n}@rcpt{n}.test")
    await story.count("deferred", 5)
    await story.stop()
    await story.lab.mx.start()
    await story.start()
    assert await story.waiting() == 10
    await story.clock.advance(30)
    await story.arrived(10)
    await story.count("delivered", 10)
    kinds = [each.type.value for each in await story.events()]
    assert (kinds.count("accepted"), kinds.count("delivered")) == (10, 10)
    assert 5 <= kinds.count("deferred") < 10  # they have one MX, which is left alone when the first have found it dead
