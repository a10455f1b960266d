"""The entries that are meant by conditions: walked in bounded portions, so that a million of them take no memory."""

import logging
from collections.abc import AsyncIterator

from mta.queue.where import Where
from mta.spool.interface import Due, Spool
from mta.spool.records import Claim, Entry, Message
from mta.spool.sealing import SealBroken

log = logging.getLogger(__name__)


async def meant(spool: Spool, where: Where, now: float) -> AsyncIterator[tuple[Entry, Claim | None]]:
    """Walk the entries that `where` means, with their claims; not a snapshot. Reads messages only if it has to."""
    async for entry, claim in spool.walk_entries():
        if not where.admits_entry(entry, claim):
            continue
        if where.asks_messages:
            message = await _message(spool, entry)
            if message is None or not where.admits_message(message, now):
                continue
        yield entry, claim


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
