"""The policy host: MTA-STS policies of many domains over HTTPS, well or badly served as told (RFC 8461 3.3).

All are at one port. The name that a client asks for (SNI) chooses the certificate: each `mta-sts.DOMAIN` has its own.
"""

import asyncio
import datetime as dt
import logging
import ssl
from collections import Counter
from enum import StrEnum
from typing import NamedTuple

from mta.clock import Clock
from mta.config import HostPort
from mta.lab.ca import LIFETIME, PrivateCa, ServerCertificate, self_signed

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
DEAF_HOST = "127.0.0.254"  # where nobody listens
BODY_LIMIT = 64 << 10  # octets, RFC 8461 3.3
_PATH = "/.well-known/mta-sts.txt"
_HEAD_LIMIT = 8 << 10
_EXPIRED = dt.timedelta(days=1)  # ago
_IDLE = 60.0  # seconds for a request, on the machine's clock
_SLOW = 300.0  # seconds, by the laboratory's clock


class Hosting(StrEnum):
    """How a policy is served. ABSENT is 404, UNFRAMED says nothing of the body's length, DEAF refuses connections."""

    GOOD = "good"
    CHUNKED = "chunked"
    ABSENT = "absent"
    REDIRECT = "redirect"
    SELF_SIGNED = "self-signed"
    WRONG_HOST = "wrong-host"
    EXPIRED = "expired"
    TOO_BIG = "too-big"
    TOO_BIG_CHUNKED = "too-big-chunked"
    UNFRAMED = "unframed"
    WRONG_TYPE = "wrong-type"
    SLOW = "slow"
    DEAF = "deaf"


class _Page(NamedTuple):
    text: str
    hosting: Hosting


class PolicyHost:
    """Serves policies. `requests` counts them by domain, `connections` those that came to a handshake."""

    def __init__(self, ca: PrivateCa, clock: Clock, address: HostPort | None = None) -> None:
        self.address = address or HostPort(host=HOST, port=0)
        self.requests: Counter[str] = Counter()
        self.connections = 0
        self._ca = ca
        self._clock = clock
        self._pages: dict[str, _Page] = {}
        self._contexts: dict[tuple[str, Hosting], ssl.SSLContext] = {}
        self._closing = asyncio.Event()
        self._serving: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    def put(self, domain: str, text: str, hosting: Hosting = Hosting.GOOD) -> None:
        """Serve `text` as the policy of a domain from now on."""
        self._pages[domain] = _Page(text, hosting)

    async def start(self) -> None:
        """Listen; OSError if the port is taken. Port 0 is the system's choice, and kept over a restart."""
        self._closing.clear()
        context = self._context("policies.lab.test", Hosting.GOOD)
        context.sni_callback = self._choose
        self._server = await asyncio.start_server(self._connected, self.address.host, self.address.port, ssl=context)
        self.address = HostPort(host=self.address.host, port=self._server.sockets[0].getsockname()[1])
        log.info("lab=policies address=%s", self.address)

    async def close(self) -> None:
        """Stop listening and hang up on every client."""
        if self._server is None:
            return
        self._server.close()
        self._closing.set()
        for each in list(self._serving):
            each.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None

    def _choose(self, connection: ssl.SSLSocket | ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        """Show the certificate that a client is to see who asks for `name`; that of the host itself to all others."""
        self.connections += 1
        page = self._pages.get((name or "").removeprefix("mta-sts."))
        if name and page is not None and page.hosting is not Hosting.WRONG_HOST:
            connection.context = self._context(name, page.hosting)

    def _context(self, name: str, hosting: Hosting) -> ssl.SSLContext:
        if (name, hosting) not in self._contexts:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            certificate = self._issue(name, hosting)
            context.load_cert_chain(certificate.certificate, certificate.key)
            self._contexts[name, hosting] = context
        return self._contexts[name, hosting]

    def _issue(self, name: str, hosting: Hosting) -> ServerCertificate:
        if hosting is Hosting.SELF_SIGNED:
            return self_signed(self._ca.directory, name)
        return self._ca.issue(name, lifetime=-_EXPIRED if hosting is Hosting.EXPIRED else LIFETIME)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_IDLE):
                head = await reader.readuntil(b"\r\n\r\n")
            await self._answer(head.decode("latin-1").split("\r\n"), writer)
            await writer.drain()
            writer.close()
            await writer.wait_closed()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:  # TimeoutError is the first
            log.info("lab=policies hung up error=%r", error)
        finally:
            writer.transport.abort()

    async def _answer(self, head: list[str], writer: asyncio.StreamWriter) -> None:
        path = head[0].split(" ")[1]
        hosts = [line.partition(":")[2].strip() for line in head[1:] if line.lower().startswith("host:")]
        domain = hosts[0].partition(":")[0].removeprefix("mta-sts.") if hosts else ""
        page = self._pages.get(domain)
        self.requests[domain] += 1
        if page is None or page.hosting is Hosting.ABSENT or path not in (_PATH, "/elsewhere"):
            writer.write(_response("404 Not Found", b"there is nothing here\r\n"))
        elif page.hosting is Hosting.REDIRECT and path == _PATH:  # who follows finds a policy that looks good
            writer.write(_response("301 Moved Permanently", b"", f"Location: https://{hosts[0]}/elsewhere"))
        else:
            await self._serve_page(page, writer)

    async def _serve_page(self, page: _Page, writer: asyncio.StreamWriter) -> None:
        body = page.text.encode()
        if page.hosting in (Hosting.TOO_BIG, Hosting.TOO_BIG_CHUNKED):
            body = padded(page.text, BODY_LIMIT + 1).encode()
        if page.hosting in (Hosting.CHUNKED, Hosting.TOO_BIG_CHUNKED):
            head = _response("200 OK", None, "Content-Type: text/plain", "Transfer-Encoding: chunked")
            writer.write(head + b"".join(_chunks(body)))
        elif page.hosting is Hosting.UNFRAMED:
            writer.write(_response("200 OK", None, "Content-Type: text/plain") + body)
        elif page.hosting is Hosting.WRONG_TYPE:
            writer.write(_response("200 OK", body, "Content-Type: text/html"))
        else:
            whole = _response("200 OK", body, "Content-Type: text/plain; charset=utf-8")
            if page.hosting is Hosting.SLOW:
                writer.write(whole[:-1])
                await self._clock.wait(self._closing, _SLOW)
                whole = whole[-1:]
            writer.write(whole)


def padded(policy: str, octets: int) -> str:
    """Lengthen a policy by fields that mean nothing to exactly so many octets (of ASCII), at least 10 more."""
    missing = octets - len(policy)
    return policy + f"padding: {'x' * (missing - len('padding: ') - 1)}\n"


def _response(status: str, body: bytes | None, *headers: str) -> bytes:
    """Write a response; without a body, its head alone."""
    length = [f"Content-Length: {len(body)}"] if body is not None else []
    lines = [f"HTTP/1.1 {status}", *headers, *length, "Connection: close", "", ""]
    return "\r\n".join(lines).encode() + (body or b"")


def _chunks(body: bytes, size: int = 1000) -> list[bytes]:
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    return [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (*pieces, b"")]
