"""TLS towards next hops: how the client says hello, and what is told of a session (RFC 3207, RFC 8314, RFC 7435).

No handshake looks at the certificate: what the peer showed is judged when it is over (decision 20), by the guard of the
next hop. A hello that fails is followed by a smaller one on a new connection: some hosts stumble over what they do not
know, and some that nobody asks for more can do no better than TLS 1.0.
"""

import ssl
from enum import Enum, auto
from typing import Protocol

from mta.delivery.policy import Demand, Level
from mta.delivery.route import TlsMode
from mta.delivery.trouble import Trouble


class Hello(Enum):
    """What the client offers in a handshake."""

    FULL = auto()
    REDUCED = auto()  # TLS 1.2 alone
    OLD = auto()  # TLS 1.2 and what there was before it, as far as OpenSSL still does it
    CLEAR = auto()  # no handshake


class Guard(Protocol):
    """What a session with a next hop is held against; mta.delivery.protection."""

    @property
    def demand(self) -> Demand:
        """What the next hop has to meet."""

    def context(self, hello: Hello) -> ssl.SSLContext:
        """Return the context for a handshake."""

    def stumbled(self, trouble: Trouble) -> None:
        """Hear that a handshake failed, and that a smaller one is tried, or none."""

    def admit(self, session: ssl.SSLObject | None) -> Level:
        """Judge a session (None: in the clear) before mail goes over it; Trouble if it does not meet the demand."""


class TlsContexts:
    """The client side's contexts, made once."""

    def __init__(self) -> None:
        self._contexts = {hello: _context(hello) for hello in (Hello.FULL, Hello.REDUCED, Hello.OLD)}

    def context(self, hello: Hello) -> ssl.SSLContext:
        """Return the context for a hello other than CLEAR."""
        return self._contexts[hello]


def _context(hello: Hello) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if hello is not Hello.FULL:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_TICKET
    if hello is Hello.OLD:
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        context.set_ciphers("ALL:!aNULL:!eNULL:@SECLEVEL=0")
    return context


def ladder(mode: TlsMode, demand: Demand) -> tuple[Hello, ...]:
    """Say which hellos to try in turn, each on a new connection, where the one before failed (RFC 7435 3).

    In the clear only where nobody asks for more: a host that cannot do TLS is no worse than one that does not offer it.
    """
    if demand.least is not Level.CLEAR:
        return (Hello.FULL, Hello.REDUCED)
    return (Hello.CLEAR,) if mode == "none" else (Hello.FULL, Hello.OLD, Hello.CLEAR)


def note(session: ssl.SSLObject, demand: Demand, level: Level) -> str:
    """Say how a connection is protected, as `TLSv1.3:TLS_AES_256_GCM_SHA384:verified`."""
    cipher = session.cipher()
    verified = ("dane" if demand.tlsa else "verified") if level is Level.VERIFIED else "unverified"
    return f"{session.version()}:{cipher[0] if cipher else '?'}:{verified}"
