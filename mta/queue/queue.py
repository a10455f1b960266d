"""The one door in and the one place out: accept, claim, settle.

Every change of a message's state goes through here and is one transaction with the events that tell it
and the DSNs that report it. What becomes of an entry is decided in transitions.py, when in retry.py.
"""

import asyncio
import logging
import random as _random
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import TypeVar

import msgspec

from mta.accounts.known import KnownTenants
from mta.clock import Clock
from mta.config import Retry
from mta.mail.event import Event, EventType
from mta.mail.event_line import outcome_line
from mta.mail.result import Outcome
from mta.queue import batches, transitions
from mta.queue.acceptance import Lifetimes, acceptance
from mta.queue.answer import Answer
from mta.queue.gate import admit_all, type_refusal
from mta.queue.job import Job
from mta.queue.reports import report
from mta.queue.retry import CONFIRM, WallJumps, retry_interval
from mta.queue.submission import Receipt, Submission
from mta.queue.transitions import Transition
from mta.spool.interface import (
    Acceptance,
    Change,
    Due,
    Kept,
    Settlement,
    Spool,
    SpoolError,
    Taken,
    Terms,
    Throttled,
)
from mta.spool.records import Claim, Entry, Message, Origin, Timer, Wish

log = logging.getLogger(__name__)

TIMERS_A_RUN = 1024  # whoever runs them looks after other deadlines between two runs
TIMERS_AT_ONCE = 256  # under way; each may have a DSN to write
_TIMERS_A_LOOK = 64  # read together
_TIMERS_A_TURN = 16  # of the event loop, which then has others to see to
_OURS = frozenset({Origin.DSN, Origin.TLS_REPORT})
_Done = TypeVar("_Done")
_TRIES = 5  # to change an entry that others change meanwhile


