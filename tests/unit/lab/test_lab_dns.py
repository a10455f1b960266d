"""The DNS server, asked over real sockets by dnspython."""

import asyncio
import socket
from collections.abc import AsyncIterator

import dns.asyncquery
import dns.asyncresolver
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.resolver
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.lab.dns import DnsServer, Failure, Zone


@pytest.fixture
async def server() -> AsyncIterator[DnsServer]:
    server = DnsServer(Zone(wildcard_mx="mx1.lab.test"))
    server.zone.set("mx1.lab.test", "A", "127.0.0.1")
    await server.start()
    yield server
    await server.close()


def query(name: str, kind: str = "MX", payload: int = 0) -> dns.message.QueryMessage:
    return dns.message.make_query(name, kind, use_edns=0 if payload else -1, payload=payload)


async def udp(server: DnsServer, asked: dns.message.Message, timeout: float = 5) -> dns.message.Message:
    return await dns.asyncquery.udp(asked, server.address.host, timeout=timeout, port=server.address.port)


async def tcp(server: DnsServer, asked: dns.message.Message, timeout: float = 5) -> dns.message.Message:
    return await dns.asyncquery.tcp(asked, server.address.host, timeout=timeout, port=server.address.port)


def records(response: dns.message.Message) -> list[str]:
    return sorted(record.to_text() for answer in response.answer for record in answer)


def resolver(server: DnsServer) -> dns.asyncresolver.Resolver:
    made = dns.asyncresolver.Resolver(configure=False)
    made.nameservers = [server.address.host]
    made.port = server.address.port
    made.lifetime = 5
    return made


async def test_every_domain_has_its_mail_at_the_lab(server: DnsServer) -> None:
    for asked in (await udp(server, query("any.test")), await tcp(server, query("Some.Other.TEST"))):
        assert [record.lower() for record in records(asked)] == ["10 mx1.lab.test."]
        assert asked.flags & dns.flags.AA
    assert records(await udp(server, query("mx1.lab.test", "A"))) == ["127.0.0.1"]


async def test_a_name_without_such_records_exists_and_says_for_how_long(server: DnsServer) -> None:
    response = await udp(server, query("any.test", "A"))
    assert (response.rcode(), records(response)) == (dns.rcode.NOERROR, [])
    assert [answer.rdtype.name for answer in response.authority] == ["SOA"]
    for name in ("_dmarc.any.test", "s1._domainkey.any.test"):
        response = await udp(server, query(name, "TXT"))
        assert response.rcode() == dns.rcode.NXDOMAIN
        assert [answer.rdtype.name for answer in response.authority] == ["SOA"]


async def test_records_of_its_own_come_instead(server: DnsServer) -> None:
    zone = server.zone
    zone.set("two.test", "MX", "10 a.two.test.", "20 b.two.test.")
    zone.set("a.two.test", "AAAA", "::1", ttl=77)
    zone.set("null.test", "MX", "0 .")
    zone.set("implicit.test", "MX")
    zone.set("implicit.test", "A", "127.0.0.3")
    zone.set("text.test", "TXT", '"v=spf1 -all"')
    assert records(await udp(server, query("two.test"))) == ["10 a.two.test.", "20 b.two.test."]
    aaaa = await udp(server, query("a.two.test", "AAAA"))
    assert (records(aaaa), aaaa.answer[0].ttl) == (["::1"], 77)
    assert records(await udp(server, query("null.test"))) == ["0 ."]
    assert records(await udp(server, query("implicit.test"))) == []
    assert records(await udp(server, query("implicit.test", "A"))) == ["127.0.0.3"]
    assert records(await udp(server, query("text.test"))) == ["10 mx1.lab.test."]
    zone.set("two.test", "MX", "5 c.two.test.")
    assert records(await udp(server, query("two.test"))) == ["5 c.two.test."]
    zone.wildcard_mx = None
    assert (await udp(server, query("any.test"))).rcode() == dns.rcode.NXDOMAIN


async def test_names_may_be_given_as_u_labels(server: DnsServer) -> None:
    server.zone.set("bücher.test", "MX", "10 b.test.")
    assert records(await udp(server, query("xn--bcher-kva.test"))) == ["10 b.test."]


