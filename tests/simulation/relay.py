"""A whole queue in simulated time: arrivals, scheduler, receivers, operators and crashes, drawn at random.

The queue, the scheduler and the dispatcher are the product's; the spool is in memory, receivers are drawn. What must
never happen is looked for where it would: at the receivers, at the spool and in the log of events (`Wrong`).
"""

import asyncio
import logging
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable
from random import Random
from typing import NamedTuple
from unittest.mock import patch
from uuid import UUID

import msgspec

from mta.accounts import tenants
from mta.config import Delivery, Retry
from mta.delivery.dispatcher import Dispatcher
from mta.mail import ids
from mta.mail.envelope import Envelope, Recipient
from mta.mail.event import ENDS, Event, EventType
from mta.mail.ids import new_message_id
from mta.mail.reply import Reply
from mta.mail.result import Outcome, Reach, Result, Scope, Verdict
from mta.queue.deadlines import Deadlines
from mta.queue.job import Job
from mta.queue.limits import SAID_FOR_ALL, Aim, Limits, Start
from mta.queue.queue import Queue
from mta.queue.retry import CONFIRM, SETTLED
from mta.queue.shaping import Shaping
from mta.queue.submission import Submission
from mta.queue.window import Begun
from mta.spool.interface import Due, Settlement
from mta.spool.records import Claim, Entry, MessageClass, Origin, State, Wish
from tests.simulation.memory import MemorySpool, Stored
from tests.simulation.virtual import Process, VirtualClock, resolve, simulate

COMMIT = 0.001  # seconds
LIFETIME = 6 * 3600.0
SLACK = 5.0  # seconds after its deadline within which an entry has ended
NO_POLL = 1e6  # nothing may depend on it
DOWN = 0.5  # seconds from a crash to the next process
JITTER = 0.1
_OVER = 120.0  # seconds after the last deadline when all has ended, attempts that take long included
_GENERATIONS = 3  # of messages: what is sent, the DSNs about it, and nothing more
OK = Result(Verdict.DELIVERED, Reply(250, "2.0.0", "ok"))
LATER = Result(Verdict.DEFERRED, Reply(451, "4.3.0", "later"), Scope.MESSAGE)
BUSY = Result(Verdict.DEFERRED, Reply(421, "4.3.2", "too many connections"), Scope.HOST)
AWAY = Result(Verdict.DEFERRED, Reply(421, "4.7.0", "try again later"), Scope.HOST)
SILENT = Result(Verdict.DEFERRED, Reply(451, "4.4.1", "connection failed"), Scope.HOST, remote=False)
NEVER = Result(Verdict.FAILED, Reply(550, "5.1.1", "nobody"))


class Wrong(AssertionError):
    """Something happened that must never happen."""


