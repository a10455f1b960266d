"""Messages that have ended and are kept with their content for a time, because their tenant wants to read it again."""

import logging

from mta.spool.lmdb.commit import Group
from mta.spool.lmdb.environment import Table
from mta.spool.lmdb.keys import seconds
from mta.spool.lmdb.steps import remove_message
from mta.spool.lmdb.view import message_of
from mta.spool.sealing import Keyring, SealBroken

log = logging.getLogger(__name__)

_LOOKED_AT = 100  # rows in one transaction
_RECORDS = 500  # changed in one transaction, after which the next must wait


def remove_ended(group: Group, keyring: Keyring, now: float) -> int:
    """Remove a bounded number of messages whose time is over; return how many.

    One that cannot be read stays as it is, as all that cannot be read does: `fairlead spool verify` tells of it.
    """
    until, before, gone = seconds(now), group.records, 0
    for row in group.keys_from(Table.ENDED, b"", _LOOKED_AT):
        if row[:8] > until or group.records - before >= _RECORDS:
            break
        try:
            message = message_of(group.get, keyring, row[8:])
        except SealBroken as error:
            log.error("message=%s kept=yes error=%s", row[8:].hex(), error)
            message = None
        group.delete(Table.ENDED, [row])
        if message is not None:
            remove_message(group, message)
        gone += 1
    return gone
