"""The ingress role: SMTP listeners, their connections, the limits on both, and a clean end.

Listeners with `proxy` networks or implicit TLS accept by themselves: a PROXY header has to be read before there
is a transport, and handshakes count against the limit on connections. The others leave it to asyncio.
"""

import asyncio
import errno
import logging
import os
import socket
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from mta.certificate import OwnCertificate
from mta.clock import Clock
from mta.config import Config, HostPort, Listener, UnixPath
from mta.ingress import replies
from mta.ingress.access import UNIX_CLIENT, Access, Client, admits, client_at
from mta.ingress.arrival import Intake, Queue, Whole, accept_each
from mta.ingress.body import Budget
from mta.ingress.connection import HANDSHAKE, Connection
from mta.ingress.proxy import ProxyError, read_proxied
from mta.mail.reply import Reply
from mta.spool.interface import Spool

log = logging.getLogger(__name__)

_BACKLOG = 1024
_SWEEP = 1.0  # seconds between looks for time-outs
_PROXY_TIMEOUT = 10.0  # seconds for a proxy to say who its client is
_CLOSE = 10.0  # seconds for commits to end and last replies to be read


class Ingress:
    """The SMTP side of one process."""

    def __init__(
        self,
        config: Config,
        listeners: Sequence[Listener],
        queue: Queue,
        spool: Spool,
        access: Access,
        clock: Clock,
        tls: OwnCertificate,
    ) -> None:
        """Serve `listeners`; `spool` takes the content of large messages as it arrives."""
        limits = config.limits
        self.intake = Intake(config.hostname, limits, queue, spool, access, clock, Budget(limits.buffered), tls)
        self.bound: list[tuple[Listener, HostPort | UnixPath]] = []
        self._listeners = listeners
        self._limits = limits
        self._several = config.roles.ingress > 1
        self._servers: list[asyncio.Server] = []
        self._acceptors: list[asyncio.Task[None]] = []
        self._paths: list[str] = []  # of unix sockets that we made
        self._connections: set[Connection] = set()
        self._waiting: list[Connection] = []  # have something to work on
        self._talkative: list[Connection] = []  # have something to send
        self._whole: list[tuple[Connection, Whole]] = []  # to be accepted
        self._accepting: set[asyncio.Task[None]] = set()
        self._clients: Counter[str] = Counter()
        self._turned_away: Counter[tuple[str, Reply]] = Counter()  # since the last sweep
        self._introducing: Counter[str] = Counter()  # peers of connections that are none yet
        self._draining = False
        self._changed = asyncio.Event()
        self._sweeper: asyncio.TimerHandle | None = None

    async def start(self, sockets: Sequence[socket.socket] = ()) -> None:
        """Listen. `sockets` (bound, from systemd) serve the listeners of their addresses; OSError names an
        address that cannot be had, ValueError a socket that no listener wants.
        """
        given = list(sockets)
        try:
            for listener in self._listeners:
                for each in _take(given, listener.address) or self._bind(listener):
                    await self._listen(each, listener)
            if given:
                raise ValueError(f"no listener for the socket {_address(given[0])}")
        except (OSError, ValueError):
            self._stop_listening()
            raise
        self._tick()

    async def drain(self) -> None:
        """Listen no more, and return when no message is on its way in; sessions close at their next command."""
        self._stop_listening()
        self._draining = True
        for connection in self._connections:
            connection.drain()
        while any(connection.busy for connection in self._connections):
            await self._change()

    async def close(self) -> None:
        """End all sessions: messages whose commit has begun are answered, others are not accepted."""
        self._stop_listening()
        self._draining = True
        for connection in list(self._connections):
            connection.close()
        try:
            async with asyncio.timeout(_CLOSE):
                while self._connections:
                    await self._change()
        except TimeoutError:
            log.warning("closing with %d sessions that do not end", len(self._connections))
            for connection in list(self._connections):
                connection.abort()
        await asyncio.gather(*self._acceptors, return_exceptions=True)
        if self._sweeper is not None:
            self._sweeper.cancel()

    def sweep(self, now: float) -> None:
        """Look for time-outs at loop time `now` and at our certificate; log who was turned away since the last look."""
        self.intake.tls.look()
        for connection in list(self._connections):
            connection.sweep(now)
        for (client, refusal), times in self._turned_away.items():
            log.info("client=%s turned away: %s times=%d", client, refusal, times)
        self._turned_away.clear()

    # What connections call

    def enter(self, connection: Connection) -> Reply | None:
        """Take in a connection; the reply to turn it away with if it may not be, or there is no room."""
        client = connection.client
        refusal = self._no_entry(connection.listener, client)
        if refusal is not None:
            self._turned_away[client.name, refusal] += 1
            return refusal
        self._clients[client.counted_as] += 1
        self._connections.add(connection)
        return None

    def leave(self, connection: Connection) -> None:
        """Forget a connection that has gone and has nothing left to do."""
        self._connections.remove(connection)
        client = connection.client.counted_as
        self._clients[client] -= 1
        if not self._clients[client]:
            del self._clients[client]
        self._changed.set()

    def answered(self) -> None:
        """Hear that a question has been answered, perhaps the end of a message."""
        self._changed.set()

    def accept_soon(self, connection: Connection, message: Whole) -> None:
        """Have a message accepted, with the others of this turn of the loop, and `connection.accepted` called."""
        if not self._whole:
            asyncio.get_running_loop().call_soon(self._accept_whole)
        self._whole.append((connection, message))

    def work_soon(self, connection: Connection) -> None:
        """Have `connection.work` called when the next turn of the loop is over, with all who come until then.

        PERF: worked on together, by code that the first of them has brought into the caches: some 10 % more messages
        a second and 8 % less CPU than in the same turn (20 kept sessions, paired runs; decision 8).
        """
        if not self._waiting:
            loop = asyncio.get_running_loop()
            loop.call_soon(loop.call_soon, self._work)
        self._waiting.append(connection)

    def send_soon(self, connection: Connection) -> None:
        """Have `connection.send` called when this turn of the loop is over."""
        if not self._talkative:
            asyncio.get_running_loop().call_soon(self._send)
        self._talkative.append(connection)

    # Inside

    def _no_entry(self, listener: Listener, client: Client) -> Reply | None:
        if not admits(listener, client):
            return replies.NOT_A_CLIENT
        if self._draining:
            return replies.DRAINING
        if len(self._connections) >= self._limits.connections:
            return replies.TOO_MANY_CONNECTIONS
        if self._clients[client.counted_as] >= self._limits.connections_per_client:
            return replies.TOO_MANY_FROM_CLIENT
        return None

    def _accept_whole(self) -> None:
        whole, self._whole = self._whole, []
        task = asyncio.get_running_loop().create_task(self._accept_each(whole))
        self._accepting.add(task)
        task.add_done_callback(self._accepting.discard)

    async def _accept_each(self, whole: list[tuple[Connection, Whole]]) -> None:
        answers: Sequence[Reply | None]
        try:
            answers = await accept_each(self.intake.queue, [message for _, message in whole])
        except Exception:  # a background loop: their sessions must not wait for ever
            log.exception("messages=%d internal error", len(whole))
            answers = [None] * len(whole)
        for (connection, _), answer in zip(whole, answers, strict=True):
            try:
                connection.accepted(answer)
            except Exception as error:  # noqa: BLE001 - one SMTP session: the others are to have their answers
                connection.give_up(error)
        self._send()

    def _work(self) -> None:
        waiting, self._waiting = self._waiting, []
        for connection in waiting:
            try:
                connection.work()
            except Exception as error:  # noqa: BLE001 - one SMTP session, as above
                connection.give_up(error)
        self._send()

    def _send(self) -> None:
        talkative, self._talkative = self._talkative, []
        for connection in talkative:
            connection.send()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        self._sweeper = loop.call_later(_SWEEP, self._tick)
        self.sweep(loop.time())

    def _stop_listening(self) -> None:
        for server in self._servers:
            server.close()
        for acceptor in self._acceptors:
            acceptor.cancel()
        for path in self._paths:
            Path(path).unlink(missing_ok=True)
        self._servers, self._paths = [], []

    def _bind(self, listener: Listener) -> list[socket.socket]:
        address = listener.address
        try:
            if isinstance(address, UnixPath):
                return self._bind_unix(address.path)
            found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            return [_bind_tcp(family, where, reuse_port=self._several) for family, _, _, _, where in found]
        except OSError as error:
            raise OSError(error.errno, f"cannot listen on {address}: {error.strerror or error}") from error

    def _bind_unix(self, path: str) -> list[socket.socket]:
        """Bind a unix socket that everybody may use; one that nobody listens on any more is replaced."""
        if Path(path).is_socket():
            if not _answers(path):
                Path(path).unlink()
            elif self._several:
                log.info("listening on %s is left to another process", path)
                return []
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            bound.bind(path)
            Path(path).chmod(0o666)
        except OSError:
            bound.close()
            raise
        self._paths.append(path)
        return [bound]

    async def _listen(self, bound: socket.socket, listener: Listener) -> None:
        bound.settimeout(0)  # non-blocking
        loop = asyncio.get_running_loop()
        if listener.proxy or listener.tls == "implicit":
            bound.listen(_BACKLOG)
            self._acceptors.append(loop.create_task(self._accept(bound, listener)))
        elif isinstance(listener.address, UnixPath):
            server = await loop.create_unix_server(lambda: Connection(self, listener), sock=bound, backlog=_BACKLOG)
            self._servers.append(server)
        else:
            server = await loop.create_server(lambda: Connection(self, listener), sock=bound, backlog=_BACKLOG)
            self._servers.append(server)
        self.bound.append((listener, _address(bound)))
        log.info("listening address=%s kind=%s tls=%s", self.bound[-1][1], listener.kind, listener.tls)

    async def _accept(self, bound: socket.socket, listener: Listener) -> None:
        loop = asyncio.get_running_loop()
        with bound:
            async with asyncio.TaskGroup() as group:
                while True:
                    arrived = None
                    try:
                        arrived = await loop.sock_accept(bound)
                    except OSError as error:  # out of file descriptors, or the client has gone already
                        log.warning("cannot accept: %s", error.strerror)
                    if arrived is None:
                        await asyncio.sleep(_SWEEP)
                        continue
                    accepted, address = arrived
                    peer = client_at(address[0]) if isinstance(address, tuple) else UNIX_CLIENT
                    refusal = self._no_introduction(listener, peer)
                    if refusal is None:
                        group.create_task(self._introduce(accepted, peer, listener))
                    else:  # without a word: none can be said before the handshake
                        self._turned_away[peer.name, refusal] += 1
                        accepted.close()

    def _no_introduction(self, listener: Listener, peer: Client) -> Reply | None:
        """Say what is against an introduction: handshakes that nobody ends must not take the place of others."""
        if self._introducing.total() >= self._limits.connections:
            return replies.TOO_MANY_CONNECTIONS
        under_way = self._introducing[peer.counted_as] + self._clients[peer.counted_as]
        if under_way >= self._limits.connections_per_client and not peer.within(listener.proxy):
            return replies.TOO_MANY_FROM_CLIENT
        return None

    async def _introduce(self, accepted: socket.socket, peer: Client, listener: Listener) -> None:
        """Learn who the client is, and do the handshake if the listener begins with one.

        Peers outside the networks of its proxies are clients themselves.
        """
        self._introducing[peer.counted_as] += 1
        with ExitStack() as unless_served:
            unless_served.callback(accepted.close)
            try:
                client = peer
                if peer.within(listener.proxy):
                    async with asyncio.timeout(min(_PROXY_TIMEOUT, self._limits.idle)):
                        client = await read_proxied(accepted, peer)
                unless_served.pop_all()  # the transport closes it
                await self._connect(accepted, client, listener)
            except (ProxyError, OSError) as error:
                log.info("client=%s refused: %s", peer.name, str(error) or type(error).__name__)
            except Exception:  # a background loop: no client may end the listener
                log.exception("client=%s internal error", peer.name)
            finally:
                self._introducing[peer.counted_as] -= 1
                if not self._introducing[peer.counted_as]:
                    del self._introducing[peer.counted_as]

    async def _connect(self, accepted: socket.socket, client: Client, listener: Listener) -> None:
        loop = asyncio.get_running_loop()
        if listener.tls == "implicit":
            await loop.connect_accepted_socket(
                lambda: Connection(self, listener, client),
                accepted,
                ssl=self.intake.tls.context(listener.client_ca),
                ssl_handshake_timeout=min(HANDSHAKE, self._limits.idle),
            )
        else:
            await loop.connect_accepted_socket(lambda: Connection(self, listener, client), accepted)


def _bind_tcp(family: int, where: object, *, reuse_port: bool) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:  # IPv4 has sockets of its own
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind(where)  # type: ignore[arg-type] # as getaddrinfo gave it
    except OSError:
        bound.close()
        raise
    return bound


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(path) != errno.ECONNREFUSED


def _address(bound: socket.socket) -> HostPort | UnixPath:
    name = bound.getsockname()
    if bound.family == socket.AF_UNIX:
        return UnixPath(path=os.fsdecode(name))
    return HostPort(host=name[0], port=name[1])


def _take(sockets: list[socket.socket], wanted: HostPort | UnixPath) -> list[socket.socket]:
    """Take out the socket made for an address: of the same spelling, else of the same port."""
    exact = [each for each in sockets if _address(each) == wanted]
    same_port = [each for each in sockets if isinstance(wanted, HostPort) and _port(each) == wanted.port]
    taken = (exact or same_port)[:1]
    for each in taken:
        sockets.remove(each)
    return taken


def _port(bound: socket.socket) -> int | None:
    address = _address(bound)
    return address.port if isinstance(address, HostPort) else None
