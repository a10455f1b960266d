"""Our addresses, their names, EHLO and our certificate."""

import datetime as dt

import dns.rcode
import pytest

from mta.config import Config, Tls
from mta.doctor import ourselves
from mta.doctor.ourselves import Leaving, certificate, leavings, of_address
from mta.lab.ca import PrivateCa
from tests.unit.doctor.world import about, graded, resolver_of

OURS = "8.8.4.4"  # public by its number; nobody is asked there
PTR = ("4.4.8.8.in-addr.arpa", "PTR")
GOOD = {PTR: ["mail.us.test."], ("mail.us.test", "A"): [OURS]}


async def look(records, *, hostname="mail.us.test", address=OURS, broken=""):
    async with resolver_of(records) as (resolver, peer):
        if broken:
            peer.rcodes[broken] = dns.rcode.SERVFAIL
        return await of_address(Leaving(address, hostname, "a"), resolver)


async def test_an_address_whose_names_lead_back_is_good():
    found = await look(GOOD)
    assert graded(found) == {f"source a {OURS} PTR": "ok", f"source a {OURS} EHLO": "ok"}
    assert not any(each.advice for each in found)


@pytest.mark.parametrize(
    ("records", "pointer", "hello"),
    [
        ({("mail.us.test", "A"): [OURS]}, "no name: many", "which leads to it"),
        ({PTR: ["other.test."], ("mail.us.test", "A"): [OURS]}, "none leads back", "which leads to it"),
        ({PTR: ["other.test."], ("other.test", "A"): [OURS]}, "which leads back", "has no address"),
        (GOOD | {("mail.us.test", "A"): ["8.8.8.8"]}, "none leads back", "leads to 8.8.8.8 and not to it"),
    ],
)
async def test_what_is_wrong_with_an_address_is_said_with_what_to_do(records, pointer: str, hello: str):
    found = await look(records)
    assert pointer in about(found, f"source a {OURS} PTR").said
    assert hello in about(found, f"source a {OURS} EHLO").said
    assert all(each.advice for each in found if each.grade)


async def test_names_are_of_use_by_either_family():
    six = "2606:4700::6"
    name = "6.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.7.4.6.0.6.2.ip6.arpa"
    records = {(name, "PTR"): ["mail.us.test."], ("mail.us.test", "AAAA"): [six]}
    found = await look(records, address=six)
    assert set(graded(found).values()) == {"ok"}


async def test_no_answer_is_a_warning_and_nobodys_mistake():
    found = await look(GOOD, broken=PTR[0])
    assert graded(found) == {f"source a {OURS} PTR": "warning", f"source a {OURS} EHLO": "ok"}
    found = await look(GOOD, broken="mail.us.test")
    assert set(graded(found).values()) == {"warning"}


async def test_a_thousand_names_of_one_address_are_not_followed():
    async with resolver_of({PTR: [f"n{number}.test." for number in range(90)]}) as (resolver, peer):
        found = await of_address(Leaving(OURS, "mail.us.test", "a"), resolver)
    assert "and 85 more" in about(found, f"source a {OURS} PTR").said
    assert len(peer.asked) < 30


async def test_a_private_address_is_not_what_receivers_see():
    async with resolver_of({}) as (resolver, peer):
        [found] = await of_address(Leaving("10.0.0.1", "mail.us.test"), resolver)
    assert "not a public address" in found.said
    assert found.about == "source 10.0.0.1"
    assert peer.asked == []


def test_mail_leaves_from_the_sources_of_a_pool_or_from_what_is_said():
    sources = [
        {"name": "a", "address": ["192.0.2.1", "2001:db8::1"], "hostname": "a.test"},
        {"name": "b", "address": "192.0.2.2"},
    ]
    config = Config.model_validate({"hostname": "us.test", "sources": sources})
    assert leavings(config, None, []) == [
        Leaving("192.0.2.1", "a.test", "a"),
        Leaving("2001:db8::1", "a.test", "a"),
        Leaving("192.0.2.2", "us.test", "b"),
    ]
    assert leavings(config, ["b"], []) == [Leaving("192.0.2.2", "us.test", "b")]
    assert leavings(config, ["b"], ["8.8.8.8"]) == [Leaving("8.8.8.8", "us.test")]


def test_without_sources_it_is_what_the_system_would_choose(monkeypatch):
    monkeypatch.setattr(ourselves, "_ELSEWHERE", ((2, "127.0.0.1"),))
    assert leavings(Config(hostname="us.test"), None, []) == [Leaving("127.0.0.1", "us.test")]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return PrivateCa(tmp_path_factory.mktemp("ca")).issue("us.test")


@pytest.mark.parametrize(
    ("days", "hostname", "grade", "said"),
    [
        (0, "us.test", "OK", "for us.test, until"),
        (0, "other.test", "WARNING", "not for other.test but for us.test"),
        (20, "us.test", "WARNING", "in 10 days"),
        (31, "us.test", "PROBLEM", "expired on"),
        (-1, "us.test", "PROBLEM", "not valid before"),
    ],
)
def test_our_certificate_has_its_time_and_its_name(files, days: int, hostname: str, grade: str, said: str):
    now = dt.datetime.now(dt.UTC).timestamp() + days * 86_400
    found = certificate(Tls(certificate=files.certificate, key=files.key), hostname, now)
    assert (found.grade.name, said in found.said) == (grade, True), found


def test_a_certificate_that_cannot_be_read_is_named(tmp_path, files):
    (tmp_path / "empty.pem").write_bytes(b"")
    for name, reason in (("empty.pem", "not a certificate in PEM"), ("gone.pem", "No such file")):
        found = certificate(Tls(certificate=tmp_path / name, key=files.key), "us.test", 0.0)
        assert found.grade.name == "PROBLEM"
        assert reason in found.said
    assert certificate(Tls(), "us.test", 0.0).grade.name == "OK"
