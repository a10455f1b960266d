"""What keys and tenants may send in a time, as sending.py asks for it."""

from mta.accounts.keys import ApiKey
from mta.accounts.tolls import TenantRates, rate_of, tolls_of
from mta.clock import Clock
from mta.spool.interface import Spool, Toll


class AccountRates:
    """The rates that the accounts have. A key's is as its record is; a tenant's may be ten seconds old."""

    def __init__(self, spool: Spool, clock: Clock) -> None:
        self._tenants = TenantRates(spool, clock)

    async def tolls(self, key: ApiKey, messages: int) -> tuple[Toll, ...]:
        """Return what is to be taken for so many messages."""
        tenant_rate = await self._tenants.of(key.tenant)
        return tolls_of(key.id, rate_of(key.rate, key.per), key.tenant, tenant_rate, messages)
