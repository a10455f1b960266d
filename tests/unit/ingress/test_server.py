"""The shell on real sockets: TLS under both event loops, clients that go away, limits, time-outs, and its end."""

import asyncio
import contextlib
import itertools
import logging
import smtplib
import socket
import ssl
import stat
from pathlib import Path

import pytest

from mta.ingress import server
from mta.ingress.connection import LINGER, Connection
from mta.mail.reply import Reply
from mta.spool.interface import Full, Unavailable

LOGIN = b"AUTH PLAIN AGFsaWNlAHNlY3JldA=="
MESSAGE = b"From: a@alice.test\r\nSubject: x\r\n\r\nhello\r\n"


LINES = (b"x" * 998 + b"\r\n") * 700


async def committing(door):
    """A client that has sent its message, whose commit is held back by the queue's gate."""
    door.queue.gate.clear()
    peer = await door.greeted()
    await peer.begin()
    peer.say(MESSAGE + b".\r\n")
    await door.queue.asked.wait()
    return peer


def later(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


# TLS


def secure(make_listener):
    return make_listener("submission", tls="starttls"), make_listener("submission", tls="implicit")


def deliver(ports: list[int], context: ssl.SSLContext) -> list[bytes]:
    """Send with smtplib: over STARTTLS, then over implicit TLS."""
    starttls = smtplib.SMTP("127.0.0.1", ports[0], timeout=5)
    starttls.starttls(context=context)
    versions = []
    for client in (starttls, smtplib.SMTP_SSL("127.0.0.1", ports[1], timeout=5, context=context)):
        client.login("alice", "secret")
        assert client.sendmail("a@alice.test", ["b@remote.test"], MESSAGE) == {}
        assert client.sendmail("a@alice.test", ["b@remote.test"], MESSAGE + LINES) == {}
        versions.append(client.sock.version())
        client.quit()
    return versions


def test_smtplib_delivers_over_both_kinds_of_tls(run, open_door, make_listener, client_tls):
    async def story():
        async with open_door(*secure(make_listener)) as door:
            assert await asyncio.to_thread(deliver, door.ports, client_tls) == ["TLSv1.3", "TLSv1.3"]
            assert len(door.queue.accepted) == 4
            for content in door.contents:
                assert b"with ESMTPSA id" in content
                assert b"\r\n\t(TLSv1.3 TLS_" in content

    run(story())


def test_clients_that_go_away_within_a_handshake_leave_nothing_behind(run, open_door, make_listener):
    async def story():
        async with open_door(*secure(make_listener), connections_per_client=3) as door:
            for garbage in (b"", b"no handshake\r\n"):
                for number in (0, 1) * 3:
                    peer = await (door.greeted(number) if number == 0 else door.open(number))
                    if number == 0:
                        assert (await peer.ask(b"STARTTLS")).startswith(b"220 ")
                    peer.say(garbage)
                    if garbage:
                        await peer.rest()
                    else:
                        peer.writer.transport.abort()
            await door.ingress.drain()
            while door.ingress._connections:
                await door.ingress._change()

    run(story())


def test_what_comes_in_the_packet_that_ends_the_handshake_is_read(run, open_door, make_listener, client_tls):
    async def story():
        async with open_door(*secure(make_listener)) as door:
            peer = await door.greeted()
            await peer.ask(b"STARTTLS")
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            tls = client_tls.wrap_bio(incoming, outgoing, server_hostname="mx.fairlead.test")
            while True:
                try:
                    tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    peer.say(outgoing.read())
                    incoming.write(await peer.reader.read(65536))
            tls.write(b"EHLO client.test\r\n" + LOGIN + b"\r\n")
            peer.say(outgoing.read())
            answer = b""
            async with asyncio.timeout(5):
                while b"\r\n235 " not in answer:
                    incoming.write(await peer.reader.read(65536))
                    with contextlib.suppress(ssl.SSLWantReadError):
                        while record := tls.read():
                            answer += record
            assert answer.startswith(b"250-mx.fairlead.test\r\n")
            await peer.hang_up()

    run(story())


# Clients that go away


def test_a_client_that_hangs_up_its_half_gets_its_answers(run, open_door):
    async def story():
        async with open_door() as door:
            door.queue.gate.clear()
            peer = await door.greeted()
            await peer.begin()
            peer.say(MESSAGE + b".\r\nNOOP\r\nQUIT\r\n")
            peer.writer.write_eof()
            await door.queue.asked.wait()
            door.queue.gate.set()
            assert [line[:4] for line in (await peer.rest()).splitlines()] == [b"250 ", b"250 ", b"221 "]
            assert len(door.queue.accepted) == 1

    run(story())


async def test_a_commit_goes_on_when_its_client_is_gone(serve):
    door = await serve()
    peer = await committing(door)
    peer.writer.transport.abort()
    draining = asyncio.create_task(door.ingress.drain())
    await asyncio.sleep(0)
    assert not draining.done()
    door.queue.gate.set()
    await draining
    assert len(door.queue.accepted) == 1


async def test_nothing_is_accepted_of_a_client_that_goes_away_before_the_final_dot(serve):
    door = await serve()
    for end in (b"", b"\r\n", b"\r\n."):
        peer = await door.greeted()
        await peer.begin()
        peer.say(b"From: a@alice.test\r\n\r\nhello" + end)
        peer.writer.write_eof()
        assert await peer.rest() == b""
    await door.ingress.close()
    assert door.queue.accepted == []
    assert door.ingress.intake.budget.used == 0


# Bad days


async def test_an_unexpected_exception_ends_its_session_only_and_says_nothing(serve, caplog):
    door = await serve()
    other = await door.greeted()
    peer = await door.greeted()
    door.queue.failure = RuntimeError("the secret of the house")
    await peer.begin()
    peer.say(MESSAGE + b".\r\nNOOP\r\n")
    assert await peer.rest() == b"451 4.3.0 Internal error, try again later\r\n"
    assert caplog.text.count("internal error") == 1
    assert (await other.ask(b"NOOP")).startswith(b"250")


async def test_messages_that_end_in_the_same_turn_are_accepted_together_and_answered_one_by_one(serve, caplog):
    door = await serve()
    door.queue.failures["full@alice.test"] = Full("no room")
    senders = [b"a@alice.test", b"full@alice.test", b"b@alice.test", b"c@defect.test", b"d@alice.test"]
    peers = [await door.greeted() for _ in senders]
    for peer, sender in zip(peers, senders, strict=True):
        await peer.begin(sender)
    for peer, sender in zip(peers, senders, strict=True):
        peer.say(b"From: <%s>\r\n\r\nhello\r\n.\r\n" % sender)
    answers = [await peer.reply() for peer in peers]
    assert door.queue.together == [4], "all but the one that failed before"
    assert [each[:9] for each in answers] == [b"250 2.0.0", b"452 4.3.1", b"250 2.0.0", b"451 4.3.0", b"250 2.0.0"]
    queued = [each.rpartition(b" ")[2].strip().decode() for each in answers if each.startswith(b"250")]
    assert queued == [each.id for each in door.queue.accepted]
    assert [each.envelope.sender[0] for each in door.queue.accepted] == ["a", "b", "d"]
    assert caplog.text.count("internal error") == 1
    assert await peers.pop(3).rest() == b""
    for peer in peers:
        assert (await peer.ask(b"NOOP")).startswith(b"250")


@pytest.mark.tampers
async def test_an_answer_that_cannot_be_given_keeps_no_other_back(serve, caplog, monkeypatch):
    door = await serve()
    door.queue.gate.clear()
    peers = [await door.greeted() for _ in range(3)]
    for peer in peers:
        await peer.begin()
    for peer in peers:
        peer.say(MESSAGE + b".\r\n")
    await door.queue.asked.wait()
    assert door.queue.together == [3]
    advance, calls = Connection._advance, itertools.count()

    def defective(self, session):
        if next(calls) == 0:
            raise RuntimeError("the secret of the house")
        advance(self, session)

    monkeypatch.setattr(Connection, "_advance", defective)
    door.queue.gate.set()
    assert await peers.pop(0).rest() == b""
    for peer in peers:
        assert (await peer.reply()).startswith(b"250 2.0.0")
    assert caplog.text.count("internal error") == 1
    await door.ingress.drain()


async def test_closing_does_not_wait_for_ever_for_a_commit(serve, monkeypatch):
    monkeypatch.setattr(server, "_CLOSE", 0.1)
    door = await serve()
    peer = await committing(door)
    async with asyncio.timeout(5):
        await door.ingress.close()
    assert await peer.rest() == b""


async def test_a_refusal_reaches_a_client_that_is_still_sending(serve):
    door = await serve()
    peer = await door.greeted()
    await peer.begin()
    peer.say(b"bare\nnewline\r\n" + LINES)
    assert (await peer.rest()).startswith(b"550 5.5.2 ")


async def test_a_client_that_does_not_hang_up_after_that_is_cut_off(serve):
    door = await serve()
    peer = await door.greeted()
    assert (await peer.ask(b"NO\nOP")).startswith(b"500 ")
    door.ingress.sweep(later(LINGER / 2))
    peer.say(b"NOOP\r\n")
    await asyncio.sleep(0)
    door.ingress.sweep(later(LINGER + 1))
    assert await peer.rest() == b""
    await door.ingress.close()


async def test_a_client_that_does_not_read_is_not_read_from(serve):
    door = await serve(commands=10_000_000)
    peer = await door.greeted()
    peer.writer.transport.pause_reading()
    sent = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1):
            while sent < 100_000_000:
                peer.say(b"EHLO x\r\n" * 1000)
                await peer.writer.drain()
                sent += 8000
    (connection,) = door.ingress._connections
    assert connection._choked
    assert not connection._reading
    peer.writer.transport.abort()


