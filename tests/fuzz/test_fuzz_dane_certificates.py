"""Whatever stands in a certificate that an authority has signed: judging it raises nothing, its words can be shown."""

import ipaddress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from mta.delivery.certificates import Roots, by_authority, by_tlsa
from mta.delivery.policy import Flaw, Tlsa
from tests.unit.delivery.chains import HOST, NOW, SERVER, authority, builder, name, pem

ROOT = authority()
ADDRESS = "192.0.2.1"
_SIGNED_WITH = bytes.fromhex("300a06082a8648ce3d040302")  # ecdsa-with-SHA256
_TAGS = (0x00, 0x02, 0x03, 0x04, 0x06, 0x0C, 0x16, 0x17, 0x1E, 0x30, 0x31, 0x80, 0x82, 0x87, 0xA0, 0xFF)


def to_be_signed() -> bytes:
    made = builder("x", ROOT.certificate.subject, ROOT.key.public_key(), (-1, 1))
    names = [x509.DNSName(HOST), x509.IPAddress(ipaddress.ip_address(ADDRESS)), x509.RFC822Name("a@b.test")]
    names += [x509.UniformResourceIdentifier("http://a.test"), x509.DirectoryName(name("y")), x509.RegisteredID(SERVER)]
    for extension in (
        x509.SubjectAlternativeName(names),
        x509.ExtendedKeyUsage([SERVER]),
        x509.BasicConstraints(ca=False, path_length=None),
        x509.CertificatePolicies([x509.PolicyInformation(SERVER, ["http://a.test"])]),
        x509.SubjectKeyIdentifier(b"123"),
    ):
        made = made.add_extension(extension, critical=False)
    return made.sign(ROOT.key, hashes.SHA256()).tbs_certificate_bytes


GOOD = to_be_signed()


def sequence(content: bytes) -> bytes:
    return b"\x30\x82" + len(content).to_bytes(2, "big") + content


def sign(signed: bytes) -> bytes:
    signature = b"\0" + ROOT.key.sign(signed, ec.ECDSA(hashes.SHA256()))
    return sequence(signed + _SIGNED_WITH + b"\x03" + bytes([len(signature)]) + signature)


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Roots:
    directory: Path = tmp_path_factory.mktemp("roots")
    return Roots(pem(directory, ROOT), only=True)


def test_what_is_changed_here_was_good(roots: Roots) -> None:
    assert by_authority([sign(GOOD)], HOST, roots, NOW) is None


_CHANGES = st.lists(
    st.tuples(st.integers(0, len(GOOD) - 1), st.sampled_from(_TAGS) | st.integers(0, 255)), min_size=1, max_size=4
)


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@given(_CHANGES, st.sampled_from([HOST, ADDRESS]))
@settings(max_examples=500, deadline=None)
def test_a_certificate_with_anything_in_it_is_judged(roots: Roots, changes: list[tuple[int, int]], host: str) -> None:
    changed = bytearray(GOOD)
    for at, octet in changes:
        changed[at] = octet
    shown = [sign(bytes(changed)), ROOT.der]
    for flaw in (
        by_authority(shown, host, roots, NOW),
        by_tlsa(shown, [Tlsa(2, 0, 0, ROOT.der), Tlsa(3, 1, 1, b"x" * 32)], (host,), NOW),
        by_tlsa([ROOT.der, *shown], [Tlsa(2, 0, 0, shown[0])], (host,), NOW),
    ):
        assert flaw is None or isinstance(flaw, Flaw)
        assert flaw is None or flaw.text.isprintable()
