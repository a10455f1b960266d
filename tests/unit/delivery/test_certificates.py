"""What is wrong with a certificate chain, by authorities; whatever a stranger shows is judged within bounds."""

import asyncio
import ipaddress
import re
import ssl
import time

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from mta.delivery.certificates import Roots, by_authority, chain_of, dns_ids_for
from mta.delivery.policy import Failure
from mta.lab.ca import PrivateCa, self_signed
from tests.unit.delivery.chains import (
    CLIENT,
    HOST,
    NOW,
    SERVER,
    Made,
    authority,
    builder,
    of_diffie_hellman,
    pem,
    server,
    with_key,
)

ROOT = authority()
MIDDLE = authority("middle", ROOT)


@pytest.fixture
def roots(tmp_path):
    return Roots(pem(tmp_path, ROOT), only=True)


def chain(*made):
    return tuple(each.der for each in made)


def judge(roots, *made, host=HOST, now=NOW):
    flaw = by_authority(chain(*made), host, roots, now)
    return flaw and (flaw.failure, flaw.text)


@pytest.mark.parametrize("names", [(HOST,), ("other.example", "MX.Example.COM"), ("*.example.com",)])
def test_a_certificate_of_an_authority_for_the_host_has_no_flaw(roots, names):
    assert judge(roots, server(ROOT, *names)) is None
    assert judge(roots, server(ROOT, *names, usages=[SERVER, CLIENT]), ROOT) is None
    assert judge(roots, server(MIDDLE, *names), MIDDLE) is None
    assert judge(roots, server(MIDDLE, *names), authority("of no use"), MIDDLE, ROOT) is None
    assert judge(roots, server(ROOT, *names), host="MX.example.com.") is None


def test_an_expired_certificate_says_when(roots):
    made = server(ROOT, HOST, days=(-3, -2))
    assert judge(roots, made) == (
        Failure.CERTIFICATE_EXPIRED,
        "certificate of mx.example.com expired on 2026-05-26",
    )
    assert judge(roots, made, now=NOW - 2.5 * 86400) is None
    failure, text = judge(roots, made, now=NOW - 4 * 86400)
    assert (failure, "not yet valid" in text) == (Failure.CERTIFICATE_NOT_TRUSTED, True)


def test_so_does_that_of_an_authority(roots):
    middle = authority("middle", ROOT, days=(-3, -2))
    failure, text = judge(roots, server(middle, HOST), middle)
    assert failure is Failure.CERTIFICATE_EXPIRED
    assert "authority" in text


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("other.example",), "is for other.example"),
        (("a.example", "b.example", "c.example"), "is for a.example, b.example and 1 more"),
        (("a\r\n250 b.example",), "is for no host"),
        (("*.com", "*", "m*.example.com", "*.mx.example.com", "x.*.com", "example.com"), "is for *.com, * and 4 more"),
        ((), "is for no host"),
    ],
)
def test_one_for_another_host_says_for_which(roots, names, said):
    made = server(ROOT, *names, subject=HOST)  # RFC 9525 6.3: the common name is not looked at
    assert judge(roots, made) == (Failure.CERTIFICATE_HOST_MISMATCH, f"certificate of mx.example.com {said}")


def test_a_host_that_is_an_address(roots):
    address = ipaddress.ip_address("192.0.2.1")
    made = builder("x", ROOT.certificate.subject, ROOT.key.public_key(), (-1, 1))
    made = made.add_extension(x509.SubjectAlternativeName([x509.IPAddress(address)]), critical=False)
    shown = Made(made.sign(ROOT.key, hashes.SHA256()), ROOT.key)
    assert judge(roots, shown, host="192.0.2.1") is None
    assert judge(roots, shown, host="192.0.2.2")[0] is Failure.CERTIFICATE_HOST_MISMATCH
    assert judge(roots, server(ROOT, "192.0.2.1"), host="192.0.2.2")[0] is Failure.CERTIFICATE_HOST_MISMATCH