async def test_wrong_logins_wait_longer_each_time_whatever_was_wrong(serve, make_listener, caplog):
    door = await serve(make_listener("submission"))
    door.clock.go.set()
    peer = await door.greeted()
    for wrong in (b"AGFsaWNlAHdyb25n", b"AG5vYm9keQBzZWNyZXQ=", b"AGFsaWNlAHdyb25n"):
        assert await peer.ask(b"AUTH PLAIN " + wrong) == b"535 5.7.8 Authentication credentials invalid\r\n"
    assert (await peer.rest()).startswith(b"421 4.7.0 ")
    assert door.clock.waits == [1.0, 2.0, 4.0]
    logged = [each.getMessage() for each in caplog.records if "535 5.7.8" in each.getMessage()]
    assert [line.rpartition("about=")[2] for line in logged] == ["'alice'", "'nobody'", "'alice'"]


async def test_a_client_does_not_keep_us_waiting_after_a_wrong_login(serve, make_listener):
    door = await serve(make_listener("submission"))
    peer = await door.greeted()
    peer.say(b"AUTH PLAIN AGFsaWNlAHdyb25n\r\n")
    while not door.clock.waits:
        await asyncio.sleep(0)
    peer.writer.transport.abort()
    await door.ingress.close()
    assert not door.ingress._connections


