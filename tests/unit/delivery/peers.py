"""Peers on loopback for the tests of SMTP out: an SMTP server that follows a script, and a DNS server."""

import asyncio
import ssl
from collections.abc import Mapping
from typing import Self

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

from mta.clock import SystemClock
from mta.config import Config, Dns, HostPort
from mta.delivery.attempt import Attempter
from mta.delivery.plans import Plans
from mta.delivery.policy import StsPolicy
from mta.delivery.protection import Protection
from mta.delivery.resolver import Resolver
from mta.delivery.signing import Signed
from mta.delivery.sources import Sources
from mta.delivery.sts_policies import Standing
from mta.delivery.tlsrpt import Session
from mta.mail.envelope import Recipient
from mta.mail.result import Outcome
from mta.queue.job import Job
from mta.queue.limits import Limits
from mta.queue.shaping import Shaping
from mta.spool.records import Claim, Entry, Message, MessageClass, Origin, RecipientState

HOST = "127.0.0.1"

EHLO = """
S: 220 mx.test ESMTP
C: EHLO relay.test
S: 250-mx.test
S: 250-PIPELINING
S: 250-8BITMIME
S: 250-SMTPUTF8
S: 250-DSN
S: 250 SIZE 1000000
"""
ACCEPT = """
C: MAIL FROM:
C: RCPT TO:
C: DATA
S: 250 2.1.0 sender ok
S: 250 2.1.5 recipient ok
S: 354 go on
C: <content>
S: 250 2.0.0 taken as 1
"""
QUIT = """
C: QUIT
S: 221 bye
"""


class ScriptedServer:
    """Follows one script a connection, the last one over and over.

    `C: text` waits for a line that begins so, `C: <content>` for CRLF.CRLF; `S: text` is sent with CRLF;
    `R: text` is sent as it is (Python escapes); `X: close | reset | hear | hang | starttls` does that. What does
    not fit the script goes to `problems`, everything received to `heard`, one item a connection.
    """

    def __init__(self, *scripts: str, tls: ssl.SSLContext | None = None) -> None:
        self.scripts = list(scripts)
        self.tls = tls
        self.heard: list[bytes] = []
        self.contents: list[bytes] = []
        self.chunks: list[bytes] = []
        self.problems: list[str] = []
        self.port = 0
        self._release = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, host: str = HOST, port: int = 0, tls: ssl.SSLContext | None = None) -> "ScriptedServer":
        self._server = await asyncio.start_server(self._serve, host, port, ssl=tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aenter__(self) -> Self:
        return self if self.port else await self.start()

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self._release.set()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.add(asyncio.current_task())
        number = len(self.heard)
        self.heard.append(b"")
        conversation = _Conversation(self, number, reader, writer)
        try:
            for line in self.scripts[min(number, len(self.scripts) - 1)].strip().splitlines():
                await conversation.follow(line)
            await conversation.hear_out()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError, ssl.SSLError):
            pass  # cancelled at the end of the test, by nobody else
        finally:
            self._tasks.discard(asyncio.current_task())
            writer.close()


class _Conversation:
    def __init__(self, server, number, reader, writer) -> None:
        self.server, self.number, self.reader, self.writer = server, number, reader, writer
        self.buffer = b""

    async def follow(self, line: str) -> None:
        kind, _, text = line.partition(": ")
        if kind == "S":
            self.writer.write(text.encode() + b"\r\n")
        elif kind == "R":
            self.writer.write(text.encode().decode("unicode_escape").encode("latin-1"))
        elif kind == "C" and text == "<content>":
            content = await self._until(b"\r\n.\r\n") if not self.buffer.startswith(b".\r\n") else b".\r\n"
            if content == b".\r\n":
                self.buffer = self.buffer[3:]
            self.server.contents.append(content)
        elif kind == "C":
            heard = (await self._until(b"\r\n")).decode("utf-8", "replace")
            if not heard.startswith(text):
                self.server.problems.append(f"expected {text!r}, heard {heard!r}")
                raise ConnectionError
        elif text == "close":
            self.writer.close()
        elif text == "reset":
            self.writer.transport.abort()
        elif text == "hear":
            await self._more()
        elif text == "hang":
            await self.server._release.wait()
        elif text == "starttls":
            await self.writer.drain()
            await self.writer.start_tls(self.server.tls)

    async def hear_out(self) -> None:
        while await self._more():
            pass
        if self.buffer:
            self.server.problems.append(f"heard more than the script has: {self.buffer!r}")

    async def _until(self, end: bytes) -> bytes:
        while end not in self.buffer and not (end == b"\r\n.\r\n" and self.buffer == b".\r\n"):
            if not await self._more():
                self.server.problems.append(f"hung up before {end!r}, after {self.buffer!r}")
                raise ConnectionError
        head, found, self.buffer = self.buffer.partition(end)
        if not found:
            return head
        return head + found

    async def _more(self) -> bytes:
        data = await self.reader.read(65536)
        self.buffer += data
        self.server.heard[self.number] += data
        if data:
            self.server.chunks.append(data)
        return data


