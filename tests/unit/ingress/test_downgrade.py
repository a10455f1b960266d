"""STARTTLS injection and its kin: nothing said in the clear is answered within TLS, or changes what is said there."""

import asyncio
import contextlib
import logging
import ssl

import pytest

LOGIN = b"AUTH PLAIN AGFsaWNlAHNlY3JldA=="
MESSAGE = b"From: a@alice.test\r\nSubject: x\r\n\r\nhello\r\n"
INJECTED = [
    b"EHLO evil.test\r\n",
    LOGIN + b"\r\n",
    b"EHLO evil.test\r\n" + LOGIN + b"\r\nMAIL FROM:<a@alice.test>\r\n",
    b"MAIL FROM:<a@alice.test>\r\nRCPT TO:<b@remote.test>\r\nDATA\r\n" + MESSAGE + b".\r\n",
    b"\r\n",
    b"EHLO evil",
    b"\x16\x03\x01",  # and be it the handshake itself, of which nobody has read the reply yet
]


@pytest.fixture(params=["submission", "relay"])
def starttls(request, make_listener):
    return make_listener(request.param, tls="starttls")


class Handshake:
    """A client that sees its own records, and so can send others between them."""

    def __init__(self, peer, context: ssl.SSLContext) -> None:
        self.peer = peer
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="mx.fairlead.test")

    async def do(self) -> None:
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.peer.say(self.outgoing.read())
                await self._more()
        self.peer.say(self.outgoing.read())

    async def ask(self, line: bytes) -> bytes:
        self.tls.write(line + b"\r\n")
        self.peer.say(self.outgoing.read())
        answer = b""
        while not answer.endswith(b"\r\n") or answer.splitlines()[-1][3:4] == b"-":
            try:
                answer += self.tls.read()
            except ssl.SSLWantReadError:
                await self._more()
        return answer

    async def _more(self) -> None:
        async with asyncio.timeout(5):
            data = await self.peer.reader.read(65536)
        assert data, "hung up"
        self.incoming.write(data)


async def after_220(door, context: ssl.SSLContext) -> Handshake:
    """A client in front of its handshake."""
    peer = await door.greeted()
    assert (await peer.ask(b"STARTTLS")).startswith(b"220 ")
    return Handshake(peer, context)


@pytest.mark.parametrize("injected", INJECTED, ids=repr)
def test_what_comes_in_the_segment_of_starttls_is_not_obeyed(run, open_door, starttls, injected, caplog):
    caplog.set_level(logging.INFO)

    async def story():
        async with open_door(starttls) as door:
            peer = await door.greeted()
            peer.say(b"STARTTLS\r\n" + injected)
            assert await peer.rest() == b"554 5.5.0 Commands sent after STARTTLS before the handshake\r\n"
            assert door.queue.accepted == []
            assert "logged in" not in caplog.text

    run(story())


@pytest.mark.parametrize("turns", range(6))  # of the loop, which works on what has arrived some turns later
def test_what_comes_while_starttls_is_answered_is_not_obeyed(run, open_door, starttls, turns):
    async def story():
        async with open_door(starttls) as door:
            peer = await door.greeted()
            peer.say(b"STARTTLS\r\n")
            for _ in range(turns):
                await asyncio.sleep(0)
            peer.say(INJECTED[2])
            said = await peer.rest()
            assert said.startswith((b"554 5.5.0 ", b"220 2.0.0 Ready to start TLS\r\n"))
            assert b"\n250" not in said
            assert b"235" not in said

    run(story())


def test_what_comes_in_the_clear_instead_of_a_handshake_is_not_answered(run, open_door, starttls):
    async def story():
        async with open_door(starttls) as door:
            peer = await door.greeted()
            assert (await peer.ask(b"STARTTLS")).startswith(b"220 ")
            peer.say(INJECTED[3])
            assert b"250" not in await peer.rest()
            assert door.queue.accepted == []

    run(story())


def test_nothing_said_before_the_handshake_holds_after_it(run, open_door, starttls, client_tls):
    async def story():
        async with open_door(starttls) as door:
            client = await after_220(door, client_tls)
            await client.do()
            assert (await client.ask(b"MAIL FROM:<a@alice.test>")).startswith(b"503 5.5.1 Send HELO")
            offered = await client.ask(b"EHLO client.test")
            assert b"STARTTLS" not in offered
            if starttls.kind == "submission":
                assert (await client.ask(b"MAIL FROM:<a@alice.test>")).startswith(b"530 5.7.0 Authentication")
            else:
                assert (await client.ask(b"RCPT TO:<b@remote.test>")).startswith(b"503 5.5.1 Send MAIL")
            await client.peer.hang_up()

    run(story())


def test_starttls_a_second_time_is_refused_and_the_session_goes_on(run, open_door, starttls, client_tls):
    async def story():
        async with open_door(starttls) as door:
            client = await after_220(door, client_tls)
            await client.do()
            await client.ask(b"EHLO client.test")
            assert (await client.ask(b"STARTTLS")).startswith(b"503 5.5.1 TLS is already active")
            assert (await client.ask(b"NOOP")).startswith(b"250 ")
            await client.peer.hang_up()

    run(story())


def test_plain_text_after_the_handshake_ends_the_session_and_changes_nothing(run, open_door, starttls, client_tls):
    async def story():
        async with open_door(starttls) as door:
            client = await after_220(door, client_tls)
            await client.do()
            assert (await client.ask(b"EHLO client.test")).startswith(b"250-mx.fairlead.test")
            client.peer.say(INJECTED[3])
            client.incoming.write(await client.peer.rest())
            said = b""
            with contextlib.suppress(ssl.SSLError):  # an alert, or nothing more to read
                while piece := client.tls.read():
                    said += piece
            assert said == b""
            assert door.queue.accepted == []
            await door.ingress.drain()

    run(story())
