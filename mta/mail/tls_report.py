"""Aggregate TLS reports as values, as JSON and as mail (RFC 8460). No I/O, no clock.

A report tells a domain how sessions with its hosts went on one day of UTC, by the policy that applied. What
stands in it comes from strangers in part (policies, host names, replies), and is escaped by the JSON and bounded by
whoever counted it; in the mail around it stand only names of ours and addresses that were checked.
"""

import datetime as dt
import gzip
from binascii import b2a_base64

import msgspec

from mta.mail.address import domain_of
from mta.mail.headers import format_date

STS = "sts"
TLSA = "tlsa"
NO_POLICY = "no-policy-found"
DAY = 86_400  # seconds
MEDIA_TYPE = "application/tlsrpt+gzip"  # RFC 8460 6.5
_TIME = "%Y-%m-%dT%H:%M:%SZ"


class Policy(msgspec.Struct, frozen=True, array_like=True):
    """A policy that sessions were judged by (RFC 8460 4.4): type, domain, its lines or TLSA records, MX hosts."""

    type: str
    domain: str
    strings: tuple[str, ...] = ()
    mx_hosts: tuple[str, ...] = ()


class FailureDetails(msgspec.Struct, frozen=True, array_like=True):
    """One way in which sessions failed (RFC 8460 4.4); "" is what does not apply.

    `result_type` is in the words of RFC 8460 4.3, `reason` what is more to be said (failure-reason-code), `information`
    a URI.
    """

    result_type: str
    sending_ip: str = ""
    mx_hostname: str = ""
    receiving_ip: str = ""
    reason: str = ""
    mx_helo: str = ""
    information: str = ""


class PolicyResults(msgspec.Struct, frozen=True, array_like=True):
    """Sessions under a policy: how many went well and how many did not, and these by how they failed."""

    policy: Policy
    successful: int = 0
    failed: int = 0
    details: tuple[tuple[FailureDetails, int], ...] = ()


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """An aggregate report. `begins_at` and `ends_at` are its first and last second (absolute), `id` is unique."""

    organization: str
    contact: str
    id: str
    begins_at: float
    ends_at: float
    policies: tuple[PolicyResults, ...]


class Cover(msgspec.Struct, frozen=True, kw_only=True):
    """The mail around a report: its own message id, From and To as mailboxes, Date in absolute seconds."""

    id: str
    sender: str
    to: str
    at: float


def day_of(at: float) -> str:
    """Name the day of UTC (`2027-01-15`) of absolute seconds."""
    return dt.datetime.fromtimestamp(at, dt.UTC).date().isoformat()


def start_of(day: str) -> float:
    """Return when a day of UTC begins, in absolute seconds; ValueError if it is none."""
    return dt.datetime.combine(dt.date.fromisoformat(day), dt.time(), dt.UTC).timestamp()


def report_of(
    day: str, policies: tuple[PolicyResults, ...], *, organization: str, contact: str, message_id: str
) -> Report:
    """Make the report of a whole day (RFC 8460 4.1); it has the name that a message id of ours gives it."""
    begins_at = start_of(day)
    return Report(
        organization=organization,
        contact=contact,
        id=f"{message_id}@{domain_of(contact)}",
        begins_at=begins_at,
        ends_at=begins_at + DAY - 1,
        policies=policies,
    )


def report_json(report: Report) -> bytes:
    """Write a report as JSON (RFC 8460 4.4)."""
    return msgspec.json.encode(
        {
            "organization-name": report.organization,
            "date-range": {"start-datetime": _time(report.begins_at), "end-datetime": _time(report.ends_at)},
            "contact-info": report.contact,
            "report-id": report.id,
            "policies": [policy_json(each) for each in report.policies],
        }
    )


def policy_json(results: PolicyResults) -> dict[str, object]:
    """Show the results of one policy as they stand in a report; what does not apply is left out."""
    policy = results.policy
    return {
        "policy": _known(
            {
                "policy-type": policy.type,
                "policy-string": policy.strings,
                "policy-domain": policy.domain,
                "mx-host": policy.mx_hosts,
            }
        ),
        "summary": {
            "total-successful-session-count": results.successful,
            "total-failure-session-count": results.failed,
        },
        "failure-details": [_details_json(details, count) for details, count in results.details],
    }


def _details_json(details: FailureDetails, count: int) -> dict[str, object]:
    return _known(
        {
            "result-type": details.result_type,
            "sending-mta-ip": details.sending_ip,
            "receiving-mx-hostname": details.mx_hostname,
            "receiving-mx-helo": details.mx_helo,
            "receiving-ip": details.receiving_ip,
            "failed-session-count": count,
            "additional-information": details.information,
            "failure-reason-code": details.reason,
        }
    )


def _known(fields: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value not in ("", ())}


def compressed(report: Report) -> bytes:
    """Write a report as it is sent (RFC 8460 5.2): the same octets each time."""
    return gzip.compress(report_json(report), mtime=0)


def file_name(report: Report) -> str:
    """Name a compressed report (RFC 8460 5.1); it needs no unique-id, for there is one a day."""
    domain = report.policies[0].policy.domain
    return f"{domain_of(report.contact)}!{domain}!{report.begins_at:.0f}!{report.ends_at:.0f}.json.gz"


def report_mail(report: Report, cover: Cover) -> bytes:
    """Write the mail that carries a report (RFC 8460 5.3), in ASCII, its lines ended with CRLF."""
    domain, submitter = report.policies[0].policy.domain, domain_of(report.contact)
    boundary = f"=_{cover.id}"
    head = (
        f"From: <{cover.sender}>",
        f"To: <{cover.to}>",
        f"Subject: Report Domain: {domain}\r\n Submitter: {submitter}\r\n Report-ID: <{report.id}>",
        f"Date: {format_date(cover.at)}",
        f"Message-ID: <{cover.id}@{domain_of(cover.sender)}>",
        f"TLS-Report-Domain: {domain}",
        f"TLS-Report-Submitter: {submitter}",
        "TLS-Required: No",  # RFC 8689 5: so that whoever passes it on delivers it too (RFC 8460 3)
        "Auto-Submitted: auto-generated",  # RFC 3834 5
        "MIME-Version: 1.0",
        f'Content-Type: multipart/report; report-type="tlsrpt";\r\n boundary="{boundary}"',
        "",
        f"--{boundary}",
        "Content-Type: text/plain; charset=us-ascii",
        "",
        f"This is an aggregate TLS report of {day_of(report.begins_at)} (UTC) for",
        f"{domain}",
        "from",
        f"{submitter}",
        "",
        f"--{boundary}",
        f"Content-Type: {MEDIA_TYPE}",
        "Content-Transfer-Encoding: base64",
        f'Content-Disposition: attachment;\r\n filename="{file_name(report)}"',
        "",
        "",
    )
    return "\r\n".join(head).encode("ascii") + _base64(compressed(report)) + f"--{boundary}--\r\n".encode()


def _base64(data: bytes) -> bytes:
    return b"".join([b2a_base64(data[at : at + 57], newline=False) + b"\r\n" for at in range(0, len(data), 57)])


def _time(at: float) -> str:
    return dt.datetime.fromtimestamp(at, dt.UTC).strftime(_TIME)
