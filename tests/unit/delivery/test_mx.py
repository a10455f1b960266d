"""From a domain to the addresses to try: the rules as functions, then whole attempts through DNS."""

import ipaddress
import time
from random import Random

import dns.rcode
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.clock import SystemClock
from mta.config import Config
from mta.delivery import mx
from mta.delivery.attempt import ROOM_WAIT
from mta.delivery.resolver import Exchanger, Resolver
from mta.delivery.route import Login, NextHop, Routes, site
from mta.delivery.trouble import MOVED_REPLY, NoWay
from mta.mail.reply import Reply
from mta.mail.result import Outcome, Reach, Result, Verdict
from mta.queue.limits import About, Aim
from mta.queue.shaping import parse
from tests.unit.delivery.peers import ACCEPT, EHLO, QUIT, DnsPeer, Relay, ScriptedServer, config, job


def hosts(*exchangers, hostname="relay.test"):
    site = mx.by_rank(tuple(Exchanger(*each) for each in exchangers), hostname, 25)
    return site if isinstance(site, NoWay) else [(hop.rank, hop.host) for hop in site.hops]


def test_sites_are_equal_whatever_the_numbers():
    assert hosts((10, "b"), (5, "a"), (10, "c")) == [(0, "a"), (1, "b"), (1, "c")]
    assert mx.by_rank((Exchanger(1, "a"), Exchanger(7, "b")), "x", 25) == mx.by_rank(
        (Exchanger(20, "b"), Exchanger(10, "a")), "x", 25
    )


def name(*exchangers):
    return mx.by_rank(tuple(Exchanger(*each) for each in exchangers), "x", 25).name


def test_sites_have_names_that_are_one_for_equal_sites_alone():
    assert name((5, "c"), (5, "b"), (9, "a")) == "b:25, c:25 > a:25"
    assert name((5, "b"), (5, "c")) != name((5, "b"), (6, "c"))
    many = [(5, f"{'x' * 60}{number}.test") for number in range(100)]
    assert len(name(*many)) < 250
    assert name(*many) != name(*many[:-1])


def test_routes_that_speak_otherwise_are_other_sites(tmp_path):
    (tmp_path / "password").write_text("secret")
    login = {"username": "u", "password_file": str(tmp_path / "password")}
    routes = [
        {"domains": ["a.test"], "relay": "mx.test:25"},
        {"domains": ["b.test"], "relay": "mx.test:25", "tls": "require"},
        {"domains": ["c.test"], "relay": "mx.test:25", "tls": "require", **login},
    ]
    found = Routes(Config.model_validate({"routes": routes}).routes)
    names = [found.site(f"{each}.test").name for each in "abc"]
    assert names == ["mx.test:25", "mx.test:25 tls=require", "mx.test:25 tls=require as u"]


def test_null_mx_and_null_mx_among_others():
    assert hosts((0, "")) is NoWay.NULL_MX
    assert hosts((0, ""), (10, "a")) == [(0, "a")]


def test_ourselves_and_what_is_no_better_than_us_are_dropped():
    assert hosts((5, "a"), (10, "relay.test"), (10, "b"), (20, "c")) == [(0, "a")]
    assert hosts((10, "relay.test"), (10, "b")) is NoWay.LOOP
    assert hosts((10, "relay.test"), (20, "b"), hostname="relay.test") is NoWay.LOOP


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from("abcdef")), max_size=30), st.integers())
def test_order_is_by_rank_and_random_within(ranks, seed):
    hops = [NextHop(rank, host, 25) for rank, host in ranks]
    ordered = mx.in_order(hops, Random(seed))
    assert [hop.rank for hop in ordered] == sorted(rank for rank, _ in ranks)[: mx.HOSTS_LIMIT]


def test_every_host_of_a_rank_comes_first_some_time():
    hops = [NextHop(0, host, 25) for host in "abc"]
    rng = Random(1)
    assert {mx.in_order(hops, rng)[0].host for _ in range(50)} == {"a", "b", "c"}


