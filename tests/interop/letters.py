"""Letters whose bytes are hard to keep, and what a relay may have added to them."""

import uuid
from typing import NamedTuple

SENDER = "sender@news.test"


class Letter(NamedTuple):
    """One message, found again by its token."""

    name: str
    sender: str
    local_part: str
    content: bytes
    token: str

    @property
    def options(self) -> list[str]:
        """What MAIL FROM has to say."""
        smtputf8 = not (self.sender + self.local_part).isascii() or not self.content.partition(b"\r\n\r\n")[0].isascii()
        return ["BODY=8BITMIME"] + ["SMTPUTF8"] * smtputf8


_LONG = b"0123456789" * 1000
_BODIES = {
    "plain": b"Hello,\r\n\r\nall is well.\r\n",
    "eight bits": bytes(each for each in range(1, 256) if each not in b"\r\n") + b"\r\nGr\xc3\xbc\xdfe\r\n",
    "dots": b".\r\n..\r\n.leading\r\n..leading\r\n \r\n. \r\n.\r\n\r\n.",
    "lines of 998 octets": (_LONG[:998] + b"\r\n") * 3 + b"." * 998 + b"\r\n",
    "lines of 10,000 octets": (_LONG + b"\r\n") * 3 + b"." * 10_000 + b"\r\n",
    "empty body": b"",
    "blank lines": b"\r\n\r\n \t\r\ntext \t\r\n\r\n\r\n",
    "a megabyte": b"".join(b"%08d " % number + _LONG[: number % 990] + b"\r\n" for number in range(1975)),
}
NAMES = [*_BODIES, "SMTPUTF8", "odd header"]


def letter(name: str) -> Letter:
    """Write a letter that has not been sent before."""
    token = uuid.uuid4().hex
    sender, local_part, subject, further = SENDER, f"to-{token}", "Hello", b""
    if name == "SMTPUTF8":
        sender, local_part, subject = "δοκιμή@news.test", f"почта-{token}", "Grüße, 世界"
    if name == "odd header":
        further = b"X-Odd:\tfolded \r\n\t  with  blanks \r\n and a tab\t\r\nx-EMPTY:\r\nReceived: not ours\r\n"
    header = (
        f"From: <{sender}>\r\nTo: <{local_part}@example.test>\r\nSubject: {subject}\r\n"
        f"Date: Sat, 21 Nov 2026 10:00:00 +0000\r\nMessage-ID: <{token}@news.test>\r\n"
        "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n"
    ).encode()
    body = _BODIES.get(name, _BODIES["plain"])
    content = header + further + b"\r\n" + body
    if not content.endswith(b"\r\n"):
        content += b"\r\n"  # SMTP knows no other end
    return Letter(name, sender, local_part, content, token)


def added_fields(content: bytes, original: bytes) -> list[tuple[str, str]]:
    """Return name and value of the fields before `original`, topmost first; AssertionError if its bytes changed."""
    assert content.endswith(original), f"{len(content)} octets do not end with the {len(original)} that were sent"
    lines = content[: -len(original)].decode("utf-8").split("\r\n")
    assert lines.pop() == ""
    fields: list[tuple[str, str]] = []
    for line in lines:
        if line.startswith((" ", "\t")):
            name, value = fields.pop()
            fields.append((name, value + line))
        else:
            name, _, value = line.partition(":")
            fields.append((name, value))
    return fields
