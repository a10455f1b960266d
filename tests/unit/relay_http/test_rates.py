"""Rates of keys and tenants, as HTTP takes them."""

from mta.accounts import tenants
from mta.accounts.keys import ApiKey
from mta.lab.clock import FakeClock
from mta.spool.interface import Toll
from relay_http.rates import AccountRates
from tests.simulation.memory import MemorySpool, Stored


async def test_a_key_and_its_tenant_are_charged_both() -> None:
    spool, clock = MemorySpool(Stored(), lambda: 0.0), FakeClock()
    rates = AccountRates(spool, clock)
    bare = ApiKey(id="k", tenant="acme", scopes=("send",), digest=b"", created_at=0.0)
    limited = ApiKey(id="k", tenant="acme", scopes=("send",), digest=b"", created_at=0.0, rate=600, per=60)
    await tenants.create(spool, "acme", 0.0)
    assert await rates.tolls(bare, 3) == ()
    assert await rates.tolls(limited, 3) == (Toll("key\0k", 0.1, 6, 3),)
    await tenants.change(spool, "acme", rate=1000, per=10)
    await clock.advance(10.0)
    assert await rates.tolls(limited, 3) == (Toll("key\0k", 0.1, 6, 3), Toll("tenant\0acme", 0.01, 10, 3))