class Queue:
    """The queue of one installation, as seen by one process; all of them share the spool."""

    def __init__(
        self,
        spool: Spool,
        clock: Clock,
        hostname: str,
        retry: Retry,
        ring: Callable[[], None],
        random: Callable[[], float] = _random.random,
        refusal: type_refusal = admit_all,
    ) -> None:
        """Use `ring` to tell the delivery role that there is work; a lost ring costs a second at most.

        `refusal` tells why new mail of a tenant is refused just now.
        """
        self.refusal = refusal
        self._spool = spool
        self._clock = clock
        self._hostname = hostname
        self._retry = retry
        self._ring = ring
        self._random = random
        self._lifetimes = Lifetimes(expiry=retry.lifetime, delay_notice=retry.delay_notice)
        self._jumps = WallJumps(started_at=clock.now(), wall=clock.now(), monotonic=clock.monotonic())
        self._epoch = 0
        self._tenants = KnownTenants(spool, clock)

    async def accept(self, *submissions: Submission) -> list[Receipt]:
        """Take responsibility for all of the submissions or none: durable on return.

        SpoolError tells why not: Full, Unavailable, Refused (nothing stored) or Uncertain.
        """
        now = self._clock.now()
        position = await self._spool.accept([acceptance(each, now, self._lifetimes) for each in submissions])
        self._ring()
        return [Receipt(each.id, position) for each in submissions]

    async def accept_on(self, submissions: Sequence[Submission], terms: Terms) -> Taken | Kept | Throttled:
        """Take responsibility for all of the submissions, if the terms allow it, or none: durable on return.

        SpoolError as `accept` has it.
        """
        acceptances = [acceptance(each, terms.now, self._lifetimes) for each in submissions]
        result = await self._spool.accept_on(acceptances, terms)
        if isinstance(result, Taken):
            self._ring()
        return result

    async def accept_each(
        self, submissions: Sequence[Submission], terms: Sequence[Terms | None] = ()
    ) -> list[Receipt | Kept | Throttled | SpoolError]:
        """Take responsibility for those that can be stored, whatever becomes of the others: durable on return.

        Each may have terms of its own. The results are in the order of the submissions: a receipt, or why not.
        """
        now = self._clock.now()
        acceptances = [acceptance(each, now, self._lifetimes) for each in submissions]
        results = await self._spool.accept_each(acceptances, terms)
        self._ring()
        return [
            Receipt(each.id, result) if isinstance(result, int) else result
            for each, result in zip(submissions, results, strict=True)
        ]

    # For the delivery role, of which there is one.

    async def take_over(self, ours: Collection[str] = ()) -> int:
        """Become the owner of deliveries: give back what nobody works on any more; return how many.

        An attempt of a process that died counts as made, and is due when it said it would be. `ours` are the
        entries that this process has in hand, for when it takes over from itself.
        """
        self._epoch = await self._spool.next_epoch()
        left = [each for each in await self._spool.claims() if each[0].entry.id not in ours]
        return (await _together([self._give_back(due, claim) for due, claim in left])).count(True)

    async def _give_back(self, due: Due, claim: Claim) -> bool:
        steps = due.entry.steps + 1
        after = msgspec.structs.replace(due.entry, attempts=claim.attempt, steps=steps, due_at=claim.retry_at)
        return await self._settle(due.message, claim, Transition(after=after), self._clock.now())

    async def claim(self, due: Due) -> Job | None:
        """Put an attempt on record before anything is dialled; None if the entry changed meanwhile, or is overdue.

        None, too, if its batch is paused or cancelled: then it is held by now, or has ended.
        """
        entry = due.entry
        if self._clock.now() >= entry.expires_at and await self._too_late(due):
            return None
        if due.message.batch and await self._kept_back(due):
            return None
        retry_at = self._clock.now() + retry_interval(
            self._retry, entry.steps + 1, self._random, own=due.message.retry_intervals
        )
        claim = Claim(epoch=self._epoch, attempt=entry.attempts + 1, retry_at=retry_at)
        if not await self._spool.claim(entry, claim):
            return None
        if self._clock.now() >= entry.expires_at:
            self._ring()  # its deadline came while it was being claimed, when there was no attempt to break off yet
        return Job(entry, due.message, claim)

    async def _too_late(self, due: Due) -> bool:
        """Expire an entry whose turn comes when its time is over; what may not be attempted any more, is not."""
        self._observe()
        message, entry = due.message, due.entry
        if not self.overdue(message, entry) and not (
            message.firm and self._jumps.over(message.accepted_at, entry.expires_at)
        ):
            return False
        await self._run_timer(due, self._clock.now())
        return True

    async def _kept_back(self, due: Due) -> bool:
        """Do what is said of the batch of an entry whose turn has come."""
        message = due.message
        wish = await batches.wish_of(self._spool, message.tenant, message.batch)
        if wish is None:
            return False
        await self.wish(due, None, wish)
        if wish.held and await batches.wish_of(self._spool, message.tenant, message.batch) != wish:
            # whoever said so meanwhile may have looked for what is held before it was
            found = await self._find(due.entry.id)
            if found is not None:
                await self.wish(Due(found[0], message), found[1], batches.LET_GO)
        return True

    async def settle(self, job: Job, outcome: Outcome, wish: Wish | None = None) -> bool:
        """Store what an attempt came to, and do what is wished with those who still wait.

        False if the claim was no longer ours, and nothing changed.
        """
        now = self._clock.now()
        transition = transitions.attempted(job, outcome, now, self._retry, self._random)
        if wish is not None:
            transition = transitions.fulfilled(job.message, transition, wish, now)
        if await self._settle(job.message, job.claim, transition, now):
            return True
        log.warning("entry=%s attempt=%d settled=no reason=stale-claim", job.entry.id, job.claim.attempt)
        return False

    async def _settle(self, message: Message, claim: Claim, transition: Transition, now: float) -> bool:
        """Store what becomes of a claimed entry, and do what was wished of it meanwhile, in the same transaction.

        A wish costs nothing where there is none: it changes the claim's row, which is compared anyway.
        """
        entry_id = transition.after.id
        owned: Claim | None = claim
        while owned is not None:
            wish = owned.wish
            step = transition if wish is None else transitions.fulfilled(message, transition, wish, now)
            step, dsns = await self._reports(message, step, now)
            settlement = Settlement(
                message=message,
                entry=step.after,
                claim=owned,
                events=step.events,
                acceptances=dsns,
                keep_until=await self._kept_until(message, step.after, now),
            )
            if await self._spool.settle(settlement):
                self._tell(step.events, dsns)
                if step.after.waiting and step.after.timer_at <= self._clock.now():
                    self._ring()  # its timer came while it was in flight
                return True
            owned = await self._as_it_is(entry_id, owned)
        return False

    async def _as_it_is(self, entry_id: str, claim: Claim) -> Claim | None:
        """Read a claim again, with the wish that was left since; None if it is another's.

        The wish may be the one that was there before: of several words between two reads the last may be the first.
        """
        found = await self._find(entry_id)
        stored = None if found is None else found[1]
        if stored is None or (stored.epoch, stored.attempt) != (claim.epoch, claim.attempt):
            return None
        return stored

    async def _find(self, entry_id: str) -> tuple[Entry, Claim | None] | None:
        for entry, claim in await self._spool.entries(entry_id.partition(".")[0]):
            if entry.id == entry_id:
                return entry, claim
        return None

    async def run_timers(self) -> int:
        """Do what is due by the entries' own timers: delay notices and expiry. Return how many were done.

        The next are read, and their reports written, while those before are stored. Tenants have their turns: no mass
        of deadlines keeps another's waiting for longer than those take that are under way.
        """
        begun, turns = set[str](), list[asyncio.Task[int]]()
        failure: SpoolError | None = None
        try:
            while len(begun) < TIMERS_A_RUN:
                now = self._observe()
                due = await self._spool.timers(now, _TIMERS_A_LOOK, begun)
                begun.update([each.entry.id for each in due])
                if not due or not await self._begin(due, now, turns):
                    break
        except SpoolError as error:
            failure = error
        except asyncio.CancelledError:
            for each in turns:
                each.cancel()
            raise
        done = sum(await _together(turns))
        if failure is not None:
            raise failure
        return done

    async def _begin(self, due: Sequence[Due], now: float, turns: "list[asyncio.Task[int]]") -> bool:
        """Begin with timers, `TIMERS_AT_ONCE` being under way at most; False if those before could not be stored."""
        for first in range(0, len(due), _TIMERS_A_TURN):
            turns.append(asyncio.create_task(self._run_several(due[first : first + _TIMERS_A_TURN], now)))
            before = len(turns) - TIMERS_AT_ONCE // _TIMERS_A_TURN
            if before < 0:
                await asyncio.sleep(0)
                continue
            await asyncio.wait([turns[before]])
            if turns[before].exception() is not None:
                return False
        return True

    async def _run_several(self, due: Sequence[Due], now: float) -> int:
        return (await _together([self._run_timer(each, now) for each in due])).count(True)

    async def _run_timer(self, due: Due, now: float) -> bool:
        entry, message = due.entry, due.message
        if self.overdue(message, entry):
            transition = transitions.expired(message, entry, now)
        elif entry.timer is Timer.DELAY_NOTICE:
            transition = transitions.delay_noticed(entry)
        else:
            over = self._jumps.over(message.accepted_at, entry.expires_at)
            unsure = self._jumps.unsettled if over and (message.firm or entry.held) else 0.0
            look_again_at = max(now + CONFIRM, now + unsure, entry.expires_at + self._jumps.since(message.accepted_at))
            after = msgspec.structs.replace(entry, timer_at=look_again_at)
            if message.firm and over:  # no attempt until it is known
                after = msgspec.structs.replace(after, due_at=max(after.due_at, look_again_at))
            transition = Transition(after=after)
        return await self._change(due, transition, now)

    def overdue(self, message: Message, entry: Entry) -> bool:
        """Tell whether an entry's time is over, by the wall clock and by evidence (WallJumps).

        One whose sender set the deadline gets no attempt that could be evidence, as if it were held.
        """
        return self._jumps.expired(
            accepted_at=message.accepted_at,
            expires_at=entry.expires_at,
            last_attempt_at=entry.last_attempt_at,
            held=message.firm or entry.held,
        )

    def _observe(self) -> float:
        """Look at both clocks, and return the wall's."""
        now = self._clock.now()
        jumped = self._jumps.observe(now, self._clock.monotonic())
        if jumped:
            log.warning("clock=jumped seconds=%.0f deadlines=moved-with-it", jumped)
        return now

    # For operators, from any process.

    async def wish(self, due: Due, claim: Claim | None, wish: Wish) -> Answer:
        """Do what is wished of an entry: at once if nobody has claimed it, else when its attempt is over.

        `due` and `claim` are what the caller read; what has changed since is read again. Durable on return.
        """
        for _ in range(_TRIES):
            now = self._clock.now()
            if claim is None:
                transition = transitions.wished(due.message, due.entry, wish, now)
                if not transition.events:
                    return Answer.UNCHANGED
                if await self._change(due, transition, now):
                    self._ring()
                    return Answer.DONE
            elif await self._spool.wish(due.entry.id, claim, transitions.wish_after(claim.wish, wish)):
                log.info("entry=%s attempt=%d wish=kept reason=in-flight", due.entry.id, claim.attempt)
                return Answer.IN_FLIGHT
            found = await self._find(due.entry.id)
            if found is None:
                return Answer.ENDED
            due, claim = Due(found[0], due.message), found[1]
        return Answer.BUSY

    async def retry(self, due: Due, claim: Claim | None, reason: str) -> Answer:
        """Make an entry due now; one in flight is being tried, and left alone.

        A held one stays held, and one that is not released yet waits for that: its sender said so. What is due already
        keeps its place.
        """
        if claim is not None:
            return Answer.IN_FLIGHT
        now = self._clock.now()
        if is_scheduled(due.entry, now) or due.entry.due_at <= now:
            return Answer.UNCHANGED
        if not await self._change(due, transitions.due_now(due.message, due.entry, now, reason), now):
            return Answer.BUSY
        self._ring()
        return Answer.DONE

    async def reschedule(self, due: Due, claim: Claim | None, at: float, reason: str) -> Answer:
        """Release an entry at another time, if it has not been released yet."""
        if claim is not None:
            return Answer.IN_FLIGHT
        now = self._clock.now()
        if not is_scheduled(due.entry, now):
            return Answer.UNCHANGED
        if not await self._change(due, transitions.rescheduled(due.message, due.entry, at, reason, now), now):
            return Answer.BUSY
        self._ring()
        return Answer.DONE

    async def _change(self, due: Due, transition: Transition, now: float) -> bool:
        transition, dsns = await self._reports(due.message, transition, now)
        changed = await self._spool.change(
            Change(
                message=due.message,
                before=due.entry,
                after=transition.after,
                events=transition.events,
                acceptances=dsns,
                keep_until=await self._kept_until(due.message, transition.after, now),
            )
        )
        if changed:
            self._tell(transition.events, dsns)
        return changed

    async def _kept_until(self, message: Message, after: Entry, now: float) -> float:
        """Tell until when a message stays that may end now: 0 if its tenant wants none kept, or it is our own."""
        if after.waiting or message.origin in _OURS:
            return 0.0
        seconds = (await self._tenants.of(message.tenant)).keep_content
        return now + seconds if seconds else 0.0

    async def _reports(
        self, message: Message, transition: Transition, now: float
    ) -> tuple[Transition, tuple[Acceptance, ...]]:
        """Add the DSNs that the transition asks for; never one to a null sender (RFC 3461 6.1)."""
        if not message.sender:
            return transition, ()
        acceptances: list[Acceptance] = []
        for kind, recipients in transition.reports.items():
            dsn = await report(self._spool, message, transition.after, kind, recipients, self._hostname, now)
            acceptances.append(acceptance(dsn, now, self._lifetimes))
            transition = transitions.told(message, transition, recipients, dsn.id, now)
        return transition, tuple(acceptances)

    def _tell(self, events: Sequence[Event], dsns: Sequence[Acceptance]) -> None:
        for event in events:
            if event.type is EventType.DSN_SENT:
                log.info("message=%s to=%a status=dsn_sent dsn_message=%s", event.message, event.recipient, event.dsn)
            else:
                log.info("%s", outcome_line(event))
        if dsns:
            self._ring()


def is_scheduled(entry: Entry, now: float) -> bool:
    """Tell whether an entry waits for its release: its message's time may have been another."""
    return not entry.attempts and entry.due_at > now


async def _together(changes: Sequence[Awaitable[_Done]]) -> list[_Done]:
    """Make changes that have nothing to do with each other, in few commits; raise what went wrong when all are done.

    PERF: one after the other, 200 claims of a process that was killed were 200 commits, 0.6 to 1.6 s before the first
    delivery on a busy disk; together 0.1 to 0.4 s (alternating runs).
    """
    done: list[_Done] = []
    for each in await asyncio.gather(*changes, return_exceptions=True):
        if isinstance(each, BaseException):
            raise each
        done.append(each)
    return done