def constrained():
    inside = x509.NameConstraints(permitted_subtrees=[x509.DNSName("example.org")], excluded_subtrees=None)
    made = authority("constrained", ROOT, extensions=[inside])
    return server(made, HOST), made


def under(made):
    return server(made, HOST), made


NOT_TRUSTED = {
    "self-signed": (server(None, HOST),),
    "of a stranger": under(authority("stranger")),
    "of somebody with the name of an authority": (server(authority("root"), HOST),),
    "intermediate not sent": (server(MIDDLE, HOST),),
    "issued by a server": under(authority("server", ROOT, ca=False)),
    "for other names": constrained(),
    "not for servers": (server(ROOT, HOST, usages=[CLIENT]),),
    "authority not for servers": under(authority("clients", ROOT, extensions=[x509.ExtendedKeyUsage([CLIENT])])),
}


@pytest.mark.parametrize("made", NOT_TRUSTED.values(), ids=NOT_TRUSTED)
def test_what_is_not_trusted(roots, made):
    failure, text = judge(roots, *made)
    assert failure is Failure.CERTIFICATE_NOT_TRUSTED
    assert text.startswith("certificate of mx.example.com is not trusted: ")


@pytest.mark.parametrize(("algorithm", "number", "word"), [(hashes.SHA1(), 5, "sha1"), (hashes.MD5(), 4, "md5")])
def test_weak_signatures_are_not_trusted(tmp_path, algorithm, number, word):
    """Libraries do not make them any more: an RSA certificate is signed anew, under the older algorithm's number."""
    key = rsa.generate_private_key(65537, 2048)
    subject = authority().certificate.subject
    of_root = builder("root", subject, key.public_key(), (-1, 1)).add_extension(
        x509.BasicConstraints(ca=True, path_length=None), critical=True
    )
    root = Made(of_root.sign(key, hashes.SHA256()), None)
    names = x509.SubjectAlternativeName([x509.DNSName(HOST)])
    strong = builder("x", subject, key.public_key(), (-1, 1)).add_extension(names, critical=False)
    strong = strong.sign(key, hashes.SHA256())
    der = strong.public_bytes(Encoding.DER)
    with_rsa = bytes.fromhex("06092a864886f70d0101")
    signed = strong.tbs_certificate_bytes.replace(with_rsa + b"\x0b", with_rsa + bytes([number]))
    weak = der.replace(strong.tbs_certificate_bytes, signed).replace(with_rsa + b"\x0b", with_rsa + bytes([number]))
    weak = weak.replace(strong.signature, key.sign(signed, padding.PKCS1v15(), algorithm))
    roots = Roots(pem(tmp_path, root), only=True)
    assert by_authority([der], HOST, roots, NOW) is None
    flaw = by_authority([weak], HOST, roots, NOW)
    assert flaw.failure is Failure.CERTIFICATE_NOT_TRUSTED
    assert flaw.text.endswith(f"signed with {word}")


def rsa_key(bits, exponent=65537):
    return rsa.RSAPublicNumbers(exponent, (1 << (bits - 1)) | (0xC0FFEE << 500) | 1).public_key()


ODD_KEYS = {
    "short": (rsa_key(1024), "its RSA key has 1024 bits"),
    "long": (rsa_key(16384), "its RSA key has 16384 bits"),
    "exponent": (rsa_key(2048, (1 << 2040) + 1), "its RSA key has too large an exponent"),
    "kind": (x25519.X25519PrivateKey.generate().public_key(), "its key is of a kind that is not used for TLS"),
}


@pytest.mark.parametrize(("key", "reason"), ODD_KEYS.values(), ids=ODD_KEYS)
def test_odd_keys_are_not_worked_with(roots, key, reason):
    expected = Failure.VALIDATION_FAILURE, f"certificate of mx.example.com cannot be used: {reason}"
    assert judge(roots, server(ROOT, HOST, public_key=key)) == expected
    # beside the path they do not matter
    assert judge(roots, server(MIDDLE, HOST), server(ROOT, HOST, public_key=key), MIDDLE) is None


