"""Reports that others send: ours and the RFC's are read, what is hostile is refused with its own reason, quickly."""

import gzip
import json
import time
import tracemalloc
import zlib
from typing import Any

import pytest

from mta.mail.tls_report import FailureDetails, Policy, PolicyResults, compressed, report_json, report_of
from mta.mail.tls_report_reader import OCTETS, RATIO, SMALL, ReportError, read_report

# RFC 8460, appendix B
EXAMPLE: dict[str, Any] = {
    "organization-name": "Company-X",
    "date-range": {"start-datetime": "2016-04-01T00:00:00Z", "end-datetime": "2016-04-01T23:59:59Z"},
    "contact-info": "sts-reporting@company-x.example",
    "report-id": "5065427c-23d3-47ca-b6e0-946ea0e8c4be",
    "policies": [{
        "policy": {
            "policy-type": "sts",
            "policy-string": ["version: STSv1", "mode: testing", "mx: *.mail.company-y.example", "max_age: 86400"],
            "policy-domain": "company-y.example",
            "mx-host": ["*.mail.company-y.example"],
        },
        "summary": {"total-successful-session-count": 5326, "total-failure-session-count": 303},
        "failure-details": [
            {"result-type": "certificate-expired", "sending-mta-ip": "2001:db8:abcd:0012::1",
             "receiving-mx-hostname": "mx1.mail.company-y.example", "failed-session-count": 100},
            {"result-type": "starttls-not-supported", "sending-mta-ip": "2001:db8:abcd:0013::1",
             "receiving-mx-hostname": "mx2.mail.company-y.example", "receiving-ip": "203.0.113.56",
             "failed-session-count": 200,
             "additional-information": "https://reports.company-x.example/report_info?id=5065427c-23d3#StarttlsNotSupported"},
            {"result-type": "validation-failure", "sending-mta-ip": "198.51.100.62", "receiving-ip": "203.0.113.58",
             "receiving-mx-hostname": "mx-backup.mail.company-y.example", "failed-session-count": 3,
             "failure-reason-code": "X509_V_ERR_PROXY_PATH_LENGTH_EXCEEDED"},
        ],
    }],
}  # fmt: skip


def changed(*path: Any, to: Any = None, without: bool = False) -> bytes:
    """Write the example with one value changed, or taken out."""
    report = json.loads(json.dumps(EXAMPLE))
    place = report
    for each in path[:-1]:
        place = place[each]
    if without:
        del place[path[-1]]
    else:
        place[path[-1]] = to
    return json.dumps(report).encode()


def test_the_rfcs_example_is_read() -> None:
    found = read_report(json.dumps(EXAMPLE).encode())
    assert (found.organization, found.contact) == ("Company-X", "sts-reporting@company-x.example")
    assert (found.begins_at, found.ends_at) == (1459468800.0, 1459555199.0)
    (results,) = found.policies
    assert (results.policy.type, results.policy.domain) == ("sts", "company-y.example")
    assert results.policy.mx_hosts == ("*.mail.company-y.example",)
    assert (results.successful, results.failed) == (5326, 303)
    assert [(each.result_type, count) for each, count in results.details] == [
        ("certificate-expired", 100), ("starttls-not-supported", 200), ("validation-failure", 3),
    ]  # fmt: skip
    assert results.details[2][0].reason == "X509_V_ERR_PROXY_PATH_LENGTH_EXCEEDED"
    assert results.details[1][0].information.endswith("#StarttlsNotSupported")
    assert results.details[0][0].sending_ip == "2001:db8:abcd:12::1"


def test_ours_is_read_back() -> None:
    details = FailureDetails("certificate-expired", "192.0.2.1", "mx.rcpt.test", "2001:db8::25", "on Monday")
    policy = PolicyResults(Policy("sts", "rcpt.test", ("version: STSv1",), ("mx.rcpt.test",)), 3, 2, ((details, 2),))
    ours = report_of("2027-01-14", (policy,), organization="o", contact="p@relay.test", message_id="A" * 22)
    assert read_report(report_json(ours)) == read_report(compressed(ours)) == ours


