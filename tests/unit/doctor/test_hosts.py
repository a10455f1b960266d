"""What a delivery would demand of hosts, and what it would find: by the decision of deliveries, over real sessions."""

import datetime as dt
import hashlib
import ssl
from contextlib import asynccontextmanager

import dns.rcode
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from mta.clock import SystemClock
from mta.config import Config
from mta.delivery.certificates import Roots
from mta.delivery.policy import Level, StsPolicy
from mta.delivery.route import Target
from mta.doctor import hosts
from mta.doctor.ourselves import Leaving
from mta.doctor.probe import Seen
from mta.doctor.receiver import way_of
from mta.lab.ca import LIFETIME, PrivateCa
from tests.unit.delivery.chains import NOW, server
from tests.unit.delivery.peers import HOST, ScriptedServer
from tests.unit.doctor.world import about, graded, resolver_of

PLAIN = "S: 220 mx.test ESMTP\nC: EHLO\nS: 250-mx.test\nS: 250 PIPELINING\nC: QUIT\nS: 221 bye\n"
OFFER = "S: 220 mx.test ESMTP\nC: EHLO\nS: 250-mx.test\nS: 250 STARTTLS\nC: STARTTLS\nS: 220 go\nX: starttls\n"
TLS = OFFER + "C: EHLO\nS: 250 mx.test\nC: QUIT\nS: 221 bye\n"