# fmt: off
INSIDE = [
    "127.0.0.1", "127.8.8.8", "0.0.0.0", "0.1.2.3", "10.0.0.1",
    "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "224.0.0.1",
    "255.255.255.255", "240.0.0.1", "192.0.0.192", "168.63.129.16", "100.100.100.200",
    "192.0.2.1", "198.18.0.1", "233.252.0.1", "::1", "::",
    "fe80::1", "fec0::1", "fc00::1", "fd00:ec2::254", "ff02::1",
    "ff0e::1", "2001:db8::1", "100::1", "4000::1", "::ffff:127.0.0.1",
    "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b:1::808:808",
    "2002:7f00:1::", "2002:a00:1::1", "2001:0:4136:e378:8000:63bf:80ff:fffe",
]
# fmt: on


@pytest.mark.parametrize("address", INSIDE)
def test_inside_is_not_public(address):
    assert not mx.is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"]
)
def test_outside_is_public(address):
    assert mx.is_public(ipaddress.ip_address(address))


@given(st.ip_addresses(v=4))
def test_wrapping_changes_nothing(address):
    for prefix in ("::ffff:0:0", "64:ff9b::"):
        wrapped = ipaddress.IPv6Address(int(ipaddress.IPv6Address(prefix)) | int(address))
        assert mx.is_public(wrapped) == mx.is_public(address)


def test_routes_first_match_wins():
    routes = Config.model_validate(
        {
            "routes": [
                {"domains": ["b.example.com", "example.org"], "relay": "first:25"},
                {"domains": "*.example.com", "relay": ["second:25", "[2001:db8::1]:26"]},
                {"domains": "*", "relay": "third:25", "tls": "none"},
            ]
        }
    ).routes
    found = Routes(routes)
    for domain, host in (
        ("b.example.com", "first"),
        ("example.org", "first"),
        ("a.example.com", "second"),
        ("x.b.example.com", "second"),
        ("example.com", "third"),
        ("notexample.com", "third"),
        ("[192.0.2.1]", "third"),
    ):
        assert found.site(domain).hops[0].host == host
    assert found.site("a.example.com").hops == (NextHop(0, "second", 25), NextHop(1, "2001:db8::1", 26))
    assert Routes(routes[:2]).site("example.net") is None


def test_a_relay_that_an_operator_named_is_spoken_to_as_the_route_to_it_says(tmp_path):
    password = tmp_path / "password"
    routes = Config.model_validate(
        {
            "routes": [
                {
                    "domains": "example.com",
                    "relay": ["first:25", "second:587"],
                    "tls": "verify",
                    "username": "us",
                    "password_file": str(password),
                },
            ]
        }
    ).routes
    found = Routes(routes)
    known = found.site("second:587")
    assert (known.hops, known.tls, known.login) == ((NextHop(0, "second", 587),), "verify", Login("us", password))
    for address, hop in (("second:25", NextHop(0, "second", 25)), ("[2001:db8::1]:26", NextHop(0, "2001:db8::1", 26))):
        assert found.site(address) == site((hop,), routed=True)
    assert found.site("[IPv6:2001:db8::1]") is None  # an address literal is a domain


# Whole attempts


def told(outcome):
    result = outcome.results[0]
    return (result.verdict, result.reply.code, result.reply.enhanced, outcome.counted)


async def attempt(peer, *, domain="rcpt.test", port=25, steps=0, private=True, **options):
    settings = config(port=port, allow_private_targets=private, **options)
    async with Relay(settings, dns=peer.settings) as relay:
        return await relay.attempt(job(domain=domain, steps=steps))


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ({}, (Verdict.FAILED, 550, "5.1.2", True)),
        ({("rcpt.test", "TXT"): ["x"]}, (Verdict.FAILED, 550, "5.1.2", True)),
        ({("rcpt.test", "MX"): ["0 ."]}, (Verdict.FAILED, 556, "5.1.10", True)),
        ({("rcpt.test", "MX"): ["0 relay.test."]}, (Verdict.FAILED, 550, "5.4.6", True)),
    ],
)
async def test_what_fails_at_once(records, expected):
    async with DnsPeer(records) as peer:
        assert told(await attempt(peer)) == expected


@pytest.mark.parametrize("broken", ["rcpt.test", "mx.test"])
@pytest.mark.parametrize("how", ["SERVFAIL", "REFUSED", "silent"])
async def test_dns_trouble_is_deferred_and_not_counted(broken, how):
    async with DnsPeer({("rcpt.test", "MX"): ["10 mx.test."], ("mx.test", "A"): ["127.0.0.1"]}) as peer:
        if how == "silent":
            peer.silent.add(broken)
        else:
            peer.rcodes[broken] = dns.rcode.from_text(how)
        for steps in (0, 5):
            assert told(await attempt(peer, steps=steps)) == (Verdict.DEFERRED, 451, "4.4.3", False)


