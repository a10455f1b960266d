"""DMARC: records as text, and which domains stand for which (RFC 7489)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.doctor.dmarc import Dmarc, DmarcError, aligned, organizational, parse, select


def test_a_record_is_read_with_its_defaults():
    assert parse(b"v=DMARC1; p=reject") == Dmarc("reject", "reject", "relaxed", "relaxed", 100, "")
    text = b"v=DMARC1 ;P=None;sp=quarantine; adkim=s; aspf=S; pct=20; rua=mailto:a@b.test; fo=1;; x-y=z; p=reject"
    assert parse(text) == Dmarc("none", "quarantine", "strict", "strict", 20, "mailto:a@b.test")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"v=DMARC1", "p is not one of"),
        (b"v=DMARC1; p=ask", "p is not one of"),
        (b"v=DMARC1; p=none; sp=no", "sp is not one of"),
        (b"v=DMARC1; p=none; pct=101", "pct is not"),
        (b"v=DMARC1; p=none; pct=-1", "pct is not"),
        (b"v=DMARC1; p=none; pct=" + b"1" * 100, "pct is not"),
        (b"v=DMARC1; p=none; adkim=x", "adkim is not"),
        (b"v=DMARC1; p=none; aspf", "a tag has no value"),
        (b"v=DMARC1; p=none; r=\xff", "not ASCII"),
        (b"v=DMARC1; p=none; " + b"x" * 5000, "at most 4096"),
        (b"v=DMARC1; " + b"".join(b"t%d=1;" % number for number in range(100)), "more than 50 tags"),
    ],
)
def test_what_receivers_would_ignore_says_why(text: bytes, why: str):
    with pytest.raises(DmarcError, match=why):
        parse(text)


def test_one_record_is_selected_by_its_version():
    others = [b"v=DMARC10; p=none", b"v=dmarc1; p=none", b"p=none; v=DMARC1", b""]
    assert select(others) is None
    assert select([*others, b"v=DMARC1 ; p=none"]) == b"v=DMARC1 ; p=none"
    with pytest.raises(DmarcError, match="2 records"):
        select([b"v=DMARC1; p=none", b"v=DMARC1; p=none"])


@given(st.binary(max_size=200))
def test_any_octets_are_a_record_or_a_mistake(octets: bytes):
    words = ""
    try:
        assert parse(b"v=DMARC1;" + octets).policy in ("none", "quarantine", "reject")
    except DmarcError as error:
        words = str(error)
    assert words.isprintable()


@pytest.mark.parametrize(
    ("domain", "top"),
    [
        ("example.com", "example.com"),
        ("a.b.example.com", "example.com"),
        ("a.example.co.uk", "example.co.uk"),
        ("co.uk", "co.uk"),
        ("com", "com"),
        ("a.b.nowhere-known", "b.nowhere-known"),
        ("x.github.io", "x.github.io"),
    ],
)
def test_the_organizational_domain_is_below_the_public_suffix(domain: str, top: str):
    assert organizational(domain) == top


def test_alignment_is_of_the_organization_unless_it_has_to_be_strict():
    assert aligned("mail.example.com", "news.example.com", "relaxed")
    assert aligned("example.com", "news.example.com", "relaxed")
    assert not aligned("example.com", "news.example.com", "strict")
    assert aligned("news.example.com", "news.example.com", "strict")
    assert not aligned("example.org", "example.com", "relaxed")
    assert not aligned("a.co.uk", "b.co.uk", "relaxed")
