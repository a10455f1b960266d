"""What becomes of a message between the final dot and its answer: trace, repairs, senders, storing, failures."""

import re

import pytest

from mta.mail import headers
from mta.mail.envelope import Envelope
from mta.spool.interface import Full, Refused, Unavailable, Uncertain
from tests.unit.ingress.conftest import NOW

LOGIN = b"AUTH PLAIN AGFsaWNlAHNlY3JldA=="
BODY = b"\r\nhello\r\n..dots\r\n\xfc\r\n"
PLAIN = b"From: a@alice.test\r\nSubject: x\r\n"
DATED = b"Date: Fri, 20 Nov 2026 00:00:00 +0100\r\nMessage-ID: <1@alice.test>\r\n"


async def send(
    door, content: bytes, *recipients: bytes, number: int = 0, sender: bytes = b"a@alice.test", mail: bytes = b""
) -> bytes:
    """Send content with dots stuffed; log in where that is needed. Return the reply to it. `mail` are parameters."""
    peer = await door.greeted(number)
    if door.ingress.bound[number][0].kind == "submission":
        assert (await peer.ask(LOGIN)).startswith(b"235")
    await peer.begin(sender, *recipients, mail=mail)
    peer.say((b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:] + b".\r\n")
    return await peer.reply()


def without_trace(content: bytes) -> bytes:
    """Take off the first field, which has to be ours."""
    first = next(headers.fields(headers.split(content)[0]))
    assert first.name == b"received"
    return content.removeprefix(first.raw)


async def test_a_relayed_message_gets_a_trace_field_and_is_otherwise_as_it_came(serve):
    door = await serve()
    reply = await send(door, PLAIN + b"Bcc: hidden@x.test\r\n" + BODY)
    (message,) = door.queue.accepted
    assert reply == f"250 2.0.0 OK queued as {message.id}\r\n".encode()
    assert without_trace(message.content) == PLAIN + b"Bcc: hidden@x.test\r\n" + BODY
    assert message.content.startswith(
        b"Received: from client.test ([127.0.0.1])\r\n"
        b"\tby mx.fairlead.test (Fairlead) with ESMTP id " + message.id.encode() + b"\r\n"
        b"\tfor <b@remote.test>;\r\n"
        b"\tSat, 21 Nov 2026 01:02:03 +0000\r\n"
    )
    assert (message.tenant, message.origin, message.client) == ("alice", "relay", "127.0.0.1")
    assert (message.sign_domain, message.note) == ("alice.test", "")
    assert message.envelope.eight_bit
    assert message.header_message_id == ""


async def test_lists_are_given_what_the_header_says(serve):
    door = await serve()
    header = (
        b"From: =?utf-8?q?Alic=C3=A9?= <a@alice.test>\r\nSUBJECT: =?utf-8?q?H=C3=A4llo?=\r\n all\r\n"
        b"To: b@remote.test\r\n"
    )
    await send(door, header + BODY)
    await send(door, b"From: a@alice.test\r\n" + BODY)
    first, second = (message.summary for message in door.queue.accepted)
    assert (first.subject, first.from_, first.to, first.dialect) == (
        "=?utf-8?q?H=C3=A4llo?= all",
        "=?utf-8?q?Alic=C3=A9?= <a@alice.test>",
        "b@remote.test",
        "",
    )
    assert (second.subject, second.from_, second.to) == ("", "a@alice.test", "")


async def test_several_recipients_are_not_told_of_each_other(serve):
    door = await serve()
    await send(door, PLAIN + BODY, b"b@remote.test", b"c@remote.test")
    assert b"remote.test" not in door.queue.accepted[0].content


async def test_a_submission_gets_what_is_missing_and_loses_its_bcc(serve, make_listener):
    door = await serve(make_listener("submission"))
    await send(door, PLAIN + b"BCC: h@x.test,\r\n i@x.test\r\nresent-bcc: j@x.test\r\nTo: b@x.test\r\n" + BODY)
    (message,) = door.queue.accepted
    added = f"Date: Sat, 21 Nov 2026 01:02:03 +0000\r\nMessage-ID: <{message.id}@mx.fairlead.test>\r\n".encode()
    assert without_trace(message.content) == added + PLAIN + b"To: b@x.test\r\n" + BODY
    assert message.header_message_id == f"<{message.id}@mx.fairlead.test>"
    assert b" with ESMTPA id " in message.content


async def test_a_complete_submission_stays_as_it_came(serve, make_listener):
    door = await serve(make_listener("submission"))
    await send(door, DATED + PLAIN + BODY)
    assert without_trace(door.queue.accepted[0].content) == DATED + PLAIN + BODY
    assert door.queue.accepted[0].header_message_id == "<1@alice.test>"


@pytest.mark.parametrize("content", [b"", b"\r\n", b"\r\nbody only\r\n", b"Subject: x\r\n"])
async def test_content_without_a_sender_is_relayed_unsigned(serve, content: bytes):
    door = await serve()
    assert (await send(door, content)).startswith(b"250")
    assert without_trace(door.queue.accepted[0].content) == content
    assert door.queue.accepted[0].sign_domain == ""
    assert door.queue.accepted[0].note


