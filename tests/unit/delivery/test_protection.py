"""Policies, memory and needs over real sockets: what is demanded of a next hop, and what becomes of the message."""

import asyncio
import hashlib
import ssl
import time
import warnings
from contextlib import asynccontextmanager

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from mta.accounts.tenants import Tenant
from mta.delivery.attempt import JUDGED_FOR
from mta.delivery.certificates import Roots
from mta.delivery.policy import Failure, Level
from mta.delivery.protection import ROOTS_INTERVAL, TENANTS_INTERVAL
from mta.delivery.sts_policies import Standing
from mta.lab.ca import PrivateCa
from mta.lab.clock import FakeClock
from mta.mail.result import Reach, Scope, Verdict
from mta.queue.pace import met
from mta.queue.window import Met
from tests.unit.delivery.peers import (
    ACCEPT,
    EHLO,
    QUIT,
    DnsPeer,
    Policies,
    Records,
    Relay,
    ScriptedServer,
    config,
    job,
    route,
    sts_policy,
)

MX = "mx.rcpt.test"
OFFER = "S: 220 mx.test ESMTP\nC: EHLO relay.test\nS: 250-mx.test\nS: 250 STARTTLS\n"
INSIDE = "\n".join(EHLO.strip().splitlines()[1:]) + "\n"  # no greeting after the handshake
STARTTLS = OFFER + "C: STARTTLS\nS: 220 2.0.0 go\nX: starttls\n"
TAKEN = STARTTLS + INSIDE + ACCEPT + QUIT
REQUIRETLS = STARTTLS + INSIDE.replace("S: 250-DSN", "S: 250-REQUIRETLS") + ACCEPT + QUIT
BROKEN = OFFER + "C: STARTTLS\nS: 220 go\nX: hear\nS: this is no handshake\nX: close\n"
PLAIN = EHLO + ACCEPT + QUIT


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    return PrivateCa(tmp_path_factory.mktemp("ca"))


def context(ca, *names, old=False):
    files = ca.issue(*(names or (MX,)))
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(files.certificate, files.key)
    if old:
        made.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            made.maximum_version = ssl.TLSVersion.TLSv1_1
        made.set_ciphers("ALL:@SECLEVEL=0")
    return made


def tlsa_of(ca, name=MX):
    """The record 3 1 1 of the certificate that `context` has issued last."""
    certificate = x509.load_pem_x509_certificate((ca.directory / f"{name}.pem").read_bytes())
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return f"3 1 1 {hashlib.sha256(key).hexdigest()}"


@asynccontextmanager
async def relaying(server, ca, *policies, spool=None, secure=False, clock=None, **options):
    """A relay whose DNS names the server as the MX of rcpt.test and other.test."""
    records = {(domain, "MX"): [f"10 {MX}."] for domain in ("rcpt.test", "other.test")}
    async with server, DnsPeer({**records, (MX, "A"): ["127.0.0.1"]}) as peer:
        if secure:
            peer.secure |= {"rcpt.test", MX, f"_{server.port}._tcp.{MX}"}
        settings = config(port=server.port, allow_private_targets=True, ca_file=ca.ca_file, **options)
        made = Relay(settings, dns=peer.settings, policies=Policies(*policies), spool=spool, clock=clock)
        async with made as relay:
            relay.dns = peer
            yield relay


async def attempt(relay, made=None):
    return await asyncio.wait_for(relay.attempt(made or job()), 10)


def said(outcome):
    result = outcome.results[0]
    return result.verdict, result.reply.enhanced


# MTA-STS


async def test_sts_goes_to_a_host_that_is_listed_and_verified(ca):
    server = await ScriptedServer(TAKEN, tls=context(ca)).start()
    async with relaying(server, ca, sts_policy(MX)) as relay:
        outcome = await attempt(relay)
    assert server.problems == []
    assert said(outcome) == (Verdict.DELIVERED, "2.0.0")
    assert outcome.tls.endswith(":verified")
    assert outcome.policy == "sts enforce"
    assert outcome.site.startswith(f"{MX}:{server.port} sts=")
    (noted,) = relay.noted.sessions
    assert (noted.domain, noted.sts, noted.host, noted.failure) == ("rcpt.test", sts_policy(MX), MX, None)
    assert (noted.source, noted.address) == ("127.0.0.1", "127.0.0.1")
    assert relay.protection.counts() == {"sts": {"successful": 1}}


