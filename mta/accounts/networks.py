"""Networks that a key may be used from: addresses and CIDR blocks of both families, as text.

An IPv4 address that comes as ::ffff:192.0.2.1 is 192.0.2.1, and so with a block of such addresses; none is in `::/0`.
"""

import ipaddress
from collections.abc import Sequence
from functools import lru_cache

MOST = 100  # networks of a key
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")
_LONGEST = 64  # characters of the longest network, and some to spare
type_network = ipaddress.IPv4Network | ipaddress.IPv6Network


class NetworkError(ValueError):
    """The text is no network; the message says so in words fit for a reply."""


def network_of(text: str) -> str:
    """Write an address or a CIDR block in its usual form; NetworkError if it is none."""
    try:
        if len(text) > _LONGEST or "%" in text:
            raise ValueError("no network is so long, and a zone means nothing to others")
        return str(_unmapped(ipaddress.ip_network(text, strict=False)))
    except ValueError:
        raise NetworkError(f"{text[:_LONGEST]!r} is not an address or a network such as 192.0.2.0/24") from None


# PERF: a key comes from the same few addresses again and again, and ipaddress takes 5 µs an object.
@lru_cache(maxsize=4096)
def within(address: str, networks: tuple[str, ...]) -> bool:
    """Tell whether an address is in one of the networks (of `network_of`). "" is none's: a unix socket, or hidden."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return any(ip in network for network in _parsed(networks))


def outside(inner: Sequence[str], outer: Sequence[str]) -> str:
    """Name the first network of `inner` of which not all is in `outer`, "" if there is none."""
    whole = _joined(outer)
    for each in inner:
        if not any(_holds(network, ipaddress.ip_network(each)) for network in whole):
            return each
    return ""


@lru_cache(maxsize=1024)
def _parsed(networks: tuple[str, ...]) -> tuple[type_network, ...]:
    return tuple(ipaddress.ip_network(each) for each in networks)


def _joined(networks: Sequence[str]) -> list[type_network]:
    """Join neighbours: two halves have all of the whole."""
    parsed = _parsed(tuple(networks))
    four = [each for each in parsed if isinstance(each, ipaddress.IPv4Network)]
    six = [each for each in parsed if isinstance(each, ipaddress.IPv6Network)]
    return [*ipaddress.collapse_addresses(four), *ipaddress.collapse_addresses(six)]


def _holds(outer: type_network, inner: type_network) -> bool:
    if isinstance(outer, ipaddress.IPv4Network) and isinstance(inner, ipaddress.IPv4Network):
        return inner.subnet_of(outer)
    return (
        isinstance(outer, ipaddress.IPv6Network) and isinstance(inner, ipaddress.IPv6Network) and inner.subnet_of(outer)
    )


def _unmapped(network: type_network) -> type_network:
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_MAPPED):
        address = network.network_address.ipv4_mapped
        assert address is not None  # it is in _MAPPED
        return ipaddress.IPv4Network((address, network.prefixlen - _MAPPED.prefixlen))
    return network
