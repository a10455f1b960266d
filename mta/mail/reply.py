"""SMTP replies: the only place with numeric codes (RFC 5321 4.2, RFC 3463)."""

import re
from typing import NamedTuple

_ENHANCED = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?: |$)")
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")
TEXT_LIMIT = 480  # RFC 5321 4.5.3.1.5: a reply line is at most 512 octets


class Reply(NamedTuple):
    """A reply: code, enhanced status ("" where there is none) and text (lines joined by LF)."""

    code: int
    enhanced: str
    text: str

    @classmethod
    def parse(cls, code: int, text: str) -> "Reply":
        """Read a received reply: the enhanced status is taken off each line of the text."""
        found = _ENHANCED.match(text)
        if found is None or found[1][0] != str(code)[0]:
            return cls(code, "", text)
        status = found[1]
        lines = [line.removeprefix(status).lstrip(" ") for line in text.split("\n")]
        return cls(code, status, "\n".join(lines))

    @property
    def positive(self) -> bool:
        """Whether the code is 2xx."""
        return 200 <= self.code < 300

    @property
    def permanent(self) -> bool:
        """Whether the code is 5xx."""
        return 500 <= self.code < 600

    def wire(self) -> bytes:
        """Write the reply as it is sent: every line with code and enhanced status, CRLF at the end."""
        status = f"{self.enhanced} " if self.enhanced else ""
        if self.text.isascii() and self.text.isprintable() and len(self.text) <= TEXT_LIMIT:
            return f"{self.code} {status}{self.text}\r\n".encode("ascii")
        lines = [_UNPRINTABLE.sub("?", line)[:TEXT_LIMIT] for line in self.text.split("\n")]
        last = len(lines) - 1
        return "".join(
            f"{self.code}{' ' if number == last else '-'}{status}{line}\r\n" for number, line in enumerate(lines)
        ).encode("ascii")

    def __str__(self) -> str:
        """One line for logs, events and DSNs."""
        return " ".join(part for part in (str(self.code), self.enhanced, self.text.replace("\n", " ")) if part)
