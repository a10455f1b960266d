"""MX hosts on loopback, one for each way of doing TLS well or badly, all at one port; they keep what came and how."""

import asyncio
import datetime as dt
import ssl
import warnings
from hashlib import sha256

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from mta.lab.ca import PrivateCa, ServerCertificate, self_signed
from tests.downgrade.rules import Tls

_LINE = 10.0  # seconds
_OTHER = "other.lab.test"
_EXPIRED = dt.timedelta(days=1)  # ago


class Receivers:
    """What they all know: certificates, and over what each recipient's mail came ("" in the clear)."""

    def __init__(self, ca: PrivateCa) -> None:
        self.came: dict[str, str] = {}
        self._ca = ca
        self._certificates: dict[tuple[str, Tls], ServerCertificate] = {}
        self._contexts: dict[tuple[str, Tls], ssl.SSLContext] = {}
        self._servers: list[asyncio.Server] = []
        self._sessions: set[asyncio.Task[None]] = set()

    def address(self, tls: Tls) -> str:
        """Tell where the host is that does TLS so."""
        return f"127.0.2.{1 + list(Tls).index(tls)}"

    async def start(self, port: int) -> None:
        """Listen."""
        for each in Tls:
            server = await asyncio.start_server(
                lambda reader, writer, tls=each: self._connected(tls, reader, writer),
                self.address(each),
                port,
                backlog=1024,
            )
            self._servers.append(server)

    async def close(self) -> None:
        """Hang up."""
        for each in self._servers:
            each.close()
        for task in list(self._sessions):
            task.cancel()
        await asyncio.gather(*self._sessions, return_exceptions=True)

    def key_digest(self, host: str, tls: Tls) -> str:
        """Return the SHA-256 of the public key that a host has, as a TLSA record 3 1 1 says it."""
        pem = self._certificate(host, tls).certificate.read_bytes()
        key = x509.load_pem_x509_certificate(pem).public_key()
        return sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()

    def _certificate(self, host: str, tls: Tls) -> ServerCertificate:
        host = _OTHER if tls is Tls.OTHER_NAME else host
        if (host, tls) not in self._certificates:
            self._certificates[host, tls] = self._issue(host, tls)
        return self._certificates[host, tls]

    def _issue(self, host: str, tls: Tls) -> ServerCertificate:
        if tls is Tls.SELF_SIGNED:
            return self_signed(self._ca.directory, host)
        if tls is Tls.EXPIRED:
            return self._ca.issue(host, lifetime=-_EXPIRED)
        return self._ca.issue(host)

    def _context(self, host: str, tls: Tls) -> ssl.SSLContext:
        if (host, tls) not in self._contexts:
            context = _bare(tls)
            certificate = self._certificate(host, tls)
            context.load_cert_chain(certificate.certificate, certificate.key)
            self._contexts[host, tls] = context
        return self._contexts[host, tls]

    def _choosing(self, tls: Tls) -> ssl.SSLContext:
        """Make a context that shows the certificate of the host that is asked for."""

        def choose(connection: ssl.SSLSocket | ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
            connection.context = self._context(name or "nobody.lab.test", tls)

        context = _bare(tls)
        certificate = self._certificate("nobody.lab.test", tls)
        context.load_cert_chain(certificate.certificate, certificate.key)
        context.sni_callback = choose
        return context

    def _connected(self, tls: Tls, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(tls, reader, writer))
        self._sessions.add(task)
        task.add_done_callback(self._sessions.discard)

    async def _serve(self, tls: Tls, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        below = writer.transport  # what a handshake that fails leaves open
        try:
            async with asyncio.timeout(_LINE):
                await self._talk(tls, reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()
            below.abort()

    async def _talk(self, tls: Tls, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        over, recipients = "", list[str]()
        writer.write(b"220 mx.lab.test ESMTP\r\n")
        while line := await reader.readline():
            verb = line[:4].upper()
            reply = b"250 2.0.0 ok"
            if verb == b"EHLO":
                offered = b"" if over or tls is Tls.NOT_OFFERED else b"250-STARTTLS\r\n"
                reply = b"250-mx.lab.test\r\n" + offered + b"250 PIPELINING"
            elif verb == b"STAR":
                if tls is Tls.REFUSED:
                    reply = b"454 4.7.0 TLS not available"
                else:
                    over = await self._encrypt(tls, reader, writer)
                    continue
            elif verb == b"RCPT":
                recipients.append(line[line.index(b"<") + 1 : line.index(b">")].decode())
            elif verb == b"DATA":
                writer.write(b"354 go ahead\r\n")
                await reader.readuntil(b"\r\n.\r\n")
                self.came |= dict.fromkeys(recipients, over)
            elif verb == b"QUIT":
                return
            writer.write(reply + b"\r\n")

    async def _encrypt(self, tls: Tls, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        writer.write(b"220 2.0.0 go ahead\r\n")
        await writer.drain()
        if tls is Tls.FAILS:
            await reader.read(1)  # said before the client's hello it would be an injected reply
            writer.write(b"\x15\x03\x01\x00\x02\x02\x28")  # a fatal alert: handshake_failure
            await writer.drain()
            raise ConnectionError
        await writer.start_tls(self._choosing(tls))
        session: ssl.SSLObject = writer.get_extra_info("ssl_object")
        return str(session.version())


def _bare(tls: Tls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if tls is Tls.OLD:
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1
        context.set_ciphers("ALL:@SECLEVEL=0")
    return context
