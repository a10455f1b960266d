"""Single values of a form by the vendor's rules. What is wrong is refused in the vendor's words where it has some."""

import re
from datetime import UTC
from email.utils import parsedate_to_datetime

import msgspec

from mta.content.compose import Mailbox
from mta.mail.address import AddressError
from relay_http.problem import Refusal, invalid
from relay_http.values import RESERVED_HEADERS, address, mailboxes, wrong_header

DATE_CHARS = 64
_ADDRESSES_CHARS = 1_000_000  # of a thousand recipients with names
_HEADERS = RESERVED_HEADERS - {"sender", "date"}  # which the vendor's clients may give
_FLAGS = {"yes": True, "true": True, "no": False, "false": False}
_EPOCH = re.compile(r"[0-9]{1,11}(?:\.[0-9]{1,9})?")
_DURATION = re.compile(r"(?:[0-9]{1,6}(?:\.[0-9]{1,6})?[hms])+")
_STEP = re.compile(r"([0-9.]+)([hms])")
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0}


def addresses(name: str, texts: list[str]) -> tuple[Mailbox, ...]:
    """Read mailboxes, several in a text with commas between; who is given twice counts once."""
    if sum(map(len, texts)) > _ADDRESSES_CHARS:  # before they are read: a body has room for millions
        raise invalid(f"'{name}' parameter is longer than {_ADDRESSES_CHARS} characters", name)
    found: dict[str, Mailbox] = {}
    for text in texts:
        try:
            for each in mailboxes(text):
                found.setdefault(each.address.lower(), each)
        except AddressError:
            raise invalid(f"'{name}' parameter is not a valid address. please check documentation", name) from None
    return tuple(found.values())


def flag(name: str, text: str) -> bool:
    """Read yes, no, true or false in any case; nothing is no."""
    found = _FLAGS.get(text.lower(), None if text else False)
    if found is None:
        raise invalid(f"'{name}' parameter must be yes, no, true or false", name)
    return found


def date(name: str, text: str) -> float:
    """Read a time, as RFC 2822 writes it or in seconds, into absolute seconds."""
    if _EPOCH.fullmatch(text):
        return float(text)
    try:
        found = parsedate_to_datetime(text if len(text) <= DATE_CHARS else "")
        return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        raise invalid(f"'{text[:DATE_CHARS]}' is not an RFC-2822 compliant date", name) from None


def duration(name: str, text: str, least: float, most: float) -> float:
    """Read a duration as Go writes it (`1h30m`) into seconds."""
    seconds = -1.0
    if len(text) <= DATE_CHARS and _DURATION.fullmatch(text):
        seconds = sum([float(number) * _SECONDS[unit] for number, unit in _STEP.findall(text)])
    if not least <= seconds <= most:
        said = f"a duration from {least / 60:.0f}m to {most / 3600:.0f}h, such as 1h30m"
        raise invalid(f"'{name}' parameter must be {said}", name)
    return seconds


def check_header(name: str, value: str) -> None:
    """Refuse a header field that cannot be the caller's own."""
    if not name.isascii():
        raise invalid(f"Header name must be pure ASCII: {name[:76]}", f"h:{name[:76]}")
    wrong = wrong_header(name, value, _HEADERS)
    if wrong:
        raise invalid(f"'h:{name[:76]}' parameter: {wrong}", f"h:{name[:76]}")


def recipient_variables(text: str) -> dict[str, dict[str, str]]:
    """Read `{address: {name: value}}`, by addresses in lower case; values that are no text are written as JSON."""
    try:
        found = _decode(text)
    except (ValueError, RecursionError):
        raise _no_json() from None
    return {_normal(each): {name: _text(value) for name, value in own.items()} for each, own in found.items()}


def variables(text: str) -> dict[str, str]:
    """Read the JSON object of the header X-Mailgun-Variables."""
    try:
        found = _decode_one(text)
    except (ValueError, RecursionError):
        raise invalid("'h:X-Mailgun-Variables' parameter is not a valid JSON", "h:X-Mailgun-Variables") from None
    return {name: _text(value) for name, value in found.items()}


_decode = msgspec.json.Decoder(dict[str, dict[str, object]]).decode
_decode_one = msgspec.json.Decoder(dict[str, object]).decode


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else msgspec.json.encode(value).decode()


def _normal(text: str) -> str:
    """Write an address as recipients are written; what is none belongs to nobody."""
    if text.isascii():
        return text.lower()
    try:
        return address(text).lower()
    except AddressError:
        return text


def _no_json() -> Refusal:
    return invalid("'recipient-variables' parameter is not a valid JSON", "recipient-variables")
