"""What the relay writes into a message it takes: the trace field, and the repairs of a submission.

Both are byte operations before or within the header block; all else stays as it came.
"""

import msgspec

from mta.mail import headers
from mta.mail.envelope import Envelope

_BLIND = (b"bcc", b"resent-bcc")


class Trace(msgspec.Struct, frozen=True):
    """How a message came: the HELO name (safe to write), the client's address literal, the protocol
    of RFC 3848 and RFC 6531 4.3, and the TLS version and cipher ("" for none).
    """

    helo: str
    literal: str
    protocol: str
    tls: str


def received_field(trace: Trace, hostname: str, message_id: str, envelope: Envelope, now: float) -> bytes:
    """Write the Received field (RFC 5321 4.4). It names a recipient only if there is no other: they may be blind."""
    client = f" ({trace.literal})" if trace.literal else ""
    tls = f"\r\n\t({trace.tls})" if trace.tls else ""
    priority = f"\r\n\tPRIORITY {envelope.priority}" if envelope.priority else ""  # RFC 6710 4.1
    only = f"\r\n\tfor <{envelope.recipients[0].address}>" if len(envelope.recipients) == 1 else ""
    return (
        f"Received: from {trace.helo}{client}\r\n"
        f"\tby {hostname} (Fairlead) with {trace.protocol} id {message_id}{tls}{only}{priority};\r\n"
        f"\t{headers.format_date(now)}\r\n"
    ).encode()


def repaired(header: bytes, hostname: str, message_id: str, now: float) -> bytes:
    """Complete a submission: Date and Message-ID where missing (RFC 6409 8), Bcc gone (RFC 5322 3.6.3)."""
    names = headers.names(header)
    if any(name in names for name in _BLIND):
        header = headers.remove(header, _BLIND)
    if b"message-id" not in names:
        header = f"Message-ID: <{message_id}@{hostname}>\r\n".encode() + header
    if b"date" not in names:
        header = f"Date: {headers.format_date(now)}\r\n".encode() + header
    return header