class DnsPeer:
    """A recursive resolver's face: `records` answer, `rcodes` fail, names in `silent` get no answer.

    Keys are (name, type); a name of which nothing is known does not exist.
    """

    def __init__(self, records: Mapping[tuple[str, str], list[str]] | None = None, ttl: int = 60) -> None:
        self.records = dict(records or {})
        self.rcodes: dict[str, dns.rcode.Rcode] = {}
        self.silent: set[str] = set()
        self.truncated: set[str] = set()
        self.secure: set[str] = set()  # names whose answers it says it has validated
        self.asked: list[tuple[str, str, str]] = []
        self.ttl = ttl
        self.hold: asyncio.Event | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._tcp = await asyncio.start_server(self._serve_tcp, HOST, 0)
        self.port = self._tcp.sockets[0].getsockname()[1]
        peer = self

        class Udp(asyncio.DatagramProtocol):
            def connection_made(self, transport):
                self.transport = transport

            def datagram_received(self, data, addr):
                task = loop.create_task(self.reply(data, addr))
                peer._tasks.add(task)
                task.add_done_callback(peer._tasks.discard)

            async def reply(self, data, addr):
                if peer.hold is not None:
                    await peer.hold.wait()
                answer = peer.answer(data, "udp")
                if answer is not None:
                    self.transport.sendto(answer, addr)

        self._udp, _ = await loop.create_datagram_endpoint(Udp, local_addr=(HOST, self.port))
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in list(self._tasks):
            task.cancel()
        self._udp.close()
        self._tcp.close()
        await self._tcp.wait_closed()

    @property
    def settings(self) -> Dns:
        return Dns(servers=(HostPort(host=HOST, port=self.port),), timeout=0.5)

    def answer(self, wire: bytes, over: str) -> bytes | None:
        query = dns.message.from_wire(wire)
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        kind = dns.rdatatype.to_text(question.rdtype)
        self.asked.append((name, kind, over))
        if name in self.silent:
            return None
        response = dns.message.make_response(query)
        if name in self.secure and query.flags & dns.flags.AD:
            response.flags |= dns.flags.AD
        response.flags |= dns.flags.RA
        if name in self.rcodes:
            response.set_rcode(self.rcodes[name])
        elif name in self.truncated and over == "udp":
            response.flags |= dns.flags.TC
        else:
            self._fill(response, name, kind)
        return response.to_wire(max_size=65535)

    def _fill(self, response: dns.message.Message, name: str, kind: str) -> None:
        for _ in range(20):
            if (name, kind) in self.records:
                values = self.records[name, kind]
                response.answer.append(dns.rrset.from_text(f"{name}.", self.ttl, "IN", kind, *values))
                return
            alias = self.records.get((name, "CNAME"))
            if alias is None:
                break
            response.answer.append(dns.rrset.from_text(f"{name}.", self.ttl, "IN", "CNAME", *alias))
            name = alias[0].rstrip(".").lower()
        soa = "ns.test. hostmaster.test. 1 3600 600 86400 30"
        response.authority.append(dns.rrset.from_text("test.", self.ttl, "IN", "SOA", soa))
        if not any(known == name for known, _ in self.records):
            response.set_rcode(dns.rcode.NXDOMAIN)

    async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            size = int.from_bytes(await reader.readexactly(2), "big")
            answer = self.answer(await reader.readexactly(size), "tcp")
            if answer is not None:
                writer.write(len(answer).to_bytes(2, "big") + answer)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


CONTENT = b"From: a@sender.test\r\nSubject: hello\r\n\r\nHello.\r\n"


class Contents:
    """A spool that holds one content."""

    def __init__(self, content: bytes = CONTENT) -> None:
        self.value = content

    async def content(self, message: Message) -> bytes:
        return self.value


class Records:
    """A spool that holds named records."""

    def __init__(self) -> None:
        self.held: dict[tuple[str, str], bytes] = {}
        self.writes = 0

    async def get_record(self, kind: str, name: str) -> bytes | None:
        return self.held.get((kind, name))

    async def put_record(self, kind: str, name: str, value: bytes, *, replace: bool) -> bool:
        assert replace
        self.writes += 1
        self.held[kind, name] = value
        return True

    async def change_record(self, kind: str, name: str, before: bytes, after: bytes) -> bool:
        same = self.held.get((kind, name)) == before
        return same and await self.put_record(kind, name, after, replace=True)

    async def delete_record(self, kind: str, name: str) -> bool:
        return self.held.pop((kind, name), None) is not None

    async def list_records(self, kind: str) -> list[tuple[str, bytes]]:
        return [(name, value) for (found, name), value in self.held.items() if found == kind]


