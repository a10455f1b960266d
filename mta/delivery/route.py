"""Where mail of a domain goes: sites, and the routes that name them instead of MX. Pure.

A site is a set of next hops and how they are spoken to. Domains with equal sites share connections, so a
site holds nothing of the domain.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from mta.config import Route, next_hop

TlsMode = Literal["none", "opportunistic", "require", "verify", "implicit"]


class NextHop(msgspec.Struct, frozen=True):
    """A host to hand mail to; the lower `rank`, the earlier it is asked (MX preference, or order in a route)."""

    rank: int
    host: str
    port: int


class Login(msgspec.Struct, frozen=True):
    """AUTH at a next hop. The password is read from its file whenever it is needed."""

    username: str
    password_file: Path


class Site(msgspec.Struct, frozen=True):
    """Next hops in order of rank. `routed`: the operator named them, so they may be private addresses."""

    hops: tuple[NextHop, ...]
    tls: TlsMode = "opportunistic"
    login: Login | None = None
    routed: bool = False


class Target(msgspec.Struct, frozen=True):
    """One address of a next hop."""

    host: str
    address: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}[{self.address}]:{self.port}"


class Routes:
    """The configured routes, first match first."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._routes = [(route.domains, _site(route)) for route in routes]

    def site(self, domain: str) -> Site | None:
        """Find the site that is named for a recipient domain (in normal form); None: MX decides."""
        for patterns, site in self._routes:
            if any(matches(pattern, domain) for pattern in patterns):
                return site
        return None

    def relay(self, address: str, port: int) -> Site:
        """Make the site of a relay that an operator named; TLS and AUTH are those of the route that has it too."""
        found = next_hop(address, port)
        hop = NextHop(0, found.host, found.port)
        for _, site in self._routes:
            if any((each.host, each.port) == (hop.host, hop.port) for each in site.hops):
                return msgspec.structs.replace(site, hops=(hop,))
        return Site((hop,), routed=True)


def matches(pattern: str, domain: str) -> bool:
    """Tell whether a domain is meant by `*`, `*.example.com` (what is below it, not itself) or `example.com`."""
    return pattern in ("*", domain) or (pattern.startswith("*.") and domain.endswith(pattern[1:]))


def _site(route: Route) -> Site:
    login = None
    if route.username is not None and route.password_file is not None:
        login = Login(route.username, route.password_file)
    hops = tuple(NextHop(rank, each.host, each.port) for rank, each in enumerate(route.relay))
    return Site(hops, route.tls, login, routed=True)