async def test_a_body_without_a_header_block_does_not_become_one(serve):
    door = await serve()
    await send(door, b"Dear all,\r\nlunch is ready\r\n")
    assert without_trace(door.queue.accepted[0].content) == b"\r\nDear all,\r\nlunch is ready\r\n"


FOREIGN = [
    b"From: b@bob.test\r\n",
    b"From: a@alice.test, b@bob.test\r\n",
    b"From: a@alice.test\r\nfrom : b@bob.test\r\n",
    b"From: a@alice.test\r\nnonsense\r\n \t\r\nFROM:\r\n\t<b@bob.test>\r\n",
    b"From: b@bob.test <a@alice.test>\r\n",
    b'From: "never closed <b@bob.test>\r\n',
]


@pytest.mark.parametrize("header", FOREIGN)
async def test_another_tenants_domain_is_refused_on_submission_and_unsigned_on_relay(serve, make_listener, header):
    door = await serve(make_listener("submission"), make_listener())
    reply = await send(door, header + BODY)
    assert reply.startswith(b"550 5.7.1 From domain '")
    assert reply.endswith(b"' belongs to another account\r\n")
    assert door.queue.accepted == []
    assert (await send(door, header + BODY, number=1)).startswith(b"250")
    assert door.queue.accepted[0].sign_domain == ""
    assert door.queue.accepted[0].note == "another tenant's"


@pytest.mark.parametrize(
    "header",
    [b"Subject: x\r\n", b"", b"From:\r\n", b"From: root\r\n", b"From: a@=?utf-8?q?bob.test?=\r\n"],
)
async def test_a_submission_needs_a_sender_with_a_domain(serve, make_listener, header: bytes):
    door = await serve(make_listener("submission"))
    assert (await send(door, header + BODY)).startswith(b"554 5.6.0 ")
    assert door.queue.accepted == []


async def test_a_sender_too_long_to_be_read_is_refused_or_unsigned(serve, make_listener):
    door = await serve(make_listener("submission"), make_listener())
    long = b"From: " + b"a@alice.test,\r\n " * 2000 + b"a@alice.test\r\n" + BODY
    assert (await send(door, long)).startswith(b"554 5.6.0 From is longer")
    assert (await send(door, long, number=1)).startswith(b"250")
    assert door.queue.accepted[0].sign_domain == ""


async def test_a_loop_ends_here(serve):
    door = await serve(received=3)
    trace = b"Received: by x; y\r\n"
    assert (await send(door, trace * 3 + PLAIN + BODY)).startswith(b"250")
    assert (await send(door, trace * 4 + PLAIN + BODY)).startswith(b"554 5.4.6 ")
    assert (await send(door, trace * 3 + PLAIN + b"\r\n" + trace * 4)).startswith(b"250")


# Large content

LINES = b"".join(b"%06d" % number + b"." * 900 + b"\r\n" for number in range(1200))  # 1 MB


@pytest.mark.parametrize("kind", ["relay", "submission"])
async def test_large_content_is_stored_as_it_arrives(serve, make_listener, kind: str):
    door = await serve(make_listener(kind))
    content = DATED + PLAIN + b"\r\n" + LINES
    assert (await send(door, content)).startswith(b"250")
    (message,) = door.queue.accepted
    assert message.content == b""
    assert len(message.stored) == 1
    assert len(door.store.writers[0].pieces) > 2
    assert without_trace(door.contents[0]) == content
    assert message.id.encode() in door.contents[0][:200]
    assert not door.store.writers[0].aborted


async def test_a_header_that_does_not_end_is_refused(serve):
    door = await serve()
    assert (await send(door, LINES)).startswith(b"552 5.3.4 Message header")
    assert (await send(door, b"\r\n" + LINES)).startswith(b"250")


@pytest.mark.parametrize(
    ("header", "size", "refused"),
    [(b"From: b@bob.test\r\n", 50_000_000, b"550 5.7.1"), (PLAIN, 700_000, b"552 5.3.4")],
)
async def test_refused_large_content_leaves_nothing_stored(serve, make_listener, header, size, refused):
    door = await serve(make_listener("submission"), size=size)
    assert (await send(door, header + b"\r\n" + LINES)).startswith(refused)
    assert door.queue.accepted == []
    assert all(each.aborted for each in door.store.writers)


async def test_large_content_of_a_client_that_goes_away_is_given_up(serve):
    door = await serve()
    peer = await door.greeted()
    await peer.begin()
    peer.say(PLAIN + b"\r\n" + LINES)
    await peer.writer.drain()
    while not door.store.writers:
        peer.say(LINES)
        await peer.writer.drain()
    peer.writer.transport.abort()
    await door.store.abandoned.wait()
    assert door.store.writers[0].aborted
    await door.ingress.drain()
    assert door.ingress.intake.budget.used == 0


FAILURES = [
    (Full("no room"), b"452 4.3.1 "),
    (Unavailable("sick"), b"451 4.3.0 "),
    (Uncertain("I/O error"), b"451 4.3.0 "),
    (Refused("never"), b"554 5.3.0 "),
]


