"""MX: from a domain to a site, and from a site to the addresses to try (RFC 5321 5.1, RFC 7505).

The rules are plain functions; only `site_of` and `Trail` ask the DNS. No address that is not public is
ever dialled unless a route names its host or the configuration opens up: what the DNS of a stranger says
must not reach what is behind our firewall. The address that is checked is the address that is dialled.
"""

import ipaddress
from collections import deque
from collections.abc import Sequence
from functools import lru_cache
from random import Random

from mta.delivery.resolver import Exchanger, NoAnswer, Resolver
from mta.delivery.route import NextHop, Site, Target, classed, site
from mta.delivery.trouble import NoWay
from mta.mail.address import AddressError, parse_literal

HOSTS_LIMIT = 20
ADDRESSES_LIMIT = 20

type_address = ipaddress.IPv4Address | ipaddress.IPv6Address
# Public by number and yet inside: the metadata services of Azure and Oracle
_INSIDE = frozenset({ipaddress.ip_address("168.63.129.16"), ipaddress.ip_address("192.0.0.192")})
_COMPATIBLE = ipaddress.IPv6Network("::/96")  # RFC 4291 2.5.5.1
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052 2.1
_NAT64_LOCAL = ipaddress.IPv6Network("64:ff9b:1::/48")  # RFC 8215
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")  # what is global unicast so far (RFC 4291 2.4)


async def site_of(domain: str, resolver: Resolver, hostname: str, port: int) -> Site | NoWay:
    """Find the next hops of a domain (in normal form) by MX, implicit MX or address literal. Never raises."""
    if domain.startswith("["):
        try:
            return site((NextHop(0, parse_literal(domain), port),))
        except AddressError:
            return NoWay.NO_HOST
    try:
        found = await resolver.exchangers(domain)
        exchangers = found.exchangers
        if not found.exists:
            return NoWay.NO_DOMAIN
        if not exchangers:
            # RFC 5321 5.1: a domain without MX is its own, if it has an address
            if not (await resolver.addresses(domain)).addresses:
                return NoWay.NO_HOST
            exchangers = (Exchanger(0, domain),)
    except NoAnswer:
        return NoWay.DNS
    return by_rank(exchangers, hostname.lower(), port, secure=found.secure)


@lru_cache(maxsize=4096)
def by_rank(exchangers: tuple[Exchanger, ...], hostname: str, port: int, *, secure: bool = False) -> Site | NoWay:
    """Make a site of MX records: without null MX, without ourselves and whatever is no better than us.

    Ranks count from 0, and hosts of a rank stand in order of name, so that domains with the same hosts have
    equal sites whatever their numbers are. `secure`: DNSSEC proves the records.
    """
    hosts = {each for each in exchangers if each.host}
    if not hosts:
        return NoWay.NULL_MX  # RFC 7505 4.1; beside others it means nothing
    ours = min((each.preference for each in hosts if each.host == hostname), default=None)
    if ours is not None:
        # RFC 5321 5.1: records at and above our own preference are dropped, or mail would go in circles
        hosts = {each for each in hosts if each.preference < ours}
    if not hosts:
        return NoWay.LOOP
    preferences = sorted({each.preference for each in hosts})
    hops = [NextHop(preferences.index(each.preference), each.host, port) for each in hosts]
    made = site(tuple(sorted(hops, key=lambda hop: (hop.rank, hop.host))))
    return classed(made, secure=True) if secure else made


def in_order(hops: Sequence[NextHop], rng: Random) -> list[NextHop]:
    """Put next hops in the order to try: by rank, at random within one (RFC 5321 5.1)."""
    drawn = [(hop.rank, rng.random(), hop) for hop in hops]
    return [hop for _, _, hop in sorted(drawn, key=lambda each: each[:2])][:HOSTS_LIMIT]


def is_public(address: type_address) -> bool:
    """Tell whether an address is one of the public Internet, also where it wraps an IPv4 address."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = _wrapped(address)
        if inner is not None:
            return is_public(inner)
        if address in _NAT64_LOCAL or address not in _GLOBAL_UNICAST:
            return False
    return address.is_global and not address.is_multicast and address not in _INSIDE


def _wrapped(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if address.ipv4_mapped or address.sixtofour:
        return address.ipv4_mapped or address.sixtofour
    if address in _NAT64 or address in _COMPATIBLE:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return None


class Trail:
    """The addresses of a site in the order to try, looked up host by host as they are needed."""

    def __init__(self, to: Site, resolver: Resolver, rng: Random, *, private: bool, first: str = "") -> None:
        """`private` admits addresses that are not public. `first` is a target that comes first if it is one of them."""
        host = first.partition("[")[0]
        self._hops = deque(sorted(in_order(to.hops, rng), key=lambda hop: hop.host != host))
        self._first = first
        self._resolver = resolver
        self._private = private or to.routed
        self._next: deque[Target] = deque()
        self._given = 0
        self.unanswered = False  # whether a host was passed over because the DNS did not answer

    async def next(self) -> Target | None:
        """Return the next address; None when there is none left or enough have been tried."""
        while not self._next and self._hops:
            hop = self._hops.popleft()
            targets = [Target(hop.host, address, hop.port) for address in await self._addresses(hop)]
            self._next.extend(sorted(targets, key=lambda each: str(each) != self._first) if self._first else targets)
        if not self._next or self._given == ADDRESSES_LIMIT:
            return None
        self._given += 1
        return self._next.popleft()

    async def _addresses(self, hop: NextHop) -> list[str]:
        try:
            addresses = [str(ipaddress.ip_address(hop.host))]
        except ValueError:
            try:
                addresses = list((await self._resolver.addresses(hop.host)).addresses)
            except NoAnswer:
                self.unanswered = True
                return []
        return [each for each in addresses if self._private or is_public(ipaddress.ip_address(each))]