async def test_accounts_that_cannot_be_read_defer_the_login(serve, make_listener):
    door = await serve(make_listener("submission"))
    door.people.failure = Unavailable("closed")
    peer = await door.greeted()
    assert (await peer.ask(LOGIN)).startswith(b"454 4.7.0 ")
    door.people.failure = None
    assert (await peer.ask(LOGIN)).startswith(b"235 ")


AROUND = (b"\r\n", b"\n", b"\r", b"\r\r\n", b"\r\n\0", b"\n\r", b"\0\r\n")
SMUGGLING = [left + b"." + right for left in AROUND for right in AROUND if (left, right) != (b"\r\n", b"\r\n")]


@pytest.mark.parametrize("sequence", SMUGGLING, ids=repr)
async def test_nothing_is_smuggled(serve, sequence: bytes):
    door = await serve()
    peer = await door.greeted()
    await peer.begin()
    evil = b"MAIL FROM:<evil@evil.test>\r\nRCPT TO:<victim@remote.test>\r\nDATA\r\n"
    peer.say(MESSAGE + b"body" + sequence + evil)
    replies = [line[:4] for line in (await peer.rest()).splitlines()]
    legal = sequence == b"\r\n.\r\n\0"  # with a NUL at the beginning of the next command
    assert replies == ([b"250 ", b"500 "] if legal else [b"550 "])
    assert len(door.queue.accepted) == legal


