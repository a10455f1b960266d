"""DNS for delivery: dnspython asks, this remembers by TTL and asks once for everyone who waits.

Absence is an answer; `NoAnswer` is raised when there is none: SERVFAIL, refused, time-out, nonsense. Never
mix the two up: the first may fail mail, the second never does (it costs not even an attempt).
"""

import asyncio
import ipaddress
import logging
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import dns.asyncresolver
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.nameserver
import dns.rdatatype
import dns.rdtypes.ANY.MX
import dns.rdtypes.tlsabase
import dns.resolver
import dns.reversename
import msgspec

from mta.clock import Clock
from mta.config import Dns
from mta.delivery.policy import Tlsa

log = logging.getLogger(__name__)

CACHED = 20_000  # answers
OCTETS = 64 << 20  # of these, about: each may have 64 KiB, as many as a stranger has names to be asked for
RECORDS_LIMIT = 100  # of an answer; a stranger's zone can have thousands, which would be cached
TTL_LIMIT = 3600.0
NEGATIVE_TTL_LIMIT = 60.0  # RFC 2308 5 allows hours; a zone that was just mended should not wait for that
FAILURE_TTL = 2.0  # RFC 2308 7.1: an outage must not cost one query for every message that waits
_UDP_PAYLOAD = 1232  # RFC 6891 6.2.5: what passes without fragments
_ROUNDS = 3  # how often a silent server is asked within the time-out
_ITEM = 100  # octets that a record costs beside what it says
_LOCALHOST = ("::1", "127.0.0.1")  # RFC 6761 6.3: never a question for the DNS


class NoAnswer(Exception):
    """The DNS could not be asked or did not answer. Says nothing of the name."""


class Exchanger(msgspec.Struct, frozen=True):
    """An MX record; `host` is "" for the root, as in a null MX (RFC 7505 3)."""

    preference: int
    host: str


class Found(msgspec.Struct, frozen=True):
    """What the DNS says: `exists` is False for NXDOMAIN; no values are NODATA then or NXDOMAIN.

    `secure` means that a resolver whom `dns.trust_ad` names has validated it, absence too (RFC 4035 3.2.3). `canonical`
    is the name that CNAMEs led to, "" without any. `texts` are TXT records, the strings of each joined, `names`
    those of PTR records.
    """

    exists: bool
    exchangers: tuple[Exchanger, ...] = ()
    addresses: tuple[str, ...] = ()
    texts: tuple[bytes, ...] = ()
    tlsa: tuple[Tlsa, ...] = ()
    secure: bool = False
    canonical: str = ""
    names: tuple[str, ...] = ()


# RFC 7672 2.1.1: a digest of an odd length makes its record unusable, and not the answer unreadable, as for dnspython
dns.rdtypes.tlsabase.TLSABase._cert_length_by_mtype = {}  # noqa: SLF001 - nothing public leads there

_Question = tuple[str, dns.rdatatype.RdataType]
_Cached = tuple[float, Found | str]  # until when (monotonic), and the answer or why there is none


