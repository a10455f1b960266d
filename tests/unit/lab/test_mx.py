"""The receiving MX over real sockets: aiosmtplib as the client, raw octets where a client would be too polite."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiosmtplib
import pytest
import uvloop

from mta.config import HostPort
from mta.lab.ca import PrivateCa
from mta.lab.clock import FakeClock
from mta.lab.commands import Extension
from mta.lab.mailbox import Captured
from mta.lab.mx import MxSettings, ReceivingMx
from mta.mail.envelope import Envelope, Notify, Recipient

MAIL = b"Subject: hi\r\n\r\nhello\r\n"


class Lab:
    """One MX and what it captured."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.clock = FakeClock()
        self.captured: list[Captured] = []
        ca = PrivateCa(directory)
        certificate = ca.issue("mx1.lab.test", "127.0.0.1")
        self.trusting = ssl.create_default_context(cafile=ca.ca_file)
        self.mx = ReceivingMx(MxSettings(**settings), certificate, self.clock, self.capture)

    def capture(self, captured: Captured) -> str:
        self.captured.append(captured)
        return f"number {len(self.captured)}"

    def client(self, **options: Any) -> aiosmtplib.SMTP:
        address = self.mx.address
        options = {"start_tls": False, "tls_context": self.trusting, "timeout": 5} | options
        return aiosmtplib.SMTP(hostname=address.host, port=address.port, **options)


@asynccontextmanager
async def running(directory: Path, **settings: Any) -> AsyncIterator[Lab]:
    lab = Lab(directory, **settings)
    await lab.mx.start()
    try:
        yield lab
    finally:
        async with asyncio.timeout(5):
            await lab.mx.close()


