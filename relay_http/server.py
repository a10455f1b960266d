"""The HTTP server: uvicorn inside our own event loop, with what it leaves to a proxy in front.

uvicorn has no bound on a request's head and no time-out before the first answer: without them one client
can fill the memory, or a thousand hold all connections for nothing. Signals stay with the process.
"""

import asyncio
import contextlib
import functools
import logging
import math
import socket
from asyncio import TimerHandle
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from mta.certificate import OwnCertificate
from mta.config import Config, HostPort, Limits, UnixPath
from relay_http.app import App, dialect_of
from relay_http.handshakes import Handshakes
from relay_http.problem import Problem, Refusal
from relay_http.proxies import Proxies

HEAD_LIMIT = 64 << 10  # octets of a request that are not its body
HEAD_TIME = 60.0  # seconds from its first octet to its last; longer is no client of ours (slowloris)
_BACKLOG = 1024
_COMMIT_WAIT = 0.5  # seconds
_LOOK = 10  # ticks of uvicorn, each a tenth of a second, between looks for another certificate

log = logging.getLogger(__name__)


class HttpServer:
    """Serves an application on the configured address, or on sockets that were passed in."""

    def __init__(self, config: Config, app: App) -> None:
        """CertificateError if there is one that cannot be used."""
        self._config = config
        proxies = Proxies(config.http.trusted_proxies)
        protocol = functools.partial(Connection, limits=config.limits, proxies=proxies)
        tls = None
        if config.http.tls.certificate is not None:
            tls = Handshakes(OwnCertificate(config.http.tls, setting="http.tls"), config.limits, proxies)
        self._server = _Server(
            uvicorn.Config(
                app,
                http=cast("type[asyncio.Protocol]", protocol),
                ws="none",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=math.ceil(config.limits.idle),
            ),
            tls,
        )
        self._serving: asyncio.Task[None] | None = None
        self._path: Path | None = None

    async def start(self, sockets: Sequence[socket.socket] = ()) -> None:
        """Listen on `sockets`, else on the configured address; OSError when that cannot be had."""
        listening = list(sockets) or await self._listen()
        self._serving = asyncio.create_task(self._server.serve(listening), name="http")
        started = asyncio.create_task(self._server.listening.wait())
        await asyncio.wait((self._serving, started), return_when=asyncio.FIRST_COMPLETED)
        if not started.done():
            started.cancel()
            await self._serving  # says what is wrong

    async def drain(self) -> None:
        """Stop listening and return when the requests in flight have their answers. May be cancelled."""
        self._server.should_exit = True
        if self._serving is not None:
            await asyncio.shield(self._serving)

    async def close(self) -> None:
        """Stop within a second: connections are dropped, commits that were begun go on."""
        self._server.should_exit = self._server.force_exit = True
        self._drop_connections()
        tasks = list(self._server.server_state.tasks)
        if tasks:  # they wait for a commit; cancelled they would have nothing to tell but an error
            await asyncio.wait(tasks, timeout=_COMMIT_WAIT)
        for task in tasks:
            task.cancel()
        self._drop_connections()  # those that came meanwhile
        await self.drain()
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _drop_connections(self) -> None:
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()

    async def _listen(self) -> list[socket.socket]:
        address = self._config.http.address
        if isinstance(address, UnixPath):
            listening = _listen_unix(Path(address.path))
            self._path = Path(address.path)
            return [listening]
        return await _listen_ip(address, reuse_port=self._config.roles.http > 1)


async def _listen_ip(address: HostPort, *, reuse_port: bool) -> list[socket.socket]:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    with contextlib.ExitStack() as opened:
        sockets = [
            opened.enter_context(socket.create_server(name, family=family, backlog=_BACKLOG, reuse_port=reuse_port))
            for family, name in dict.fromkeys((family, name) for family, _, _, _, name in found)
        ]
        opened.pop_all()
    return sockets


def _listen_unix(path: Path) -> socket.socket:
    """Listen on a path; a socket that nobody listens on any more is taken over."""
    with contextlib.ExitStack() as opened:
        listening = opened.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        if path.is_socket() and not _answers(path):
            path.unlink()
        listening.bind(str(path))
        path.chmod(0o666)  # keys say who may send
        listening.listen(_BACKLOG)
        opened.pop_all()
    return listening


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
    return True


class _Server(uvicorn.Server):
    """uvicorn's server without its signal handlers, telling when it listens, and with TLS of our own."""

    def __init__(self, config: uvicorn.Config, tls: Handshakes | None) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()
        self._tls = tls

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if self._tls is None:
            await super().startup(sockets)
        else:
            await super().startup([])
            self._tls.start(sockets or [], self._protocol)
        self.listening.set()

    def _protocol(self) -> asyncio.Protocol:
        protocol = cast("Callable[..., asyncio.Protocol]", self.config.http_protocol_class)  # as uvicorn has it
        return protocol(config=self.config, server_state=self.server_state, app_state={})

    async def on_tick(self, counter: int) -> bool:
        if self._tls is not None and counter % _LOOK == 0:
            self._tls.certificate.look()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._tls is not None:
            await self._tls.close()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def crowded(client: str, clients: Iterable[str], limit: int, proxies: Proxies) -> bool:
    """Tell whether `clients`, this one included, are too many of a client; a proxy may have all."""
    return not proxies.many(client) and sum(each == client for each in clients) > limit