class Resolver:
    """Asks the configured servers, or those of /etc/resolv.conf.

    `validating`: all of them are named by `dns.trust_ad`, so that what they say of DNSSEC counts.
    """

    def __init__(self, settings: Dns, clock: Clock) -> None:
        self._clock = clock
        self._dns = _stub(settings)
        servers = [ipaddress.ip_address(each) for each in _addresses_of(self._dns)]
        # all of them: nobody is told which one said that there is no such name
        self.validating = all(any(each in network for network in settings.trust_ad) for each in servers)
        if self.validating:
            self._dns.flags = dns.flags.RD | dns.flags.AD
            self._dns.use_edns(0, dns.flags.DO, _UDP_PAYLOAD)
        self._cache: OrderedDict[_Question, _Cached] = OrderedDict()
        self._octets = 0
        self._asking: dict[_Question, asyncio.Task[Found | str]] = {}

    def knows(self, domain: str) -> bool:
        """Tell whether it is known which MX records a domain has, or that it cannot be known now."""
        return self._knows((domain, dns.rdatatype.MX))

    def knows_texts(self, name: str) -> bool:
        """Tell whether it is known which TXT records a name has, or that it cannot be known now."""
        return self._knows((name, dns.rdatatype.TXT))

    async def exchangers(self, domain: str) -> Found:
        """Look up the MX records of a domain (absolute, A-labels). Raises NoAnswer."""
        return await self._found((domain, dns.rdatatype.MX))

    async def texts(self, name: str) -> Found:
        """Look up the TXT records of a name. Raises NoAnswer."""
        return await self._found((name, dns.rdatatype.TXT))

    async def tlsa(self, name: str) -> Found:
        """Look up the TLSA records of a name such as `_25._tcp.mx.example.com`. Raises NoAnswer, also where bogus."""
        return await self._found((name, dns.rdatatype.TLSA))

    async def alias(self, name: str) -> Found:
        """Look up whether a name is an alias, wherever that leads, and whether that is secure. Raises NoAnswer."""
        return await self._found((name, dns.rdatatype.CNAME))

    async def pointers(self, address: str) -> Found:
        """Look up the names of an address (RFC 1035 3.5, RFC 3596 2.5). Raises NoAnswer."""
        return await self._found((_text(dns.reversename.from_address(address)), dns.rdatatype.PTR))

    async def addresses(self, host: str) -> Found:
        """Look up the addresses of a host, IPv6 and IPv4 in turn (RFC 5321 5.1). Raises NoAnswer.

        If only one of the two families can be answered, that will do; nobody makes a signed name an insecure one by
        keeping back one of them.
        """
        if host == "localhost":
            return Found(exists=True, addresses=_LOCALHOST)
        answers = await asyncio.gather(
            self._found((host, dns.rdatatype.AAAA)), self._found((host, dns.rdatatype.A)), return_exceptions=True
        )
        families: list[Found] = []
        failure: BaseException | None = None
        for answer in answers:
            if isinstance(answer, Found):
                families.append(answer)
            else:
                failure = answer
        mixed = tuple(_in_turn([each.addresses for each in families]))
        if failure is not None and not mixed:
            raise failure
        return Found(
            exists=any(each.exists for each in families),
            addresses=mixed,
            secure=all(each.secure for each in families),
            canonical=families[0].canonical,
        )

    async def close(self) -> None:
        """Give up what is being asked."""
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _knows(self, question: _Question) -> bool:
        until, _ = self._cache.get(question, (0.0, ""))
        return until > self._clock.monotonic()

    async def _found(self, question: _Question) -> Found:
        cached = self._cache.get(question)
        if cached is not None and cached[0] > self._clock.monotonic():
            answer = cached[1]
        else:
            task = self._asking.get(question)
            if task is None:
                task = asyncio.create_task(self._ask(question), name=f"dns {question[0]}")
                self._asking[question] = task
                task.add_done_callback(lambda _: self._asking.pop(question, None))
            answer = await asyncio.shield(task)  # one who asks may give up; the others still want to know
        if isinstance(answer, str):
            raise NoAnswer(answer)
        return answer

    async def _ask(self, question: _Question) -> Found | str:
        answer: Found | str
        try:
            answer, ttl = await self._query(question)
        except (dns.exception.DNSException, OSError) as error:
            answer, ttl = f"{type(error).__name__}: {error}", FAILURE_TTL
            log.info("dns=failed name=%r type=%s error=%r", question[0], question[1].name, answer)
        self._let_go(question)
        self._cache[question] = (self._clock.monotonic() + ttl, answer)
        self._octets += _octets(answer)
        while len(self._cache) > CACHED or self._octets > OCTETS:
            self._let_go(next(iter(self._cache)))
        return answer

    def _let_go(self, question: _Question) -> None:
        gone = self._cache.pop(question, None)
        if gone is not None:
            self._octets -= _octets(gone[1])

    async def _query(self, question: _Question) -> tuple[Found, float]:
        name, kind = question
        try:
            absolute = dns.name.from_text(name, origin=dns.name.root)
        except dns.exception.DNSException:  # a label of 64 octets, an empty one: no such name can exist
            return Found(exists=False), TTL_LIMIT
        try:
            answer = await self._dns.resolve(absolute, kind, raise_on_no_answer=False, search=False)
        except dns.resolver.NXDOMAIN as absent:
            found = Found(exists=False, secure=all(map(self._secure, _responses(absent))))
            return found, min(_negative_ttl(absent), NEGATIVE_TTL_LIMIT)
        found = Found(
            exists=True,
            secure=self._secure(answer.response),
            canonical="" if answer.canonical_name == absolute else _text(answer.canonical_name),
        )
        records = answer.rrset
        if records is None:
            return found, min(answer.chaining_result.minimum_ttl, NEGATIVE_TTL_LIMIT)
        ttl = min(answer.chaining_result.minimum_ttl, TTL_LIMIT)
        return msgspec.structs.replace(found, **_values(kind, records)), ttl

    def _secure(self, response: dns.message.Message) -> bool:
        return self.validating and bool(response.flags & dns.flags.AD)