@pytest.mark.parametrize(
    ("script", "names", "failure", "status", "words", "connections"),
    [
        (PLAIN, None, Failure.STARTTLS_NOT_SUPPORTED, "4.7.10", "does not offer STARTTLS", 1),
        (TAKEN, ["other.test"], Failure.CERTIFICATE_HOST_MISMATCH, "4.7.5", "is for other.test", 1),
        (BROKEN, [MX], Failure.VALIDATION_FAILURE, "4.7.5", "TLS failed", 2),
        (OFFER + "C: STARTTLS\nS: 454 no\n", [MX], Failure.STARTTLS_NOT_SUPPORTED, "4.7.10", "454 no", 1),
    ],
    ids=["stripped", "other-host", "broken", "refused"],
)
async def test_sts_downgrade_is_deferred_and_says_why(ca, script, names, failure, status, words, connections):
    server = await ScriptedServer(script, tls=context(ca, *names) if names else None).start()
    async with relaying(server, ca, sts_policy(MX)) as relay:
        outcome = await attempt(relay)
    assert said(outcome) == (Verdict.DEFERRED, status)
    text = outcome.results[0].reply.text
    assert "MTA-STS policy of rcpt.test" in text
    assert MX in text
    assert words in text
    assert (outcome.policy, outcome.results[0].scope, outcome.counted) == ("sts enforce", Scope.HOST, True)
    assert len(server.heard) == connections
    assert b"MAIL" not in b"".join(server.heard)
    (noted,) = relay.noted.sessions
    assert noted.failure is failure
    assert relay.protection.counts() == {"sts": {str(failure): 1}}


async def test_sts_with_an_authority_that_nobody_knows_is_deferred(ca, tmp_path):
    stranger = PrivateCa(tmp_path)
    server = await ScriptedServer(TAKEN, tls=context(stranger)).start()
    async with relaying(server, ca, sts_policy(MX)) as relay:
        outcome = await attempt(relay)
    assert said(outcome) == (Verdict.DEFERRED, "4.7.5")
    assert relay.noted.sessions[0].failure is Failure.CERTIFICATE_NOT_TRUSTED
    assert b"MAIL" not in b"".join(server.heard)


async def test_sts_downgrade_to_tls_1_1_is_deferred_and_opportunistic_tls_takes_it(ca):
    for policies, verdict in (((sts_policy(MX),), Verdict.DEFERRED), ((), Verdict.DELIVERED)):
        server = await ScriptedServer(STARTTLS, TAKEN, tls=context(ca, old=True)).start()
        async with relaying(server, ca, *policies) as relay:
            outcome = await attempt(relay)
        assert outcome.results[0].verdict is verdict
        assert len(server.heard) == 2
        if verdict is Verdict.DELIVERED:
            assert outcome.tls.startswith("TLSv1.1:")


async def test_sts_passes_over_a_host_that_is_not_listed(ca):
    server = await ScriptedServer(TAKEN, tls=context(ca)).start()
    async with relaying(server, ca, sts_policy("*.other.test")) as relay:
        outcome = await attempt(relay)
    assert said(outcome) == (Verdict.DEFERRED, "4.7.0")
    assert outcome.results[0].reply.text == f"MTA-STS policy of rcpt.test: {MX} is none of its MX hosts"
    assert (outcome.reach, outcome.dialled, outcome.policy) == (Reach.NOBODY, 0, "sts enforce")
    assert server.heard == []
    (noted,) = relay.noted.sessions
    assert (noted.failure, noted.host, noted.address) == (Failure.VALIDATION_FAILURE, MX, "")


async def test_sts_goes_on_to_the_next_host(ca):
    server = await ScriptedServer(TAKEN, tls=context(ca)).start()
    async with relaying(server, ca, sts_policy(MX)) as relay:
        relay.dns.records["rcpt.test", "MX"] = ["5 evil.rcpt.test.", f"10 {MX}."]
        relay.dns.records["evil.rcpt.test", "A"] = ["127.0.0.1"]
        outcome = await attempt(relay)
    assert said(outcome) == (Verdict.DELIVERED, "2.0.0")
    assert len(server.heard) == 1


async def test_sts_report_has_what_was_wrong_at_each_address(ca):
    first = await ScriptedServer(TAKEN, tls=context(ca, "other.test")).start()
    second = await ScriptedServer(OFFER + "C: STARTTLS\nS: 454 no\n").start("127.0.0.2", first.port)
    async with second, relaying(first, ca, sts_policy(MX)) as relay:
        relay.dns.records[MX, "A"] = ["127.0.0.1", "127.0.0.2"]
        assert (await attempt(relay)).results[0].verdict is Verdict.DEFERRED
    assert {each.address: each.failure for each in relay.noted.sessions} == {
        "127.0.0.1": Failure.CERTIFICATE_HOST_MISMATCH,
        "127.0.0.2": Failure.STARTTLS_NOT_SUPPORTED,
    }


@pytest.mark.parametrize(("script", "tls"), [(PLAIN, ""), (TAKEN, "unverified")])
async def test_sts_in_testing_delivers_and_reports(ca, script, tls):
    server = await ScriptedServer(script, tls=context(ca, "other.test")).start()
    async with relaying(server, ca, sts_policy(MX, mode="testing")) as relay:
        outcome = await attempt(relay)
    assert said(outcome) == (Verdict.DELIVERED, "2.0.0")
    assert (outcome.policy, outcome.tls.rpartition(":")[2]) == ("sts testing", tls)
    assert outcome.site == f"{MX}:{server.port}"
    (noted,) = relay.noted.sessions
    assert noted.failure in (Failure.STARTTLS_NOT_SUPPORTED, Failure.CERTIFICATE_HOST_MISMATCH)


