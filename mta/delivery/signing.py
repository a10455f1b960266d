"""DKIM signatures (RFC 6376, RFC 8463), made at each attempt and never stored.

What is signed of a message is canonical.py's to say. `Signer` knows the domains, looks for changes of a domain's record
at most once a second, and has the digests signed by the process that has the keys (signatory.py). With which keys,
mta.accounts.rotation says, by what the DNS has been seen to show (published.py).

A domain signs for its tenant alone, which is asked again here (promise 9). Lines of content end with
CRLF; SMTP out sends nothing else, so nothing else needs a signature that holds.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import msgspec

from mta.accounts import domains, rotation
from mta.accounts.dkim_keys import Algorithm
from mta.accounts.domains import Domain, Selector
from mta.clock import Clock
from mta.delivery.canonical import PIECE, Canonical, Unsignable, canonical_form, digest_of, folded, unsigned_field
from mta.delivery.signatory import SigningError, Wanted
from mta.spool.interface import Spool, SpoolError
from mta.spool.records import Message
from mta.spool.sealing import SealBroken

log = logging.getLogger(__name__)

_THREADS = 2  # at work on larger contents; with more, they and the loop would take the GIL from each other
_CHECK_INTERVAL = 1.0
_DOMAINS_CACHED = 4096


class Signed(NamedTuple):
    """Signature fields to put before the content (b"": none), and `domain:selectors` or why there are none."""

    header: bytes
    note: str


class _Known(NamedTuple):
    """A sender domain's record as last seen (None: not registered), and what it says (None: it cannot be read).

    `keys` are those that sign, `note` says so.
    """

    record: bytes | None
    domain: Domain | None = None
    keys: Sequence[Selector] = ()
    note: str = ""


class Signatory(Protocol):
    """Has the keys; mta.delivery.signatory."""

    async def sign(self, wanted: Sequence[Wanted]) -> list[bytes]:
        """Make the signatures of one message; SigningError if one of them cannot be made."""


class Published(Protocol):
    """Looks at what the DNS shows of the keys; mta.delivery.published."""

    async def look(self, domain: Domain) -> bool:
        """Have a domain looked at when it is time; True when its keys have to be read again."""


class Signer:
    """Signs messages with the keys of their sender domains."""

    def __init__(self, spool: Spool, signatory: Signatory, clock: Clock, published: Published) -> None:
        self._spool = spool
        self._signatory = signatory
        self._published = published
        self._clock = clock
        self._threads = asyncio.Semaphore(_THREADS)
        self._domains: dict[str, tuple[float, _Known]] = {}  # with when they were checked; oldest check first

    async def sign(self, message: Message, content: bytes) -> Signed:
        """Sign `content` for the message's sender domain with every key of the domain's that signs.

        Unsigned, with the reason in the note, when there is no key to sign with or the header is
        malformed. SigningError when there are keys but they cannot be had.
        """
        name = message.sign_domain
        if not name:
            return Signed(b"", "no sender domain")
        known = await self._known(name)
        if known.record is None:
            return Signed(b"", f"{name} is not registered")
        domain = known.domain
        if domain is None:
            raise SigningError("the record of the sender domain cannot be read")
        if domain.tenant != message.tenant:
            return Signed(b"", f"{name} belongs to another tenant")
        if not known.keys:
            return Signed(b"", f"no key for {name}")
        try:
            canonical = await self._canonical(content)
        except Unsignable as reason:
            return Signed(b"", str(reason))
        return Signed(await self._signatures(name, known.keys, canonical), known.note)

    async def keys_of(self, name: str, tenant: str) -> Sequence[Selector]:
        """Return the keys that sign for a tenant's domain, none for another's (promise 9).

        SigningError if they cannot be known.
        """
        known = await self._known(name)
        if known.record is not None and known.domain is None:
            raise SigningError(f"the record of {name} cannot be read")
        return known.keys if known.domain is not None and known.domain.tenant == tenant else ()

    async def _canonical(self, content: bytes) -> Canonical:
        if len(content) <= PIECE:
            return canonical_form(content)
        async with self._threads:
            return await asyncio.to_thread(canonical_form, content)

    async def _signatures(self, domain: str, keys: Sequence[Selector], canonical: Canonical) -> bytes:
        at = int(self._clock.now())
        unsigned = [signature_field(domain, each, at, canonical) for each in keys]
        wanted = [
            Wanted(domain, each.name, each.algorithm, each.sealed, digest_of(canonical, field))
            for each, field in zip(keys, unsigned, strict=True)
        ]
        values = await self._signatory.sign(wanted)
        return b"".join([field + folded(value) + b"\r\n" for field, value in zip(unsigned, values, strict=True)])

    async def _known(self, name: str) -> _Known:
        now = self._clock.monotonic()
        checked_at, known = self._domains.get(name, (now, None))
        if known is not None and now - checked_at < _CHECK_INTERVAL:
            return known
        record = await self._record(name)
        if known is None or known.record != record:
            known = _read(record)
        if known.domain is not None and await self._published.look(known.domain):
            known = _read(await self._record(name))
        self._domains.pop(name, None)
        self._domains[name] = now, known
        if len(self._domains) > _DOMAINS_CACHED:
            del self._domains[next(iter(self._domains))]
        return known

    async def _record(self, name: str) -> bytes | None:
        try:
            return await self._spool.get_record(domains.KIND, name)
        except (SpoolError, SealBroken) as error:
            raise SigningError(f"the record of {name} cannot be read") from error


def _read(record: bytes | None) -> _Known:
    if record is None:
        return _Known(None)
    try:
        domain = domains.decode(record)
        for each in domain.selectors:
            Algorithm(each.algorithm)
    except (msgspec.DecodeError, ValueError) as error:
        log.error("the record of a sender domain cannot be read: %s", error)
        return _Known(record)
    keys = rotation.signing(domain)
    note = f"{domain.name}:{','.join([each.name for each in keys])}"
    if rotation.unpublished(keys):
        note += " (not in DNS)"
    return _Known(record, domain, keys, note)


def signature_field(domain: str, selector: Selector, at: int, canonical: Canonical) -> bytes:
    """Write a DKIM-Signature field up to its empty b= tag (RFC 6376 3.5)."""
    algorithm = b"ed25519-sha256" if selector.algorithm == Algorithm.ED25519 else b"rsa-sha256"
    begin = b"DKIM-Signature: v=1; a=%b; c=relaxed/relaxed; t=%d;" % (algorithm, at)
    return unsigned_field(begin, domain, selector.name, canonical)
