"""Tenants: whom a message belongs to. Keys, credentials and domains name one that exists.

A tenant's name stands in every message and event of its, so it never changes and is never removed.
"""

import logging
import re
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from mta.spool.interface import Spool
from mta.spool.sealing import SealBroken

log = logging.getLogger(__name__)

KIND = "tenant"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # as config.Name: listeners name tenants too
HEAVIEST = 1000
LONGEST_KEPT = 30 * 86_400  # seconds, as long as the log
_encode = msgspec.msgpack.Encoder().encode


class Fault(NamedTuple):
    """One thing that is wrong with what was asked: where (`networks.0`), and what, in words fit for a reply."""

    field: str
    message: str


class AccountError(ValueError):
    """What was asked cannot be done and nothing changed; the message says why, in words fit for a reply.

    `faults` has each wrong field, where it is known.
    """

    def __init__(self, message: str, faults: Sequence[Fault] = ()) -> None:
        super().__init__(message)
        self.faults = tuple(faults)


class Tenant(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """A tenant as it is stored. New fields go to the end."""

    version: int = 1
    name: str
    created_at: float
    weight: int = 1  # its share of deliveries against that of the others, 1 to HEAVIEST
    pool: str = ""  # of sources, that its mail leaves from; "": the default one
    most_messages: int = 0  # that may wait, 0 for any number
    most_octets: int = 0
    tls: str = ""  # the least that its mail goes over: "", "encrypted" or "verified"
    rate: int = 0  # messages that it may send in `per` seconds, 0 for any number
    per: int = 0
    keep_content: int = 0  # seconds that the content of a message is kept after its end


_decode = msgspec.msgpack.Decoder(Tenant).decode


async def create(spool: Spool, name: str, now: float, **fields: int | str) -> bool:
    """Create a tenant; False (and no change) if it exists, AccountError if the name is not fit to be one."""
    if not _NAME.fullmatch(name):
        raise AccountError("a tenant's name is 1 to 64 letters, digits, dots, hyphens and underscores")
    tenant = msgspec.structs.replace(Tenant(name=name, created_at=now), **fields)
    return await spool.put_record(KIND, name, _encode(tenant), replace=False)


async def change(spool: Spool, name: str, **fields: int | str) -> None:
    """Give fields of a tenant other values; AccountError if there is none of this name."""
    await require(spool, name)
    while (stored := await spool.get_record(KIND, name)) is not None:
        changed = msgspec.structs.replace(_decode(stored), **fields)
        if await spool.change_record(KIND, name, stored, _encode(changed)):  # or somebody else was faster
            return


async def settings_of(spool: Spool, name: str) -> Tenant:
    """Return a tenant; as one is made if there is none, or its record cannot be read: its mail goes on."""
    try:
        stored = await spool.get_record(KIND, name)
        if stored is not None:
            return _decode(stored)
    except (SealBroken, msgspec.DecodeError) as error:
        log.error("tenant=%s settings=default error=%s", name, error)
    return Tenant(name=name, created_at=0.0)


async def weight_of(spool: Spool, name: str) -> int:
    """Return a tenant's weight."""
    return (await settings_of(spool, name)).weight


async def pool_of(spool: Spool, name: str) -> str:
    """Return the pool of a tenant; "" if it has none of its own."""
    return (await settings_of(spool, name)).pool


async def exists(spool: Spool, name: str) -> bool:
    """Tell whether there is a tenant of this name."""
    return _NAME.fullmatch(name) is not None and await spool.get_record(KIND, name) is not None


async def require(spool: Spool, name: str) -> None:
    """Raise AccountError unless there is a tenant of this name."""
    if not await exists(spool, name):
        raise AccountError(f"there is no tenant {name[:64]!r}")


async def list_all(spool: Spool) -> list[Tenant]:
    """Return all tenants, by name."""
    return [_decode(value) for _, value in await spool.list_records(KIND)]
