"""What would become of a message, by a DNS that says all kinds of things."""

from collections.abc import Sequence
from contextlib import asynccontextmanager

import msgspec
import pytest

from mta.accounts.domains import Selector
from mta.accounts.tenants import Tenant
from mta.control import ControlError
from mta.delivery.plans import Plans
from mta.delivery.policy import Level
from mta.delivery.protection import Protection
from mta.delivery.signatory import SigningError
from mta.doctor import prospect
from mta.doctor.prospect import Foresight
from mta.lab.clock import FakeClock
from mta.queue.prospect import DOMAINS, Asked, Host, Signature, SourceSpf
from tests.unit.delivery.peers import DnsPeer, Noted, Policies, Records, config, sts_policy
from tests.unit.doctor.world import resolver_of

RECORDS = {
    ("rcpt.test", "MX"): ["10 mx.rcpt.test.", "20 far.elsewhere.test."],
    ("null.test", "MX"): ["0 ."],
    ("plain.test", "MX"): ["10 mx.plain.test."],
    ("acme.test", "TXT"): ['"v=spf1 ip4:8.8.4.0/24 -all"'],
    ("_dmarc.acme.test", "TXT"): ['"v=DMARC1; p=reject; sp=quarantine; adkim=s"'],
}
SOURCES = [
    {"name": each, "address": address, "hostname": "mail.us.test"}
    for each, address in (("a", "8.8.4.4"), ("b", "9.9.9.9"), ("c", "10.0.0.1"))
]
ASKED = Asked(
    tenant="acme", sign_domain="acme.test", from_domain="acme.test", return_domain="acme.test", domains=("rcpt.test",)
)
KEY = Selector(name="s1", algorithm="x", created_at=0.0, dns_value="", sealed=b"")


class Keys:
    """A signer that has keys, or cannot know."""

    def __init__(self, *keys: Selector, error: str = "") -> None:
        self.keys = keys
        self.error = error

    async def keys_of(self, name: str, tenant: str) -> Sequence[Selector]:
        if self.error:
            raise SigningError(self.error)
        return self.keys if (name, tenant) == ("acme.test", "acme") else ()


class World:
    """What delivery knows, and who is asked."""

    def __init__(self, resolver, peer: DnsPeer, keys: Keys, policies: Policies) -> None:
        self.peer = peer
        self.records, self.noted = Records(), Noted()
        settings = config(sources=SOURCES)
        clock = FakeClock()
        self.protection = Protection(settings, resolver, self.records, clock, self.noted)
        plans = Plans(settings, resolver, policies, clock)
        self.foresight = Foresight(settings, self.records, plans, self.protection, keys)


@asynccontextmanager
async def world(keys=None, policies=None, records=RECORDS):
    async with resolver_of(records) as (resolver, peer):
        yield World(resolver, peer, keys or Keys(KEY), policies or Policies())


def replaced(**fields):
    return Asked(**{name: getattr(ASKED, name) for name in Asked.__struct_fields__} | fields)


async def test_all_is_well():
    async with world(policies=Policies(sts_policy("mx.rcpt.test"))) as found:
        told = await found.foresight.prospect(ASKED)
        assert not found.noted.sessions  # nothing is reported that was not tried
    assert told.signature == Signature("acme.test", ("s1",))
    assert (told.alignment.policy, told.alignment.dkim_aligned, told.alignment.spf_aligned) == ("reject", True, True)
    assert told.alignment.spf == (SourceSpf("8.8.4.4", "pass"), SourceSpf("9.9.9.9", "fail"))
    (destination,) = told.destinations
    assert (destination.domain, destination.routed, destination.sts, destination.trouble) == (
        *("rcpt.test", False, "enforce", ""),
    )
    first, last = destination.hosts
    assert first == Host("mx.rcpt.test", 25, "verified", "sts enforce")
    assert (last.host, last.tls) == ("far.elsewhere.test", "")
    assert "none of its MX hosts" in last.refused


