"""What RFC 8460 says of a report's fields, read from the RFC and not from our writer: `complaints` of one as JSON."""

import ipaddress
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
DOMAIN = rf"{LABEL}(?:\.{LABEL})*"
# 4.3, and the registry of 6.6
RESULT_TYPES = (
    "starttls-not-supported", "certificate-host-mismatch", "certificate-expired", "certificate-not-trusted",
    "validation-failure", "tlsa-invalid", "dnssec-invalid", "dane-required", "sts-policy-fetch-error",
    "sts-policy-invalid", "sts-webpki-invalid",
)  # fmt: skip


class Field(NamedTuple):
    """What a field holds, and whether it may be missing."""

    holds: Any
    optional: bool = False


def text(pattern: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value, re.DOTALL) is not None


def count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 53


def address(value: Any) -> bool:
    try:
        return isinstance(value, str) and str(ipaddress.ip_address(value)) == value  # IPv6 as RFC 5952 has it
    except ValueError:
        return False


TIME = text(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:Z|[+-]\d\d:\d\d)")  # RFC 3339 5.6
REPORT = {
    "organization-name": Field(text(r".+")),
    "date-range": Field({"start-datetime": Field(TIME), "end-datetime": Field(TIME)}),
    "contact-info": Field(text(rf"(?i:[^@\s]+@{DOMAIN})")),
    "report-id": Field(text(r".+")),
    "policies": Field([{
        "policy": Field({
            "policy-type": Field(text(r"tlsa|sts|no-policy-found")),
            "policy-string": Field([text(r"[^\r\n]+")], optional=True),
            "policy-domain": Field(text(DOMAIN)),
            "mx-host": Field([text(rf"(?:\*\.)?{DOMAIN}")], optional=True),
        }),
        "summary": Field({
            "total-successful-session-count": Field(count),
            "total-failure-session-count": Field(count),
        }),
        "failure-details": Field([{
            "result-type": Field(text("|".join(RESULT_TYPES))),
            "sending-mta-ip": Field(address, optional=True),
            "receiving-mx-hostname": Field(text(DOMAIN), optional=True),
            "receiving-mx-helo": Field(text(r".+"), optional=True),
            "receiving-ip": Field(address, optional=True),
            "failed-session-count": Field(count),
            "additional-information": Field(text(r"[a-z][a-z0-9+.-]*:\S+"), optional=True),
            "failure-reason-code": Field(text(r".+"), optional=True),
        }], optional=True),
    }]),
}  # fmt: skip


def complaints(value: Any, holds: Any = REPORT, place: str = "report") -> Iterator[str]:
    """Say everything in which a report is not one."""
    if isinstance(holds, dict):
        if not isinstance(value, dict):
            yield f"{place} is no object"
            return
        yield from (f"{place}: {name} is not of the RFC" for name in value if name not in holds)
        for name, field in holds.items():
            if name in value:
                yield from complaints(value[name], field.holds, f"{place}.{name}")
            elif not field.optional:
                yield f"{place}: {name} is missing"
    elif isinstance(holds, list):
        if not isinstance(value, list) or not (value or "details" in place):
            yield f"{place} is no array with something in it"
            return
        for number, each in enumerate(value):
            yield from complaints(each, holds[0], f"{place}[{number}]")
    elif not holds(value):
        yield f"{place}: {value!r}"
