"""The private CA: its certificates convince OpenSSL, for the names they are for."""

import contextlib
import datetime as dt
import ssl
from pathlib import Path

import pytest
from cryptography import x509

from mta.lab.ca import PrivateCa, ServerCertificate, self_signed


def handshake(server: ServerCertificate, ca_file: Path, name: str) -> None:
    """One TLS handshake in memory, the client strict about extensions (RFC 5280)."""
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(server.certificate, server.key)
    trusting = ssl.create_default_context(cafile=ca_file)
    trusting.verify_flags |= ssl.VERIFY_X509_STRICT
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting.wrap_bio(to_client, to_server, server_hostname=name)
    peer = serving.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for side in (client, peer):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
    client.write(b"hello")
    assert peer.read() == b"hello"


@pytest.mark.parametrize("name", ["mx1.lab.test", "127.0.0.1", "::1"])
def test_a_certificate_is_good_for_each_of_its_names(tmp_path: Path, name: str) -> None:
    ca = PrivateCa(tmp_path / "tls")
    handshake(ca.issue("mx1.lab.test", "127.0.0.1", "::1"), ca.ca_file, name)


def test_another_name_and_another_ca_are_refused(tmp_path: Path) -> None:
    ca, other = PrivateCa(tmp_path / "one"), PrivateCa(tmp_path / "two")
    server = ca.issue("mx1.lab.test")
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        handshake(server, ca.ca_file, "mx2.lab.test")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server, other.ca_file, "mx1.lab.test")


def test_private_keys_are_private_and_the_cas_is_not_written_at_all(tmp_path: Path) -> None:
    server = PrivateCa(tmp_path).issue("mx1.lab.test")
    again = PrivateCa(tmp_path).issue("mx1.lab.test")  # a second start replaces the first's files
    assert again == server
    assert server.key.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ca.pem", "mx1.lab.test.key", "mx1.lab.test.pem"]
    certificate = x509.load_pem_x509_certificate(server.certificate.read_bytes())
    assert certificate.not_valid_after_utc - dt.datetime.now(dt.UTC) > dt.timedelta(days=29)


def test_an_intermediate_authority_sends_its_certificate_along(tmp_path: Path) -> None:
    ca = PrivateCa(tmp_path)
    below = ca.intermediate("below").intermediate("further below")
    server = below.issue("mx1.lab.test")
    assert server.certificate.parent == tmp_path / "below" / "further below"
    assert server.certificate.read_bytes().count(b"BEGIN CERTIFICATE") == 3
    handshake(server, ca.ca_file, "mx1.lab.test")


def test_bad_certificates_are_bad(tmp_path: Path) -> None:
    ca = PrivateCa(tmp_path)
    own = self_signed(tmp_path, "own.test")
    handshake(own, own.certificate, "own.test")
    with pytest.raises(ssl.SSLCertVerificationError, match="self-signed"):
        handshake(own, ca.ca_file, "own.test")
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        handshake(ca.issue("old.test", lifetime=dt.timedelta(days=-2)), ca.ca_file, "old.test")


def test_a_certificate_may_have_ten_thousand_names(tmp_path: Path) -> None:
    ca = PrivateCa(tmp_path)
    handshake(ca.issue("mx1.lab.test", *(f"{number}.x" for number in range(9_999))), ca.ca_file, "mx1.lab.test")
