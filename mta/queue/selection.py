"""The entries that are meant by conditions: walked in bounded portions, so that a million of them take no memory."""

import logging
from collections.abc import AsyncIterator
from contextlib import aclosing

from mta.mail.ids import entry_id, first_made_with, made_at
from mta.queue.where import Where
from mta.spool.interface import Due, Spool
from mta.spool.records import Claim, Entry, Message
from mta.spool.sealing import SealBroken

log = logging.getLogger(__name__)

_LOOKED_AT = 10_000  # entries, for one page


async def meant(spool: Spool, where: Where, now: float) -> AsyncIterator[tuple[Entry, Claim | None]]:
    """Walk the entries that `where` means, with their claims; not a snapshot. Reads messages only if it has to."""
    async for entry, claim in spool.walk_entries():
        if await _is_meant(spool, where, now, entry, claim):
            yield entry, claim


async def page(
    spool: Spool, where: Where, now: float, after: str, limit: int
) -> tuple[list[tuple[Entry, Claim | None]], str | None]:
    """Read `limit` entries that are meant and come after an entry id; and the id to go on from, None at the end.

    It looks at 10,000, and those of the same millisecond, so a page can have fewer, or none, and not be the last. The
    id is of an entry of the page, or one that nobody has: it names no entry that is not meant, which may be another's.
    """
    found = list[tuple[Entry, Claim | None]]()
    looked_at, came_at = 0, 0.0
    async with aclosing(spool.walk_entries(after)) as walk:
        async for entry, claim in walk:
            if len(found) == limit:
                return found, found[-1][0].id
            before, came_at = came_at, made_at(entry.message)
            if looked_at >= _LOOKED_AT and came_at > before:
                return found, entry_id(first_made_with(entry.message), 1)
            looked_at += 1
            if await _is_meant(spool, where, now, entry, claim):
                found.append((entry, claim))
    return found, None


async def _is_meant(spool: Spool, where: Where, now: float, entry: Entry, claim: Claim | None) -> bool:
    if not where.admits_entry(entry, claim):
        return False
    if not where.asks_messages:
        return True
    message = await _message(spool, entry)
    return message is not None and where.admits_message(message, now)


async def select(spool: Spool, where: Where, now: float, accepted_by: float) -> AsyncIterator[tuple[Due, Claim | None]]:
    """Walk the entries that `where` means and that were accepted at `accepted_by` at the latest, with their messages.

    So whoever has counted does not act on what came afterwards.
    """
    async for entry, claim in meant(spool, where, now):
        message = await _message(spool, entry)
        if message is not None and message.accepted_at <= accepted_by:
            yield Due(entry, message), claim


async def _message(spool: Spool, entry: Entry) -> Message | None:
    """Read an entry's message; None if it is gone, with its last entry, or cannot be read."""
    try:
        return await spool.message(entry.message)
    except SealBroken as error:
        log.error("entry=%s left-out=yes error=%s", entry.id, error)
        return None