async def test_sts_policy_that_cannot_be_had_is_reported(ca):
    server = await ScriptedServer(PLAIN).start()
    async with relaying(server, ca) as relay:
        relay.policies.standings["rcpt.test"] = Standing(None, Failure.STS_POLICY_FETCH_ERROR, "no answer")
        outcome = await attempt(relay)
    assert said(outcome) == (Verdict.DELIVERED, "2.0.0")
    (noted,) = relay.noted.sessions
    assert (noted.failure, noted.text) == (Failure.STS_POLICY_FETCH_ERROR, "no answer")


async def test_dane_is_not_held_against_an_sts_policy_that_cannot_be_had(ca):
    server = await ScriptedServer(TAKEN, tls=context(ca)).start()
    async with relaying(server, ca, secure=True) as relay:
        relay.dns.records[f"_{server.port}._tcp.{MX}", "TLSA"] = [tlsa_of(ca)]
        relay.policies.standings["rcpt.test"] = Standing(None, Failure.STS_POLICY_FETCH_ERROR, "no answer")
        assert said(await attempt(relay)) == (Verdict.DELIVERED, "2.0.0")
        assert relay.protection.counts() == {"tlsa": {"successful": 1}}
    (noted,) = relay.noted.sessions
    assert (noted.failure, noted.text, len(noted.dane)) == (None, "", 1)


REFUSED = OFFER + "C: STARTTLS\nS: 454 no\n"


@pytest.mark.parametrize(
    ("scripts", "failure"),
    [
        ([PLAIN], Failure.STARTTLS_NOT_SUPPORTED),
        ([REFUSED, PLAIN], Failure.STARTTLS_NOT_SUPPORTED),
        ([BROKEN, BROKEN, PLAIN], Failure.VALIDATION_FAILURE),
        ([BROKEN, TAKEN], None),
    ],
    ids=["stripped", "refused", "broken", "better-at-last"],
)
@pytest.mark.parametrize("testing", [True, False])
async def test_sts_report_has_each_downgrade_that_nobody_forbids(ca, scripts, failure, testing):
    """RFC 8460 4.2: a session in the clear is no success, and it says whether TLS was not offered or did not work."""
    server = await ScriptedServer(*scripts, tls=context(ca)).start()
    async with relaying(server, ca, *([sts_policy(MX, mode="testing")] if testing else [])) as relay:
        assert said(await attempt(relay)) == (Verdict.DELIVERED, "2.0.0")
        counted = {"sts" if testing else "no-policy-found": {str(failure or "successful"): 1}}
        assert relay.protection.counts() == counted
    (noted,) = relay.noted.sessions
    assert noted.failure is failure
    assert ("TLS failed" in noted.text) is (failure is Failure.VALIDATION_FAILURE)


async def test_sts_of_one_domain_says_nothing_of_its_neighbours(ca):
    server = await ScriptedServer(*[EHLO + ACCEPT + ACCEPT + QUIT] * 2).start()
    async with relaying(server, ca, sts_policy(MX)) as relay:
        neighbour = await attempt(relay, job(domain="other.test"))
        strict = await attempt(relay)
        again = await attempt(relay, job(domain="other.test"))
    assert [each.results[0].verdict for each in (neighbour, strict, again)] == [
        Verdict.DELIVERED, Verdict.DEFERRED, Verdict.DELIVERED,
    ]  # fmt: skip
    assert neighbour.site == again.site != strict.site
    assert len(server.heard) == 2  # the neighbour's connection was kept, and not for a domain that asks for more


async def test_sts_domains_that_ask_the_same_share_connections(ca):
    server = await ScriptedServer(STARTTLS + INSIDE + ACCEPT + ACCEPT + QUIT, tls=context(ca)).start()
    async with relaying(server, ca, sts_policy(MX), sts_policy(MX, domain="other.test")) as relay:
        outcomes = [await attempt(relay, job(domain=domain)) for domain in ("rcpt.test", "other.test")]
    assert [each.results[0].verdict for each in outcomes] == [Verdict.DELIVERED] * 2
    assert [each.policy for each in outcomes] == ["sts enforce"] * 2
    assert len(server.heard) == 1
    assert len(relay.noted.sessions) == 1  # sessions are counted, not messages


async def test_the_site_that_a_lane_waits_for_is_that_of_its_sts_policy(ca):
    server = await ScriptedServer(PLAIN).start()
    async with relaying(server, ca, sts_policy(MX)) as relay:
        aims = [await relay.attempter.aim(domain) for domain in ("rcpt.test", "other.test")]
        assert relay.attempter.knows("rcpt.test")
        assert not relay.attempter.knows("third.test")
    assert aims[0].site == f"{aims[1].site} sts={aims[0].site.rpartition('=')[2]}"
    assert aims[0].hosts == (MX,)


# DANE


