"""How quickly lanes, sites and tenants drain: attempts that ended, weighted by how long ago. Pure.

A rate is what came in the last minutes: each attempt weighs e^(-age / SPAN), and what the time before the first one
was seen would have weighed is left out. So it is right from the first minute on, and gone some minutes after the last.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping
from math import exp
from typing import Generic, TypeVar

import msgspec

from mta.queue.held import CLASS_SHARES
from mta.spool.records import Lane, MessageClass

SPAN = 180.0  # seconds: two thirds of a rate are what happened in so long
MEASURED = 4096  # lanes, sites and tenants each: those with the latest attempts
_SHORTEST = 10.0  # seconds, as if we had looked for so long at least: one attempt is no rate
_GONE = 0.05  # what is left of one attempt after nine minutes: there is no rate then

Key = TypeVar("Key", bound=Hashable)


class Rates(msgspec.Struct, frozen=True):
    """Attempts a second; 0 where there was none in the last minutes."""

    lane: float = 0.0
    site: float = 0.0
    tenant: float = 0.0


class _Rate:
    __slots__ = ("at", "began_at", "weight")

    def __init__(self, now: float) -> None:
        self.began_at = self.at = now
        self.weight = 0.0

    def count(self, now: float) -> None:
        self.weight = self.left(now) + 1.0
        self.at = now

    def left(self, now: float) -> float:
        return self.weight * exp((self.at - now) / SPAN)

    def at_time(self, now: float) -> float:
        left = self.left(now)
        looked_for = max(now - self.began_at, _SHORTEST)
        return left / (SPAN * (1.0 - exp(-looked_for / SPAN))) if left >= _GONE else 0.0


class _Rated(Generic[Key]):
    """The rates of those with the latest attempts."""

    def __init__(self) -> None:
        self._rates: dict[Key, _Rate] = {}

    def count(self, key: Key, now: float) -> None:
        rate = self._rates.pop(key, None) or _Rate(now)
        rate.count(now)
        self._rates[key] = rate
        if len(self._rates) > MEASURED:
            del self._rates[next(iter(self._rates))]

    def rate(self, key: Key, now: float) -> float:
        rate = self._rates.get(key)
        return 0.0 if rate is None else rate.at_time(now)


class DrainRates:
    """Counts the attempts of lanes, sites and tenants. Times are a monotonic clock's."""

    def __init__(self) -> None:
        self._lanes = _Rated[Lane]()
        self._sites = _Rated[str]()
        self._tenants = _Rated[str]()

    def count(self, lane: Lane, site: str, now: float) -> None:
        """Note that an attempt ended."""
        self._lanes.count(lane, now)
        self._sites.count(site, now)
        self._tenants.count(lane.tenant, now)

    def of(self, lane: Lane, site: str | None, now: float) -> Rates:
        """Tell the rates of a lane, of its site and of its tenant."""
        return Rates(
            lane=self._lanes.rate(lane, now),
            site=0.0 if site is None else self._sites.rate(site, now),
            tenant=self._tenants.rate(lane.tenant, now),
        )


class FairParts:
    """What part of a site's attempts is a lane's, as long as all that have work there go on having it (turns.py)."""

    def __init__(self, lanes: Mapping[tuple[str, MessageClass], int], weight: Callable[[str], float]) -> None:
        """`lanes` of each tenant and class have work at the site; `weight` is a tenant's."""
        self._weight = weight
        self._lanes = lanes
        self.lanes = sum(lanes.values())
        self._classes: defaultdict[str, float] = defaultdict(float)  # by tenant, the shares of its classes
        for tenant, message_class in lanes:
            self._classes[tenant] += CLASS_SHARES[message_class]
        self._weights = sum(map(weight, self._classes))

    def of(self, lane: Lane) -> float:
        """Tell the part of one of these lanes: its tenant's by weight, of that its class's, shared by domains."""
        tenants = self._weight(lane.tenant) / self._weights
        classes = CLASS_SHARES[lane.message_class] / self._classes[lane.tenant]
        return tenants * classes / self._lanes[lane.tenant, lane.message_class]