@pytest.mark.parametrize(
    "data",
    [
        changed("policies", 0, "policy", "mx-host", to="*.mail.company-y.example"),
        changed("policies", 0, "policy", "mx-host", without=True),
        changed("policies", 0, "policy", "policy-string", without=True),
        changed("policies", 0, "failure-details", without=True),
        changed("policies", 0, "failure-details", 0, "sending-mta-ip", to=""),
        changed("policies", 0, "failure-details", 0, "result-type", to="something-new-2"),
        changed("policies", 0, "policy", "policy-domain", to="Company-Y.example."),
        changed("contact-info", without=True),
        changed("later", to={"unknown": [1]}),
        b"\n " + json.dumps(EXAMPLE, indent=4).encode(),
    ],
)
def test_what_others_write_is_read(data: bytes) -> None:
    assert read_report(data).policies[0].policy.domain == "company-y.example"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not JSON: Input data was truncated"),
        (b"<xml/>", "not JSON: "),
        (b"\xff\xfe{}", "not JSON: "),
        (b'{"organization-name": "\xff"}', "not JSON: "),
        (b"[]", "not a TLS report: Expected `object`, got `array`"),
        (changed("organization-name", to=5), "Expected `str`, got `int` - at `$.organization-name`"),
        (changed("report-id", without=True), "missing required field `report-id`"),
        (changed("policies", to=[]), "length >= 1 - at `$.policies`"),
        (changed("policies", to={}), "Expected `array`, got `object` - at `$.policies`"),
        (changed("policies", to=EXAMPLE["policies"] * 1001), "length <= 1000 - at `$.policies`"),
        (changed("policies", 0, "policy", "policy-type", to="dane"), "`$.policies[0].policy.policy-type`"),
        (changed("policies", 0, "summary", "total-failure-session-count", to="3"), "Expected `int`, got `str`"),
        (changed("policies", 0, "summary", "total-failure-session-count", to=-1), "`int` >= 0"),
        (changed("policies", 0, "summary", "total-failure-session-count", to=1 << 60), "`int` <= 9007199254740991"),
        (changed("policies", 0, "summary", "total-failure-session-count", to=0.5), "Expected `int`"),
        (changed("policies", 0, "policy", "policy-domain", to="a b"), "policies[0].policy.policy-domain is not"),
        (changed("policies", 0, "policy", "policy-domain", to="\u00fc.test"), "is not a domain in A-labels"),
        (changed("policies", 0, "failure-details", 1, "receiving-ip", to="1.2.3"),
         "policies[0].failure-details[1].receiving-ip is not an IP address"),
        (changed("policies", 0, "failure-details", 1, "receiving-ip", to="fe80::1%x"), "is not an IP address"),
        (changed("policies", 0, "failure-details", 0, "result-type", to="Bad Cert"), "[0].result-type is not"),
        (changed("policies", 0, "failure-details", 2, "failure-reason-code", to="x" * 1001), "length <= 1000"),
        (changed("date-range", "start-datetime", to="yesterday"), "Invalid RFC3339 encoded datetime"),
        (changed("date-range", "start-datetime", to="2016-04-01T00:00:00"), "$.date-range.start-datetime"),
        (changed("date-range", "end-datetime", to="2016-03-01T00:00:00Z"), "it ends before it begins"),
        (b'{"x": ' + b"[" * 100_000, "values are nested too deeply"),
        (b"\x1f\x8bnot gzip", "gzip is damaged"),
        (gzip.compress(json.dumps(EXAMPLE).encode())[:-9], "gzip ends too early"),
        (gzip.compress(json.dumps(EXAMPLE).encode()) + b"more", "something follows the gzip stream"),
        (gzip.compress(b"{}") * 2, "something follows the gzip stream"),
        (gzip.compress(gzip.compress(b"{}")), "not JSON: "),
        (b" " * (OCTETS + 1), "the report has more than 10 MiB"),
    ],
)  # fmt: skip
def test_what_is_no_report_is_refused_with_its_reason(data: bytes, reason: str) -> None:
    with pytest.raises(ReportError) as refused:
        read_report(data)
    assert reason in str(refused.value)
    assert len(str(refused.value)) < 300


def bomb(octets: int, level: int = 9) -> bytes:
    """Pack a report that is nearly all blanks."""
    packer = zlib.compressobj(level, wbits=31)
    pieces = [packer.compress(b" " * (1 << 20)) for _ in range(octets >> 20)]
    return b"".join([*pieces, packer.compress(json.dumps(EXAMPLE).encode()), packer.flush()])


def test_a_bomb_costs_no_more_than_the_largest_report() -> None:
    packed = bomb(64 << 20)
    assert len(packed) < 128 << 10
    tracemalloc.start()
    began = time.process_time()
    with pytest.raises(ReportError, match="more than 10 MiB when it is unpacked"):
        read_report(packed)
    took, (_, most) = time.process_time() - began, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 4 * OCTETS
    assert took < 2


def test_a_report_of_as_many_values_as_can_be_costs_little() -> None:
    details = [{"result-type": "a", "failed-session-count": 1}] * (OCTETS // 50)
    report = changed("policies", 0, "failure-details", to=details)
    assert OCTETS * 0.8 < len(report) <= OCTETS
    tracemalloc.start()
    began = time.process_time()
    with pytest.raises(ReportError, match="length <= 10000"):
        read_report(report)
    took, (_, most) = time.process_time() - began, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 10 * OCTETS
    assert took < 3


def test_what_unpacks_to_many_times_its_size_is_refused() -> None:
    packed = bomb(5 << 20)
    assert RATIO * len(packed) < 5 << 20
    with pytest.raises(ReportError, match=f"more than {RATIO} times its size"):
        read_report(packed)
    assert read_report(bomb(SMALL // 2)).organization == "Company-X"  # a small one may be as empty as it likes
    assert read_report(gzip.compress(b" " * SMALL + json.dumps(EXAMPLE).encode(), compresslevel=0)).contact
