"""MTA-STS policies by recipient domain: asked for once for everyone who waits, kept in the spool, renewed each day.

`mta/delivery/sts.py` decides; this asks the DNS and the policy hosts, and remembers. What is in the spool counts after
a restart before anybody was asked. Who asks is bounded elsewhere: lookups by `lookout.py`, attempts by the connections.
"""

import asyncio
import logging
import math
from collections import OrderedDict, deque
from random import Random

import msgspec

from mta.clock import Clock
from mta.config import Config
from mta.delivery import sts
from mta.delivery.https import FetchError, Https, Place
from mta.delivery.policy import Failure, Flaw, StsPolicy
from mta.delivery.resolver import NoAnswer, Resolver
from mta.delivery.sts import Announced, Step, StsError
from mta.mail.address import is_domain
from mta.spool.interface import Spool, SpoolError
from mta.spool.sealing import SealBroken

log = logging.getLogger(__name__)

KIND = "sts"
DOMAINS = 20_000  # known, with a policy or without
OCTETS = 32 << 20  # of policies in memory, about; whatever else there is waits in the spool
SAME_AGAIN = 300.0  # seconds until a policy of the same id is fetched again, RFC 8461 3.3
SILENT_FOR = 60.0  # seconds after the DNS did not answer in which mail does not wait for that again
NEXT_AGAIN = 10.0  # seconds until one of any id is: a hostile zone can have a new one in each answer
IN_USE = 30 * 86_400.0  # seconds since the last mail, after which a policy is not renewed but left to expire
LONG_EXPIRED = 7 * 86_400.0  # seconds after which nobody needs to see what there once was
ROUND = 600.0  # seconds between looks for what is to be renewed
_RETRY = 3600.0  # seconds until a renewal that failed is tried again, unless the policy expires soon
_AT_ONCE = 8  # renewals
_ITEM = 60  # octets that a string costs beside its characters


class Standing(msgspec.Struct, frozen=True):
    """What applies to a domain now: a policy of mode enforce or testing, or None.

    `failure` and `text` say why there is no policy, or no newer one. Without a `failure` a text is of what cannot be
    reported: the DNS does not answer, or announces nothing any more.
    """

    policy: StsPolicy | None = None
    failure: Failure | None = None
    text: str = ""


class Kept(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """A policy as it is stored, and when mail went to its domain last (in absolute seconds, a day late at most)."""

    version: int = 1
    policy: StsPolicy
    used_at: float


class _Known(msgspec.Struct):
    """What memory has of a domain. Nobody has to be asked before `until` (monotonic), unless its record's TTL is over.

    `trouble` came of the last fetch, of the policy `asked_id` at `asked_at` (monotonic). `read` is whether it was
    looked for in the spool. Until `silent_until` (monotonic) nobody waits for a DNS that has just not answered.
    """

    policy: StsPolicy | None = None
    standing: Standing = Standing()
    trouble: Flaw | None = None
    until: float = -math.inf
    asked_id: str = ""
    asked_at: float = -math.inf
    used_at: float = 0.0
    read: bool = False
    silent_until: float = -math.inf
    octets: int = 0


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Kept).decode
_NOTHING = Standing()