async def test_dane_takes_the_certificate_that_matches_whoever_gave_it(ca, tmp_path):
    stranger = PrivateCa(tmp_path)
    server = await ScriptedServer(TAKEN, tls=context(stranger)).start()
    async with relaying(server, ca, secure=True) as relay:
        relay.dns.records[f"_{server.port}._tcp.{MX}", "TLSA"] = [tlsa_of(stranger)]
        outcome = await attempt(relay)
    assert said(outcome) == (Verdict.DELIVERED, "2.0.0")
    assert outcome.tls.endswith(":dane")
    assert (outcome.policy, outcome.site) == ("dane", f"{MX}:{server.port} dane")
    assert relay.protection.counts() == {"tlsa": {"successful": 1}}
    # by its own word it is verified for nobody who does not ask for that
    assert relay.protection.memory.level(MX, server.port) is Level.ENCRYPTED


async def test_dane_wins_over_sts_that_would_be_content(ca):
    server = await ScriptedServer(TAKEN, tls=context(ca)).start()
    async with relaying(server, ca, sts_policy(MX), secure=True) as relay:
        relay.dns.records[f"_{server.port}._tcp.{MX}", "TLSA"] = ["3 1 1 " + "00" * 32]
        outcome = await attempt(relay)
    assert said(outcome) == (Verdict.DEFERRED, "4.7.5")
    assert f"DANE: certificate of {MX} matches none of its TLSA records" in outcome.results[0].reply.text
    assert outcome.policy == "dane"
    assert b"MAIL" not in b"".join(server.heard)
    (noted,) = relay.noted.sessions
    assert (noted.failure, len(noted.dane)) == (Failure.VALIDATION_FAILURE, 1)


async def test_dane_downgrade_by_stripping_is_deferred(ca):
    server = await ScriptedServer(PLAIN).start()
    async with relaying(server, ca, secure=True) as relay:
        relay.dns.records[f"_{server.port}._tcp.{MX}", "TLSA"] = ["3 1 1 " + "00" * 32]
        outcome = await attempt(relay)
    assert said(outcome) == (Verdict.DEFERRED, "4.7.10")
    assert b"MAIL" not in b"".join(server.heard)


async def test_dane_downgrade_by_keeping_back_tlsa_is_deferred_and_nobody_is_dialled(ca):
    server = await ScriptedServer(TAKEN, tls=context(ca)).start()
    async with relaying(server, ca, sts_policy(MX), secure=True) as relay:
        relay.dns.silent.add(f"_{server.port}._tcp.{MX}")
        outcome = await attempt(relay)
    assert said(outcome) == (Verdict.DEFERRED, "4.7.0")
    assert f"TLSA records of {MX} cannot be had" in outcome.results[0].reply.text
    assert (server.heard, outcome.policy) == ([], "dane")


async def test_dane_with_unusable_records_takes_any_certificate(ca):
    server = await ScriptedServer(TAKEN, tls=context(ca, "other.test")).start()
    async with relaying(server, ca, secure=True) as relay:
        relay.dns.records[f"_{server.port}._tcp.{MX}", "TLSA"] = ["1 1 1 " + "00" * 32]
        outcome = await attempt(relay)
    assert said(outcome) == (Verdict.DELIVERED, "2.0.0")
    assert (outcome.policy, outcome.tls.rpartition(":")[2]) == ("dane", "unverified")


async def test_no_dane_where_the_mx_set_is_not_secure(ca):
    server = await ScriptedServer(PLAIN).start()
    async with relaying(server, ca, secure=True) as relay:
        relay.dns.secure.discard("rcpt.test")
        relay.dns.records[f"_{server.port}._tcp.{MX}", "TLSA"] = ["3 1 1 " + "00" * 32]
        outcome = await attempt(relay)
    assert (said(outcome), outcome.site) == ((Verdict.DELIVERED, "2.0.0"), f"{MX}:{server.port}")


async def test_dane_asks_for_the_base_domain_in_the_hello(ca):
    asked = []
    tls = context(ca)
    tls.sni_callback = lambda _, name, __: asked.append(name)
    server = await ScriptedServer(TAKEN, tls=tls).start()
    async with relaying(server, ca, secure=True) as relay:
        relay.dns.records[MX, "CNAME"] = ["real.rcpt.test."]
        relay.dns.records["real.rcpt.test", "A"] = relay.dns.records.pop((MX, "A"))
        base = f"_{server.port}._tcp.real.rcpt.test"
        relay.dns.secure |= {"real.rcpt.test", base}
        relay.dns.records[base, "TLSA"] = [tlsa_of(ca)]
        outcome = await attempt(relay)
    assert said(outcome) == (Verdict.DELIVERED, "2.0.0")
    assert asked == ["real.rcpt.test"]


async def test_dane_downgrade_by_a_connection_from_before_there_were_records(ca):
    """Red when a busy connection goes on for ever: in the clear, to a host that has had TLSA records for hours."""
    clock = FakeClock(time.time())
    server = await ScriptedServer(EHLO + ACCEPT * 3 + QUIT, PLAIN).start()
    async with relaying(server, ca, secure=True, clock=clock) as relay:
        for seconds in (0.0, JUDGED_FOR):
            await clock.advance(seconds)
            assert said(await attempt(relay)) == (Verdict.DELIVERED, "2.0.0")
        assert len(server.heard) == 1
        relay.dns.records[f"_{server.port}._tcp.{MX}", "TLSA"] = ["3 1 1 " + "00" * 32]
        assert said(await attempt(relay)) == (Verdict.DEFERRED, "4.7.10")
    assert len(server.contents) == 2


