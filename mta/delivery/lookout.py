"""Which lanes the delivery role knows: those with due work, found in the spool and placed where their mail goes.

Not all of a backlog's: as many as keep the connections at work, and of no tenant so many that others are not seen. How
often it looks depends on how many it knows, so that the bell can ring for each message.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from mta.clock import Clock
from mta.delivery.gate import Gate
from mta.queue.limits import Aim
from mta.queue.scheduler import LANES, LANES_KNOWN, Scheduler
from mta.queue.turns import Turns
from mta.queue.weights import Weights
from mta.spool.interface import NO_PLACES, LanePlace
from mta.spool.records import Lane

HELD_ANEW = 300.0  # seconds after which it is looked up again where the mail of lanes goes that have no room
LANES_A_SLOT = 20  # known, of which each has a delivery to make at least
LANES_SHED = 1024  # of those without room that are forgotten for others, where there are too many
LOOKUPS = 1000  # lanes whose site has to be asked for, at once; a tenant has its first in any case
LOOKUPS_A_TENANT = 100  # of these
LOOKUPS_FREELY = 16  # of these, a tenant's first, beyond which each begins later than the one before
LOOKUP_PAUSE = 2e-3  # seconds by which: twice the CPU that one takes, for which others' deliveries have to wait
LOOKS_FREELY = 100  # lanes, beyond which the next look waits, however often the bell is rung
LOOK_PAUSE = 60e-6  # seconds, for each of these lanes: thirty times what it takes to look at one


class Aims(Protocol):
    """What says where mail goes; mta.delivery.attempt."""

    async def aim(self, destination: str) -> Aim:
        """Find the site of a lane's domain or relay; never raises."""

    def knows(self, destination: str) -> bool:
        """Tell whether `aim` asks nobody."""


