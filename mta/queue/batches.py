"""Batches: what a tenant sends under one id, to be paused or cancelled together before it goes out.

An id is on record only while something is said of it. It names its tenant and when it was made, so that a wrong one is
noticed: milliseconds and random octets, as uuid7 begins, then 4 octets of a hash over these and the tenant.

What is said counts at every attempt (mta.queue.queue): nothing has to be done with the messages of a batch when it is
said, nothing that is accepted afterwards is forgotten, and no crash loses it. In flight is what was claimed before.
"""

import secrets
from enum import StrEnum
from hashlib import blake2b

import msgspec

from mta.accounts.tenants import AccountError
from mta.mail.ids import made_at, message_id_bytes, message_id_text
from mta.spool.interface import Spool
from mta.spool.records import State, Wish

VALID = 10 * 86_400.0  # seconds that an id can be used for from when it was made
MOST = 100  # batches of a tenant of which something is said
_OVER = VALID + 7 * 86_400.0  # nothing of it waits any more: sent up to 3 days ahead, with a lifetime of 3 days
_TIME, _RANDOM, _HASH = 6, 6, 4  # octets
_encode = msgspec.msgpack.Encoder().encode


class Word(StrEnum):
    """What is said of a batch. `go` is for one that was paused, until all that was held is released."""

    PAUSE = "pause"
    CANCEL = "cancel"
    GO = "go"


class Batch(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """A batch as it is stored. New fields go to the end."""

    version: int = 1
    id: str
    word: Word


_decode = msgspec.msgpack.Decoder(Batch).decode
PAUSED = Wish(held=True, reason="the batch is paused", by_tenant=True)
CANCELLED = Wish(end=State.CANCELLED, reason="the batch is cancelled")
LET_GO = Wish(held=False, reason="the batch is not paused any more", by_tenant=True)


def new_batch(tenant: str, now: float) -> str:
    """Make an id for a batch of a tenant. It needs no record."""
    first = int(now * 1000).to_bytes(_TIME, "big") + secrets.token_bytes(_RANDOM)
    return message_id_text(first + _hash(tenant, first))


def is_batch(tenant: str, text: str, now: float) -> bool:
    """Tell whether a text is the id of a batch of a tenant that can be used."""
    try:
        raw = message_id_bytes(text)
    except ValueError:
        return False
    first = raw[: _TIME + _RANDOM]
    return raw[len(first) :] == _hash(tenant, first) and now - VALID <= made_at(text) <= now + 60


def _hash(tenant: str, first: bytes) -> bytes:
    return blake2b(tenant.encode() + first, digest_size=_HASH).digest()


async def said(spool: Spool, tenant: str, batch: str) -> Word | None:
    """Read what is said of a batch."""
    stored = await spool.get_record(_kind(tenant), batch)
    return _decode(stored).word if stored is not None else None


async def wish_of(spool: Spool, tenant: str, batch: str) -> Wish | None:
    """Return what is wished of the messages of a batch before they are attempted."""
    word = await said(spool, tenant, batch)
    if word is Word.PAUSE:
        return PAUSED
    return CANCELLED if word is Word.CANCEL else None


async def list_all(spool: Spool, tenant: str) -> list[Batch]:
    """List the batches that are paused or cancelled, the oldest first."""
    found = [_decode(value) for _, value in await spool.list_records(_kind(tenant))]
    return sorted([each for each in found if each.word is not Word.GO], key=lambda each: made_at(each.id))


async def say(spool: Spool, tenant: str, batch: str, word: Word, now: float) -> None:
    """Say something of a batch, which counts from when this returns on; AccountError if too many are spoken of."""
    kind = _kind(tenant)
    spoken_of = [name for name, _ in await spool.list_records(kind) if name != batch]
    for name in [each for each in spoken_of if made_at(each) < now - _OVER]:
        await spool.delete_record(kind, name)
        spoken_of.remove(name)
    if len(spoken_of) >= MOST:
        raise AccountError(f"{MOST} batches are paused or cancelled already")
    await spool.put_record(kind, batch, _encode(Batch(id=batch, word=word)), replace=True)


async def forget(spool: Spool, tenant: str, batch: str) -> None:
    """Say nothing of a batch any more that was let go, unless it has been paused or cancelled meanwhile."""
    if await said(spool, tenant, batch) is Word.GO:
        await spool.delete_record(_kind(tenant), batch)


def _kind(tenant: str) -> str:
    return f"batch\0{tenant}"
