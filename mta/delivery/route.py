"""Where mail of a domain goes: sites, and the routes that name them instead of MX. Pure.

A site is a set of next hops and how they are spoken to. Domains with equal sites share connections, so a
site holds nothing of the domain but what its TLS policies ask for.
"""

from collections.abc import Sequence
from hashlib import blake2b
from itertools import groupby
from pathlib import Path
from typing import Literal

import msgspec

from mta.config import Route

_NAME_LIMIT = 200  # octets of a site's name

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
    """Next hops in order of rank. `routed`: the operator named them, so they may be private addresses.

    `name` is one for all that share limits: `mx1.example.com:25, mx2.example.com:25 > backup.example.com:25`.
    `ca_file` has the authorities that alone are trusted. `secure`: DNSSEC proves who the next hops are. `sts` names
    what the domain's MTA-STS policy asks of them (mta.delivery.policy.sts_class).
    """

    name: str
    hops: tuple[NextHop, ...]
    tls: TlsMode = "opportunistic"
    login: Login | None = None
    routed: bool = False
    ca_file: Path | None = None
    secure: bool = False
    sts: str = ""


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

    def site(self, destination: str) -> Site | None:
        """Find the site that is named for a recipient domain (in normal form); None: MX decides.

        Or that of a relay an operator has named (`host:port`), with TLS and AUTH of the route that has it too.
        """
        if ":" in destination and not destination.endswith("]"):  # which an address literal does
            host, _, port = destination.rpartition(":")
            return self._relay(NextHop(0, host.removeprefix("[").removesuffix("]"), int(port)))
        for patterns, found in self._routes:
            if any(matches(pattern, destination) for pattern in patterns):
                return found
        return None

    def _relay(self, hop: NextHop) -> Site:
        for _, routed in self._routes:
            if any((each.host.lower(), each.port) == (hop.host, hop.port) for each in routed.hops):
                found = site((hop,), routed.tls, routed.login, routed=True)
                return msgspec.structs.replace(found, ca_file=routed.ca_file)
        return site((hop,), routed=True)


def matches(pattern: str, domain: str) -> bool:
    """Tell whether a domain is meant by `*`, `*.example.com` (what is below it, not itself) or `example.com`."""
    return pattern in ("*", domain) or (pattern.startswith("*.") and domain.endswith(pattern[1:]))


def site(
    hops: tuple[NextHop, ...], tls: TlsMode = "opportunistic", login: Login | None = None, *, routed: bool = False
) -> Site:
    """Make the site of next hops that are in order of rank."""
    ranks = [", ".join(f"{hop.host}:{hop.port}" for hop in those) for _, those in groupby(hops, lambda hop: hop.rank)]
    name = (
        " > ".join(ranks)
        + ("" if tls == "opportunistic" else f" tls={tls}")
        + (f" as {login.username}" if login else "")
    )
    return Site(_limited(name), hops, tls, login, routed)


def classed(found: Site, *, secure: bool = False, sts: str = "") -> Site:
    """Make the site of those domains whose TLS policies ask the same of the next hops of `found`."""
    words = " ".join([found.name, *(["dane"] if secure else []), *([f"sts={sts}"] if sts else [])])
    return msgspec.structs.replace(found, name=_limited(words), secure=secure or found.secure, sts=sts)


def _limited(name: str) -> str:
    """Keep a name short: a stranger's zone can name a hundred hosts."""
    if len(name) <= _NAME_LIMIT:
        return name
    return f"{name[:_NAME_LIMIT]}… {blake2b(name.encode(), digest_size=8).hexdigest()}"


def _site(route: Route) -> Site:
    login = None
    if route.username is not None and route.password_file is not None:
        login = Login(route.username, route.password_file)
    hops = tuple(NextHop(rank, each.host, each.port) for rank, each in enumerate(route.relay))
    return msgspec.structs.replace(site(hops, route.tls, login, routed=True), ca_file=route.ca_file)
