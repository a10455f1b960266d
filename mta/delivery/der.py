"""DER, as much of it as it takes to cut a public key out of a certificate octet for octet (X.690, RFC 5280 4.1).

Libraries read a key and write it anew, which need not give the octets that a TLSA record was made of.
"""

from collections.abc import Iterator
from itertools import islice

SEQUENCE = 0x30
_VERSION = 0xA0  # [0] EXPLICIT, left out in certificates of version 1
_BEFORE_KEY = 5  # serial number, signature algorithm, issuer, validity, subject


def cut_public_key(certificate: bytes) -> bytes:
    """Return the SubjectPublicKeyInfo of a certificate as it stands there; ValueError if it is none."""
    signed = next(_elements(_content(certificate)), b"")
    fields = list(islice(_elements(_content(signed)), _BEFORE_KEY + 2))
    if fields and fields[0][0] == _VERSION:
        fields = fields[1:]
    if len(fields) <= _BEFORE_KEY or fields[_BEFORE_KEY][0] != SEQUENCE:
        raise ValueError("not a certificate")
    return fields[_BEFORE_KEY]


def is_sequence(der: bytes) -> bool:
    """Tell whether octets are one SEQUENCE and nothing behind it, as certificates and public keys are."""
    try:
        return der[:1] == bytes([SEQUENCE]) and next(_elements(der)) == der
    except ValueError:
        return False


def _content(element: bytes) -> bytes:
    if element[:1] != bytes([SEQUENCE]) or next(_elements(element)) != element:
        raise ValueError("not one sequence")
    return element[_start_and_end(element, 0)[0] :]


def _elements(octets: bytes) -> Iterator[bytes]:
    """Cut octets into elements, each with its tag and length."""
    at = 0
    while at < len(octets):
        _, end = _start_and_end(octets, at)
        yield octets[at:end]
        at = end


def _start_and_end(octets: bytes, at: int) -> tuple[int, int]:
    """Return where the content of the element at `at` starts and ends (X.690 8.1.3); tags have one octet here."""
    start = at + 2
    if start > len(octets):
        raise ValueError("element without a length")
    length = octets[at + 1]
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(octets[at + 2 : start], "big") if start > at + 2 else len(octets)  # indefinite: never
    if start + length > len(octets):
        raise ValueError("element longer than what it is in")
    return start, start + length
