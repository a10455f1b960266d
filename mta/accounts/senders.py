"""Who may send as whom: how a tenant stands to the From domains of a message (promise 9).

Asked once for every accepted message. The doors decide what comes of it: HTTP 403, submission 550 5.7.1,
a relay listener accepts it unsigned.
"""

from collections.abc import Sequence

import msgspec

from mta.accounts import domains
from mta.clock import Clock
from mta.spool.interface import Spool

FROM_DOMAINS_LIMIT = 100  # different ones in a message; each costs look-ups on the door's event loop
_KNOWN_FOR = 1.0  # seconds
_KNOWN_LIMIT = 4096


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What a tenant may do with a message.

    `sign_domain` is the registered domain to sign for, "" when it goes unsigned, and `note` says why.
    `foreign` is a From domain that is not the tenant's to use, "" if there is none.
    """

    sign_domain: str = ""
    foreign: str = ""
    note: str = ""


async def standing(spool: Spool, tenant: str, from_domains: Sequence[str]) -> Standing:
    """Look up the owners of the domains of the From field: the first that is the tenant's own signs."""
    sign_domain = ""
    for number, domain in enumerate(dict.fromkeys(from_domains)):
        if number == FROM_DOMAINS_LIMIT:
            return Standing(foreign=domain, note=f"more than {FROM_DOMAINS_LIMIT} From domains")
        owner = await domains.owner_of(spool, domain)
        if owner is None:
            continue
        if owner.tenant != tenant:
            return Standing(foreign=domain, note=f"{owner.name} belongs to another tenant")
        sign_domain = sign_domain or owner.name
    if sign_domain:
        return Standing(sign_domain=sign_domain)
    named = next(iter(from_domains), "")
    return Standing(note=f"{named[:253]} is not registered" if named else "no sender domain")


class Standings:
    """How tenants stand to domains as a process knows it: a second old at most.

    PERF: without the memory, looking up the From domain took 8 % of the ingress loop's time under load (py-spy), and
    7 µs of an accept over HTTP.
    """

    def __init__(self, spool: Spool, clock: Clock) -> None:
        self._spool = spool
        self._clock = clock
        self._known: dict[tuple[str, tuple[str, ...]], tuple[float, Standing]] = {}

    async def of(self, tenant: str, from_domains: Sequence[str]) -> Standing:
        """Tell how a tenant stands to the domains of a From field; SpoolError if they cannot be read."""
        asked, now = (tenant, tuple(from_domains)), self._clock.monotonic()
        until, known = self._known.get(asked, (now, None))
        if known is None or until <= now:
            known = await standing(self._spool, tenant, from_domains)
            if len(self._known) >= _KNOWN_LIMIT:
                self._known.clear()
            self._known[asked] = (now + _KNOWN_FOR, known)
        return known
