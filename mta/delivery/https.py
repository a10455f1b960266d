"""HTTPS to places that strangers name: policies, reports, later webhooks (RFC 9110, RFC 9112).

By name, checked, and to the address that was checked: no resolver but ours, no address that is not public (unless the
configuration opens up), no redirect, no proxy, TLS 1.2 or better with a certificate for the name, and bounds on
everything that comes back. Nothing is kept: neither connections nor cookies nor answers.

h11 reads the answers, because one GET on a checked address is a hundred lines with it; aiohttp would be eight packages
more, a connector and a resolver of our own in it, and proxies, redirects, cookies and decompression to be switched off.
"""

import asyncio
import ipaddress
import logging
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import h11
import msgspec

from mta.delivery.mx import is_public
from mta.delivery.policy import Failure
from mta.delivery.resolver import NoAnswer, Resolver
from mta.mail.address import is_domain

log = logging.getLogger(__name__)

BODY_LIMIT = 64 << 10  # octets, RFC 8461 3.3
_HEAD_LIMIT = 16 << 10
_WIRE_LIMIT = BODY_LIMIT + _HEAD_LIMIT + (32 << 10)  # a body in chunks of one octet costs six of these each, and CPU
_PIECE = 4096  # octets that are read at once, and between which others have their turn
AUTHORITIES_FOR = 3600.0  # seconds, after which they are read again: an update may have brought others
_ADDRESSES_LIMIT = 4  # each gets its share of the time


class Place(msgspec.Struct, frozen=True):
    """Where to ask: an HTTPS URL in its parts. `path` has the query too."""

    host: str
    path: str
    port: int = 443

    def __str__(self) -> str:
        return f"https://{self.host}{'' if self.port == 443 else f':{self.port}'}{self.path}"


class FetchError(Exception):
    """Nothing usable came back; the message says why, and `failure` names it as RFC 8460 does for policies."""

    def __init__(self, text: str, failure: Failure = Failure.STS_POLICY_FETCH_ERROR) -> None:
        super().__init__(text)
        self.failure = failure


