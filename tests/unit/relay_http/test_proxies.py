"""Whose address counts when proxies stand between."""

import ipaddress
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.config import UNIX
from relay_http.proxies import Proxies

NETWORKS = [ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("2001:db8::/32")]


def client(peer: str, trusted=(), **headers: str) -> str:
    fields = {name.replace("_", "-").lower(): value for name, value in headers.items()}
    req = SimpleNamespace(peer=peer, get_header=lambda name: fields.get(name.lower()))
    return Proxies(trusted or NETWORKS).client(req)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("list_", "found"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("192.0.2.7, 10.0.0.2", "192.0.2.7"),
        ("198.51.100.9, 192.0.2.7, 10.0.0.2,10.0.0.3", "192.0.2.7"),
        ("10.1.1.1, 10.0.0.2", "10.1.1.1"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:DB9::1", "2001:db9::1"),
        ("[2001:db9::1]:443", "2001:db9::1"),
        ("192.0.2.7:4711", "192.0.2.7"),
        ("", ""),
        ("unknown", ""),
        ("192.0.2.7, unknown", ""),
        ("192.0.2.7, evil.example", ""),
        ("192.0.2.7,", ""),
        ("192.0.2.7 192.0.2.8", ""),
        ("2001:db9::1%x y", ""),
    ],
)
def test_the_last_of_the_list_who_is_no_proxy_of_ours(list_, found):
    assert client("10.0.0.1", X_Forwarded_For=list_) == found


@pytest.mark.parametrize(
    ("list_", "found"),
    [
        ("for=192.0.2.7", "192.0.2.7"),
        ('for="192.0.2.7:80";proto=https;by=10.0.0.1', "192.0.2.7"),
        ('For="[2001:db9::1]:4711"', "2001:db9::1"),
        ('proto=http ; FOR=192.0.2.7, for="10.0.0.2"', "192.0.2.7"),
        ("for=198.51.100.9, for=192.0.2.7", "192.0.2.7"),
        ("for=_hidden", ""),
        ('for="_hidden", for=10.0.0.2', ""),
        ("for=192.0.2.7;for=192.0.2.8", ""),
        ("by=192.0.2.7", ""),
        ('for="192.0.2.7', ""),
        ("xfor=192.0.2.7", ""),
        ('for=" 192.0.2.7 "', ""),
        (";for=192.0.2.7;;proto=http;", "192.0.2.7"),
        # hosts and addresses that its client has told the proxy, and it us
        ('for=192.0.2.7;host="a, for=198.51.100.9"', "192.0.2.7"),
        ('for=192.0.2.7;host="a, for=198.51.100.9;b=";proto="https"', "192.0.2.7"),
        (r'for=192.0.2.7;host="a, for=198.51.100.9;b=\"c";by="d\", for=198.51.100.9"', "192.0.2.7"),
        ('for=192.0.2.7;host="a, b;for=198.51.100.9", for=10.0.0.2;host=c', "192.0.2.7"),
        ('for=unknown;host="a;for=198.51.100.9"', ""),
        ('host="a;for=198.51.100.9"', ""),
        ('x="a, for=198.51.100.9;host="b", for=192.0.2.7;host="c"', "192.0.2.7"),
        ('for=198.51.100.9;x=", for="[2001:db9::1]"', "2001:db9::1"),
    ],
)
def test_in_the_words_of_rfc_7239(list_, found):
    assert client("10.0.0.1", Forwarded=list_) == found


def test_nobody_else_is_believed():
    assert client("192.0.2.7", X_Forwarded_For="198.51.100.9", Forwarded="for=198.51.100.9") == "192.0.2.7"
    assert client("", X_Forwarded_For="198.51.100.9") == ""
    assert client("10.0.0.1", trusted=[UNIX], X_Forwarded_For="198.51.100.9") == "10.0.0.1"


def test_who_comes_by_the_unix_socket_is_believed_if_that_is_said():
    assert client("", trusted=[UNIX], X_Forwarded_For="192.0.2.7") == "192.0.2.7"
    assert client("", trusted=[UNIX]) == ""


def test_a_proxy_that_asks_for_itself():
    assert client("10.0.0.1") == "10.0.0.1"


def test_of_two_that_differ_neither_is_believed():
    """A proxy that writes one of them lets through what its client wrote into the other."""
    assert client("10.0.0.1", X_Forwarded_For="192.0.2.7", Forwarded="for=198.51.100.9") == ""
    assert client("10.0.0.1", X_Forwarded_For="192.0.2.7", Forwarded="for=192.0.2.7") == "192.0.2.7"


def test_a_list_is_read_from_its_end_and_no_longer_than_that():
    hops = ", ".join(["192.0.2.7", *["10.0.0.2"] * 1000])
    assert client("10.0.0.1", X_Forwarded_For=hops) == "10.0.0.2"


@given(st.text(max_size=60), st.ip_addresses(v=4).filter(lambda each: each not in NETWORKS[0]))
def test_whatever_a_client_writes_before_counts_for_nothing(written, address):
    assert client("10.0.0.1", X_Forwarded_For=f"{written},{address}, 10.0.0.9") == str(address)
    assert client("10.0.0.1", Forwarded=f"{written},for={address}") == str(address)


@given(st.text(max_size=80))
def test_no_text_is_too_much(text):
    for found in (client("10.0.0.1", X_Forwarded_For=text), client("10.0.0.1", Forwarded=text)):
        assert found == "" or ipaddress.ip_address(found)


@pytest.mark.parametrize(
    ("peer", "many"), [("127.0.0.1", True), ("", True), ("10.0.0.1", True), ("192.0.2.7", False), ("::1", True)]
)
def test_who_may_have_the_connections_of_many(peer, many):
    assert Proxies(NETWORKS).many(peer) is many


def test_what_is_too_long_to_be_looked_at() -> None:
    assert client("10.0.0.1", X_Forwarded_For=f"{'x' * 5000}, 192.0.2.7") == "192.0.2.7"
    assert client("10.0.0.1", Forwarded=f'for=6.6.6.6;host="{"a" * 3000};for=192.0.2.1;b"') == ""


@pytest.mark.parametrize(
    ("peer", "told", "begins"),
    [
        ("10.0.0.1", "https", "https://mail.test:8025"),
        ("10.0.0.1", "HTTPS", "https://mail.test:8025"),
        ("10.0.0.1", None, "http://mail.test:8025"),
        ("10.0.0.1", "javascript", "http://mail.test:8025"),
        ("192.0.2.7", "https", "http://mail.test:8025"),  # anybody can write that
        ("", "https", "http://mail.test:8025"),
    ],
)
def test_links_begin_with_what_the_client_asked(peer: str, told: str | None, begins: str) -> None:
    req = SimpleNamespace(peer=peer, get_header=lambda _: told, scheme="http", netloc="mail.test:8025")
    assert Proxies(NETWORKS).prefix(req) == begins  # type: ignore[arg-type]
