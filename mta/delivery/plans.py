"""Where mail for a destination goes, and which policy its domain has: route, or MX and MTA-STS.

Recipient domains whose policies ask the same of the same hosts share a site, with its limits and connections; nobody's
policy blocks a neighbour on the same hosts.

PERF: a plan is good for a second without a look at DNS or policies, and stays the same object while they do.
"""

from typing import Protocol

import msgspec

from mta.clock import Clock
from mta.config import Config
from mta.delivery import mx
from mta.delivery.policy import sts_class
from mta.delivery.resolver import Resolver
from mta.delivery.route import Routes, Site, classed
from mta.delivery.sts_policies import Standing
from mta.delivery.trouble import NoWay

_KEPT = 20_000  # domains whose plan is kept
_GOOD_FOR = 1.0  # seconds


class Policies(Protocol):
    """MTA-STS policies by domain; mta.delivery.sts_policies."""

    def knows(self, domain: str) -> bool:
        """Tell whether `of` asks nobody."""

    async def of(self, domain: str) -> Standing:
        """Find the policy that applies to a domain now, bounded in time. Never raises."""


class Plan(msgspec.Struct, frozen=True):
    """The site of a destination, and the MTA-STS policy of its domain; a route has none.

    `bare` is the site as the DNS has it, before the policy makes it one of a class.
    """

    site: Site
    domain: str
    standing: Standing
    bare: Site


_NO_POLICY = Standing()


class Plans:
    """Makes plans, and keeps them as long as what they are made from stays the same."""

    def __init__(self, config: Config, resolver: Resolver, policies: Policies, clock: Clock) -> None:
        self._hostname = config.hostname
        self._port = config.delivery.port
        self._routes = Routes(config.routes)
        self._resolver = resolver
        self._policies = policies
        self._clock = clock
        self._kept: dict[str, tuple[float, Plan]] = {}  # until when (monotonic)

    async def plan(self, destination: str) -> Plan | NoWay:
        """Make the plan for a domain (in normal form) or a relay. Never raises."""
        until, known = self._kept.get(destination, (0.0, None))
        if known is not None and self._clock.monotonic() < until:
            return known
        routed = self._routes.site(destination)
        if routed is not None:
            return Plan(routed, destination, _NO_POLICY, routed)
        bare = await mx.site_of(destination, self._resolver, self._hostname, self._port)
        if isinstance(bare, NoWay):
            return bare
        standing = await self._policies.of(destination)
        if known is None or known.bare is not bare or known.standing is not standing:
            sts = sts_class(standing.policy)
            known = Plan(classed(bare, sts=sts) if sts else bare, destination, standing, bare)
        if len(self._kept) >= _KEPT and destination not in self._kept:
            del self._kept[next(iter(self._kept))]
        self._kept[destination] = self._clock.monotonic() + _GOOD_FOR, known
        return known

    def knows(self, destination: str) -> bool:
        """Tell whether the plan for a destination can be made without asking anybody."""
        if self._routes.site(destination) is not None:
            return True
        return self._resolver.knows(destination) and self._policies.knows(destination)
