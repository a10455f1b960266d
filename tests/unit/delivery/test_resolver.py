"""The resolver against a DNS server on loopback: what is absent is told apart from what is not answered."""

import asyncio

import dns.rcode
import dns.rdatatype
import pytest
import uvloop

from mta.config import Dns, HostPort
from mta.delivery import resolver as resolving
from mta.delivery.policy import Tlsa
from mta.delivery.resolver import FAILURE_TTL, TTL_LIMIT, Exchanger, Found, NoAnswer, Resolver
from tests.unit.delivery.peers import DnsPeer


class Clock:
    def __init__(self) -> None:
        self.at = 0.0

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at


RECORDS = {
    ("a.test", "MX"): ["20 MX2.test.", "10 mx1.test."],
    ("null.test", "MX"): ["0 ."],
    ("mx1.test", "A"): ["192.0.2.1", "192.0.2.2", "192.0.2.3"],
    ("mx1.test", "AAAA"): ["2001:db8::1", "2001:db8::2"],
    ("mx2.test", "A"): ["192.0.2.4"],
    ("alias.test", "CNAME"): ["mx2.test."],
    ("loop.test", "CNAME"): ["loop.test."],
}


async def ask(peer, method, name, clock=None):
    resolver = Resolver(peer.settings, clock or Clock())
    try:
        return await getattr(resolver, method)(name)
    finally:
        await resolver.close()


async def test_exchangers_and_addresses():
    async with DnsPeer(RECORDS) as peer:
        found = await ask(peer, "exchangers", "a.test")
        assert set(found.exchangers) == {Exchanger(10, "mx1.test"), Exchanger(20, "mx2.test")}
        assert (await ask(peer, "exchangers", "null.test")).exchangers == (Exchanger(0, ""),)
        addresses = (await ask(peer, "addresses", "mx1.test")).addresses
        assert set(addresses) == set(RECORDS["mx1.test", "A"] + RECORDS["mx1.test", "AAAA"])
        assert [":" in each for each in addresses] == [True, False, True, False, False]
        assert (await ask(peer, "addresses", "alias.test")).addresses == ("192.0.2.4",)


@pytest.mark.parametrize(
    ("kind", "record", "method"),
    [("TXT", " ".join(['"' + "x" * 250 + '"'] * 100), "texts"), ("TLSA", "2 0 0 " + "ab" * 25_000, "tlsa")],
)
async def test_large_answers_of_strangers_are_kept_within_bounds(monkeypatch, kind, record, method):
    """Red when only their number is bounded: one zone has as many names as somebody can be made to ask for."""
    monkeypatch.setattr(resolving, "OCTETS", 100_000)
    names = [f"{number}.test" for number in range(8)]
    async with DnsPeer({(name, kind): [record] for name in names}) as peer:
        resolver = Resolver(peer.settings, Clock())
        for _ in range(2):  # what is asked for anew does not count twice
            for name in names:
                peer.truncated.add(name)
                await getattr(resolver, method)(name)
        asked = len(peer.asked)
        await getattr(resolver, method)(names[-1])
        assert len(peer.asked) == asked
        kept = [resolver._knows((name, dns.rdatatype.from_text(kind))) for name in names]
        assert kept == [False] * 5 + [True] * 3
        await resolver.close()


async def test_absence_is_an_answer():
    async with DnsPeer(RECORDS) as peer:
        assert await ask(peer, "exchangers", "mx1.test") == Found(exists=True)
        assert await ask(peer, "exchangers", "nowhere.test") == Found(exists=False)
        assert await ask(peer, "addresses", "nowhere.test") == Found(exists=False)
        assert await ask(peer, "exchangers", "x" * 64 + ".test") == Found(exists=False)
        assert await ask(peer, "exchangers", "a..test") == Found(exists=False)


async def test_texts_and_tlsa():
    records = {
        ("_mta-sts.a.test", "TXT"): ['"v=STSv1; " "id=1"', '"other"'],
        ("_25._tcp.mx1.test", "TLSA"): ["3 1 1 " + "ab" * 32],
    }
    async with DnsPeer(records) as peer:
        assert set((await ask(peer, "texts", "_mta-sts.a.test")).texts) == {b"v=STSv1; id=1", b"other"}
        assert (await ask(peer, "tlsa", "_25._tcp.mx1.test")).tlsa == (Tlsa(3, 1, 1, b"\xab" * 32),)
        assert await ask(peer, "tlsa", "_25._tcp.mx2.test") == Found(exists=False)


