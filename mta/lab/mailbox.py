"""Captured mail kept for reading: one .eml file a message, the oldest dropped beyond a bound.

A file is one `X-Lab-Envelope` header line (JSON: what SMTP said of the message) and then the content
exactly as it was received, so that mail readers and DKIM verifiers take it as it is. Files appear whole
(written aside, then renamed) and are not fsynced: this is a laboratory, not a mail store.
"""

import re
from collections import deque
from pathlib import Path

import msgspec

from mta.mail.envelope import Envelope

_FILE = re.compile(r"\d{8,}\.eml")
_HEADER = b"X-Lab-Envelope: "


class Captured(msgspec.Struct, frozen=True, kw_only=True):
    """One transaction that a receiving MX accepted.

    `content` is without dot-stuffing, otherwise the bytes of the wire. `tls` is version and cipher, ""
    for plain text; `peer` the client's address, `ehlo` its name; `at` absolute seconds by the laboratory's clock.
    """

    envelope: Envelope
    content: bytes
    tls: str
    peer: str
    at: float
    ehlo: str = ""


class Mailbox:
    """A directory of at most `limit` captured messages, in the order of their names."""

    def __init__(self, directory: Path, limit: int = 1000) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.limit = limit
        self._kept = deque(self.names())
        self._next = int(self._kept[-1].removesuffix(".eml")) + 1 if self._kept else 1

    def add(self, captured: Captured) -> str:
        """Keep a message; return the name of its file. OSError if it cannot be written."""
        name = f"{self._next:08d}.eml"
        envelope = msgspec.json.encode(msgspec.structs.replace(captured, content=b""))
        unfinished = self.directory / "unfinished"
        with unfinished.open("wb") as file:
            file.writelines((_HEADER, envelope, b"\r\n", captured.content))
        unfinished.replace(self.directory / name)
        self._next += 1
        self._kept.append(name)
        while len(self._kept) > self.limit:
            (self.directory / self._kept.popleft()).unlink(missing_ok=True)
        return name

    def names(self) -> list[str]:
        """Return the names of the messages there are, oldest first."""
        return sorted(
            (path.name for path in self.directory.iterdir() if _FILE.fullmatch(path.name)),
            key=lambda name: (len(name), name),
        )

    def read(self, name: str) -> Captured:
        """Return the message `name`; KeyError if there is none (any more)."""
        if not _FILE.fullmatch(name):
            raise KeyError(name)
        try:
            header, _, content = (self.directory / name).read_bytes().partition(b"\r\n")
        except FileNotFoundError:
            raise KeyError(name) from None
        captured = msgspec.json.decode(header.removeprefix(_HEADER), type=Captured)
        return msgspec.structs.replace(captured, content=content)