async def test_dane_by_the_name_of_one_domain_leaves_no_connection_for_another(ca, tmp_path):
    stranger = PrivateCa(tmp_path)
    anchor = hashlib.sha256(stranger.certificate.public_bytes(Encoding.DER)).hexdigest()
    for names, kept in ((("rcpt.test",), 0), ((MX,), 1)):
        tls = context(stranger, *names)
        chain = tmp_path / "chain.pem"
        chain.write_bytes((tmp_path / f"{names[0]}.pem").read_bytes() + stranger.ca_file.read_bytes())
        tls.load_cert_chain(chain, tmp_path / f"{names[0]}.key")
        server = await ScriptedServer(TAKEN, tls=tls).start()
        async with relaying(server, ca, secure=True) as relay:
            relay.dns.records[f"_{server.port}._tcp.{MX}", "TLSA"] = [f"2 0 1 {anchor}"]
            outcome = await attempt(relay)
            assert said(outcome) == (Verdict.DELIVERED, "2.0.0")
            assert len(relay.attempter._pool) == kept


async def test_dane_by_the_name_of_another_domain_does_not_count_against_the_host(ca, tmp_path):
    """Red when it does: whoever names another's hosts in a signed MX record would have them taken for dead."""
    stranger = PrivateCa(tmp_path)
    anchor = hashlib.sha256(stranger.certificate.public_bytes(Encoding.DER)).hexdigest()
    tls = context(stranger, "other.test")
    chain = tmp_path / "chain.pem"
    chain.write_bytes((tmp_path / "other.test.pem").read_bytes() + stranger.ca_file.read_bytes())
    tls.load_cert_chain(chain, tmp_path / "other.test.key")
    server = await ScriptedServer(STARTTLS, TAKEN, tls=tls).start()
    async with relaying(server, ca, secure=True) as relay:
        relay.dns.secure.add("other.test")
        relay.dns.records[f"_{server.port}._tcp.{MX}", "TLSA"] = [f"2 0 1 {anchor}"]
        outcome = await attempt(relay)
        assert said(await attempt(relay, job(domain="other.test"))) == (Verdict.DELIVERED, "2.0.0")
    assert said(outcome) == (Verdict.DEFERRED, "4.7.5")
    assert f"DANE: certificate of {MX} is for other.test" in outcome.results[0].reply.text
    assert met(outcome) is Met.REACHED
    assert relay.noted.sessions[0].failure is Failure.CERTIFICATE_HOST_MISMATCH


# Memory


async def test_downgrade_of_what_a_host_could_do_before_is_deferred(ca, caplog):
    spool = Records()
    server = await ScriptedServer(TAKEN, PLAIN, tls=context(ca)).start()
    async with relaying(server, ca, spool=spool, deliveries_per_connection=1) as relay:
        first = await attempt(relay)
        stripped = await attempt(relay)
        counts = relay.protection.counts()
    assert said(first) == (Verdict.DELIVERED, "2.0.0")
    assert first.tls.endswith(":verified")
    assert said(stripped) == (Verdict.DEFERRED, "4.7.10")
    assert f"TLS as {MX} had it before: {MX} does not offer STARTTLS" in stripped.results[0].reply.text
    assert stripped.policy == "memory"
    assert counts["memory"] == {"starttls-not-supported": 1}
    assert "tls=fell from=verified to=clear" in caplog.text
    assert b"MAIL" not in server.heard[1]
    assert spool.writes == 1


@pytest.mark.parametrize("second", [BROKEN, TAKEN], ids=["broken", "other-certificate"])
async def test_downgrade_in_the_handshake_is_deferred(ca, second):
    server = await ScriptedServer(TAKEN, second, tls=context(ca)).start()
    async with relaying(server, ca, deliveries_per_connection=1) as relay:
        assert said(await attempt(relay)) == (Verdict.DELIVERED, "2.0.0")
        server.tls = context(ca, "other.test")
        assert said(await attempt(relay)) == (Verdict.DEFERRED, "4.7.5")
        relay.protection.memory.forget((MX,))
        server.scripts[1:] = [TAKEN]
        assert said(await attempt(relay)) == (Verdict.DELIVERED, "2.0.0")


async def test_downgrade_is_found_out_after_a_restart_and_not_when_memory_is_off(ca, unused_tcp_port):
    spool = Records()
    for scripts, verdict, options in (
        ((TAKEN,), Verdict.DELIVERED, {}),
        ((PLAIN,), Verdict.DEFERRED, {}),
        ((PLAIN,), Verdict.DELIVERED, {"tls_memory": 0.0}),
    ):
        server = await ScriptedServer(*scripts, tls=context(ca)).start(port=unused_tcp_port)
        async with relaying(server, ca, spool=spool, **options) as relay:
            await relay.protection.memory.recall()
            assert (await attempt(relay)).results[0].verdict is verdict


