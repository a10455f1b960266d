"""Where mail goes and by which policy: made once, and anew when DNS or policy change; sites by class."""

import pytest

from mta.delivery.plans import Plans
from mta.delivery.resolver import Resolver
from mta.delivery.sts_policies import Standing
from mta.delivery.trouble import NoWay
from mta.lab.clock import FakeClock
from tests.unit.delivery.peers import DnsPeer, Policies, config, sts_policy

RECORDS = {("rcpt.test", "MX"): ["10 mx.test."], ("other.test", "MX"): ["5 mx.test."], ("null.test", "MX"): ["0 ."]}


class Asked(Policies):
    def __init__(self, *policies):
        super().__init__(*policies)
        self.domains = []

    async def of(self, domain):
        self.domains.append(domain)
        return await super().of(domain)


@pytest.fixture
async def dns():
    async with DnsPeer(RECORDS) as peer:
        yield peer


async def plans_of(dns, policies, clock=None, **options):
    clock = clock or FakeClock()
    return Plans(config(**options), Resolver(dns.settings, clock), policies, clock)


async def test_a_plan_is_kept_until_dns_or_sts_policy_change(dns):
    policies, clock = Asked(sts_policy("mx.test")), FakeClock()
    plans = await plans_of(dns, policies, clock)
    plan = await plans.plan("rcpt.test")
    for asked in (1, 2):  # once a second
        for _ in range(3):
            assert await plans.plan("rcpt.test") is plan
        assert len(policies.domains) == asked
        await clock.advance(1)
    assert plan.site.name == f"mx.test:25 sts={plan.site.sts}"
    policies.standings["rcpt.test"] = Standing()
    changed = await plans.plan("rcpt.test")
    assert (changed.site.name, changed.site.sts) == ("mx.test:25", "")
    dns.records["rcpt.test", "MX"] = ["10 new.test."]
    await clock.advance(61)
    assert (await plans.plan("rcpt.test")).site.name == "new.test:25"


async def test_sts_policies_that_ask_the_same_of_the_same_hosts_are_one_site(dns):
    policies = Policies(sts_policy("mx.test", "*.test"), sts_policy("*.test", "MX.test", domain="other.test"))
    clock = FakeClock()
    plans = await plans_of(dns, policies, clock)
    one, other = [await plans.plan(domain) for domain in ("rcpt.test", "other.test")]
    assert one.site == other.site
    policies.standings["other.test"] = Standing(sts_policy("mx.test", domain="other.test"))
    await clock.advance(1)
    assert (await plans.plan("other.test")).site != one.site
    policies.standings["other.test"] = Standing(sts_policy("mx.test", domain="other.test", mode="testing"))
    await clock.advance(1)
    testing = await plans.plan("other.test")
    assert (testing.site.name, testing.standing.policy.mode) == ("mx.test:25", "testing")


async def test_dane_has_sites_of_its_own(dns):
    plans = await plans_of(dns, Policies(sts_policy("mx.test")))
    dns.secure.add("rcpt.test")
    site = (await plans.plan("rcpt.test")).site
    assert (site.name, site.secure) == (f"mx.test:25 dane sts={site.sts}", True)
    assert not (await plans.plan("other.test")).site.secure


async def test_a_route_has_no_sts_policy_and_nobody_is_asked(dns):
    policies = Asked(sts_policy("mx.test"))
    routes = [{"domains": ["rcpt.test"], "relay": "smart.test:587", "tls": "verify"}]
    plans = await plans_of(dns, policies, routes=routes)
    plan = await plans.plan("rcpt.test")
    assert (plan.site.name, plan.standing, plans.knows("rcpt.test")) == (
        "smart.test:587 tls=verify", Standing(), True,
    )  # fmt: skip
    assert (policies.domains, dns.asked) == ([], [])


async def test_where_mail_goes_nowhere_no_sts_policy_is_asked_for(dns):
    policies = Asked()
    plans = await plans_of(dns, policies)
    assert await plans.plan("null.test") is NoWay.NULL_MX
    assert await plans.plan("absent.test") is NoWay.NO_DOMAIN
    assert policies.domains == []


async def test_what_is_known_needs_nobody(dns):
    policies = Policies()
    plans = await plans_of(dns, policies)
    assert not plans.knows("rcpt.test")
    await plans.plan("rcpt.test")
    assert plans.knows("rcpt.test")
    policies.knows = lambda _: False
    assert not plans.knows("rcpt.test")
