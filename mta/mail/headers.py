"""Header blocks as bytes: found, read and edited without a parser, so that what is not touched stays as it came.

A header block is the content up to its first empty line, each line ended by CRLF, the empty line not
included (RFC 5322 2.1). All functions take hostile input and run in linear time. A line that is no field
is passed over, not taken for the end of the block: a reader that stops there sees fewer fields than we do.
"""

import re
import time
from collections.abc import Collection, Iterator
from functools import lru_cache
from typing import NamedTuple

FROM_LIMIT = 16384  # octets; the one value that is looked at character by character
_FIELD = re.compile(rb"\n([!-9;-~]+)[ \t]*:([^\n]*(?:\n[ \t][^\n]*)*)")  # on a block with LF put before it
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class FromError(ValueError):
    """The From field cannot be read; the message says why, in words fit for a reply."""


class Field(NamedTuple):
    """One field: its name in lower case, and its bytes as they came with folding and last CRLF."""

    name: bytes
    raw: bytes

    @property
    def value(self) -> bytes:
        """What stands after the colon, unfolded and stripped."""
        return unfold(self.raw.partition(b":")[2])


def header_length(content: bytes) -> int:
    """Return how many octets of `content` are its header block; all of them if no empty line comes."""
    if content.startswith(b"\r\n"):
        return 0
    end = content.find(b"\r\n\r\n")
    return len(content) if end < 0 else end + 2


def split(content: bytes) -> tuple[bytes, bytes]:
    """Split content into its header block and its body; the empty line between is in neither."""
    length = header_length(content)
    return content[:length], content[length + 2 :]


def fields(header: bytes) -> Iterator[Field]:
    """Yield the fields of a header block in order."""
    for found in _FIELD.finditer(b"\n" + header):
        yield Field(found[1].lower(), found[0][1:] + b"\n")


@lru_cache(maxsize=2)
def _read(header: bytes) -> dict[bytes, list[bytes]]:
    """Read the values as they came, in order, by name in lower case: once for all who ask of the same block in turn."""
    found: dict[bytes, list[bytes]] = {}
    for name, value in _FIELD.findall(b"\n" + header):
        found.setdefault(name.lower(), []).append(value)
    return found


def names(header: bytes) -> Collection[bytes]:
    """Tell the names of the fields in lower case, each once, in the order of their first fields."""
    return _read(header).keys()


def values(header: bytes, name: bytes) -> list[bytes]:
    """List the unfolded values of the fields called `name` (lower case)."""
    return [unfold(value) for value in _read(header).get(name, ())]


def first(header: bytes, name: bytes) -> bytes | None:
    """Return the unfolded value of the first field called `name` (lower case), None if there is none."""
    return next(iter(values(header, name)), None)


def firsts(header: bytes, *wanted: bytes) -> list[bytes]:
    """Return the unfolded value of the first field of each name (lower case), b"" where there is none."""
    found = _read(header)
    return [unfold(found[name][0]) if name in found else b"" for name in wanted]


def count(header: bytes, name: bytes) -> int:
    """Count the fields called `name` (lower case)."""
    return len(_read(header).get(name, ()))


def remove(header: bytes, unwanted: Collection[bytes]) -> bytes:
    """Take out the fields whose names (lower case) are in `unwanted`; all else stays as it came."""

    def kept(found: re.Match[bytes]) -> bytes:
        return b"" if found[1].lower() in unwanted else found[0]

    return _FIELD.sub(kept, b"\n" + header)[1:]


def unfold(value: bytes) -> bytes:
    """Take the line ends out of a field's value (RFC 5322 2.2.3), and the white space around it."""
    return value.replace(b"\r\n", b"").strip()


@lru_cache(maxsize=16)
def _date(second: int) -> str:
    at = time.gmtime(second)
    day, month = _DAYS[at.tm_wday], _MONTHS[at.tm_mon - 1]
    return f"{day}, {at.tm_mday} {month} {at.tm_year:04} {at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02} +0000"


def format_date(at: float) -> str:
    """Write absolute seconds as a date-time in UTC (RFC 5322 3.3), whatever the locale."""
    return _date(int(at))


