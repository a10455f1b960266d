"""How the tail of the log is stored: the events of a commit in records of a page, each sealed once.

A record's key is the number of its last event, so that the first key behind a position leads to the record
with the event that follows it.

PERF: a record for each event was a seal and a put more for every message (py-lmdb gives the GIL away at every put).
"""

from collections.abc import Sequence

import msgspec

from mta.mail.event import Event
from mta.spool.lmdb.environment import VALUE_LIMIT
from mta.spool.lmdb.keys import pieces
from mta.spool.sealing import SEAL_OVERHEAD, Keyring, SealBroken

_ARRAY_HEAD = 3  # octets that msgpack needs to say how many there are
_ROOM = VALUE_LIMIT - 1 - SEAL_OVERHEAD - _ARRAY_HEAD
_encode = msgspec.msgpack.Encoder().encode
decode_events = msgspec.msgpack.Decoder(list[Event]).decode


def log_key(number: int) -> bytes:
    """The key of the record that ends with event `number`."""
    return number.to_bytes(8, "big")


def log_pairs_behind(keyring: Keyring, key: bytes, stored: Sequence[bytes], position: int) -> list[tuple[bytes, bytes]]:
    """Write a record without its events up to `position`; nothing if it has none of those, or cannot be read."""
    try:
        events = decode_events(keyring.open("events", b"".join([piece[1:] for piece in stored]), key))
    except (SealBroken, msgspec.DecodeError):
        return []
    behind = int.from_bytes(key, "big") - position
    return log_pairs(keyring, position, events[-behind:]) if behind < len(events) else []


def log_pairs(keyring: Keyring, number: int, events: Sequence[Event]) -> list[tuple[bytes, bytes]]:
    """Write events that follow event `number`; an event over a page is a record of several pieces."""
    pairs: list[tuple[bytes, bytes]] = []
    together: list[msgspec.Raw] = []
    size = 0

    def end_record() -> None:
        key = log_key(number)
        pairs.extend(pieces(key, keyring.seal("events", events[0].at, _encode(together), key)))

    for event in events:
        plain = _encode(event)
        if together and size + len(plain) > _ROOM:
            end_record()
            together, size = [], 0
        together.append(msgspec.Raw(plain))
        size += len(plain)
        number += 1
    end_record()
    return pairs
