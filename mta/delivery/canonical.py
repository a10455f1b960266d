"""What is signed of a message: header fields and body in relaxed form (RFC 6376 3.4), and how tags are folded. Pure.

All of it takes time linear in the message, whatever it holds.
"""

import hashlib
import re
from base64 import b64encode
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from mta.mail import headers

# named once more than they stand there, so that nobody can add one (RFC 6376 8.15)
_OVERSIGNED = (b"from", b"to", b"subject", b"date")
_SIGNED = frozenset(_OVERSIGNED) | {
    b"cc",
    b"content-transfer-encoding",
    b"content-type",
    b"in-reply-to",
    b"list-archive",
    b"list-help",
    b"list-id",
    b"list-owner",
    b"list-post",
    b"list-subscribe",
    b"list-unsubscribe",
    b"list-unsubscribe-post",
    b"message-id",
    b"mime-version",
    b"references",
    b"reply-to",
    b"sender",
    b"tls-report-domain",  # RFC 8460 5.3
    b"tls-report-submitter",
}
SIGNED_FIELDS_LIMIT = 500  # each is named in the signature, and no honest message has as many
HEADER_LIMIT = 256 * 1024  # octets
_BLANKS = re.compile(rb"  +")
PIECE = 64 * 1024  # octets canonicalised in one go: what may hold up the event loop, or the GIL on a thread
_LINE = 72


class Canonical(NamedTuple):
    """What is signed of a message: the h= tag's names, their fields in relaxed form and order, the body's hash."""

    names: tuple[bytes, ...]
    fields: bytes
    body_hash: bytes


class Unsignable(Exception):
    """The header cannot be signed; the message says why."""


def canonical_form(content: bytes, also: bytes = b"") -> Canonical:
    """Bring a message into the form that is signed, the same for all keys; Unsignable if that cannot be done.

    `also` names a field (lower case) that is signed beside those that always are.
    """
    length = headers.header_length(content)
    signed = _signed_fields(content[:length], also)
    names = (*[field.name for field in signed], *_OVERSIGNED)
    fields = b"".join([relaxed(field.raw) + b"\r\n" for field in signed])
    return Canonical(names, fields, body_hash(content, length + 2))  # behind the empty line


def _signed_fields(header: bytes, also: bytes) -> list[headers.Field]:
    """Choose the fields to sign, those of one name from the bottom up (RFC 6376 5.4.2)."""
    if len(header) > HEADER_LIMIT:
        raise Unsignable(f"header of more than {HEADER_LIMIT} octets")
    fields = list(headers.fields(header))
    if sum(len(field.raw) for field in fields) != len(header):  # lines that are no field: no two readers agree
        raise Unsignable("malformed header")
    signed = [field for field in reversed(fields) if field.name in _SIGNED or field.name == also]
    if not any(field.name == b"from" for field in signed):  # RFC 6376 5.4: it must be signed
        raise Unsignable("no From field")
    if len(signed) > SIGNED_FIELDS_LIMIT:
        raise Unsignable(f"more than {SIGNED_FIELDS_LIMIT} header fields to sign")
    return signed


def relaxed(field: bytes) -> bytes:
    """Bring a field into relaxed form, without its line end (RFC 6376 3.4.2)."""
    name, _, value = field.partition(b":")
    return b"%b:%b" % (name.rstrip(b" \t").lower(), _single_blanks(value.replace(b"\r\n", b"")).strip(b" "))


def body_hash(content: bytes, start: int) -> bytes:
    """Return the SHA-256 of the body from `start` in relaxed form (RFC 6376 3.4.4)."""
    digest = hashlib.sha256()
    line_ends = 0  # seen and not hashed yet: those at the very end count for one, or none without any text
    text_seen = False
    for piece in _pieces(content, start):
        lines = _single_blanks(piece).replace(b" \r\n", b"\r\n").removesuffix(b" ")
        text = _without_line_ends(lines)
        if text:
            digest.update(b"\r\n" * line_ends)
            digest.update(text)
            line_ends, text_seen = 0, True
        line_ends += (len(lines) - len(text)) // 2
    if text_seen:
        digest.update(b"\r\n")
    return digest.digest()


def simple_body_hash(content: bytes, start: int) -> bytes:
    """Return the SHA-256 of the body from `start` in simple form (RFC 6376 3.4.3)."""
    return hashlib.sha256(_without_line_ends(content[start:]) + b"\r\n").digest()


def _pieces(content: bytes, start: int) -> Iterator[bytes]:
    """Cut content behind line ends into pieces of at most PIECE octets; a longer line is one piece."""
    while len(content) - start > PIECE:
        cut = content.rfind(b"\r\n", start, start + PIECE)
        if cut < 0:
            cut = content.find(b"\r\n", start + PIECE - 1)
        if cut < 0:
            break
        yield content[start : cut + 2]
        start = cut + 2
    yield content[start:]


def _without_line_ends(lines: bytes) -> bytes:
    text = lines.rstrip(b"\r\n")
    tail = lines[len(text) :]
    # a tail of CR and LF has no blanks, so they can stand for its CRLFs: a bare CR or LF is text
    return text + tail.replace(b"\r\n", b" ").rstrip(b" ").replace(b" ", b"\r\n")


def _single_blanks(text: bytes) -> bytes:
    return _BLANKS.sub(b" ", text.replace(b"\t", b" "))


def unsigned_field(begin: bytes, domain: str, selector: str, canonical: Canonical) -> bytes:
    """Write a field that signs a message, from what it begins with up to its empty b= tag (RFC 6376 3.5)."""
    lines = (
        begin,
        b"d=%b;" % domain.encode("ascii"),
        b"s=%b;" % selector.encode("ascii"),
        b"h=" + b":\r\n\t".join([b":".join(group) for group in _groups(canonical.names)]) + b";",
        b"bh=%b;" % b64encode(canonical.body_hash),
        b"b=",
    )
    return b"\r\n\t".join(lines)


def digest_of(canonical: Canonical, unsigned: bytes) -> bytes:
    """Return what such a field signs: it comes last itself, with b= empty and without its line end (RFC 6376 3.7)."""
    return hashlib.sha256(canonical.fields + relaxed(unsigned)).digest()


def _groups(names: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Divide the names of the h= tag into lines; a single one may be longer."""
    first = width = 0
    for number, name in enumerate(names):
        if width + len(name) > _LINE and number > first:
            yield names[first:number]
            first, width = number, 0
        width += len(name) + 1
    yield names[first:]


def folded(value: bytes) -> bytes:
    """Write a signature in base64, in lines."""
    text = b64encode(value)
    return b"\r\n\t".join([text[start : start + _LINE] for start in range(0, len(text), _LINE)])
