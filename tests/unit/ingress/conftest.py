"""A whole ingress on loopback: real sockets, real TLS; the queue, spool and accounts behind it are doubles that
keep their contracts (mta.ingress.arrival.Queue, the ContentWriter of mta.spool, mta.ingress.access.Access).
"""

import asyncio
import datetime as dt
import ipaddress
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from mta.accounts.senders import Standing
from mta.accounts.tolls import Rate
from mta.certificate import OwnCertificate
from mta.config import HostPort, Limits, Listener, Tls, parse
from mta.ingress.access import Client, Identity
from mta.ingress.server import Ingress
from mta.queue.gate import Turned
from mta.queue.submission import Receipt, Submission
from mta.spool.interface import Kept, SpoolError, Terms, Throttled
from mta.spool.records import Segment
from mta.spool.toll import Spent, take

NOW = 1795222923.0  # Sat, 21 Nov 2026 01:02:03 +0000


class Keeping:
    """A queue that keeps what it accepts. `gate` holds commits back until it is set; `failure` refuses them, and
    `failures` those of a sender. `together` are the numbers of messages that came at once.
    """

    def __init__(self) -> None:
        self.accepted: list[Submission] = []
        self.failure: Exception | None = None
        self.failures: dict[str, SpoolError] = {}
        self.together: list[int] = []
        self.turned: dict[str, Turned] = {}
        self.kept: dict[str, Kept] = {}
        self.spent: dict[str, Spent] = {}
        self.asked = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    def refusal(self, tenant: str) -> Turned | None:
        return self.turned.get(tenant)

    async def accept_each(
        self, submissions: Sequence[Submission], terms: Sequence[Terms | None]
    ) -> list[Receipt | Kept | Throttled | SpoolError]:
        self.asked.set()
        self.together.append(len(submissions))
        await self.gate.wait()
        if self.failure is not None and not isinstance(self.failure, SpoolError):
            raise self.failure
        return [self._accept_on(*each) for each in zip(submissions, terms, strict=True)]

    def _accept_on(self, submission: Submission, terms: Terms | None) -> Receipt | Kept | Throttled | SpoolError:
        if terms is None:
            return self._accept(submission)
        if terms.keep is not None and terms.keep.name in self.kept:
            return self.kept[terms.keep.name]
        spent = take(terms.tolls, [self.spent.get(each.name) for each in terms.tolls], terms.now)
        if isinstance(spent, Throttled):
            return spent
        receipt = self._accept(submission)
        if isinstance(receipt, Receipt):
            self.spent.update({toll.name: each for toll, each in zip(terms.tolls, spent, strict=True)})
            if terms.keep is not None:
                self.kept[terms.keep.name] = Kept(terms.keep.digest, terms.keep.value, receipt.position)
        return receipt

    def _accept(self, submission: Submission) -> Receipt | SpoolError:
        failure = self.failure or self.failures.get(submission.envelope.sender)
        if isinstance(failure, SpoolError):
            return failure
        self.accepted.append(submission)
        return Receipt(submission.id, len(self.accepted))


class Writer:
    def __init__(self, store: "Store") -> None:
        self.store = store
        self.pieces: list[bytes] = []
        self.aborted = False
        self.segment: Segment | None = None

    async def write(self, data: bytes) -> None:
        assert self.segment is None
        assert not self.aborted
        await asyncio.sleep(0)
        if self.store.failure is not None:
            raise self.store.failure
        self.pieces.append(data)

    async def finish(self) -> Segment:
        content = b"".join(self.pieces)
        self.segment = Segment(b"%d" % len(self.store.writers), len(content), b"")
        return self.segment

    async def abort(self) -> None:
        self.aborted = True
        self.store.abandoned.set()


class Store:
    """The part of a spool that large content is committed to."""

    def __init__(self) -> None:
        self.writers: list[Writer] = []
        self.failure: SpoolError | None = None
        self.abandoned = asyncio.Event()

    def store_content(self) -> Writer:
        self.writers.append(Writer(self))
        return self.writers[-1]

    def content(self, segment: Segment) -> bytes:
        return next(b"".join(each.pieces) for each in self.writers if each.segment is segment)


class People:
    """Alice and Bob are tenants, each with a domain and a user of the same name; passwords are "secret".

    `once` and `sandbox` are of all logins, those who have `ended` are not good any more, `rates` are the tenants'.
    """

    def __init__(self) -> None:
        self.failure: SpoolError | None = None
        self.once = 0.0
        self.ended: set[str] = set()
        self.sandbox = False
        self.rates: dict[str, Rate] = {}

    async def authenticate(self, user: str, password: str, client: Client) -> Identity | None:
        if self.failure is not None:
            raise self.failure
        if user not in ("alice", "bob") or password != "secret":
            return None
        return Identity(user, user, self.once, sandbox=self.sandbox)

    async def good(self, login: Identity) -> bool:
        return login.user not in self.ended

    async def rate(self, tenant: str) -> Rate | None:
        if self.failure is not None:
            raise self.failure
        return self.rates.get(tenant)

    async def standing(self, tenant: str, from_domains: Sequence[str]) -> Standing:
        if "defect.test" in from_domains:
            raise RuntimeError("the secret of the house")
        own = f"{tenant}.test"
        for domain in from_domains:
            if domain in {"alice.test", "bob.test"} - {own}:
                return Standing(foreign=domain, note="another tenant's")
        return Standing(sign_domain=own) if own in from_domains else Standing(note="not registered")


