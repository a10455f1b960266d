"""The configuration: defaults, every error at once with its place, rules between settings, the sample."""

import datetime as dt
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mta.config import Config, ConfigError, HostPort, UnixPath, WarmUp, find, load, parse

ROOT = Path(__file__).parent.parent.parent


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, "f.yaml")
    return caught.value.problems


def test_nothing_given_is_the_defaults() -> None:
    assert parse("", "f.yaml") == Config()
    assert parse("# only text\n", "f.yaml") == Config()


def test_http_has_tls_and_proxies_of_its_own() -> None:
    text = "http: {tls: {certificate: /c.pem, key: /k.pem}, trusted_proxies: [10.0.0.0/8, unix, '::1']}\n"
    http = parse(text, "f.yaml").http
    assert (str(http.tls.certificate), str(http.tls.key)) == ("/c.pem", "/k.pem")
    assert list(map(str, http.trusted_proxies)) == ["10.0.0.0/8", "unix", "::1/128"]
    assert problems("http: {tls: {key: /k.pem}, trusted_proxies: [nowhere, 7, UNIX]}\n") == [
        "f.yaml:1:14: http.tls.key: needs certificate too",
        *[
            f"f.yaml:1:{at}: http.trusted_proxies.{number}: must be a network such as 192.0.2.0/24, or unix"
            for number, at in enumerate((46, 55, 58))
        ],
    ]


def test_a_key_without_a_value_keeps_its_default() -> None:
    assert parse("hostname:\nhttp:\ndelivery:\n  port:\nlisteners:\n", "f.yaml") == Config()


def test_the_names_of_the_contract_are_read() -> None:
    config = parse(
        """
hostname: Mail.Example.COM
state_dir: /srv/fairlead
listeners:
  - {address: "0.0.0.0:587", kind: submission, tls: starttls, bare_newlines: fix}
  - {address: "unix:/run/smtp", kind: relay, tenant: acme}
  - {address: "[::1]:25", kind: relay, tenant: acme, networks: [10.0.0.0/8, "::1/128"], proxy: [192.0.2.1]}
http: {address: "127.0.0.1:0"}
tls: {certificate: /c.pem, key: /k.pem}
dns: {servers: ["127.0.0.1:5300"]}
retry: {intervals: [1, 2.5], lifetime: 60}
routes:
  - {domains: ["*"], relay: "127.0.0.1:2626"}
  - domains: example.org
    relay: ["mx.example.net:25", "[2001:db8::1]:25"]
    tls: verify
    username: u
    password_file: /p
delivery: {port: 2526, connections: 5, connections_per_site: 2, ca_file: /ca.pem, allow_private_targets: true}
roles: {ingress: 2, http: 3}
spool: {key_file: /keys, reserve: 10%}
""",
        "f.yaml",
    )
    assert config.hostname == "mail.example.com"
    assert config.listeners[1].address == UnixPath(path="/run/smtp")
    assert config.listeners[2].address == HostPort(host="::1", port=25)
    assert str(config.listeners[2].proxy[0]) == "192.0.2.1/32"
    assert config.retry.intervals == (1, 2.5)
    assert [str(hop) for hop in config.routes[1].relay] == ["mx.example.net:25", "[2001:db8::1]:25"]
    assert config.delivery.allow_private_targets
    assert (config.roles.ingress, config.roles.http) == (2, 3)
    assert config.spool.reserve == "10%"


