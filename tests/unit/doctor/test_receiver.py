"""A domain that receives: where its mail goes, and which hosts and addresses are passed over."""

import dns.rcode
import pytest

from mta.config import Config
from mta.doctor.receiver import way_of
from tests.unit.doctor.world import about, graded, resolver_of


async def look(records, *, broken="", secure=(), **settings):
    config = Config.model_validate({"hostname": "us.test", **settings})
    async with resolver_of(records) as (resolver, peer):
        peer.secure.update(secure)
        if broken:
            peer.rcodes[broken] = dns.rcode.SERVFAIL
        return await way_of("rcpt.test", resolver, config)


MX = {("rcpt.test", "MX"): ["20 b.test.", "10 a.test."], ("a.test", "A"): ["8.8.8.8"], ("b.test", "A"): ["8.8.4.4"]}


async def test_hosts_come_in_order_with_their_addresses():
    way = await look(MX)
    assert graded(way.findings) == {"mx": "ok", "a.test": "ok", "b.test": "ok"}
    assert about(way.findings, "mx").said == "a.test, b.test, not validated by DNSSEC"
    assert [(each.hop.host, each.addresses) for each in way.hosts] == [
        ("a.test", ("8.8.8.8",)),
        ("b.test", ("8.8.4.4",)),
    ]
    assert not way.secure


async def test_mx_records_that_a_trusted_resolver_has_validated_are_said_to_be():
    way = await look(MX, secure=["rcpt.test"])
    assert way.secure
    assert about(way.findings, "mx").said.endswith(", validated (DNSSEC)")


async def test_a_domain_without_mx_is_its_own():
    way = await look({("rcpt.test", "A"): ["8.8.8.8"]})
    assert about(way.findings, "mx").said.startswith("none: its own address has its mail")
    assert [each.hop.host for each in way.hosts] == ["rcpt.test"]


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ({}, "no such domain"),
        ({("rcpt.test", "TXT"): ["x"]}, "neither MX nor address"),
        ({("rcpt.test", "MX"): ["0 ."]}, "null MX"),
        ({("rcpt.test", "MX"): ["0 us.test."]}, "its best MX is this relay"),
    ],
)
async def test_a_domain_that_mail_cannot_go_to_is_a_problem(records, said: str):
    way = await look(records)
    assert graded(way.findings) == {"mx": "problem"}
    assert said in about(way.findings, "mx").said
    assert way.hosts == ()


async def test_no_answer_is_told_for_the_domain_and_for_a_host():
    assert "no answer from the DNS" in about((await look(MX, broken="rcpt.test")).findings, "mx").said
    way = await look(MX, broken="a.test")
    assert graded(way.findings) == {"mx": "ok", "a.test": "warning", "b.test": "ok"}
    assert [each.hop.host for each in way.hosts] == ["b.test"]


@pytest.mark.parametrize(
    ("records", "grade", "addresses"),
    [
        ({("a.test", "A"): ["127.0.0.1", "10.0.0.1"]}, "problem", ()),
        ({("a.test", "A"): ["8.8.8.8", "169.254.169.254"]}, "warning", ("8.8.8.8",)),
        ({("a.test", "AAAA"): ["::ffff:10.0.0.1", "64:ff9b::7f00:1"]}, "problem", ()),
        ({("a.test", "CNAME"): ["c.test."], ("c.test", "A"): ["8.8.8.8"]}, "warning", ("8.8.8.8",)),
        ({("a.test", "CNAME"): ["c.test."], ("c.test", "A"): ["192.168.0.1"]}, "problem", ()),
        ({("a.test", "TXT"): ["x"]}, "problem", ()),
    ],
)
async def test_addresses_that_are_not_public_are_told_and_never_dialled(records, grade: str, addresses):
    way = await look({("rcpt.test", "MX"): ["10 a.test."], **records})
    assert graded(way.findings)["a.test"] == grade
    assert about(way.findings, "a.test").advice
    assert tuple(address for each in way.hosts for address in each.addresses) == addresses


async def test_a_host_that_is_written_as_an_address_is_held_to_the_same():
    for host, grade in (("10.0.0.1", "problem"), ("8.8.8.8", "ok")):
        way = await look({("rcpt.test", "MX"): [f"10 {host}."]})
        assert graded(way.findings)[host] == grade


async def test_a_laboratory_may_be_inside():
    way = await look({("rcpt.test", "MX"): ["10 127.0.0.1."]}, delivery={"allow_private_targets": True})
    assert [each.addresses for each in way.hosts] == [("127.0.0.1",)]


async def test_a_route_is_told_instead_of_mx_and_may_lead_inside():
    routes = [{"domains": "rcpt.test", "relay": ["inside.test:2525"], "tls": "verify"}]
    way = await look({**MX, ("inside.test", "A"): ["10.0.0.1"]}, routes=routes)
    assert graded(way.findings) == {"route": "ok", "inside.test": "ok"}
    assert [each.addresses for each in way.hosts] == [("10.0.0.1",)]


async def test_a_hundred_hosts_cost_no_more_than_twenty():
    way = await look({("rcpt.test", "MX"): [f"{number} h{number}.test." for number in range(100)]})
    assert len(way.findings) == 22
    assert "100 hosts" in way.findings[-1].said
