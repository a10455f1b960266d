"""What the DNS shows of our DKIM keys: looked at while a domain sends, and while one of its keys waits for it.

A look asks for each of a domain's keys at most once in a TTL (the resolver remembers), and not on the way of a message,
but for the first of a domain whose signatures hinge on it, and then only for a bounded time. What it makes of the keys
(mta.accounts.rotation) is stored at once; the signer reads it from there.
"""

import asyncio
import logging
from typing import Protocol

import msgspec

from mta.accounts import dkim_keys, domains, rotation
from mta.accounts.domains import Domain, State
from mta.clock import Clock
from mta.delivery.resolver import Found, NoAnswer
from mta.mail.key_record import differs
from mta.spool.interface import Spool, SpoolError

log = logging.getLogger(__name__)

INTERVAL = 30.0  # seconds between looks at a domain that sends
WAITING_INTERVAL = 60.0  # between looks at domains with a key that waits to be shown
IDLE_INTERVAL = 3600.0  # while no key does; whoever makes one says so
PATIENCE = 2.0  # seconds that mail waits for a first look
_AT_ONCE = 20  # domains of those that wait
_DOMAINS_KNOWN = 4096


class Texts(Protocol):
    """Asks the DNS; mta.delivery.resolver."""

    async def texts(self, name: str) -> Found:
        """Look up the TXT records of a name. Raises NoAnswer."""


class Published:
    """Looks at the DNS for the signer, and stores what comes of it."""

    def __init__(self, spool: Spool, resolver: Texts, clock: Clock) -> None:
        self._spool = spool
        self._resolver = resolver
        self._clock = clock
        self._looked: dict[str, float] = {}  # by domain: when (monotonic); oldest first
        self._looking: dict[str, asyncio.Task[Domain | None]] = {}
        self._wake = asyncio.Event()

    async def look(self, domain: Domain) -> bool:
        """Have a domain that sends looked at when it is time.

        True when that was waited for, and its keys have to be read again: the first time, if it hinges on it which of
        them sign.
        """
        looked_at = self._looked.get(domain.name)
        if looked_at is not None and self._clock.monotonic() - looked_at < INTERVAL:
            return False
        look = self._begun(domain.name)
        if looked_at is not None or not rotation.hinges(domain):
            return False
        try:
            async with asyncio.timeout(PATIENCE):
                await asyncio.shield(look)
        except TimeoutError:
            log.warning("domain=%s dns=silent signs-by=what-was-known", domain.name)
            self._note(domain.name)  # nobody else waits
        return True

    async def run(self) -> None:
        """Look at the domains with keys that wait for the DNS, though they send nothing, until cancelled."""
        while True:
            self._wake.clear()
            waiting = await self._look_at_watched()
            await self._clock.wait(self._wake, WAITING_INTERVAL if waiting else IDLE_INTERVAL)

    async def look_again(self) -> None:
        """Hear that somebody has made a key."""
        self._wake.set()

    async def close(self) -> None:
        """Give up what is being looked at."""
        looks = list(self._looking.values())
        for each in looks:
            each.cancel()
        await asyncio.gather(*looks, return_exceptions=True)

    async def _look_at_watched(self) -> bool:
        """Look at all domains that are watched; tell whether a key waits to be shown, or could not be looked for."""
        waiting = False
        try:
            names = await dkim_keys.watched(self._spool)
            for first in range(0, len(names), _AT_ONCE):
                some = names[first : first + _AT_ONCE]
                for name, domain in zip(some, await asyncio.gather(*map(self._begun, some)), strict=True):
                    if domain is not None and not rotation.changing(domain):
                        await dkim_keys.unwatch(self._spool, name)
                    waiting |= domain is None or any(each.state is State.PENDING for each in domain.selectors)
        except (SpoolError, msgspec.DecodeError) as error:
            log.error("dkim=not-looked-at error=%s", error)
            return True
        return waiting

    def _begun(self, name: str) -> asyncio.Task[Domain | None]:
        """Begin a look at a domain, unless one is under way."""
        look = self._looking.get(name)
        if look is None:
            look = asyncio.create_task(self._look(name), name=f"dkim {name}")
            self._looking[name] = look
            look.add_done_callback(lambda _: self._looking.pop(name, None))
        return look

    async def _look(self, name: str) -> Domain | None:
        """Look at a domain's keys; return what has become of it, None if that cannot be known."""
        after = None
        try:
            before = await domains.find(self._spool, name)
            if before is not None:
                troubles = await self._troubles(before)
                now = self._clock.now()
                after = await domains.change(self._spool, name, lambda each: rotation.looked(each, troubles, now))
        except (SpoolError, msgspec.DecodeError) as error:
            log.error("domain=%s dkim=not-looked-at error=%s", name, error)
        else:
            if before is not None and after is not None:
                _tell(before, after)
        self._note(name)
        return after

    async def _troubles(self, domain: Domain) -> dict[str, str]:
        """Say for each key's value what is wrong with what is published, "" for nothing; without those not answered."""
        names = [dkim_keys.name_of(domain.name, each) for each in domain.selectors]
        answers = await asyncio.gather(*map(self._texts, names))
        return {
            key.dns_value: differs(found.texts, key.dns_value)
            for key, found in zip(domain.selectors, answers, strict=True)
            if found is not None
        }

    async def _texts(self, name: str) -> Found | None:
        try:
            return await self._resolver.texts(name)
        except NoAnswer:  # which says nothing of the key; the resolver has logged it
            return None

    def _note(self, name: str) -> None:
        self._looked.pop(name, None)
        self._looked[name] = self._clock.monotonic()
        if len(self._looked) > _DOMAINS_KNOWN:
            del self._looked[next(iter(self._looked))]


def _tell(before: Domain, after: Domain) -> None:
    """Log what a look has changed."""
    former = {each.name: each for each in before.selectors}
    for key in after.selectors:
        old = former.get(key.name, key)
        if key.state is not old.state:
            log.info("domain=%s selector=%s dkim=%s was=%s", after.name, key.name, key.state, old.state)
        if key.missing_at and key.trouble != old.trouble and key.state is not State.PENDING:
            log.warning("domain=%s selector=%s dkim=%s dns=%r", after.name, key.name, key.state, key.trouble)
    signs = rotation.signing(after)
    if rotation.unpublished(signs) and not rotation.unpublished(rotation.signing(before)):
        names = ",".join([each.name for each in signs])
        log.error("domain=%s selector=%s dkim=signs-with-keys-not-in-dns", after.name, names)