async def test_what_the_message_and_its_tenant_ask_of_tls():
    async with world() as found:
        plain = replaced(domains=("plain.test",))
        (destination,) = (await found.foresight.prospect(plain)).destinations
        assert [each.tls for each in destination.hosts] == ["clear"]
        found.protection.memory.saw("mx.plain.test", 25, Level.ENCRYPTED)
        (destination,) = (await found.foresight.prospect(plain)).destinations
        assert destination.hosts == (Host("mx.plain.test", 25, "encrypted", "memory"),)
        required = replaced(domains=("plain.test",), tls_required=True)
        (destination,) = (await found.foresight.prospect(required)).destinations
        assert "REQUIRETLS" in destination.hosts[0].refused
    async with world() as found:
        tenant = Tenant(name="acme", created_at=0.0, tls="verified")
        found.records.held["tenant", "acme"] = msgspec.msgpack.encode(tenant)
        (destination,) = (await found.foresight.prospect(plain)).destinations
        assert destination.hosts == (Host("mx.plain.test", 25, "verified", "the sender's tenant"),)


@pytest.mark.parametrize(
    ("domain", "trouble"),
    [("null.test", "null MX"), ("none.test", "no such domain"), ("dead.test", "DNS gave no answer")],
)
async def test_where_nothing_goes(domain, trouble):
    async with world() as found:
        found.peer.rcodes["dead.test"] = 2
        (destination,) = (await found.foresight.prospect(replaced(domains=(domain,)))).destinations
    assert (destination.trouble, destination.hosts) == (trouble, ())


async def test_no_more_are_looked_at_than_told():
    async with world() as found:
        domains = tuple(f"d{number}.test" for number in range(DOMAINS + 3))
        told = await found.foresight.prospect(replaced(domains=domains))
    assert ([each.domain for each in told.destinations], told.more) == (list(domains[:DOMAINS]), 3)


async def test_what_does_not_stand_for_the_author():
    async with world() as found:
        below = replaced(from_domain="news.acme.test", return_domain="bounces.other.test")
        alignment = (await found.foresight.prospect(below)).alignment
        assert (alignment.policy, alignment.dkim_aligned, alignment.spf_aligned) == ("quarantine", False, False)
        assert {each.result for each in alignment.spf} == {"none"}
        null = await found.foresight.prospect(replaced(return_domain=""))
        assert not null.alignment.spf_aligned  # EHLO stands for it


@pytest.mark.parametrize(
    ("asked", "keys", "why"),
    [
        (replaced(sign_domain=""), Keys(KEY), "acme.test is not registered"),
        (ASKED, Keys(), "no key for acme.test"),
        (ASKED, Keys(error="the record of acme.test cannot be read"), "the record of acme.test cannot be read"),
    ],
)
async def test_why_it_goes_unsigned(asked, keys, why):
    async with world(keys) as found:
        told = await found.foresight.prospect(asked)
    assert (told.signature.selectors, told.signature.why, told.alignment.dkim_aligned) == ((), why, False)


async def test_a_record_that_cannot_be_used():
    async with world(records={**RECORDS, ("_dmarc.acme.test", "TXT"): ['"v=DMARC1; p=maybe"']}) as found:
        assert "p is not one of" in (await found.foresight.prospect(ASKED)).alignment.trouble
        found.peer.rcodes["_dmarc.dead.test"] = 2
        told = await found.foresight.prospect(replaced(from_domain="dead.test"))
        assert "no answer from the DNS" in told.alignment.trouble


async def test_a_dns_that_takes_too_long(monkeypatch):
    monkeypatch.setattr(prospect, "_SECONDS", 0.05)
    async with world() as found:
        found.peer.silent.add("rcpt.test")
        with pytest.raises(ControlError, match="the DNS took longer"):
            await found.foresight.prospect(ASKED)
