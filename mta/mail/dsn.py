"""Delivery status notifications as bytes (RFC 3464, RFC 6522; RFC 6533 for addresses beyond ASCII).

Three parts: what happened in words for the sender, the same for programs, and the message or its header.
What comes from outside (replies, addresses, parameters, the message) can break no line and no part: text
fields lose control characters and are bounded, every line is at most 998 octets and ends with CRLF, and
the boundary is made of an id that is younger than all of it. A DSN goes out with a null sender, and
never answers one: that is the caller's to see to.
"""

import re
import textwrap
from binascii import b2a_base64
from collections.abc import Iterable, Iterator
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

import msgspec

from mta.mail.headers import format_date, header_length

LINE_LIMIT = 998  # octets without CRLF, RFC 5322 2.1.1
_TEXT_LIMIT = 800  # octets of one field's text from outside
_WIDTH = 76
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
_XTEXT = re.compile(r"(?:\+[0-9A-F]{2})+")
_STATUS = re.compile(r"\d{3}[ -]([245]\.\d{1,3}\.\d{1,3})\b")
_EXPIRIES = ("4.4.7", "5.4.7")
_BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n|\0")


class DsnKind(StrEnum):
    """What is told. EXPIRED is a failure after the last attempt; RELAYED ends our part of a wanted success."""

    FAILED = "failed"
    EXPIRED = "expired"
    DELAYED = "delayed"
    RELAYED = "relayed"


class DsnRecipient(msgspec.Struct, frozen=True, kw_only=True):
    """One recipient told of: the address of RCPT TO and ORCPT as it came.

    `reply` is the last one as text ("550 5.1.1 no such user"). `relay` is `host[address]:port` of who
    spoke it, "" when the words are our own.
    """

    address: str
    orcpt: str = ""
    reply: str = ""
    relay: str = ""
    last_attempt_at: float = 0.0


class DsnReport(msgspec.Struct, frozen=True, kw_only=True):
    """All that a DSN says. Times are absolute seconds; `id` is the DSN's own message id.

    `sender` is the MAIL FROM told, `envid` and `ret` its parameters as they came. `message_id` and
    `arrived_at` are the reported message's, `content` the first octets of its `size`. `retry_until` is 0
    unless it will be tried again (DELAYED), `deliver_by` unless that was asked for (RFC 2852), `hold` is how a
    later release was asked for (RFC 4865).
    """

    kind: DsnKind
    id: str
    hostname: str
    at: float
    sender: str
    recipients: tuple[DsnRecipient, ...]
    message_id: str
    arrived_at: float
    content: bytes
    size: int
    envid: str = ""
    ret: str = ""
    retry_until: float = 0.0
    deliver_by: float = 0.0
    hold: str = ""


class _Words(NamedTuple):
    """How a kind is put: action, default status, subject, what happened, what happens next."""

    action: str
    status: str
    subject: str
    happened: str
    next: str


_WORDS = {
    DsnKind.FAILED: _Words(
        "failed",
        "5.0.0",
        "Your message could not be delivered",
        "Your message could not be delivered to the following recipients:",
        "It will not be tried again for them. Check the address and what the other side said before you send it again.",
    ),
    DsnKind.EXPIRED: _Words(
        "failed",
        "4.4.7",  # RFC 3463 3.5: delivery time expired
        "Your message could not be delivered in time",
        "Your message could not be delivered in time to the following recipients:",
        "It was tried several times and will not be tried again. You can send it again later.",
    ),
    DsnKind.DELAYED: _Words(
        "delayed",
        "4.0.0",
        "Your message is delayed",
        "Your message has not been delivered yet to the following recipients:",
        "You do not need to send it again.",
    ),
    DsnKind.RELAYED: _Words(
        "relayed",
        "2.0.0",
        "Your message was passed on",
        "Your message was passed on for the following recipients:",
        "The mail system that took it over may not confirm its delivery, so this may be the last you hear of it.",
    ),
}


