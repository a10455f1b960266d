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
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from enum import StrEnum
from typing import NamedTuple

import msgspec

LINE_LIMIT = 998  # octets without CRLF, RFC 5322 2.1.1
_TEXT_LIMIT = 800  # octets of one field's text from outside
_WIDTH = 76
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
_XTEXT = re.compile(r"\+([0-9A-F]{2})")
_STATUS = re.compile(r"\d{3}[ -]([245]\.\d{1,3}\.\d{1,3})\b")
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
    `arrived_at` are the reported message's, `content` the first octets of its `size`. `retry_until` is
    for DELAYED.
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
        "The mail system that took it over does not confirm deliveries, so this may be the last you hear of it.",
    ),
}


def build_dsn(report: DsnReport, full_limit: int) -> bytes:
    """Write a DSN. The message comes back whole for a failure with RET=FULL and at most `full_limit` octets.

    The result needs BODY=8BITMIME unless `isascii()`, and SMTPUTF8 when the sender is not ASCII.
    """
    words = _WORDS[report.kind]
    parts = (_human_part(report, words), _status_part(report, words), _returned_part(report, full_limit))
    boundary = f"=_{report.id}"
    encoding = "7bit" if all(part.isascii() for part in parts) else "8bit"
    header = (
        f"From: Mail Delivery System <MAILER-DAEMON@{report.hostname}>",
        f"To: <{_line(report.sender)}>",
        f"Subject: {words.subject}",
        f"Date: {_date(report.at)}",
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
            *(delimiter + part + b"\r\n" for part in parts),
            f"--{boundary}--\r\n".encode(),
        )
    )


def _human_part(report: DsnReport, words: _Words) -> bytes:
    paragraphs = [words.happened, *(_account(each) for each in report.recipients), words.next]
    if report.retry_until and report.kind is DsnKind.DELAYED:
        paragraphs.append(f"It will be tried again until {_date(report.retry_until)}.")
    paragraphs.append(
        f"The message came in on {_date(report.arrived_at)}; its id is {_line(report.message_id)}. "
        f"This report is from the mail system at {report.hostname}."
    )
    text = "\r\n\r\n".join("\r\n".join(_wrapped(each)) for each in paragraphs) + "\r\n"
    if text.isascii():
        return _part("text/plain; charset=us-ascii", text.encode())
    return _part("text/plain; charset=utf-8", text.encode(), encoding="base64")


def _account(recipient: DsnRecipient) -> str:
    said = f"\n{_host(recipient.relay)} said:" if recipient.relay else ""
    reply = f"\n{_line(recipient.reply)}" if recipient.reply else ""
    return f"<{_line(recipient.address)}>{said}{reply}"


def _wrapped(paragraph: str) -> Iterator[str]:
    for number, line in enumerate(paragraph.split("\n")):
        indent = "    " if number else ""
        yield from textwrap.wrap(line, _WIDTH, initial_indent=indent, subsequent_indent=indent)


def _status_part(report: DsnReport, words: _Words) -> bytes:
    groups = [_message_fields(report), *(_recipient_fields(each, report, words) for each in report.recipients)]
    text = b"\r\n".join(_lines(group) for group in groups)
    # RFC 6533 3: only the form of its own may have addresses beyond ASCII
    return _part(f"message/{'' if text.isascii() else 'global-'}delivery-status", text)


def _message_fields(report: DsnReport) -> Iterator[str]:
    """RFC 3464 2.2."""
    if report.envid:
        yield f"Original-Envelope-Id: {_line(_from_xtext(report.envid))}"
    yield f"Reporting-MTA: dns; {report.hostname}"
    yield f"Arrival-Date: {_date(report.arrived_at)}"


def _recipient_fields(recipient: DsnRecipient, report: DsnReport, words: _Words) -> Iterator[str]:
    """RFC 3464 2.3."""
    kind, semicolon, original = recipient.orcpt.partition(";")
    if semicolon:
        yield f"Original-Recipient: {_line(kind)}; {_line(_from_xtext(original))}"
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
        yield "\r\n ".join(textwrap.wrap(f"Diagnostic-Code: {speaker}; {text}", _WIDTH))
    if recipient.last_attempt_at:
        yield f"Last-Attempt-Date: {_date(recipient.last_attempt_at)}"
    if report.retry_until and report.kind is DsnKind.DELAYED:
        yield f"Will-Retry-Until: {_date(report.retry_until)}"


def _status(reply: str, kind: DsnKind, words: _Words) -> str:
    """Take the status of the reply if it says what the action says (RFC 3464 2.3.4)."""
    found = _STATUS.match(reply)
    if kind is not DsnKind.EXPIRED and found is not None and found[1][0] == words.status[0]:
        return found[1]
    return words.status


def _returned_part(report: DsnReport, full_limit: int) -> bytes:
    content = report.content
    end = content.find(b"\r\n\r\n")
    header = content[: end + 2] if end >= 0 else content
    beyond_ascii = not header.isascii() and _is_utf8(header)
    # RFC 3461 4.3: only a failure returns the message
    whole = report.ret == "FULL" and words_fail(report.kind) and len(content) == report.size <= full_limit
    if whole and _fits(content):
        return _part("message/global" if beyond_ascii else "message/rfc822", _ended(content))
    if len(header) > full_limit:
        header = header[: header.rfind(b"\r\n", 0, full_limit) + 2]
    if not _fits(header):
        return _part("text/rfc822-headers", header, encoding="base64")
    return _part("message/global-headers" if beyond_ascii else "text/rfc822-headers", _ended(header))
