"""What keys and their tenants may send in a time, as requests ask for it."""

from mta.accounts.keys import ApiKey
from mta.accounts.tolls import TenantRates, rate_of, tolls_of
from mta.clock import Clock
from mta.spool.interface import Spool, Toll


class KeyRates:
    """The rates of keys, and of their tenants as a process knows them."""

    def __init__(self, spool: Spool, clock: Clock) -> None:
        self._tenants = TenantRates(spool, clock)

    async def tolls(self, key: ApiKey, messages: int) -> tuple[Toll, ...]:
        """Return what is to be taken for so many messages."""
        of_tenant = await self._tenants.of(key.tenant)
        return tolls_of(key.id, rate_of(key.rate, key.per), key.tenant, of_tenant, messages)
