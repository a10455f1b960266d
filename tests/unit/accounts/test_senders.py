import pytest

from mta.accounts import domains, tenants
from mta.accounts.senders import FROM_DOMAINS_LIMIT, Standing, standing


@pytest.fixture(autouse=True)
async def _domains(spool):
    await tenants.create(spool, "acme", 1.0)
    await tenants.create(spool, "other", 1.0)
    await domains.add(spool, "acme.test", "acme", 1.0)
    await domains.add(spool, "other.test", "other", 1.0)


@pytest.mark.parametrize(
    ("from_domains", "expected"),
    [
        (["acme.test"], Standing(sign_domain="acme.test")),
        (["News.Acme.Test"], Standing(sign_domain="acme.test")),
        (["free.test", "acme.test"], Standing(sign_domain="acme.test")),
        (["free.test"], Standing(note="free.test is not registered")),
        ([], Standing(note="no sender domain")),
        ([""], Standing(note="no sender domain")),
        (["other.test"], Standing(foreign="other.test", note="other.test belongs to another tenant")),
        (["acme.test", "x.other.test"], Standing(foreign="x.other.test", note="other.test belongs to another tenant")),
    ],
)
async def test_standing(spool, from_domains, expected):
    assert await standing(spool, "acme", from_domains) == expected


async def test_foreign_domain_does_not_hide_behind_many(spool):
    crowd = [f"d{number}.test" for number in range(FROM_DOMAINS_LIMIT)]
    assert (await standing(spool, "acme", crowd)).foreign == ""
    assert (await standing(spool, "acme", [*crowd, "other.test"])).foreign == "other.test"
    assert (await standing(spool, "acme", ["acme.test"] * 1000)).sign_domain == "acme.test"
