"""MAIL and RCPT with their parameters, by RFC 5321 4.1.1.2, RFC 2852, RFC 3461, RFC 6152, RFC 6531 and RFC 8689; pure.

aiosmtpd's own reading folds parameters to upper case, which breaks the xtext of ENVID and ORCPT, and
refuses those of DSN.
"""

import re
from collections.abc import Set as AbstractSet
from enum import StrEnum
from typing import NamedTuple

from mta.mail.address import AddressError, parse_mailbox
from mta.mail.envelope import Envelope, Notify, Recipient

_PATH = re.compile(r'<((?:"(?:[^"\\]|\\.)*"|[^<>"\s])*)>(?: +(.*))?')
_BY = re.compile(r"[+-]?[0-9]{1,9};[NR]T?")
_NOTIFY = {"NEVER": Notify.NEVER, "SUCCESS": Notify.SUCCESS, "FAILURE": Notify.FAILURE, "DELAY": Notify.DELAY}


class Extension(StrEnum):
    """SMTP extensions that a receiving MX may lack. SIZE is always there, STARTTLS is no matter of parameters.

    REQUIRETLS is there within TLS only (RFC 8689 2).
    """

    PIPELINING = "PIPELINING"
    EIGHT_BIT = "8BITMIME"
    SMTPUTF8 = "SMTPUTF8"
    DSN = "DSN"
    DELIVERBY = "DELIVERBY"
    REQUIRETLS = "REQUIRETLS"


class Refused(Exception):
    """The command changes nothing, and is answered with this reply."""


class _Path(NamedTuple):
    address: str
    parameters: dict[str, str]


def read_mail(arg: str | None, offered: AbstractSet[Extension], size_limit: int) -> Envelope:
    """Read what follows MAIL as an envelope without recipients; Refused if it cannot be taken."""
    address, given = _path(arg, "FROM:", utf8=Extension.SMTPUTF8 in offered)
    size = given.pop("SIZE", "0")
    if not (size.isascii() and size.isdigit()):
        raise Refused("501 5.5.4 SIZE is a number")
    if int(size) > size_limit:
        raise Refused("552 5.3.4 message too big")
    body = given.pop("BODY", "7BIT").upper() if Extension.EIGHT_BIT in offered else "7BIT"
    smtputf8 = Extension.SMTPUTF8 in offered and given.pop("SMTPUTF8", None) is not None
    ret = given.pop("RET", "").upper() if Extension.DSN in offered else ""
    envid = given.pop("ENVID", "") if Extension.DSN in offered else ""
    by = given.pop("BY", "0;N").upper() if Extension.DELIVERBY in offered else "0;N"
    requiretls = Extension.REQUIRETLS in offered and given.pop("REQUIRETLS", None) is not None
    _nothing_left(given)
    if body not in ("7BIT", "8BITMIME") or ret not in ("", "FULL", "HDRS") or not _BY.fullmatch(by):
        raise Refused("501 5.5.4 malformed parameter")
    if not address.isascii() and not smtputf8:
        raise Refused("553 5.6.7 the address needs SMTPUTF8")
    return Envelope(
        sender=address,
        recipients=(),
        eight_bit=body == "8BITMIME",
        smtputf8=smtputf8,
        ret=ret,
        envid=envid,
        tls_required="yes" if requiretls else "",
    )


def read_rcpt(arg: str | None, offered: AbstractSet[Extension], *, smtputf8: bool) -> Recipient:
    """Read what follows RCPT, in a transaction with or without SMTPUTF8; Refused if it cannot be taken."""
    address, given = _path(arg, "TO:", utf8=smtputf8)
    words = given.pop("NOTIFY", "").upper() if Extension.DSN in offered else ""
    orcpt = given.pop("ORCPT", "") if Extension.DSN in offered else ""
    _nothing_left(given)
    if not address:
        raise Refused("501 5.1.3 no recipient")
    notify = Notify.UNSET
    for word in words.split(",") if words else ():
        if word not in _NOTIFY:
            raise Refused("501 5.5.4 malformed NOTIFY")
        notify |= _NOTIFY[word]
    return Recipient(address, int(notify), orcpt)


def _path(arg: str | None, keyword: str, *, utf8: bool) -> _Path:
    text = arg or ""
    if not text.isprintable():  # control characters, and octets that are not UTF-8
        raise Refused("501 5.5.2 malformed text")
    found = _PATH.fullmatch(text[len(keyword) :].strip()) if text[: len(keyword)].upper() == keyword else None
    if found is None:
        raise Refused(f"501 5.5.4 expected {keyword}<address>")
    address, words = found.groups("")
    try:
        if address:
            parse_mailbox(address, utf8=utf8)
    except AddressError as error:
        raise Refused(f"553 5.1.3 {error}") from None
    parameters: dict[str, str] = {}
    for word in words.split():
        key, _, value = word.partition("=")
        parameters[key.upper()] = value
    return _Path(address, parameters)


def _nothing_left(given: dict[str, str]) -> None:
    if given:
        raise Refused(f"555 5.5.4 {next(iter(given))} is not supported")
