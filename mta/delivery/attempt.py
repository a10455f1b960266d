"""One attempt: plan (route, MX, policy), connection, signature, one transaction, a verdict for each recipient.

Never raises: what happens to a message is an `Outcome`. Until the final dot an attempt can be broken off
without a trace; after it the reply decides, and only its absence makes a duplicate possible (promise 2).
"""

import asyncio
import logging
import math
from collections.abc import Callable, Collection
from random import Random
from typing import Protocol

from mta.clock import Clock
from mta.config import Config
from mta.delivery import letter, mx, trouble
from mta.delivery.letter import Letter
from mta.delivery.plans import Plans
from mta.delivery.pool import Pool
from mta.delivery.protection import NextHops, Protection
from mta.delivery.route import Site, Target
from mta.delivery.signatory import SigningError
from mta.delivery.signing import Signed
from mta.delivery.smtp import Connection
from mta.delivery.source import NEVER, Leaving, Source, Wait, want_of
from mta.delivery.sources import Choice, Sources
from mta.delivery.trouble import Exchange, Fault, NoWay, Stage, Trouble
from mta.delivery.underway import Underway
from mta.mail.result import Outcome, Reach, Result, Verdict
from mta.queue.job import Job
from mta.queue.limits import About, Aim, Limits, Start
from mta.spool.interface import SpoolError
from mta.spool.records import Message

log = logging.getLogger(__name__)

IN_PLACE = 1 << 20  # octets of content that are made a letter on the event loop; more, on a thread
LARGE = 4 << 20  # octets of content from which on few messages are under way at once
LARGE_AT_ONCE = 8
ROOM_WAIT = 10.0  # seconds, at least, after which it is tried again, where the source or site has no room
SOURCE_WAIT = 3600.0  # seconds after which it is looked again for a source, where none may be used for longer
JUDGED_FOR = 300.0  # seconds after which a connection is not kept: TLSA records may have come, a certificate expired
AFTER_DOT = 30.0  # seconds that a drain waits for the reply to a final dot


class Signer(Protocol):
    """Makes DKIM signatures; mta.delivery.signing."""

    async def sign(self, message: Message, content: bytes) -> Signed:
        """Return signature fields for `content`, complete with CRLF; SigningError if there should be and are none."""


class Contents(Protocol):
    """Reads content; the spool."""

    async def content(self, message: Message) -> bytes:
        """Read a message's content."""