class Certificate:
    def __init__(self, ca: PrivateCa, name: str, lifetime: dt.timedelta = LIFETIME) -> None:
        files = ca.issue(name, lifetime=lifetime)
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.context.load_cert_chain(files.certificate, files.key)
        leaf = x509.load_pem_x509_certificates(files.certificate.read_bytes())[0]
        self.tlsa = f"3 0 1 {hashlib.sha256(leaf.public_bytes(Encoding.DER)).hexdigest()}"


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    return PrivateCa(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def certificates(ca):
    return {
        "good": Certificate(ca, "mx.test"),
        "other": Certificate(ca, "other.test"),
        "expired": Certificate(ca, "mx.test", -dt.timedelta(days=1)),
    }


def sts(mode: str, *mx: str) -> StsPolicy:
    return StsPolicy(domain="rcpt.test", id="1", mode=mode, mx=mx or ("mx.test",), max_age=864_000, fetched_at=0.0)


@asynccontextmanager
async def examined(port: int, policy: StsPolicy | None, tlsa: list[str] | None, *, broken="", remembered=None, **route):
    """The domain's hosts as deliveries see them; with `tlsa` its zone is signed."""
    records = {("rcpt.test", "MX"): ["10 mx.test."], ("mx.test", "A"): [HOST]}
    name = f"_{port}._tcp.mx.test"
    if tlsa:
        records[name, "TLSA"] = tlsa
    settings: dict = {"hostname": "relay.test", "delivery": {"port": port, "allow_private_targets": True}}
    if route:
        settings["routes"] = [{"domains": "*", "relay": f"mx.test:{port}", **route}]
    async with resolver_of(records) as (resolver, peer):
        if tlsa is not None:
            peer.secure.update({"rcpt.test", "mx.test", name})
        if broken:
            peer.rcodes[name] = dns.rcode.SERVFAIL
        way = await way_of("rcpt.test", resolver, Config.model_validate(settings))
        levels = {f"mx.test:{port}": remembered} if remembered else {}
        yield await hosts.expected_of("rcpt.test", way, policy, levels, resolver)


async def look(ca, script, certificate=None, policy=None, tlsa=None, *, later: float = 0.0, **route):
    """Expect, connect and judge; all findings."""
    context = certificate.context if certificate is not None else None
    implicit = route.get("tls") == "implicit"
    server = await ScriptedServer(script, tls=context).start(tls=context if implicit else None)
    async with server, examined(server.port, policy, tlsa, **route) as expected:
        found = [finding for each in expected for finding in hosts.of_expected(each)]
        now = SystemClock().now() + later * 86_400
        roots = Roots(ca.ca_file)
        found += await hosts.of_probes(expected, [Leaving("8.8.4.4", "nat.test")], "relay.test", roots, now)
    assert server.problems == []
    return found


ABOUT = f"mx.test {HOST}"


async def test_a_certificate_of_a_version_that_there_is_not_is_judged_like_others(ca):
    der = server(None, "mx.test").der
    odd = der.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x04", 1)
    async with examined(25, None, None) as (expected,):
        seen = Seen(greeting="220 mx.test", starttls=True, tls="TLSv1.3", chain=(odd,))
        found = hosts.of_seen(expected, Target("mx.test", HOST, 25), seen, Roots(ca.ca_file), NOW)
    assert [each.said for each in found] == [
        "TLSv1.3, with whom is not known: certificate of mx.test cannot be used: it cannot be read"
    ]


@pytest.mark.parametrize(
    ("certificate", "policy", "grade", "said"),
    [
        ("good", None, "ok", "TLSv1.3, certificate verified"),
        ("other", None, "ok", "with whom is not known: "),
        ("expired", None, "ok", "with whom is not known: "),
        ("good", sts("enforce"), "ok", "TLSv1.3, certificate verified"),
        ("other", sts("enforce"), "problem", "nothing is delivered: MTA-STS policy of rcpt.test: "),
        ("expired", sts("enforce"), "problem", "certificate-expired"),
        ("other", sts("testing"), "warning", "its policy in testing mode would refuse it"),
        ("other", sts("none"), "ok", "with whom is not known: "),
        ("", None, "warning", "no STARTTLS: mail goes in the clear"),
        ("", sts("enforce"), "problem", "starttls-not-supported"),
        ("", sts("testing"), "warning", "no STARTTLS"),
    ],
)
async def test_sts_decides_what_a_session_has_to_show(ca, certificates, certificate, policy, grade: str, said: str):
    found = await look(ca, TLS if certificate else PLAIN, certificates.get(certificate), policy)
    finding = about(found, ABOUT)
    assert (finding.grade.name.lower(), said in finding.said) == (grade, True), finding
    assert bool(finding.advice) is (grade != "ok")


async def test_a_host_that_an_enforced_sts_policy_does_not_list_is_passed_over(ca, certificates):
    found = await look(ca, TLS, certificates["good"], sts("enforce", "else.test"))
    assert graded(found) == {"mx.test policy": "problem", ABOUT: "ok"}
    assert "mx.test is none of its MX hosts" in about(found, "mx.test policy").said


async def test_dane_wins_over_sts_and_wants_its_record(ca, certificates):
    other = certificates["other"]
    found = await look(ca, TLS, other, sts("enforce", "else.test"), [other.tlsa])
    assert graded(found) == {"mx.test tlsa": "ok", "mx.test policy": "ok", ABOUT: "ok"}
    assert "matches its TLSA records" in about(found, ABOUT).said
    assert about(found, "mx.test policy").said.endswith(": DANE")
    found = await look(ca, TLS, certificates["good"], None, [other.tlsa])
    assert graded(found)[ABOUT] == "problem"
    assert "DANE" in about(found, ABOUT).said
    found = await look(ca, PLAIN, None, None, [other.tlsa])
    assert "starttls-not-supported" in about(found, ABOUT).said


async def test_dane_records_that_say_nothing_to_us_want_tls_with_anybody(ca, certificates):
    found = await look(ca, TLS, certificates["other"], None, ["3 0 1 abcd"])
    assert graded(found) == {"mx.test tlsa": "warning", "mx.test policy": "ok", ABOUT: "ok"}
    assert graded(await look(ca, PLAIN, None, None, ["3 0 1 abcd"]))[ABOUT] == "problem"


async def test_dane_that_cannot_be_had_forbids_the_host():
    async with examined(25, None, [], broken="tlsa") as [expected]:
        [finding] = hosts.of_expected(expected)
    assert (finding.about, finding.grade.name) == ("mx.test policy", "PROBLEM")
    assert "dnssec-invalid" in finding.said


async def test_dane_is_nothing_without_dnssec(ca, certificates):
    found = await look(ca, TLS, certificates["other"], None, None)
    assert graded(found) == {"mx.test policy": "ok", ABOUT: "ok"}


@pytest.mark.parametrize(
    ("tls", "certificate", "grade"),
    [
        ("verify", "good", "ok"),
        ("verify", "other", "problem"),
        ("require", "other", "ok"),
        ("require", "", "problem"),
        ("implicit", "good", "ok"),
        ("implicit", "other", "problem"),
    ],
)
async def test_a_route_says_what_it_wants(ca, certificates, tls: str, certificate: str, grade: str):
    script = PLAIN if tls == "implicit" or not certificate else TLS
    found = await look(ca, script, certificates.get(certificate), sts("enforce", "else.test"), tls=tls)
    assert graded(found)[ABOUT] == grade
    assert "its route" in about(found, "mx.test policy").said


@pytest.mark.parametrize(
    ("remembered", "certificate", "grade"),
    [
        (Level.ENCRYPTED, "", "problem"),
        (Level.ENCRYPTED, "other", "ok"),
        (Level.VERIFIED, "other", "problem"),
        (Level.VERIFIED, "good", "ok"),
    ],
)
async def test_a_downgrade_below_what_delivery_remembers_is_told(ca, certificates, remembered, certificate, grade: str):
    script = TLS if certificate else PLAIN
    found = await look(ca, script, certificates.get(certificate), remembered=remembered)
    assert graded(found)[ABOUT] == grade
    assert about(found, "mx.test policy").said.endswith("TLS as mx.test had it before")
    assert ("fairlead tls forget mx.test" in about(found, ABOUT).advice) is (grade == "problem")


async def test_a_certificate_that_ends_soon_is_told(ca, certificates):
    found = await look(ca, TLS, certificates["good"], later=20)
    assert graded(found)[f"{ABOUT} certificate"] == "warning"
    assert "in 10 days" in about(found, f"{ABOUT} certificate").said


async def test_a_host_that_does_not_answer_is_a_problem_with_a_guess(ca):
    found = await look(ca, "X: close")
    finding = about(found, ABOUT)
    assert finding.grade.name == "PROBLEM"
    found = await look(ca, "S: 554 5.7.1 blocked\nX: close")
    assert "refuses us: 554 5.7.1 blocked" in about(found, ABOUT).said


@pytest.mark.parametrize(("policy", "grade"), [(None, "warning"), (sts("enforce"), "problem")])
async def test_a_handshake_that_fails_costs_mail_only_where_tls_is_demanded(ca, policy, grade: str):
    script = OFFER.replace("X: starttls", "R: nonsense, which is no handshake at all\\r\\n\nX: close")
    finding = about(await look(ca, script, None, policy), ABOUT)
    assert (finding.grade.name.lower(), "its handshake fails" in finding.said) == (grade, True)
    assert ("may go in the clear" in finding.said) is (grade == "warning")


async def test_requiretls_is_told_where_it_is_offered(ca, certificates):
    offered = TLS.replace("S: 250 mx.test\n", "S: 250-mx.test\nS: 250 REQUIRETLS\n")
    assert graded(await look(ca, offered, certificates["good"]))[f"{ABOUT} REQUIRETLS"] == "ok"
    assert f"{ABOUT} REQUIRETLS" not in graded(await look(ca, TLS, certificates["good"]))


async def test_what_a_host_says_is_shown_harmlessly(ca):
    found = await look(ca, "R: 554 \\x1b[2J\\x07evil\\r\\n\nX: close")
    assert about(found, ABOUT).said.isprintable()
    assert len(about(found, ABOUT).said) < 300


async def test_of_many_hosts_and_addresses_few_are_connected_to(monkeypatch):
    targets = []

    async def look(target, hostname, **options):
        targets.append((target.host, target.address, hostname, options["source"]))
        return hosts.Seen(trouble="no connection")

    monkeypatch.setattr(hosts, "look", look)
    records: dict = {("rcpt.test", "MX"): [f"10 h{number}.test." for number in range(10)]}
    for number in range(10):
        records[f"h{number}.test", "A"] = ["8.8.8.8", "8.8.4.4"]
        records[f"h{number}.test", "AAAA"] = ["2606:4700::1", "2606:4700::2"]
    async with resolver_of(records) as (resolver, _):
        way = await way_of("rcpt.test", resolver, Config(hostname="relay.test"))
        expected = await hosts.expected_of("rcpt.test", way, None, {}, resolver)
        leaving = [Leaving("192.0.2.1", "source.test", "a")]
        await hosts.of_probes(expected, leaving, "relay.test", Roots(None), 0.0)
    assert len(expected) == 10
    assert sorted({host for host, *_ in targets}) == [f"h{number}.test" for number in range(5)]
    assert len(targets) == 10
    assert {(":" in address, name, source) for _, address, name, source in targets} == {
        (False, "source.test", "192.0.2.1"),  # as a delivery would leave
        (True, "relay.test", ""),
    }
