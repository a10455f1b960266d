"""Forms: urlencoded (WHATWG URL 5.1) and multipart/form-data (RFC 7578), out of a body that was read whole.

What a part holds is a view of the body, not a copy: a form takes the memory of its body, and of what is made of it.
Work is linear in the octets; parts, and what describes each, are bounded.
"""

import re
from collections.abc import Iterator
from urllib.parse import unquote, unquote_to_bytes

import msgspec

from relay_http.problem import Refusal, invalid

URLENCODED = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data"
PARTS_LIMIT = 5000  # a thousand recipients in each of to, cc and bcc, and as much again
_HEAD_LIMIT = 4096  # octets of a part's header fields
_FIELD = re.compile(rb"^([!-9;-~]+)[ \t]*:[ \t]*([^\r\n]*(?:\r\n[ \t][^\r\n]*)*)", re.MULTILINE)
_PARAMETER = re.compile(r';[ \t]*([^\s;="]+)[ \t]*=[ \t]*("(?:[^"\\]|\\.)*"|[^;"]*)', re.DOTALL)
_QUOTED_PAIR = re.compile(r'\\(["\\])')
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")  # RFC 2046 5.1.1
_ESCAPES = (("%22", '"'), ("%0D", "\r"), ("%0A", "\n"))  # WHATWG HTML 4.10.21.8


class FormPart(msgspec.Struct, frozen=True):
    """A field, or a file if it has a `filename`, "" included. `media_type` is as it was given."""

    name: str
    data: bytes | memoryview
    filename: str | None = None
    media_type: str = ""

    def text(self) -> str:
        """Return the value of a field; Refusal 400 if it is not UTF-8."""
        try:
            return str(self.data, "utf-8")
        except UnicodeDecodeError:
            raise invalid(f"'{self.name[:64]}' parameter is not valid UTF-8", self.name[:64]) from None


def read_form(body: bytes, content_type: str) -> list[FormPart]:
    """Read a form of either type, its fields in order; Refusal 400 when it is none."""
    if content_type.partition(";")[0].strip().lower() == MULTIPART:
        boundary = _parameters(content_type).get("boundary", "")
        if not _BOUNDARY.fullmatch(boundary):
            raise _malformed("its boundary is missing or malformed")
        return list(_parts(body, b"--" + boundary.encode("ascii")))
    return list(_pairs(body))


def _pairs(body: bytes) -> Iterator[FormPart]:
    if body.count(b"&") >= PARTS_LIMIT:
        raise _too_many()
    for pair in body.split(b"&"):
        if pair:
            name, _, value = pair.replace(b"+", b" ").partition(b"=")
            yield FormPart(_name(unquote_to_bytes(name)), unquote_to_bytes(value))


def _parts(body: bytes, dash_boundary: bytes) -> Iterator[FormPart]:
    """Go from delimiter to delimiter (RFC 2046 5.1.1); what stands before the first and behind the last is nothing."""
    delimiter = b"\r\n" + dash_boundary
    whole = memoryview(body)
    at = 0 if body.startswith(dash_boundary) else body.find(delimiter) + 2
    if at == 1:
        raise _malformed("it does not have its boundary")
    at += len(dash_boundary)
    for _ in range(PARTS_LIMIT + 1):
        if body.startswith(b"--", at):
            return
        line = body.find(b"\r\n", at)
        if line < 0 or body[at:line].strip(b" \t"):
            raise _malformed("a boundary is malformed")
        head = body.find(b"\r\n\r\n", line, line + _HEAD_LIMIT)
        end = body.find(delimiter, head + 4) if head >= 0 else -1
        if end < 0:
            raise _malformed("a part is cut off, or its header is too long")
        yield _part(body[line + 2 : head], whole[head + 4 : end])
        at = end + len(delimiter)
    raise _too_many()


def _part(head: bytes, data: memoryview) -> FormPart:
    try:
        fields = {name.lower(): value.decode() for name, value in _FIELD.findall(head)}
    except UnicodeDecodeError:
        raise _malformed("the header of a part is not UTF-8") from None
    if fields.get(b"content-transfer-encoding", "binary").strip().lower() not in ("binary", "8bit", "7bit"):
        raise _malformed("Content-Transfer-Encoding is not to be used (RFC 7578 4.7)")
    disposition = fields.get(b"content-disposition", "")
    parameters = _parameters(disposition)
    if not disposition.lower().startswith("form-data") or "name" not in parameters:
        raise _malformed("a part has no name")
    return FormPart(
        _unescaped(parameters["name"]), data, _filename(parameters), fields.get(b"content-type", "").strip()
    )


def _parameters(value: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, text in _PARAMETER.findall(value):
        plain = _QUOTED_PAIR.sub(r"\1", text[1:-1]) if text.startswith('"') else text.strip()
        found.setdefault(name.lower(), plain)
    return found


def _filename(parameters: dict[str, str]) -> str | None:
    """Read the name of a file; as RFC 5987 writes it, too, which is not to be used (RFC 7578 4.2) and is."""
    charset, quote, rest = parameters.get("filename*", "").partition("'")
    _, again, encoded = rest.partition("'")
    if quote and again and charset.lower() == "utf-8":
        return unquote(encoded)
    plain = parameters.get("filename")
    return None if plain is None else _unescaped(plain)


def _unescaped(text: str) -> str:
    if "%" in text:
        for escaped, char in _ESCAPES:
            text = text.replace(escaped, char)
    return text


def _name(octets: bytes) -> str:
    try:
        return octets.decode()
    except UnicodeDecodeError:
        raise invalid("the name of a parameter is not valid UTF-8") from None


def _malformed(what: str) -> Refusal:
    return invalid(f"the body is not multipart/form-data: {what}")


def _too_many() -> Refusal:
    return invalid(f"at most {PARTS_LIMIT} parameters are allowed")
