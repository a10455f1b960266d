"""SPF by the DNS: results, what is counted, and what a stranger's zone may cost (RFC 7208 4.6.4)."""

import ipaddress

import dns.rcode
import pytest

from mta.clock import SystemClock
from mta.delivery.resolver import Resolver
from mta.doctor import spf
from mta.doctor.spf import Spf, check_host
from tests.unit.delivery.peers import DnsPeer

OURS = "192.0.2.1"
OURS_6 = "2001:db8::1"


def txt(**records: str) -> dict[tuple[str, str], list[str]]:
    return {(f"{name}.test", "TXT"): [in_strings(text)] for name, text in records.items()}


def in_strings(text: str) -> str:
    return " ".join(f'"{text[start : start + 250]}"' for start in range(0, len(text), 250))


async def check(records, address=OURS, domain="d.test", *, broken: str = "", secure: bool = False):
    async with DnsPeer(records) as peer:
        if broken:
            peer.rcodes[broken] = dns.rcode.SERVFAIL
        settings = peer.settings.model_copy(update={"timeout": 5.0})
        resolver = Resolver(settings, SystemClock())
        try:
            found = await check_host(ipaddress.ip_address(address), f"joe@{domain}", "helo.test", resolver)
        finally:
            await resolver.close()
        return found, peer


HOSTS = {
    ("a.test", "A"): [OURS, "192.0.2.77"],
    ("a.test", "AAAA"): [OURS_6],
    ("d.test", "A"): ["192.0.2.200"],
    ("d.test", "MX"): ["10 a.test."],
    ("bulk.test", "MX"): [f"10 m{number}.test." for number in range(11)],
    ("yes.192.0.2.1.e.test", "A"): ["127.0.0.2"],
    ("no.192.0.2.1.e.test", "AAAA"): ["::1"],
    ("1.2.0.192.in-addr.arpa", "PTR"): ["liar.d.test.", "a.test."],
    ("liar.d.test", "A"): ["192.0.2.9"],
}


@pytest.mark.parametrize(
    ("record", "result"),
    [
        ("v=spf1 ip4:192.0.2.1 -all", Spf.PASS),
        ("v=spf1 ip4:192.0.2.2 -all", Spf.FAIL),
        ("v=spf1 ip6:2001:db8::/32 ~all", Spf.SOFTFAIL),
        ("v=spf1 ?all", Spf.NEUTRAL),
        ("v=spf1", Spf.NEUTRAL),
        ("v=spf1 a -all", Spf.FAIL),
        ("v=spf1 a/24 -all", Spf.PASS),
        ("v=spf1 a:a.test -all", Spf.PASS),
        ("v=spf1 mx -all", Spf.PASS),
        ("v=spf1 mx:bulk.test -all", Spf.PERMERROR),
        ("v=spf1 exists:yes.%{i}.e.test -all", Spf.PASS),
        ("v=spf1 exists:no.%{i}.e.test -all", Spf.FAIL),
        ("v=spf1 ptr -all", Spf.FAIL),
        ("v=spf1 ptr:a.test -all", Spf.PASS),
        ("v=spf1 ptr:test -all", Spf.PERMERROR),
        ("v=spf1 exists:%{p}.e.test -all", Spf.FAIL),
        ("v=spf1 include:pass.test -all", Spf.PASS),
        ("v=spf1 include:fail.test ~all", Spf.SOFTFAIL),
        ("v=spf1 include:none.test -all", Spf.PERMERROR),
        ("v=spf1 include:wrong.test -all", Spf.PERMERROR),
        ("v=spf1 redirect=fail.test", Spf.FAIL),
        ("v=spf1 redirect=fail.test ~all", Spf.SOFTFAIL),
        ("v=spf1 redirect=none.test", Spf.PERMERROR),
        ("v=spf1 include:d.test -all", Spf.PERMERROR),
        ("v=spf1 redirect=d.test", Spf.PERMERROR),
        ("v=spf1 a:gone1.test a:gone2.test -all", Spf.FAIL),
        ("v=spf1 a:gone1.test a:gone2.test a:gone3.test -all", Spf.PERMERROR),
        (f"v=spf1 a:{'x' * 64}.test -all", Spf.FAIL),
        ("v=spf1 all:x", Spf.PERMERROR),
        ("spf1 -all", Spf.NONE),
    ],
)
async def test_a_record_comes_to_a_result(record: str, result: Spf):
    others = txt(**{"pass": "v=spf1 ip4:192.0.2.0/24 -all", "fail": "v=spf1 -all", "wrong": "v=spf1 what -all"})
    found, _ = await check({**HOSTS, **others, **txt(d=record)})
    assert found.result is result, found