async def test_the_names_of_an_address():
    six = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"
    records = {("1.2.0.192.in-addr.arpa", "PTR"): ["A.test.", "b.test."], (six, "PTR"): ["c.test."]}
    async with DnsPeer(records) as peer:
        assert set((await ask(peer, "pointers", "192.0.2.1")).names) == {"a.test", "b.test"}
        assert (await ask(peer, "pointers", "2001:db8::1")).names == ("c.test",)
        assert await ask(peer, "pointers", "192.0.2.2") == Found(exists=False)


async def test_a_cname_says_where_it_led():
    async with DnsPeer(RECORDS) as peer:
        assert (await ask(peer, "addresses", "alias.test")).canonical == "mx2.test"
        assert (await ask(peer, "addresses", "mx2.test")).canonical == ""
        assert await ask(peer, "alias", "alias.test") == Found(exists=True, canonical="mx2.test")
        assert await ask(peer, "alias", "mx2.test") == Found(exists=True)


async def test_what_a_trusted_resolver_has_validated_is_secure():
    async with DnsPeer(RECORDS) as peer:
        peer.secure |= {"a.test", "nowhere.test", "mx1.test"}
        assert (await ask(peer, "exchangers", "a.test")).secure
        assert (await ask(peer, "addresses", "mx1.test")).secure
        assert (await ask(peer, "tlsa", "nowhere.test")).secure  # that there is none
        assert not (await ask(peer, "exchangers", "null.test")).secure


async def test_nobody_else_is_believed():
    """One server of several that is not named is enough: it could be the one that says there is no such name."""
    async with DnsPeer(RECORDS) as peer:
        peer.secure.add("a.test")
        trusting, other = peer.settings, HostPort(host="192.0.2.53", port=53)
        for settings in (
            trusting.model_copy(update={"trust_ad": ()}),
            trusting.model_copy(update={"servers": (*trusting.servers, other)}),
        ):
            resolver = Resolver(settings, Clock())
            assert not resolver.validating
            assert not (await resolver.exchangers("a.test")).secure
            await resolver.close()


@pytest.mark.parametrize("rcode", [dns.rcode.SERVFAIL, dns.rcode.REFUSED, dns.rcode.NOTIMP, dns.rcode.FORMERR])
async def test_a_failure_is_none(rcode):
    async with DnsPeer(RECORDS) as peer:
        peer.rcodes["a.test"] = rcode
        with pytest.raises(NoAnswer):
            await ask(peer, "exchangers", "a.test")


async def test_silence_a_cname_loop_and_nobody_there_are_none(unused_udp_port):
    async with DnsPeer(RECORDS) as peer:
        peer.silent.add("a.test")
        for name in ("a.test", "loop.test"):
            with pytest.raises(NoAnswer):
                await asyncio.wait_for(ask(peer, "exchangers", name), 2)
    resolver = Resolver(Dns(servers=(f"127.0.0.1:{unused_udp_port}",), timeout=0.2), Clock())
    with pytest.raises(NoAnswer):
        await asyncio.wait_for(resolver.exchangers("a.test"), 2)
    await resolver.close()


async def test_one_family_will_do():
    async with DnsPeer({("half.test", "A"): ["192.0.2.9"]}) as peer:
        answer = peer.answer

        def without_aaaa(wire, over):
            return None if b"\x00\x1c\x00\x01" in wire else answer(wire, over)

        peer.answer = without_aaaa
        assert (await ask(peer, "addresses", "half.test")).addresses == ("192.0.2.9",)
        with pytest.raises(NoAnswer):  # no IPv4 address, and nobody knows of IPv6
            await ask(peer, "addresses", "nowhere.test")


async def test_truncation_goes_on_over_tcp():
    async with DnsPeer(RECORDS) as peer:
        peer.truncated.add("a.test")
        assert len((await ask(peer, "exchangers", "a.test")).exchangers) == 2
        assert [over for _, _, over in peer.asked] == ["udp", "tcp"]


