"""Delivery to Postfix by DANE and MTA-STS: refused when its key or certificate stop being its own, then taken again."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from mta.clock import SystemClock
from mta.config import Config, Dns, HostPort
from mta.delivery.attempt import Attempter
from mta.delivery.plans import Plans
from mta.delivery.policy import Failure
from mta.delivery.protection import Protection
from mta.delivery.resolver import Resolver
from mta.delivery.sources import Sources
from mta.delivery.sts_policies import StsPolicies
from mta.lab.ca import ServerCertificate
from mta.lab.laboratory import Laboratory
from mta.mail.result import Outcome, Verdict
from mta.queue.limits import Limits
from mta.queue.shaping import Shaping
from tests.interop.peers import postfix
from tests.interop.processes import free_ports
from tests.interop.test_dane import Receiver, receiver, serving
from tests.unit.delivery.peers import Contents, NoKeys, Noted, Records, job

__all__ = ["receiver"]  # pytest finds a fixture by its name
STS_MX = "127.0.0.5"


class Sending:
    """Delivery that is made of its own parts, without a queue; each message over a connection of its own."""

    def __init__(self, settings: Config) -> None:
        clock, spool = SystemClock(), Records()
        self.noted = Noted()
        self.resolver = Resolver(settings.dns, clock)
        self.policies = StsPolicies(settings, self.resolver, spool, clock)
        self.protection = Protection(settings, self.resolver, spool, clock, self.noted)
        plans = Plans(settings, self.resolver, self.policies, clock)
        sources, limits = Sources(settings, spool, clock), Limits(Shaping(), 1)
        self.attempter = Attempter(settings, plans, self.protection, NoKeys(), Contents(), sources, clock, limits)

    async def to(self, domain: str) -> Outcome:
        made = job(f"box@{domain}", domain=domain)
        outcome = await asyncio.wait_for(self.attempter.attempt(made), 30)
        self.attempter.settled(made)
        return outcome


@asynccontextmanager
async def sending(dns: HostPort, mx: HostPort, **settings: object) -> AsyncIterator[Sending]:
    delivery = {"port": mx.port, "allow_private_targets": True, "deliveries_per_connection": 1}
    given = {"hostname": "relay.test", "dns": Dns(servers=(dns,)), **settings}
    made = Sending(Config.model_validate(given | {"delivery": {**delivery, **settings.get("delivery", {})}}))
    try:
        yield made
    finally:
        await made.attempter.close()
        await made.protection.memory.close()
        await made.policies.close()
        await made.resolver.close()


async def arrived(maildir: Path, number: int) -> None:
    """Wait until Postfix has so many messages, and no more."""
    async with asyncio.timeout(30):
        while len(list(maildir.glob("new/*"))) < number:
            await asyncio.sleep(0.02)
    assert len(list(maildir.glob("new/*"))) == number


def said(outcome: Outcome) -> tuple[Verdict, str, str]:
    return outcome.results[0].verdict, outcome.policy, outcome.tls.rpartition(":")[2]


async def test_dane_delivers_to_postfix_until_its_key_changes(receiver: Receiver) -> None:
    async with sending(receiver.dns, receiver.mx) as made:
        with serving(receiver, receiver.first) as maildir:
            assert said(await made.to("signed.test")) == (Verdict.DELIVERED, "dane", "dane")
            assert said(await made.to("by-ta.signed.test")) == (Verdict.DELIVERED, "dane", "dane")
            # a record that was put in on the way is no record, and not none
            bogus = await made.to("by-bogus.signed.test")
            assert said(bogus) == (Verdict.DEFERRED, "dane", "")
            assert "TLSA records of bogus.signed.test cannot be had" in bogus.results[0].reply.text
            # where the MX records are not signed, whoever is there gets it
            assert said(await made.to("plain.test")) == (Verdict.DELIVERED, "", "unverified")
            await arrived(maildir, 3)
        with serving(receiver, receiver.authority.issue("mx.signed.test", "ta.signed.test")) as maildir:
            changed = await made.to("signed.test")
            assert said(changed) == (Verdict.DEFERRED, "dane", "")
            assert "certificate of mx.signed.test matches none of its TLSA records" in changed.results[0].reply.text
            assert said(await made.to("by-ta.signed.test")) == (Verdict.DELIVERED, "dane", "dane")
            await arrived(maildir, 1)


@contextmanager
def showing(address: HostPort, certificate: ServerCertificate) -> Iterator[Path]:
    """Run Postfix with a certificate; gives the maildir."""
    settings = {
        "myhostname": "mx.sts.test",
        "smtpd_tls_security_level": "may",
        "smtpd_tls_chain_files": f"{certificate.key}, {certificate.certificate}",
        "virtual_mailbox_domains": "static:all",
        "virtual_mailbox_maps": "static:box/",
        "virtual_mailbox_base": "{directory}/data",
        "virtual_uid_maps": "static:{user}",
        "virtual_gid_maps": "static:{user}",
    }
    with postfix(address, settings) as running:
        yield running.directory / "data/box"


@pytest.fixture
async def laboratory(tmp_path: Path) -> AsyncIterator[Laboratory]:
    lab = Laboratory(tmp_path / "lab", SystemClock())
    await lab.start()
    for domain, mode in (("sts.test", "enforce"), ("trying.test", "testing")):
        lab.publish_policy(domain, f"version: STSv1\nmode: {mode}\nmx: *.sts.test\nmax_age: 86400\n")
        lab.zone.set(domain, "MX", "10 mx.sts.test.")
    lab.zone.set("mx.sts.test", "A", STS_MX)
    yield lab
    await lab.close()


async def test_sts_delivers_to_postfix_while_its_certificate_is_its_own(laboratory: Laboratory) -> None:
    lab = laboratory
    mx = HostPort(host=STS_MX, port=free_ports(1, STS_MX)[0])
    settings = {"sts": {"port": lab.policy_host.address.port}, "delivery": {"ca_file": lab.ca_file, "tls_memory": 0.0}}
    async with sending(lab.dns_address, mx, **settings) as made:
        with showing(mx, lab.ca.issue("mx.sts.test")):
            assert said(await made.to("sts.test")) == (Verdict.DELIVERED, "sts enforce", "verified")
        with showing(mx, lab.ca.issue("mx.other.test")) as maildir:
            refused = await made.to("sts.test")
            assert said(refused) == (Verdict.DEFERRED, "sts enforce", "")
            assert "MTA-STS policy of sts.test: certificate of mx.sts.test is for mx.other.test" in str(
                refused.results[0].reply
            )
            assert said(await made.to("trying.test")) == (Verdict.DELIVERED, "sts testing", "unverified")
            await arrived(maildir, 1)
        with showing(mx, lab.ca.issue("mx.sts.test")):
            assert said(await made.to("sts.test")) == (Verdict.DELIVERED, "sts enforce", "verified")
    told = [(each.domain, each.failure) for each in made.noted.sessions]
    assert told == [
        ("sts.test", None),
        ("sts.test", Failure.CERTIFICATE_HOST_MISMATCH),
        ("trying.test", Failure.CERTIFICATE_HOST_MISMATCH),
        ("sts.test", None),
    ]