class StsPolicies:
    """The policies of all domains that mail goes to."""

    def __init__(
        self, config: Config, resolver: Resolver, spool: Spool, clock: Clock, *, rng: Random | None = None
    ) -> None:
        self._settings = config.sts
        self._https = Https(resolver, config.delivery.ca_file, private=config.delivery.allow_private_targets)
        self._resolver = resolver
        self._spool = spool
        self._clock = clock
        self._rng = rng or Random()
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._octets = 0
        self._looking: dict[str, asyncio.Task[_Known]] = {}
        self._renew_at: dict[str, float] = {}  # absolute seconds, by domain that has a policy

    def knows(self, domain: str) -> bool:
        """Tell whether `of` asks nobody about a domain (in normal form)."""
        known = self._known.get(domain)
        if known is None:
            return not is_domain(domain)
        now = self._clock.monotonic()
        return now < known.until and (now < known.silent_until or self._resolver.knows_texts(_record(domain)))

    async def of(self, domain: str) -> Standing:
        """Find what applies to a domain (in normal form), from DNS and policy host where that has to be. Never raises.

        Takes at most the time-outs of the DNS and of `sts.timeout`.
        """
        if not is_domain(domain):  # an address literal has no policy
            return _NOTHING
        if self.knows(domain):
            known = self._known[domain]
            self._known.move_to_end(domain)
            if not self._resolver.knows_texts(_record(domain)):
                self._begin_look(domain)  # for those who come later
        else:
            known = await self._look_alone(domain)
        known.used_at = self._clock.now()
        return known.standing

    async def run(self, stop: asyncio.Event) -> None:
        """Renew policies before they expire, and remove those that did long ago, until `stop` is set."""
        for domain, kept in (await self._stored()).items():
            self._renew_at.setdefault(domain, self._next_renewal(kept.policy))
        while not stop.is_set():
            now = self._clock.now()
            due = deque([domain for domain, at in self._renew_at.items() if at <= now])
            await asyncio.gather(*[self._renew_in_turn(due, stop) for _ in range(_AT_ONCE)])
            await self._clock.wait(stop, ROUND)

    async def _renew_in_turn(self, due: deque[str], stop: asyncio.Event) -> None:
        """Renew one after the other, beside others who do the same: who is slow keeps one of us."""
        while due and not stop.is_set():
            await self._renew(due.popleft())

    async def forget(self, domain: str) -> bool:
        """Forget what is known of a domain; tell whether it had a policy. SpoolError."""
        if domain in self._looking:
            await asyncio.wait((self._looking[domain],))
        self._let_go(domain)
        self._renew_at.pop(domain, None)
        return await self._spool.delete_record(KIND, domain)

    async def kept(self) -> list[Kept]:
        """Return what the spool has, by domain, expired policies too."""
        return [kept for _, kept in sorted((await self._stored()).items())]

    async def close(self) -> None:
        """Give up what is being asked."""
        tasks = list(self._looking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _look_alone(self, domain: str, *, renew: bool = False) -> _Known:
        return await asyncio.shield(self._begin_look(domain, renew=renew))  # who asks may give up; others want to know

    def _begin_look(self, domain: str, *, renew: bool = False) -> asyncio.Task[_Known]:
        task = self._looking.get(domain)
        if task is None:
            task = asyncio.create_task(self._look(domain, renew=renew), name=f"sts {domain}")
            self._looking[domain] = task
            task.add_done_callback(lambda _: self._looking.pop(domain, None))
        return task

    async def _look(self, domain: str, *, renew: bool) -> _Known:
        """Ask who has to be asked, and note what applies. `renew` fetches the policy that is known again."""
        known = await self._remembered(domain)
        announced = await self._announced(domain)
        step = sts.step(known.policy, announced, None, self._clock.now())
        self._note(domain, known, announced, step)  # so that mail need not wait for a renewal
        wanted = step.fetch or (renew and bool(announced.id))
        if wanted and self._clock.monotonic() >= _fetch_again_at(known, announced.id):
            # RFC 8461 3.3: administrators are alerted where a policy that applies cannot be renewed
            level = logging.INFO if step.policy is None else logging.WARNING
            fetched = await self._fetch(domain, announced.id, level)
            known.asked_id, known.asked_at = announced.id, self._clock.monotonic()
            step = sts.step(known.policy, announced, fetched, self._clock.now())
            known.trouble = step.trouble
            self._note(domain, known, announced, step)
            if step.trouble is None:
                await self._keep(domain, known)
        return known

    def _note(self, domain: str, known: _Known, announced: Announced, step: Step) -> None:
        """Write down what applies, and until when nobody has to be asked."""
        now, monotonic = self._clock.now(), self._clock.monotonic()
        known.policy = step.known or known.policy  # an expired one is shown until it is long expired
        known.standing = _standing(known, announced, step)
        known.silent_until = -math.inf if announced.answered else monotonic + SILENT_FOR
        known.until = math.inf
        if sts.step(known.policy, announced, None, now).fetch:  # it was too early, or failed
            known.until = _fetch_again_at(known, announced.id)
        if not known.read:
            known.until = min(known.until, monotonic + NEXT_AGAIN)
        left = sts.expires_at(step.known) - now if step.known is not None else 0.0
        if left > 0:
            known.until = min(known.until, monotonic + left)
        self._hold(domain, known)

    async def _announced(self, domain: str) -> Announced:
        try:
            found = await self._resolver.texts(_record(domain))
        except NoAnswer:
            return Announced(answered=False)
        return Announced(sts.record_id(found.texts) or "")

    async def _fetch(self, domain: str, announced: str, level: int) -> StsPolicy | Flaw:
        """Fetch a policy; log at `level` why not."""
        place = Place(f"mta-sts.{domain}", "/.well-known/mta-sts.txt", self._settings.port)
        try:
            body = await self._https.get(place, "text/plain", self._settings.timeout)
            return sts.parse(body, domain, announced, self._clock.now())
        except (FetchError, StsError) as error:
            log.log(level, "sts=failed domain=%s failure=%s error=%s", domain, error.failure, error)
            return Flaw(error.failure, str(error))

    async def _renew(self, domain: str) -> None:
        """Renew a policy that is due, or let it go."""
        known, now = await self._remembered(domain), self._clock.now()
        policy = known.policy
        if policy is None:
            if known.read:
                del self._renew_at[domain]
            else:
                self._renew_at[domain] = now + _RETRY
        elif now >= sts.expires_at(policy) + LONG_EXPIRED:
            await self._remove(domain)
        elif now >= known.used_at + IN_USE:
            self._renew_at[domain] = sts.expires_at(policy) + LONG_EXPIRED
        else:
            renewed = await self._look_alone(domain, renew=True)
            if renewed.policy == policy:
                if renewed.trouble is None and renewed.standing.policy is not None:
                    log.warning("sts=unrenewed domain=%s reason=%r", domain, renewed.standing.text)
                soon = max(SAME_AGAIN, min(_RETRY, policy.max_age / 8))
                self._renew_at[domain] = now + soon * self._rng.uniform(1.0, 1.25)

    def _next_renewal(self, policy: StsPolicy) -> float:
        # spread, or those of a provider who was met in one hour would be renewed in one hour for ever
        # (and one that a clock in the future has dated, when it was set right)
        return min(policy.fetched_at, self._clock.now()) + sts.refresh_after(policy) * self._rng.uniform(0.75, 1.0)

    # Memory

    async def _remembered(self, domain: str) -> _Known:
        """Return what is known of a domain, from memory or else from the spool."""
        known = self._known.get(domain) or _Known()
        if not known.read:
            try:
                value = await self._spool.get_record(KIND, domain)
                kept = _decode(value) if value is not None else None
                if kept is not None and (known.policy is None or known.policy.fetched_at < kept.policy.fetched_at):
                    known.policy, known.used_at = kept.policy, max(kept.used_at, known.used_at)
                known.read = True
            except (SealBroken, msgspec.DecodeError) as error:
                log.error("record=%r of=sts error=%s", domain, error)
                known.read = True
            except SpoolError as error:
                log.warning("sts=unread domain=%s error=%s", domain, error)
        return known

    def _hold(self, domain: str, known: _Known) -> None:
        """Have something in memory, instead of what was used least recently."""
        self._let_go(domain)
        known.octets = _octets(known.policy)
        self._known[domain] = known
        self._octets += known.octets
        while len(self._known) > DOMAINS or self._octets > OCTETS:
            self._let_go(next(iter(self._known)))

    def _let_go(self, domain: str) -> None:
        gone = self._known.pop(domain, None)
        if gone is not None:
            self._octets -= gone.octets

    # Spool

    async def _keep(self, domain: str, known: _Known) -> None:
        assert known.policy is not None
        self._renew_at[domain] = self._next_renewal(known.policy)
        try:
            kept = Kept(policy=known.policy, used_at=known.used_at or self._clock.now())
            await self._spool.put_record(KIND, domain, _encode(kept), replace=True)
        except SpoolError as error:
            log.warning("sts=unkept domain=%s error=%s", domain, error)

    async def _remove(self, domain: str) -> None:
        try:
            await self._spool.delete_record(KIND, domain)
        except SpoolError as error:  # the next round tries again, or finds that there is none
            log.warning("sts=unremoved domain=%s error=%s", domain, error)
        self._let_go(domain)

    async def _stored(self) -> dict[str, Kept]:
        """Read what the spool has; what cannot be read is left out."""
        found: dict[str, Kept] = {}
        try:
            records = await self._spool.list_records(KIND)
        except SpoolError as error:  # a damaged spool is to deliver what it can
            log.error("records=sts error=%s", error)
            return found
        for name, value in records:
            try:
                found[name] = _decode(value)
            except msgspec.DecodeError as error:
                log.error("record=%r of=sts error=%s", name, error)
        return found


def _record(domain: str) -> str:
    return f"_mta-sts.{domain}"  # RFC 8461 3.1


def _fetch_again_at(known: _Known, announced: str) -> float:
    """Say from when on (monotonic) the announced policy may be fetched."""
    failed = known.trouble is not None and known.asked_id == announced
    return known.asked_at + (SAME_AGAIN if failed else NEXT_AGAIN)


def _standing(known: _Known, announced: Announced, step: Step) -> Standing:
    if known.trouble is not None and (announced.id == known.asked_id or not announced.answered):
        return Standing(step.policy, known.trouble.failure, known.trouble.text)
    if not announced.answered:
        return Standing(step.policy, None, "the DNS does not say whether there is a policy")
    if step.policy is not None and not announced.id:
        return Standing(step.policy, None, "no record announces a policy any more")
    return Standing(step.policy)


def _octets(policy: StsPolicy | None) -> int:
    return sum(len(each) + _ITEM for each in (*policy.mx, *policy.text)) if policy is not None else 0
