"""Client certificates on relay listeners: without networks they decide who may relay, with networks they are noted."""

import ssl

import pytest
from cryptography import x509

from mta.certificate import names_of
from tests.unit.ingress.authority import SERVER, Authority

MESSAGE = b"From: a@alice.test\r\n\r\nhello\r\n"
FIRST = b"530 5.7.0 A client certificate that may relay here is required\r\n"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def app(authority):
    return authority.issue("app", "Application", [x509.DNSName("app.example.test")])


def with_certificate(certificate: str, pair) -> ssl.SSLContext:
    """What a client trusts, and what it shows."""
    context = ssl.create_default_context(cafile=certificate)
    if pair is not None:
        context.load_cert_chain(pair.certificate, pair.key)
    return context


async def within_tls(door, context, number: int = 0):
    """A client that has said EHLO within TLS, by whatever way the listener wants."""
    if door.ingress.bound[number][0].tls == "implicit":
        peer = await door.open(number)
        await peer.start_tls(context)
        await peer.reply()
    else:
        peer = await door.greeted(number)
        assert (await peer.ask(b"STARTTLS")).startswith(b"220 ")
        await peer.start_tls(context)
    assert b"REQUIRETLS" in await peer.ask(b"EHLO client.test")
    return peer


async def may_relay(peer) -> bool:
    answer = await peer.ask(b"MAIL FROM:<a@alice.test>")
    if answer == FIRST:
        return False
    assert answer.startswith(b"250 ")
    for line in (b"RCPT TO:<b@remote.test>", b"DATA"):
        peer.say(line + b"\r\n")
        assert (await peer.reply())[:1] in b"23"
    peer.say(MESSAGE + b".\r\n")
    return (await peer.reply()).startswith(b"250 2.0.0 OK queued as")


def by_certificate(make_listener, authority, **settings):
    return make_listener(**({"tls": "starttls", "networks": [], "client_ca": str(authority.file)} | settings))


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
async def test_without_networks_a_certificate_of_the_authority_may_relay(
    serve, make_listener, authority, app, certificate, caplog, tls
):
    door = await serve(by_certificate(make_listener, authority, tls=tls))
    assert await may_relay(await within_tls(door, with_certificate(certificate, app)))
    assert [(each.tenant, each.origin) for each in door.queue.accepted] == [("alice", "relay")]
    assert " client=127.0.0.1 certificate='app.example.test'" in caplog.text
    caplog.clear()
    assert not await may_relay(await within_tls(door, with_certificate(certificate, None)))
    assert "certificate=" not in caplog.text
    assert len(door.queue.accepted) == 1


async def test_before_tls_it_is_asked_for(serve, make_listener, authority):
    door = await serve(by_certificate(make_listener, authority))
    peer = await door.greeted()
    assert await peer.ask(b"MAIL FROM:<a@alice.test>") == b"530 5.7.0 Must issue a STARTTLS command first\r\n"
    assert (await peer.ask(b"RCPT TO:<b@remote.test>")).startswith(b"503 ")


@pytest.mark.parametrize("wrong", ["of another authority", "of a server"])
async def test_a_certificate_that_is_not_good_for_it_ends_the_handshake(
    serve, make_listener, authority, certificate, tmp_path, caplog, wrong
):
    if wrong == "of another authority":
        shown = Authority(tmp_path).issue("app", "Application")
    else:
        shown = authority.issue("server", "Application", usage=SERVER)
    door = await serve(by_certificate(make_listener, authority))
    peer = await door.greeted()
    assert (await peer.ask(b"STARTTLS")).startswith(b"220 ")
    try:  # in TLS 1.3 the client is the first to think that it is done
        await peer.start_tls(with_certificate(certificate, shown))
        answer = await peer.ask(b"EHLO client.test")
    except OSError:
        answer = b""
    assert answer == b""
    assert "TLS handshake failed" in caplog.text


@pytest.mark.parametrize(
    ("names", "may"),
    [
        ([], True),
        (["APP.example.test"], True),
        (["other.test", "application"], True),
        (["example.test"], False),
        (["other.test"], False),
    ],
)
async def test_names_choose_among_the_certificates(serve, make_listener, authority, app, certificate, names, may):
    door = await serve(by_certificate(make_listener, authority, client_names=names))
    assert await may_relay(await within_tls(door, with_certificate(certificate, app))) is may


async def test_networks_decide_where_there_are_some(serve, make_listener, authority, app, certificate, caplog):
    door = await serve(
        by_certificate(make_listener, authority, networks=["127.0.0.0/8"]),
        by_certificate(make_listener, authority, networks=["192.0.2.0/24"]),
    )
    assert await may_relay(await within_tls(door, with_certificate(certificate, None)))
    assert await may_relay(await within_tls(door, with_certificate(certificate, app)))
    assert caplog.text.count("certificate='app.example.test'") == 1
    stranger = await door.open(1)
    assert (await stranger.rest()).startswith(b"554 5.7.1 ")


async def test_a_certificate_of_one_listener_is_nothing_at_another(
    serve, make_listener, authority, app, certificate, tmp_path
):
    door = await serve(
        by_certificate(make_listener, authority), by_certificate(make_listener, Authority(tmp_path, "other"))
    )
    context = with_certificate(certificate, app)
    assert await may_relay(await within_tls(door, context))
    with pytest.raises((OSError, AssertionError)):
        await within_tls(door, context, 1)
    assert len(door.queue.accepted) == 1


def test_whom_a_certificate_names():
    subject = ((("organizationName", "Example"),), (("commonName", "Application"),))
    alternatives = (("DNS", "a.test"), ("IP Address", "192.0.2.1"), ("email", "a@a.test"), ("URI", "spiffe://a/b"))
    assert names_of(None) == ()
    assert names_of({}) == ()
    assert names_of({"subject": subject, "subjectAltName": alternatives}) == (
        "a.test", "a@a.test", "spiffe://a/b", "Application",
    )  # fmt: skip
    assert names_of({"subject": subject[:1], "serialNumber": "0A1B"}) == ("serial 0A1B",)
