"""Cancelling what is scheduled, and saying exactly what came of it: for every dialect that has this."""

from enum import Enum, auto

from mta.accounts.keys import ApiKey
from mta.mail.ids import message_id_bytes
from mta.queue.queue import is_scheduled
from mta.queue.standing import find
from mta.queue.views import Status
from relay_http.access import live, who
from relay_http.door import Door


class Cancelling(Enum):
    """What came of it."""

    CANCELLED = auto()  # now or before
    UNKNOWN = auto()  # to this tenant
    RELEASED = auto()  # its time had come, or it ended otherwise: nothing was changed
    IN_FLIGHT = auto()  # it is being delivered, and is cancelled unless that succeeds
    BUSY = auto()  # it changed time and again: ask once more


def is_message_id(text: str) -> bool:
    """Tell whether a text can be the ID of a message."""
    try:
        message_id_bytes(text)
    except ValueError:
        return False
    return True


async def cancel_scheduled(door: Door, key: ApiKey, message_id: str) -> Cancelling:
    """Cancel a message of the key's tenant whose time has not come. Durable on return; Refusal 403."""
    live(key)
    if not is_message_id(message_id):
        return Cancelling.UNKNOWN
    found = await find(door.spool, message_id, key.tenant)
    if not found:
        shown = await door.views.message(key.tenant, message_id)
        if shown is None:
            return Cancelling.UNKNOWN
        return Cancelling.CANCELLED if shown.status is Status.CANCELLED else Cancelling.RELEASED
    now = door.clock.now()
    if not all(is_scheduled(due.entry, now) for due, _ in found):
        return Cancelling.RELEASED
    results = set((await door.desk.cancel(message_id, who(key))).values())
    if "in_flight" in results:
        return Cancelling.IN_FLIGHT
    if "busy" in results:
        return Cancelling.BUSY
    return Cancelling.CANCELLED if "cancelled" in results else Cancelling.RELEASED
