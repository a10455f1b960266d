"""An authoritative DNS server on loopback for the names under `test.` (RFC 1035, RFC 2606), that fails on demand.

`Zone` is what the names hold and how a query is answered, without I/O; `DnsServer` speaks for it over UDP
and TCP on one port. Names outside `test.` are refused: this is no resolver.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Iterator
from enum import Enum, auto
from typing import cast

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.txtbase
import dns.rrset

from mta.config import HostPort
from mta.mail.address import a_label

log = logging.getLogger(__name__)

TTL = 5  # seconds; short, for what a test changes has to be seen
UDP_PAYLOAD = 1232  # octets answered to a client whose EDNS allows more (RFC 6891 6.2.5)
_ROOT = dns.name.from_text("test.")
_SOA = dns.rdata.from_text("IN", "SOA", f"ns.lab.test. hostmaster.lab.test. 1 3600 600 86400 {TTL}")
_CNAME_CHAIN = 8
_REMEMBERED = 10_000  # queries
_BINDS = 20  # ports to try until one is free for UDP and TCP alike


class Failure(Enum):
    """How the answers for a name go wrong. TRUNCATED is over UDP alone: the client has to ask over TCP."""

    SERVFAIL = auto()
    NXDOMAIN = auto()
    REFUSED = auto()
    NO_ANSWER = auto()
    TRUNCATED = auto()


class Zone:
    """The names under `test.`: their records, their failures, and what was asked of them.

    Every name without MX records of its own (and without an underscore, as of `_dmarc`) has `wildcard_mx`,
    unless that is None. `outage` leaves every query without an answer. Names may be U-labels. What is said to be
    secure comes with the AD bit, as from a resolver that has validated it: nothing here is signed.
    """

    def __init__(self, wildcard_mx: str | None = None) -> None:
        self.wildcard_mx = wildcard_mx
        self.outage = False
        self.total = 0
        self._records: dict[dns.name.Name, dict[dns.rdatatype.RdataType, dns.rrset.RRset]] = {}
        self._failures: dict[dns.name.Name, Failure] = {}
        self._secure: set[dns.name.Name] = set()
        self._asked: deque[tuple[dns.name.Name, dns.rdatatype.RdataType]] = deque(maxlen=_REMEMBERED)

    def set(self, name: str, record_type: str, *values: str, ttl: int = TTL) -> None:
        """Replace the records of one type by `values` in master file form; none: the name has no such record.

        A null MX (RFC 7505) is `set(name, "MX", "0 .")`. Host names within values end with a dot.
        """
        owner, kind = _name(name), dns.rdatatype.from_text(record_type)
        records = dns.rrset.RRset(owner, dns.rdataclass.IN, kind)
        records.update_ttl(ttl)
        for value in values:
            records.add(dns.rdata.from_text(dns.rdataclass.IN, kind, value))
        self._records.setdefault(owner, {})[kind] = records

    def set_txt(self, name: str, *texts: str) -> None:
        """Replace the TXT records of `name`, each text in strings of 255 octets (a DKIM key as it is published)."""
        self.set(name, "TXT", *(_quoted(text) for text in texts))

    def texts(self, name: str) -> list[bytes]:
        """Return the TXT records of any name, the strings of each joined (RFC 6376 3.6.2.2)."""
        try:
            records = self._records.get(_name(name), {}).get(dns.rdatatype.TXT, ())
        except ValueError:
            return []
        return [b"".join(each.strings) for each in records if isinstance(each, dns.rdtypes.txtbase.TXTBase)]

    def fail(self, name: str, failure: Failure | None) -> None:
        """Let every query for exactly `name` fail from now on; None heals it."""
        if failure is None:
            self._failures.pop(_name(name), None)
        else:
            self._failures[_name(name)] = failure

    def secure(self, *names: str) -> None:
        """Let answers about these names and all below them carry AD, absence too, and no others from now on.

        An answer that a CNAME leads out of them does not have it. A name that is bogus fails with SERVFAIL.
        """
        self._secure = {_name(name) for name in names}

    def asked(self, name: str, record_type: str) -> int:
        """Count the queries for a name and type among the last 10,000."""
        return self._asked.count((_name(name), dns.rdatatype.from_text(record_type)))

    def answer(self, wire: bytes, *, tcp: bool) -> bytes | None:
        """Answer a query as it came from the wire; None where there is to be no answer."""
        try:
            query = dns.message.from_wire(wire)
        except (dns.exception.DNSException, ValueError):
            return None
        if query.flags & dns.flags.QR or self.outage:
            return None
        response = dns.message.make_response(query, our_payload=UDP_PAYLOAD)
        failure = self._fill(query, response)
        if failure is Failure.NO_ANSWER:
            return None
        if tcp:
            return response.to_wire(max_size=65535)
        # RFC 6891 6.2.3: without EDNS a client takes 512 octets
        limit = min(max(query.payload, 512), UDP_PAYLOAD)
        try:
            if failure is not Failure.TRUNCATED:
                return response.to_wire(max_size=limit)
        except dns.exception.TooBig:
            pass
        response.answer.clear()
        response.flags |= dns.flags.TC
        return response.to_wire()

    def _fill(self, query: dns.message.Message, response: dns.message.Message) -> Failure | None:
        """Write the answer to `query` into `response`; return the failure its name is to suffer."""
        if query.opcode() != dns.opcode.QUERY:
            response.set_rcode(dns.rcode.NOTIMP)
            return None
        if len(query.question) != 1:
            response.set_rcode(dns.rcode.FORMERR)
            return None
        question = query.question[0]
        self.total += 1
        self._asked.append((question.name, question.rdtype))
        failure = self._failures.get(question.name)
        inside = question.name.is_subdomain(_ROOT) and question.rdclass == dns.rdataclass.IN
        if failure is Failure.SERVFAIL:
            response.set_rcode(dns.rcode.SERVFAIL)
        elif failure is Failure.REFUSED or not inside:
            response.set_rcode(dns.rcode.REFUSED)
        else:
            response.flags |= dns.flags.AA
            if query.flags & dns.flags.AD or query.ednsflags & dns.flags.DO:  # RFC 6840 5.7
                response.flags |= dns.flags.AD
            self._look_up(question, response, absent=failure is Failure.NXDOMAIN)
        return failure

    def _look_up(self, question: dns.rrset.RRset, response: dns.message.Message, *, absent: bool) -> None:
        name = question.name
        for _ in range(_CNAME_CHAIN):
            if not any(name.is_subdomain(each) for each in self._secure):
                response.flags &= ~dns.flags.AD
            if absent or (found := self._at(name)) is None:
                response.set_rcode(dns.rcode.NXDOMAIN)
                break
            alias = found.get(dns.rdatatype.CNAME)
            if records := found.get(question.rdtype):
                response.answer.append(records)
                return
            if not alias:
                break
            response.answer.append(alias)
            name = alias[0].target
            if not name.is_subdomain(_ROOT):
                response.flags &= ~dns.flags.AD
                return
        # RFC 2308 3: the SOA tells for how long there is no such name or record
        response.authority.append(dns.rrset.from_rdata(_ROOT, TTL, _SOA))

    def _at(self, name: dns.name.Name) -> dict[dns.rdatatype.RdataType, dns.rrset.RRset] | None:
        """Return what there is at a name; None if there is no such name."""
        own = self._records.get(name)
        if self.wildcard_mx is None or any(label.startswith(b"_") for label in name.labels):
            return own
        if own is not None and (dns.rdatatype.MX in own or dns.rdatatype.CNAME in own):
            return own
        wildcard = dns.rrset.from_text(name, TTL, "IN", "MX", f"10 {self.wildcard_mx}.")
        return {**(own or {}), dns.rdatatype.MX: wildcard}


class DnsServer:
    """Answers for a zone at one loopback address; port 0 is the system's choice, and kept over a restart."""

    def __init__(self, zone: Zone, host: str = "127.0.0.1", port: int = 0) -> None:
        self.zone = zone
        self.address = HostPort(host=host, port=port)
        self._udp: _Udp | None = None
        self._tcp: asyncio.Server | None = None
        self._clients: set[asyncio.Transport] = set()

    async def start(self) -> None:
        """Begin to answer; OSError if the port is taken."""
        attempts = 1 if self.address.port else _BINDS
        while True:
            try:
                await self._bind()
                break
            except OSError:
                await self.close()
                attempts -= 1
                if not attempts:
                    raise
        log.info("lab=dns address=%s", self.address)

    async def _bind(self) -> None:
        loop = asyncio.get_running_loop()
        host, port = self.address.host, self.address.port
        transport, self._udp = await loop.create_datagram_endpoint(lambda: _Udp(self.zone), local_addr=(host, port))
        chosen = transport.get_extra_info("sockname")[1]
        self._tcp = await loop.create_server(lambda: _Tcp(self.zone, self._clients), host, chosen)
        self.address = HostPort(host=host, port=chosen)

    async def close(self) -> None:
        """Stop answering and hang up; the port is free on return."""
        if self._udp is not None:
            await self._udp.close()
            self._udp = None
        if self._tcp is not None:
            self._tcp.close()
            for client in list(self._clients):
                client.abort()
            await self._tcp.wait_closed()
            self._tcp = None


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, zone: Zone) -> None:
        self._zone = zone
        self._closed = asyncio.Event()
        self._transport: asyncio.DatagramTransport

    async def close(self) -> None:
        self._transport.close()
        await self._closed.wait()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the signature is asyncio's
        self._closed.set()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        answer = self._zone.answer(data, tcp=False)
        if answer is not None:
            self._transport.sendto(answer, addr)