def _values(kind: dns.rdatatype.RdataType, records: Iterable[Any]) -> dict[str, Any]:
    """Read the records of an answer into the field of Found that is theirs."""
    if kind is dns.rdatatype.MX:
        best = sorted(map(_exchanger, records), key=lambda each: each.preference)[:RECORDS_LIMIT]
        return {"exchangers": tuple(best)}
    some = islice(records, RECORDS_LIMIT)
    if kind is dns.rdatatype.TXT:
        return {"texts": tuple([b"".join(each.strings) for each in some])}
    if kind is dns.rdatatype.CNAME:
        return {"canonical": _text(next(iter(records)).target)}
    if kind is dns.rdatatype.TLSA:
        return {"tlsa": tuple([Tlsa(each.usage, each.selector, each.mtype, each.cert) for each in some])}
    if kind is dns.rdatatype.PTR:
        return {"names": tuple([_text(each.target) for each in some])}
    return {"addresses": tuple([each.address for each in some])}


def _octets(answer: Found | str) -> int:
    if isinstance(answer, str):
        return len(answer)
    said = [*answer.texts, *[each.data for each in answer.tlsa], *[each.host for each in answer.exchangers]]
    said += [*answer.addresses, *answer.names]
    return _ITEM + sum([len(each) + _ITEM for each in said])


def _stub(settings: Dns) -> dns.asyncresolver.Resolver:
    try:
        stub = dns.asyncresolver.Resolver(configure=not settings.servers)
    except dns.resolver.NoResolverConfiguration:  # routes to addresses need none
        stub = dns.asyncresolver.Resolver(configure=False)
    if settings.servers:
        stub.nameservers = [dns.nameserver.Do53Nameserver(each.host, each.port) for each in settings.servers]
    stub.lifetime = settings.timeout
    stub.timeout = settings.timeout / _ROUNDS
    stub.use_edns(0, 0, _UDP_PAYLOAD)
    return stub


def _addresses_of(stub: dns.asyncresolver.Resolver) -> list[str]:
    return [each if isinstance(each, str) else each.answer_nameserver() for each in stub.nameservers]


def _exchanger(record: dns.rdtypes.ANY.MX.MX) -> Exchanger:
    return Exchanger(record.preference, _text(record.exchange).removeprefix("."))


def _text(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True).lower()


def _negative_ttl(absent: dns.resolver.NXDOMAIN) -> float:
    """Read how long there will be no such name (RFC 2308 5)."""
    return min((each.resolve_chaining().minimum_ttl for each in _responses(absent)), default=0)


def _responses(absent: dns.resolver.NXDOMAIN) -> list[dns.message.QueryMessage]:
    responses: dict[dns.name.Name, dns.message.QueryMessage] = absent.kwargs.get("responses", {})
    return list(responses.values())


def _in_turn(families: list[tuple[str, ...]]) -> Iterator[str]:
    for number in range(max(map(len, families), default=0)):
        for family in families:
            if number < len(family):
                yield str(ipaddress.ip_address(family[number]))
