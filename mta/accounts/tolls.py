"""Rates of keys and tenants, and the tolls that messages cost on them: HTTP and SMTP take them alike.

A rate is taken in the transaction that stores the messages (mta.spool.toll), under a name of its own, so that all
processes share it.
"""

import msgspec

from mta.accounts.known import KnownTenants
from mta.clock import Clock
from mta.spool.interface import Spool, Toll

_BURSTS = 100  # to a rate: what may come at once is a hundredth of it


class Rate(msgspec.Struct, frozen=True):
    """So many messages in so many seconds; neither is 0."""

    messages: int
    seconds: int

    @property
    def interval(self) -> float:
        """Seconds for each message."""
        return self.seconds / self.messages

    @property
    def burst(self) -> int:
        """How many may come at once."""
        return max(1, self.messages // _BURSTS)


def rate_of(messages: int, seconds: int) -> Rate | None:
    """Make a rate of what a record says, which for none is 0."""
    return Rate(messages, seconds) if messages > 0 and seconds > 0 else None


def tolls_of(key: str, key_rate: Rate | None, tenant: str, tenant_rate: Rate | None, units: int) -> tuple[Toll, ...]:
    """Make the tolls that `units` messages cost, the key's first; those without a rate cost nothing."""
    of_key = () if key_rate is None else (_toll(f"key\0{key}", key_rate, units),)
    of_tenant = () if tenant_rate is None else (_toll(f"tenant\0{tenant}", tenant_rate, units),)
    return of_key + of_tenant


def _toll(name: str, rate: Rate, units: int) -> Toll:
    return Toll(name, rate.interval, rate.burst, units)


class TenantRates:
    """The rates of tenants as a process knows them."""

    def __init__(self, spool: Spool, clock: Clock) -> None:
        self._known = KnownTenants(spool, clock)

    async def of(self, tenant: str) -> Rate | None:
        """Tell a tenant's rate, None if it has none; SpoolError if that cannot be read."""
        settings = await self._known.of(tenant)
        return rate_of(settings.rate, settings.per)