async def test_aliases_are_followed_within_the_zone(server: DnsServer) -> None:
    zone = server.zone
    zone.set("alias.test", "CNAME", "real.test.")
    zone.set("real.test", "A", "127.0.0.9")
    zone.set("out.test", "CNAME", "example.com.")
    zone.set("to-nowhere.test", "CNAME", "_gone.test.")
    zone.set("loop.test", "CNAME", "loop.test.")
    assert records(await udp(server, query("alias.test", "A"))) == ["127.0.0.9", "real.test."]
    assert records(await udp(server, query("alias.test", "MX"))) == ["10 mx1.lab.test.", "real.test."]
    assert records(await udp(server, query("alias.test", "CNAME"))) == ["real.test."]
    assert records(await udp(server, query("out.test", "A"))) == ["example.com."]
    assert (await udp(server, query("to-nowhere.test", "A"))).rcode() == dns.rcode.NXDOMAIN
    assert (await udp(server, query("loop.test", "A"))).rcode() == dns.rcode.NOERROR
    answer = await resolver(server).resolve("alias.test", "A")
    assert answer.canonical_name == dns.name.from_text("real.test.")


@pytest.mark.parametrize(
    ("failure", "rcode"),
    [
        (Failure.SERVFAIL, dns.rcode.SERVFAIL),
        (Failure.NXDOMAIN, dns.rcode.NXDOMAIN),
        (Failure.REFUSED, dns.rcode.REFUSED),
    ],
)
async def test_a_name_fails_as_told_until_healed(server: DnsServer, failure: Failure, rcode: dns.rcode.Rcode) -> None:
    server.zone.fail("bad.test", failure)
    for response in (await udp(server, query("bad.test")), await tcp(server, query("bad.test", "A"))):
        assert (response.rcode(), records(response)) == (rcode, [])
    assert records(await udp(server, query("good.test"))) == ["10 mx1.lab.test."]
    server.zone.fail("bad.test", None)
    assert records(await udp(server, query("bad.test"))) == ["10 mx1.lab.test."]


async def test_no_answer_and_outage(server: DnsServer) -> None:
    server.zone.fail("mute.test", Failure.NO_ANSWER)
    for ask in (udp, tcp):
        with pytest.raises(dns.exception.Timeout):
            await ask(server, query("mute.test"), 0.1)
    assert records(await udp(server, query("any.test"))) == ["10 mx1.lab.test."]
    server.zone.outage = True
    for ask in (udp, tcp):
        with pytest.raises(dns.exception.Timeout):
            await ask(server, query("any.test"), 0.1)
    server.zone.outage = False
    assert records(await udp(server, query("any.test"))) == ["10 mx1.lab.test."]


async def test_what_is_told_to_be_secure_says_so_to_whoever_asks(server: DnsServer) -> None:
    zone = server.zone
    zone.set("mx.signed.test", "A", "127.0.0.2")
    zone.set("alias.signed.test", "CNAME", "mx1.lab.test.")
    zone.set("inner.signed.test", "CNAME", "mx.signed.test.")
    zone.set("outer.signed.test", "CNAME", "example.com.")
    zone.secure("signed.test")

    async def says_so(name: str, flags: int = dns.flags.RD | dns.flags.AD, **options: bool) -> bool:
        response = await udp(server, dns.message.make_query(name, "A", flags=flags, **options))
        return bool(response.flags & dns.flags.AD)

    for name in ("mx.signed.test", "signed.test", "nowhere.signed.test", "inner.signed.test"):
        assert await says_so(name)
        assert await says_so(name, flags=dns.flags.RD, want_dnssec=True)
        assert not await says_so(name, flags=dns.flags.RD)
    for name in ("mx1.lab.test", "nowhere.test", "unsigned.test", "alias.signed.test", "outer.signed.test"):
        assert not await says_so(name)
    zone.fail("mx.signed.test", Failure.SERVFAIL)
    assert not await says_so("mx.signed.test")
    zone.secure()
    assert not await says_so("inner.signed.test")


async def test_truncated_answers_come_whole_over_tcp(server: DnsServer) -> None:
    server.zone.fail("short.test", Failure.TRUNCATED)
    first = await udp(server, query("short.test"))
    assert first.flags & dns.flags.TC
    assert records(first) == []
    assert records(await tcp(server, query("short.test"))) == ["10 mx1.lab.test."]
    answer = await resolver(server).resolve("short.test", "MX")
    assert [record.to_text() for record in answer] == ["10 mx1.lab.test."]