def test_ten_errors_are_ten_messages_in_order_of_place() -> None:
    assert problems(
        """hostname: two words
state_dir: relative/path
listeners:
  - address: nowhere
    kind: relay
    networks: [10.0.0.0/33]
  - {address: "127.0.0.1:25", kind: smtp}
  - {address: "127.0.0.1:465", kind: submission, tls: implicit}
http: 8025
retry: {intervals: [], lifetime: soon}
delivery: {prot: 25}
roles: {ingress: 0}
roles: {ingress: 1}
"""
    ) == [
        "f.yaml:1:1: hostname: must be a domain name",
        "f.yaml:1:1: tls: a listener with tls needs tls.certificate and tls.key",
        "f.yaml:2:1: state_dir: must be an absolute path",
        "f.yaml:4:5: listeners.0.address: must be host:port or unix:/absolute/path",
        "f.yaml:4:5: listeners.0.tenant: a relay listener needs a tenant",
        "f.yaml:6:16: listeners.0.networks.0: '10.0.0.0/33' does not appear to be an IPv4 or IPv6 network",
        "f.yaml:7:31: listeners.1.kind: must be 'submission' or 'relay'",
        "f.yaml:9:1: http: must be a mapping of settings",
        "f.yaml:10:9: retry.intervals: needs at least one",
        "f.yaml:10:24: retry.lifetime: must be a valid number",
        "f.yaml:11:12: delivery.prot: no such setting",
        "f.yaml:12:9: roles.ingress: must be greater than or equal to 1",
        "f.yaml:13:1: roles: given twice",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: [1,\n", "2:1: expected the node content, but found '<stream end>'"),
        ("- 1\n", "1:1: must be a mapping of settings"),
        ("just text\n", "1:1: must be a mapping of settings"),
        ("a: 1\n---\nb: 2\n", "2:1: but found another document"),
        ("hostname: !!python/name:os.system x\n", "1:11: could not determine a constructor for the tag"),
        ("hostname: &a [*a]\n", "1:1: not YAML: maximum recursion depth exceeded"),
        ("hostname: \x00\n", "1:1: not YAML: unacceptable character #x0000"),
        ("1: 2\n", "1:1: 1: no such setting"),
        ('hostname: "a\\r\\nb"\n', "1:1: hostname: must be a domain name"),
        ("delivery: {port: 65536}\n", "1:12: delivery.port: must be less than or equal to 65535"),
        ("delivery: {port: '25'}\n", "1:12: delivery.port: must be a valid integer"),
        ("delivery: {connections: true}\n", "1:12: delivery.connections: must be a valid integer"),
        ("delivery: {allow_private_targets: 1}\n", "1:12: delivery.allow_private_targets: must be a valid boolean"),
        ("delivery: {idle: .inf}\n", "1:12: delivery.idle: must be a finite number"),
        ("delivery: {idle: 0}\n", "1:12: delivery.idle: must be greater than 0"),
        ("limits: {size: 50MB}\n", "1:10: limits.size: must be a size such as 500MiB"),
        ("limits: {size: -1}\n", "1:10: limits.size: must be greater than or equal to 0"),
        ("spool: {reserve: 95%}\n", "1:9: spool.reserve: must be a size such as 1GiB, or a share"),
        ("spool: {reserve: -1}\n", "1:9: spool.reserve: must be a size such as 1GiB, or a share"),
        ("dns: {servers: 127.0.0.1:53}\n", "1:7: dns.servers: must be a list"),
        ("dns: {servers: [53]}\n", "1:17: dns.servers.0: must be host:port"),
        ("dns: {servers: ['127.0.0.1:65536']}\n", "1:17: dns.servers.0: must be host:port"),
        ("dns: {servers: ['a b:53']}\n", "1:17: dns.servers.0: must be host:port"),
        ("routes: [{relay: '127.0.0.1:25'}]\n", "1:10: routes.0.domains: is required"),
        ("routes: [{domains: [1], relay: '127.0.0.1:25'}]\n", "1:21: routes.0.domains.0: must be a valid string"),
        ("routes: [{domains: '*.', relay: '127.0.0.1:25'}]\n", "1:11: routes.0.domains.0: must be a domain, *.domain"),
        ("tls: {certificate: /c.pem}\n", "1:7: tls.certificate: needs key too"),
        ("tls: {key: /k.pem}\n", "1:7: tls.key: needs certificate too"),
        ("tlsrpt: {contact: postmaster}\n", "1:10: tlsrpt.contact: address has no @"),
        ("tlsrpt: {sender: 'x@[192.0.2.1]'}\n", "1:10: tlsrpt.sender: must be a mailbox at a domain"),
        ("arc: {domain: a.test}\n", "1:7: arc.domain: needs trusted too"),
        ("arc: {domain: a.test, trusted: [a b]}\n", "1:33: arc.trusted.0: must be a domain name"),
        ("dkim: {delegate: a b}\n", "1:8: dkim.delegate: must be a domain name"),
        ("http: {address: unix:run/http}\n", "1:8: http.address: must be host:port or unix:/absolute/path"),
        (f"http: {{address: 'unix:/{'x' * 107}'}}\n", "1:8: http.address: is longer than the 107 octets"),
        (
            "http: {address: '127.0.0.1:2525'}\nlisteners: [{kind: submission, address: '127.0.0.1:2525'}]\n",
            "2:1: listeners: 127.0.0.1:2525 is given twice",
        ),
    ],
)
def test_a_mistake_is_named_where_it_stands(text: str, problem: str) -> None:
    found = problems(text)
    assert len(found) == 1
    assert found[0].startswith(f"f.yaml:{problem}")


