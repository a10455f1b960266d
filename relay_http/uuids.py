"""Message ids as those dialects write them whose vendors have UUIDs: the same 16 octets (RFC 9562 4). Pure."""

from uuid import UUID

from mta.mail.ids import message_id_bytes, message_id_text

_UUID_CHARS = 36


def uuid_of(message_id: str) -> str:
    """Write a message id as a UUID."""
    return str(UUID(bytes=message_id_bytes(message_id)))


def id_of(text: str) -> str | None:
    """Read a message id that is written as a UUID, or as we write it; None if it is neither."""
    try:
        return message_id_text(UUID(text).bytes if len(text) == _UUID_CHARS else message_id_bytes(text))
    except ValueError:
        return None
