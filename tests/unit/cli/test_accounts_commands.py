"""tenants, keys, credentials, domains, dkim: what is made, what is printed, what is refused."""

import re
import time
from typing import Any

import pytest

from mta.accounts import credentials, keys
from mta.cli.dkim import zone_line


def test_creating_a_tenant_twice_changes_nothing_and_is_no_failure(relay: Any) -> None:
    first = relay.run("tenants", "create", "acme", "--json")
    listed = relay.run("tenants", "list", "--json")
    assert (first.code, first.record) == (0, {"tenant": "acme"})
    again = relay.run("tenants", "create", "acme")
    assert (again.code, again.out) == (0, "tenant acme exists\n")
    assert relay.run("tenants", "list", "--json").records == listed.records
    assert listed.record["tenant"] == "acme"


def test_a_key_is_shown_once_works_and_can_be_revoked(relay: Any) -> None:
    relay.run("tenants", "create", "acme")
    made = relay.run("keys", "create", "--tenant", "acme", "--scope", "send", "--scope", "read", "--json").record
    assert set(made) == {"id", "key"}
    assert relay.with_spool(lambda spool: keys.authenticate(spool, made["key"], time.time())).id == made["id"]
    [listed] = relay.run("keys", "list", "--json").records
    assert (listed["id"], listed["scopes"], listed["revoked_at"]) == (made["id"], ["send", "read"], None)
    assert made["key"] not in relay.run("keys", "list").out
    assert relay.run("keys", "revoke", made["id"]).code == 0
    assert relay.with_spool(lambda spool: keys.authenticate(spool, made["key"], time.time())) is None
    assert relay.run("keys", "list", "--json").record["revoked_at"] is not None


def test_without_json_the_key_is_all_that_is_printed(relay: Any) -> None:
    relay.run("tenants", "create", "acme")
    done = relay.run("keys", "create", "--tenant", "acme", "--scope", "send")
    assert re.fullmatch(r"SG\.[\w-]{22}\.[\w-]{43}\n", done.out)


def test_a_credential_s_password_is_shown_once_and_works(relay: Any) -> None:
    relay.run("tenants", "create", "acme")
    made = relay.run("credentials", "create", "--tenant", "acme", "--user", "joe", "--json").record
    assert made["user"] == "joe"
    assert relay.with_spool(lambda spool: credentials.authenticate(spool, "joe", made["password"])) is not None
    again = relay.run("credentials", "create", "--tenant", "acme", "--user", "joe", "--json")
    assert (again.code, again.record) == (0, {"user": "joe", "password": None})
    assert "cannot be shown again" in again.err
    assert relay.with_spool(lambda spool: credentials.authenticate(spool, "joe", made["password"])) is not None
    assert relay.run("credentials", "revoke", "joe").code == 0
    assert relay.with_spool(lambda spool: credentials.authenticate(spool, "joe", made["password"])) is None
    assert [each["user"] for each in relay.run("credentials", "list", "--json").records] == ["joe"]


def test_who_sends_the_same_but_once(relay: Any) -> None:
    relay.run("tenants", "create", "acme")
    relay.run("credentials", "create", "--tenant", "acme", "--user", "joe", "--once", "600")
    relay.run("credentials", "create", "--tenant", "acme", "--user", "jim")
    relay.run("keys", "create", "--tenant", "acme", "--scope", "send", "--once", "3600")
    assert {each["user"]: each["once"] for each in relay.run("credentials", "list", "--json").records} == {
        "jim": 0,
        "joe": 600,
    }
    assert relay.run("keys", "list", "--json").record["once"] == 3600
    for seconds in ("-1", "604801", "x"):
        assert relay.run("credentials", "create", "--tenant", "acme", "--user", "x", "--once", seconds).code == 2


