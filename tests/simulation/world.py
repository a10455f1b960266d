"""A world for the turns: tenants, sites and slots drawn at random, deliveries in simulated time, what each got."""

import heapq
from collections import Counter, defaultdict
from random import Random

from mta.queue.turns import Turns
from mta.spool.records import Lane, MessageClass


class World:
    """Everybody has work all the time, so that what each is due can be said without any scheduler."""

    TENANTS = 60  # at most

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self.slots = rng.choice([1, 3, 10, 50, 200])
        self.sites = [f"s{number}" for number in range(rng.choice([1, 2, 10, 300]))]
        tenants = [f"t{number}" for number in range(rng.choice([2, 3, 10, self.TENANTS]))]
        self.weights = self._each(tenants, [1, 1, 1, 3, 10, 100], 1)
        self.recipients = self._each(tenants, [1, 1, 1, 50], 1)
        self.limits = self._each(self.sites, [1, 2, 5, 20, 1000], 1000)
        self.seconds = self._each(self.sites, [1, 1, 1, 3, 10], 1)
        self.turns = Turns[str](
            self.weights.__getitem__, lambda site, _, at_work, stays: None if at_work < self.limits[site] else site
        )
        self.at: dict[str, set[str]] = defaultdict(set)  # site -> tenants
        self.of: dict[str, set[str]] = defaultdict(set)  # tenant -> sites
        for tenant in tenants:
            for site in rng.sample(self.sites, min(rng.choice([1, 1, 2, len(self.sites)]), len(self.sites))):
                self.work(tenant, site)
        self.now = 0.0
        self.got: Counter[tuple[str, str]] = Counter()  # deliveries of a tenant at a site
        self.deliveries = 0
        self.at_work: Counter[str] = Counter()
        self._free = self.slots
        self._ends: list[tuple[float, int, str]] = []

    def _each(self, names: list[str], choices: list[int], otherwise: int) -> dict[str, int]:
        varied = self._rng.random() < 0.6
        return {name: self._rng.choice(choices) if varied else otherwise for name in names}

    def work(self, tenant: str, site: str) -> None:
        """Let a tenant have work at a site from now on."""
        self.at[site].add(tenant)
        self.of[tenant].add(site)
        self.turns.ready(Lane(tenant, MessageClass.NORMAL, site), site)

    def deliver(self, count: int) -> float:
        """Go on until so many deliveries more have begun; the seconds it took."""
        began, until = self.now, self.deliveries + count
        while self.deliveries < until:
            while self._free and (found := self.turns.take()) is not None:
                self._free -= 1
                self._begin(*found[:2])
            assert not self._free or not self._could_be_used(), "a slot is free that somebody could use"
            self.now, _, ended = heapq.heappop(self._ends)
            self.at_work[ended] -= 1
            found = self.turns.take(ended)
            if found is not None:
                self._begin(*found[:2])
            if found is None or not found[2]:
                self.turns.leave(ended)
                self._free += found is None
        return self.now - began

    def _could_be_used(self) -> bool:
        return any(self.at[site] and self.at_work[site] < self.limits[site] for site in self.sites)

    def _begin(self, lane: Lane, site: str) -> None:
        self.turns.charge(lane, site, self.recipients[lane.tenant] - 1)
        self.at_work[site] += 1
        assert self.at_work[site] <= self.limits[site], "a site has more than its limit"
        self.got[lane.tenant, site] += 1
        self.deliveries += 1
        seconds = self.seconds[site] * self._rng.uniform(0.9, 1.1)
        heapq.heappush(self._ends, (self.now + seconds, self.deliveries, site))

    def due(self, tenant: str, site: str, seconds: float) -> float:
        """What a tenant is due at a site: its share by weight of the site's places, or of the slots, if that is less.

        Of the slots, as if each delivery took as long as the longest, and each tenant had as much at all its sites.
        """
        at_site = sum(self._claim(each) for each in self.at[site])
        of_site = seconds * min(self.limits[site], self.slots) / self.seconds[site] * self._claim(tenant) / at_site
        in_all = sum(self._claim(each) for each in self.of)
        of_slots = seconds * self.slots / max(self.seconds.values()) * self._claim(tenant) / in_all
        return min(of_site, of_slots / len(self.of[tenant]))

    def _claim(self, tenant: str) -> float:
        return self.weights[tenant] / self.recipients[tenant]
