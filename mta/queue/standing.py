"""What an ID stands for: a message's (22 characters) its entries, an entry's (the same, a dot, a number) that one."""

from mta.mail.ids import message_id_bytes, split_entry_id
from mta.queue.actions import Standing
from mta.spool.interface import Due, Spool


class NoId(ValueError):
    """The text is no ID of a message or an entry; the message says so, in words fit for a user."""


def message_of(id_: str) -> str:
    """Read the message's ID out of a message's or an entry's; NoId if it is neither."""
    try:
        message_id = split_entry_id(id_)[0] if "." in id_ else id_
        message_id_bytes(message_id)
    except ValueError:
        raise NoId(f"{id_[:64]!r} is no ID of a message or an entry") from None
    return message_id


async def find(spool: Spool, id_: str, tenant: str = "") -> list[Standing]:
    """Find the entries of a message, or one entry, with their claims: of a tenant's own, or of anybody's."""
    message_id = message_of(id_)
    message = await spool.message(message_id)
    if message is None or tenant not in ("", message.tenant):
        return []
    found = await spool.entries(message_id)
    return [(Due(entry, message), claim) for entry, claim in found if id_ in (message_id, entry.id)]