def test_a_domain_with_keys_of_both_kinds(relay: Any) -> None:
    relay.run("tenants", "create", "acme")
    added = relay.run("domains", "add", "Example.TEST", "--tenant", "acme", "--json")
    assert (added.code, added.record) == (0, {"domain": "example.test", "tenant": "acme"})
    assert relay.run("domains", "add", "example.test", "--tenant", "acme").code == 0
    rsa = relay.run("dkim", "create", "example.test", "--selector", "r1", "--json").record
    assert (rsa["name"], rsa["type"]) == ("r1._domainkey.example.test", "TXT")
    assert rsa["value"].startswith("v=DKIM1; k=rsa; p=MIIB")
    command = ("dkim", "create", "example.test", "--selector", "e1", "--algorithm", "ed25519")
    text = relay.run(*command).out
    assert re.fullmatch(r'e1\._domainkey\.example\.test\. IN TXT "v=DKIM1; k=ed25519; p=[^"]{44}"\n', text)
    assert relay.run(*command).out == text
    assert relay.run("domains", "list", "--json").record["selectors"] == ["r1", "e1"]


def test_a_long_record_is_cut_into_strings_that_a_zone_file_takes() -> None:
    value = "v=DKIM1; p=" + "A" * 400 + '"\\'
    line = zone_line("s._domainkey.a.test", "TXT", value)
    strings = re.findall(r'"((?:[^"\\]|\\.)*)"', line)
    assert line.startswith("s._domainkey.a.test. IN TXT ( ")
    assert line.endswith(" )")
    assert all(len(re.sub(r"\\(.)", r"\1", each)) <= 255 for each in strings)
    assert "".join(re.sub(r"\\(.)", r"\1", each) for each in strings) == value


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["tenants", "create", "../x"], 1, "a tenant's name is"),
        (["keys", "create", "--tenant", "none", "--scope", "send"], 1, "there is no tenant 'none'"),
        (["keys", "create", "--tenant", "acme", "--scope", "all"], 1, "there is no scope 'all'"),
        (["keys", "create", "--tenant", "acme"], 2, "Missing option '--scope'"),
        (["keys", "revoke", "nonsense"], 1, "there is no key 'nonsense'"),
        (["credentials", "create", "--tenant", "acme", "--user", "apikey"], 1, "and not 'apikey'"),
        (["credentials", "revoke", "nobody"], 1, "there is no user 'nobody'"),
        (["domains", "add", "not a domain", "--tenant", "acme"], 1, "is not a domain name"),
        (["dkim", "create", "example.test", "--selector", "s"], 1, "domain example.test is not registered"),
        (["dkim", "create", "example.test", "--selector", "s", "--algorithm", "rsa512"], 2, "'rsa512' is not one of"),
        (["dkim", "rotate", "example.test"], 1, "domain example.test is not registered"),
        (["dkim", "list", "example.test"], 1, "domain example.test is not registered"),
        (["dkim", "check", "example.test"], 1, "domain example.test is not registered"),
    ],
)
def test_a_mistake_is_one_line_and_changes_nothing(relay: Any, arguments: list[str], code: int, complaint: str) -> None:
    relay.run("tenants", "create", "acme")
    done = relay.run(*arguments)
    assert (done.code, done.out) == (code, "")
    assert done.err.startswith("fairlead: ")
    assert done.err.count("\n") == 1
    assert complaint in done.err
    assert relay.run("keys", "list", "--json").out == relay.run("domains", "list", "--json").out == ""


def test_a_tenant_keeps_content_for_a_time(relay: Any) -> None:
    relay.run("tenants", "create", "acme")
    done = relay.run("tenants", "set", "acme", "--keep-content", "30d", "--json")
    assert (done.code, done.record) == (0, {"tenant": "acme", "keep_content": 30 * 86_400})
    assert relay.run("tenants", "show", "acme", "--json").record["keep_content"] == 30 * 86_400
    assert relay.run("tenants", "set", "acme", "--keep-content", "0s").out == "tenant acme has keep-content 0\n"
    for wrong, said in (("31d", "longer than 30d"), ("7", "not a time")):
        refused = relay.run("tenants", "set", "acme", "--keep-content", wrong)
        assert (refused.code, said in refused.err) == (2, True)
    assert relay.run("tenants", "show", "acme", "--json").record["keep_content"] == 0