@pytest.mark.parametrize(
    "records",
    [
        {("rcpt.test", "MX"): ["10 mx.test."]},
        {("rcpt.test", "MX"): ["10 mx.test."], ("mx.test", "A"): ["127.0.0.1", "10.0.0.1"]},
        {("rcpt.test", "MX"): ["10 mx.test."], ("mx.test", "AAAA"): ["::ffff:127.0.0.1", "::1"]},
        {("rcpt.test", "MX"): ["10 127.0.0.1."]},
        {("rcpt.test", "A"): ["169.254.169.254"]},
    ],
    ids=["no-address", "private", "mapped", "literal", "implicit"],
)
async def test_unusable_next_hops_fail_when_seen_again(records):
    async with ScriptedServer(EHLO) as server, DnsPeer(records) as peer:
        options = {"port": server.port, "private": False}
        assert told(await attempt(peer, **options)) == (Verdict.DEFERRED, 451, "4.4.4", True)
        assert told(await attempt(peer, steps=1, **options)) == (Verdict.FAILED, 550, "5.4.4", True)
    assert server.heard == []


async def test_an_address_literal_of_the_inside_is_not_dialled():
    async with ScriptedServer(EHLO + ACCEPT + QUIT) as server, DnsPeer() as peer:
        for literal in ("[127.0.0.1]", "[IPv6:::1]"):
            outcome = await attempt(peer, domain=literal, port=server.port, private=False, steps=1)
            assert told(outcome)[:3] == (Verdict.FAILED, 550, "5.4.4")
        assert server.heard == []
        outcome = await attempt(peer, domain="[127.0.0.1]", port=server.port)
        assert outcome.results[0].verdict is Verdict.DELIVERED
        assert peer.asked == []


async def test_implicit_mx_and_cname():
    records = {("rcpt.test", "A"): ["127.0.0.1"], ("alias.test", "CNAME"): ["rcpt.test."]}
    records[("cname.test", "MX")] = ["10 alias.test."]
    async with ScriptedServer(EHLO + ACCEPT + QUIT) as server, DnsPeer(records) as peer:
        for domain, host in (("rcpt.test", "rcpt.test"), ("alias.test", "alias.test"), ("cname.test", "alias.test")):
            outcome = await attempt(peer, domain=domain, port=server.port)
            assert outcome.results[0].verdict is Verdict.DELIVERED
            assert outcome.relay == f"{host}[127.0.0.1]:{server.port}"


async def test_preference_fallback_and_every_address():
    records = {
        ("rcpt.test", "MX"): ["30 worst.test.", "10 dead.test.", "20 mixed.test.", "5 gone.test."],
        ("dead.test", "A"): ["127.0.0.3"],
        ("mixed.test", "A"): ["127.0.0.4", "127.0.0.2"],
        ("worst.test", "A"): ["127.0.0.1"],
    }
    server = await ScriptedServer(EHLO + ACCEPT + QUIT).start("127.0.0.2")
    async with server, DnsPeer(records) as peer:
        outcome = await attempt(peer, port=server.port)
        assert outcome.relay == f"mixed.test[127.0.0.2]:{server.port}"
        # worse hosts were not even looked up
        assert "worst.test" not in {name for name, _, _ in peer.asked}


async def test_a_host_that_dns_does_not_tell_of_is_passed_over():
    records = {("rcpt.test", "MX"): ["10 lost.test.", "20 mx.test."], ("mx.test", "A"): ["127.0.0.1"]}
    async with ScriptedServer(EHLO + ACCEPT + QUIT) as server, DnsPeer(records) as peer:
        peer.rcodes["lost.test"] = dns.rcode.SERVFAIL
        outcome = await attempt(peer, port=server.port)
        assert outcome.results[0].verdict is Verdict.DELIVERED


async def test_a_thousand_mx_are_not_all_tried(unused_tcp_port):
    records = {("rcpt.test", "MX"): [f"10 mx{number}.test." for number in range(1000)]}
    records |= {(f"mx{number}.test", "A"): [f"127.0.1.{each}" for each in (1, 2, 3)] for number in range(1000)}
    async with DnsPeer(records) as peer:
        outcome = await attempt(peer, port=unused_tcp_port)
        assert told(outcome) == (Verdict.DEFERRED, 451, "4.4.1", True)
        assert len({name for name, _, _ in peer.asked}) <= 1 + mx.HOSTS_LIMIT


