"""Whole messages that clients hand over as they are: read as far as one has to know them.

What is not touched leaves as it came (promise 7). Line ends become CRLF, because all content has them.
"""

from email.errors import HeaderParseError
from email.header import decode_header, make_header

import msgspec

from mta.content.compose import Mailbox
from mta.mail import headers
from mta.mail.address import AddressError, domain_of
from mta.mail.headers import FromError
from relay_http.values import VALUE_CHARS, mailbox

LINE_OCTETS = 998  # RFC 5322 2.1.1
HEADER_OCTETS = 256 << 10
_DECODED_CHARS = 10_000
_BLIND = (b"bcc", b"resent-bcc")


class Whole(msgspec.Struct, frozen=True):
    """A message: its octets without fields for the blind, and what is to be known of its header."""

    octets: bytes
    sender: Mailbox
    subject: str
    message_id: str


def read_whole(octets: bytes) -> Whole:
    """Read a message; ValueError with what is wrong with it, in words fit for an answer."""
    if b"\0" in octets:
        raise ValueError("The message contains NUL.")
    octets = octets.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")
    if not octets.endswith(b"\r\n"):
        octets += b"\r\n"
    if _too_long_line(octets):
        raise ValueError(f"The message has a line of more than {LINE_OCTETS} octets.")
    length = headers.header_length(octets)
    header = octets[:length]
    if length > HEADER_OCTETS:
        raise ValueError(f"The message's header has more than {HEADER_OCTETS} octets.")
    sender = _sender(header)
    message_id = (headers.first(header, b"message-id") or b"").decode("ascii", "replace")
    subject = headers.first(header, b"subject") or b""
    if any(name in headers.names(header) for name in _BLIND):
        octets = headers.remove(header, _BLIND) + octets[length:]
    return Whole(octets, sender, _decoded(subject), message_id if len(message_id) <= VALUE_CHARS else "")


def _too_long_line(octets: bytes) -> bool:
    """Go through the lines in the largest steps that the limit allows."""
    at = 0
    while len(octets) - at > LINE_OCTETS + 2:
        at = octets.rfind(b"\n", at, at + LINE_OCTETS + 2) + 1
        if at == 0:
            return True
    return False


def _sender(header: bytes) -> Mailbox:
    """Read the From field, which has to be of one mailbox whatever reader looks at it (promise 9)."""
    values = headers.values(header, b"from")
    if len(values) != 1:
        raise ValueError("The message needs one From field.")
    try:
        domains = headers.from_domains(header)
        sender = mailbox(values[0].decode("utf-8", "replace"))
    except (FromError, AddressError) as error:
        raise ValueError(f"From: {error}") from None
    if {domain_of(f"a@{each}") for each in domains} != {domain_of(sender.address)}:
        raise ValueError("The message's From field is not one plain mailbox.")
    return Mailbox(sender.address, _decoded(sender.name.encode()))


def _decoded(value: bytes) -> str:
    """Read encoded words (RFC 2047), for those who look at lists."""
    text = value.decode("utf-8", "replace")
    if "=?" not in text or len(text) > _DECODED_CHARS:  # which takes quadratic time
        return text
    try:
        # some charsets can say halves of characters, which nobody can write
        return str(make_header(decode_header(text))).encode("utf-8", "replace").decode()
    except (HeaderParseError, LookupError, ValueError):
        return text
