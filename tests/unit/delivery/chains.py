"""Certificates for the tests of what next hops show, good ones and odd ones, around a time that stands still."""

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
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


_PRIME = (1 << 4423) - 1
"""A library that is given it for a parameter takes seconds to see that it is one."""


def of_diffie_hellman() -> bytes:
    """A SubjectPublicKeyInfo (RFC 3279 2.3.3) whose parameters take seconds to check."""
    kind = bytes.fromhex("06092a864886f70d010301")
    return element(
        0x30,
        element(0x30, kind + element(0x30, _number(_PRIME) + _number(3))) + element(0x03, b"\0" + _number(1 << 1000)),
    )


def with_key(der: bytes, key: bytes) -> bytes:
    """Put another SubjectPublicKeyInfo into a certificate, whose signature is that of the first."""
    certificate = x509.load_der_x509_certificate(der)
    signed = certificate.tbs_certificate_bytes
    before = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    content = signed[_head_length(signed) :].replace(before, key)
    return element(0x30, element(0x30, content) + der[_head_length(der) + len(signed) :])


def element(tag: int, content: bytes) -> bytes:
    """Write an element in DER (X.690 8.1.3)."""
    length = len(content)
    if length < 0x80:
        return bytes([tag, length]) + content
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(octets)]) + octets + content


def _number(value: int) -> bytes:
    return element(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _head_length(der: bytes) -> int:
    return 2 + (der[1] & 0x7F if der[1] & 0x80 else 0)