async def test_an_ipv6_address_is_compared_with_its_own_kind_and_a_mapped_one_is_ipv4():
    records = {**HOSTS, **txt(d="v=spf1 a:a.test/32//64 -all")}
    assert (await check(records, "2001:db8::ffff"))[0].result is Spf.PASS
    assert (await check(records, "2001:db9::1"))[0].result is Spf.FAIL
    assert (await check(records, f"::ffff:{OURS}"))[0].result is Spf.PASS


async def test_ten_look_ups_are_allowed_and_the_eleventh_is_an_error_that_names_the_record():
    def chain(length: int) -> dict[tuple[str, str], list[str]]:
        links = {f"i{n}": f"v=spf1 include:i{n + 1}.test -all" for n in range(length - 1)}
        return txt(d="v=spf1 include:i0.test -all", **links, **{f"i{length - 1}": "v=spf1 ip4:192.0.2.1 -all"})

    found, _ = await check(chain(10))
    assert (found.result, found.lookups) == (Spf.PASS, 10)
    found, peer = await check(chain(11))
    assert (found.result, found.why) == (Spf.PERMERROR, "i9.test: more than 10 look-ups")
    assert len(peer.asked) == 11


async def test_a_zone_full_of_terms_costs_no_more_than_the_limits():
    """Red when a hostile record makes us ask as often as it likes."""
    many = " ".join(f"a:h{number}.test" for number in range(150))
    found, peer = await check({**txt(d=f"v=spf1 {many} -all"), ("h0.test", "A"): ["192.0.2.8"]})
    assert found.result is Spf.PERMERROR
    assert len(peer.asked) < 30
    names = [f"n{number}.test." for number in range(90)]
    found, peer = await check({("1.2.0.192.in-addr.arpa", "PTR"): names, **txt(d="v=spf1 ptr:x.test -all")})
    assert found.result is Spf.FAIL
    assert len(peer.asked) < 30


async def test_no_answer_is_a_temporary_error_wherever_it_comes_from():
    for broken in ("d.test", "i.test", "a.test"):
        records = {**HOSTS, **txt(d="v=spf1 include:i.test a:a.test -all", i="v=spf1 -all")}
        found, _ = await check(records, broken=broken)
        assert found.result is Spf.TEMPERROR
        assert "no answer from the DNS" in found.why


async def test_it_takes_no_more_than_its_time(monkeypatch):
    monkeypatch.setattr(spf, "_SECONDS", 0.05)
    async with DnsPeer(txt(d="v=spf1 -all")) as peer:
        peer.silent.add("d.test")
        resolver = Resolver(peer.settings, SystemClock())
        found = await check_host(ipaddress.ip_address(OURS), "joe@d.test", "helo.test", resolver)
        await resolver.close()
    assert (found.result, found.why) == (Spf.TEMPERROR, "it takes longer than 0.05 s")


@pytest.mark.parametrize("domain", ["", "test", "a..test", "x" * 64 + ".test", "a\\.test", "b\x07.test", "ä.test"])
async def test_what_cannot_be_a_name_is_not_asked_for(domain: str):
    found, peer = await check({}, domain=domain)
    assert (found.result, peer.asked) == (Spf.NONE, [])
