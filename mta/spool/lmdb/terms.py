"""On what terms messages are stored: what a transaction looks at before, and puts beside them.

An answer that is kept is a sealed record under a hash of its name, with a row that tells when it is past. Of a rate
there are three numbers (mta.spool.toll.Spent). What is past is of no use and does no harm: it goes bit by bit.
"""

import logging
import struct
from collections.abc import Callable

from mta.spool.interface import KEPT_LIMIT, Keep, Kept, Refused, Taken, Terms, Throttled
from mta.spool.lmdb.commit import Group
from mta.spool.lmdb.environment import Table
from mta.spool.lmdb.keys import kept_key, kept_until_key, pieces, seconds, toll_key
from mta.spool.lmdb.steps import Accepted, delete_record, encode, replace_record
from mta.spool.lmdb.view import kept_of
from mta.spool.records import KeptAnswer
from mta.spool.sealing import Keyring, SealBroken
from mta.spool.toll import Spent, take

log = logging.getLogger(__name__)

FORGOTTEN = 200  # rows in one transaction: each is in a page of its own
_spent = struct.Struct(">3d")


class OnTerms:
    """Acceptances that are stored if nothing is kept under a name, and rates have room."""

    def __init__(self, keyring: Keyring, terms: Terms, accepted: Accepted) -> None:
        """Refused if the answer is too large to be kept."""
        keep = terms.keep
        if keep is not None and len(keep.value) > KEPT_LIMIT:
            raise Refused(f"an answer of {len(keep.value)} octets: at most {KEPT_LIMIT} can be kept")
        self._keyring = keyring
        self._terms = terms
        self._accepted = accepted
        self._key = b"" if keep is None else kept_key(keep.name)
        self._until = b"" if keep is None else kept_until_key(keep.until, self._key)
        self._tolls = [toll_key(each.name) for each in terms.tolls]

    def accept(self, group: Group) -> Taken | Kept | Throttled:
        """Store all, or nothing."""
        keep, now = self._terms.keep, self._terms.now
        before = None if keep is None else kept_answer(group.get, self._keyring, self._key)
        if before is not None and before.until > now:
            return Kept(before.digest, before.value, before.position)
        spent = take(self._terms.tolls, [_read(group.get(Table.TOLLS, key)) for key in self._tolls], now)
        if isinstance(spent, Throttled):
            return spent
        position = self._accepted.accept(group)
        if spent:
            group.put(Table.TOLLS, [(key, _spent.pack(*each)) for key, each in zip(self._tolls, spent, strict=True)])
        if keep is not None:
            self._keep(group, keep, position, before)
        return Taken(position, tuple([each.free_at for each in spent]))

    def _keep(self, group: Group, keep: Keep, position: int, before: KeptAnswer | None) -> None:
        key = self._key
        if before is not None:
            group.delete(Table.KEPT_UNTIL, [kept_until_key(before.until, key)])
        answer = KeptAnswer(until=keep.until, digest=keep.digest, value=keep.value, position=position)
        sealed = self._keyring.seal(Table.KEPT.value, self._terms.now, encode(answer), key)
        replace_record(group, Table.KEPT, key, pieces(key, sealed))
        group.put(Table.KEPT_UNTIL, [(self._until, b"")])


def kept_answer(get: Callable[[Table, bytes], bytes | None], keyring: Keyring, key: bytes) -> KeptAnswer | None:
    """Read what is kept. What cannot be read is not: mail that is sent twice is better than mail that never is."""
    try:
        return kept_of(get, keyring, key)
    except SealBroken as error:
        log.error("kept=%s forgotten=yes error=%s", key.hex(), error)
        return None


def _read(row: bytes | None) -> Spent | None:
    return None if row is None else Spent(*_spent.unpack_from(row))


def forget_past(group: Group, now: float) -> int:
    """Remove a bounded number of answers that are past, and rates that are all free; return how many."""
    return _forget_answers(group, now) + _forget_tolls(group, now)


def _forget_answers(group: Group, now: float) -> int:
    until, before, gone = seconds(now), group.records, 0
    for row in group.keys_from(Table.KEPT_UNTIL, b"", FORGOTTEN):
        if row[:8] > until or group.records - before >= 2 * FORGOTTEN:
            break
        group.delete(Table.KEPT_UNTIL, [row])
        delete_record(group, Table.KEPT, row[8:])
        gone += 1
    return gone


def _forget_tolls(group: Group, now: float) -> int:
    """Look at those whose hashes begin with the minute, of 256: all have their turn, without a count of it."""
    gone = []
    for key in group.keys_from(Table.TOLLS, bytes([int(now // 60) % 256]), FORGOTTEN):
        spent = _read(group.get(Table.TOLLS, key))
        if spent is not None and spent.free_at <= now:
            gone.append(key)
    group.delete(Table.TOLLS, gone)
    return len(gone)
