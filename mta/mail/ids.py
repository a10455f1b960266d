"""Message and entry ids.

A message id is a uuid7 written as 22 base64url characters: the same text in `250 ... queued as`, in
X-Message-Id, in the Received field, in log lines, events and commands. An entry id is the message id,
a dot and the entry's number within the message (from 1).
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode

from uuid_utils import uuid7

MESSAGE_ID_CHARS = 22
_MESSAGE_ID_BYTES = 16


def new_message_id() -> str:
    """Make a message id: time-ordered, unique without coordination."""
    return message_id_text(uuid7().bytes)


def message_id_text(raw: bytes) -> str:
    """Write 16 bytes as 22 base64url characters."""
    return urlsafe_b64encode(raw)[:MESSAGE_ID_CHARS].decode("ascii")


def message_id_bytes(message_id: str) -> bytes:
    """Read a message id back; ValueError on anything that is not one, other spellings included."""
    try:
        raw = urlsafe_b64decode(message_id + "==") if len(message_id) == MESSAGE_ID_CHARS else b""
    except ValueError:
        raw = b""
    if len(raw) != _MESSAGE_ID_BYTES or message_id_text(raw) != message_id:
        raise ValueError(f"not a message id: {message_id[:64]!r}")
    return raw


def made_at(message_id: str) -> float:
    """Tell when a message id was made, in absolute seconds (RFC 9562 5.7)."""
    return int.from_bytes(message_id_bytes(message_id)[:6], "big") / 1000


def first_made_with(message_id: str) -> str:
    """Return an id that nobody has, and that comes before all that were made in the same millisecond."""
    return message_id_text(message_id_bytes(message_id)[:6].ljust(_MESSAGE_ID_BYTES, b"\0"))


def entry_id(message_id: str, number: int) -> str:
    """Name the `number`-th entry of a message."""
    return f"{message_id}.{number}"


def split_entry_id(text: str) -> tuple[str, int]:
    """Split an entry id into message id and number; ValueError when it is not one."""
    message_id, dot, number = text.partition(".")
    if not dot or not number.isascii() or not number.isdigit() or not 1 <= int(number) <= 0xFFFF:
        raise ValueError(f"not an entry id: {text[:64]!r}")
    message_id_bytes(message_id)
    return message_id, int(number)
