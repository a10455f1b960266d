"""A domain's TLSRPT record: where it wants reports of TLS sessions with it (RFC 8460 3). Pure; any octets will do."""

import re
from collections.abc import Iterable, Iterator
from urllib.parse import unquote, urlsplit

import msgspec

from mta.mail.address import AddressError, is_domain, parse_mailbox

ENDPOINTS = 4  # that a domain gets its report at; each of them could be somebody who did not ask for it
URI_LIMIT = 1000  # octets
_BEGIN = b"v=TLSRPTv1;"
_FIELD = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]{0,31})=([\x21-\x7e\t ]+)")
_URI = re.compile(r"[\x21-\x7e]+")


class Endpoint(msgspec.Struct, frozen=True):
    """Where a report goes: to a mailbox, or where that is "" to an HTTPS server; `path` has the query too."""

    uri: str
    mailbox: str = ""
    host: str = ""
    port: int = 443
    path: str = ""


def record_name(domain: str) -> str:
    """Name the record of a policy domain."""
    return f"_smtp._tls.{domain}"


def endpoints(texts: Iterable[bytes]) -> tuple[Endpoint, ...]:
    """Read where reports go from the TXT records of the name; none if the domain wants none, or not so.

    URIs that nobody could send to are passed over.
    """
    records = [each for each in texts if each.startswith(_BEGIN)]
    if len(records) != 1:  # RFC 8460 3: with two, nobody knows which is meant
        return ()
    found: dict[str, Endpoint] = {}
    for uri in _uris(records[0].decode("ascii", "replace")):
        endpoint = endpoint_of(uri)
        if endpoint is not None:
            found.setdefault(endpoint.mailbox or uri, endpoint)
    return tuple(found.values())[:ENDPOINTS]


def _uris(record: str) -> Iterator[str]:
    fields = [each.strip(" \t") for each in record[len(_BEGIN) :].split(";")]
    read = [_FIELD.fullmatch(each) for each in fields if each]
    if None in read:  # no pairs of names and values: not a record of ours or of a later version
        return
    for field in read:
        if field is not None and field[1] == "rua":  # RFC 8460 3: unknown fields are ignored
            yield from (each.strip(" \t") for each in field[2].split(","))


def endpoint_of(uri: str) -> Endpoint | None:
    """Read a URI of `rua`; None if nothing can be sent to it."""
    if len(uri) > URI_LIMIT or not _URI.fullmatch(uri):
        return None
    scheme, _, rest = uri.partition(":")
    if scheme.lower() == "mailto":
        return _mailbox(uri, rest.partition("?")[0])
    return _server(uri) if scheme.lower() == "https" else None


def _server(uri: str) -> Endpoint | None:
    try:
        parts = urlsplit(uri)
        port = 443 if parts.port is None else parts.port
    except ValueError:  # of a port, or of what should have been an IPv6 address
        return None
    host = parts.hostname or ""
    if not is_domain(host) or not port or "@" in parts.netloc:
        return None
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Endpoint(uri, host=host, port=port, path=path)


def _mailbox(uri: str, encoded: str) -> Endpoint | None:
    try:
        return Endpoint(uri, parse_mailbox(unquote(encoded, errors="strict")))  # RFC 6068 2
    except (AddressError, UnicodeDecodeError):
        return None