class Receivers:
    """Sites that take their time, defer and refuse as they were drawn, and see what comes to them.

    Some have fewer connections than are asked for, and answer 421 beyond; some are silent half of the time, or send
    away for a while.
    """

    def __init__(self, rng: Random, clock: VirtualClock, settings: Delivery, retry: Retry) -> None:
        self._rng = rng
        self._clock = clock
        self._settings = settings
        self._retry = retry
        count = rng.choice([1, 5, 40, 300])
        self.sites = {f"d{number}.test": f"s{rng.randrange(1 + number)}" for number in range(count)}
        self.domains = list(self.sites)
        names = sorted(set(self.sites.values()))
        self._seconds = {name: rng.choice([0.01, 0.05, 0.5, 5, 60]) for name in names}
        self._defers = {name: rng.choice([0, 0, 0.05, 0.5, 1]) for name in names}
        self._refuses = {name: rng.choice([0, 0, 0.05, 0.5]) for name in names}
        self._most = {name: rng.choice([1000, 1000, 1, 2, 5]) for name in names}
        self._silent = {name: rng.choice([0, 0, 0, 600, 3600]) for name in names}  # seconds, and as long not
        self._away = {name: rng.choice([0, 0, 0, 30, 900]) for name in names}  # seconds that some are sent away for
        self._away_from: dict[str, tuple[float, float]] = {}  # sites that sent away: since and until when
        self._begun: dict[str, set[Begun]] = defaultdict(set)  # by site, attempts under way
        self.limits: Limits  # of the process that runs
        self._at_work: Counter[str] = Counter()
        self._before_dot: dict[str, tuple[Job, asyncio.Future[bool]]] = {}  # the future: whether it was broken off
        self._deferred: Counter[str] = Counter()  # how often an entry was
        self.not_before: dict[str, float] = {}  # of entries that were deferred
        self.ended_at: dict[str, float] = {}  # the last attempts that came to their final dot
        self.said_ok: Counter[str] = Counter()  # of entries
        self.attempts = 0
        self.wrong: Wrong | None = None
        self.stored: Stored

    def begin_anew(self, limits: Limits) -> None:
        """Hear that another process begins, which may have forgotten what the one before it learned."""
        self.limits = limits
        self._away_from.clear()
        self._begun.clear()

    def knows(self, destination: str) -> bool:
        return False

    async def aim(self, destination: str) -> Aim:
        await asyncio.sleep(self._rng.choice([0, 0, 0.01, 1]))
        return Aim(self.sites[destination])

    async def attempt(self, job: Job, start: Start) -> Outcome:
        site = start.about.site
        self.attempts += 1
        self._at_work[site] += 1
        self.wrong = self.wrong or self._look(job, site) or self._look_at_limits(start)
        self._begun[site].add(start.begun)
        busy = self._at_work[site] > self._most[site]
        seconds = self._seconds[site] * self._rng.uniform(0.5, 1.5)
        dot = seconds * self._rng.random()
        loop = asyncio.get_running_loop()
        broken_off = loop.create_future()
        self._before_dot[job.entry.id] = job, broken_off
        come_to_dot = loop.call_later(dot, resolve, broken_off, False)
        try:
            if await broken_off:
                return Outcome(
                    results=(LATER,) * len(job.recipients), started_at=0, ended_at=0, site=site, counted=False
                )
            del self._before_dot[job.entry.id]
            try:
                await asyncio.sleep(seconds - dot)
            finally:  # by a crash, too
                self.ended_at[job.entry.id] = self._clock.now()
        finally:
            come_to_dot.cancel()
            self._before_dot.pop(job.entry.id, None)
            self._at_work[site] -= 1
            self._begun[site].discard(start.begun)
        now = self._clock.now()
        refused, retry_after = self._refusal(site, self._clock.monotonic(), busy=busy)
        results = tuple(refused or self._result(site) for _ in job.recipients)
        if LATER in results or refused:
            self._deferred[job.entry.id] += 1
            step = min(self._deferred[job.entry.id], len(self._retry.intervals)) - 1
            seconds = min(self._retry.intervals[step] * (1 - JITTER), retry_after or self._retry.intervals[step])
            self.not_before[job.entry.id] = now + seconds
        else:
            self.said_ok[job.entry.id] += 1
        reach = Reach.TRANSACTION if refused in (None, AWAY) else Reach.HOST
        return Outcome(
            results=results, started_at=now, ended_at=now, site=site, reach=reach, dialled=1, retry_after=retry_after
        )

    def _refusal(self, site: str, now: float, *, busy: bool) -> tuple[Result | None, float | None]:
        if self._silent[site] and now // self._silent[site] % 2:
            return SILENT, None
        if busy:
            return BUSY, None
        if self._away[site] and self._rng.random() < 0.1:
            began, until = self._away_from.get(site, (now, 0.0))
            self._away_from[site] = (
                (began if until > now else now),
                max(until, now + min(self._away[site], SAID_FOR_ALL)),
            )
            return AWAY, float(self._away[site])
        return None, None

    def _look_at_limits(self, start: Start) -> Wrong | None:
        """See to it that nothing is started at a site that is paused, or dead, but its probe."""
        site, began = start.about.site, start.begun.at
        since, until = self._away_from.get(site, (0.0, 0.0))
        if since < began < until - COMMIT:
            return Wrong(f"limits: {site} is asked {until - began:.0f} s too early")
        window = self.limits._pace(start.about).window
        if window.size == 0 and began > window._dead_at:
            besides = [each for each in self._begun[site] if each.at > window._dead_at]
            if besides or began < window.dead_until - COMMIT:
                return Wrong(f"limits: {site} is dead and asked by {1 + len(besides)}")
        return None

    def _look(self, job: Job, site: str) -> Wrong | None:
        entry, claim = job.entry, job.claim
        now = self._clock.now()
        if self._at_work[site] > self._settings.connections_per_site:
            return Wrong(f"limits: {self._at_work[site]} connections to {site}")
        if self._at_work.total() > self._settings.connections:
            return Wrong(f"limits: {self._at_work.total()} connections")
        stored = self.stored.claims.get(entry.id)
        if stored is None or (stored.epoch, stored.attempt) != (claim.epoch, claim.attempt):
            return Wrong(f"claims: {entry.id} is attempted without being claimed")
        early = max(entry.due_at, job.message.release_at, self.not_before.get(entry.id, 0.0)) - now
        if early > 0 or entry.held:
            return Wrong(f"early: {entry.id} is due in {early:.3f} s" + ", and held" * entry.held)
        if now > entry.expires_at + 2 * COMMIT:  # while it was claimed
            return Wrong(f"deadline: {entry.id} is attempted after it")
        if site != self.sites[entry.domain]:
            return Wrong(f"sites: {entry.domain} goes to {site}")
        return None

    def _result(self, site: str) -> Result:
        if self._rng.random() < self._defers[site]:
            return LATER
        return NEVER if self._rng.random() < self._refuses[site] else OK

    def break_off(self, overdue: Callable[[Job], bool]) -> int:
        """End those attempts before their final dot that are overdue."""
        late = [broken_off for job, broken_off in self._before_dot.values() if overdue(job)]
        for broken_off in late:
            resolve(broken_off, True)
        return len(late)

    def settled(self, job: Job) -> None:
        pass


