"""Whole examinations of domains in the laboratory: its DNS, its receiving MX, its policy host."""

from contextlib import asynccontextmanager

import msgspec
import pytest

from mta.accounts import domains, tenants
from mta.accounts.dkim_keys import Algorithm, generate
from mta.accounts.domains import Domain, Selector
from mta.clock import SystemClock
from mta.config import Config, parse
from mta.delivery.policy import Level
from mta.delivery.remembered import KIND, Remembered
from mta.delivery.resolver import Resolver
from mta.doctor.examination import examine, patient_of
from mta.doctor.ourselves import Leaving
from mta.lab.dns import Failure
from mta.lab.laboratory import Laboratory, RelayPorts, lab_config
from mta.lab.mx import MxSettings
from mta.spool.interface import Spool
from tests.unit.doctor.world import about, graded

POLICY = "version: STSv1\nmode: enforce\nmx: mx1.lab.test\nmax_age: 864000\n"


@asynccontextmanager
async def laboratory(directory, **mx):
    lab = Laboratory(directory, SystemClock(), mx=MxSettings(**mx))
    await lab.start()
    try:
        yield lab, parse(lab_config(lab, RelayPorts()), "lab")
    finally:
        await lab.close()


async def examined(config: Config, domain: str, spool: Spool, *, connect: bool = True, seen=("8.8.4.4",)):
    clock = SystemClock()
    resolver = Resolver(config.dns, clock)
    try:
        patient = await patient_of(domain, spool, config, seen, clock.now())
        return await examine(patient, config, resolver, clock, connect=connect)
    finally:
        await resolver.close()


async def with_sender(spool: Spool) -> str:
    """Register sender.test with a key, and return what the DNS has to say of it."""
    await tenants.create(spool, "acme", 0.0)
    _, value = generate(Algorithm.ED25519)
    key = Selector(name="s1", algorithm="ed25519", created_at=0.0, dns_value=value, sealed=b"")
    made = Domain(name="sender.test", tenant="acme", created_at=0.0, selectors=(key,))
    await spool.put_record(domains.KIND, "sender.test", domains.encode(made), replace=True)
    return value


async def test_all_of_a_domain_in_good_order(tmp_path, spool):
    async with laboratory(tmp_path) as (lab, config):
        lab.zone.set_txt("sender.test", "v=spf1 ip4:8.8.4.4 -all")
        lab.zone.set_txt("s1._domainkey.sender.test", await with_sender(spool))
        lab.zone.set_txt("_dmarc.sender.test", "v=DMARC1; p=reject")
        lab.zone.set_txt("_smtp._tls.sender.test", "v=TLSRPTv1; rua=mailto:tls@sender.test")
        lab.zone.set("relay.test", "A", "8.8.4.4")
        lab.publish_policy("sender.test", POLICY)
        us, as_sender, as_receiver = await examined(config, "sender.test", spool)
        assert lab.total == 0  # nothing was sent
    assert graded(us.findings) == {
        "source 8.8.4.4 PTR": "warning",  # the laboratory's DNS knows test. alone
        "source 8.8.4.4 EHLO": "ok",
        "certificate": "ok",
    }
    assert set(graded(as_sender.findings).values()) == {"ok"}
    grades = graded(as_receiver.findings)
    assert set(grades.values()) == {"ok"}
    looked_at = {"mx", "mx1.lab.test", "mta-sts", "mta-sts hosts", "tlsrpt"}
    assert looked_at | {"mx1.lab.test policy", "mx1.lab.test 127.0.0.1"} <= set(grades)
    assert about(as_receiver.findings, "mx1.lab.test 127.0.0.1").said == "TLSv1.3, certificate verified"


async def test_a_receiver_that_falls_back_to_the_clear_is_seen_as_deliveries_see_it(tmp_path, spool):
    async with laboratory(tmp_path, tls="none") as (lab, config):
        lab.publish_policy("rcpt.test", POLICY)
        _, as_sender, as_receiver = await examined(config, "rcpt.test", spool)
    assert "not a sender domain here" in as_sender.findings[0].said
    found = about(as_receiver.findings, "mx1.lab.test 127.0.0.1")
    assert (found.grade.name, "starttls-not-supported" in found.said) == ("PROBLEM", True)


