"""The same message by the same login, which is not sent again: a client that saw no answer submits it once more.

It is the same if envelope and content are, octet by octet, as they were submitted, and the client has given it a
Message-ID: without one, two messages may be equal and yet be two. The envelope's times are not looked at: those that
are asked for in seconds are others each time.
"""

from hashlib import sha256

import msgspec

from mta.ingress.access import Identity
from mta.mail import headers
from mta.mail.envelope import Envelope
from mta.spool.interface import Keep

_encode = msgspec.msgpack.Encoder().encode


class Likeness:
    """What a message is like, as its content goes by."""

    def __init__(self, login: Identity) -> None:
        self._login = login
        self._content = sha256()

    def add(self, content: bytes) -> None:
        """Look at a stretch of content."""
        self._content.update(content)

    def keep(self, envelope: Envelope, message_id: str, now: float) -> Keep:
        """Make what is to be kept with the message, which all that is like it would be kept under too."""
        asked = (
            envelope.sender,
            sorted([(each.address, each.notify, each.orcpt) for each in envelope.recipients]),
            (envelope.smtputf8, envelope.ret, envelope.envid, envelope.by_mode, envelope.hold, envelope.priority),
            envelope.tls_required,
            self._content.digest(),
        )
        digest = sha256(_encode(asked)).digest()
        login = self._login
        name = f"{login.tenant}\0smtp\0{login.user}\0{digest.hex()}"
        return Keep(name, digest, message_id.encode("ascii"), now + login.once)


def likeness_of(login: Identity | None, header: bytes) -> Likeness | None:
    """Begin to look at a message with this header block, if its login asks for that and it has a Message-ID."""
    if login is None or not login.once or not (headers.first(header, b"message-id") or b"").strip():
        return None
    return Likeness(login)
