"""keys with all that they are bound to, rates of tenants, and the audit log of what is done at the command line."""

import getpass
import time
from typing import Any

import pytest

from mta.accounts import keys, uses
from mta.cli import session


@pytest.fixture(autouse=True)
def _acme(relay: Any) -> None:
    relay.run("tenants", "create", "acme")


def made(relay: Any, *more: str) -> Any:
    done = relay.run("keys", "create", "--tenant", "acme", "--scope", "send", *more, "--json")
    assert done.code == 0, done.err
    return done.record


def works(relay: Any, key: str, at: float | None = None) -> bool:
    found = relay.with_spool(lambda spool: keys.authenticate(spool, key, at or time.time()))
    return found is not None


def test_a_key_with_everything_is_listed_so(relay: Any) -> None:
    networks = ("--network", "192.0.2.7/24", "--network", "2001:db8::/32")
    more = ("--rate", "1200/minute", "--expires", "2099-12-01T08:00Z", "--sandbox", "--once", "60")
    key = made(relay, "--scope", "messages.read", "--name", "billing", *networks, *more)
    [listed] = relay.run("keys", "list", "--json").records
    del listed["created_at"]
    assert listed == {
        "id": key["id"],
        "name": "billing",
        "tenant": "acme",
        "operator": False,
        "scopes": ["send", "read"],
        "grants": ["send", "messages.read"],
        "networks": ["192.0.2.0/24", "2001:db8::/32"],
        "rate": "1200/60",
        "once": 60.0,
        "sandbox": True,
        "expires_at": 4099795200.0,
        "revoked_at": None,
        "last_used_at": None,
    }
    text = relay.run("keys", "list").out
    assert "until 2099-12-01T08:00:00Z" in text
    assert "192.0.2.0/24 2001:db8::/32 1200/60 sandbox" in text


@pytest.mark.parametrize(
    ("more", "code", "says"),
    [
        (("--rate", "fast"), 2, "is not a rate such as 1200/60"),
        (("--expires", "tomorrow"), 2, "is not a time such as"),
        (("--expires", "2099-12-01T08:00"), 2, "has no zone"),
        (("--expires", "2001-12-01T08:00Z"), 1, "a time to come"),
        (("--network", "nowhere"), 1, "is not an address or a network"),
        (("--scope", "root"), 1, "no scope 'root'"),
        (("--once", "-1"), 2, "not in the range"),
    ],
)
def test_a_key_that_cannot_be(relay: Any, more: tuple[str, ...], code: int, says: str) -> None:
    done = relay.run("keys", "create", "--tenant", "acme", "--scope", "send", *more)
    assert (done.code, done.out) == (code, "")
    assert says in done.err
    assert relay.run("keys", "list", "--json").records == []


def test_a_key_is_rotated(relay: Any) -> None:
    old = made(relay, "--name", "billing")
    new = relay.run("keys", "rotate", old["id"], "--overlap", "1h", "--json").record
    assert new["instead_of"] == old["id"]
    assert works(relay, old["key"])
    assert works(relay, new["key"])
    assert not works(relay, old["key"], time.time() + 3601)
    assert [each["name"] for each in relay.run("keys", "list", "--json").records] == ["billing", "billing"]
    assert relay.run("keys", "rotate", old["id"], "--overlap", "0s").code == 0
    assert not works(relay, old["key"])
    assert "has ended" in relay.run("keys", "rotate", old["id"]).err
    assert "there is no key" in relay.run("keys", "rotate", "A" * 22).err
    assert relay.run("keys", "rotate", new["id"], "--overlap", "99d").code == 1


def test_keys_of_one_tenant_and_how_they_stand(relay: Any) -> None:
    relay.run("tenants", "create", "other")
    key = made(relay)
    relay.run("keys", "create", "--tenant", "other", "--scope", "read")
    relay.run("keys", "revoke", key["id"])
    assert [each["id"] for each in relay.run("keys", "list", "--tenant", "acme", "--json").records] == [key["id"]]
    assert len(relay.run("keys", "list", "--json").records) == 2
    assert " revoked " in relay.run("keys", "list", "--tenant", "acme").out

    async def use(spool: Any) -> None:
        await spool.put_record(uses.KIND, key["id"], b"1800000000.0", replace=True)

    relay.with_spool(use)
    assert "2027-01-15T08:00:00Z" in relay.run("keys", "list", "--tenant", "acme").out


