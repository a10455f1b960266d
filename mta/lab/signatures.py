"""DKIM signatures of captured mail, verified by dkimpy, which has no part in making them (RFC 6376, RFC 8463).

dkimpy alone would let the sender choose how long verification takes and would take what has been
withdrawn, so every signature and key is looked at here first; what passes costs a second at most.
"""

import base64
from collections.abc import Callable
from typing import NamedTuple

import dkim
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

_CONTENT_LIMIT = 1 << 20  # relaxed bodies cost dkimpy 0.9 ms for each KB of blanks
_HEADER_LIMIT = 64 << 10  # reading the header section is quadratic in folded lines
_FIELD_LIMIT = 8 << 10  # so is finding b= in a signature field
_SIGNATURES_LIMIT = 10
_MODULUS_LIMIT = 4096  # bits; time grows sevenfold with every doubling
_EXPONENT_LIMIT = 1 << 32
_REASON_LIMIT = 200  # characters; dkimpy quotes what it refuses
_ALGORITHMS = (b"rsa-sha256", b"ed25519-sha256")  # RFC 8301 3.1: rsa-sha1 must not be used

Texts = Callable[[str], list[bytes]]
"""Returns the TXT records of a name."""


class Signature(NamedTuple):
    """What came of one DKIM-Signature field. `reason` is "" when it holds."""

    domain: str
    selector: str
    algorithm: str
    reason: str

    @property
    def valid(self) -> bool:
        """Whether the signature holds."""
        return not self.reason

    def __str__(self) -> str:
        """One line for a listing: `dkim=pass (s1 rsa-sha256)`."""
        if self.valid:
            return f"dkim=pass ({self.selector} {self.algorithm})"
        return f"dkim=fail ({self.selector} {self.algorithm}: {self.reason})"


class _Unusable(Exception):
    """The signature cannot be verified; the message says why."""


def verify(content: bytes, texts: Texts) -> list[Signature]:
    """Verify the DKIM signatures of a message, topmost first (ten at most); `texts` looks keys up."""
    header, _, _ = content.partition(b"\r\n\r\n")
    try:
        _check_size(content, header)
        verifier = dkim.DKIM(content)
    except (_Unusable, dkim.DKIMException) as error:
        return [Signature("", "", "", str(error)[:_REASON_LIMIT])]
    fields = [value for name, value in verifier.headers if name.lower() == b"dkim-signature"]
    return [_verify(verifier, number, field, texts) for number, field in enumerate(fields[:_SIGNATURES_LIMIT])]


def _check_size(content: bytes, header: bytes) -> None:
    if len(content) > _CONTENT_LIMIT or len(header) > _HEADER_LIMIT:
        raise _Unusable("message too big to be verified here")
    if header[:1] in (b" ", b"\t"):
        raise _Unusable("message begins with a continuation line")


def _verify(verifier: dkim.DKIM, number: int, field: bytes, texts: Texts) -> Signature:
    tags: dict[bytes, bytes] = {}
    reason = ""
    try:
        if len(field) > _FIELD_LIMIT:
            raise _Unusable("signature field too long")
        tags = dkim.util.parse_tag_value(field)
        key = _key(tags, texts)
        if not verifier.verify(number, dnsfunc=lambda _name, timeout: key):  # noqa: ARG005 - as dkimpy calls it
            reason = "signature does not match"
    except (_Unusable, dkim.DKIMException) as error:
        reason = str(error)[:_REASON_LIMIT] or type(error).__name__
    except (dkim.util.InvalidTagValueList, ValueError, LookupError, TypeError):  # where dkimpy trusts the tags
        reason = "malformed signature or key"
    domain, selector, algorithm = (_text(tags.get(tag, b"")) for tag in (b"d", b"s", b"a"))
    return Signature(domain, selector, algorithm, reason)


def _key(tags: dict[bytes, bytes], texts: Texts) -> bytes:
    """Return the key record of a signature, once it is known to be harmless."""
    if tags.get(b"a") not in _ALGORITHMS:
        raise _Unusable("algorithm not accepted")
    if b"l" in tags:  # RFC 6376 8.2: what follows the signed length is anybody's
        raise _Unusable("l= not accepted")
    records = texts(f"{_text(tags[b's'])}._domainkey.{_text(tags[b'd'])}")
    if len(records) != 1:
        raise _Unusable(f"{len(records)} key records")
    key = dkim.util.parse_tag_value(records[0])
    if key.get(b"k", b"rsa") == b"rsa":
        _check_rsa(key.get(b"p", b""))
    return records[0]


def _check_rsa(encoded: bytes) -> None:
    try:
        public = load_der_public_key(base64.b64decode(encoded))
    except (ValueError, UnsupportedAlgorithm):
        raise _Unusable("malformed key") from None
    if not isinstance(public, RSAPublicKey):
        raise _Unusable("key is of another algorithm")
    if public.key_size > _MODULUS_LIMIT or public.public_numbers().e > _EXPONENT_LIMIT:
        raise _Unusable("key too big")


def _text(octets: bytes) -> str:
    text = octets.decode("ascii", "backslashreplace")
    return "".join(each if each.isprintable() else "?" for each in text)
