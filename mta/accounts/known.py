"""Tenants as a process knows them: some seconds old at most, so that no message is a look-up."""

from mta.accounts.tenants import Tenant, settings_of
from mta.clock import Clock
from mta.spool.interface import Spool

_KNOWN_FOR = 10.0  # seconds, as mta.queue.gate knows a tenant's settings
_KNOWN_LIMIT = 4096


class KnownTenants:
    """The settings of tenants."""

    def __init__(self, spool: Spool, clock: Clock) -> None:
        self._spool = spool
        self._clock = clock
        self._known: dict[str, tuple[float, Tenant]] = {}

    async def of(self, name: str) -> Tenant:
        """Tell a tenant's settings; SpoolError if they cannot be read."""
        now = self._clock.monotonic()
        known = self._known.get(name)
        if known is not None and now < known[0]:
            return known[1]
        settings = await settings_of(self._spool, name)
        if len(self._known) >= _KNOWN_LIMIT:
            self._known.clear()
        self._known[name] = now + _KNOWN_FOR, settings
        return settings
