"""How ids become LMDB keys: fixed widths, big-endian so that order is order, hashes for outside text."""

from base64 import urlsafe_b64decode
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

from mta.mail.ids import message_id_text, split_entry_id
from mta.spool.lmdb.environment import VALUE_LIMIT
from mta.spool.records import Entry, Lane

LANE_BYTES = 16
TENANT_BYTES = 8
MESSAGE_BYTES = 16
ENTRY_BYTES = 18
KEPT_BYTES = 16
_KIND_BYTES = 4


@lru_cache(maxsize=4096)
def message_key(message_id: str) -> bytes:
    """16 octets of a known-good message id."""
    return urlsafe_b64decode(message_id + "==")


def entry_key(entry: Entry) -> bytes:
    """Message id and number."""
    return message_key(entry.message) + entry.number.to_bytes(2, "big")


def entry_id_key(entry_id: str) -> bytes:
    """The key of an entry id; ValueError if it is not one."""
    message_id, number = split_entry_id(entry_id)
    return message_key(message_id) + number.to_bytes(2, "big")


def entry_id_text(key: bytes) -> str:
    """The entry id of a key."""
    return f"{message_id_text(key[:16])}.{int.from_bytes(key[16:18], 'big')}"


def lane_key(lane: Lane) -> bytes:
    """A hash, because tenant and domain are outside text."""
    return _lane_key(lane.tenant, int(lane.message_class), lane.domain)


@lru_cache(maxsize=16_384)
def _lane_key(tenant: str, message_class: int, domain: str) -> bytes:
    text = f"{tenant}\0{message_class}\0{domain}"
    return blake2b(text.encode(), digest_size=LANE_BYTES, person=b"lane").digest()


@lru_cache(maxsize=4096)
def tenant_key(tenant: str) -> bytes:
    """A hash of the tenant's name."""
    return blake2b(tenant.encode(), digest_size=TENANT_BYTES, person=b"tenant").digest()


def milliseconds(at: float) -> bytes:
    """Absolute seconds as milliseconds, rounded down, 8 octets."""
    return max(0, int(at * 1000)).to_bytes(8, "big")


def seconds(at: float) -> bytes:
    """Absolute seconds, rounded down, 8 octets."""
    return max(0, int(at)).to_bytes(8, "big")


class EntryKeys(NamedTuple):
    """Where an entry stands: its record; in its lane; the deadline's own index, not before the timer's second, in which
    a tenant's are together; and the hint that finds the lane while the entry is its head, one key however many entries
    wait there.
    """

    entry: bytes
    due: bytes
    timer: bytes
    wake: bytes


def wake_key(lane: Lane, due_at: float) -> bytes:
    """The hint that finds a lane whose first entry is due then."""
    return tenant_key(lane.tenant) + seconds(due_at) + lane_key(lane)


def entry_keys(entry: Entry) -> EntryKeys:
    """The keys of an entry as it is."""
    key, tenant = entry_key(entry), tenant_key(entry.tenant)
    lane = _lane_key(entry.tenant, int(entry.message_class), entry.destination)
    return EntryKeys(
        entry=key,
        due=lane + milliseconds(entry.due_at) + key,
        timer=(int(entry.timer_at) + 1).to_bytes(8, "big") + tenant + key,
        wake=tenant + seconds(entry.due_at) + lane,
    )


def timer_tenant(timer: bytes) -> bytes:
    """Whose timer it is."""
    return timer[8 : 8 + TENANT_BYTES]


def timer_keys(timer: bytes) -> list[bytes]:
    """Where the timer with this key may stand: an earlier version left the tenant out."""
    return [timer, timer[:8] + timer[-ENTRY_BYTES:]]


def revision_bytes(entry: Entry) -> bytes:
    """What a row of `due` says of its entry, so that a claim sees whether it changed."""
    return entry.revision.to_bytes(4, "big")


def kind_key(kind: str) -> bytes:
    """The common beginning of the named records of a kind."""
    return blake2b(kind.encode(), digest_size=_KIND_BYTES, person=b"kind").digest()


@lru_cache(maxsize=1024)
def record_key(kind: str, name: str) -> bytes:
    """The key of a named record."""
    return kind_key(kind) + blake2b(name.encode(), digest_size=16, person=b"record").digest()


def kept_key(name: str) -> bytes:
    """The key of a kept answer: each name comes but once or twice."""
    return blake2b(name.encode(), digest_size=KEPT_BYTES, person=b"kept").digest()


def kept_until_key(until: float, key: bytes) -> bytes:
    """Where a kept answer is found when it is past: not before."""
    return (int(until) + 1).to_bytes(8, "big") + key


def ended_key(until: float, key: bytes) -> bytes:
    """Where a message that has ended is found when its time is over: not before."""
    return (int(until) + 1).to_bytes(8, "big") + key


@lru_cache(maxsize=4096)
def toll_key(name: str) -> bytes:
    """The key of what is taken of a rate."""
    return blake2b(name.encode(), digest_size=16, person=b"toll").digest()


def content_key(content_id: bytes, page: int) -> bytes:
    """A page of content."""
    return content_id + page.to_bytes(4, "big")


def pieces(key: bytes, value: bytes) -> list[tuple[bytes, bytes]]:
    """Cut a record into values of at most one page: key and piece number; each says how many there are."""
    size = VALUE_LIMIT - 1
    if len(value) <= size:
        return [(key + b"\x00", b"\x01" + value)]
    count = -(-len(value) // size)
    if count > 255:
        raise ValueError(f"record of {len(value)} octets")
    mark = count.to_bytes(1, "big")
    return [
        (key + number.to_bytes(1, "big"), mark + value[number * size : (number + 1) * size]) for number in range(count)
    ]