async def test_which_texts_a_name_has_is_known_for_their_ttl_or_that_nobody_says():
    clock = Clock()
    async with DnsPeer({("a.test", "TXT"): ['"one"']}, ttl=60) as peer:
        peer.rcodes["b.test"] = dns.rcode.SERVFAIL
        resolver = Resolver(peer.settings, clock)
        assert not resolver.knows_texts("a.test")
        await resolver.texts("a.test")
        with pytest.raises(NoAnswer):
            await resolver.texts("b.test")
        for at, known in ((0, (True, True)), (FAILURE_TTL, (True, False)), (59, (True, False)), (60, (False, False))):
            clock.at = at
            assert (resolver.knows_texts("a.test"), resolver.knows_texts("b.test")) == known
        await resolver.close()


async def test_an_answer_is_kept_for_its_ttl():
    clock = Clock()
    async with DnsPeer(RECORDS, ttl=60) as peer:
        resolver = Resolver(peer.settings, clock)
        for at, asked in ((0, 1), (59, 1), (61, 2)):
            clock.at = at
            assert resolver.knows("a.test") is (at == 59)
            assert not resolver.knows_texts("a.test")
            assert (await resolver.exchangers("a.test")).exchangers
            assert len(peer.asked) == asked
        peer.ttl = 10**6
        clock.at = 1000
        await resolver.exchangers("a.test")
        clock.at += TTL_LIMIT + 1
        await resolver.exchangers("a.test")
        assert len(peer.asked) == 4
        peer.ttl = 0
        for _ in range(2):
            await resolver.exchangers("null.test")
        assert len(peer.asked) == 6
        await resolver.close()


@pytest.mark.parametrize("name", ["nowhere.test", "mx1.test"])
async def test_absence_is_kept_as_long_as_the_soa_says(name):
    clock = Clock()
    async with DnsPeer(RECORDS, ttl=3600) as peer:
        resolver = Resolver(peer.settings, clock)
        for at, asked in ((0, 1), (29, 1), (31, 2)):
            clock.at = at
            await resolver.exchangers(name)
            assert len(peer.asked) == asked
        await resolver.close()


async def test_a_failure_is_kept_for_a_moment():
    clock = Clock()
    async with DnsPeer(RECORDS) as peer:
        peer.rcodes["a.test"] = dns.rcode.SERVFAIL
        resolver = Resolver(peer.settings, clock)
        for _ in range(3):
            with pytest.raises(NoAnswer):
                await resolver.exchangers("a.test")
        asked = len(peer.asked)
        del peer.rcodes["a.test"]
        clock.at = FAILURE_TTL + 0.1
        assert (await resolver.exchangers("a.test")).exchangers
        assert len(peer.asked) == asked + 1
        await resolver.close()


async def test_many_ask_once_and_one_may_give_up():
    async with DnsPeer(RECORDS) as peer:
        peer.hold = asyncio.Event()
        resolver = Resolver(peer.settings, Clock())
        tasks = [asyncio.create_task(resolver.exchangers("a.test")) for _ in range(50)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        peer.hold.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(answers[0], asyncio.CancelledError)
        assert all(isinstance(each, Found) for each in answers[1:])
        assert len(peer.asked) == 1
        await resolver.close()


async def test_localhost_is_never_asked_for():
    async with DnsPeer() as peer:
        assert (await ask(peer, "addresses", "localhost")).addresses == ("::1", "127.0.0.1")
        assert peer.asked == []


def test_the_same_on_uvloop():
    async def run():
        async with DnsPeer(RECORDS) as peer:
            peer.truncated.add("a.test")
            assert len((await ask(peer, "exchangers", "a.test")).exchangers) == 2
            assert len((await ask(peer, "addresses", "mx1.test")).addresses) == 5

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


async def test_of_a_thousand_records_the_best_are_kept():
    many = [f"{1000 - number} mx{number}.test." for number in range(1000)]
    addresses = [f"192.0.2.{number}" for number in range(250)]
    async with DnsPeer({("many.test", "MX"): many, ("many.test", "A"): addresses}) as peer:
        found = await ask(peer, "exchangers", "many.test")
        assert {each.preference for each in found.exchangers} == set(range(1, 101))
        assert len((await ask(peer, "addresses", "many.test")).addresses) == 100
