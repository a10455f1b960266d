"""SASL PLAIN and LOGIN: what is a login, what is malformed, and what is not ours to decode."""

import base64

import pytest

from mta.ingress import replies
from mta.ingress.auth import Exchange, Login


def b64(text: bytes) -> str:
    return base64.b64encode(text).decode()


@pytest.mark.parametrize(
    ("response", "outcome"),
    [
        (b64(b"\0alice\0secret"), Login("alice", "secret")),
        (b64(b"alice\0alice\0secret"), Login("alice", "secret")),
        (b64("\0jürgen\0pässword".encode()), Login("jürgen", "pässword")),
        (b64(b"bob\0alice\0secret"), replies.AUTH_MALFORMED),
        (b64(b"alice\0secret"), replies.AUTH_MALFORMED),
        (b64(b"\0alice\0se\0cret"), replies.AUTH_MALFORMED),
        (b64(b"\0alice\0"), replies.AUTH_MALFORMED),
        (b64(b"\0\0secret"), replies.AUTH_MALFORMED),
        (b64(b"\0alice\0\xff"), replies.AUTH_MALFORMED),
        (b64(b"\0alice\0secret") + "\n", replies.AUTH_MALFORMED),
        (" " + b64(b"\0alice\0secret"), replies.AUTH_MALFORMED),
        (b64(b"\0alice\0secret")[:-1], replies.AUTH_MALFORMED),
        ("é", replies.AUTH_MALFORMED),
        ("", replies.AUTH_MALFORMED),
        ("=", replies.AUTH_MALFORMED),
        ("*", replies.AUTH_CANCELLED),
    ],
)
def test_plain(response: str, outcome: object):
    exchange = Exchange("PLAIN")
    assert exchange.prompt.wire() == b"334 \r\n"
    assert exchange.receive(response) == outcome


def test_login():
    exchange = Exchange("LOGIN")
    assert exchange.prompt.wire() == b"334 VXNlcm5hbWU6\r\n"
    prompt = exchange.receive(b64(b"alice"))
    assert prompt == exchange.prompt
    assert exchange.prompt.wire() == b"334 UGFzc3dvcmQ6\r\n"
    assert exchange.receive(b64(b"secret")) == Login("alice", "secret")


@pytest.mark.parametrize("user", ["*", "!", b64(b"\xff")])
def test_login_that_goes_wrong(user: str):
    exchange = Exchange("LOGIN")
    first = exchange.receive(user)
    assert first in (replies.AUTH_CANCELLED, replies.AUTH_MALFORMED, exchange.prompt)
    if first == exchange.prompt:
        assert exchange.receive(b64(b"secret")) is replies.AUTH_MALFORMED
