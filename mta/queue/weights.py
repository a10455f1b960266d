"""What weighs in the turns: each tenant's own weight, and for a time the share that is reserved for it."""

import asyncio
import logging
from collections.abc import Collection, Mapping

from mta.accounts.reservations import reserved_shares
from mta.accounts.tenants import weight_of
from mta.clock import Clock
from mta.spool.interface import Spool

log = logging.getLogger(__name__)

INTERVAL = 10.0  # seconds after which a changed weight, or a reservation, is known
_TOGETHER = 100  # tenants that are read in one turn of the loop: a few milliseconds


def effective_weights(weights: Mapping[str, float], shares: Mapping[str, float]) -> dict[str, float]:
    """Weigh tenants so that each of `shares` (below 1 in all) gets that part of the whole at least. Pure.

    The others share the rest as they would have. Whose own weight is worth more than its reserved share keeps that.
    """
    found = dict(weights)
    reserved = sorted((each for each in shares if each in weights), key=lambda each: weights[each] / shares[each])
    others, rest = sum(weights.values()), 1.0
    for each in reserved:
        others, rest = others - weights[each], rest - shares[each]
    while reserved:
        each = reserved[-1]  # whose own weight is worth most beside what is reserved for it
        if others > 0 and weights[each] * rest < shares[each] * others:
            break
        reserved.pop()
        others, rest = others + weights[each], rest + shares[each]
    for each in reserved:
        found[each] = shares[each] * others / rest
    return found


class Weights:
    """Weights of the tenants with work, ten seconds old at most."""

    def __init__(self, spool: Spool, clock: Clock) -> None:
        self._spool = spool
        self._clock = clock
        self._own: dict[str, float] = {}
        self._shares: dict[str, float] = {}
        self._effective: dict[str, float] = {}
        self._read_at: float | None = None

    def of(self, tenant: str) -> float:
        """Tell what a tenant weighs."""
        return self._effective.get(tenant) or self._own.get(tenant, 1.0)

    async def look_up(self, coming: Collection[str], working: Collection[str]) -> None:
        """Learn the weights of tenants whose work is coming; those of all who have work, now and then anew."""
        now = self._clock.monotonic()
        if self._read_at is None or now - self._read_at >= INTERVAL:
            self._read_at = now
            self._shares = await reserved_shares(self._spool, self._clock.now())
            own = dict[str, float]()
            for number, each in enumerate({*coming, *working}, 1):
                own[each] = await weight_of(self._spool, each)
                if number % _TOGETHER == 0:
                    await asyncio.sleep(0)  # reading does not wait for anything
            self._own = own
        for each in coming:
            if each not in self._own:
                self._own[each] = await weight_of(self._spool, each)
        if self._shares:
            with_work = {each: self._own.get(each, 1.0) for each in {*coming, *working}}
            self._effective = effective_weights(with_work, self._shares)
        elif self._effective:
            self._effective = {}
