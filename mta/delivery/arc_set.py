"""The ARC set that is added to mail passed on (RFC 8617 4.1): which results it tells of, its three fields. Pure."""

import re
from collections.abc import Collection, Sequence

from mta.accounts.domains import Selector
from mta.delivery.arc import Set, seal_digests
from mta.delivery.canonical import Canonical, unsigned_field
from mta.mail.headers import Field

RESULTS_LIMIT = 8192  # octets of all fields together
# RFC 8601 2.2, as nearly everybody writes it: no comments before the semicolon, no blank before the colon, blanks of
# RFC 5234 alone. A server before us may not take another form for a field that it has to remove.
_RESULTS = re.compile(
    rb"Authentication-Results:[ \t\r\n]*([A-Za-z0-9.-]+)(?:[ \t\r\n]+[0-9]+)?[ \t\r\n]*;(.*)", re.DOTALL | re.IGNORECASE
)


def results_of(fields: Sequence[Field], trusted: Collection[str]) -> tuple[str, bytes] | None:
    """Collect the authentication results of the first trusted service that the header names; None without any.

    All of its fields count (RFC 8617 4.1.1): some write one for each method.
    """
    found: dict[str, list[bytes]] = {}
    for field in fields:
        read = _RESULTS.fullmatch(field.raw) if field.name == b"authentication-results" else None
        service = read[1].decode("ascii").lower() if read is not None else ""
        if read is not None and service in trusted:
            found.setdefault(service, []).append(read[2].strip(b" \t\r\n;"))
    for service, results in found.items():
        text = b";\r\n\t".join(results)
        return (service, text) if text and len(text) <= RESULTS_LIMIT else None
    return None


def results_field(instance: int, service: str, results: bytes) -> bytes:
    """Write an ARC-Authentication-Results field (RFC 8617 4.1.1)."""
    return b"ARC-Authentication-Results: i=%d; %b;\r\n\t%b\r\n" % (instance, service.encode("ascii"), results)


def signature_field(instance: int, domain: str, key: Selector, at: int, canonical: Canonical) -> bytes:
    """Write an ARC-Message-Signature field up to its empty b= tag (RFC 8617 4.1.2)."""
    begin = b"ARC-Message-Signature: i=%d; a=rsa-sha256; c=relaxed/relaxed; t=%d;" % (instance, at)
    return unsigned_field(begin, domain, key.name, canonical)


def seal_field(instance: int, domain: str, key: Selector, at: int, cv: str) -> bytes:
    """Write an ARC-Seal field up to its empty b= tag (RFC 8617 4.1.3)."""
    lines = (
        b"ARC-Seal: i=%d; a=rsa-sha256; t=%d; cv=%b;" % (instance, at, cv.encode("ascii")),
        b"d=%b;" % domain.encode("ascii"),
        b"s=%b;" % key.name.encode("ascii"),
        b"b=",
    )
    return b"\r\n\t".join(lines)


def seal_digest(former: Sequence[Set], ours: Set) -> bytes:
    """Return what a seal signs: the sets before, none if they are no chain (RFC 8617 5.1.2), and its own."""
    *_, last = seal_digests((*former, ours))
    return last
