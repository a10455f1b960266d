"""Reservations: the share of everything that a tenant is sure of for a time.

A reservation never changes; it is made and removed. Those whose time is over stay until they are removed, and matter
no longer.
"""

import logging
import secrets
from collections.abc import Iterable

import msgspec

from mta.accounts.tenants import AccountError, require
from mta.spool.interface import Spool
from mta.spool.sealing import SealBroken

log = logging.getLogger(__name__)

KIND = "reservation"
MOST = 0.9  # of the whole, that can be reserved at a time: others are to get on too
_encode = msgspec.msgpack.Encoder().encode


class Reservation(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """A reservation as it is stored; `share` is above 0 and up to MOST. New fields go to the end."""

    version: int = 1
    id: str
    tenant: str
    share: float
    from_at: float
    until_at: float


_decode = msgspec.msgpack.Decoder(Reservation).decode


async def reserve(spool: Spool, tenant: str, share: float, from_at: float, until_at: float) -> Reservation:
    """Reserve a share from a time until another; AccountError if it cannot be, or if too much were reserved then."""
    await require(spool, tenant)
    if not 0 < share <= MOST:
        raise AccountError(f"a share is above 0% and at most {MOST:.0%}")
    if not from_at < until_at:
        raise AccountError("a reservation ends after it begins")
    wanted = Reservation(id=secrets.token_hex(4), tenant=tenant, share=share, from_at=from_at, until_at=until_at)
    others = await list_all(spool)
    if any(each.tenant == tenant and _overlap(each, wanted) for each in others):
        raise AccountError(f"tenant {tenant} has a reservation for a part of that time; remove it first")
    taken = most_reserved(others, from_at, until_at)
    if taken + share > MOST + 1e-9:
        raise AccountError(f"{taken:.0%} are reserved for a part of that time, and at most {MOST:.0%} can be in all")
    await spool.put_record(KIND, wanted.id, _encode(wanted), replace=False)
    return wanted


async def remove(spool: Spool, name: str) -> None:
    """Remove a reservation by its ID; AccountError if there is none."""
    if not await spool.delete_record(KIND, name):
        raise AccountError(f"there is no reservation {name[:64]!r}")


async def list_all(spool: Spool) -> list[Reservation]:
    """Return all reservations, in the order of their beginning."""
    found = [_decode(value) for _, value in await spool.list_records(KIND)]
    return sorted(found, key=lambda each: (each.from_at, each.tenant))


async def reserved_shares(spool: Spool, now: float) -> dict[str, float]:
    """Return each tenant's reserved share at a time; none if the records cannot be read: mail goes on without."""
    try:
        found = await list_all(spool)
    except (SealBroken, msgspec.DecodeError) as error:
        log.error("reservations=unreadable error=%s", error)
        return {}
    shares = {each.tenant: each.share for each in found if each.from_at <= now < each.until_at}
    much = max(1.0, sum(shares.values()) / MOST)  # two were made at the same moment
    return {tenant: share / much for tenant, share in shares.items()}


def most_reserved(reservations: Iterable[Reservation], from_at: float, until_at: float) -> float:
    """Tell the most that is reserved at any one moment of a time."""
    within = [each for each in reservations if each.from_at < until_at and from_at < each.until_at]
    moments = {max(from_at, each.from_at) for each in within}  # it only grows where one begins
    return max(
        (sum(each.share for each in within if each.from_at <= at < each.until_at) for at in moments), default=0.0
    )


def _overlap(one: Reservation, other: Reservation) -> bool:
    return one.from_at < other.until_at and other.from_at < one.until_at