class Attempter:
    """Makes attempts, as many at a time as are asked for, and keeps connections between them."""

    def __init__(
        self,
        config: Config,
        plans: Plans,
        protection: Protection,
        signer: Signer,
        content: Contents,
        sources: Sources,
        clock: Clock,
        limits: Limits,
        *,
        rng: Random | None = None,
    ) -> None:
        self._settings = config.delivery
        self._plans = plans
        self._protection = protection
        self._signer = signer
        self._content = content
        self._sources = sources
        self._clock = clock
        self._rng = rng or Random()
        self._limits = limits
        self._pool = Pool(config.delivery)
        self._held: dict[str, list[tuple[Site, Connection]]] = {}  # by entry, until its outcome is committed
        self._attempts: set[Underway] = set()
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._draining = False
        self._turns = asyncio.Semaphore(LARGE_AT_ONCE)

    async def attempt(self, job: Job, start: Start | None = None) -> Outcome:
        """Make one attempt for a claimed entry. Never raises, but for CancelledError.

        `start` is how limits let it start. Where its site is not what the DNS says now, nobody is dialled, and it is
        not counted. A DNS can say something else each time: the next attempt goes where it says then, if limits let it
        start there. Its source is the one that is used.
        """
        attempt = Underway(job, start, self._clock.now())
        self._attempts.add(attempt)
        self._quiet.clear()
        results: tuple[Result, ...] = ()
        try:
            results = await (self._results(attempt) if job.message.size <= LARGE else self._large_results(attempt))
        except asyncio.CancelledError:
            if attempt.broken_off is None or (attempt.task is not None and attempt.task.uncancel() > 0):
                raise
            results = self._broken_off(attempt, attempt.broken_off)
        except Trouble as met:
            results = attempt.everyone(trouble.of_trouble(met))
        except Exception:  # the boundary of one attempt: a defect met by one message must not stop the others
            log.exception("message=%s entry=%s attempt=failed", job.message.id, job.entry.id)
            results = attempt.everyone(trouble.of_trouble(None))
        finally:
            self._attempts.discard(attempt)
            if attempt.choice is not None:
                self._sources.ended(attempt.choice, attempt.delivered(results))
            if not self._attempts:
                self._quiet.set()
        return attempt.outcome(results, self._clock.now())

    async def aim(self, destination: str) -> Aim:
        """Find the site of a lane's domain or relay; where there is none it is the domain's own name. Never raises."""
        plan = await self._plans.plan(destination)
        return Aim(destination) if isinstance(plan, NoWay) else _aim(plan.site)

    def knows(self, destination: str) -> bool:
        """Tell whether the site of a destination can be told without asking the DNS."""
        return self._plans.knows(destination)

    def settled(self, job: Job) -> None:
        """Let others have the connections of an attempt, now that its outcome is committed."""
        for site, connection in self._held.pop(job.entry.id, ()):
            self._pool.give(site, connection, self._deliveries(site, connection))

    def _deliveries(self, site: Site, connection: Connection) -> int:
        """Return after how many deliveries a connection has done its share."""
        if connection.single or self._clock.monotonic() >= connection.judged_at + JUDGED_FOR:
            return 0
        aim = _aim(site)
        about = About(connection.source_name, aim.site, "", aim.hosts)
        return self._limits.deliveries_per_connection(about, self._settings.deliveries_per_connection)

    def begun_at(self, entry_ids: Collection[str]) -> dict[str, float]:
        """Tell when the attempts for entries that are under way began."""
        return {each.job.entry.id: each.started_at for each in self._attempts if each.job.entry.id in entry_ids}

    def recall(self, entry_ids: Collection[str]) -> int:
        """Break off the attempts for entries that have not sent their final dot; return how many.

        Their recipients are deferred, and it is not counted.
        """
        recalled = [each for each in self._attempts if each.job.entry.id in entry_ids and not each.past_dot]
        for attempt in recalled:
            attempt.break_off(Fault.RECALLED)
        return len(recalled)

    def break_off(self, overdue: Callable[[Job], bool]) -> int:
        """Break off the attempts whose time is over and that have not sent their final dot, as `recall` does."""
        late = [each for each in self._attempts if not each.past_dot and overdue(each.job)]
        for attempt in late:
            attempt.break_off(Fault.OUT_OF_TIME)
        return len(late)

    async def drain(self, seconds: float, after_dot: float = AFTER_DOT) -> None:
        """Bring the attempts under way to an end and begin no more.

        They have `seconds` to finish; then those before their final dot are broken off (deferred, not
        counted), and those past it have `after_dot` seconds for the reply.
        """
        self._draining = True
        await self._clock.wait(self._quiet, seconds)
        for attempt in [each for each in self._attempts if not each.past_dot]:
            attempt.break_off(Fault.BROKEN_OFF)
        await self._clock.wait(self._quiet, after_dot)
        for attempt in self._attempts:
            attempt.break_off(Fault.BROKEN_OFF)
        await self._quiet.wait()

    async def close(self) -> None:
        """Take leave of all peers. Attempts must have ended."""
        for site, connection in [each for held in self._held.values() for each in held]:
            self._pool.give(site, connection, self._deliveries(site, connection))
        await self._pool.close()

    async def _large_results(self, attempt: Underway) -> tuple[Result, ...]:
        """Take turns: a large message is in memory several times while it is signed and sent."""
        async with self._turns:
            return await self._results(attempt)

    async def _results(self, attempt: Underway) -> tuple[Result, ...]:
        if self._draining:
            return self._broken_off(attempt, Fault.BROKEN_OFF)
        plan = await self._plans.plan(attempt.job.entry.destination)
        if isinstance(plan, NoWay):
            return self._nowhere(attempt, plan)
        site = plan.site
        attempt.site = site.name
        start = attempt.start
        if start is not None and start.about.site != site.name and not self._goes(attempt, start, site):
            attempt.counted = False
            return attempt.everyone(trouble.of_trouble(Trouble(Stage.CONNECT, Fault.MOVED)))
        try:
            needs = await self._protection.needs_of(attempt.job.message)
            return await self._from_any(attempt, NextHops(self._protection, plan, needs))
        except SpoolError as error:
            log.error(
                "message=%s entry=%s attempt=deferred error=%s", attempt.job.message.id, attempt.job.entry.id, error
            )
            raise Trouble(Stage.CONNECT, Fault.OURS) from error

    def _goes(self, attempt: Underway, start: Start, site: Site) -> bool:
        """Have an attempt that was started for another site go to this one, if it is its second and limits let it."""
        if attempt.job.entry.last_reply != str(trouble.MOVED_REPLY):
            return False
        aim, now = _aim(site), self._clock.monotonic()
        about = start.about._replace(site=aim.site, hosts=aim.hosts)
        at = self._limits.when(about, now, instead_of=start)
        if at > now:
            attempt.retry_after = max(ROOM_WAIT, at - now) if at < math.inf else None
            return False
        self._limits.goes_elsewhere(start, about, now)
        return True

    async def _from_any(self, attempt: Underway, hops: NextHops) -> tuple[Result, ...]:
        """Leave from the source whose turn it is; from the next, if that one cannot reach any host."""
        site = hops.site
        pool = await self._sources.pool_of(attempt.job.message.tenant)
        cannot = self._sources.unable(site.name)
        while True:
            choice = self._sources.only or self._choose(attempt, site, pool, cannot)
            if isinstance(choice, Wait):
                return self._no_source(attempt, choice)
            attempt.choice, attempt.source_name = choice, choice.source.name
            await self._sources.secure(choice)
            results = await self._from(attempt, hops, choice.source)
            if results is not None:
                return results
            attempt.choice = None
            self._sources.ended(choice, 0)
            self._sources.cannot_reach(choice.source, site.name)
            cannot.add(choice.source.name)

    def _choose(self, attempt: Underway, site: Site, pool: str, cannot: Collection[str]) -> Choice | Wait:
        """Choose a source that has room: the one that limits let it start from has.

        If that one cannot reach the site, the next has room for one more than it would.
        """
        entry, start = attempt.job.entry, attempt.start
        about = start.about if start is not None else About("", site.name, entry.tenant)
        about = about._replace(hosts=_aim(site).hosts)
        now = self._clock.monotonic()

        def room(source: str) -> bool:
            at = self._limits.when(about._replace(source=source), now, instead_of=start)
            passed_on = start is None or start.about.source in cannot
            return at <= now or about.source == source or (passed_on and at == math.inf)

        # A next hop that the operator named gives its own address a good or a bad name.
        counts, recipients = not site.routed, len(attempt.recipients)
        provider = self._limits.provider_of(about)
        want = want_of(provider, site.name, recipients, counts=counts, preferred=entry.again_from, but=cannot)
        choice = self._sources.choose(pool, want, room)
        if isinstance(choice, Choice) and start is not None and start.about.source != choice.source.name:
            self._limits.goes_elsewhere(start, start.about._replace(source=choice.source.name), now)
        return choice

    async def _from(self, attempt: Underway, hops: NextHops, source: Source) -> tuple[Result, ...] | None:
        """Leave from this source; None if it has no address that can be used towards any host."""
        passed_over: list[tuple[Result, ...]] = []
        again_at, site = attempt.job.entry.again_at, hops.site
        kept = None if again_at else self._pool.take(source.name, site, hops.take)
        if kept is not None:
            said = await self._offer(attempt, hops, kept)
            if not said.elsewhere and not said.stale:
                return trouble.verdicts(said, len(attempt.recipients))
            if said.stale:
                attempt.reach = Reach.NOBODY  # what counts is what comes of dialling anew
                attempt.closed_after = 0 if said.mail is None else kept.transactions - 1
        private = self._settings.allow_private_targets
        trail = mx.Trail(site, self._protection.resolver, self._rng, private=private, first=again_at)
        cannot = False
        while (target := await trail.next()) is not None:
            dialled = await self._dial(attempt, hops, target, source)
            if dialled is None:
                cannot = True
                continue
            results = trouble.verdicts(dialled, len(attempt.recipients))
            if not dialled.elsewhere:
                return results
            passed_over.append(results)
            log.info("message=%s relay=%s passed-over=%r", attempt.job.message.id, target, str(dialled.trouble))
        return None if cannot and not passed_over else self._nobody(attempt, passed_over, trail, site)

    async def _dial(self, attempt: Underway, hops: NextHops, target: Target, source: Source) -> Exchange | None:
        """Send the message over a new connection; None if the source has no address for that."""
        address = self._sources.local(source, target.address)
        if address is None:
            return None
        try:
            await hops.look_at(target)
            attempt.got(Reach.HOST)
            attempt.dialled += 1
            connection = await hops.dial(target, Leaving(source, address))
        except Trouble as reason:
            if reason.fault is Fault.NO_ADDRESS:
                self._sources.broken(source, address)
                return None
            attempt.policy = hops.policy_of(target)
            if reason.stage is not Stage.CONNECT:
                attempt.relay, attempt.source, attempt.tls = str(target), "", ""
                if reason.by_message:
                    attempt.got(Reach.SESSION)  # or the needs of one message would hold up others at the site
            return Exchange(trouble=reason)
        return await self._offer(attempt, hops, connection)

    async def _offer(self, attempt: Underway, hops: NextHops, connection: Connection) -> Exchange:
        """Send the message over a connection, which goes (back) to the pool."""
        attempt.meet(connection, hops.told(connection.policy))
        attempt.got(Reach.SESSION)
        try:
            if attempt.letter is None:
                attempt.letter = await self._letter(attempt)
            now = self._clock.now()
            lacks = attempt.letter.unfit(connection.offered, now)
            if lacks is not None:
                return Exchange(trouble=Trouble(Stage.MAIL, lacks, f"{connection.target}: {lacks}"))
            said = await connection.transact(attempt.letter, now)
            attempt.heard(said)
            if said.mail is not None and said.mail.positive:
                attempt.got(Reach.TRANSACTION)
            return said
        finally:
            # Not to the pool yet: whoever takes it from there sends MAIL, and a crash could repeat both (promise 2).
            self._held.setdefault(attempt.job.entry.id, []).append((hops.site, connection))

    async def _letter(self, attempt: Underway) -> Letter:
        message = attempt.job.message
        try:
            content = await self._content.content(message)
            signed = await self._signer.sign(message, content)
        except (SpoolError, SigningError) as error:
            log.error("message=%s entry=%s attempt=deferred error=%s", message.id, attempt.job.entry.id, error)
            raise Trouble(Stage.MAIL, Fault.OURS) from error
        attempt.signed = signed.note
        parts = (message, attempt.recipients, signed.header, content)
        return letter.write(*parts) if len(content) <= IN_PLACE else await asyncio.to_thread(letter.write, *parts)

    def _nobody(
        self, attempt: Underway, passed_over: list[tuple[Result, ...]], trail: mx.Trail, site: Site
    ) -> tuple[Result, ...]:
        """Judge when every host was passed over: for good only if none of them may do better another time."""
        temporary = [each for each in passed_over if each[-1].verdict is Verdict.DEFERRED]
        if temporary or (passed_over and not trail.unanswered):
            return (temporary or passed_over)[-1]
        return self._nowhere(attempt, NoWay.DNS if trail.unanswered else NoWay.UNUSABLE, routed=site.routed)

    def _no_source(self, attempt: Underway, wait: Wait) -> tuple[Result, ...]:
        """Defer what no source may or can take: until one may, or as any other."""
        attempt.source_name = ""
        if wait.until < NEVER:
            attempt.counted = False
            attempt.retry_after = min(max(ROOM_WAIT, wait.until - self._clock.now()), SOURCE_WAIT)
        return attempt.everyone(trouble.of_trouble(Trouble(Stage.CONNECT, Fault.NO_SOURCE, f"no source: {wait.why}")))

    def _nowhere(self, attempt: Underway, why: NoWay, *, routed: bool = False) -> tuple[Result, ...]:
        """Judge for a domain without a next hop. A route that leads nowhere is the operator's to mend: no bounce."""
        attempt.counted = why is not NoWay.DNS
        rechecked = attempt.job.entry.steps > 0 and not routed
        return attempt.everyone(trouble.of_no_way(why, attempt.job.entry.domain, rechecked=rechecked))

    def _broken_off(self, attempt: Underway, why: Fault) -> tuple[Result, ...]:
        attempt.counted = attempt.past_dot
        attempt.cut_short = not attempt.past_dot
        return attempt.everyone(trouble.of_trouble(Trouble(Stage.MAIL, why)))


def _aim(site: Site) -> Aim:
    # whom an operator has named is no mailbox provider; and it is the most preferred hosts that take the mail
    return Aim(site.name, () if site.routed else tuple([hop.host for hop in site.hops if hop.rank == 0]))