def test_a_tenant_has_limits_and_shows_what_waits(relay: Any) -> None:
    relay.run("tenants", "create", "acme")
    done = relay.run("tenants", "set", "acme", "--backlog-messages", "1000", "--backlog-octets", "2GiB", "--json")
    assert (done.code, done.record) == (0, {"tenant": "acme", "most_messages": 1000, "most_octets": 2 << 30})
    relay.run("tenants", "set", "acme", "--weight", "3")
    [listed] = relay.run("tenants", "list", "--json").records
    assert (listed["tenant"], listed["weight"], listed["waiting"], listed["octets"]) == ("acme", 3, 0, 0)
    shown = relay.run("tenants", "show", "acme", "--json").record
    assert (shown["most_messages"], shown["most_octets"], shown["weight"]) == (1000, 2 << 30, 3)
    assert shown["doors"] == {}  # nobody runs
    assert "limits    1000 messages" in relay.run("tenants", "show", "acme").out
    relay.run("tenants", "set", "acme", "--backlog-messages", "0")
    assert relay.run("tenants", "show", "acme", "--json").record["most_messages"] is None
    nothing = relay.run("tenants", "set", "acme")
    assert (nothing.code, "say what" in nothing.err) == (2, True)
    wrong = relay.run("tenants", "set", "acme", "--backlog-octets", "10%")
    assert (wrong.code, "not a size" in wrong.err) == (2, True)
    assert relay.run("tenants", "show", "nobody").code == 1


def test_a_share_is_reserved_listed_and_given_back(relay: Any) -> None:
    relay.run("tenants", "create", "acme")
    times = ("--from", "2026-12-01T08:00Z", "--until", "2026-12-01T10:00+01:00")
    made = relay.run("tenants", "reserve", "acme", "--share", "30%", *times, "--json")
    assert made.code == 0
    assert made.record == {"id": made.record["id"], "tenant": "acme", "share": 0.3, "from_at": 1796112000.0,
                           "until_at": 1796115600.0}  # fmt: skip
    assert "30%" in relay.run("tenants", "reservations").out
    assert relay.run("tenants", "reservations", "--json").records == [made.record]
    again = relay.run("tenants", "reserve", "acme", "--share", "30%", *times)
    assert (again.code, "has a reservation" in again.err) == (1, True)
    assert relay.run("tenants", "unreserve", made.record["id"]).code == 0
    assert relay.run("tenants", "reservations", "--json").records == []
    assert relay.run("tenants", "unreserve", made.record["id"]).code == 1


def test_a_reservation_that_is_not_one_is_refused(relay: Any) -> None:
    relay.run("tenants", "create", "acme")
    for share, until, said in (
        ("30", "2126-12-01T08:00Z", "not a share such as 30%"),
        ("0%", "2126-12-01T08:00Z", "above 0%"),
        ("95%", "2126-12-01T08:00Z", "at most 90%"),
        ("30%", "tomorrow", "not a time"),
        ("30%", "2126-12-01T08:00", "has no zone"),
        ("30%", "2016-12-01T08:00Z", "ends after it begins"),
    ):
        done = relay.run("tenants", "reserve", "acme", "--share", share, "--until", until)
        assert done.code != 0
        assert said in done.err


def test_a_tenant_has_a_least_level_of_tls(relay: Any) -> None:
    relay.run("tenants", "create", "acme")
    done = relay.run("tenants", "set", "acme", "--tls", "verified")
    assert (done.code, done.out) == (0, "tenant acme has tls verified\n")
    assert relay.run("tenants", "show", "acme", "--json").record["tls"] == "verified"
    assert "its mail goes verified or not at all" in relay.run("tenants", "show", "acme").out
    relay.run("tenants", "set", "acme", "--tls", "none")
    assert relay.run("tenants", "show", "acme", "--json").record["tls"] is None
    assert relay.run("tenants", "set", "acme", "--tls", "good").code == 2