# Limits


async def test_connections_are_limited_in_all_and_per_client(serve, caplog):
    for limit, reply in (("connections", b"421 4.3.2 "), ("connections_per_client", b"421 4.7.0 ")):
        door = await serve(**{limit: 2})
        peers = [await door.greeted(), await door.greeted()]
        for _ in range(3):
            extra = await door.open()
            assert (await extra.rest()).startswith(reply)
        caplog.clear()
        door.ingress.sweep(later(0))
        assert [each.getMessage() for each in caplog.records if "turned away" in each.getMessage()] == [
            f"client=127.0.0.1 turned away: {reply_text(reply)} times=3"
        ]
        assert (await peers[0].ask(b"QUIT")).startswith(b"221")
        await peers[0].rest()
        await door.greeted()


async def test_handshakes_that_one_client_never_ends_leave_room_for_others(serve, make_listener, client_tls, caplog):
    door = await serve(
        make_listener("submission", tls="implicit"),
        make_listener("submission", tls="implicit", proxy=["127.0.0.1/32"]),
        connections_per_client=2,
    )
    for _ in range(2):
        await door.open()
    extra = await door.open()
    assert await extra.rest() == b""
    caplog.clear()
    door.ingress.sweep(later(0))
    assert "client=127.0.0.1 turned away: 421 4.7.0 Too many connections from your address times=1" in caplog.text
    # A proxy has many clients.
    peer = await door.open(1)
    peer.say(b"PROXY TCP4 192.0.2.7 127.0.0.1 1234 465\r\n")
    await peer.start_tls(client_tls)
    assert (await peer.reply()).startswith(b"220 ")


def reply_text(begins: bytes) -> str:
    texts = {
        b"421 4.3.2 ": "Too many connections, try again later",
        b"421 4.7.0 ": "Too many connections from your address",
    }
    return str(Reply(421, begins.decode().split()[1], texts[begins]))


async def test_a_client_outside_the_networks_is_turned_away(serve, make_listener):
    door = await serve(make_listener(networks=["192.0.2.0/24"]))
    peer = await door.open()
    assert (await peer.rest()).startswith(b"554 5.7.1 ")


async def test_idle_sessions_end_and_single_octets_do_not_keep_them(serve):
    door = await serve(idle=60.0)
    idle, busy = await door.greeted(), await door.greeted()
    door.ingress.sweep(later(0))
    idle.say(b"NO")
    assert (await busy.ask(b"NOOP")).startswith(b"250")
    door.ingress.sweep(later(59))
    door.ingress.sweep(later(61))
    assert (await idle.rest()).startswith(b"421 4.4.2 ")
    assert (await busy.ask(b"NOOP")).startswith(b"250")


async def test_a_commit_is_not_idleness(serve):
    door = await serve(idle=60.0)
    peer = await committing(door)
    door.ingress.sweep(later(1000))
    door.queue.gate.set()
    assert (await peer.reply()).startswith(b"250")


