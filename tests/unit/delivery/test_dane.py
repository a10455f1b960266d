"""Which TLSA records a host has, and which of them can be used (RFC 7672 2.2, RFC 7671 9)."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mta.clock import SystemClock
from mta.config import Dns
from mta.delivery.dane import dane_of, usable
from mta.delivery.policy import Dane, DaneState, Tlsa
from mta.delivery.resolver import Resolver
from mta.lab.dns import DnsServer, Failure, Zone

DIGEST = hashlib.sha256(b"a key").digest()
LONGER = hashlib.sha512(b"a key").digest()
GOOD = Tlsa(3, 1, 1, DIGEST)
TEXT = f"3 1 1 {DIGEST.hex()}"
ELEMENT = b"\x30\x03abc"
NONE = Dane()


@pytest.mark.parametrize("usage", [2, 3])
@pytest.mark.parametrize("selector", [0, 1])
@pytest.mark.parametrize(("matching_type", "data"), [(0, ELEMENT), (1, DIGEST), (2, LONGER)])
def test_dane_records_that_can_be_used(usage, selector, matching_type, data):
    record = Tlsa(usage, selector, matching_type, data)
    assert usable([record]) == (record,)
    for odd in (b"", data[:-1], data + b"\0"):
        assert usable([Tlsa(usage, selector, matching_type, odd)]) == ()


def test_dane_records_for_authorities_or_of_unknown_kinds_cannot():
    others = [Tlsa(0, 1, 1, DIGEST), Tlsa(1, 1, 1, DIGEST), Tlsa(4, 1, 1, DIGEST), Tlsa(255, 1, 1, DIGEST)]
    others += [Tlsa(3, 2, 1, DIGEST), Tlsa(3, 1, 3, DIGEST), Tlsa(3, 1, 255, DIGEST)]
    assert usable(others) == ()
    assert usable([*others, GOOD]) == (GOOD,)


def test_of_the_dane_digests_of_one_kind_the_strongest_counts():
    strong, whole, other = Tlsa(3, 1, 2, LONGER), Tlsa(3, 1, 0, ELEMENT), Tlsa(3, 0, 1, DIGEST)
    assert usable([GOOD, strong]) == (strong,)
    assert usable([GOOD, whole]) == (GOOD, whole)
    assert usable([whole, strong, GOOD, other]) == (whole, strong, other)
    assert usable([GOOD, Tlsa(3, 1, 2, DIGEST)]) == (GOOD,)  # a strong one that cannot be used
    assert usable([GOOD, Tlsa(2, 1, 2, LONGER)]) == (GOOD, Tlsa(2, 1, 2, LONGER))


@given(st.lists(st.builds(Tlsa, st.integers(0, 5), st.integers(0, 3), st.integers(0, 4), st.binary(max_size=70))))
@settings(deadline=None)
def test_what_can_be_used_of_dane_records_is_some_of_them_and_stays_so(records):
    chosen = usable(records)
    assert set(chosen) <= set(records)
    assert usable(chosen) == chosen
    sizes = {1: 32, 2: 64}
    assert all(len(each.data) == sizes.get(each.matching_type, len(each.data)) for each in chosen)
    assert all(each.usage in (2, 3) and each.selector < 2 and each.matching_type < 3 for each in chosen)


@pytest.fixture
async def server():
    server = DnsServer(Zone())
    server.zone.set("mx.signed.test", "A", "192.0.2.1")
    server.zone.set("mx.plain.test", "A", "192.0.2.1")
    server.zone.secure("signed.test", "other.test")
    await server.start()
    yield server
    await server.close()


async def look_up(server, host="mx.signed.test", port=25, **settings):
    resolver = Resolver(Dns(servers=(server.address,), timeout=1.0, **settings), SystemClock())
    try:
        return await dane_of(host, port, resolver)
    finally:
        await resolver.close()


async def test_dane_of_a_signed_host(server):
    assert await look_up(server) == NONE
    server.zone.set("_25._tcp.mx.signed.test", "TLSA", TEXT, "0 0 1 " + DIGEST.hex())
    assert await look_up(server) == Dane(DaneState.USABLE, (GOOD,), "mx.signed.test")
    assert await look_up(server, port=2525) == NONE
    server.zone.set("_2525._tcp.mx.signed.test", "TLSA", TEXT)
    assert (await look_up(server, port=2525)).state is DaneState.USABLE


@pytest.mark.parametrize("odd", ["1 1 1 " + DIGEST.hex(), "3 1 1 abcd", "3 1 9 " + DIGEST.hex(), "3 0 0 00"])
async def test_dane_that_cannot_be_used_is_not_none(server, odd):
    server.zone.set("_25._tcp.mx.signed.test", "TLSA", odd)
    found = await look_up(server)
    assert (found.state, found.base, len(found.records)) == (DaneState.UNUSABLE, "mx.signed.test", 1)


@pytest.mark.parametrize("failure", [Failure.SERVFAIL, Failure.REFUSED, Failure.NO_ANSWER])
async def test_dane_that_cannot_be_had_is_not_none(server, failure):
    """SERVFAIL is what a validating resolver says of a bogus answer."""
    server.zone.fail("_25._tcp.mx.signed.test", failure)
    found = await look_up(server)
    assert (found.state, found.records) == (DaneState.FAILED, ())
    assert found.text == "the TLSA records of mx.signed.test cannot be had"
    server.zone.fail("_25._tcp.mx.signed.test", None)
    server.zone.fail("mx.signed.test", failure)
    found = await look_up(server)
    assert (found.state, found.text) == (DaneState.FAILED, "the addresses of mx.signed.test cannot be had")


async def test_dane_is_not_asked_for_where_addresses_are_not_signed(server):
    server.zone.set("_25._tcp.mx.plain.test", "TLSA", TEXT)
    server.zone.fail("_25._tcp.mx.plain.test", Failure.SERVFAIL)
    assert await look_up(server, "mx.plain.test") == NONE
    assert server.zone.asked("_25._tcp.mx.plain.test", "TLSA") == 0


async def test_dane_is_not_believed_where_it_is_not_signed(server):
    server.zone.set("_25._tcp.mx.signed.test", "TLSA", TEXT)
    server.zone.secure("mx.signed.test")
    server.zone.set("_25._tcp.mx.signed.test", "CNAME", "tlsa.plain.test.")
    server.zone.set("_25._tcp.mx.signed.test", "TLSA")
    server.zone.set("tlsa.plain.test", "TLSA", TEXT)
    assert await look_up(server) == NONE
    server.zone.secure("mx.signed.test", "tlsa.plain.test")
    assert await look_up(server) == Dane(DaneState.USABLE, (GOOD,), "mx.signed.test")


async def test_dane_needs_a_resolver_that_is_trusted(server):
    server.zone.set("_25._tcp.mx.signed.test", "TLSA", TEXT)
    assert await look_up(server, trust_ad=()) == NONE
    assert server.zone.total == 0


async def test_a_host_without_addresses_or_that_is_one_has_no_dane(server):
    assert await look_up(server, "nowhere.signed.test") == NONE
    assert server.zone.asked("_25._tcp.nowhere.signed.test", "TLSA") == 0
    asked = server.zone.total
    assert await look_up(server, "192.0.2.1") == NONE
    assert await look_up(server, "2001:db8::1") == NONE
    assert server.zone.total == asked


async def test_dane_of_an_alias_stands_where_it_leads_or_where_it_began(server):
    zone = server.zone
    zone.set("alias.signed.test", "CNAME", "mx.other.test.")
    zone.set("mx.other.test", "A", "192.0.2.2")
    assert await look_up(server, "alias.signed.test") == NONE
    zone.set("_25._tcp.alias.signed.test", "TLSA", TEXT)
    assert await look_up(server, "alias.signed.test") == Dane(DaneState.USABLE, (GOOD,), "alias.signed.test")
    zone.set("_25._tcp.mx.other.test", "TLSA", "3 1 2 " + LONGER.hex())
    found = await look_up(server, "alias.signed.test")
    assert (found.state, found.base) == (DaneState.USABLE, "mx.other.test")
    zone.fail("_25._tcp.mx.other.test", Failure.SERVFAIL)  # and not as if there were none
    assert (await look_up(server, "alias.signed.test")).state is DaneState.FAILED


async def test_dane_of_a_signed_alias_that_leads_to_where_nothing_is_signed(server):
    zone = server.zone
    zone.set("alias.signed.test", "CNAME", "mx.plain.test.")
    zone.set("_25._tcp.mx.plain.test", "TLSA", "3 1 2 " + LONGER.hex())
    assert await look_up(server, "alias.signed.test") == NONE
    assert zone.asked("_25._tcp.mx.plain.test", "TLSA") == 0
    zone.set("_25._tcp.alias.signed.test", "TLSA", TEXT)
    assert await look_up(server, "alias.signed.test") == Dane(DaneState.USABLE, (GOOD,), "alias.signed.test")
    zone.set("alias.plain.test", "CNAME", "mx.plain.test.")
    zone.set("_25._tcp.alias.plain.test", "TLSA", TEXT)
    assert await look_up(server, "alias.plain.test") == NONE
    assert zone.asked("_25._tcp.alias.plain.test", "TLSA") == 0


async def test_dane_is_asked_for_once_in_its_time(server):
    server.zone.set("_25._tcp.mx.signed.test", "TLSA", TEXT, ttl=60)
    server.zone.set("mx.signed.test", "A", "192.0.2.1", ttl=60)
    resolver = Resolver(Dns(servers=(server.address,)), SystemClock())
    assert [(await dane_of("mx.signed.test", 25, resolver)).state for _ in range(3)] == [DaneState.USABLE] * 3
    assert server.zone.asked("_25._tcp.mx.signed.test", "TLSA") == 1
    await resolver.close()
