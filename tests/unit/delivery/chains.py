"""Certificates for the tests of what next hops show, good ones and odd ones, around a time that stands still."""

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

HOST = "mx.example.com"
NOON = dt.datetime(2026, 5, 28, 12, tzinfo=dt.UTC)
NOW = NOON.timestamp()
SERVER = ExtendedKeyUsageOID.SERVER_AUTH
CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH


class Made(NamedTuple):
    """A certificate and the key that it is for."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)


def builder(subject: str, issuer: x509.Name, public_key: Any, days: tuple[int, int]) -> x509.CertificateBuilder:
    begins, ends = days
    return (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOON + dt.timedelta(begins))
        .not_valid_after(NOON + dt.timedelta(ends))
    )


def authority(
    subject: str = "root",
    by: Made | None = None,
    *,
    days: tuple[int, int] = (-9, 9),
    extensions: Sequence[x509.ExtensionType] = (),
    ca: bool = True,
) -> Made:
    """Make an authority, a root unless it is signed `by` another."""
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = by.certificate.subject if by else name(subject)
    made = builder(subject, issuer, key.public_key(), days)
    for each in (x509.BasicConstraints(ca=ca, path_length=None), *extensions):
        made = made.add_extension(each, critical=True)
    return Made(made.sign(by.key if by else key, hashes.SHA256()), key)


def server(
    by: Made | None,
    *names: str,
    days: tuple[int, int] = (-1, 1),
    subject: str = "a server",
    usages: Sequence[x509.ObjectIdentifier] = (),
    public_key: Any = None,
) -> Made:
    """Make a server's certificate, self-signed unless it is signed `by` an authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = by.certificate.subject if by else name(subject)
    made = builder(subject, issuer, public_key or key.public_key(), days)
    if names:
        made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(each) for each in names]), critical=False)
    if usages:
        made = made.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    return Made(made.sign(by.key if by else key, hashes.SHA256()), key)


def name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def pem(directory: Path, *made: Made) -> Path:
    """Write certificates into a file."""
    file = directory / "authorities.pem"
    file.write_bytes(b"".join(each.certificate.public_bytes(Encoding.PEM) for each in made))
    return file
