"""A published DKIM key is ours, octet for octet, or there is a reason why verifiers cannot use it as that."""

import base64
import contextlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.mail.key_record import RECORD_LIMIT, MalformedRecord, differs, tags_of

KEY = base64.b64encode(bytes(range(200))).decode()
MADE = f"v=DKIM1; k=rsa; p={KEY}"
ED = "v=DKIM1; k=ed25519; p=" + base64.b64encode(bytes(32)).decode()


def rsa_key(modulus_octets: int, exponent_octets: int) -> str:
    """An RSA key as DER, of any size, without any thought given to its arithmetic."""

    def der(tag: int, content: bytes) -> bytes:
        size = len(content)
        length = bytes([size]) if size < 128 else b"\x82" + size.to_bytes(2, "big")
        return bytes([tag]) + length + content

    numbers = der(2, b"\x7f" * modulus_octets) + der(2, b"\x7f" * exponent_octets)
    algorithm = bytes.fromhex("300d06092a864886f70d0101010500")
    return base64.b64encode(der(0x30, algorithm + der(3, b"\0" + der(0x30, numbers)))).decode()


@pytest.mark.parametrize(
    "text",
    [
        MADE,
        f"p={KEY}",  # v= and k= have defaults
        f"v=DKIM1;k=rsa;p={KEY}; ",
        f" v = DKIM1 ;\r\n\tk=rsa; p={KEY[:50]} {KEY[50:90]}\t{KEY[90:]}",
        f"v=DKIM1; h=sha1 : sha256; k=rsa; p={KEY}",
        f"v=DKIM1; s=email; t=s; n=a note; x1=what nobody knows; k=rsa; p={KEY}",
        f"v=DKIM1; s=tlsrpt:*; p={KEY}",
    ],
)
def test_what_verifiers_take_for_our_key(text: str) -> None:
    assert differs([text.encode()], MADE) == ""


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "malformed: not a list of tags"),
        ("v=spf1 -all", "not of version DKIM1"),
        ("DKIM1", "malformed: not a list of tags"),
        ("v=DKIM1", "malformed: no p="),
        ("v=DKIM1; p=", "revoked (p= is empty)"),
        ("v=DKIM1; k=rsa; p= \t ", "revoked (p= is empty)"),
        (f"v=DKIM1; k=ed25519; p={KEY}", "k= is not rsa"),
        (f"v=DKIM1; k=RSA; p={KEY}", "k= is not rsa"),
        (f"v=DKIM1; p={KEY[:-4]}", "another key (p=)"),
        (f"v=DKIM1; p={KEY[:-1]}!", "another key (p=)"),
        (f"v=DKIM1; p={KEY.lower()}", "another key (p=)"),
        (f"v=DKIM1; p={KEY}; p={KEY}", "malformed: p= is there twice"),
        (f"k=rsa; v=DKIM1; p={KEY}", "not of version DKIM1"),
        (f"v=DKIM2; p={KEY}", "not of version DKIM1"),
        (f"v=DKIM1; h=sha1; p={KEY}", "h= does not allow sha256"),
        (f"v=DKIM1; s=tlsrpt; p={KEY}", "s= does not allow email"),
        (f"v=DKIM1; p={KEY}; \xff", "malformed: not a list of tags"),
        (MADE + "; n=" + "x" * RECORD_LIMIT, f"malformed: more than {RECORD_LIMIT} octets"),
    ],
)
def test_what_they_do_not(text: str, why: str) -> None:
    assert differs([text.encode("latin-1")], MADE) == why


def test_another_kind_of_key_in_its_place() -> None:
    assert differs([MADE.encode()], ED) == "k= is not ed25519"
    assert differs([ED.encode()], ED) == ""


def test_none_and_several() -> None:
    assert differs([], MADE) == "no TXT record"
    assert differs([MADE.encode()] * 2, MADE) == "2 TXT records"


@pytest.mark.parametrize(("modulus", "exponent"), [(1024, 4), (256, 1024), (2048, 2048)])
def test_a_key_whose_arithmetic_would_take_minutes_takes_none(modulus: int, exponent: int) -> None:
    began = time.process_time()
    assert differs([f"v=DKIM1; p={rsa_key(modulus, exponent)}".encode()], MADE) == "another key (p=)"
    assert time.process_time() - began < 0.5  # a signature verified with 8,192 bits of exponent takes 1.2 s, or minutes


@given(st.one_of(st.binary(max_size=300), st.text(";=pvk Dab1\r\n\t").map(str.encode)))
def test_any_octets_are_tags_or_malformed(octets: bytes) -> None:
    with contextlib.suppress(MalformedRecord):
        assert all(name and "=" not in name for name in tags_of(octets))
    assert differs([octets], MADE)
