import pytest

from mta.accounts import domains, tenants
from mta.accounts.domains import DomainTaken
from mta.accounts.tenants import AccountError


@pytest.fixture(autouse=True)
async def _tenants(spool):
    await tenants.create(spool, "acme", 1.0)
    await tenants.create(spool, "other", 1.0)


async def test_registered_in_normal_form(spool):
    added = await domains.add(spool, "Bücher.Example.", "acme", 100.0)
    assert (added.name, added.tenant, added.created_at) == ("xn--bcher-kva.example", "acme", 100.0)
    assert await domains.list_all(spool) == [added]


async def test_adding_again_changes_nothing(spool):
    added = await domains.add(spool, "example.com", "acme", 100.0)
    assert await domains.add(spool, "EXAMPLE.com", "acme", 200.0) == added


@pytest.mark.parametrize("name", ["example.com", "Example.COM.", "mail.example.com", "a.b.example.com", "com.example"])
async def test_another_tenants_is_taken(spool, name):
    await domains.add(spool, "example.com", "acme", 100.0)
    await domains.add(spool, "x.com.example", "acme", 100.0)
    before = await domains.list_all(spool)
    with pytest.raises(DomainTaken, match="another tenant"):
        await domains.add(spool, name, "other", 200.0)
    assert await domains.list_all(spool) == before


async def test_own_domains_nest(spool):
    await domains.add(spool, "example.com", "acme", 100.0)
    await domains.add(spool, "mail.example.com", "acme", 100.0)
    await domains.add(spool, "ample.com", "other", 100.0)
    assert (await domains.owner_of(spool, "a.mail.example.com")).name == "mail.example.com"
    assert (await domains.owner_of(spool, "news.example.com")).name == "example.com"


@pytest.mark.parametrize(
    "domain",
    [
        "example.com",
        "EXAMPLE.COM.",
        "a.b.c.example.com",
        "ｅxample.com",
        "mail。example．com",
        "é_x.example.com",
        "_x.example.com",
        "\udcff.example.com",
        "..example.com",
        "x" * 70 + ".example.com",
        "a." * 5000 + "example.com",
        "é" * 5000 + ".example.com",
    ],
)
async def test_whatever_stands_below_is_the_owners(spool, domain):
    added = await domains.add(spool, "example.com", "acme", 100.0)
    assert await domains.owner_of(spool, domain) == added


@pytest.mark.parametrize(
    "domain", ["", ".", "com", "example", "ample.com", "example.com.evil.test", "\udcff", "[192.0.2.1]"]
)
async def test_nobody_owns_the_rest(spool, domain):
    await domains.add(spool, "example.com", "acme", 100.0)
    assert await domains.owner_of(spool, domain) is None


async def test_a_top_level_name_speaks_for_itself_only(spool):
    added = await domains.add(spool, "localhost", "acme", 100.0)
    assert await domains.owner_of(spool, "localhost") == added
    assert await domains.owner_of(spool, "x.localhost") is None
    await domains.add(spool, "x.localhost", "other", 100.0)


@pytest.mark.parametrize(
    "name", ["", ".", "a b", "a..b", "-a.test", "a_b.test", "[192.0.2.1]", "x" * 300, "\udcff.test"]
)
async def test_no_domain_is_not_added(spool, name):
    with pytest.raises(AccountError):
        await domains.add(spool, name, "acme", 100.0)
    assert await domains.list_all(spool) == []


async def test_tenant_must_exist(spool):
    with pytest.raises(AccountError, match="no tenant"):
        await domains.add(spool, "example.com", "nobody", 100.0)
    assert await domains.list_all(spool) == []
