"""REQUIRETLS and TLS-Required on their way in (RFC 8689): offered within TLS alone, and kept with the message."""

import pytest

from mta.mail import headers

MESSAGE = b"From: a@alice.test\r\nSubject: x\r\n"
FIELD = b"TLS-Required: No\r\n"


@pytest.fixture(params=["starttls", "implicit"])
async def secure(request, serve, make_listener, client_tls):
    """A session within TLS that has said EHLO, the door it came by, and what was offered before and within."""
    door = await serve(make_listener(tls=request.param))
    if request.param == "starttls":
        peer = await door.open()
        await peer.reply()
        before = await peer.ask(b"EHLO client.test")
        assert (await peer.ask(b"STARTTLS")).startswith(b"220 ")
        await peer.start_tls(client_tls)
    else:
        before = b""
        peer = await door.open()
        await peer.start_tls(client_tls)
        await peer.reply()
    return door, peer, before, await peer.ask(b"EHLO client.test")


async def send(peer, header: bytes, mail: bytes = b"", sender: bytes = b"a@alice.test") -> None:
    await peer.begin(sender, mail=mail)
    peer.say(header + b"\r\nhello\r\n.\r\n")
    assert (await peer.reply()).startswith(b"250 2.0.0 OK queued as")


async def test_requiretls_is_offered_within_tls_and_nowhere_else(secure):
    door, peer, before, within = secure
    assert b"REQUIRETLS" not in before
    assert b"250 REQUIRETLS\r\n" in within
    assert (await peer.ask(b"MAIL FROM:<a@alice.test> REQUIRETLS=no")).startswith(b"501 5.5.4 Malformed REQUIRETLS")
    await send(peer, MESSAGE, b"REQUIRETLS")
    (message,) = door.queue.accepted
    assert message.envelope.tls_required == "yes"
    assert b" with ESMTPS id " in message.content


async def test_requiretls_is_not_taken_in_the_clear(serve, make_listener):
    door = await serve(make_listener(tls="starttls"), make_listener())
    for number in (0, 1):
        peer = await door.greeted(number)
        for asked in (b"REQUIRETLS", b"REQUIRETLS=x"):
            refused = await peer.ask(b"MAIL FROM:<a@alice.test> " + asked)
            assert refused == b"555 5.5.4 Parameter REQUIRETLS not recognized\r\n"
        await send(peer, MESSAGE)
    assert [each.envelope.tls_required for each in door.queue.accepted] == ["", ""]


async def test_a_report_can_have_requiretls_too(secure):
    door, peer, _, _ = secure
    await send(peer, MESSAGE, b"REQUIRETLS", sender=b"")
    assert (door.queue.accepted[0].envelope.sender, door.queue.accepted[0].envelope.tls_required) == ("", "yes")


async def test_tls_required_no_is_heard_and_passed_on(serve, make_listener):
    door = await serve()
    peer = await door.greeted()
    await send(peer, FIELD + MESSAGE)
    (message,) = door.queue.accepted
    assert message.envelope.tls_required == "no"
    assert headers.values(message.content, b"tls-required") == [b"No"]


async def test_tls_required_no_is_heard_in_a_submission_and_in_large_content(serve, make_listener):
    door = await serve(make_listener("submission"))
    peer = await door.greeted()
    assert (await peer.ask(b"AUTH PLAIN AGFsaWNlAHNlY3JldA==")).startswith(b"235")
    large = FIELD + MESSAGE + b"\r\n" + (b"x" * 900 + b"\r\n") * 600
    await send(peer, large)
    await send(peer, MESSAGE)
    assert [each.envelope.tls_required for each in door.queue.accepted] == ["no", ""]
    assert door.queue.accepted[0].stored


async def test_requiretls_stands_above_the_field_which_is_left_alone(secure):
    door, peer, _, _ = secure
    await send(peer, FIELD + MESSAGE, b"REQUIRETLS")
    await send(peer, FIELD * 2 + MESSAGE)
    await send(peer, MESSAGE + b"\r\n" + FIELD)
    assert [each.envelope.tls_required for each in door.queue.accepted] == ["yes", "", ""]
    assert headers.values(door.queue.accepted[0].content, b"tls-required") == [b"No"]