async def test_an_answer_too_big_for_its_client_is_truncated(server: DnsServer) -> None:
    server.zone.set_txt("long.test", "x" * 700)
    asked = [query("long.test", "TXT"), query("long.test", "TXT", payload=1232)]
    small, edns = [await udp(server, each) for each in asked]
    assert small.flags & dns.flags.TC
    assert not edns.flags & dns.flags.TC
    server.zone.set_txt("long.test", "x" * 2000)
    assert (await udp(server, query("long.test", "TXT", payload=65535))).flags & dns.flags.TC
    assert len(records(await tcp(server, query("long.test", "TXT")))) == 1


@given(st.lists(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=600), max_size=3, unique=True))
def test_texts_come_back_as_they_were_set(texts: list[str]) -> None:
    zone = Zone()
    zone.set_txt("a.test", *texts)
    assert sorted(zone.texts("A.test.")) == sorted(text.encode() for text in texts)
    wire = zone.answer(query("a.test", "TXT").to_wire(), tcp=True)
    assert wire is not None
    answers = dns.message.from_wire(wire).answer
    found = [b"".join(record.strings) for answer in answers for record in answer]
    assert sorted(found) == sorted(text.encode() for text in texts)


async def test_there_is_nothing_outside_the_zone(server: DnsServer) -> None:
    assert (await udp(server, query("example.com"))).rcode() == dns.rcode.REFUSED
    assert (await udp(server, query("1.0.0.127.in-addr.arpa", "PTR"))).rcode() == dns.rcode.REFUSED
    assert server.zone.texts("example.com") == server.zone.texts("x" * 64 + ".test") == server.zone.texts("unset.test")
    for name in ("example.com", "x" * 64 + ".test", "nottest"):
        with pytest.raises(ValueError, match="not"):
            server.zone.set(name, "A", "127.0.0.1")


async def test_queries_are_counted(server: DnsServer) -> None:
    for _ in range(3):
        await udp(server, query("a.test"))
    await tcp(server, query("A.test", "A"))
    assert (server.zone.asked("a.test", "MX"), server.zone.asked("a.test", "A"), server.zone.total) == (3, 1, 4)


async def test_what_is_no_query_is_refused_or_ignored(server: DnsServer) -> None:
    notify = query("a.test")
    notify.set_opcode(dns.opcode.NOTIFY)
    assert (await udp(server, notify)).rcode() == dns.rcode.NOTIMP
    twice = query("a.test")
    twice.question = twice.question * 2
    wire = server.zone.answer(twice.to_wire(), tcp=False)
    assert wire is not None
    assert dns.message.from_wire(wire).rcode() == dns.rcode.FORMERR
    response = dns.message.make_response(query("a.test"))
    assert server.zone.answer(response.to_wire(), tcp=False) is None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"\x00garbage", (server.address.host, server.address.port))
    assert records(await udp(server, query("a.test"))) == ["10 mx1.lab.test."]


@given(st.binary(max_size=64), st.booleans())
def test_octets_that_are_no_message_do_no_harm(wire: bytes, tcp: bool) -> None:
    answer = Zone().answer(wire, tcp=tcp)
    assert answer is None or answer[:2] == wire[:2]


async def test_one_connection_may_ask_several_times_octet_by_octet(server: DnsServer) -> None:
    reader, writer = await asyncio.open_connection(server.address.host, server.address.port)
    wires = [query(name).to_wire() for name in ("a.test", "b.test")]
    for octet in b"".join(len(wire).to_bytes(2, "big") + wire for wire in wires):
        writer.write(bytes([octet]))
        await asyncio.sleep(0)
    for wire in wires:
        size = int.from_bytes(await reader.readexactly(2), "big")
        assert (await reader.readexactly(size))[:2] == wire[:2]
    writer.close()
    await writer.wait_closed()


async def test_a_server_keeps_its_port_over_a_restart_and_hangs_up_on_clients(server: DnsServer) -> None:
    address = server.address
    reader, writer = await asyncio.open_connection(address.host, address.port)
    await tcp(server, query("a.test"))
    await server.close()
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()
    await server.start()
    assert server.address == address
    assert records(await tcp(server, query("a.test"))) == ["10 mx1.lab.test."]


async def test_a_port_in_use_is_an_error(server: DnsServer) -> None:
    second = DnsServer(Zone(), port=server.address.port)
    with pytest.raises(OSError, match="in use"):
        await second.start()
    await second.close()