async def test_a_session_ends_at_its_total_time_between_messages(serve):
    door = await serve(idle=60.0, session=100.0)
    peer, dripping = await door.greeted(), await door.greeted()
    await peer.begin()
    await dripping.begin()
    door.ingress.sweep(later(0))
    door.ingress.sweep(later(59))
    for number, at in enumerate((50, 101)):
        dripping.say(b"x" * 998 + b"\r\n" + b"y" * 4000 + b"\r\n")
        peer.say(b"x" * 998 + b"\r\n" + b"y" * 4000 + b"\r\n")
        while peer_progress(door) <= number:
            await asyncio.sleep(0)
        door.ingress.sweep(later(at))
    peer.say(b".\r\n")
    assert (await peer.reply()).startswith(b"250 2.0.0 OK queued")
    assert (await peer.ask(b"NOOP")).startswith(b"421 4.4.2 ")
    door.ingress.sweep(later(161))
    assert (await dripping.rest()).startswith(b"421 4.4.2 ")
    assert len(door.queue.accepted) == 1


def peer_progress(door) -> int:
    return min(each._session.progress - 4 for each in door.ingress._connections)


# The end


async def test_draining_lets_messages_finish_and_takes_no_new_ones(serve):
    door = await serve()
    sending, idle = await door.greeted(), await door.greeted()
    await sending.begin()
    sending.say(MESSAGE)
    draining = asyncio.create_task(door.ingress.drain())
    await asyncio.sleep(0)
    with pytest.raises(ConnectionRefusedError):
        await door.open()
    assert (await idle.ask(b"MAIL FROM:<>")).startswith(b"421 4.3.2 ")
    assert not draining.done()
    sending.say(b".\r\n")
    assert (await sending.reply()).startswith(b"250 ")
    await draining
    assert (await sending.ask(b"NOOP")).startswith(b"421 4.3.2 ")


async def test_closing_answers_a_commit_and_accepts_nothing_else(serve):
    door = await serve()
    committing, sending, idle = await door.greeted(), await door.greeted(), await door.greeted()
    door.queue.gate.clear()
    await committing.begin()
    committing.say(MESSAGE + b".\r\n")
    await door.queue.asked.wait()
    await sending.begin()
    closing = asyncio.create_task(door.ingress.close())
    assert await idle.rest() == await sending.rest() == b"421 4.3.2 Service shutting down, try again shortly\r\n"
    assert not closing.done()
    door.queue.gate.set()
    assert [line[:4] for line in (await committing.rest()).splitlines()] == [b"250 ", b"421 "]
    await closing
    assert len(door.queue.accepted) == 1


# Listening


async def test_a_unix_socket_serves_everybody_on_the_machine(serve, make_listener, tmp_path: Path):
    path = tmp_path / "smtp.sock"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    door = await serve(make_listener(address=f"unix:{path}", networks=[]))
    assert stat.S_IMODE(path.stat().st_mode) == 0o666
    reader, writer = await asyncio.open_unix_connection(str(path))
    assert (await reader.readline()).startswith(b"220 ")
    writer.write(b"HELO client.test\r\nMAIL FROM:<>\r\nRCPT TO:<b@remote.test>\r\nDATA\r\n")
    for _ in range(4):
        await reader.readline()
    writer.write(b".\r\n")
    assert (await reader.readline()).startswith(b"250 2.0.0 OK queued")
    assert door.queue.accepted[0].client == "unix"
    assert door.queue.accepted[0].content.startswith(b"Received: from client.test\r\n\tby ")
    writer.close()
    with pytest.raises(OSError, match="cannot listen on unix:"):
        await serve(make_listener(address=f"unix:{path}", networks=[]))
    second = await serve(make_listener(address=f"unix:{path}", networks=[]), roles="roles: {ingress: 2}")
    assert second.ingress.bound == []
    await second.ingress.close()
    assert path.exists()
    await door.ingress.close()
    assert not path.exists()