async def test_a_host_that_knows_old_tls_alone_is_not_asked_for_more(ca):
    server = await ScriptedServer(STARTTLS, TAKEN, STARTTLS, TAKEN, tls=context(ca, old=True)).start()
    async with relaying(server, ca, deliveries_per_connection=1) as relay:
        outcomes = [await attempt(relay) for _ in range(2)]
    assert [each.results[0].verdict for each in outcomes] == [Verdict.DELIVERED] * 2
    assert [each.tls.partition(":")[0] for each in outcomes] == ["TLSv1.1"] * 2


async def test_a_host_with_odd_ciphers_alone_is_not_asked_for_more(ca):
    tls = context(ca)
    tls.maximum_version = ssl.TLSVersion.TLSv1_2
    tls.set_ciphers("ECDHE-ECDSA-CAMELLIA128-SHA256")
    server = await ScriptedServer(STARTTLS, TAKEN, STARTTLS, TAKEN, tls=tls).start()
    async with relaying(server, ca, deliveries_per_connection=1) as relay:
        outcomes = [await attempt(relay) for _ in range(2)]
    assert [each.results[0].verdict for each in outcomes] == [Verdict.DELIVERED] * 2
    assert [each.tls.partition(":")[0] for each in outcomes] == ["TLSv1.2"] * 2


async def test_a_host_that_never_did_better_is_not_asked_for_more(ca):
    server = await ScriptedServer(BROKEN, BROKEN, PLAIN, tls=context(ca)).start()
    async with relaying(server, ca, deliveries_per_connection=1) as relay:
        outcomes = [await attempt(relay) for _ in range(2)]
    assert [each.results[0].verdict for each in outcomes] == [Verdict.DELIVERED] * 2
    assert [each.tls for each in outcomes] == ["", ""]


# What a message needs


def needing(tls_required):
    made = job()
    return msgspec.structs.replace(made, message=msgspec.structs.replace(made.message, tls_required=tls_required))


async def test_tls_required_no_goes_where_sts_dane_and_memory_forbid_it_and_leaves_no_connection_behind(ca):
    server = await ScriptedServer(PLAIN).start()
    async with relaying(server, ca, sts_policy("*.other.test"), secure=True) as relay:
        relay.dns.silent.add(f"_{server.port}._tcp.{MX}")
        relay.protection.memory.saw(MX, server.port, Level.VERIFIED)
        outcome = await attempt(relay, needing("no"))
        assert len(relay.attempter._pool) == 0
        assert said(await attempt(relay)) == (Verdict.DEFERRED, "4.7.0")
    assert (said(outcome), outcome.policy, outcome.tls) == ((Verdict.DELIVERED, "2.0.0"), "", "")
    assert relay.protection.counts()["waived"] == {"successful": 1}
    assert [each.failure for each in relay.noted.sessions] == [Failure.DNSSEC_INVALID]


@pytest.mark.parametrize(("asked", "script"), [("encrypted", PLAIN), ("verified", BROKEN), ("verified", PLAIN)])
async def test_a_message_asks_for_a_level_of_its_own(ca, asked, script):
    server = await ScriptedServer(script, tls=context(ca)).start()
    async with relaying(server, ca) as relay:
        outcome = await attempt(relay, needing(asked))
    assert (said(outcome), outcome.policy) == ((Verdict.DEFERRED, "4.7.10"), f"tenant {asked}")
    assert server.contents == []


async def test_a_level_of_a_messages_own_is_no_more_than_that(ca):
    server = await ScriptedServer(REQUIRETLS, tls=context(ca)).start()
    async with relaying(server, ca) as relay:
        outcome = await attempt(relay, needing("verified"))
    assert (said(outcome), outcome.tls.endswith(":verified")) == ((Verdict.DELIVERED, "2.0.0"), True)
    assert b"REQUIRETLS" not in server.heard[0]


async def test_tls_required_no_is_not_held_against_an_sts_policy_that_tests(ca):
    server = await ScriptedServer(PLAIN).start()
    async with relaying(server, ca, sts_policy(MX, mode="testing")) as relay:
        await attempt(relay, needing("no"))
    assert (relay.noted.sessions, relay.protection.counts()) == ([], {"waived": {"successful": 1}})


async def test_tls_required_no_still_goes_over_tls_where_there_is_any(ca):
    server = await ScriptedServer(TAKEN, tls=context(ca)).start()
    async with relaying(server, ca) as relay:
        outcome = await attempt(relay, needing("no"))
    assert outcome.tls.endswith(":verified")


async def test_requiretls_is_passed_on_to_a_host_that_offers_it(ca):
    server = await ScriptedServer(REQUIRETLS, tls=context(ca)).start()
    async with relaying(server, ca, sts_policy(MX)) as relay:
        outcome = await attempt(relay, needing("yes"))
    assert (said(outcome), outcome.policy) == ((Verdict.DELIVERED, "2.0.0"), "sts enforce, requiretls")
    assert b" REQUIRETLS\r\n" in server.heard[0]