class Connection(HttpToolsProtocol):
    """One connection: how many there are, a request's head and the time for it are bounded, upgrades are ignored."""

    def __init__(self, *args: Any, limits: Limits, proxies: Proxies, **kwargs: Any) -> None:  # uvicorn's signature
        super().__init__(*args, **kwargs)
        self._limits = limits
        self._proxies = proxies
        self._head = 0
        self._in_head = False
        self._received_at = 0.0
        self._begun_at = 0.0
        self._expecting = False
        self._timer: TimerHandle | None = None
        self._reading: TimerHandle | None = None
        self._replaying = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """Take a connection, or say that there are too many."""
        super().connection_made(transport)
        if self.scheme == "http":  # TLS has a buffer of its own below
            transport.set_write_buffer_limits(0)  # pause_writing is called for whatever is not sent
        clients = (each.client[0] for each in self.connections if isinstance(each, Connection) and each.client)
        if len(self.connections) > self._limits.connections or (
            self.client and crowded(self.client[0], clients, self._limits.connections_per_client, self._proxies)
        ):
            self._close_with(b"503 Service Unavailable", "too many connections")
        else:
            self._expect_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._expecting = False
        for each in (self._timer, self._reading):
            if each is not None:
                each.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Wait for the client to read: some of its answer every `idle` seconds, which stays in memory until then.

        Not called under TLS, which takes all at once: who does not read there is waited for until the next request is
        due, and for as long as TLS has to end.
        """
        super().pause_writing()
        self._await_reader()

    def resume_writing(self) -> None:
        """Go on."""
        super().resume_writing()
        if self._reading is not None:
            self._reading.cancel()

    def data_received(self, data: bytes) -> None:
        """Count what is not body, then parse."""
        if self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        self._received_at = self.loop.time()
        self._head += len(data)
        too_long = False
        try:
            self._parse(data)
        except httptools.HttpParserError:
            too_long = len(self._target) >= HEAD_LIMIT  # of such a target the parser knows no parts
            if not too_long:
                self._close_with(b"400 Bad Request", "not an HTTP request")
        if (too_long or self._head > HEAD_LIMIT) and not self.transport.is_closing():
            self._close_with(b"431 Request Header Fields Too Large", "request header too large")
        if not self._expecting and self._answered:
            self._expect_request()  # blank lines between requests have stopped uvicorn's timer

    def on_message_begin(self) -> None:
        """Begin to wait for the rest of a request."""
        if not self._replaying:
            super().on_message_begin()
            self._head = 0
            self._expect_request()
            self._in_head = True

    def on_body(self, body: bytes) -> None:
        """Pass body on; the frame of a chunk may be as long as the chunk."""
        self._head -= 2 * len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Wait no more: it is the application's turn."""
        if self.parser.should_upgrade():
            return  # the body comes yet
        self._head = 0
        self._expecting = False
        super().on_message_complete()

    def on_url(self, url: bytes) -> None:
        """Take the target."""
        if not self._replaying:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header field."""
        if not self._replaying:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Give the request to the application."""
        self._in_head = False
        if not self._replaying:
            super().on_headers_complete()

    def _parse(self, data: bytes) -> None:
        while data:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                data = data[upgrade.args[0] :]
                self._ignore_upgrade()
            else:
                return

    def _ignore_upgrade(self) -> None:
        """Read the request's body as if no upgrade had been offered (RFC 9110 7.8).

        JDK clients offer h2c with every request, and the parser takes the body for the new protocol: another
        parser is told the framing of the body and goes on.
        """
        framing = [each for each in self.headers if each[0] in (b"content-length", b"transfer-encoding")]
        self.parser = httptools.HttpRequestParser(self)
        self._replaying = True
        self.parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n" % b"".join(b"%b: %b\r\n" % each for each in framing))
        self._replaying = False

    @property
    def _target(self) -> bytes:
        """The target of the request, as far as it was read."""
        return cast("bytes", getattr(self, "url", b""))

    @property
    def _answered(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _expect_request(self) -> None:
        """From now on a request has to come: something every `idle` seconds, all of it within `session`.

        PERF: a timer that runs is left to run, and looks again when it is over: most requests come whole.
        """
        self._received_at = self._begun_at = self.loop.time()
        self._expecting = True
        if self._timer is None:
            self._timer = self.loop.call_later(min(self._limits.idle, HEAD_TIME), self._check)

    def _check(self) -> None:
        self._timer = None
        if not self._expecting:
            return
        whole = HEAD_TIME if self._in_head else self._limits.session
        due = min(self._received_at + self._limits.idle, self._begun_at + whole)
        now = self.loop.time()
        if due <= now:
            self.transport.close()
        else:  # a head may begin meanwhile
            self._timer = self.loop.call_at(min(due, now + HEAD_TIME), self._check)

    def _await_reader(self) -> None:
        unread = self.transport.get_write_buffer_size()
        self._reading = self.loop.call_later(self._limits.idle, self._look_at_reader, unread)

    def _look_at_reader(self, before: int) -> None:
        if self.transport.get_write_buffer_size() < before:
            self._await_reader()
        else:
            log.info("broken-off client=%s reason=does-not-read", (self.client or ("",))[0])
            if self.cycle is not None:
                self.cycle.disconnected = True
            self.transport.abort()

    def _close_with(self, status: bytes, message: str) -> None:
        """Answer what never reaches the application, and close."""
        log.info("refused status=%s client=%s problem=%r", status[:3].decode(), (self.client or ("",))[0], message)
        if self._answered:  # else the client would take this for the answer to a request in flight
            path = self._target.partition(b"?")[0].decode("latin-1")
            _, body, media_type = dialect_of(path).refused(Refusal(int(status[:3]), Problem(message)))
            self.transport.write(
                b"HTTP/1.1 %b\r\ncontent-type: %b\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b"
                % (status, media_type.encode("ascii"), len(body), body)
            )
        self.transport.close()