def build_dsn(report: DsnReport, limit: int) -> bytes:
    """Write a DSN that returns at most `limit` octets of the message: whole if it fits, failed and RET=FULL.

    The result needs BODY=8BITMIME unless it `isascii()`, and SMTPUTF8 when the sender is not ASCII.
    """
    words = _WORDS[report.kind]
    parts = (_human_part(report, words), _status_part(report, words), _returned_part(report, limit))
    boundary = f"=_{report.id}"
    encoding = "7bit" if all(part.isascii() for part in parts) else "8bit"
    header = (
        f"From: Mail Delivery System <MAILER-DAEMON@{report.hostname}>",
        f"To: <{_line(report.sender)}>",
        f"Subject: {words.subject}",
        f"Date: {format_date(report.at)}",
        f"Message-ID: <{report.id}@{report.hostname}>",
        "Auto-Submitted: auto-replied",  # RFC 3834 5
        "MIME-Version: 1.0",
        f'Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary="{boundary}"',
        f"Content-Transfer-Encoding: {encoding}",
    )
    delimiter = f"--{boundary}\r\n".encode()
    return b"".join(
        (
            _lines(header) + b"\r\n",
            *[delimiter + part + b"\r\n" for part in parts],
            f"--{boundary}--\r\n".encode(),
        )
    )


def _human_part(report: DsnReport, words: _Words) -> bytes:
    paragraphs = [words.happened, *[_account(each) for each in report.recipients], words.next]
    if report.retry_until:
        paragraphs.append(f"It will be tried again until {format_date(report.retry_until)}.")
    paragraphs.append(
        f"This report is from the mail system at {report.hostname}.\n"
        f"Message id: {_line(report.message_id)}\n"
        f"Came in: {format_date(report.arrived_at)}"
    )
    text = "\r\n\r\n".join(["\r\n".join(_wrapped(each)) for each in paragraphs]) + "\r\n"
    if text.isascii():
        return _part("text/plain; charset=us-ascii", text.encode())
    return _part("text/plain; charset=utf-8", text.encode(), encoding="base64")


def _account(recipient: DsnRecipient) -> str:
    said = f"\n{_host(recipient.relay)} said:" if recipient.relay else ""
    reply = f"\n{_line(recipient.reply)}" if recipient.reply else ""
    return f"<{_line(recipient.address)}>{said}{reply}"


def _wrapped(paragraph: str) -> list[str]:
    lines: list[str] = []
    for number, line in enumerate(paragraph.split("\n")):
        lines += _folded(line, "    " if number else "")
    return lines


