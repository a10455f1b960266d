"""Who is at the other end, and what it may do: the listener's networks, logins, and the sender domains of a tenant."""

import ipaddress
from collections.abc import Sequence
from typing import Protocol

import msgspec

from mta.accounts import credentials, keys
from mta.accounts.credentials import API_KEY_USER
from mta.accounts.networks import within
from mta.accounts.senders import Standing, Standings
from mta.accounts.tolls import Rate, TenantRates, rate_of
from mta.accounts.uses import Uses
from mta.clock import Clock
from mta.config import Listener, type_network
from mta.spool.interface import Spool

SEND_SCOPE = "send"
type_ip = ipaddress.IPv4Address | ipaddress.IPv6Address


class Client(msgspec.Struct, frozen=True):
    """The peer of a session, a proxy's client included. `ip` is None on a unix socket, or if a proxy hides it."""

    name: str
    ip: type_ip | None = None
    local: bool = False

    @property
    def literal(self) -> str:
        """The address literal for the trace header (RFC 5321 4.1.3), "" without an address."""
        if self.ip is None:
            return ""
        return f"[IPv6:{self.ip}]" if self.ip.version == 6 else f"[{self.ip}]"

    @property
    def counted_as(self) -> str:
        """Whom the limit on connections per client counts: an address, or the /64 that an IPv6 host owns."""
        if isinstance(self.ip, ipaddress.IPv6Address):
            return str(ipaddress.IPv6Address(int(self.ip) >> 64 << 64))
        return self.name

    def within(self, networks: Sequence[type_network]) -> bool:
        """Tell whether the address is in one of the networks."""
        return self.ip is not None and any(self.ip in network for network in networks)


UNIX_CLIENT = Client("unix", local=True)
HIDDEN_CLIENT = Client("unknown")


def client_at(address: str) -> Client:
    """Describe the client at an IP address; ValueError if it is none. ::ffff:192.0.2.1 is 192.0.2.1."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return Client(str(ip), ip, ip.is_loopback)


def admits(listener: Listener, client: Client) -> bool:
    """Tell whether the listener serves the client: a relay serves its networks and what comes by its unix socket.

    One that goes by certificates serves everybody so far.
    """
    if listener.kind == "submission" or listener.by_certificate:
        return True
    return client == UNIX_CLIENT or client.within(listener.networks)


def certified(listener: Listener, names: Sequence[str]) -> bool:
    """Tell whether a verified client certificate with these names may relay; without a certificate there are none."""
    wanted = [each.lower() for each in listener.client_names]
    return any(not wanted or each.lower() in wanted for each in names)


class Identity(msgspec.Struct, frozen=True):
    """Who has logged in, with a credential that was made `since` (absolute seconds) or with a key.

    The same message is not sent again within `once` seconds. `key` is the API key that it was, of which `rate` is;
    what is sent with a `sandbox` key is not delivered.
    """

    tenant: str
    user: str
    once: float = 0.0
    key: str = ""
    rate: Rate | None = None
    sandbox: bool = False
    since: float = 0.0


class Access(Protocol):
    """What the ingress asks of the accounts. SpoolError when they cannot be read."""

    async def authenticate(self, user: str, password: str, client: Client) -> Identity | None:
        """Return who that is, None for any wrong credential, in the same time whichever part was wrong."""

    async def good(self, login: Identity) -> bool:
        """Tell whether a login that was good still is."""

    async def standing(self, tenant: str, from_domains: Sequence[str]) -> Standing:
        """Tell how a tenant stands to the domains of a From field."""

    async def rate(self, tenant: str) -> Rate | None:
        """Tell a tenant's rate, None if it has none."""


class Accounts:
    """Access as the installation's accounts have it; what it says of domains may be a second old."""

    def __init__(self, spool: Spool, clock: Clock) -> None:
        self._spool = spool
        self._clock = clock
        self.uses = Uses(spool, clock)
        self._standings = Standings(spool, clock)
        self._rates = TenantRates(spool, clock)

    async def authenticate(self, user: str, password: str, client: Client) -> Identity | None:
        """Look up a credential, or an API key with the send scope as the password of user `apikey`.

        A key that is bound to networks is none from elsewhere.
        """
        if user == API_KEY_USER:
            now = self._clock.now()
            key = await keys.authenticate(self._spool, password, now)
            address = str(client.ip) if client.ip is not None else ""
            if key is None or SEND_SCOPE not in key.scopes or (key.networks and not within(address, key.networks)):
                return None
            self.uses.note(key.id, now)
            rate = rate_of(key.rate, key.per)
            return Identity(key.tenant, f"{user}:{key.id}", key.once, key.id, rate, key.sandbox)
        credential = await credentials.authenticate(self._spool, user, password)
        if credential is None:
            return None
        return Identity(credential.tenant, credential.user, credential.once, since=credential.created_at)

    async def good(self, login: Identity) -> bool:
        """Look up the credential or key once more, which may have ended since."""
        if login.key:
            key = await keys.find(self._spool, login.key)
            return key is not None and key.good(self._clock.now()) and SEND_SCOPE in key.scopes
        credential = await credentials.find(self._spool, login.user)
        return credential is not None and not credential.revoked_at and credential.created_at == login.since

    async def standing(self, tenant: str, from_domains: Sequence[str]) -> Standing:
        """Look up who owns the domains."""
        return await self._standings.of(tenant, from_domains)

    async def rate(self, tenant: str) -> Rate | None:
        """Tell a tenant's rate."""
        return await self._rates.of(tenant)