@pytest.mark.parametrize(("failure", "reply"), FAILURES)
@pytest.mark.parametrize("content", [PLAIN + BODY, PLAIN + b"\r\n" + LINES], ids=["small", "large"])
async def test_a_spool_that_fails_is_answered_in_the_words_of_smtp(serve, caplog, failure, reply, content):
    door = await serve()
    door.queue.failure = failure
    assert (await send(door, content)).startswith(reply)
    assert caplog.text.count("not stored: ") == 1
    # what may be stored may be referred to
    assert all(each.aborted is not isinstance(failure, Uncertain) for each in door.store.writers)
    door.queue.failure = None
    assert (await send(door, content)).startswith(b"250")


@pytest.mark.parametrize(("failure", "reply"), FAILURES)
async def test_a_spool_that_fails_within_large_content_is_answered_at_its_end(serve, failure, reply):
    door = await serve()
    door.store.failure = failure
    peer = await door.greeted()
    await peer.begin()
    peer.say(PLAIN + b"\r\n" + LINES + b".\r\n")
    assert (await peer.reply()).startswith(reply)
    assert (await peer.ask(b"NOOP")).startswith(b"250")
    assert door.store.writers[0].aborted


async def test_an_accepted_message_is_one_line_in_the_log(serve, caplog):
    door = await serve()
    await send(door, PLAIN + BODY)
    (line,) = [each.getMessage() for each in caplog.records if "message=" in each.getMessage()]
    message = door.queue.accepted[0]
    assert re.fullmatch(
        rf"session=\S+ client=127\.0\.0\.1 tenant=alice message={message.id} from='a@alice\.test' recipients=1 "
        rf"size={len(message.content)} signed=alice\.test",
        line,
    )


@pytest.mark.parametrize("content", [PLAIN + BODY, PLAIN + b"\r\n" + 400_000 * b"x\r\n"], ids=["small", "large"])
async def test_what_is_sent_for_a_trial_goes_nowhere_and_leaves_nothing(serve, make_listener, caplog, content):
    door = await serve(make_listener("submission"))
    door.people.sandbox = True
    caplog.set_level("INFO")
    reply = await send(door, content)
    assert re.fullmatch(rb"250 2.0.0 OK queued as [\w-]{22} \(sandbox: it is not delivered\)\r\n", reply)
    assert (door.queue.accepted, door.queue.together) == ([], [])
    assert all(each.aborted for each in door.store.writers)
    assert bool(door.store.writers) is (len(content) > 1_000_000)
    [line] = [each.getMessage() for each in caplog.records if "sandbox=yes" in each.getMessage()]
    assert f"message={reply.split()[5].decode()} from='a@alice.test' recipients=1" in line


async def test_a_message_id_too_long_to_be_remembered_is_kept_in_the_content_alone(serve):
    door = await serve()
    field = b"Message-ID: <" + b"x" * 900 + b"@alice.test>\r\n"
    await send(door, field + PLAIN + BODY)
    assert door.queue.accepted[0].header_message_id == ""
    assert field in door.queue.accepted[0].content


async def test_reports_cannot_be_sent_to_another_tenant(serve, make_listener):
    door = await serve(make_listener("submission"))
    assert (await send(door, PLAIN + BODY, sender=b"boss@bob.test")).startswith(b"550 5.7.1 MAIL FROM domain")
    assert door.queue.accepted == []
    assert (await send(door, PLAIN + BODY, sender=b"boss@elsewhere.test")).startswith(b"250")


async def test_a_relay_may_pass_on_what_others_sent(serve):
    door = await serve()
    assert (await send(door, PLAIN + BODY, sender=b"boss@bob.test")).startswith(b"250")


@pytest.mark.parametrize(
    ("priority", "message_class"), [(-9, "BULK"), (-1, "BULK"), (0, "NORMAL"), (1, "HIGH"), (9, "HIGH")]
)
async def test_a_priority_is_a_class_and_stands_in_the_trace(serve, priority: int, message_class: str):
    door = await serve()
    assert (await send(door, PLAIN + BODY, mail=b"MT-PRIORITY=%d" % priority)).startswith(b"250")
    (message,) = door.queue.accepted
    assert (message.envelope.priority, message.message_class.name) == (priority, message_class)
    assert (b"\r\n\tPRIORITY %d;" % priority in message.content) is (priority != 0)


async def test_times_are_counted_from_mail(serve, make_listener):
    door = await serve(make_listener("submission"))
    await send(door, DATED + PLAIN + BODY, mail=b"HOLDFOR=60 BY=90;rt")
    envelope = door.queue.accepted[0].envelope
    assert (envelope.release_at, envelope.hold) == (NOW + 60, "for;60")
    assert (envelope.deliver_by, envelope.by_mode) == (NOW + 90, "RT")
    await send(door, DATED + PLAIN)
    assert door.queue.accepted[1].envelope == Envelope(sender=envelope.sender, recipients=envelope.recipients)
