"""Whether a tenant's new mail is taken just now: a door only looks into a dict.

The gate looks at the spool once a second while mail comes in or somebody is refused, else now and then. Each process
that takes mail has a gate, and measures by itself; what it measures is the same for all of them.
"""

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from itertools import islice

import msgspec

from mta.accounts.reservations import reserved_shares
from mta.accounts.tenants import Tenant, settings_of
from mta.clock import Clock
from mta.queue.capacity import NOBODY, Court, Drain, Judgement, Refusal, Room, Standing
from mta.spool.interface import Backlog, Spool, SpoolError

log = logging.getLogger(__name__)

PAUSE = 1.0  # seconds between looks, at least
REST = 600.0  # seconds until the next while nobody asks
_IDLE = 200  # times what a look takes is the least pause: there may be many tenants
_KNOWN_FOR = 10.0  # seconds that a tenant's settings are known, and reservations
_LEARNED = 100  # tenants, of which the settings are read in one look
_AT_ONCE = 250  # tenants, between which others have their turn: some milliseconds
_OTHERS = "*"  # stands in the log for all who are not named
_PORTION_PAUSE = 0.05  # seconds between the portions of counting a spool
_AFTER_FAILURE = 60.0  # seconds: a spool that is half counted tells too little
COUNT_INTERVAL = 3600.0  # seconds between looks for a spool to be counted


class Turned(msgspec.Struct, frozen=True):
    """Why a tenant is turned away (mta.queue.capacity.Cause), and the whole seconds after which it is let in."""

    cause: str
    retry_after: int


class TenantStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What a gate knows of a tenant: its pace (None: not known), and why and since when it is refused."""

    messages_per_second: float
    tries_per_second: float | None
    refused: str = ""
    refused_since: float = 0.0
    retry_after: int = 0


class _Refused(msgspec.Struct):
    """A tenant that is turned away: since when, and how often by now."""

    since: float
    times: int = 0


class Gate:
    """Judges tenants now and then, and tells who is refused."""

    def __init__(self, spool: Spool, clock: Clock, *, headroom: int, longest_wait: float) -> None:
        """Keep `headroom` octets above the reserve; a backlog is to be tried within `longest_wait` seconds."""
        self._spool = spool
        self._clock = clock
        self._headroom = headroom
        self._longest = longest_wait
        self._judgement = NOBODY
        self._judged_at = 0.0
        self._pause = PAUSE
        self._others = 0.0  # seconds of a look that others had
        self._drains: dict[str, Drain] = {}
        self._settings: dict[str, tuple[float, Tenant]] = {}
        self._shares: dict[str, float] = {}
        self._shares_at: float | None = None
        self._refused: dict[str, _Refused] = {}
        self._asked = asyncio.Event()  # since the last look
        self._stop = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    def refusal(self, tenant: str) -> Turned | None:
        """Tell why new mail of a tenant is refused, None if it is not."""
        self._asked.set()
        judgement = self._judgement
        if not judgement.refused and judgement.others is None:
            return None
        found = judgement.of(tenant)
        if found is None:
            return None
        name = tenant if tenant in judgement.refused else _OTHERS
        self._refused[name].times += 1
        return Turned(found.cause.value, self._retry_after(found))

    def _retry_after(self, refusal: Refusal) -> int:
        """Round up to when somebody has looked again."""
        passed = self._clock.monotonic() - self._judged_at
        return max(1, math.ceil(refusal.seconds - passed + self._pause))

    def start(self) -> None:
        """Begin to look, once."""
        if self._running is None:
            self._running = asyncio.create_task(self._run(), name="gate")

    async def close(self) -> None:
        """Stop."""
        self._stop.set()
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait((self._running,))

    async def _run(self) -> None:
        while not self._stop.is_set():
            self._asked.clear()
            try:
                await self.look()
            except SpoolError as error:  # what is refused then, the spool says itself
                log.warning("gate=open error=%s", error)
                self._become(NOBODY)
            except Exception:  # a background loop's boundary: without it nobody would be refused, or let in, again
                log.exception("gate=open")
                self._become(NOBODY)
            await self._clock.wait(self._stop, self._pause)
            if not self._refused:
                await self._clock.wait(self._asked, REST)

    async def look(self) -> None:
        """Judge all tenants by what they have waiting now."""
        begun, self._others = self._clock.monotonic(), 0.0
        backlogs = await self._spool.backlogs()
        await self._learn(backlogs)
        tenants: dict[str, Standing] = {}
        async for names in self._portions({*backlogs, *self._shares}):
            tenants.update((name, self._standing(name, backlogs.get(name))) for name in names)
        space = self._spool.space()
        court = Court(tenants, Room(space.free - space.reserve, self._headroom), self._longest, self._judgement)
        refused: dict[str, Refusal] = {}
        async for names in self._portions(tenants):
            refused |= court.refused(names)
        self._judged_at = self._clock.monotonic()
        self._become(Judgement(refused, court.others, tenants.keys()))
        self._pause = max(PAUSE, _IDLE * (self._clock.monotonic() - begun - self._others))

    async def _learn(self, backlogs: Mapping[str, Backlog]) -> None:
        now = self._clock.monotonic()
        if self._shares_at is None or now - self._shares_at >= _KNOWN_FOR:
            self._shares_at = now
            self._shares = await reserved_shares(self._spool, self._clock.now())
        known, old = self._settings, list[str]()
        async for names in self._portions(backlogs):
            for name in names:
                drain = self._drains.get(name)
                if drain is None:
                    drain = self._drains[name] = Drain()
                drain.look(now, backlogs[name])
            old += [name for name in names if name not in known or now - known[name][0] >= _KNOWN_FOR]
        old.sort(key=lambda name: known[name][0] if name in known else -math.inf)
        for name in old[:_LEARNED]:
            known[name] = now, await settings_of(self._spool, name)

    async def _portions(self, names: Iterable[str]) -> AsyncIterator[Sequence[str]]:
        """Give the loop its turn between portions: ten thousand tenants would hold it for a tenth of a second."""
        waiting = iter(names)
        while portion := list(islice(waiting, _AT_ONCE)):
            yield portion
            if len(portion) == _AT_ONCE:
                left_at = self._clock.monotonic()
                await asyncio.sleep(0)
                self._others += self._clock.monotonic() - left_at

    def _standing(self, name: str, backlog: Backlog | None) -> Standing:
        if backlog is None:
            return Standing(share=self._shares[name])
        known = self._settings.get(name)
        if known is None:
            return Standing(backlog=backlog, pace=self._drains[name].pace, share=self._shares.get(name, 0.0))
        settings = known[1]
        return Standing(
            backlog=backlog,
            pace=self._drains[name].pace,
            weight=float(settings.weight),
            share=self._shares.get(name, 0.0),
            most_messages=settings.most_messages,
            most_octets=settings.most_octets,
        )

    def _become(self, judgement: Judgement) -> None:
        """Hold to a judgement from now on, and log who begins and who ceases to be refused."""
        now, self._judgement = self._clock.now(), judgement
        named = dict(judgement.refused)
        if judgement.others is not None:
            named[_OTHERS] = judgement.others
        for name in self._refused.keys() - named.keys():
            was = self._refused.pop(name)
            log.info("tenant=%s refused=ends seconds=%.0f times=%d", name, now - was.since, was.times)
        for name in named.keys() - self._refused.keys():
            self._refused[name] = _Refused(now)
            found = named[name]
            log.warning("tenant=%s refused=begins cause=%s retry_after=%.0f", name, found.cause.value, found.seconds)

    async def status(self) -> dict[str, TenantStatus]:
        """Tell what is known of the tenants that have sent mail."""
        found: dict[str, TenantStatus] = {}
        for name, drain in self._drains.items():
            pace, refusal = drain.pace, self._judgement.refused.get(name)
            found[name] = TenantStatus(
                messages_per_second=pace.messages,
                tries_per_second=pace.tries,
                refused=refusal.cause.value if refusal else "",
                refused_since=self._refused[name].since if refusal else 0.0,
                retry_after=self._retry_after(refusal) if refusal else 0,
            )
        return found


type_refusal = Callable[[str], Turned | None]


def admit_all(_: str) -> Turned | None:
    """Refuse nobody."""
    return None


async def keep_counted(spool: Spool, clock: Clock, stop: asyncio.Event) -> None:
    """Have a spool of an earlier version counted, beside all else, until stopped."""
    while not stop.is_set():
        try:
            pause = _PORTION_PAUSE if await spool.count_backlog() else COUNT_INTERVAL
        except SpoolError as error:
            log.warning("backlog=not-counted error=%s", error)
            pause = _AFTER_FAILURE
        await clock.wait(stop, pause)
