"""Verification of DKIM signatures: both algorithms, and what a hostile sender would try."""

import base64
import re
import time

import dkim
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from mta.lab.dns import Zone
from mta.lab.signatures import Signature, verify

MAIL = b"From: a@b.test\r\nTo: c@d.test\r\nSubject: hi\r\n\r\nhello\r\n"

RSA = generate_private_key(public_exponent=65537, key_size=2048)
ED25519 = Ed25519PrivateKey.generate()
RSA_PEM = RSA.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
ED25519_SEED = base64.b64encode(ED25519.private_bytes_raw())
RSA_TXT = (
    "v=DKIM1; k=rsa; p="
    + base64.b64encode(RSA.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()
)
ED25519_TXT = "v=DKIM1; k=ed25519; p=" + base64.b64encode(ED25519.public_key().public_bytes_raw()).decode()


def signed(
    content: bytes = MAIL, algorithm: bytes = b"rsa-sha256", selector: bytes = b"s1", **options: object
) -> bytes:
    key = ED25519_SEED if algorithm.startswith(b"ed") else RSA_PEM
    signer = dkim.DKIM(content, signature_algorithm=algorithm)
    options = {"canonicalize": (b"relaxed", b"relaxed")} | options
    return bytes(signer.sign(selector, b"b.test", key, **options)) + content


@pytest.fixture
def zone() -> Zone:
    zone = Zone()
    zone.set_txt("s1._domainkey.b.test", RSA_TXT)
    zone.set_txt("s2._domainkey.b.test", ED25519_TXT)
    return zone


def reasons(content: bytes, zone: Zone) -> list[str]:
    return [each.reason for each in verify(content, zone.texts)]


def test_both_algorithms_on_one_message(zone: Zone) -> None:
    found = verify(signed(signed(), b"ed25519-sha256", b"s2"), zone.texts)
    assert found == [Signature("b.test", "s2", "ed25519-sha256", ""), Signature("b.test", "s1", "rsa-sha256", "")]
    assert [str(each) for each in found] == ["dkim=pass (s2 ed25519-sha256)", "dkim=pass (s1 rsa-sha256)"]


@pytest.mark.parametrize("algorithm", [b"rsa-sha256", b"ed25519-sha256"])
@pytest.mark.parametrize("change", [(b"Subject: hi", b"Subject: ho"), (b"hello", b"hullo"), (b"b=", b"b=BBBB")])
def test_a_change_breaks_the_signature(zone: Zone, algorithm: bytes, change: tuple[bytes, bytes]) -> None:
    content = signed(algorithm=algorithm, selector=b"s2" if algorithm.startswith(b"ed") else b"s1")
    assert reasons(content.replace(*change), zone) != [""]


def test_mail_without_a_signature_has_none(zone: Zone) -> None:
    assert verify(MAIL, zone.texts) == []


def test_a_key_that_is_not_there_or_not_alone(zone: Zone) -> None:
    assert reasons(signed(selector=b"gone"), zone) == ["0 key records"]
    zone.set_txt("s1._domainkey.b.test", RSA_TXT, "v=DKIM1; p=")
    assert reasons(signed(), zone) == ["2 key records"]
    zone.set_txt("s1._domainkey.b.test", "v=DKIM1; p=")  # RFC 6376 3.6.1: revoked
    assert str(verify(signed(), zone.texts)[0]) == "dkim=fail (s1 rsa-sha256: malformed key)"


def test_a_key_of_the_other_algorithm(zone: Zone) -> None:
    zone.set_txt("s1._domainkey.b.test", ED25519_TXT)
    assert reasons(signed(), zone) != [""]
    zone.set_txt("s2._domainkey.b.test", ED25519_TXT.replace("ed25519", "rsa"))
    assert reasons(signed(algorithm=b"ed25519-sha256", selector=b"s2"), zone) == ["malformed key"]


@pytest.mark.parametrize(("bits", "exponent"), [(8192, 65537), (2048, (1 << 2047) + 1)])
def test_a_key_that_would_take_long_is_not_tried(zone: Zone, bits: int, exponent: int) -> None:
    key = RSAPublicNumbers(e=exponent, n=(1 << bits) - 1).public_key()
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    zone.set_txt("s1._domainkey.b.test", "v=DKIM1; p=" + base64.b64encode(der).decode())
    assert reasons(signed(), zone) == ["key too big"]


def test_malformed_tags_are_said_to_be(zone: Zone) -> None:
    assert reasons(b"DKIM-Signature: v=1; nonsense\r\n" + MAIL, zone) == ["malformed signature or key"]
    zone.set_txt("s1._domainkey.b.test", "nonsense")
    assert reasons(signed(), zone) == ["malformed signature or key"]


def test_what_rfcs_have_withdrawn_is_refused(zone: Zone) -> None:
    assert reasons(signed(algorithm=b"rsa-sha1"), zone) == ["algorithm not accepted"]
    assert reasons(signed(length=True), zone) == ["l= not accepted"]


@pytest.mark.parametrize(
    "content",
    [
        b"DKIM-Signature: " + b"v=1; " * 200_000 + b"\r\n" + MAIL,
        b"X: a\r\n" + b" b\r\n" * 100_000 + signed(),
        signed() + b" " * 2_000_000,
        b" begins with a fold\r\n" + MAIL,
        b"no colon\r\n" + MAIL,
    ],
    ids=["long field", "many folds", "blank body", "fold first", "no header"],
)
def test_content_that_would_take_long_or_break_the_parser_is_one_refusal(zone: Zone, content: bytes) -> None:
    started = time.perf_counter()
    found = verify(content, zone.texts)
    assert [each.valid for each in found] == [False]
    assert found[0].reason
    assert time.perf_counter() - started < 1


def test_no_more_than_ten_signatures_are_looked_at(zone: Zone) -> None:
    assert len(verify(b"DKIM-Signature: v=1\r\n" * 1000 + MAIL, zone.texts)) == 10


def test_nothing_of_the_message_reaches_a_terminal_raw(zone: Zone) -> None:
    content = b"DKIM-Signature: v=1; a=\x1b[2Jrsa\xff; s=x\r\n\ty; d=b.test\r\n" + MAIL
    assert str(verify(content, zone.texts)[0]).isprintable()


FIELD = signed().split(b"\r\nFrom:")[0].decode().removeprefix("DKIM-Signature: ")
TAGS = dict(tag.split("=", 1) for tag in re.split(r";\s*", FIELD))
VALUES = st.one_of(st.text(max_size=20), st.from_regex(r"[0-9A-Za-z+/=:@. ]{0,20}", fullmatch=True))


@given(st.dictionaries(st.sampled_from([*TAGS, "l", "x", "z"]), VALUES, max_size=3), st.binary(max_size=40))
def test_any_signature_field_and_any_key_get_a_verdict(changed: dict[str, str], key: bytes) -> None:
    field = "; ".join(f"{tag}={value}" for tag, value in (TAGS | changed).items())
    content = b"DKIM-Signature: " + field.encode().replace(b"\n", b"").replace(b"\r", b"") + b"\r\n" + MAIL
    for record in (RSA_TXT.encode(), b"v=DKIM1; " + key):
        (found,) = verify(content, lambda _name, record=record: [record])
        assert found.valid == (not changed and record == RSA_TXT.encode())
        assert str(found).isprintable()
