"""Who may use a listener, and how logins and senders are looked up in the installation's own accounts."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mta.accounts import credentials, domains, keys, tenants
from mta.accounts.particulars import Particulars
from mta.accounts.tolls import Rate
from mta.accounts.uses import last_used
from mta.clock import SystemClock
from mta.ingress.access import HIDDEN_CLIENT, UNIX_CLIENT, Accounts, Identity, admits, client_at
from mta.lab.clock import FakeClock
from mta.spool.lmdb.spool import LmdbSpool
from mta.spool.sealing import Keyring

CLIENT = client_at("192.0.2.7")


@pytest.mark.parametrize(
    ("address", "name", "literal", "local"),
    [
        ("192.0.2.1", "192.0.2.1", "[192.0.2.1]", False),
        ("::ffff:192.0.2.1", "192.0.2.1", "[192.0.2.1]", False),
        ("2001:DB8::1", "2001:db8::1", "[IPv6:2001:db8::1]", False),
        ("fe80::1%eth0", "fe80::1", "[IPv6:fe80::1]", False),
        ("127.9.9.9", "127.9.9.9", "[127.9.9.9]", True),
        ("::ffff:127.0.0.1", "127.0.0.1", "[127.0.0.1]", True),
    ],
)
def test_clients(address: str, name: str, literal: str, local: bool):
    client = client_at(address)
    assert (client.name, client.literal, client.local) == (name, literal, local)


def test_an_ipv6_host_is_counted_with_its_64():
    assert client_at("2001:db8::1").counted_as == client_at("2001:db8::ffff:1").counted_as
    assert client_at("2001:db8::1").counted_as != client_at("2001:db8:0:1::1").counted_as
    assert client_at("192.0.2.1").counted_as != client_at("192.0.2.2").counted_as


def test_a_relay_listener_serves_its_networks_only(make_listener):
    relay = make_listener(networks=["192.0.2.0/24", "2001:db8::/32"])
    for address, served in [
        ("192.0.2.200", True),
        ("::ffff:192.0.2.200", True),
        ("192.0.3.1", False),
        ("127.0.0.1", False),
        ("2001:db8::1", True),
        ("2001:db9::1", False),
    ]:
        assert admits(relay, client_at(address)) is served
        assert admits(make_listener("submission"), client_at(address))
    assert not admits(relay, HIDDEN_CLIENT)
    assert not admits(make_listener(networks=["0.0.0.0/0", "::/0"]), HIDDEN_CLIENT)
    assert admits(make_listener(address="unix:/run/x", networks=[]), UNIX_CLIENT)


@pytest.fixture
async def spool(tmp_path: Path) -> AsyncIterator[LmdbSpool]:
    keyring = Keyring([os.urandom(32)])
    spool = LmdbSpool(tmp_path / "spool", keyring, SystemClock(), map_size=1 << 26, reserve=0, sync=False)
    await tenants.create(spool, "alice", 0.0)
    await tenants.create(spool, "bob", 0.0)
    yield spool
    await spool.close()


async def test_a_credential_logs_its_tenant_in(spool: LmdbSpool):
    _, password = await credentials.create(spool, "alice", "printer", 0.0)
    assert password is not None
    accounts = Accounts(spool, FakeClock())
    assert await accounts.authenticate("printer", password, CLIENT) == Identity("alice", "printer")
    assert await accounts.authenticate("printer", password + "x", CLIENT) is None
    assert await accounts.authenticate("nobody", password, CLIENT) is None
    assert await accounts.authenticate("apikey", password, CLIENT) is None


async def test_an_api_key_is_a_password_if_it_may_send(spool: LmdbSpool):
    sender, secret = await keys.create(spool, "bob", ["send", "read"], 0.0)
    _, reading = await keys.create(spool, "bob", ["read"], 0.0)
    accounts = Accounts(spool, FakeClock())
    assert await accounts.authenticate("apikey", secret, CLIENT) == Identity(
        "bob", f"apikey:{sender.id}", key=sender.id
    )
    assert await accounts.authenticate("apikey", reading, CLIENT) is None
    assert await accounts.authenticate("bob", secret, CLIENT) is None


async def test_a_key_is_no_password_from_elsewhere_or_when_it_has_ended(spool: LmdbSpool):
    clock = FakeClock()
    bound = Particulars(networks=("192.0.2.0/24", "2001:db8::/32"), expires_at=clock.now() + 60)
    key, secret = await keys.create(spool, "bob", ["mail.send"], clock.now(), bound)
    accounts = Accounts(spool, clock)
    for client, good in (
        (CLIENT, True),
        (client_at("::ffff:192.0.2.8"), True),
        (client_at("2001:db8::1"), True),
        (client_at("192.0.3.1"), False),
        (UNIX_CLIENT, False),
        (HIDDEN_CLIENT, False),
    ):
        assert (await accounts.authenticate("apikey", secret, client) is not None) is good
    await accounts.uses.store()
    assert await last_used(spool, key.id) == clock.now()
    await clock.advance(60.0)
    assert await accounts.authenticate("apikey", secret, CLIENT) is None


async def test_a_login_that_has_ended_since(spool: LmdbSpool):
    clock = FakeClock()
    now = clock.now()
    _, password = await credentials.create(spool, "alice", "printer", now)
    plain, secret = await keys.create(spool, "bob", ["send"], now)
    _, timed = await keys.create(spool, "bob", ["send"], now, Particulars(expires_at=now + 60))
    accounts = Accounts(spool, clock)
    logins = [
        await accounts.authenticate(user, given, CLIENT)
        for user, given in (("printer", str(password)), ("apikey", secret), ("apikey", timed))
    ]

    async def good() -> list[bool]:
        return [await accounts.good(each) for each in logins if each is not None]

    assert await good() == [True, True, True]
    await clock.advance(60)
    assert await good() == [True, True, False]
    await keys.revoke(spool, plain.id, clock.now())
    assert await good() == [True, False, False]
    await credentials.revoke(spool, "printer", clock.now())
    assert await good() == [False, False, False]
    assert not await accounts.good(Identity("bob", "nobody"))
    await credentials.create(spool, "alice", "printer", clock.now())  # with another password
    assert await good() == [False, False, False]


async def test_a_sandbox_key_says_so(spool: LmdbSpool):
    _, secret = await keys.create(spool, "bob", ["send"], 0.0, Particulars(sandbox=True))
    found = await Accounts(spool, FakeClock()).authenticate("apikey", secret, CLIENT)
    assert found is not None
    assert found.sandbox


async def test_who_sends_the_same_but_once_and_at_what_rate(spool: LmdbSpool):
    _, password = await credentials.create(spool, "alice", "printer", 0.0, once=60.0)
    key, secret = await keys.create(spool, "bob", ["send"], 0.0, Particulars(once=5.0, rate=Rate(120, 60)))
    accounts = Accounts(spool, FakeClock())
    assert await accounts.authenticate("printer", password or "", CLIENT) == Identity("alice", "printer", once=60.0)
    assert await accounts.authenticate("apikey", secret, CLIENT) == Identity(
        "bob", f"apikey:{key.id}", once=5.0, key=key.id, rate=Rate(120, 60)
    )


async def test_a_rate_that_is_given_to_a_tenant_holds_within_ten_seconds(spool: LmdbSpool):
    clock = FakeClock()
    accounts = Accounts(spool, clock)
    assert await accounts.rate("bob") is None
    await tenants.change(spool, "bob", rate=10, per=1)
    assert await accounts.rate("bob") is None
    await clock.advance(10.0)
    assert await accounts.rate("bob") == Rate(10, 1)
    assert await accounts.rate("nobody") is None


async def test_the_owner_of_a_sender_domain_is_known(spool: LmdbSpool):
    await domains.add(spool, "alice.test", "alice", 0.0)
    accounts = Accounts(spool, FakeClock())
    assert (await accounts.standing("alice", ["alice.test"])).sign_domain == "alice.test"
    assert (await accounts.standing("bob", ["mine.test", "Sub.Alice.test."])).foreign
    assert not (await accounts.standing("bob", ["mine.test"])).foreign


async def test_a_domain_that_is_registered_holds_within_a_second(spool: LmdbSpool):
    clock = FakeClock()
    accounts = Accounts(spool, clock)
    assert not (await accounts.standing("bob", ["new.test"])).foreign
    await domains.add(spool, "new.test", "alice", 0.0)
    await clock.advance(1.0)
    assert (await accounts.standing("bob", ["new.test"])).foreign
    assert (await accounts.standing("alice", ["new.test"])).sign_domain == "new.test"