class HandClock:
    """Stands at NOW; waits end when the test says so, or with the event waited for."""

    def __init__(self) -> None:
        self.waits: list[float] = []
        self.go = asyncio.Event()

    def now(self) -> float:
        return NOW

    def monotonic(self) -> float:
        return 0.0

    async def wait(self, event: asyncio.Event, seconds: float) -> bool:
        self.waits.append(seconds)
        either = [asyncio.ensure_future(each.wait()) for each in (event, self.go)]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        for each in either:
            each.cancel()
        return event.is_set()


class Door:
    """A running ingress and what is behind it."""

    def __init__(self, listeners: Sequence[Listener], limits: Limits, tls: Tls, roles: str) -> None:
        self.queue = Keeping()
        self.store = Store()
        self.people = People()
        self.clock = HandClock()
        self.peers: list[Peer] = []
        config = parse(f"hostname: mx.fairlead.test\n{roles}", "test").model_copy(update={"limits": limits})
        certificate = OwnCertificate(tls, listeners)
        self.ingress = Ingress(config, listeners, self.queue, self.store, self.people, self.clock, certificate)

    @property
    def port(self) -> int:
        return self.ports[0]

    @property
    def ports(self) -> list[int]:
        return [at.port for _, at in self.ingress.bound if isinstance(at, HostPort)]

    @property
    def contents(self) -> list[bytes]:
        """The content of each accepted message, without our trace field."""
        return [b"".join([*map(self.store.content, each.stored), each.content]) for each in self.queue.accepted]

    async def open(self, number: int = 0) -> "Peer":
        self.peers.append(Peer(*await asyncio.open_connection("127.0.0.1", self.ports[number])))
        return self.peers[-1]

    async def greeted(self, number: int = 0) -> "Peer":
        """A connection that has said EHLO."""
        peer = await self.open(number)
        assert (await peer.reply()).startswith(b"220 mx.fairlead.test ESMTP")
        assert (await peer.ask(b"EHLO client.test")).startswith(b"250-mx.fairlead.test")
        return peer


class Peer:
    """A client that says exactly what it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def reply(self) -> bytes:
        """One whole reply; what came before the end if the server hangs up."""
        lines = b""
        async with asyncio.timeout(5):
            while line := await self.reader.readline():
                lines += line
                if line[3:4] != b"-":
                    break
        return lines

    def say(self, data: bytes) -> None:
        self.writer.write(data)

    async def ask(self, line: bytes) -> bytes:
        self.say(line + b"\r\n")
        return await self.reply()

    async def begin(self, sender: bytes = b"a@alice.test", *recipients: bytes, mail: bytes = b"") -> None:
        """Come to where content is expected."""
        to = recipients or (b"b@remote.test",)
        group = [b"MAIL FROM:<%s> %s" % (sender, mail), *[b"RCPT TO:<%s>" % each for each in to], b"DATA"]
        self.say(b"\r\n".join(group) + b"\r\n")
        for _ in group[:-1]:
            assert (await self.reply()).startswith(b"250 2.1.")
        assert (await self.reply()).startswith(b"354 ")

    async def rest(self) -> bytes:
        """All that comes until the server hangs up."""
        async with asyncio.timeout(5):
            try:
                return await self.reader.read()
            except ConnectionResetError:
                return b""

    async def start_tls(self, context: ssl.SSLContext) -> None:
        await self.writer.start_tls(context, server_hostname="mx.fairlead.test")

    async def hang_up(self) -> None:
        self.writer.close()
        with suppress(OSError):
            await self.writer.wait_closed()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A self-signed certificate with its key, in one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mx.fairlead.test")])
    day = dt.timedelta(days=1)
    today = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(today - day)
        .not_valid_after(today + day)
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.DNSName("mx.fairlead.test"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
            ),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path_factory.mktemp("tls") / "mx.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return str(pem)


@pytest.fixture
def server_tls(certificate: str) -> Tls:
    """The files of our certificate; a test module may have others."""
    return Tls(certificate=Path(certificate), key=Path(certificate))


@pytest.fixture(scope="session")
def client_tls(certificate: str) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certificate)


def listener(kind: str = "relay", **settings: object) -> Listener:
    given: dict[str, object] = {"address": "127.0.0.1:0", "kind": kind}
    if kind == "relay":
        given |= {"networks": ["127.0.0.0/8"], "tenant": "alice"}
    return Listener.model_validate(given | settings)


Serve = Callable[..., Awaitable[Door]]
OpenDoor = Callable[..., AbstractAsyncContextManager[Door]]


@pytest.fixture
def open_door(server_tls: Tls) -> OpenDoor:
    """An ingress for a block: `async with open_door(listener, ..., size=1000)` with limits of the configuration."""

    @asynccontextmanager
    async def opened(
        *listeners: Listener, roles: str = "", sockets: Sequence[socket.socket] = (), **limits: object
    ) -> AsyncIterator[Door]:
        door = Door(listeners or (listener(),), Limits.model_validate(limits), server_tls, roles)
        try:
            await door.ingress.start(sockets)
            yield door
        finally:
            door.queue.gate.set()
            await door.ingress.close()
            for peer in door.peers:
                await peer.hang_up()

    return opened


@pytest.fixture
async def serve(open_door: OpenDoor, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Serve]:
    """Starts ingresses for a test, as `open_door` does."""
    caplog.set_level(logging.INFO)
    async with AsyncExitStack() as doors:

        async def start(*listeners: Listener, **settings: object) -> Door:
            return await doors.enter_async_context(open_door(*listeners, **settings))

        yield start


@pytest.fixture
def make_listener() -> Callable[..., Listener]:
    return listener


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest):
    """Runs a coroutine under an event loop of its own."""

    def run(story):
        factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(story)

    return run
