"""The texts of a message, read back out of its content: what a detail shows. Pure.

Takes what others wrote, too: hostile MIME costs what its octets cost, and what cannot be read is not shown. The first
text/plain and the first text/html that are no attachments count, wherever they stand (RFC 2046).
"""

import binascii
import codecs
import re
from collections.abc import Iterator
from email.message import Message
from typing import NamedTuple

from mta.mail import headers

_SHOWN = ("text/plain", "text/html")
_DEPTH = 10
_PARTS = 500
_VALUE_LIMIT = 1000  # octets of a Content-Type
_BOUNDARY_LIMIT = 200
# Codecs of Python that are none of mail, and of which some take quadratic time
_NO_CHARSETS = frozenset(("idna", "punycode", "undefined", "unicode-escape", "raw-unicode-escape"))


class Texts(NamedTuple):
    """What was found, with LF between lines; None for what there is not."""

    plain: str | None = None
    html: str | None = None


def read_texts(content: bytes) -> Texts:
    """Read the texts of a message. Never raises."""
    reading = _Reading()
    reading.part(content, 0)
    return Texts(reading.found.get("text/plain"), reading.found.get("text/html"))


class _Reading:
    def __init__(self) -> None:
        self.found: dict[str, str] = {}
        self._parts = 0

    def part(self, octets: bytes, depth: int) -> None:
        self._parts += 1
        header, body = headers.split(octets)
        described = _described(header)
        kind = described.get_content_type()
        if kind.startswith("multipart/"):
            boundary = described.get_boundary("")
            if depth < _DEPTH and 0 < len(boundary) <= _BOUNDARY_LIMIT:
                self._inner(body, boundary, depth + 1)
        elif kind in _SHOWN and kind not in self.found and not _is_attachment(header):
            encoding = headers.first(header, b"content-transfer-encoding") or b""
            self.found[kind] = _text(body, encoding.lower(), described.get_content_charset("utf-8"))

    def _inner(self, body: bytes, boundary: str, depth: int) -> None:
        for each in _parts_of(body, boundary.encode("latin-1", "replace")):
            if self._parts >= _PARTS or len(self.found) == len(_SHOWN):
                return
            self.part(each, depth)


def _described(header: bytes) -> Message:
    described = Message()
    value = headers.first(header, b"content-type")
    if value is not None:
        described["Content-Type"] = value[:_VALUE_LIMIT].decode("latin-1")
    return described


def _is_attachment(header: bytes) -> bool:
    return (headers.first(header, b"content-disposition") or b"").lower().startswith(b"attachment")


def _parts_of(body: bytes, boundary: bytes) -> Iterator[bytes]:
    """Cut at the delimiter lines (RFC 2046 5.1.1); a last part without an end counts."""
    delimiter = re.compile(rb"\r\n--%b(--)?[ \t]*(?:\r\n|\Z)" % re.escape(boundary))
    body = b"\r\n" + body
    start = -1
    found = delimiter.search(body)
    while found is not None:
        if start >= 0:
            yield body[start : found.start()]
        if found[1]:
            return
        start = found.end()
        found = delimiter.search(body, max(start - 2, 0))  # its line's end begins the next delimiter
    if start >= 0:
        yield body[start:]


def _text(octets: bytes, encoding: bytes, charset: str) -> str:
    if encoding == b"quoted-printable":
        octets = binascii.a2b_qp(octets)
    elif encoding == b"base64":
        try:
            octets = binascii.a2b_base64(octets)
        except binascii.Error:
            octets = b""
    try:
        known = codecs.lookup(charset).name not in _NO_CHARSETS
        # UTF-7 can say halves of characters, which nobody can write
        text = octets.decode(charset if known else "latin-1", "replace").encode("utf-8", "replace").decode()
    except (LookupError, ValueError):
        text = octets.decode("latin-1")
    return text.replace("\r\n", "\n")
