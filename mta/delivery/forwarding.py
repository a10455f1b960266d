"""Mail that is passed on for others gets an ARC set (RFC 8617), where `arc` is configured.

That is mail of a relay listener of the tenant that has the sealing domain (promise 9: others could have written what is
to be vouched for), whose From domain is not the tenant's own (decision 5), and that a service that is trusted has
authenticated. The chain that it has is verified here, at each attempt; what cannot be judged now, for the
DNS does not answer, is left as it is.
"""

import asyncio
import logging
from typing import NamedTuple, Protocol

from mta.accounts.dkim_keys import Algorithm
from mta.accounts.domains import Selector
from mta.clock import Clock
from mta.config import Arc
from mta.delivery import arc, arc_set
from mta.delivery.arc import INSTANCES, Broken, Chain, Set
from mta.delivery.canonical import Canonical, Unsignable, canonical_form, digest_of, folded
from mta.delivery.resolver import Found, NoAnswer
from mta.delivery.signatory import Wanted
from mta.delivery.signing import Signatory, Signed, Signer
from mta.mail import headers
from mta.mail.headers import Field
from mta.spool.records import Message, Origin

log = logging.getLogger(__name__)

PATIENCE = 10.0  # seconds for all keys of a chain
_THREADS = 2  # at work on contents and signatures; they take the GIL from the loop


class Texts(Protocol):
    """Asks the DNS; mta.delivery.resolver."""

    async def texts(self, name: str) -> Found:
        """Look up the TXT records of a name. Raises NoAnswer."""


class _Passed(NamedTuple):
    """What is read of a message that is to be sealed."""

    canonical: Canonical
    fields: list[Field]
    chain: Chain
    service: str
    results: bytes


class _Unsealed(Exception):
    """The message gets no set; the message says why."""


class Sealer:
    """Signs what is the tenant's own, and seals what is passed on."""

    def __init__(self, settings: Arc, signer: Signer, signatory: Signatory, resolver: Texts, clock: Clock) -> None:
        self._domain = settings.domain or ""
        self._trusted = frozenset(settings.trusted)
        self._signer = signer
        self._signatory = signatory
        self._resolver = resolver
        self._clock = clock
        self._threads = asyncio.Semaphore(_THREADS)

    async def sign(self, message: Message, content: bytes) -> Signed:
        """Return the fields to put before the content; SigningError if there are keys but they cannot be had."""
        signed = await self._signer.sign(message, content)
        if message.sign_domain or message.origin is not Origin.RELAY:
            return signed
        try:
            return await self._sealed(message.tenant, content)
        except (_Unsealed, Unsignable) as reason:
            return Signed(b"", f"{signed.note}; not sealed: {reason}")

    async def _sealed(self, tenant: str, content: bytes) -> Signed:
        active = await self._signer.keys_of(self._domain, tenant)
        keys = [each for each in active if each.algorithm == Algorithm.RSA2048]
        if not keys:
            raise _Unsealed(f"{self._domain} has no rsa2048 key for {tenant}")
        async with self._threads:
            passed = await asyncio.to_thread(_read, content, self._trusted)
        instance = passed.chain.highest + 1
        if passed.chain.ended or instance > INSTANCES:
            raise _Unsealed("its chain has come to an end")
        if passed.chain.broken and instance == 1:  # a first set says cv=none, which would be no more true than cv=fail
            raise _Unsealed(f"its chain is none: {passed.chain.broken}")
        cv = await self._validity(passed, content)
        header = await self._set(passed, instance, cv, keys[0])
        return Signed(header, f"arc:{self._domain}:{keys[0].name} i={instance} cv={cv}")

    async def _validity(self, passed: _Passed, content: bytes) -> str:
        """Judge the chain that is there, in the word of the cv= tag (RFC 8617 4.4)."""
        if passed.chain.highest == 0:
            return "none"
        try:
            keys = await self._keys(passed.chain)
            async with self._threads:
                await asyncio.to_thread(arc.verify, passed.chain, passed.fields, content, keys, self._clock.now())
        except Broken as reason:
            log.info("arc=fail instance=%d reason=%r", passed.chain.highest, str(reason))
            return "fail"
        return "pass"

    async def _keys(self, chain: Chain) -> dict[str, tuple[bytes, ...]]:
        names = sorted(arc.key_names(chain))
        try:
            async with asyncio.timeout(PATIENCE):
                found = await asyncio.gather(*map(self._resolver.texts, names))
        except (NoAnswer, TimeoutError):
            raise _Unsealed("no answer from the DNS for the keys of its chain") from None
        return {name: each.texts for name, each in zip(names, found, strict=True)}

    async def _set(self, passed: _Passed, instance: int, cv: str, key: Selector) -> bytes:
        at = int(self._clock.now())
        results = arc_set.results_field(instance, passed.service, passed.results)
        unsigned = arc_set.signature_field(instance, self._domain, key, at, passed.canonical)
        signature = await self._finished(unsigned, digest_of(passed.canonical, unsigned), key)
        unsigned = arc_set.seal_field(instance, self._domain, key, at, cv)
        former = passed.chain.sets if cv == "pass" else ()
        digest = arc_set.seal_digest(former, Set(results, signature, unsigned))
        return await self._finished(unsigned, digest, key) + signature + results

    async def _finished(self, unsigned: bytes, digest: bytes, key: Selector) -> bytes:
        (value,) = await self._signatory.sign([Wanted(self._domain, key.name, key.algorithm, key.sealed, digest)])
        return unsigned + folded(value) + b"\r\n"


def _read(content: bytes, trusted: frozenset[str]) -> _Passed:
    fields = list(headers.fields(content[: headers.header_length(content)]))
    results = arc_set.results_of(fields, trusted)
    if results is None:
        raise _Unsealed("no authentication results that are trusted")
    # RFC 8617 4.1.2: with the DKIM signatures that the message has; that all of the header is fields is seen here
    canonical = canonical_form(content, b"dkim-signature")
    return _Passed(canonical, fields, arc.chain_of(fields), *results)