class Wire:
    """A client that says exactly what it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def say(self, octets: bytes) -> None:
        self.writer.write(octets)
        await self.writer.drain()

    async def reply(self) -> str:
        """Read one reply, its lines joined by a bar."""
        lines = []
        async with asyncio.timeout(5):
            while True:
                line = (await self.reader.readuntil(b"\r\n")).decode().rstrip("\r\n")
                lines.append(line)
                if line[3:4] != "-":
                    return "|".join(lines)

    async def talk(self, *lines: str) -> list[str]:
        replies = []
        for line in lines:
            await self.say(line.encode() + b"\r\n")
            replies.append(await self.reply())
        return replies


@asynccontextmanager
async def wire(lab: Lab) -> AsyncIterator[Wire]:
    reader, writer = await asyncio.open_connection(lab.mx.address.host, lab.mx.address.port)
    made = Wire(reader, writer)
    assert (await made.reply()).startswith("220 mx1.lab.test ESMTP")
    try:
        yield made
    finally:
        writer.close()


async def send(lab: Lab, *recipients: str, content: bytes = MAIL, sender: str = "a@b.test") -> str:
    """Send over plain text and return the last reply: of the refused recipient or of the content."""
    async with wire(lab) as client:
        await client.talk("EHLO c.test", f"MAIL FROM:<{sender}>")
        for reply in await client.talk(*(f"RCPT TO:<{each}>" for each in recipients)):
            if reply[0] != "2":
                return reply
        assert (await client.talk("DATA"))[0].startswith("354")
        await client.say(content + b".\r\n")
        return await client.reply()


async def until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_mail_over_verified_tls_is_captured_with_its_envelope(tmp_path: Path, run: Any) -> None:
    async def story() -> None:
        async with running(tmp_path) as lab:
            async with lab.client(start_tls=True, local_hostname="client.test") as client:
                await client.mail(
                    "ä@b.test", options=["SMTPUTF8", "BODY=8BITMIME", "RET=HDRS", "ENVID=q+2Bx"], encoding="utf-8"
                )
                await client.rcpt("c@d.test", options=["NOTIFY=FAILURE", "ORCPT=rfc822;C+2Bc@d.test"])
                await client.rcpt("e@f.test")
                _, reply = await client.data("Subject: grüße\r\n\r\nhello\r\n".encode())
                local = client.transport.get_extra_info("sockname")
            assert reply == "2.0.0 captured as number 1"
            assert lab.captured == [
                Captured(
                    envelope=Envelope(
                        sender="ä@b.test",
                        recipients=(
                            Recipient("c@d.test", int(Notify.FAILURE), "rfc822;C+2Bc@d.test"),
                            Recipient("e@f.test"),
                        ),
                        eight_bit=True,
                        smtputf8=True,
                        ret="HDRS",
                        envid="q+2Bx",
                    ),
                    content="Subject: grüße\r\n\r\nhello\r\n".encode(),
                    tls="TLSv1.3 TLS_AES_256_GCM_SHA384",
                    peer=f"{local[0]}:{local[1]}",
                    at=lab.clock.now(),
                    ehlo="client.test",
                )
            ]

    run(story())


async def test_ehlo_offers_what_there_is_and_starttls_only_once(tmp_path: Path) -> None:
    async with running(tmp_path, size=1000) as lab:
        async with wire(lab) as client:
            offered = (await client.talk("EHLO c.test"))[0].split("|")
            assert [line[:4] for line in offered] == ["250-"] * 7 + ["250 "]
            assert {line[4:] for line in offered} == {
                "mx1.lab.test", "SIZE 1000", "8BITMIME", "DELIVERBY", "DSN", "PIPELINING", "SMTPUTF8", "STARTTLS",
            }  # fmt: skip
        async with lab.client(start_tls=True) as client:
            await client.ehlo()
            assert not client.supports_extension("STARTTLS")
            assert client.supports_extension("REQUIRETLS")
            assert (await client.execute_command(b"STARTTLS")).code == 503


async def test_what_is_switched_off_is_neither_offered_nor_taken(tmp_path: Path) -> None:
    async with running(tmp_path, extensions=frozenset[Extension](), tls="none") as lab, wire(lab) as client:
        assert await client.talk("EHLO c.test") == [f"250-mx1.lab.test|250 SIZE {50 << 20}"]
        refused = await client.talk(
            "MAIL FROM:<a@b.test> BODY=8BITMIME", "MAIL FROM:<a@b.test> SMTPUTF8", "MAIL FROM:<a@b.test> RET=FULL"
        )
        assert [reply[:9] for reply in refused] == ["555 5.5.4"] * 3
        assert (await client.talk("STARTTLS"))[0].startswith("454")
        taken = await client.talk("MAIL FROM:<a@b.test>", "RCPT TO:<c@d.test> NOTIFY=NEVER", "RCPT TO:<c@d.test>")
        assert [reply[:3] for reply in taken] == ["250", "555", "250"]


async def test_broken_tls_fails_the_handshake_and_nothing_else(tmp_path: Path) -> None:
    async with running(tmp_path, tls="broken") as lab:
        with pytest.raises((aiosmtplib.SMTPException, ssl.SSLError, ConnectionError)):
            await lab.client(start_tls=True).connect()
        assert (await send(lab, "c@d.test")).startswith("250")
        assert lab.captured[0].tls == ""


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_client_that_does_not_do_tls_after_all_is_only_its_own_problem(tmp_path: Path, run: Any) -> None:
    async def story() -> None:
        async with running(tmp_path) as lab:
            async with wire(lab) as client:
                await client.talk("EHLO c.test", "STARTTLS")
                await client.say(b"MAIL FROM:<a@b.test>\r\n")
                async with asyncio.timeout(5):
                    await client.reader.read()
            assert (await send(lab, "c@d.test")).startswith("250")

    run(story())


async def test_what_was_sent_before_the_handshake_is_not_obeyed_after_it(tmp_path: Path) -> None:
    async with running(tmp_path) as lab, wire(lab) as client:
        await client.talk("EHLO c.test")
        await client.say(b"STARTTLS\r\nMAIL FROM:<injected@b.test>\r\n")
        assert (await client.reply()).startswith("220")
        await client.writer.start_tls(lab.trusting, server_hostname="mx1.lab.test")
        replies = await client.talk("EHLO c.test", "RCPT TO:<c@d.test>")
        assert replies[1].startswith("503")


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (b"", b""),
        (b"..\r\n", b".\r\n"),
        (b"a\r\n..b\r\n...\r\n\r\n", b"a\r\n.b\r\n..\r\n\r\n"),
        (b".x\r\n", b"x\r\n"),
        (b"bare\nlf, bare\rcr\r\n", b"bare\nlf, bare\rcr\r\n"),
        (b"smuggled\n.\nMAIL\r\n", b"smuggled\n.\nMAIL\r\n"),
        (b"smuggled\n.\r\nMAIL\r\n", b"smuggled\n.\r\nMAIL\r\n"),
        (b"\x00\xff\r\n", b"\x00\xff\r\n"),
        (b"x" * 10_000 + b"\r\n", b"x" * 10_000 + b"\r\n"),
        (b"y" * 300_000 + b"\r\n..\r\nz\r\n", b"y" * 300_000 + b"\r\n.\r\nz\r\n"),
        (b"\r\n" * 100_000, b"\r\n" * 100_000),
    ],
    ids=lambda octets: repr(octets[:20]),
)
async def test_content_is_the_octets_of_the_wire_without_dot_stuffing(tmp_path: Path, sent: bytes, kept: bytes) -> None:
    async with running(tmp_path) as lab:
        assert (await send(lab, "c@d.test", content=sent)).startswith("250")
        assert lab.captured[0].content == kept


async def test_content_split_anywhere_is_the_same(tmp_path: Path) -> None:
    async with running(tmp_path) as lab, wire(lab) as client:
        await client.talk("EHLO c.test")
        (session,) = lab.mx.sessions
        for at in range(1, len(b"a\r\n..\r\n.\r\n")):
            await client.talk("MAIL FROM:<a@b.test>", "RCPT TO:<c@d.test>", "DATA")
            await client.say(b"a\r\n..\r\n.\r\n"[:at])
            await until(lambda: len(session._unread()) == len(b"\r\n") + at)  # noqa: B023 - awaited at once
            await client.say(b"a\r\n..\r\n.\r\n"[at:])
            assert (await client.reply()).startswith("250")
        assert {each.content for each in lab.captured} == {b"a\r\n.\r\n"}


async def test_size_is_a_limit_announced_or_not(tmp_path: Path) -> None:
    async with running(tmp_path, size=100_000) as lab, wire(lab) as client:
        announced = await client.talk("EHLO c.test", "MAIL FROM:<a@b.test> SIZE=100001")
        assert announced[1].startswith("552 5.3.4")
        for size, code in ((100_001, "552"), (100_000, "250")):
            await client.talk("MAIL FROM:<a@b.test>", "RCPT TO:<c@d.test>", "DATA")
            await client.say(b"x" * (size - 2) + b"\r\n.\r\n")
            assert (await client.reply()).startswith(code)
        assert [len(each.content) for each in lab.captured] == [100_000]


async def test_pipelined_commands_are_answered_one_by_one_in_one_write(tmp_path: Path) -> None:
    async with running(tmp_path) as lab, wire(lab) as client:
        await client.talk("EHLO c.test")
        recipients = b"".join(b"RCPT TO:<%b@d.test>\r\n" % name for name in (b"ok", b"reject", b"full"))
        await client.say(b"MAIL FROM:<a@b.test>\r\n" + recipients + b"DATA\r\n")
        async with asyncio.timeout(5):
            group = await client.reader.read(4096)
        assert [line[:3] for line in group.decode().splitlines()] == ["250", "250", "550", "552", "354"]
        await client.say(MAIL + b".\r\n")
        assert (await client.reply()).startswith("250")
        assert [each.address for each in lab.captured[0].envelope.recipients] == ["ok@d.test"]


async def test_a_group_without_a_good_recipient_takes_no_content(tmp_path: Path) -> None:
    async with running(tmp_path) as lab, wire(lab) as client:
        await client.talk("EHLO c.test")
        await client.say(b"MAIL FROM:<a@b.test>\r\nRCPT TO:<reject@d.test>\r\nDATA\r\n")
        assert [(await client.reply())[:3] for _ in range(3)] == ["250", "550", "503"]
        assert (await client.talk("RSET", "NOOP", "QUIT"))[2].startswith("221")


async def test_content_sent_before_it_was_asked_for_ends_the_session(tmp_path: Path) -> None:
    async with running(tmp_path) as lab, wire(lab) as client:
        await client.talk("EHLO c.test", "MAIL FROM:<a@b.test>", "RCPT TO:<c@d.test>")
        await client.say(b"DATA\r\nSubject: early\r\n.\r\n")
        assert (await client.reply()).startswith("503")
        assert await client.reader.read() == b""
        assert lab.captured == []


@pytest.mark.parametrize(
    ("recipient", "reply"),
    [("reject+1@d.test", "550 5.1.1"), ("full@d.test", "552 5.2.2"), ("tempfail-1@d.test", "451 4.3.0")],
)
async def test_recipients_are_refused_as_their_names_say(tmp_path: Path, recipient: str, reply: str) -> None:
    async with running(tmp_path) as lab:
        assert (await send(lab, recipient)).startswith(reply)
        assert lab.captured == []


async def test_tempfail_and_greylisting_let_mail_through_in_the_end(tmp_path: Path) -> None:
    async with running(tmp_path, greylist=30) as lab:
        replies = [await send(lab, "tempfail-2+x@d.test") for _ in range(4)]
        assert [reply[:3] for reply in replies] == ["451", "451", "250", "451"]
        assert (await send(lab, "greylist@d.test"))[:9] == "451 4.7.1"
        await lab.clock.advance(29)
        assert (await send(lab, "greylist@d.test"))[:9] == "451 4.7.1"
        await lab.clock.advance(1)
        assert (await send(lab, "greylist@d.test"))[:3] == "250"
        assert len(lab.captured) == 2


async def test_drop_breaks_off_after_the_content_and_keeps_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as lab:
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await send(lab, "ok@d.test", "drop@d.test")
        assert (lab.captured, lab.mx.transactions, lab.mx.connections) == ([], 1, 1)


async def test_slow_answers_when_its_time_has_passed(tmp_path: Path) -> None:
    async with running(tmp_path, slow=60) as lab:
        sending = asyncio.ensure_future(send(lab, "slow@d.test"))
        await until(lambda: lab.mx.transactions)
        await lab.clock.advance(59)
        assert not sending.done()
        assert lab.captured == []
        await lab.clock.advance(1)
        assert (await sending).startswith("250")
        assert len(lab.captured) == 1


async def test_tarpit_answers_an_octet_a_second(tmp_path: Path) -> None:
    async with running(tmp_path) as lab, wire(lab) as client:
        await client.talk("EHLO c.test", "MAIL FROM:<a@b.test>", "RCPT TO:<tarpit@d.test>", "DATA")
        await client.say(MAIL + b".\r\n")
        await until(lambda: lab.mx.transactions)
        seen = b""
        for octet in b"250 2.0.0 captured as ":
            async with asyncio.timeout(5):
                seen += await client.reader.read(100)
            assert seen[-1] == octet
            await lab.clock.advance(1)
        assert seen == b"250 2.0.0 captured as "
        assert await client.reply() == "number 1"


@pytest.mark.parametrize("recipient", ["slow@d.test", "tarpit@d.test"])
async def test_closing_breaks_off_what_waits_and_a_restart_keeps_the_port(tmp_path: Path, recipient: str) -> None:
    async with running(tmp_path) as lab:
        sending = asyncio.ensure_future(send(lab, recipient))
        await until(lambda: lab.mx.transactions)
        address = lab.mx.address
        await lab.mx.close()
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await sending
        assert lab.captured == []
        await lab.mx.start()
        assert lab.mx.address == address
        assert (await send(lab, "ok@d.test")).startswith("250")


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("stage", ["greeted", "handshake", "tls"])
def test_closing_hangs_up_at_every_stage(tmp_path: Path, run: Any, stage: str) -> None:
    async def story() -> None:
        async with running(tmp_path) as lab, wire(lab) as client:
            if stage != "greeted":
                await client.talk("EHLO c.test", "STARTTLS")
            if stage == "tls":
                await client.writer.start_tls(lab.trusting, server_hostname="mx1.lab.test")
                await client.talk("EHLO c.test")
            async with asyncio.timeout(5):
                await lab.mx.close()
                with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                    await client.reader.readexactly(1)
            assert not lab.mx.sessions

    run(story())


async def test_a_client_that_goes_away_in_data_leaves_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as lab:
        async with wire(lab) as client:
            await client.talk("EHLO c.test", "MAIL FROM:<a@b.test>", "RCPT TO:<c@d.test>", "DATA")
            await client.say(b"half a mes")
        await until(lambda: not lab.mx.sessions)
        assert lab.captured == []
        assert lab.mx.transactions == 0


async def test_mail_that_cannot_be_kept_is_deferred_without_saying_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def full(_captured: Captured) -> str:
        raise OSError("no space at /secret/place")

    async with running(tmp_path) as lab:
        lab.mx.capture = full
        assert await send(lab, "c@d.test") == "451 4.3.0 laboratory failed"
    assert "/secret/place" in caplog.text


@pytest.mark.parametrize(
    ("lines", "last"),
    [
        (["MAIL FROM:<a@b.test>"], "503"),
        (["EHLO"], "501"),
        (["EHLO c.test", "RCPT TO:<c@d.test>"], "503"),
        (["EHLO c.test", "DATA"], "503"),
        (["EHLO c.test", "MAIL FROM:<a@b.test>", "MAIL FROM:<a@b.test>"], "503"),
        (["EHLO c.test", "MAIL FROM:<a@b.test>", "RCPT TO:<c@d.test>", "DATA x"], "501"),
        (["EHLO c.test", "MAIL FROM:<a@b.test>", "EHLO c.test", "RCPT TO:<c@d.test>"], "503"),
        (["HELO c.test", "MAIL FROM:<a@b.test>", "RCPT TO:<c@d.test>", "DATA"], "354"),
        (["EHLO c.test", "MAIL FROM:<" + "a" * 5000 + ">"], "500"),
        (["EHLO c.test", "MAIL FROM:<a@b.test> ENVID=" + "a" * 100 + " SIZE=1 RET=FULL"], "250"),
        (["EHLO c.test", *["EHLO c.test"] * 60, "MAIL FROM:<" + "a" * 5000 + ">"], "500"),
        (["EHLO c.test", "FROBNICATE"], "500"),
    ],
)
async def test_commands_out_of_order_or_shape(tmp_path: Path, lines: list[str], last: str) -> None:
    async with running(tmp_path) as lab, wire(lab) as client:
        assert (await client.talk(*lines))[-1].startswith(last)


async def test_two_messages_on_one_connection_and_two_receivers_on_one_port(tmp_path: Path) -> None:
    async with running(tmp_path) as lab:
        async with lab.client() as client:
            for number in range(2):
                await client.sendmail("", ["c@d.test"], b"number: %d\r\n\r\n" % number)
        assert [each.envelope.sender for each in lab.captured] == ["", ""]
        assert (lab.mx.connections, lab.mx.transactions) == (1, 2)
        there = HostPort(host="127.0.0.2", port=lab.mx.address.port)
        async with running(tmp_path, address=there) as second:
            assert (await send(second, "c@d.test")).startswith("250")
        assert len(lab.captured) == 2
