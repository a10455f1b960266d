"""What a domain asks of its senders: MTA-STS from a policy host well or badly served, and its record for reports."""

import dns.rcode
import pytest

from mta.clock import SystemClock
from mta.config import Config, Sts
from mta.delivery.https import Https
from mta.delivery.policy import StsPolicy
from mta.doctor import policies
from mta.doctor.receiver import way_of
from mta.lab.ca import PrivateCa
from mta.lab.clock import FakeClock
from mta.lab.policy_host import Hosting, PolicyHost
from tests.unit.doctor.world import resolver_of

POLICY = "version: STSv1\nmode: enforce\nmx: mx.rcpt.test\nmx: *.backup.test\nmax_age: 864000\n"


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    return PrivateCa(tmp_path_factory.mktemp("ca"))


async def look(ca, text=POLICY, hosting=Hosting.GOOD, records=('"v=STSv1; id=1;"',), *, broken=False, timeout=5.0):
    host = PolicyHost(ca, FakeClock())
    host.put("rcpt.test", text, hosting)
    await host.start()
    known = {("mta-sts.rcpt.test", "A"): ["127.0.0.1"], ("_mta-sts.rcpt.test", "TXT"): list(records)}
    try:
        async with resolver_of({key: value for key, value in known.items() if value}) as (resolver, peer):
            if broken:
                peer.rcodes["_mta-sts.rcpt.test"] = dns.rcode.SERVFAIL
            https = Https(resolver, ca.ca_file, private=True)
            settings = Sts(port=host.address.port, timeout=timeout)
            return await policies.of_sts("rcpt.test", resolver, https, settings, SystemClock().now())
    finally:
        await host.close()


async def test_a_policy_in_good_order_is_told(ca):
    found, policy = await look(ca)
    assert found.grade.name == "OK"
    assert found.said == "mode enforce, 10 days, for mx.rcpt.test, *.backup.test"
    assert (policy.mode, policy.mx) == ("enforce", ("mx.rcpt.test", "*.backup.test"))


async def test_a_policy_that_is_soon_forgotten_protects_little(ca):
    found, policy = await look(ca, POLICY.replace("864000", "3600"))
    assert (found.grade.name, policy.max_age) == ("WARNING", 3600)
    assert "max_age should be weeks" in found.advice


async def test_without_a_record_nothing_is_fetched(ca):
    found, policy = await look(ca, records=())
    assert (found.grade.name, policy) == ("OK", None)
    assert found.said.startswith("none")


@pytest.mark.parametrize(
    "records",
    [('"v=STSv1; id=1;"', '"v=STSv1; id=2;"'), ('"v=STSv1; id=a-b;"',), ('"v=STSv1"',), ('"v=STSv1;\\027[2J"',)],
)
async def test_a_record_that_announces_nothing_is_shown_harmlessly(ca, records):
    found, policy = await look(ca, records=records)
    assert (found.grade.name, policy) == ("WARNING", None)
    assert "its record announces nothing: v=STSv1" in found.said
    assert found.said.isprintable()


@pytest.mark.parametrize(
    ("hosting", "failure"),
    [
        (Hosting.ABSENT, "sts-policy-fetch-error"),
        (Hosting.REDIRECT, "sts-policy-fetch-error"),
        (Hosting.WRONG_TYPE, "sts-policy-fetch-error"),
        (Hosting.TOO_BIG_CHUNKED, "sts-policy-fetch-error"),
        (Hosting.SLOW, "sts-policy-fetch-error"),
        (Hosting.SELF_SIGNED, "sts-webpki-invalid"),
        (Hosting.EXPIRED, "sts-webpki-invalid"),
        (Hosting.WRONG_HOST, "sts-webpki-invalid"),
    ],
)
async def test_a_policy_that_cannot_be_had_says_why(ca, hosting: Hosting, failure: str):
    found, policy = await look(ca, hosting=hosting, timeout=0.5 if hosting is Hosting.SLOW else 5.0)
    assert (found.grade.name, policy) == ("WARNING", None)
    assert failure in found.said


async def test_a_policy_that_is_none_and_a_silent_dns_say_why(ca):
    found, policy = await look(ca, "version: STSv1\nmode: enforce\nmax_age: 1\n")
    assert (found.grade.name, policy, "sts-policy-invalid" in found.said) == ("WARNING", None, True)
    found, policy = await look(ca, broken=True)
    assert (found.grade.name, policy, "no answer from the DNS" in found.said) == ("WARNING", None, True)


@pytest.mark.parametrize(
    ("mode", "mx", "grade"),
    [
        ("enforce", ("a.test", "b.test"), "OK"),
        ("enforce", ("a.test",), "WARNING"),
        ("enforce", ("*.a.test",), "PROBLEM"),
        ("testing", ("*.a.test",), "WARNING"),
        ("none", (), ""),
    ],
)
async def test_hosts_that_a_policy_does_not_list_are_told(mode: str, mx: tuple[str, ...], grade: str):
    records = {
        ("rcpt.test", "MX"): ["10 a.test.", "20 b.test."],
        ("a.test", "A"): ["8.8.8.8"],
        ("b.test", "A"): ["8.8.4.4"],
    }
    policy = StsPolicy(domain="rcpt.test", id="1", mode=mode, mx=mx, max_age=864_000, fetched_at=0.0)
    async with resolver_of(records) as (resolver, _):
        way = await way_of("rcpt.test", resolver, Config(hostname="us.test"))
        routes = [{"domains": "*", "relay": "b.test:25"}]
        routed = await way_of("rcpt.test", resolver, Config.model_validate({"hostname": "us.test", "routes": routes}))
    assert [each.grade.name for each in policies.of_hosts(policy, way)] == ([grade] if grade else [])
    assert policies.of_hosts(policy, routed) == []  # the operator knows whom he means
    assert policies.of_hosts(None, way) == []


@pytest.mark.parametrize(
    ("records", "grade", "said"),
    [
        ([], "OK", "none"),
        (['"other"'], "OK", "none"),
        (['"v=TLSRPTv1; rua=mailto:a@b.test,https://c.test/x"'], "OK", "mailto:a@b.test, https://c.test/x"),
        (['"v=TLSRPTv1; rua=mailto:a@b.test"', '"v=TLSRPTv1; rua=mailto:c@b.test"'], "WARNING", "nobody can send"),
        (['"v=TLSRPTv1;rua=ftp://b.test"'], "WARNING", "nobody can send"),
        (['"v=TLSRPTv2; rua=mailto:a@b.test"'], "WARNING", "nobody can send"),
    ],
)
async def test_where_reports_go_is_told(records: list[str], grade: str, said: str):
    async with resolver_of({("_smtp._tls.rcpt.test", "TXT"): records} if records else {}) as (resolver, _):
        found = await policies.of_tlsrpt("rcpt.test", resolver)
    assert (found.grade.name, said in found.said) == (grade, True), found
