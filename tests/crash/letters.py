"""Letters that say by themselves whether they are whole: everything about one follows from its tag.

A tag names one attempt to hand a message over and is used once, so each delivery, queue entry and event can
be led back to what its client was told. Addresses carry it: `TAG-N@dK.test` receives, `TAG-s@from.test` sends.
Letters that are handed over in one request are `REQUEST+N`, and have their text in common.
"""

import email
import json
import random
from email import policy
from enum import StrEnum
from zlib import crc32

TAG_FIELD = "X-Crash-Tag"
SENDER_DOMAIN = "from.test"
_DOMAINS = 4
_LINE = 72


class Fate(StrEnum):
    """What the sink does with a recipient. All but REJECT let it through in the end."""

    TAKE = "take"
    SLOW = "slow"  # takes it, but lets the client wait for the reply to the final dot
    TEMPFAIL = "tempfail"  # 451 once, then takes it
    REJECT = "reject"  # 550
    DROP_AT_RCPT = "drop-at-rcpt"  # hangs up once, then takes it
    DROP_AT_DOT = "drop-at-dot"  # hangs up once when it has everything, without having taken it


_FATES = (
    (60, Fate.TAKE),
    (68, Fate.SLOW),
    (80, Fate.TEMPFAIL),
    (90, Fate.REJECT),
    (95, Fate.DROP_AT_RCPT),
    (100, Fate.DROP_AT_DOT),
)


def by_http(tag: str) -> bool:
    """Whether a letter goes in by HTTP, which tells failures by events and not by DSN."""
    return tag.startswith("h")


def recipients_of(tag: str) -> tuple[str, ...]:
    """Whom a letter is for: one to four recipients, of four the first and the last at one domain."""
    draw = _draw("to", tag)
    return tuple(f"{tag}-{number}@d{(draw + number % 3) % _DOMAINS}.test" for number in range(1 + draw % 4))


def tags_of(request: str) -> tuple[str, ...]:
    """The letters of a request: mostly one, of its own name."""
    return tuple(f"{request}+{number}" for number in range(3)) if _draw("request", request) % 6 == 0 else (request,)


def request_of(tag: str) -> str:
    """The request that a letter is of."""
    return tag.partition("+")[0]


def sender_of(tag: str) -> str:
    """Who gets a letter's DSNs."""
    return f"{tag}-s@{SENDER_DOMAIN}"


def tag_of(address: str) -> str:
    """The tag of a letter's recipient or sender."""
    return address.rpartition("@")[0].rpartition("-")[0]


def is_sender(address: str) -> bool:
    """Whether mail for this address is a DSN."""
    return address.endswith(f"@{SENDER_DOMAIN}")


def fate_of(address: str) -> Fate:
    """What the sink does with a recipient; nobody bounces a DSN."""
    draw = _draw("fate", address) % 100
    fate = next(fate for below, fate in _FATES if draw < below)
    return Fate.TAKE if fate is Fate.REJECT and is_sender(address) else fate


def text_of(tag: str) -> str:
    """The words of a letter: mostly 2 KB, some of several pages, a few of those committed as they arrive."""
    request = request_of(tag)
    draw = _draw("size", request) % 100
    size = 2_000 if draw < 90 else 30_000 if draw < 98 else 300_000
    words = random.Random(request).randbytes(size // 2).hex()
    return "\n".join(words[start : start + _LINE] for start in range(0, len(words), _LINE))


def letter(tag: str) -> bytes:
    """A letter as it is handed over by SMTP."""
    return b"".join(parts(tag))


def parts(tag: str) -> tuple[bytes, bytes]:
    """A letter's head, and the text that the letters of its request have in common."""
    head = f"{TAG_FIELD}: {tag}\nFrom: <{sender_of(tag)}>\nTo: undisclosed-recipients:;\nSubject: {tag}\n"
    head += f"Message-ID: <{tag}@{SENDER_DOMAIN}>\nDate: Fri, 20 Nov 2026 12:00:00 +0000\n\n"
    return _lines(head), _lines(text_of(tag) + "\n")


def request(tag: str) -> bytes:
    """A letter as it is handed over by HTTP."""
    body = {
        "personalizations": [{"to": [{"email": each} for each in recipients_of(tag)]}],
        "from": {"email": sender_of(tag)},
        "subject": tag,
        "headers": {TAG_FIELD: tag},
        "content": [{"type": "text/plain", "value": text_of(tag)}],
    }
    return json.dumps(body).encode("ascii")


def is_whole(content: bytes, tag: str) -> bool:
    """Whether the content of a letter is what was handed over, below what the relay has put on top.

    By SMTP all octets count. By HTTP there were only words, which the relay wrote as MIME.
    """
    if not by_http(tag):
        return content.endswith(letter(tag))
    message = email.message_from_bytes(content, policy=policy.SMTP)
    return bool(message[TAG_FIELD] == tag and message.get_content().split() == text_of(tag).split())


def _lines(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode("ascii")


def _draw(what: str, text: str) -> int:
    return crc32(f"{what} {text}".encode())