@pytest.mark.parametrize(
    ("script", "names", "policies", "status"),
    [
        (TAKEN, [MX], True, "5.7.30"),
        (PLAIN, [MX], True, "5.7.10"),
        (REQUIRETLS, ["other.test"], True, "5.7.10"),
        (REQUIRETLS, [MX], False, "5.7.10"),
    ],
    ids=["not-offered", "no-tls", "other-host", "insecure-mx"],
)
async def test_requiretls_fails_where_no_host_has_what_it_takes(ca, script, names, policies, status):
    server = await ScriptedServer(script, tls=context(ca, *names)).start()
    async with relaying(server, ca, *([sts_policy(MX)] if policies else [])) as relay:
        outcome = await attempt(relay, needing("yes"))
    assert said(outcome) == (Verdict.FAILED, status)
    assert b"MAIL" not in b"".join(server.heard)
    assert policies or relay.noted.sessions == []


@pytest.mark.parametrize(
    ("script", "names", "passed_on"),
    [(TAKEN, [MX], False), (PLAIN, [MX], False), (REQUIRETLS, ["other.test"], True), (REQUIRETLS, [MX], True)],
    ids=["not-offered", "no-tls", "other-host", "offered"],
)
async def test_requiretls_does_not_lose_a_report(ca, script, names, passed_on):
    """RFC 8689 5: nobody could be told of it."""
    wanted = needing("yes")
    report = msgspec.structs.replace(wanted, message=msgspec.structs.replace(wanted.message, sender=""))
    server = await ScriptedServer(script, tls=context(ca, *names)).start()
    async with relaying(server, ca) as relay:
        outcome = await attempt(relay, report)
    assert said(outcome) == (Verdict.DELIVERED, "2.0.0")
    assert (b" REQUIRETLS\r\n" in server.heard[0]) is passed_on


async def test_requiretls_waits_where_a_host_is_down(ca):
    server = await ScriptedServer("X: close").start()
    async with relaying(server, ca, sts_policy(MX)) as relay:
        assert said(await attempt(relay, needing("yes"))) == (Verdict.DEFERRED, "4.4.2")


async def test_requiretls_takes_no_kept_connection_that_has_less(ca):
    server = await ScriptedServer(TAKEN, REQUIRETLS.replace(QUIT, ACCEPT + QUIT), tls=context(ca)).start()
    async with relaying(server, ca, sts_policy(MX)) as relay:
        outcomes = [await attempt(relay, made) for made in (job(), needing("yes"), needing("yes"))]
    assert [each.results[0].verdict for each in outcomes] == [Verdict.DELIVERED] * 3
    assert [each.policy for each in outcomes[:2]] == ["sts enforce", "sts enforce, requiretls"]
    assert len(server.heard) == 2


async def test_requiretls_takes_no_kept_connection_to_a_host_that_only_an_insecure_dns_names(ca):
    server = await ScriptedServer(REQUIRETLS, tls=context(ca)).start()
    async with relaying(server, ca, sts_policy(MX, mode="testing")) as relay:
        outcomes = [await attempt(relay, job(domain="other.test"))]
        assert len(relay.attempter._pool) == 1
        made = needing("yes")
        entry = msgspec.structs.replace(made.entry, domain="other.test")
        outcomes.append(await attempt(relay, msgspec.structs.replace(made, entry=entry)))
        assert len(relay.attempter._pool) == 1
    assert [said(each) for each in outcomes] == [(Verdict.DELIVERED, "2.0.0"), (Verdict.FAILED, "5.7.10")]


def tenant(tls):
    return msgspec.msgpack.encode(Tenant(name="t", created_at=0.0, tls=tls))


@pytest.mark.parametrize("least", ["encrypted", "verified"])
@pytest.mark.parametrize("weak", ["TLS 1.1", "a cipher of old"])
async def test_downgrade_by_a_kept_connection_of_old_tls(ca, weak, least):
    """Who may have anything takes TLS as old as there is; whoever asks for TLS must not find it in the pool."""
    tls = context(ca, old=weak == "TLS 1.1")
    if weak != "TLS 1.1":
        tls.maximum_version = ssl.TLSVersion.TLSv1_2
        tls.set_ciphers("ECDHE-ECDSA-CAMELLIA128-SHA256")
    spool, clock = Records(), FakeClock(time.time())
    server = await ScriptedServer(STARTTLS, STARTTLS + INSIDE + ACCEPT + ACCEPT + QUIT, STARTTLS, tls=tls).start()
    async with relaying(server, ca, spool=spool, clock=clock) as relay:
        assert said(await attempt(relay)) == (Verdict.DELIVERED, "2.0.0")
        assert len(relay.attempter._pool) == 1
        spool.held["tenant", "t"] = tenant(least)
        await clock.advance(TENANTS_INTERVAL)
        asking = await attempt(relay)
    assert said(asking) == (Verdict.DEFERRED, "4.7.10")
    assert len(server.contents) == 1