async def test_domains_with_the_same_hosts_share_connections():
    records = {("a.test", "MX"): ["10 mx.test."], ("b.test", "MX"): ["7 mx.test."], ("mx.test", "A"): ["127.0.0.1"]}
    async with (
        ScriptedServer(EHLO + ACCEPT + ACCEPT + QUIT) as server,
        DnsPeer(records) as peer,
        Relay(config(port=server.port, allow_private_targets=True), dns=peer.settings) as relay,
    ):
        for domain in ("a.test", "b.test"):
            outcome = await relay.attempt(job(domain=domain))
            assert outcome.results[0].verdict is Verdict.DELIVERED
            assert outcome.site == f"mx.test:{server.port}"
            assert await relay.attempter.aim(domain) == Aim(outcome.site, ("mx.test",))
        assert await relay.attempter.aim("nowhere.test") == Aim("nowhere.test")
    assert len(server.heard) == 1


@pytest.mark.parametrize("full", [True, False])
async def test_nobody_is_dialled_at_another_site_than_the_one_asked_but_by_its_limits_the_second_time(full: bool):
    """Red when the second attempt goes wherever the DNS says then: one that alternates is bound by no limit."""
    records = {("rcpt.test", "MX"): ["10 mx.test."], ("mx.test", "A"): ["127.0.0.1"]}
    shaping = parse("providers: [{name: p, mx: [mx.test], connections: 1, messages: 1/1h}]", "shaping.yaml")
    async with (
        ScriptedServer(EHLO + ACCEPT + ACCEPT + QUIT) as server,
        DnsPeer(records) as peer,
        Relay(config(port=server.port, allow_private_targets=True), dns=peer.settings, shaping=shaping) as relay,
    ):
        limits, now = relay.attempter._limits, time.monotonic()
        asked = About("", "rcpt.test", "acme")
        # where there was no answer, it is the name of the domain
        moved = await relay.attempter.attempt(job(), limits.started(asked, now))
        assert told(moved) == (Verdict.DEFERRED, 451, "4.4.3", False)
        assert server.heard == []
        here = f"mx.test:{server.port}"
        assert moved.site == here
        there = About("", here, "other", ("mx.test",))
        first = limits.started(there, now) if full else None
        again = job()
        again = msgspec.structs.replace(
            again, entry=msgspec.structs.replace(again.entry, last_reply=str(moved.results[0].reply))
        )
        start = limits.started(asked, now)
        outcome = await relay.attempter.attempt(again, start)
        relay.attempter.settled(again)
        if full:
            assert (told(outcome), outcome.retry_after) == (told(moved), None)  # as long as one is at work there
            limits.ended(first, _taken(here), now)
            outcome = await relay.attempter.attempt(again, start)
            assert told(outcome) == told(moved)
            assert outcome.retry_after == pytest.approx(3600, abs=60)
            assert (server.heard, start.about) == ([], asked)
        else:
            assert outcome.results[0].verdict is Verdict.DELIVERED
            assert start.about == there._replace(tenant="acme")
            limits.ended(start, outcome, now)
            assert limits.when(there, now) == pytest.approx(now + 3600, abs=60)
        for made in [job(), job()][not full :]:
            outcome = await relay.attempter.attempt(made, limits.started(there, now))
            relay.attempter.settled(made)
            assert outcome.results[0].verdict is Verdict.DELIVERED


async def test_who_is_sent_back_from_another_site_does_not_come_again_at_once():
    """Red when it waits as long as limits say: each time costs a claim and events, and may be for nothing."""
    records = {("rcpt.test", "MX"): ["10 mx.test."]}
    shaping = parse("limits: [{by: [site], messages: 100/1s}]", "shaping.yaml")
    async with DnsPeer(records) as peer, Relay(config(port=25), dns=peer.settings, shaping=shaping) as relay:
        limits, now = relay.attempter._limits, time.monotonic() + 60
        limits.started(About("", "mx.test:25", "other"), now)
        made = job()
        made = msgspec.structs.replace(made, entry=msgspec.structs.replace(made.entry, last_reply=str(MOVED_REPLY)))
        outcome = await relay.attempter.attempt(made, limits.started(About("", "was.test:25", "t"), now))
    assert (told(outcome)[1:], outcome.retry_after) == ((451, "4.4.3", False), ROOM_WAIT)