def test_a_tenants_rate_is_set_shown_and_taken_away(relay: Any) -> None:
    assert relay.run("tenants", "set", "acme", "--rate", "1200/60").out == "tenant acme has rate 1200/60\n"
    assert relay.run("tenants", "show", "acme", "--json").record["rate"] == "1200/60"
    assert "rate      1200/60" in relay.run("tenants", "show", "acme").out
    assert relay.run("tenants", "set", "acme", "--rate", "none", "--weight", "3").code == 0
    assert relay.run("tenants", "show", "acme", "--json").record["rate"] is None
    assert relay.run("tenants", "set", "acme", "--rate", "1/0").code == 2


# The audit log


def audited(relay: Any, *arguments: str) -> list[tuple[str, str, str, str]]:
    done = relay.run("audit", "--json", *arguments)
    assert done.code == 0, done.err
    assert all(each["by"] == session.person() and each["by_operator"] for each in done.records)
    assert all(each["address"] == "command line" for each in done.records)
    return [(each["action"], each["tenant"], each["on"], each["result"]) for each in done.records]


def test_everything_that_is_changed_is_on_record(relay: Any) -> None:
    key = made(relay)
    new = relay.run("keys", "rotate", key["id"], "--json").record
    relay.run("keys", "revoke", key["id"])
    relay.run("tenants", "set", "acme", "--rate", "5/1")
    relay.run("credentials", "create", "--tenant", "acme", "--user", "joe")
    relay.run("credentials", "create", "--tenant", "acme", "--user", "joe")
    relay.run("credentials", "revoke", "joe")
    relay.run("domains", "add", "Acme.test", "--tenant", "acme")
    relay.run("dkim", "create", "acme.test", "--selector", "s1")
    relay.run("keys", "create", "--tenant", "acme", "--scope", "root")
    reserved = relay.run(
        "tenants", "reserve", "acme", "--share", "10%", "--until", "2099-12-01T08:00Z", "--json"
    ).record
    relay.run("tenants", "unreserve", reserved["id"])
    message = relay.accept("a@one.test")
    relay.run("queue", "hold", message)
    relay.run("queue", "priority", "bulk", "--where", "domain=one.test", "--yes")
    relay.run("queue", "cancel", message)
    found = audited(relay)
    [refused] = [result for _, _, _, result in found if result.startswith("refused: there is no scope 'root'")]
    assert found == [
        ("queue.cancel", "", message, "cancelled=1"),
        ("queue.priority", "", "domain=one.test", "bulk=1"),
        ("queue.hold", "acme", message, "held=1"),
        ("tenants.unreserve", "", reserved["id"], "done"),
        ("tenants.reserve", "acme", reserved["id"], "done"),
        ("keys.create", "acme", "", refused),
        ("dkim.create", "acme", "acme.test", "done"),
        ("domains.add", "acme", "Acme.test", "done"),
        ("credentials.revoke", "acme", "joe", "done"),
        ("credentials.create", "acme", "joe", "unchanged"),
        ("credentials.create", "acme", "joe", "done"),
        ("tenants.set", "acme", "acme", "done"),
        ("keys.revoke", "acme", key["id"], "done"),
        ("keys.rotate", "acme", key["id"], f"done: {new['id']}"),
        ("keys.create", "acme", key["id"], "done"),
        ("tenants.create", "acme", "acme", "done"),
    ]
    text = relay.run("audit").out
    assert "rate=5/1" in text
    for secret in (key["key"], new["key"]):
        assert secret.split(".")[2] not in text


def test_what_only_reads_or_is_refused_before_it_begins_is_not(relay: Any) -> None:
    before = audited(relay)
    for command in (
        ("keys", "list"),
        ("tenants", "list"),
        ("audit",),
        ("keys", "revoke", "A" * 22),
        ("credentials", "revoke", "nobody"),
        ("queue", "drop", "--where", "domain=one.test"),
    ):
        relay.run(*command)
    assert audited(relay) == before


def test_since_a_time_and_of_a_tenant(relay: Any) -> None:
    relay.run("tenants", "create", "other")
    assert [each[1] for each in audited(relay, "--tenant", "other")] == ["other"]
    assert len(audited(relay, "--since", "1h")) == 2
    assert audited(relay, "--since", "2098-12-01T08:00Z") == []
    assert len(audited(relay, "--since", "2020-12-01T08:00Z")) == 2
    assert relay.run("audit", "--since", "yesterday").code == 2


def test_who_is_at_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session.os, "getuid", lambda: 0)
    monkeypatch.setenv("SUDO_USER", "joe")
    assert session.person.__wrapped__() == "joe"
    monkeypatch.delenv("SUDO_USER")
    assert session.person.__wrapped__() == "root"
    monkeypatch.undo()
    assert session.person.__wrapped__() in (getpass.getuser(), "root")
    monkeypatch.setattr(session.os, "getuid", lambda: 4_000_000_000)
    assert session.person.__wrapped__() == "user 4000000000"