def test_a_key_whose_parameters_take_long_to_check_is_not_read(roots):
    good = server(ROOT, HOST).der
    slow = with_key(good, of_diffie_hellman())
    began = time.process_time()
    flaw = by_authority([slow], HOST, roots, NOW)
    assert flaw.text == "certificate of mx.example.com cannot be used: its key is of a kind that is not used for TLS"
    assert by_authority([good, slow], HOST, roots, NOW) is None
    assert time.process_time() - began < 1.0


def test_no_certificate_and_what_is_none(roots):
    for shown, reason in (
        ((), "there is none"),
        ((b"",), "it cannot be read"),
        ((b"\x30\x80\0\0",), "it cannot be read"),
    ):
        flaw = by_authority(shown, HOST, roots, NOW)
        assert flaw.failure is Failure.VALIDATION_FAILURE
        assert flaw.text == f"certificate of mx.example.com cannot be used: {reason}"
    good = chain(server(MIDDLE, HOST), MIDDLE)
    assert by_authority((good[0], b"what", good[1]), HOST, roots, NOW) is None


GOOD = server(ROOT, HOST, usages=[SERVER]).der


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@given(at=st.integers(0, len(GOOD) - 1), flip=st.integers(1, 255), cut=st.integers(0, 3))
@settings(deadline=None)
def test_a_certificate_with_an_octet_changed_has_a_flaw(tmp_path_factory, at, flip, cut):
    roots = roots_once(tmp_path_factory)
    changed = bytearray(GOOD)
    changed[at] ^= flip
    changed = bytes(changed[: len(changed) - cut])
    assert by_authority([changed], HOST, roots, NOW) is not None
    assert by_authority([GOOD, changed], HOST, roots, NOW) is None


def roots_once(factory, made=[]):  # noqa: B006 - once
    if not made:
        made.append(Roots(pem(factory.mktemp("roots"), ROOT), only=True))
    return made[0]


def test_ten_thousand_names_and_a_hundred_authorities_cost_little(roots):
    many = [f"{number}.x" for number in range(10_000)]
    long = [ROOT]
    for number in range(100):
        long.append(authority(f"authority {number}", long[-1]))
    began = time.process_time()
    assert judge(roots, server(ROOT, *many, HOST)) is None
    assert judge(roots, server(ROOT, *many))[0] is Failure.CERTIFICATE_HOST_MISMATCH
    assert judge(roots, server(long[-1], HOST), *reversed(long))[0] is Failure.CERTIFICATE_NOT_TRUSTED
    assert judge(roots, server(MIDDLE, HOST), MIDDLE, *long[::-1] * 100) is None
    assert time.process_time() - began < 2


def test_a_pinned_authority_is_alone_and_may_be_any_certificate(tmp_path):
    pinned = Roots(pem(tmp_path, MIDDLE), only=True)
    assert len(pinned.certificates) == 1
    assert judge(pinned, server(MIDDLE, HOST)) is None
    assert judge(pinned, server(ROOT, HOST))[0] is Failure.CERTIFICATE_NOT_TRUSTED
    own = server(None, HOST)
    assert judge(Roots(pem(tmp_path, own), only=True), own) is None


def test_the_systems_authorities_are_read_beside_a_file(tmp_path, monkeypatch):
    system = tmp_path / "system.pem"
    system.write_bytes(pem(tmp_path, ROOT).read_bytes())
    monkeypatch.setenv("SSL_CERT_FILE", str(system))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    other = authority("other")
    both = Roots(pem(tmp_path, other))
    for root in (ROOT, other):
        assert judge(both, server(root, HOST)) is None
    assert judge(Roots(None), server(ROOT, HOST)) is None
    assert judge(Roots(None), server(other, HOST))[0] is Failure.CERTIFICATE_NOT_TRUSTED
    system.write_text("nothing")
    with pytest.raises(OSError, match=re.escape(str(system))):
        Roots(None)
    system.unlink()  # then it is the directory
    (tmp_path / "0123abcd.0").write_bytes(pem(tmp_path, ROOT).read_bytes())
    (tmp_path / "0123abcd.1").symlink_to("gone.pem")
    assert judge(Roots(None), server(ROOT, HOST)) is None