class Lookout:
    """Finds lanes with due work, and lets them have their turns at their sites."""

    def __init__(
        self,
        scheduler: Scheduler,
        turns: Turns[str],
        weights: Weights,
        gate: Gate,
        aims: Aims,
        ring: Callable[[], None],
        clock: Clock,
        *,
        connections: int,
    ) -> None:
        """`ring` has us look again. Of the process: `connections`."""
        self._scheduler = scheduler
        self._turns = turns
        self._weights = weights
        self._gate = gate
        self._aims = aims
        self._ring = ring
        self._clock = clock
        self._connections = connections
        self._placing: dict[Lane, asyncio.Task[None]] = {}  # of which it is looked up where they go
        self._look_at = clock.monotonic()  # not before
        self._look_wide_at = self._look_at  # for lanes of tenants that have many already
        self._go_on_after: dict[str, LanePlace] = {}  # by tenant, where wide looks go on: some before it were forgotten
        self._shed_at = self._look_at
        self._owed_at: float | None = None  # when to look for what was not looked for at the bell

    def looks_up(self, lane: Lane) -> bool:
        """Tell whether it is being looked up where a lane's mail goes."""
        return lane in self._placing

    def next_look(self) -> float | None:
        """Return in how many seconds to look for what was not looked for yet; None if there is nothing."""
        return None if self._owed_at is None else max(0.0, self._owed_at - self._clock.monotonic())

    def stop(self) -> None:
        """Look up nothing more."""
        for each in self._placing.values():
            each.cancel()

    async def look(self) -> None:
        """Learn which lanes have work due, unless it is too early."""
        now = self._clock.monotonic()
        if now - self._shed_at >= HELD_ANEW:
            self._shed_at = now
            self._turns.shed(LANES_KNOWN)  # a domain may have left a site that is paused for long
        if now >= self._look_at:
            await self._look()
        else:
            self._owed_at = self._look_at

    async def _look(self) -> None:
        """Learn which lanes have work due; those of tenants that have many already, not as often."""
        known, now = len(self._turns.lanes) + len(self._placing), self._clock.monotonic()
        wanted = self._lanes_wanted(known)
        self._owed_at = self._look_wide_at if wanted > 0 and now < self._look_wide_at else None
        if wanted > 0 and self._owed_at is None:
            await self._make_room(known + wanted - LANES_KNOWN)
            found = await self._look_for(wanted, (), self._go_on_after)
            self._look_wide_at = self._clock.monotonic() + LOOK_PAUSE * max(0, known + found - LOOKS_FREELY)
        else:
            await self._look_for(LOOKS_FREELY, self._have_many())
        passed = len(self._turns.lanes) - sum(map(self._turns.lanes_of, self._have_many()))
        self._look_at = self._clock.monotonic() + LOOK_PAUSE * max(0, passed - LOOKS_FREELY)

    def _have_many(self) -> set[str]:
        return {each for each in self._turns.tenants if self._turns.lanes_of(each) > LOOKS_FREELY}

    def _lanes_wanted(self, known: int) -> int:
        """Tell how many lanes more should be known: enough whose sites have room, but not too many in all."""
        closed = self._turns.passed_over
        enough = min(LANES, LANES_A_SLOT * self._connections)
        return min(enough - (known - closed), max(LANES_KNOWN - known, LANES_SHED))

    async def _make_room(self, lanes: int) -> None:
        """Forget so many of the lanes that have no room, and have looks go on behind those that are known."""
        if lanes <= 0:
            return
        last = dict[str, Lane]()
        for lane in self._turns.lanes:
            last[lane.tenant] = lane
        for tenant in {lane.tenant for lane in self._turns.shed(lanes)}:
            self._go_on_after[tenant] = await self._scheduler.place_of(last[tenant])

    async def _look_for(self, limit: int, but_of: Collection[str], after: Mapping[str, LanePlace] = NO_PLACES) -> int:
        """Look for lanes that are not known yet; return how many have their turns now or when it is known where."""
        known = self._turns.lanes | self._placing.keys() if self._placing else self._turns.lanes
        lanes = await self._scheduler.due_lanes(limit, known, but_of, after)
        if after and len(lanes) < limit:  # that was the last: from the first again
            self._go_on_after.clear()
        coming = {lane.tenant for lane in lanes}
        await self._weights.look_up(coming, self._turns.tenants)
        await self._gate.learn_pools(coming, self._turns.tenants)
        placed = await self._place(lanes)
        if placed == limit:
            self._ring()  # there may be more
        return placed

    async def _place(self, lanes: Sequence[Lane]) -> int:
        """Let lanes have their turns where their mail goes; those whose site takes a while to look up, later.

        Return how many: the others have to be looked for again when some of these lookups are over.
        """
        waiting = [each for each in lanes if each not in self._turns.lanes and each not in self._placing]
        found = len(waiting)
        while waiting and (begun := self._begin_to_place(waiting)):
            await asyncio.sleep(0)  # which is long enough for what is known already
            for each in begun:
                if each in self._placing:
                    self._placing[each].add_done_callback(lambda _: self._ring())
            waiting = [each for each in waiting if each not in begun]
        return found - len(waiting)

    def _begin_to_place(self, lanes: Sequence[Lane]) -> set[Lane]:
        """Begin to look up as many as may be, of each tenant, and return which.

        What is asked for long (a stranger's policy host may take a minute) holds up neither what is known nor the first
        of other tenants.
        """
        looked_up = Counter([lane.tenant for lane in self._placing])
        begun = set[Lane]()
        for lane in lanes:
            known, under_way = self._aims.knows(lane.domain), looked_up[lane.tenant]
            first = under_way < min(LOOKUPS_FREELY, LOOKUPS_A_TENANT)
            if known:
                begins = len(begun) < LOOKUPS
            else:
                begins = first or (under_way < LOOKUPS_A_TENANT and len(self._placing) < LOOKUPS)
                looked_up[lane.tenant] += begins
            if begins:
                asked = 0 if known else under_way + 1 - LOOKUPS_FREELY
                pause = max(0, asked) * LOOKUP_PAUSE * len(looked_up)
                self._placing[lane] = asyncio.create_task(self._look_up(lane, pause), name=f"place {lane.domain}")
                begun.add(lane)
        return begun

    async def _look_up(self, lane: Lane, pause: float) -> None:
        try:
            if pause:
                await asyncio.sleep(pause)
            aim = await self._aims.aim(lane.domain)
            self._gate.meet(aim, self._turns.has)
            self._turns.ready(lane, aim.site)
        finally:
            del self._placing[lane]