async def test_what_delivery_remembers_of_a_host_is_demanded_of_it(tmp_path, spool):
    async with laboratory(tmp_path, tls="none") as (lab, config):
        now = SystemClock().now()
        for host, seen_at in (("mx1.lab.test", now - 60), ("mx2.lab.test", now - config.delivery.tls_memory - 60)):
            met = Remembered(host=host, port=lab.mx_port, level=Level.VERIFIED, seen_at=seen_at)
            await spool.put_record(KIND, met.name, msgspec.msgpack.encode(met), replace=True)
        *_, as_receiver = await examined(config, "rcpt.test", spool)
        patient = await patient_of("rcpt.test", spool, config, [], now)
    assert patient.remembered == {f"mx1.lab.test:{lab.mx_port}": Level.VERIFIED}
    assert "tls forget" in about(as_receiver.findings, "mx1.lab.test 127.0.0.1").advice


async def test_nobody_is_connected_to_unless_that_is_wanted(tmp_path, spool):
    async with laboratory(tmp_path) as (lab, config):
        *_, as_receiver = await examined(config, "rcpt.test", spool, connect=False)
        assert lab.mx.connections == 0
        *_, looked = await examined(config, "rcpt.test", spool)
        assert lab.mx.connections == 1
    assert "mx1.lab.test 127.0.0.1" not in graded(as_receiver.findings)
    assert "mx1.lab.test 127.0.0.1" in graded(looked.findings)


async def test_a_domain_that_takes_no_mail_is_asked_for_nothing_else(tmp_path, spool):
    async with laboratory(tmp_path) as (lab, config):
        lab.zone.set("rcpt.test", "MX", "0 .")
        *_, as_receiver = await examined(config, "rcpt.test", spool)
    assert graded(as_receiver.findings) == {"mx": "problem"}


async def test_a_dns_out_of_order_leaves_an_answer_and_no_traceback(tmp_path, spool):
    await with_sender(spool)
    async with laboratory(tmp_path) as (lab, config):
        for name in ("sender.test", "s1._domainkey.sender.test", "_dmarc.sender.test", "relay.test"):
            lab.zone.fail(name, Failure.SERVFAIL)
        sections = await examined(config, "sender.test", spool)
    grades = [each.grade.name for section in sections for each in section.findings]
    assert grades.count("WARNING") >= 5
    assert about(sections[2].findings, "mx").grade.name == "PROBLEM"


async def test_addresses_that_receivers_do_not_see_are_no_senders(tmp_path, spool):
    async with laboratory(tmp_path) as (lab, config):
        lab.zone.set_txt("s1._domainkey.sender.test", await with_sender(spool))
        us, as_sender, _ = await examined(config, "sender.test", spool, seen=["10.0.0.1"])
    assert graded(us.findings)["source 10.0.0.1"] == "warning"
    assert "10.0.0.1" not in str(as_sender)


@pytest.mark.parametrize(("pool", "addresses"), [("", ["192.0.2.1"]), ("gold", ["192.0.2.2"]), ("gone", ["192.0.2.1"])])
async def test_the_sources_of_the_tenants_pool_are_looked_at(spool, pool: str, addresses: list[str]):
    await with_sender(spool)
    await tenants.change(spool, "acme", pool=pool)
    sources = [{"name": "a", "address": "192.0.2.1"}, {"name": "b", "address": "192.0.2.2", "hostname": "b.test"}]
    pools = {"default": {"a": 1}, "gold": {"b": 1}}
    config = Config.model_validate({"hostname": "us.test", "sources": sources, "pools": pools})
    patient = await patient_of("news.sender.test", spool, config, [], 0.0)
    assert [each.address for each in patient.leavings] == addresses
    assert patient.registered.name == "sender.test"
    stranger = await patient_of("rcpt.test", spool, config, [], 0.0)
    assert stranger.leavings == (Leaving("192.0.2.1", "us.test", "a"), Leaving("192.0.2.2", "b.test", "b"))