async def test_a_tenants_least_level_is_asked_of_every_session(ca):
    spool, clock = Records(), FakeClock(time.time())
    server = await ScriptedServer(PLAIN, PLAIN, tls=context(ca)).start()
    async with relaying(server, ca, spool=spool, clock=clock) as relay:
        first = await attempt(relay)
        spool.held["tenant", "t"] = tenant("encrypted")
        await clock.advance(TENANTS_INTERVAL)
        second = await attempt(relay)
    assert said(first) == (Verdict.DELIVERED, "2.0.0")
    assert (said(second), second.policy) == ((Verdict.DEFERRED, "4.7.10"), "tenant encrypted")
    assert "the sender's tenant" in second.results[0].reply.text
    assert len(server.heard) == 2  # that of the first message is not good enough


@pytest.mark.parametrize("script", [PLAIN, BROKEN, OFFER + "C: STARTTLS\nS: 454 no\n"])
@pytest.mark.parametrize("tls_required", ["", "yes"])
async def test_what_one_message_wants_does_not_count_against_the_host(ca, script, tls_required):
    """Red when it does: some such messages to a domain would have its site taken for dead, for all tenants."""
    spool = Records()
    if not tls_required:
        spool.held["tenant", "t"] = tenant("encrypted")
    server = await ScriptedServer(script, tls=context(ca)).start()
    async with server, Relay(config(routes=[route(server.port)]), spool=spool) as relay:
        outcome = await attempt(relay, needing(tls_required))
        assert list(relay.protection.counts()) == ["message"]
    assert (outcome.reach, outcome.results[0].scope) == (Reach.SESSION, Scope.MESSAGE)
    assert met(outcome) is Met.REACHED
    assert b"MAIL" not in b"".join(server.heard)


async def test_a_tenant_goes_over_tls_where_its_route_would_not(ca):
    spool = Records()
    spool.held["tenant", "t"] = tenant("encrypted")
    server = await ScriptedServer(TAKEN, tls=context(ca)).start()
    async with server, Relay(config(routes=[route(server.port, tls="none")]), spool=spool) as relay:
        outcome = await attempt(relay)
    assert said(outcome) == (Verdict.DELIVERED, "2.0.0")
    assert outcome.tls.endswith(":unverified")


# Routes


@pytest.mark.parametrize("pinned", [True, False])
async def test_a_route_trusts_the_authority_it_pins_and_no_other(ca, tmp_path, pinned):
    stranger = PrivateCa(tmp_path)
    server = await ScriptedServer(TAKEN, tls=context(stranger, "127.0.0.1")).start()
    settings = config(
        routes=[route(server.port, tls="verify", ca_file=str((stranger if pinned else ca).ca_file))],
        ca_file=(ca if pinned else stranger).ca_file,
    )
    async with server, Relay(settings) as relay:
        outcome = await attempt(relay)
        remembered = relay.protection.memory.level("127.0.0.1", server.port)
    assert outcome.policy == "route verify"
    if pinned:
        assert (said(outcome), remembered) == ((Verdict.DELIVERED, "2.0.0"), Level.ENCRYPTED)
    else:
        assert (said(outcome), remembered) == ((Verdict.DEFERRED, "4.7.5"), Level.CLEAR)
    assert relay.noted.sessions == []  # what an operator wants is nobody's report


async def test_a_host_that_went_to_a_new_authority_is_no_downgrade_once_the_system_knows_it(ca, tmp_path, caplog):
    """Red when authorities are read once: a relay that runs for long would let all mail to such hosts bounce."""
    new, clock = PrivateCa(tmp_path), FakeClock(time.time())
    known = tmp_path / "known.pem"
    known.write_bytes(ca.ca_file.read_bytes())
    server = await ScriptedServer(TAKEN, tls=context(ca)).start()
    async with relaying(server, ca, clock=clock, deliveries_per_connection=1) as relay:
        relay.protection._roots[None] = Roots(known)
        assert said(await attempt(relay)) == (Verdict.DELIVERED, "2.0.0")
        server.tls = context(new)
        assert said(await attempt(relay)) == (Verdict.DEFERRED, "4.7.5")
        for content in (b"half of it", ca.ca_file.read_bytes() + new.ca_file.read_bytes()):
            known.write_bytes(content)
            await clock.advance(ROOTS_INTERVAL)
            outcome = await attempt(relay)
    assert said(outcome) == (Verdict.DELIVERED, "2.0.0")
    assert outcome.tls.endswith(":verified")
    assert f"authorities=refused, those before stay in use: {known}: not certificates in PEM" in caplog.text


def test_a_file_of_authorities_that_cannot_be_used_is_named(tmp_path):
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("no certificate")
    for options, key in (
        ({"ca_file": garbage}, "delivery.ca_file"),
        ({"routes": [route(25, tls="verify", ca_file=str(garbage))]}, "routes.0.ca_file"),
    ):
        with pytest.raises(OSError, match=rf"{key} {garbage}: not certificates in PEM"):
            Relay(config(**options))
    with pytest.raises(OSError, match=r"delivery\.ca_file /nonexistent: No such file"):
        Relay(config(ca_file="/nonexistent"))
