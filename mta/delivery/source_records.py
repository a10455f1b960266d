"""What is kept of sources in the spool: where they are parked, and what a warm-up counts today.

Both are named records, of source and provider or of the source, so that neither grows with time.
"""

import logging

import msgspec

from mta.spool.interface import Spool
from mta.spool.sealing import SealBroken

log = logging.getLogger(__name__)

_PARKED = "parked source"
_COUNTED = "warm-up"
_encode = msgspec.msgpack.Encoder().encode


class Parked(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """A source that is not to be used for a provider until `ends_at`. New fields go to the end."""

    version: int = 1
    source: str
    provider: str
    ends_at: float
    reason: str


class Counted(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """At most so many recipients by provider have had mail from a source on a day (of UTC, since 1970)."""

    version: int = 1
    source: str
    day: int
    recipients: dict[str, int]


_decode_parked = msgspec.msgpack.Decoder(Parked).decode
_decode_counted = msgspec.msgpack.Decoder(Counted).decode


async def park(spool: Spool, parked: Parked) -> None:
    """Put on record that a source is parked; the last word counts."""
    await spool.put_record(_PARKED, f"{parked.source} {parked.provider}", _encode(parked), replace=True)


async def unpark(spool: Spool, source: str, provider: str) -> bool:
    """Take that off record; False if it was not."""
    return await spool.delete_record(_PARKED, f"{source} {provider}")


async def parked_now(spool: Spool, now: float) -> list[Parked]:
    """Return what is parked, by source; forget what is over."""
    found: list[Parked] = []
    for name, value in await _records(spool, _PARKED):
        try:
            parked = _decode_parked(value)
        except msgspec.DecodeError as error:
            log.error("record=%r of=parked-source error=%s", name, error)
            continue
        if parked.ends_at > now:
            found.append(parked)
        else:
            await unpark(spool, parked.source, parked.provider)
    return sorted(found, key=lambda each: (each.source, each.provider))


async def count(spool: Spool, counted: Counted) -> None:
    """Put a day's counts of a source on record, in place of those before."""
    await spool.put_record(_COUNTED, counted.source, _encode(counted), replace=True)


async def counts(spool: Spool) -> list[Counted]:
    """Return the last day's counts of each source that has any."""
    found: list[Counted] = []
    for name, value in await _records(spool, _COUNTED):
        try:
            found.append(_decode_counted(value))
        except msgspec.DecodeError as error:
            log.error("record=%r of=warm-up error=%s", name, error)
    return found


async def _records(spool: Spool, kind: str) -> list[tuple[str, bytes]]:
    try:
        return await spool.list_records(kind)
    except SealBroken as error:  # a damaged spool is to deliver what it can
        log.error("records=%r error=%s", kind, error)
        return []