def test_the_authorities_of_this_system_can_be_read():
    assert len(Roots(None).certificates) > 10


def test_a_file_that_cannot_be_used_is_named(tmp_path):
    file = tmp_path / "authorities.pem"
    with pytest.raises(OSError, match=rf"{re.escape(str(file))}: No such file"):
        Roots(file)
    for content in (b"", b"nonsense", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"):
        file.write_bytes(content)
        with pytest.raises(OSError, match=rf"{re.escape(str(file))}: not certificates in PEM"):
            Roots(file)


LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
LABELS = st.lists(LABEL, min_size=1, max_size=5)


def covers(presented, host):
    return presented.lower() in dns_ids_for(host)


@given(LABELS, LABELS)
@settings(deadline=None)
def test_names_without_a_star_are_good_for_themselves(one, other):
    assert covers(".".join(one), ".".join(one).upper())
    assert covers(".".join(one), ".".join(other)) == (one == other)


@given(LABELS, LABELS)
@settings(deadline=None)
def test_a_star_stands_for_one_label(parent, host):
    expected = len(parent) > 1 and len(host) == len(parent) + 1 and host[1:] == parent
    assert covers(".".join(["*", *parent]), ".".join(host)) == expected
    assert covers(".".join(["*", *parent]), ".".join([host[0], *parent])) == (len(parent) > 1)
    assert not covers(".".join(["*", *parent]), ".".join(parent))
    assert not covers(".".join(["*", *parent]), ".".join([*host, "x", *parent]))


@given(LABELS, st.integers(0, 4), st.integers(0, 9))
@settings(deadline=None)
def test_a_star_elsewhere_stands_for_nothing(labels, number, at):
    host = [*labels, "example", "com"]
    number %= len(host)
    starred = host[number][:at] + "*" + host[number][at + 1 :]
    presented = [*host[:number], starred, *host[number + 1 :]]
    if presented[0] != "*":
        assert not covers(".".join(presented), ".".join(host))
    assert covers(".".join(["*", *presented[1:]]), ".".join(host)) == (presented[1:] == host[1:])


async def handshake(files):
    """Connect to a server with a certificate, without verification, and return what it showed."""
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    serving.load_cert_chain(files.certificate, files.key)
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE

    async def hang_up(reader, writer):
        await reader.read()
        writer.close()

    listener = await asyncio.start_server(hang_up, "127.0.0.1", 0, ssl=serving)
    async with listener, asyncio.timeout(10):
        host, port = listener.sockets[0].getsockname()
        _, writer = await asyncio.open_connection(host, port, ssl=trusting, server_hostname=HOST)
        shown = chain_of(writer.get_extra_info("ssl_object"))
        writer.close()
        await writer.wait_closed()
    return shown


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_the_chain_of_a_session_is_what_was_sent(tmp_path, new_loop):
    ca = PrivateCa(tmp_path)
    middle = ca.intermediate("middle")
    with asyncio.Runner(loop_factory=new_loop) as runner:
        alone = runner.run(handshake(ca.issue(HOST)))
        behind = runner.run(handshake(middle.issue(HOST)))
        own = runner.run(handshake(self_signed(tmp_path, HOST)))
    assert [len(each) for each in (alone, behind, own)] == [1, 2, 1]
    assert behind[1] == middle.certificate.public_bytes(Encoding.DER)
    roots, now = Roots(ca.ca_file, only=True), time.time()
    assert by_authority(alone, HOST, roots, now) is None
    assert by_authority(behind, HOST, roots, now) is None
    assert by_authority(behind[:1], HOST, roots, now).failure is Failure.CERTIFICATE_NOT_TRUSTED
    assert by_authority(own, HOST, roots, now).failure is Failure.CERTIFICATE_NOT_TRUSTED


def test_a_session_without_a_certificate_has_no_chain():
    context = ssl.create_default_context()
    session = context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname=HOST)
    assert chain_of(session) == ()
