"""A private certification authority, made anew at each start and valid for 30 days (RFC 5280), and bad certificates.

Its key never leaves memory, so trusting the laboratory's CA file trusts nobody else. Validity is in the
machine's real time, whatever the laboratory's clock says: OpenSSL asks no other.
"""

import datetime as dt
import ipaddress
import os
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = dt.timedelta(days=30)
_SKEW = dt.timedelta(hours=1)  # peers in containers whose clock is a little behind


class ServerCertificate(NamedTuple):
    """Two PEM files: the certificate, behind it those of intermediate authorities, and its private key (mode 0600)."""

    certificate: Path
    key: Path


class _Signer(NamedTuple):
    """Who signs, and what has to be sent with that: a root is not, for whom it has to convince has it."""

    name: x509.Name
    key: ec.EllipticCurvePrivateKey
    chain: tuple[x509.Certificate, ...]

    def sign(self, builder: x509.CertificateBuilder) -> x509.Certificate:
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        return builder.issuer_name(self.name).add_extension(identifier, critical=False).sign(self.key, hashes.SHA256())


class Authority:
    """Issues server certificates into `directory`."""

    def __init__(self, directory: Path, common_name: str, above: _Signer | None = None) -> None:
        """`above` is who signs the certificate of this one; without, it is a root."""
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        key = ec.generate_private_key(ec.SECP256R1())
        signer = _Signer(_name(common_name), key, ())
        self.certificate = (above or signer).sign(
            _builder(signer.name, key.public_key(), LIFETIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_key_usage(ca=True), critical=True)
        )
        self._signer = signer if above is None else signer._replace(chain=(self.certificate, *above.chain))

    def issue(self, *names: str, lifetime: dt.timedelta = LIFETIME) -> ServerCertificate:
        """Make a key and a certificate for host names and IP addresses; the first names the files.

        With a negative `lifetime` it ended so long ago.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._signer.sign(_for_server(_builder(_name(names[0]), key.public_key(), lifetime), names))
        return _write(self.directory, names[0], (certificate, *self._signer.chain), key)

    def intermediate(self, name: str) -> "Authority":
        """Make an authority under this one, with a directory of its own; what it issues comes with its certificate."""
        return Authority(self.directory / name, f"Fairlead laboratory {name}", self._signer)


class PrivateCa(Authority):
    """The root of the laboratory; `ca_file` is what clients have to trust."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, "Fairlead laboratory CA")
        self.ca_file = directory / "ca.pem"
        self.ca_file.write_bytes(self.certificate.public_bytes(Encoding.PEM))


def self_signed(directory: Path, *names: str) -> ServerCertificate:
    """Make a key and a certificate that is signed with it; the first name names the files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(names[0])
    builder = _for_server(_builder(name, key.public_key(), LIFETIME), names)
    return _write(directory, names[0], (builder.issuer_name(name).sign(key, hashes.SHA256()),), key)


def _builder(subject: x509.Name, key: ec.EllipticCurvePublicKey, lifetime: dt.timedelta) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW + min(lifetime, dt.timedelta()))
        .not_valid_after(now + lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _for_server(builder: x509.CertificateBuilder, names: tuple[str, ...]) -> x509.CertificateBuilder:
    return (
        builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _write(
    directory: Path, name: str, chain: tuple[x509.Certificate, ...], key: ec.EllipticCurvePrivateKey
) -> ServerCertificate:
    files = ServerCertificate(directory / f"{name}.pem", directory / f"{name}.key")
    files.certificate.write_bytes(b"".join(each.public_bytes(Encoding.PEM) for each in chain))
    _write_private(files.key, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return files


def _write_private(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