@pytest.mark.parametrize(
    ("listener", "problem"),
    [
        ("{address: '0.0.0.0:25', kind: relay, tenant: a}", "networks: a relay listener needs the networks it trusts"),
        ("{address: 'unix:/s', kind: relay}", "tenant: a relay listener needs a tenant"),
        ("{address: '0.0.0.0:25', kind: submission, tenant: a}", "tenant: is for relay listeners"),
        ("{address: '0.0.0.0:25', kind: submission, networks: ['::/0']}", "networks: is for relay listeners"),
        ("{address: '0.0.0.0:25', kind: relay, networks: [5], tenant: a}", "networks.0: must be a network"),
        ("{address: 'unix:/s', kind: relay, tenant: '../a'}", "tenant: String should match pattern"),
        ("{address: '0.0.0.0:25', kind: relay, tenant: a, client_ca: /c}", "client_ca: is for relay listeners on the"),
        ("{address: 'unix:/s', kind: relay, tenant: a, tls: starttls, client_ca: /c}", "client_ca: is for relay"),
        (
            "{address: '0.0.0.0:25', kind: submission, tls: starttls, client_ca: /c}",
            "client_ca: is for relay listeners:",
        ),
        (
            "{address: '0.0.0.0:25', kind: relay, tenant: a, networks: ['::/0'], client_names: [a.test]}",
            "client_names: needs client_ca too",
        ),
    ],
)
def test_a_listener_is_refused_for(listener: str, problem: str) -> None:
    found = problems(f"tls: {{certificate: /c.pem, key: /k.pem}}\nlisteners: [{listener}]\n")
    assert len(found) == 1
    assert f"listeners.0.{problem}" in found[0]


def test_names_of_client_certificates_are_refused_where_networks_let_in_everybody() -> None:
    listener = "{address: '0.0.0.0:25', kind: relay, tls: starttls, tenant: a, networks: ['::/0'], %s}"
    text = f"tls: {{certificate: /c.pem, key: /k.pem}}\nlisteners: [{listener}]\n"
    assert parse(text % "client_ca: /c", "f.yaml").listeners[0].client_names == ()
    (problem,) = problems(text % "client_ca: /c, client_names: [a.test]")
    assert "listeners.0.client_names: counts for nothing beside networks" in problem


@pytest.mark.parametrize("tls", ["none", "opportunistic"])
def test_a_password_does_not_leave_the_machine_in_the_clear(tls: str) -> None:
    route = "routes: [{domains: '*', relay: '%s', tls: %s, username: u, password_file: /p}]\n"
    assert problems(route % ("192.0.2.1:587", tls)) == [
        "f.yaml:1:49: routes.0.tls: AUTH needs require, verify or implicit"
    ]
    assert parse(route % ("127.0.0.1:587", tls), "f.yaml").routes[0].username == "u"


def test_an_authority_is_pinned_where_certificates_are_looked_at() -> None:
    route = "routes: [{domains: '*', relay: '192.0.2.1:587', tls: %s, ca_file: /ca.pem}]\n"
    assert parse(route % "verify", "f.yaml").routes[0].ca_file == Path("/ca.pem")
    assert problems(route % "require") == [
        "f.yaml:1:63: routes.0.ca_file: needs tls: verify or implicit, which look at certificates"
    ]


def test_a_rule_between_settings_does_not_hide_behind_a_wrong_type() -> None:
    assert [each.rpartition(": ")[0] for each in problems("listeners: [{address: 5, kind: relay}]\n")] == [
        "f.yaml:1:13: listeners.0.networks",
        "f.yaml:1:13: listeners.0.tenant",
        "f.yaml:1:14: listeners.0.address",
    ]


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner, max_size=3)
)


@given(ANYTHING)
def test_a_value_of_any_kind_makes_a_config_or_a_list_of_problems(value: object) -> None:
    try:
        problems = [] if parse(yaml.safe_dump(dict.fromkeys(Config.model_fields, value)), "f.yaml") else ["no config"]
    except ConfigError as error:
        problems = error.problems
    assert all(each.startswith("f.yaml:") for each in problems)


def test_a_file_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml:1:1: cannot be read: No such file"):
        load(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"hostname: \xe9\n")
    with pytest.raises(ConfigError, match="cannot be read: not UTF-8"):
        load(tmp_path / "latin.yaml")


def test_the_option_comes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIRLEAD_CONFIG", "/from/environment")
    assert find("/from/option") == Path("/from/option")
    assert find(None) == Path("/from/environment")


def test_a_credential_comes_before_the_key_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = parse("spool: {key_file: /elsewhere/spool}\ndkim: {key_file: /elsewhere/dkim}\n", "f.yaml")
    (tmp_path / "spool.key").write_text("x")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert config.spool_key_file == tmp_path / "spool.key"
    assert config.dkim_key_file == Path("/elsewhere/dkim")


def check_sample(path: Path) -> str:
    script = [sys.executable, str(ROOT / "scripts" / "check_config"), str(path)]
    return subprocess.run(script, capture_output=True, text=True, check=False).stderr