class Watched(MemorySpool):
    """A spool that sees to it that each claim is settled once, by whom it belongs to."""

    def __init__(self, stored: Stored, clock: VirtualClock) -> None:
        super().__init__(stored, clock.now, COMMIT)
        self.open: dict[str, Claim] = {}
        self.wrong: Wrong | None = None

    async def claim(self, entry: Entry, claim: Claim) -> bool:
        if self._stored.claim(entry, claim):
            if entry.id in self.open:
                self.wrong = Wrong(f"claims: {entry.id} is claimed twice")
            self.open[entry.id] = claim
            await self._committed()
            return True
        await self._committed()
        return False

    async def settle(self, settlement: Settlement) -> bool:
        entry_id, claim = settlement.entry.id, msgspec.structs.replace(settlement.claim, wish=None)
        done = self._stored.settle(settlement)
        if done and self.open.pop(entry_id, None) != claim:
            self.wrong = Wrong(f"claims: {entry_id} is settled by whom it does not belong to")
        await self._committed()
        return done


class World:
    """A relay, from its first message until all have ended."""

    def __init__(self, seed: int, messages: int) -> None:
        rng = self._rng = Random(seed)
        self._messages = messages
        self._clock = VirtualClock()
        self._settings = Delivery(connections=rng.choice([1, 3, 20, 100]), connections_per_site=rng.choice([1, 2, 20]))
        self._retry = Retry(lifetime=LIFETIME, delay_notice=rng.choice([600.0, LIFETIME]), jitter=JITTER)
        self.receivers = Receivers(rng, self._clock, self._settings, self._retry)
        self._stored = self.receivers.stored = Stored(self._hear)
        self._spool = Watched(self._stored, self._clock)
        self._queue = Queue(self._spool, self._clock, "relay.test", self._retry, self._ring, rng.random)
        self._tenants = [f"t{number}" for number in range(rng.choice([1, 2, 10, 50]))]
        self._crashes = rng.choice([0, 0, 1, 5])
        self._waiting: dict[tuple[str, str], float] = {}  # recipients that have not ended, and their deadlines
        self._in_flight_at_crash: set[str] = set()
        self._down: list[tuple[float, float]] = []  # from a crash until there was another process
        self._dispatcher: Dispatcher | None = None
        self._wrong: Wrong | None = None

    async def live(self) -> None:
        """Live through it; raises what went wrong."""
        for each in self._tenants:
            await tenants.create(self._spool, each, 0.0, weight=self._rng.choice([1, 1, 3, 10]))
        arriving = asyncio.create_task(self._arrive())
        operating = asyncio.create_task(self._operate(arriving))
        process = self._start()
        for _ in range(self._crashes):
            await asyncio.sleep(self._rng.expovariate(1 / 300))
            await self._crash(process)
            process = self._start()
        await asyncio.gather(arriving, operating)
        for _ in range(_GENERATIONS):
            await asyncio.sleep(max([*self._waiting.values(), 0.0]) - self._clock.now() + _OVER)
        await process.kill()
        self._look_at_the_end()

    def draw_id(self) -> UUID:
        """Draw the octets of a message id."""
        return UUID(bytes=int(self._clock.now() * 1000).to_bytes(6, "big") + self._rng.randbytes(10))

    def _start(self) -> Process:
        """Start the delivery process."""
        queue = Queue(self._spool, self._clock, "relay.test", self._retry, self._ring, self._rng.random)
        limits = Limits(Shaping(), self._settings.connections_per_site)
        self.receivers.begin_anew(limits)
        self._dispatcher = Dispatcher(
            self._spool, queue, self.receivers, limits, self._settings, self._clock, poll=NO_POLL
        )
        self._deadlines = Deadlines(self._spool, queue, self.receivers.break_off, self._clock, poll=NO_POLL)
        return Process(self._dispatcher.run(), self._deadlines.run())

    def _ring(self) -> None:
        if self._dispatcher is not None:
            self._dispatcher.ring()
            self._deadlines.ring()

    async def _crash(self, process: Process) -> None:
        """End the delivery process at once, and come back."""
        for entry_id in self._spool.open:  # what was said of these is not on record
            self._in_flight_at_crash.add(entry_id)
            self.receivers.not_before.pop(entry_id, None)
        self._dispatcher = None
        await process.kill()
        crashed_at = self._clock.now()
        await asyncio.sleep(DOWN)
        self._down.append((crashed_at, self._clock.now()))

    async def _arrive(self) -> None:
        rng = self._rng
        for number in range(self._messages):
            await asyncio.sleep(rng.choice([0, 0, 0, rng.expovariate(1 / 4)]))
            count = 60 if rng.random() < 0.01 else rng.choice([1, 1, 1, 2, 3])
            domains = rng.sample(self.receivers.domains, min(len(self.receivers.domains), rng.choice([1, 1, 3])))
            recipients = [Recipient(f"u{each}@{rng.choice(domains)}") for each in range(count)]
            submission = Submission(
                id=new_message_id(),
                tenant=rng.choice(self._tenants),
                envelope=Envelope(
                    sender=rng.choice(["", f"a{number}@{domains[0]}"]),
                    recipients=tuple(recipients),
                    release_at=rng.choice([0.0, 0.0, self._clock.now() + rng.uniform(0, 7200)]),
                    deliver_by=rng.choice([0.0, 0.0, self._clock.now() + rng.uniform(10, 2 * LIFETIME)]),
                    by_mode="R",
                ),
                origin=Origin.RELAY,
                content=b"Subject: s\r\n\r\nbody\r\n",
                message_class=rng.choice(list(MessageClass)),
            )
            await self._queue.accept(submission)

    async def _operate(self, arriving: asyncio.Task[None]) -> None:
        """Change what waits, now and then, as long as mail arrives."""
        while not arriving.done():
            await asyncio.sleep(self._rng.expovariate(1 / 20))
            for entry_id in self._rng.sample(sorted(self._stored.entries), min(5, len(self._stored.entries))):
                if entry_id in self._stored.entries:  # still, after what was done before it
                    await self._change(entry_id)

    async def _change(self, entry_id: str) -> None:
        entry, claim = self._stored.entries[entry_id], self._stored.claims.get(entry_id)
        due = Due(entry, self._stored.messages[entry.message])
        wishes = [
            Wish(held=True),
            Wish(held=False),
            Wish(end=State.CANCELLED),
            Wish(end=State.DROPPED),
            Wish(message_class=self._rng.choice(list(MessageClass))),
            None,
        ]
        wish = self._rng.choice(wishes)
        if wish is not None:
            await self._queue.wish(due, claim, wish)
        elif claim is None:
            self.receivers.not_before.pop(entry_id, None)
            await self._queue.retry(due, claim, "now")

    def _hear(self, event: Event) -> None:
        if event.type is EventType.ACCEPTED:
            deadline = max(event.at, event.release_at) + LIFETIME
            deadline = min(deadline, event.deliver_by or deadline)
            self._waiting |= {(event.message, each): deadline for each in event.recipients}
        elif event.type in ENDS:
            deadline = self._waiting.pop((event.message, event.recipient), None)
            if deadline is None:
                self._wrong = Wrong(f"ends: {event.recipient} of {event.message} ends twice")
            elif event.at > self._to_end_by(max(deadline, self.receivers.ended_at.get(event.entry, 0.0))) + SLACK:
                self._wrong = Wrong(f"deadline: {event.entry} ends {event.at - deadline:.0f} s after it")

    def _to_end_by(self, deadline: float) -> float:
        """Tell when a recipient has to have ended; later if the deadline was over when delivery began (WallJumps).

        Each process that begins meanwhile has to see for itself. `deadline`, or the end of an attempt past its dot.
        """
        end = deadline
        for crashed_at, began_at in self._down:
            if crashed_at - SLACK < deadline <= began_at or deadline < began_at <= end:
                end = began_at + SETTLED + CONFIRM
        return end

    def _look_at_the_end(self) -> None:
        for wrong in (self._wrong, self._spool.wrong, self.receivers.wrong):
            if wrong is not None:
                raise wrong
        stored = self._stored
        if self._waiting or stored.entries or stored.claims or stored.messages or stored.contents or stored.timers:
            raise Wrong(f"lost: {len(self._waiting)} recipients, {len(stored.entries)} entries have not ended")
        if self._spool.open:
            raise Wrong(f"claims: {len(self._spool.open)} were never settled")
        again = [each for each, count in self.receivers.said_ok.items() if count > 1]
        if unexplained := set(again) - self._in_flight_at_crash:
            raise Wrong(f"twice: {len(unexplained)} entries were delivered again, and nothing had crashed")


class Lived(NamedTuple):
    """How a world went. `wrong` is "" if nothing happened in it that must never happen."""

    seed: int
    attempts: int
    hours: float
    wrong: str


def live(seed: int, messages: int) -> Lived:
    """Live through one world. It is the same each time, given the same seed of Python's hashes."""
    logging.disable(logging.WARNING)

    async def lived() -> Lived:
        world = World(seed, messages)
        wrong = ""
        with patch.object(ids, "uuid7", world.draw_id):
            try:
                await world.live()
            except Wrong as error:
                wrong = str(error)
        return Lived(seed, world.receivers.attempts, asyncio.get_running_loop().time() / 3600, wrong)

    try:
        return simulate(lived())
    except Exception:  # of the loop, or of who waits for nobody
        return Lived(seed, 0, 0.0, traceback.format_exc())
