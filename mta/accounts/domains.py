"""Sender domains: each belongs to one tenant, with all that is below it (promise 9).

So a domain cannot be registered below or above one of another tenant. What a name belongs to is the
nearest registered name at or above it; a top-level name speaks for itself only, because nobody's mail
is all of `com`.
"""

import re
from collections.abc import Callable
from enum import StrEnum
from functools import lru_cache

import msgspec

from mta.accounts import tenants
from mta.accounts.tenants import AccountError
from mta.mail.address import DOMAIN_LIMIT, AddressError, a_label, is_domain
from mta.spool.interface import Spool

KIND = "domain"
_LABELS = 127  # what 253 octets have room for
_DOTS = re.compile("[.\u3002\uff0e\uff61]")  # IDNA takes all of them for a dot (UTS 46)
encode = msgspec.msgpack.Encoder().encode


class DomainTaken(AccountError):
    """The domain, one above it or one below it belongs to another tenant."""


class State(StrEnum):
    """What a DKIM key is used for; mta.accounts.rotation says how it comes from one to the next."""

    PENDING = "pending"  # for nothing, until the DNS shows it
    ACTIVE = "active"  # it signs
    RETIRED = "retired"  # it has signed: its record stays published while such mail is under way


class Selector(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """One DKIM key of a domain: what the DNS must say, and the private key that only delivery can open.

    `replaces` names the keys that retire when it becomes active. `shown_at` is since when the DNS has been seen to show
    it, `missing_at` since when not to, and `trouble` what is wrong there; both are 0 while nobody knows.
    New fields go to the end.
    """

    name: str
    algorithm: str
    created_at: float
    dns_value: str
    sealed: bytes
    state: State = State.ACTIVE
    replaces: tuple[str, ...] = ()
    shown_at: float = 0.0
    missing_at: float = 0.0
    trouble: str = ""
    removable_at: float = 0.0  # of a retired one: when its record can go


class Domain(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """A sender domain as it is stored: lower case, A-labels. New fields go to the end."""

    version: int = 1
    name: str
    tenant: str
    created_at: float
    selectors: tuple[Selector, ...] = ()


decode = msgspec.msgpack.Decoder(Domain).decode


async def add(spool: Spool, name: str, tenant: str, now: float) -> Domain:
    """Register a domain for a tenant, or return it unchanged if the tenant has it.

    DomainTaken if it is, or is below or above, another tenant's; AccountError if it is no domain name.
    """
    normal = normalise(name)
    await tenants.require(spool, tenant)
    owner = await owner_of(spool, normal)
    if owner is not None and owner.tenant != tenant:
        raise DomainTaken(f"{owner.name} belongs to another tenant")
    for other in await list_all(spool):
        if other.tenant != tenant and normal in _ancestors(other.name):
            raise DomainTaken(f"{other.name} belongs to another tenant")
    domain = Domain(name=normal, tenant=tenant, created_at=now)
    if await spool.put_record(KIND, normal, encode(domain), replace=False):
        return domain
    existing = await find(spool, normal)
    if existing is None or existing.tenant != tenant:
        raise DomainTaken(f"{normal} belongs to another tenant")
    return existing


async def find(spool: Spool, name: str) -> Domain | None:
    """Return the domain registered under exactly this normal name."""
    stored = await spool.get_record(KIND, name)
    return decode(stored) if stored is not None else None


async def change(spool: Spool, name: str, how: Callable[[Domain], Domain]) -> Domain | None:
    """Change a domain as `how` says, and return it; None if it is not registered.

    Another process may change it meanwhile: `how` is asked again then, with what that one has made of it.
    """
    while True:
        stored = await spool.get_record(KIND, name)
        if stored is None:
            return None
        before = decode(stored)
        after = how(before)
        if after == before or await spool.change_record(KIND, name, stored, encode(after)):
            return after


async def owner_of(spool: Spool, domain: str) -> Domain | None:
    """Return the nearest registered domain at or above `domain`, which may be any text."""
    # no name that counts is longer, and what comes from outside is kept for a while
    for name in _ancestors(domain.rstrip(".")[-DOMAIN_LIMIT - 1 :]):
        found = await find(spool, name)
        if found is not None:
            return found
    return None


async def list_all(spool: Spool) -> list[Domain]:
    """Return all sender domains, by name."""
    return [decode(value) for _, value in await spool.list_records(KIND)]


def normalise(name: str) -> str:
    """Write a domain name in lower case as A-labels, without a final dot; AccountError if it is none."""
    try:
        normal = a_label(name.removesuffix("."))
    except AddressError as error:
        raise AccountError(f"{name[:DOMAIN_LIMIT]!r}: {error}") from None
    if not is_domain(normal):
        raise AccountError(f"{name[:DOMAIN_LIMIT]!r} is not a domain name")
    return normal


@lru_cache(maxsize=256)
def _ancestors(domain: str) -> tuple[str, ...]:
    """List the normal names at and above `domain`, nearest first, top-level ones only if that is what it is.

    Labels that cannot be a name's are passed over rather than trusted: what stands above them has an owner.
    """
    found = []
    labels = _DOTS.split(domain)[-_LABELS:]
    for start in range(max(1, len(labels) - 1)):
        name = ".".join(labels[start:])
        if len(name) > DOMAIN_LIMIT:
            continue
        try:
            normal = a_label(name)
        except AddressError:
            continue
        if is_domain(normal):
            found.append(normal)
    return tuple(found)