@lru_cache(maxsize=128)  # PERF: most are the same in every report; folding them was 60 % of what it took (cProfile)
def _folded(line: str, indent: str) -> tuple[str, ...]:
    return tuple(
        textwrap.wrap(line, _WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
        if len(indent) + len(line) > _WIDTH
        else [indent + line.rstrip(" ")]
        if line.strip(" ")
        else []
    )


def _status_part(report: DsnReport, words: _Words) -> bytes:
    groups = [_message_fields(report), *[_recipient_fields(each, report, words) for each in report.recipients]]
    text = b"\r\n".join([_lines(group) for group in groups])
    # RFC 6533 3: only the form of its own may have addresses beyond ASCII
    return _part(f"message/{'' if text.isascii() else 'global-'}delivery-status", text)


def _message_fields(report: DsnReport) -> Iterator[str]:
    """RFC 3464 2.2."""
    if report.envid:
        yield f"Original-Envelope-Id: {_line(_from_xtext(report.envid))}"
    yield f"Reporting-MTA: dns; {report.hostname}"
    yield f"Arrival-Date: {format_date(report.arrived_at)}"
    if report.deliver_by:
        yield f"Deliver-By-Date: {format_date(report.deliver_by)}"  # RFC 2852 5
    if report.hold:
        yield f"Future-Release-Request: {_line(report.hold)}"  # RFC 4865 5.1.2


def _recipient_fields(recipient: DsnRecipient, report: DsnReport, words: _Words) -> Iterator[str]:
    """RFC 3464 2.3."""
    kind, semicolon, xtext = recipient.orcpt.partition(";")
    if semicolon:
        original = _line(_from_xtext(xtext))
        yield f"Original-Recipient: {_line(kind) if original.isascii() else 'utf-8'}; {original}"
    address = _line(recipient.address)
    yield f"Final-Recipient: {'rfc822' if address.isascii() else 'utf-8'}; {address}"
    yield f"Action: {words.action}"
    yield f"Status: {_status(recipient.reply, report.kind, words)}"
    if recipient.relay:
        yield f"Remote-MTA: dns; {_host(recipient.relay)}"
    if recipient.reply:
        # our own words are no SMTP reply, and have a type of their own
        speaker = "smtp" if recipient.relay else "x-fairlead"
        text = _line(recipient.reply).encode("ascii", "replace").decode("ascii")
        field = f"Diagnostic-Code: {speaker}; {text}"
        yield field.rstrip(" ") if len(field) <= _WIDTH else "\r\n ".join(textwrap.wrap(field, _WIDTH))
    if recipient.last_attempt_at:
        yield f"Last-Attempt-Date: {format_date(recipient.last_attempt_at)}"
    if report.retry_until:
        yield f"Will-Retry-Until: {format_date(report.retry_until)}"


def _status(reply: str, kind: DsnKind, words: _Words) -> str:
    """Take the status of the reply if it says what the action says (RFC 3464 2.3.4)."""
    found = _STATUS.match(reply)
    if found is None:
        return words.status
    fits = found[1] in _EXPIRIES if kind is DsnKind.EXPIRED else found[1][0] == words.status[0]
    return found[1] if fits else words.status


def _returned_part(report: DsnReport, limit: int) -> bytes:
    content, header = report.content, _header(report, limit)
    beyond_ascii = not header.isascii() and _is_utf8(header)
    # RFC 3461 4.3: only a failure returns the message
    failed = report.kind in (DsnKind.FAILED, DsnKind.EXPIRED)
    if failed and report.ret == "FULL" and len(content) == report.size <= limit and _passes(content):
        return _part("message/global" if beyond_ascii else "message/rfc822", content)
    if not _passes(header):
        return _part("text/rfc822-headers", header, encoding="base64")
    return _part("message/global-headers" if beyond_ascii else "text/rfc822-headers", header)


def _header(report: DsnReport, limit: int) -> bytes:
    """Return the message's header, or as many whole lines of it as are known and within `limit`."""
    content, length = report.content, header_length(report.content)
    if length <= limit and (length < len(content) or len(content) == report.size):
        return content[:length]
    lines, line_end, _ = content[: min(length, limit)].rpartition(b"\r\n")
    return lines + line_end


def _part(kind: str, body: bytes, *, encoding: str = "") -> bytes:
    if encoding == "base64":
        body = _base64(body)
    encoding = encoding or ("7bit" if body.isascii() else "8bit")
    ended = b"" if body.endswith(b"\r\n") else b"\r\n"
    return _lines((f"Content-Type: {kind}", f"Content-Transfer-Encoding: {encoding}")) + b"\r\n" + body + ended


def _base64(data: bytes) -> bytes:
    return b"".join([b2a_base64(data[at : at + 57], newline=False) + b"\r\n" for at in range(0, len(data), 57)])


def _passes(data: bytes) -> bool:
    """Tell whether data can stand in a message as it is (RFC 2045 2.8)."""
    return _BARE.search(data) is None and max(map(len, data.split(b"\r\n"))) <= LINE_LIMIT


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _line(text: str) -> str:
    """Make text from outside fit to stand in a line."""
    if len(text) <= _TEXT_LIMIT and text.isascii() and text.isprintable():
        return text
    return _CONTROL.sub("?", text).encode()[:_TEXT_LIMIT].decode("utf-8", "ignore")


def _from_xtext(text: str) -> str:
    """Decode xtext (RFC 3461 4), where it hides UTF-8 too, as Postfix sends it; what is malformed stays as it is."""

    def decoded(found: re.Match[str]) -> str:
        try:
            return bytes.fromhex(found[0].replace("+", "")).decode("utf-8")
        except UnicodeDecodeError:
            return found[0]

    return _XTEXT.sub(decoded, text)


def _host(relay: str) -> str:
    """Take the host of `host[address]:port`, the address as a literal if there is no name."""
    host, bracket, rest = _line(relay).partition("[")
    return host or bracket + rest.partition("]")[0] + "]"


def _lines(lines: Iterable[str]) -> bytes:
    return "\r\n".join([*lines, ""]).encode()
