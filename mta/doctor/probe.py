"""One look at a receiving host: greeting, EHLO, STARTTLS, the certificate it shows, QUIT (RFC 5321, RFC 3207). No mail.

The handshake is made without verification, as deliveries make theirs (decision 20): what was shown is judged after.
Everything is bounded by the time of the whole look, and by what `Wire` bounds.
"""

import asyncio
import ssl

import aiosmtplib
import msgspec

from mta.delivery.certificates import chain_of
from mta.delivery.route import Target
from mta.delivery.wire import Wire
from mta.mail.reply import Reply

SECONDS = 20.0  # for one address, from the first packet to QUIT
_GREETING = 220
_OK = 250


class Seen(msgspec.Struct, frozen=True):
    """What a host showed, as far as the look came. `trouble` says why it went no further, "" if it went to its end.

    `chain` is the certificates in DER, the host's own first; `tls` the version, "" where there was no handshake.
    """

    greeting: str = ""
    starttls: bool = False
    requiretls: bool = False
    tls: str = ""
    chain: tuple[bytes, ...] = ()
    trouble: str = ""


class _Over(Exception):
    """The look ends here, and why."""


async def look(target: Target, hostname: str, *, sni: str, source: str = "", implicit: bool = False) -> Seen:
    """Look at one address of a host, from our own address `source` ("": the system's choice). Never raises.

    `sni` is the name asked for in the handshake; `implicit`: that comes first of all (RFC 8314 3.3).
    """
    glance = _Glance(target, hostname, sni)
    try:
        async with asyncio.timeout(SECONDS):
            await glance.run(source, implicit=implicit)
    except TimeoutError:
        glance.seen = msgspec.structs.replace(glance.seen, trouble=f"nothing more within {SECONDS:g} s")
    except _Over as over:
        glance.seen = msgspec.structs.replace(glance.seen, trouble=str(over))
    finally:
        glance.wire.abort()
    return glance.seen


class _Glance:
    """A connection under way, and what it has shown so far."""

    def __init__(self, target: Target, hostname: str, sni: str) -> None:
        self.seen = Seen()
        self.wire = Wire(asyncio.get_running_loop())
        self._target = target
        self._hostname = hostname
        self._sni = sni

    async def run(self, source: str, *, implicit: bool) -> None:
        """Go through the session."""
        await self._connect(source, implicit=implicit)
        await self.wire.greeting(SECONDS)
        greeting = self._reply("greeting")
        self._note(greeting=str(greeting))
        if greeting.code != _GREETING:
            raise _Over(f"refuses us: {greeting}")
        offered = await self._hello()
        if "STARTTLS" in offered and not self.seen.tls:
            self._note(starttls=True)
            await self._start_tls()
            offered = await self._hello()
        self._note(requiretls="REQUIRETLS" in offered)
        await self.wire.farewell()

    async def _connect(self, source: str, *, implicit: bool) -> None:
        local = (source, 0) if source else None
        try:
            transport, _ = await asyncio.get_running_loop().create_connection(
                lambda: self.wire,
                self._target.address,
                self._target.port,
                local_addr=local,
                ssl=_context() if implicit else None,
                server_hostname=self._sni if implicit else None,
            )
        except (OSError, ValueError) as error:  # ValueError: a name that TLS cannot have
            reason = getattr(error, "reason", "") or getattr(error, "strerror", "") or error
            raise _Over(f"no connection: {reason}") from None
        if implicit:
            self._note_session(transport.get_extra_info("ssl_object"))

    async def _hello(self) -> set[str]:
        await self.wire.ask(f"EHLO {self._hostname}\r\n".encode("ascii"), 1, SECONDS)
        reply = self._reply("reply to EHLO")
        if reply.code != _OK:
            raise _Over(f"refuses EHLO: {reply}")
        return {line.split(" ")[0].upper() for line in reply.text.split("\n")[1:]}

    async def _start_tls(self) -> None:
        try:
            await self.wire.start_tls(_context(), server_hostname=self._sni, timeout=SECONDS)
        except aiosmtplib.SMTPResponseException as refused:
            raise _Over(f"offers STARTTLS and refuses it: {refused.code} {refused.message}") from None
        except (aiosmtplib.SMTPException, OSError, ValueError) as error:  # ValueError: a name that TLS cannot have
            reason = error.reason if isinstance(error, ssl.SSLError) else self.wire.fault_text or error
            raise _Over(f"offers STARTTLS, and its handshake fails: {reason}") from None
        assert self.wire.transport is not None
        self._note_session(self.wire.transport.get_extra_info("ssl_object"))

    def _note_session(self, session: ssl.SSLObject) -> None:
        self._note(tls=session.version() or "", chain=chain_of(session))

    def _reply(self, what: str) -> Reply:
        if not self.wire.replies:
            raise _Over(f"no {what}: {self.wire.fault_text or self.wire.fault}")
        return self.wire.replies[0]

    def _note(self, **fields: object) -> None:
        self.seen = msgspec.structs.replace(self.seen, **fields)


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