class _Tcp(asyncio.Protocol):
    """Messages with their length before them (RFC 1035 4.2.2); the client hangs up."""

    def __init__(self, zone: Zone, clients: set[asyncio.Transport]) -> None:
        self._zone = zone
        self._clients = clients
        self._buffer = bytearray()
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._clients.add(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the signature is asyncio's
        self._clients.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        for message in self._messages():
            answer = self._zone.answer(message, tcp=True)
            if answer is not None:
                self._transport.write(len(answer).to_bytes(2, "big") + answer)

    def _messages(self) -> Iterator[bytes]:
        while len(self._buffer) >= 2:
            end = 2 + int.from_bytes(self._buffer[:2], "big")
            if len(self._buffer) < end:
                return
            message = bytes(self._buffer[2:end])
            del self._buffer[:end]
            yield message


def _name(text: str) -> dns.name.Name:
    """Return the absolute name; ValueError if it is not under `test.`."""
    try:
        name = dns.name.from_text(a_label(text.rstrip(".")))
    except dns.exception.DNSException as error:
        raise ValueError(f"{text} is not a name: {error}") from None
    if not name.is_subdomain(_ROOT):
        raise ValueError(f"{text} is not under test.")
    return name


def _quoted(text: str) -> str:
    strings = [text[start : start + 255] for start in range(0, len(text), 255)] or [""]
    return " ".join('"' + each.replace("\\", "\\\\").replace('"', '\\"') + '"' for each in strings)