class Policies:
    """MTA-STS policies that are known, by domain."""

    def __init__(self, *policies: StsPolicy) -> None:
        self.standings = {each.domain: Standing(each) for each in policies}

    def knows(self, domain: str) -> bool:
        return True

    async def of(self, domain: str) -> Standing:
        return self.standings.setdefault(domain, Standing())


class Noted:
    """What was noted of sessions."""

    def __init__(self) -> None:
        self.sessions: list[Session] = []

    def note(self, session: Session) -> None:
        self.sessions.append(session)


def sts_policy(*mx: str, mode: str = "enforce", domain: str = "rcpt.test") -> StsPolicy:
    """Make a domain's MTA-STS policy."""
    return StsPolicy(domain=domain, id="1", mode=mode, mx=mx, max_age=86400, fetched_at=0.0)


class NoKeys:
    """A signer that has `signature` to put before anything."""

    def __init__(self, signature: bytes = b"") -> None:
        self.signature = signature

    async def sign(self, message: Message, content: bytes) -> Signed:
        return Signed(self.signature, "sender.test:s1" if self.signature else "no key")


def job(
    *addresses: str | Recipient,
    domain: str = "rcpt.test",
    sender: str = "a@sender.test",
    steps: int = 0,
    **options: object,
) -> Job:
    """Make a claimed entry for some addresses (one, if none are given)."""
    recipients = [Recipient(each) if isinstance(each, str) else each for each in addresses or (f"r@{domain}",)]
    message = Message(
        id="m" * 22,
        tenant="t",
        sender=sender,
        origin=Origin.RELAY,
        accepted_at=0,
        release_at=0,
        expires_at=1e10,
        segments=(),
        entries=1,
        **options,
    )
    entry = Entry(
        message=message.id,
        number=1,
        tenant="t",
        message_class=MessageClass.NORMAL,
        domain=domain,
        recipients=tuple(RecipientState(each) for each in recipients),
        due_at=0,
        expires_at=1e10,
        timer_at=1e10,
        steps=steps,
    )
    return Job(entry, message, Claim(epoch=1, attempt=1, retry_at=0))


def config(
    *,
    routes: list[dict[str, object]] | None = None,
    sources: list[dict[str, object]] | None = None,
    **delivery: object,
) -> Config:
    """Settings with short time-outs, for a relay that calls itself relay.test."""
    seconds = dict.fromkeys(
        [f"{each}_timeout" for each in ("connect", "greeting", "command", "data", "block", "final")], 5.0
    )
    return Config.model_validate(
        {
            "hostname": "relay.test",
            "routes": routes or [],
            "sources": sources or [],
            "delivery": {**seconds, **delivery},
        }
    )


def route(*ports: int, **options: object) -> dict[str, object]:
    """A route for everything, to ports on loopback."""
    return {"domains": ["*"], "relay": [f"{HOST}:{port}" for port in ports], **options}


class Relay:
    """An attempter with its resolver, closed at the end."""

    def __init__(
        self,
        settings: Config,
        *,
        dns: Dns | None = None,
        content: bytes = CONTENT,
        signature: bytes = b"",
        clock=None,
        spool=None,
        shaping: Shaping | None = None,
        policies: Policies | None = None,
    ) -> None:
        clock, spool = clock or SystemClock(), spool or Records()
        limits = Limits(shaping or Shaping(), settings.delivery.connections_per_site)
        self.resolver = Resolver(dns or Dns(servers=(HostPort(host=HOST, port=9),), timeout=0.2), clock)
        self.contents = Contents(content)
        self.sources = Sources(settings, spool, clock)
        self.policies, self.noted = policies or Policies(), Noted()
        self.protection = Protection(settings, self.resolver, spool, clock, self.noted)
        self.attempter = Attempter(
            settings, Plans(settings, self.resolver, self.policies, clock), self.protection, NoKeys(signature),
            self.contents, self.sources, clock, limits,
        )  # fmt: skip

    async def __aenter__(self) -> Self:
        return self

    async def attempt(self, job: Job) -> Outcome:
        """Make an attempt whose outcome is committed at once."""
        outcome = await self.attempter.attempt(job)
        self.attempter.settled(job)
        return outcome

    async def __aexit__(self, *_: object) -> None:
        await self.attempter.close()
        await self.protection.memory.close()
        await self.resolver.close()