# Whom a message says it is from. The answer decides who may send it, so what a lenient reader might take
# for an address counts as one: more domains than the author meant are harmless, one fewer is not.

_SPECIALS = r'\s"(),:;<>@\[\]'
_ORDINARY_FROM = re.compile(
    rf'(?:"[^"\\]*")?[^"(),:;<>@\[\]\\]*<[^{_SPECIALS}\\]+@([A-Za-z0-9.\-]+)>|[^{_SPECIALS}\\]+@([A-Za-z0-9.\-]+)'
)
_TOKEN = re.compile(rf"[^{_SPECIALS}]+|\s+|.", re.DOTALL)
_LITERAL = re.compile(r"\[[^\[\]]*\]")
_NAME = re.compile(r"[A-Za-z0-9.\-_\u0080-\U0010ffff]+")
_QUOTED_DOMAIN = re.compile(rf"@({_NAME.pattern})")
_ENDS = frozenset("@<>(),;:")
_QUOTED_END = re.compile(r'[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_COMMENT_PART = re.compile(r"\\.|[()]", re.DOTALL)


def from_domains(header: bytes) -> tuple[str, ...]:
    """Return every domain that stands in a From field, in order, as it is written, without repetitions.

    Several fields, mailboxes, groups, routes, comments and quoted strings are gone through; what is quoted
    before a single address, or in a comment, is none. Invalid UTF-8 becomes U+FFFD. FromError if there is too
    much to read.
    """
    found: dict[str, None] = {}
    for value in values(header, b"from"):
        if len(value) > FROM_LIMIT:
            raise FromError("From is longer than 16 KiB")
        found.update(dict.fromkeys(_from_domains(value)))
    return tuple(found)


@lru_cache(maxsize=256)  # the few senders of an application repeat
def _from_domains(value: bytes) -> tuple[str, ...]:
    text = value.decode("utf-8", "replace")
    ordinary = _ORDINARY_FROM.fullmatch(text)
    return (ordinary[1] or ordinary[2],) if ordinary is not None else tuple(_domains(text))


def _domains(text: str) -> Iterator[str]:
    domain: str | None = None  # what has been read of one, None outside
    joined: str | None = None  # the same with all words up to the next special, as some readers join them
    for piece in (*_pieces(text), ","):
        if piece in _ENDS:
            yield from _names_in(domain)
            yield from _names_in(joined)
            domain = joined = "" if piece == "@" else None
            continue
        word = piece.strip('"')
        if word != piece:  # in anything but the ordinary form some readers take what is quoted for an address
            yield from _QUOTED_DOMAIN.findall(word.replace("\\", ""))
        if joined is None or piece.isspace():
            continue
        joined += word
        if domain is not None and (domain[-1:] in ("", ".") or piece[0] == "."):
            domain += word  # white space may stand around the dots (RFC 5322 4.4)
        else:
            yield from _names_in(domain)
            domain = None


def _names_in(domain: str | None) -> Iterator[str]:
    """Yield what was read, and the names in it: `b.test|` is nobody's domain, but b.test for some readers."""
    if domain:
        yield domain
        yield from _NAME.findall(domain)


def _pieces(text: str) -> Iterator[str]:
    """Cut a From value into atoms, quoted strings, literals, white space and specials; comments are white space.

    A quote or parenthesis that nobody closes is a character like others, and is looked for only once.
    Brackets make a literal only behind an @.
    """
    quotes = comments = True
    at = 0
    while at < len(text):
        if quotes and text[at] == '"':
            quoted = _QUOTED_END.match(text, at + 1)
            quotes = quoted is not None
            if quoted is not None:
                yield text[at : quoted.end()]
                at = quoted.end()
                continue
        elif comments and text[at] == "(":
            end = _comment_end(text, at)
            comments = end > 0
            if comments:
                yield " "
                at = end
                continue
        token = (_LITERAL.match(text, at) if text[at - 1 : at] == "@" else None) or _TOKEN.match(text, at)
        assert token is not None
        yield token[0]
        at = token.end()


def _comment_end(text: str, at: int) -> int:
    depth = 0
    for part in _COMMENT_PART.finditer(text, at):
        depth += (part[0] == "(") - (part[0] == ")")
        if depth == 0:
            return part.end()
    return -1