async def test_a_port_in_use_is_named_and_nothing_stays_open(serve, make_listener):
    door = await serve()
    taken = make_listener(address=f"127.0.0.1:{door.port}")
    free = socket.create_server(("127.0.0.1", 0))
    other = make_listener(address=f"127.0.0.1:{free.getsockname()[1]}")
    free.close()
    with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{door.port}: Address already in use"):
        await serve(other, taken)
    assert (await serve(other)).port == other.address.port


async def test_processes_share_a_port(serve, make_listener):
    first = await serve(roles="roles: {ingress: 2}")
    second = await serve(make_listener(address=f"127.0.0.1:{first.port}"), roles="roles: {ingress: 2}")
    assert first.port == second.port


async def test_sockets_from_outside_serve_the_listeners_of_their_addresses(serve, make_listener):
    passed = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in passed]
    listeners = [
        make_listener(address=addresses[1]),
        make_listener("submission", address=addresses[0]),
        make_listener(),
    ]
    door = await serve(*listeners, sockets=passed)
    assert [str(at) for _, at in door.ingress.bound[:2]] == [addresses[1], addresses[0]]
    assert b"AUTH" in await (await door.greeted(1)).ask(b"EHLO x")
    unwanted = socket.create_server(("127.0.0.1", 0))
    with pytest.raises(ValueError, match=r"no listener for the socket 127\.0\.0\.1"):
        await serve(make_listener(), sockets=[unwanted])
    unwanted.close()


# PROXY


async def test_a_proxy_says_who_its_client_is(serve, make_listener, client_tls):
    door = await serve(
        make_listener(networks=["192.0.2.0/24"], proxy=["127.0.0.0/8"]),
        make_listener("submission", tls="implicit", proxy=["127.0.0.0/8"]),
        make_listener(proxy=["192.0.2.0/24"]),
        make_listener("submission", proxy=["127.0.0.0/8"]),
    )
    peer = await door.open()
    peer.say(b"PROXY TCP4 192.0.2.7 127.0.0.1 1234 25\r\nEHLO client.test\r\n")
    assert (await peer.reply()).startswith(b"220 ")
    await peer.reply()
    await peer.begin()
    peer.say(b".\r\n")
    assert (await peer.reply()).startswith(b"250 ")
    assert door.queue.accepted[0].client == "192.0.2.7"
    for header, reply in (
        (b"PROXY TCP4 198.51.100.1 127.0.0.1 1234 25\r\n", b"554 5.7.1 "),
        (b"PROXY UNKNOWN\r\n", b"554 5.7.1 "),
        (b"EHLO client.test\r\n", b""),
    ):
        peer = await door.open()
        peer.say(header)
        assert (await peer.rest()).startswith(reply)
    # The handshake comes behind the header.
    peer = await door.open(1)
    peer.say(b"PROXY TCP4 192.0.2.7 127.0.0.1 1234 465\r\n")
    await peer.start_tls(client_tls)
    assert (await peer.reply()).startswith(b"220 ")
    # Who is no proxy speaks for itself, and needs no header.
    peer = await door.greeted(2)
    # A password from afar is not local because the proxy is.
    peer = await door.open(3)
    peer.say(b"PROXY TCP4 192.0.2.7 127.0.0.1 1234 587\r\nEHLO client.test\r\n")
    await peer.reply()
    assert b"AUTH" not in await peer.reply()


async def test_a_drain_ends_waiting_for_proxies(serve, make_listener):
    door = await serve(make_listener(proxy=["127.0.0.0/8"]))
    peer = await door.open()
    await asyncio.sleep(0)
    await door.ingress.drain()
    assert await peer.rest() == b""


async def test_ends_are_quiet(serve, caplog):
    door = await serve()
    peer = await door.greeted()
    await peer.ask(b"QUIT")
    await peer.rest()
    assert [each for each in caplog.records if each.levelno >= logging.WARNING] == []
