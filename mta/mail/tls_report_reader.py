"""Reads TLS reports of others about our domains (RFC 8460 4.4, 5.2): hostile input, bounded in time and memory.

Strict where a wrong value would be counted or shown, and open where the RFC is: result types may be added to, fields
that are not known are passed over. Whether who sent a report may speak for anybody is for the door it came by (DKIM).
"""

import datetime as dt
import ipaddress
import re
import zlib
from typing import Annotated, Literal

import msgspec

from mta.mail.address import is_domain
from mta.mail.tls_report import FailureDetails, Policy, PolicyResults, Report

OCTETS = 10 << 20  # of a report, packed or not: RFC 8460 5.2 knows that receivers have such a limit
RATIO = 200  # of unpacked to packed octets, for what is larger than SMALL: far more than reports come to
SMALL = 1 << 20
_GZIP = b"\x1f\x8b"  # RFC 1952 2.3.1
_SAID = 200  # characters of what msgspec says, which can quote the report
_RESULT_TYPE = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")

_Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 53) - 1)]  # RFC 7493 2.2
_Text = Annotated[str, msgspec.Meta(max_length=1000)]
_Line = Annotated[str, msgspec.Meta(max_length=8000)]  # a TLSA record can hold a certificate
_Name = Annotated[str, msgspec.Meta(max_length=255)]
_Time = Annotated[dt.datetime, msgspec.Meta(tz=True)]  # RFC 3339 5.6


class ReportError(ValueError):
    """The octets are no report; the message says why, in words fit for an event or a log."""


class _DateRange(msgspec.Struct, rename="kebab"):
    start_datetime: _Time
    end_datetime: _Time


class _Policy(msgspec.Struct, rename="kebab"):
    policy_type: Literal["sts", "tlsa", "no-policy-found"]
    policy_domain: _Name
    policy_string: Annotated[tuple[_Line, ...], msgspec.Meta(max_length=1000)] = ()
    # RFC 8460 says a string at one place and shows an array at another; both are sent
    mx_host: Annotated[tuple[_Name, ...], msgspec.Meta(max_length=1000)] | _Name = ()


class _Summary(msgspec.Struct, rename="kebab"):
    total_successful_session_count: _Count
    total_failure_session_count: _Count


class _Details(msgspec.Struct, rename="kebab"):
    result_type: Annotated[str, msgspec.Meta(max_length=64)]
    failed_session_count: _Count
    sending_mta_ip: _Name = ""
    receiving_mx_hostname: _Name = ""
    receiving_mx_helo: _Text = ""
    receiving_ip: _Name = ""
    additional_information: _Text = ""
    failure_reason_code: _Text = ""


class _Results(msgspec.Struct, rename="kebab"):
    policy: _Policy
    summary: _Summary
    failure_details: Annotated[tuple[_Details, ...], msgspec.Meta(max_length=10_000)] = ()


class _Report(msgspec.Struct, rename="kebab"):
    organization_name: _Text
    date_range: _DateRange
    report_id: _Text
    policies: Annotated[tuple[_Results, ...], msgspec.Meta(min_length=1, max_length=1000)]
    contact_info: _Text = ""


_decode = msgspec.json.Decoder(_Report).decode


def read_report(data: bytes) -> Report:
    """Read a report as it came, gzip or plain JSON. ReportError says what is wrong with it."""
    if len(data) > OCTETS:
        raise ReportError("the report has more than 10 MiB")
    try:
        found = _decode(_unpacked(data) if data.startswith(_GZIP) else data)
    except msgspec.ValidationError as error:
        raise ReportError(f"not a TLS report: {str(error)[:_SAID]}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ReportError(f"not JSON: {str(error)[:_SAID]}") from None
    except RecursionError:
        raise ReportError("not a TLS report: values are nested too deeply") from None
    begins_at, ends_at = found.date_range.start_datetime.timestamp(), found.date_range.end_datetime.timestamp()
    if ends_at < begins_at:
        raise ReportError("not a TLS report: it ends before it begins")
    return Report(
        organization=found.organization_name,
        contact=found.contact_info,
        id=found.report_id,
        begins_at=begins_at,
        ends_at=ends_at,
        policies=tuple([_results(each, f"policies[{number}]") for number, each in enumerate(found.policies)]),
    )


def _unpacked(data: bytes) -> bytes:
    """Unpack gzip (RFC 1952), never more than is allowed: a bomb costs no more than the largest report."""
    stream = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    limit = min(OCTETS, max(SMALL, RATIO * len(data)))
    try:
        plain = stream.decompress(data, limit + 1)
    except zlib.error as error:
        raise ReportError(f"gzip is damaged: {error}") from None
    if len(plain) > OCTETS:
        raise ReportError("the report has more than 10 MiB when it is unpacked")
    if len(plain) > limit:
        raise ReportError(f"gzip unpacks to more than {RATIO} times its size")
    if not stream.eof:
        raise ReportError("gzip ends too early")
    if stream.unused_data:
        raise ReportError("something follows the gzip stream")
    return plain


def _results(found: _Results, place: str) -> PolicyResults:
    policy = found.policy
    domain = policy.policy_domain.removesuffix(".").lower()
    if not is_domain(domain):
        raise ReportError(f"not a TLS report: {place}.policy.policy-domain is not a domain in A-labels")
    return PolicyResults(
        policy=Policy(
            type=policy.policy_type,
            domain=domain,
            strings=policy.policy_string,
            mx_hosts=(policy.mx_host,) if isinstance(policy.mx_host, str) else policy.mx_host,
        ),
        successful=found.summary.total_successful_session_count,
        failed=found.summary.total_failure_session_count,
        details=tuple(
            [
                (_details(each, f"{place}.failure-details[{number}]"), each.failed_session_count)
                for number, each in enumerate(found.failure_details)
            ]
        ),
    )


def _details(found: _Details, place: str) -> FailureDetails:
    if not _RESULT_TYPE.fullmatch(found.result_type):
        raise ReportError(f"not a TLS report: {place}.result-type is not a result type")
    return FailureDetails(
        result_type=found.result_type,
        sending_ip=_address(found.sending_mta_ip, f"{place}.sending-mta-ip"),
        mx_hostname=found.receiving_mx_hostname,
        receiving_ip=_address(found.receiving_ip, f"{place}.receiving-ip"),
        reason=found.failure_reason_code,
        mx_helo=found.receiving_mx_helo,
        information=found.additional_information,
    )


def _address(text: str, place: str) -> str:
    try:
        if not text:
            return ""
        if "%" in text:  # a zone id may be any text for `ipaddress`
            raise ValueError
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise ReportError(f"not a TLS report: {place} is not an IP address") from None
