"""TLSRPT records: exactly one, what RFC 8460 3 admits, and nothing that could be sent elsewhere than it says."""

import pytest

from mta.mail.tls_report_record import ENDPOINTS, Endpoint, endpoint_of, endpoints, record_name

MAIL = Endpoint("mailto:r@rcpt.test", "r@rcpt.test")
WEB = Endpoint("https://rcpt.test/v1?a=b", host="rcpt.test", path="/v1?a=b")


def test_the_name_of_the_record() -> None:
    assert record_name("rcpt.test") == "_smtp._tls.rcpt.test"


@pytest.mark.parametrize(
    "record",
    [
        "v=TLSRPTv1;rua=mailto:r@rcpt.test",
        "v=TLSRPTv1; rua=mailto:r@rcpt.test;",
        "v=TLSRPTv1;\t rua=mailto:r@rcpt.test ; ",
        "v=TLSRPTv1; ext=1; rua=mailto:r@rcpt.test; other.Ext_2-3=x,y",
        "v=TLSRPTv1;;rua=mailto:r@rcpt.test",
        "v=TLSRPTv1; rua=mailto:r@rcpt.test, ftp://rcpt.test/, mailto:nobody, mailto:r@rcpt.test",
    ],
)
def test_a_record_names_a_mailbox(record: str) -> None:
    assert endpoints([record.encode()]) == (MAIL,)


@pytest.mark.parametrize(
    "record",
    [
        "v=TLSRPTv1",
        "v=TLSRPTv1;",
        "v=TLSRPTv1; ru=mailto:r@rcpt.test",
        "v=TLSRPTv1; RUA=mailto:r@rcpt.test",
        "V=TLSRPTv1; rua=mailto:r@rcpt.test",
        " v=TLSRPTv1; rua=mailto:r@rcpt.test",
        "v=TLSRPTv2; rua=mailto:r@rcpt.test",
        "v=TLSRPTv1; rua=mailto:r@rcpt.test; and more",
        "v=TLSRPTv1; rua=mailto:\u00fc@rcpt.test",
        "v=TLSRPTv1; rua=",
    ],
)
def test_what_is_no_record_names_nobody(record: str) -> None:
    assert endpoints([record.encode()]) == ()


def test_two_records_are_none_and_others_do_not_count() -> None:
    record = b"v=TLSRPTv1; rua=mailto:r@rcpt.test"
    assert endpoints([b"v=spf1 -all", record, b"\xff\xfe"]) == (MAIL,)
    assert endpoints([record, record]) == ()
    assert endpoints([record, b"v=TLSRPTv1; rua=mailto:s@rcpt.test"]) == ()


def test_several_places_are_bounded() -> None:
    several = ",".join(f"mailto:r{number}@rcpt.test" for number in range(20))
    found = endpoints([f"v=TLSRPTv1; rua=https://rcpt.test/v1?a=b, {several}".encode()])
    assert found[:2] == (WEB, Endpoint("mailto:r0@rcpt.test", "r0@rcpt.test"))
    assert len(found) == ENDPOINTS


@pytest.mark.parametrize(
    ("uri", "found"),
    [
        ("mailto:a%2Cb%21@rcpt.test?subject=x", Endpoint("mailto:a%2Cb%21@rcpt.test?subject=x", "")),
        ("MAILTO:a%2bb%21@rcpt.test?subject=x", Endpoint("MAILTO:a%2bb%21@rcpt.test?subject=x", "a+b!@rcpt.test")),
        ("https://Rcpt.test", Endpoint("https://Rcpt.test", host="rcpt.test", path="/")),
        (
            "https://rcpt.test:8443/%41",
            Endpoint("https://rcpt.test:8443/%41", host="rcpt.test", port=8443, path="/%41"),
        ),
        ("https://rcpt.test/a#b", Endpoint("https://rcpt.test/a#b", host="rcpt.test", path="/a")),
    ],
)
def test_uris_are_read(uri: str, found: Endpoint) -> None:
    expected = found if found.mailbox or found.host else None  # a comma is nobody's without quotes
    assert endpoint_of(uri) == expected


@pytest.mark.parametrize(
    "uri",
    [
        "", "mailto:", "mailto:a@", "mailto:a@b@c", "mailto:a%0d%0aTo:b@rcpt.test", "mailto:a%FF@rcpt.test",
        "mailto:%C3%BC@rcpt.test", "mailto:a b@rcpt.test", f"mailto:{'a' * 1000}@rcpt.test",
        "http://rcpt.test/", "https:///v1", "https://u@rcpt.test/", "https://u:p@rcpt.test/", "https://rcpt.test:0/",
        "https://rcpt.test:65536/", "https://rcpt.test:x/", "https://[::1]/", "https://[::1/", "https://a_b.test/",
        "https://rcpt.test/\r\nHost: x", "https://rcpt.test/ x", "https://rcpt.test/\u00fc", "https://\u00fc.test/",
    ],
)  # fmt: skip
def test_uris_that_nobody_could_send_to(uri: str) -> None:
    assert endpoint_of(uri) is None
