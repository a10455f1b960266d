"""Single values of requests, by rule: addresses, names, header texts, media types, files.

What is wrong is a ValueError whose text is fit for an answer. CR, LF and NUL reach no header and no envelope.
"""

import re
from binascii import a2b_base64
from collections.abc import Iterator
from functools import lru_cache

from mta.content.compose import Mailbox
from mta.mail.address import AddressError, a_label, parse_mailbox

ADDRESS_CHARS = 320
NAME_CHARS = 500
VALUE_CHARS = 255  # of a media type or a Message-ID
RESERVED_HEADERS = frozenset(
    (
        *("x-sg-id", "x-sg-eid", "received", "dkim-signature", "content-type", "content-transfer-encoding"),
        *("to", "from", "subject", "reply-to", "cc", "bcc", "mime-version", "return-path", "sender", "date"),
        *("arc-seal", "arc-message-signature", "arc-authentication-results", "authentication-results", "resent-from"),
    )
)
BREAKS = "It must not contain line breaks or NUL."
_BREAK = re.compile(r"[\r\n\0]")
# Controls, and characters that turn the reading direction around or show nothing: a name that is not what it looks like
_DECEIVING = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060\u2066-\u2069\ufeff]")
_HEADER_NAME = re.compile(r"[!-9;-~]{1,76}")
_MESSAGE_ID = re.compile(r"<[!-;=?-~]+@[!-;=?-~]+>")
_CONTENT_ID = re.compile(r"[!-;=?-~]{1,255}")
_WORD = r"[A-Za-z0-9!#$%&'*+\-.^_`{|}~]+"  # token of RFC 2045 5.1
_PARAMETER = re.compile(rf'\s*;\s*({_WORD})=({_WORD}|"[ !#-\[\]-~]*")', re.ASCII)
_MEDIA_TYPE = re.compile(rf"({_WORD}/{_WORD})((?:{_PARAMETER.pattern})*)\s*;?\s*", re.ASCII)
_LISTED = re.compile(r'"(?:[^"\\]|\\.)*"|<[^<>]*>|[^",<>]+|,', re.DOTALL)
_NAME = re.compile(r'"(?:[^"\\]|\\.)*"|[^"<>]*', re.DOTALL)
_QUOTED = re.compile(r"\\(.)", re.DOTALL)


def address(text: str) -> str:
    """Return a mailbox with its domain in ASCII; AddressError if it is none (RFC 5321 4.1.2, RFC 6531 3.3)."""
    if len(text) > ADDRESS_CHARS:
        raise AddressError(f"the address is longer than {ADDRESS_CHARS} characters")
    parse_mailbox(text, utf8=True)
    if text.isascii():
        return text
    local, _, domain = text.rpartition("@")
    return parse_mailbox(f"{local}@{a_label(domain)}", utf8=True)  # again: A-labels are longer


def wrong_name(name: str) -> str:
    """Say what is wrong with a name to show, "" if nothing is."""
    if not name or (name.isascii() and name.isprintable() and len(name) <= NAME_CHARS):
        return ""
    if _BREAK.search(name):
        return BREAKS
    if len(name) > NAME_CHARS:
        return f"A name is at most {NAME_CHARS} characters."
    return "A name must not contain control characters or marks of direction." if _DECEIVING.search(name) else ""


def mailbox(text: str) -> Mailbox:
    """Read `a@b`, `<a@b>`, `Name <a@b>` or `"Name" <a@b>`, names in any characters; AddressError."""
    text = text.strip()
    before, angle, inside = text.removesuffix(">").rpartition("<")
    name = before.strip()
    if not angle or not text.endswith(">") or ">" in inside or not _NAME.fullmatch(name):
        return Mailbox(address(text))
    if name.startswith('"'):
        name = _QUOTED.sub(r"\1", name[1:-1])
    wrong = wrong_name(name)
    if wrong:
        raise AddressError(wrong)
    return Mailbox(address(inside.strip()), name)


def mailboxes(text: str) -> list[Mailbox]:
    """Read mailboxes with commas between them; AddressError, whose text ends with the one that is wrong."""
    found: list[Mailbox] = []
    for each in _listed(text):
        if each.strip():
            try:
                found.append(mailbox(each))
            except AddressError as error:
                raise AddressError(f"{error}: {each.strip()[:ADDRESS_CHARS]}") from None
    if not found:
        raise _no_address(text)
    return found


def _listed(text: str) -> Iterator[str]:
    """Cut at the commas that are in no name and no address, in one pass whatever stands there."""
    begun = at = 0
    while at < len(text):
        token = _LISTED.match(text, at)
        if token is None:
            raise _no_address(text)
        if token[0] == ",":
            yield text[begun:at]
            begun = token.end()
        at = token.end()
    yield text[begun:]


def _no_address(text: str) -> AddressError:
    return AddressError(f"not an address: {text.strip()[:ADDRESS_CHARS]}")


def breaks(text: str) -> bool:
    """Tell whether a text would end a header or a command."""
    return _BREAK.search(text) is not None


def wrong_header(name: str, value: str, reserved: frozenset[str] = RESERVED_HEADERS) -> str:
    """Say what is wrong with a caller's own header field, "" if nothing is."""
    if not _HEADER_NAME.fullmatch(name):
        return "A header name is 1 to 76 printable ASCII characters without spaces and colons."
    if name.lower() in reserved:
        return "This header is reserved: it is made from other fields of the request."
    if _BREAK.search(value):
        return BREAKS
    if name.lower() == "message-id" and not (_MESSAGE_ID.fullmatch(value) and len(value) <= VALUE_CHARS):
        return f"A Message-ID is <left@right>, at most {VALUE_CHARS} characters."
    return ""


@lru_cache(maxsize=256)
def media_type(text: str, but: str = "") -> str:
    """Return a media type with its parameters except `but`, which is ours to write; ValueError if it is none."""
    found = _MEDIA_TYPE.fullmatch(text) if len(text) <= VALUE_CHARS else None
    if found is None:
        raise ValueError("The type must be a media type such as text/html.")
    parameters = [f"; {name}={value}" for name, value in _PARAMETER.findall(found[2]) if name.lower() != but]
    return found[1].lower() + "".join(parameters)


def is_content_id(text: str) -> bool:
    """Tell whether a text can be a Content-ID, without angle brackets."""
    return _CONTENT_ID.fullmatch(text) is not None


def is_base64(text: str) -> bool:
    """Tell whether a text is base64 of the plain alphabet, without anything between (RFC 4648 4)."""
    try:
        a2b_base64(text, strict_mode=True)
    except ValueError:
        return False
    return True
