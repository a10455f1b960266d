"""TLS for HTTP: takes connections, so that handshakes are bounded in number and time and use the newest certificate."""

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Callable, Sequence

from mta.certificate import OwnCertificate
from mta.config import Limits
from relay_http.proxies import Proxies

log = logging.getLogger(__name__)

HANDSHAKE = 30.0  # seconds at most
_PAUSE = 1.0  # seconds after a connection that could not be taken


class Handshakes:
    """Takes connections of listening sockets and begins a protocol on each whose handshake succeeds."""

    def __init__(self, certificate: OwnCertificate, limits: Limits, proxies: Proxies) -> None:
        self.certificate = certificate
        self._limits = limits
        self._proxies = proxies
        self._under_way: Counter[str] = Counter()
        self._accepting: list[asyncio.Task[None]] = []

    def start(self, sockets: Sequence[socket.socket], protocol: Callable[[], asyncio.Protocol]) -> None:
        """Take connections from now on. The sockets are the caller's to close, after `close`."""
        for each in sockets:
            each.settimeout(0)  # non-blocking
            self._accepting.append(asyncio.create_task(self._accept(each, protocol), name="tls"))

    async def close(self) -> None:
        """Take no more; handshakes under way are broken off."""
        for each in self._accepting:
            each.cancel()
        await asyncio.gather(*self._accepting, return_exceptions=True)

    async def _accept(self, listening: socket.socket, protocol: Callable[[], asyncio.Protocol]) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                await _readable(listening)
                try:
                    accepted, address = listening.accept()
                except BlockingIOError:  # another process was faster
                    continue
                except OSError as error:  # out of file descriptors, or the client has gone already
                    log.warning("cannot accept: %s", error.strerror)
                    await asyncio.sleep(_PAUSE)
                    continue
                accepted.settimeout(0)  # non-blocking
                client = address[0] if isinstance(address, tuple) else ""
                if self._too_many(client):  # closed without a word: none can be said before the handshake
                    log.info("refused client=%s problem='too many handshakes'", client)
                    accepted.close()
                else:
                    self._under_way[client] += 1
                    group.create_task(self._introduce(accepted, client, protocol))
                await asyncio.sleep(0)  # taking what waits already does not: connections would come before all else

    def _too_many(self, client: str) -> bool:
        if self._under_way.total() >= self._limits.connections:
            return True
        return self._under_way[client] >= self._limits.connections_per_client and not self._proxies.many(client)

    async def _introduce(self, accepted: socket.socket, client: str, protocol: Callable[[], asyncio.Protocol]) -> None:
        limit = min(HANDSHAKE, self._limits.idle)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                protocol,
                accepted,
                ssl=self.certificate.context(),
                ssl_handshake_timeout=limit,
                ssl_shutdown_timeout=limit,
            )
        except OSError as error:  # ssl.SSLError and time-outs are OSErrors too
            log.info("refused client=%s problem=%r", client, f"TLS handshake: {error}")
        except Exception:  # a background loop: no client may end the listener
            log.exception("client=%s internal error", client)
        finally:
            self._under_way[client] -= 1
            if not self._under_way[client]:
                del self._under_way[client]


async def _readable(listening: socket.socket) -> None:
    """Wait for a connection. `loop.sock_accept` would lose one that it has taken when it is cancelled."""
    loop, descriptor = asyncio.get_running_loop(), listening.fileno()
    came: asyncio.Future[None] = loop.create_future()

    def come() -> None:
        if not came.done():
            came.set_result(None)

    loop.add_reader(descriptor, come)
    try:
        await came
    finally:
        loop.remove_reader(descriptor)
