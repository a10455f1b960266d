"""Reports that we write: their JSON by the RFC's fields, their name and their mail as a mail reader sees it."""

import email
import email.policy
import gzip
import json
from typing import Any

import pytest

from mta.mail.tls_report import (
    Cover,
    FailureDetails,
    Policy,
    PolicyResults,
    Report,
    compressed,
    day_of,
    file_name,
    report_json,
    report_mail,
    report_of,
    start_of,
)
from tests.rfc8460 import complaints

STS = Policy(
    "sts", "rcpt.test", ("version: STSv1", "mode: enforce", "mx: *.rcpt.test", "max_age: 86400"), ("*.rcpt.test",)
)
EXPIRED = FailureDetails("certificate-expired", "192.0.2.1", "mx1.rcpt.test", "2001:db8::25", 'on "Monday" \\ \u20ac')
RESULTS = (
    PolicyResults(STS, 5326, 303, ((EXPIRED, 300), (FailureDetails("sts-policy-fetch-error"), 3))),
    PolicyResults(Policy("tlsa", "rcpt.test", ("3 1 1 AB",), ("mx1.rcpt.test",)), 1),
    PolicyResults(Policy("no-policy-found", "rcpt.test"), 7),
)  # fmt: skip
COVER = Cover(id="A" * 22, sender="tlsrpt@relay.test", to="tls@rcpt.test", at=1_800_000_000.0)


def report(*results: PolicyResults, contact: str = "postmaster@Relay.test") -> Report:
    named = {"organization": "Relay & Söhne", "contact": contact, "message_id": "B" * 22}
    return report_of("2027-01-14", results or RESULTS, **named)


def test_the_json_is_the_rfcs() -> None:
    shown = json.loads(report_json(report()))
    assert not list(complaints(shown))
    assert shown["date-range"] == {"start-datetime": "2027-01-14T00:00:00Z", "end-datetime": "2027-01-14T23:59:59Z"}
    assert shown["report-id"] == "B" * 22 + "@relay.test"
    sts, tlsa, none = shown["policies"]
    assert sts["policy"] == {
        "policy-type": "sts", "policy-string": list(STS.strings),
        "policy-domain": "rcpt.test", "mx-host": ["*.rcpt.test"],
    }  # fmt: skip
    assert sts["summary"] == {"total-successful-session-count": 5326, "total-failure-session-count": 303}
    assert sts["failure-details"] == [
        {
            "result-type": "certificate-expired", "sending-mta-ip": "192.0.2.1",
            "receiving-mx-hostname": "mx1.rcpt.test", "receiving-ip": "2001:db8::25",
            "failed-session-count": 300, "failure-reason-code": 'on "Monday" \\ \u20ac',
        },
        {"result-type": "sts-policy-fetch-error", "failed-session-count": 3},
    ]  # fmt: skip
    assert tlsa["policy"]["policy-string"] == ["3 1 1 AB"]
    assert none["policy"] == {"policy-type": "no-policy-found", "policy-domain": "rcpt.test"}


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        (("policies",), [], "policies is no array with something in it"),
        (("policies", 0, "policy", "policy-type"), "dane", "policy-type: 'dane'"),
        (("policies", 0, "policy", "mx-host"), "*.rcpt.test", "mx-host is no array"),
        (("policies", 0, "summary", "total-successful-session-count"), "5", "count: '5'"),
        (("policies", 0, "failure-details", 0, "receiving-ip"), "2001:DB8::25", "receiving-ip: '2001:DB8::25'"),
        (("policies", 0, "failure-details", 0, "result-type"), "expired", "result-type: 'expired'"),
        (("date-range", "end-datetime"), "2027-01-14", "end-datetime: '2027-01-14'"),
        (("kind",), 1, "kind is not of the RFC"),
    ],
)
def test_what_is_not_the_rfcs_is_complained_of(path: tuple[Any, ...], value: Any, complaint: str) -> None:
    shown = json.loads(report_json(report()))
    place = shown
    for each in path[:-1]:
        place = place[each]
    place[path[-1]] = value
    assert complaint in "\n".join(complaints(shown))


def test_it_is_named_by_its_domains_and_times() -> None:
    assert file_name(report()) == "relay.test!rcpt.test!1799884800!1799971199.json.gz"
    assert (day_of(1799884800.0), day_of(1799971199.9), day_of(1799971200.0)) == (
        "2027-01-14",
        "2027-01-14",
        "2027-01-15",
    )
    assert start_of("2027-01-14") == 1799884800.0


def test_it_is_compressed_to_the_same_octets_each_time() -> None:
    assert compressed(report()) == compressed(report())
    assert gzip.decompress(compressed(report())) == report_json(report())


def test_the_mail_is_read_by_others() -> None:
    raw = report_mail(report(), COVER)
    assert raw.isascii()
    assert raw.replace(b"\r\n", b"").translate(None, b"\r\n") == raw.replace(b"\r\n", b"")
    mail = email.message_from_bytes(raw, policy=email.policy.default)
    assert not mail.defects
    assert (mail["From"], mail["To"]) == ("tlsrpt@relay.test", "tls@rcpt.test")
    assert mail["Subject"] == f"Report Domain: rcpt.test Submitter: relay.test Report-ID: <{'B' * 22}@relay.test>"
    assert (mail["TLS-Report-Domain"], mail["TLS-Report-Submitter"]) == ("rcpt.test", "relay.test")
    assert (mail["TLS-Required"], mail["Auto-Submitted"]) == ("No", "auto-generated")
    assert mail["Message-ID"] == f"<{'A' * 22}@relay.test>"
    assert mail["Date"].datetime.timestamp() == 1_800_000_000
    assert mail.get_content_type() == "multipart/report"
    assert mail["Content-Type"].params["report-type"] == "tlsrpt"
    human, machine = mail.iter_parts()
    assert human.get_content_type() == "text/plain"
    assert "2027-01-14" in human.get_content()
    assert machine.get_content_type() == "application/tlsrpt+gzip"
    assert machine.get_filename() == file_name(report())
    assert not list(complaints(json.loads(gzip.decompress(machine.get_content()))))


def test_no_line_of_the_mail_is_too_long() -> None:
    domain = ".".join(["a" * 61] * 4)[:253]
    policy = PolicyResults(Policy("no-policy-found", domain), 1)
    raw = report_mail(report(policy, contact=f"{'b' * 64}@{domain}"), COVER)
    assert max(map(len, raw.split(b"\r\n"))) <= 998
    mail = email.message_from_bytes(raw, policy=email.policy.default)
    assert mail["Subject"].split()[2] == domain
    *_, machine = mail.iter_parts()
    assert machine.get_filename() == f"{domain}!{domain}!1799884800!1799971199.json.gz"