class Https:
    """Asks, by a resolver of ours. `private` admits addresses that are not public.

    Trusts the system's authorities and those in `ca_file`, which are read when they are needed, once an hour.
    """

    def __init__(self, resolver: Resolver, ca_file: Path | None, *, private: bool) -> None:
        self._resolver = resolver
        self._ca_file = ca_file
        self._private = private
        self._made: ssl.SSLContext | None = None
        self._made_at = 0.0  # by the event loop's time

    async def get(self, place: Place, media_type: str, timeout: float) -> bytes:
        """Fetch what is at a place, of a media type, within `timeout` seconds in all. FetchError says why not."""
        async with self._asked(place, "GET", [("Accept", media_type)], b"", timeout) as exchange:
            answer = await exchange.answer()
            if answer.status_code != 200:
                raise FetchError(f"{place.host} answered {_status(answer)}")
            found = _header(answer, b"content-type").partition(b";")[0].strip().lower().decode("ascii", "replace")
            if found != media_type:  # RFC 8461 3.3: a guard against hosts that let their users upload files
                raise FetchError(f"{place.host} answered with {_quoted(found) or 'no media type'}, not {media_type}")
            return await exchange.body(answer)

    async def post(self, place: Place, body: bytes, media_type: str, timeout: float) -> int:
        """Hand `body` over and return the status of the answer, whatever it is. FetchError if there is none in time."""
        headers = [("Content-Type", media_type), ("Content-Length", str(len(body)))]
        async with self._asked(place, "POST", headers, body, timeout) as exchange:
            return (await exchange.answer()).status_code

    @asynccontextmanager
    async def _asked(
        self, place: Place, method: str, headers: list[tuple[str, str]], body: bytes, timeout: float
    ) -> AsyncIterator["_Exchange"]:
        """Connect, ask, let the answer be read, hang up: all of it in time, and whatever fails as FetchError."""
        writer: asyncio.StreamWriter | None = None
        try:
            async with asyncio.timeout(timeout):
                reader, writer = await self._connect(place, timeout)
                exchange = _Exchange(place.host, reader, writer)
                await exchange.ask(place, method, headers, body)
                yield exchange
        except TimeoutError:
            raise FetchError(f"{place.host} did not answer within {timeout:g} s") from None
        except OSError as error:
            raise FetchError(f"{place.host}: {_reason(error)}") from None
        except h11.ProtocolError as error:
            raise FetchError(f"{place.host}: no usable HTTP: {_quoted(str(error))}") from None
        finally:
            if writer is not None:
                writer.transport.abort()  # nobody waits for a stranger's close_notify

    async def _connect(self, place: Place, timeout: float) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to the first address that can be used."""
        context = self._context()
        failed = FetchError(f"{place.host} has no address")
        addresses = (await self._addresses(place.host))[:_ADDRESSES_LIMIT]
        for address in addresses:
            try:
                async with asyncio.timeout(timeout / len(addresses)):
                    return await asyncio.open_connection(
                        address, place.port, ssl=context, server_hostname=place.host, limit=_PIECE
                    )
            except ssl.SSLCertVerificationError as error:
                text = f"{place.host}: certificate not accepted: {error.verify_message or error.reason}"
                failed = FetchError(text, Failure.STS_WEBPKI_INVALID)
            except TimeoutError:
                failed = FetchError(f"{place.host}: no connection to {address} in time")
            except OSError as error:  # ssl.SSLError is one
                failed = FetchError(f"{place.host}: no connection to {address}: {_reason(error)}")
        raise failed

    async def _addresses(self, host: str) -> list[str]:
        """Find the addresses that may be dialled; FetchError says why there is none."""
        try:
            found = [str(ipaddress.ip_address(host))]
        except ValueError:
            if not is_domain(host):
                raise FetchError("no such host name can exist") from None
            try:
                found = list((await self._resolver.addresses(host)).addresses)
            except NoAnswer as error:
                raise FetchError(f"{host}: the DNS did not answer: {error}") from None
        allowed = [each for each in found if self._private or is_public(ipaddress.ip_address(each))]
        if found and not allowed:
            raise FetchError(f"{host} has no public address")
        return allowed

    def _context(self) -> ssl.SSLContext:
        now = asyncio.get_running_loop().time()
        if self._made is None or now >= self._made_at + AUTHORITIES_FOR:
            try:
                self._made = self._new_context()
            except OSError as error:
                if self._made is None:
                    raise
                log.error("authorities=refused, those before stay in use: ca_file=%s error=%s", self._ca_file, error)
            self._made_at = now
        return self._made

    def _new_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        if self._ca_file is not None:
            context.load_verify_locations(cafile=self._ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 8461 3.3 by way of RFC 7525 3.1.1
        context.hostname_checks_common_name = False  # RFC 8461 3.3: a DNS-ID it is
        return context


class _Exchange:
    """One request and its answer on a connection."""

    def __init__(self, host: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD_LIMIT)
        self._host = host
        self._reader = reader
        self._writer = writer
        self._read = 0

    async def ask(self, place: Place, method: str, headers: list[tuple[str, str]], body: bytes) -> None:
        """Send a request."""
        name = f"[{place.host}]" if ":" in place.host else place.host
        usual = [
            ("Host", name if place.port == 443 else f"{name}:{place.port}"),
            ("User-Agent", "Fairlead"),
            ("Connection", "close"),
        ]
        request = h11.Request(method=method, target=place.path, headers=usual + headers)
        self._writer.write((self._h11.send(request) or b"") + (self._h11.send(h11.Data(data=body)) or b""))
        self._h11.send(h11.EndOfMessage())
        await self._writer.drain()

    async def answer(self) -> h11.Response:
        """Read the head of the answer."""
        while not isinstance(event := await self._event(), h11.Response):
            if not isinstance(event, h11.InformationalResponse):
                raise FetchError(f"{self._host} hung up without an answer")
        return event

    async def body(self, answer: h11.Response) -> bytes:
        """Read the body that follows the head."""
        if not (_header(answer, b"content-length") or _header(answer, b"transfer-encoding")):
            # its end would be that of the connection, which anybody on the way can bring about after half a policy
            raise FetchError(f"{self._host} does not say how long its answer is")
        pieces, size = [], 0
        while isinstance(event := await self._event(), h11.Data):
            pieces.append(bytes(event.data))
            size += len(event.data)
            if size > BODY_LIMIT:
                raise FetchError(f"{self._host} answered with more than {BODY_LIMIT} octets")
        return b"".join(pieces)

    async def _event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """Return what comes next, which is never NEED_DATA."""
        while (event := self._h11.next_event()) is h11.NEED_DATA:
            if self._read > _WIRE_LIMIT:
                raise FetchError(f"{self._host} answered with too much around its body")
            data = await self._reader.read(_PIECE)
            self._read += len(data)
            self._h11.receive_data(data)
            await asyncio.sleep(0)
        return event


def _header(answer: h11.Response, name: bytes) -> bytes:
    """Return the first value of a field, b"" without any."""
    return next((bytes(value) for key, value in answer.headers if key == name), b"")


def _status(answer: h11.Response) -> str:
    redirect = ", and redirects are not followed" if 300 <= answer.status_code < 400 else ""  # RFC 8461 3.3
    return f"{answer.status_code}{redirect}"


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or 'for no reason given'}"
    return os.strerror(error.errno) if error.errno else str(error) or type(error).__name__


def _quoted(text: str) -> str:
    return "".join(each if each.isprintable() else "?" for each in text[:100])