async def test_an_attempt_may_go_elsewhere_by_the_limits_that_it_was_started_by():
    """Red when what it has taken itself is in its way: it is sent back each time."""
    records = {("rcpt.test", "MX"): ["10 mx.test."], ("mx.test", "A"): ["127.0.0.1"]}
    shaping = parse("limits: [{by: [tenant], messages: 1/1h}]", "shaping.yaml")
    async with ScriptedServer(EHLO + ACCEPT + QUIT) as server, DnsPeer(records) as peer:
        sources = [
            {"name": name, "address": f"127.0.0.{n}", "hostname": "relay.test"} for n, name in enumerate("ab", 2)
        ]
        settings = config(port=server.port, allow_private_targets=True, sources=sources)
        async with Relay(settings, dns=peer.settings, shaping=shaping) as relay:
            start = relay.attempter._limits.started(About("a", "was.test:25", "t"), time.monotonic())
            made = job()
            entry = msgspec.structs.replace(made.entry, last_reply=str(MOVED_REPLY), again_from="b")
            made = msgspec.structs.replace(made, entry=entry)
            outcome = await relay.attempter.attempt(made, start)
            relay.attempter.settled(made)
    assert (outcome.results[0].verdict, outcome.source_name) == (Verdict.DELIVERED, "b")


def _taken(site: str) -> Outcome:
    taken = Result(Verdict.DELIVERED, Reply(250, "", "ok"))
    return Outcome(results=(taken,), started_at=0.0, ended_at=0.0, site=site, reach=Reach.TRANSACTION)


async def test_a_site_has_the_provider_of_its_most_preferred_hosts():
    """Red when one host of its own behind a provider's makes a domain nobody's: no limits, no rules, no warm-up."""
    for exchangers, expected in (
        (["10 mx.p.test.", "20 own.test."], "p"),
        (["10 mx.p.test.", "10 own.test."], ""),
        (["10 own.test.", "20 mx.p.test."], ""),
    ):
        async with (
            DnsPeer({("rcpt.test", "MX"): exchangers}) as peer,
            Relay(config(), dns=peer.settings, shaping=parse("providers: [{name: p, mx: [p.test]}]", "s")) as relay,
        ):
            aim = await relay.attempter.aim("rcpt.test")
            assert relay.attempter._limits.provider_of(About("", aim.site, "acme", aim.hosts)) == expected


async def test_who_was_greylisted_asks_the_same_host_and_address_first():
    hosts = {("rcpt.test", "MX"): ["10 a.test.", "20 b.test."], ("a.test", "A"): ["127.0.0.1"]}
    records = hosts | {("b.test", "A"): ["127.0.0.2", "127.0.0.3", "127.0.0.4"]}
    async with DnsPeer(records) as peer:
        resolver = Resolver(peer.settings, SystemClock())
        found = await mx.site_of("rcpt.test", resolver, "us.test", 25)
        for first in ("b.test[127.0.0.3]:25", "b.test[127.0.0.9]:25", "gone.test[127.0.0.3]:25", ""):
            trail = mx.Trail(found, resolver, Random(1), private=True, first=first)
            targets = [str(target) for target in [await trail.next() for _ in range(5)] if target is not None]
            assert len(set(targets)) == 4
            assert targets[0] == first or (first not in targets and targets[0][0] == ("b" if first[:1] == "b" else "a"))
        await resolver.close()


async def test_a_route_by_name_may_lead_inside_and_never_bounces():
    routes = [{"domains": ["in.test"], "relay": "inside.test:{}"}, {"domains": ["*"], "relay": "gone.test:25"}]
    async with ScriptedServer(EHLO + ACCEPT + QUIT) as server, DnsPeer({("inside.test", "A"): ["127.0.0.1"]}) as peer:
        routes[0]["relay"] = f"inside.test:{server.port}"
        outcome = await attempt(peer, domain="in.test", private=False, routes=routes)
        assert outcome.results[0].verdict is Verdict.DELIVERED
        outcome = await attempt(peer, private=False, routes=routes, steps=5)
        assert told(outcome)[:3] == (Verdict.DEFERRED, 451, "4.4.4")