def test_the_sample_is_the_code() -> None:
    assert check_sample(ROOT / "config" / "fairlead.yaml") == ""


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("#   port: 25\n", "#   port: 26\n", "delivery is"),
        ("#   port: 25\n", "#   port:\n", "delivery.port has no value, its default is 25"),
        ("#   port: 25\n", "", "delivery.port is missing"),
        ("#   port: 25\n", "#   port: 25\n#   prot: 25\n", "delivery.prot: no such setting"),
        ("#   ingress: 1\n#   http: 1\n", "#   http: 1\n#   ingress: 1\n", "not in the order of the code"),
        ("#     long_lines: pass\n", "", "listeners[].long_lines is missing"),
        ("#   port: 25\n", "  port: 25\n", "neither text"),
        ("##       tls: verify\n", "##       tls: always\n", "routes.1.tls: must be"),
        ("##       tls: verify\n", "", "routes.1.tls: AUTH needs"),
    ],
)
def test_a_sample_that_differs_is_caught(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    text = (ROOT / "config" / "fairlead.yaml").read_text()
    assert text.count(old) == 1
    (tmp_path / "f.yaml").write_text(text.replace(old, new))
    assert complaint in check_sample(tmp_path / "f.yaml")


def test_sources_and_pools_are_read() -> None:
    config = parse(
        """
sources:
  - {name: a, address: [192.0.2.1, "2001:DB8::1"], hostname: Mail1.Example.com}
  - {name: b, address: 192.0.2.2, warm_up: {started_on: 2027-01-15, plan: [50, 100]}}
  - {name: c, address: "2001:db8::2", warm_up: {started_on: "2027-01-15", plan: gentle}}
pools: {default: {a: 3, b: 1}}
""",
        "f.yaml",
    )
    a, b, c = config.sources
    assert (a.address, a.hostname, a.warm_up) == (("192.0.2.1", "2001:db8::1"), "mail1.example.com", None)
    assert b.warm_up == WarmUp(started_on=dt.date(2027, 1, 15), plan=(50, 100))
    assert c.warm_up == WarmUp(started_on=dt.date(2027, 1, 15))
    assert (c.hostname, config.pools) == (None, {"default": {"a": 3, "b": 1}})


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("sources: [{name: a}]", "1:11: sources.0.address: is required"),
        ("sources: [{name: a, address: []}]", "1:21: sources.0.address: needs at least one"),
        ("sources: [{name: a, address: 192.0.2.300}]", "1:21: sources.0.address.0: must be an address of this machine"),
        ('sources: [{name: a, address: "::"}]', "1:21: sources.0.address.0: must be an address of this machine"),
        ('sources: [{name: a, address: "fe80::1%eth0"}]', "1:21: sources.0.address.0: must be an address of this"),
        ("sources: [{name: a, address: [192.0.2.1, 192.0.2.2]}]", "1:21: sources.0.address: can be one IPv4 and one"),
        ("sources: [{name: a b, address: 192.0.2.1}]", "1:12: sources.0.name: String should match"),
        (
            "sources: [{name: a, address: 192.0.2.1}, {name: a, address: 192.0.2.2}]",
            "1:1: sources: a is given twice",
        ),
        (
            'sources: [{name: a, address: "2001:db8::1"}, {name: b, address: "2001:DB8:0::1"}]',
            "1:1: sources: 2001:db8::1 is given twice",
        ),
        (
            "sources: [{name: a, address: 192.0.2.1, warm_up: {started_on: 20270115}}]",
            "1:51: sources.0.warm_up.started_on: must be a date",
        ),
        (
            "sources: [{name: a, address: 192.0.2.1, warm_up: {started_on: 2027-01-15, plan: [49]}}]",
            "1:82: sources.0.warm_up.plan.0: must be greater than or equal to 50",
        ),
        (
            "sources: [{name: a, address: 192.0.2.1, warm_up: {started_on: 2027-01-15, plan: wild}}]",
            "1:75: sources.0.warm_up.plan: must be gentle, or a list",
        ),
        ("pools: {default: {a: 1}}", "1:1: pools: default: there is no source a"),
        ("pools: {default: {}}", "1:9: pools.default: needs at least one"),
        (
            "sources: [{name: a, address: 192.0.2.1}]\npools: {gold: {a: 1}}",
            "2:1: pools: needs one named default",
        ),
        (
            "sources: [{name: a, address: 192.0.2.1}]\npools: {default: {a: 0}}",
            "2:19: pools.default.a: must be greater than or equal to 1",
        ),
    ],
)
def test_mistakes_of_sources_and_pools_are_named(text: str, found: str) -> None:
    (problem,) = problems(text)
    assert problem.startswith(f"f.yaml:{found}")
