"""MAIL and RCPT: paths and ESMTP parameters, by RFC (5321 4.1.2; 1870, 2852, 3461, 4865, 4954, 6152, 6531, 6710, 8689).

Values are kept as they came: ENVID and ORCPT are xtext, whose case and escapes belong to the client.
A wrong command is answered by the reply that says what is wrong with it.
"""

import re
from functools import lru_cache

import msgspec

from mta.ingress import replies
from mta.mail.address import DOMAIN_LIMIT, LOCAL_PART_LIMIT, MAILBOX, AddressError, parse_mailbox
from mta.mail.envelope import Notify, Recipient
from mta.mail.reply import Reply

_PATH = r'<([^<>"\s]*|(?:"(?:[^"\\]|\\.)*"|[^<>"\s])*)>(?: +(.*))?'
_FROM = re.compile(rf"(?i:FROM): ?{_PATH}")
_TO = re.compile(rf"(?i:TO): ?{_PATH}")
_ORDINARY_TO = re.compile(rf"(?i:TO):<({MAILBOX})>")
_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9\-]*)(?:=([^=\s]+))?")
_SIZE = re.compile(r"[0-9]{1,20}")
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+(?:[2-6][0-9A-F]|7[0-9A-E]))+")  # decodes to printable ASCII only
_ORCPT = re.compile(rf"(?!(?i:utf-8);)[A-Za-z0-9!#$%&'*/?^_`{{|}}~.\-]+;{_XTEXT.pattern}")
# Postfix sends the UTF-8 of an address in this form, where RFC 6533 3 has one of its own for it.
_ORCPT_OCTETS = re.compile(_ORCPT.pattern.replace("7[0-9A-E]", "7[0-9A-E]|[89A-F][0-9A-F]"))
_ORCPT_UTF8 = re.compile(r"(?i:utf-8);(?:[!-*,-<>-~\u00a0-\U0010ffff]|\\x\{[0-9A-F]{2,6}\})+")  # RFC 6533 3
_ENVID_LIMIT = 100  # characters, RFC 3461 4.4
_ORCPT_LIMIT = 500  # characters, RFC 3461 4.2
_BY = re.compile(r"([+-]?[0-9]{1,9});([NRnr][Tt]?)")  # RFC 2852 4
_HOLD_FOR = re.compile(r"[1-9][0-9]{0,8}")  # RFC 4865 3
_HOLD_UNTIL = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?Z")  # of RFC 3339 5.6
_PRIORITY = re.compile(r"-?[1-9]|0")  # RFC 6710 7
_NOTIFY = {"SUCCESS": Notify.SUCCESS, "FAILURE": Notify.FAILURE, "DELAY": Notify.DELAY}

BAD_MAIL = Reply(501, "5.5.4", "Syntax: MAIL FROM:<address> [parameters]")
BAD_RCPT = Reply(501, "5.5.4", "Syntax: RCPT TO:<address> [parameters]")
_MAIL_PARAMETERS = frozenset({"SIZE", "BODY", "SMTPUTF8", "RET", "ENVID", "AUTH", "BY", "MT-PRIORITY"})
_HOLD_PARAMETERS = frozenset({"HOLDFOR", "HOLDUNTIL"})
_TLS_PARAMETERS = frozenset({"REQUIRETLS"})
_RCPT_PARAMETERS = frozenset({"NOTIFY", "ORCPT"})


class MailFrom(msgspec.Struct, frozen=True):
    """A MAIL command. `address` is "" for the null reverse-path; `size` is 0 if it was not declared.

    `by_seconds` is from now, with a `by_mode`: R or N, and T. `hold` is `for;SECONDS` or `until;DATE-TIME`, as a DSN
    tells it (RFC 4865 5.1.2).
    """

    address: str
    size: int = 0
    eight_bit: bool = False
    smtputf8: bool = False
    ret: str = ""
    envid: str = ""
    by_seconds: int = 0
    by_mode: str = ""
    hold: str = ""
    priority: int = 0
    requiretls: bool = False


class _Wrong(ValueError):
    """Carries the reply that refuses the command."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply)
        self.reply = reply


@lru_cache(maxsize=256)  # the few senders of an application repeat
def parse_mail(argument: str, size_limit: int, *, holds: bool, tls: bool) -> MailFrom | Reply:
    """Read what follows `MAIL `; the reply that refuses it if it is wrong.

    `holds` tells of FUTURERELEASE, `tls` of a session in which REQUIRETLS is offered.
    """
    found = _FROM.fullmatch(argument.rstrip(" "))
    if found is None:
        return BAD_MAIL
    path, parameters = found.groups()
    try:
        given = _mail_parameters(parameters, size_limit, _known(holds=holds, tls=tls)) if parameters else MailFrom("")
        if not path:
            return given
        address = _mailbox(path, "5.1.7", utf8=given.smtputf8)
    except _Wrong as wrong:
        return wrong.reply
    return msgspec.structs.replace(given, address=address) if parameters else MailFrom(address)


def parse_rcpt(argument: str, hostname: str, *, utf8: bool) -> Recipient | Reply:
    """Read what follows `RCPT `; the reply that refuses it if it is wrong. <postmaster> is that of `hostname`."""
    ordinary = _ORDINARY_TO.fullmatch(argument)
    if ordinary is not None and len(ordinary[2]) <= LOCAL_PART_LIMIT and len(ordinary[3]) <= DOMAIN_LIMIT:
        return Recipient(ordinary[1])
    found = _TO.fullmatch(argument.rstrip(" "))
    if found is None:
        return BAD_RCPT
    path, parameters = found.groups()
    try:
        if path.lower() == "postmaster":  # RFC 5321 4.1.1.3
            path = f"{path}@{hostname}"
        address = _mailbox(path, "5.1.3", utf8=utf8)
        if not parameters:
            return Recipient(address)
        notify, orcpt = _rcpt_parameters(parameters, utf8=utf8)
    except _Wrong as wrong:
        return wrong.reply
    return Recipient(address, notify, orcpt)


def _mailbox(path: str, status: str, *, utf8: bool) -> str:
    if path.startswith("@"):  # a source route is read and ignored, RFC 5321 4.1.1.3
        path = path.partition(":")[2]
    if not utf8 and not path.isascii():
        raise _Wrong(Reply(553, "5.6.7", "Address is not ASCII and SMTPUTF8 was not given"))  # RFC 6531 3.5
    try:
        return parse_mailbox(path, utf8=utf8)
    except AddressError as error:
        raise _Wrong(Reply(501, status, f"Bad address: {error}")) from None


def _parameters(text: str, known: frozenset[str]) -> dict[str, str]:
    """Cut parameters apart: upper-case keywords and values as they came, "" where there is none."""
    found: dict[str, str] = {}
    for each in text.split():
        parameter = _PARAMETER.fullmatch(each)
        if parameter is None:
            raise _malformed("parameters")
        keyword = parameter[1].upper()
        if keyword not in known:
            raise _Wrong(Reply(555, "5.5.4", f"Parameter {keyword[:40]} not recognized"))  # RFC 5321 4.1.1.11
        if keyword in found:
            raise _Wrong(Reply(501, "5.5.4", f"{keyword} given twice"))
        found[keyword] = parameter[2] or ""
    return found


def _known(*, holds: bool, tls: bool) -> frozenset[str]:
    return _MAIL_PARAMETERS | (_HOLD_PARAMETERS if holds else frozenset()) | (_TLS_PARAMETERS if tls else frozenset())


def _mail_parameters(text: str, size_limit: int, known: frozenset[str]) -> MailFrom:
    given = _parameters(text, known)
    size, body, ret = given.get("SIZE", "0"), given.get("BODY", "7BIT").upper(), given.get("RET", "").upper()
    if not _SIZE.fullmatch(size):
        raise _malformed("SIZE")
    if int(size) > size_limit:
        raise _Wrong(replies.TOO_BIG)  # RFC 1870 6.1
    if body not in ("7BIT", "8BITMIME"):
        raise _malformed("BODY")
    for keyword in ("SMTPUTF8", "REQUIRETLS"):
        if given.get(keyword):  # they have no value: RFC 6531 3.1, RFC 8689 2
            raise _malformed(keyword)
    if "RET" in given and ret not in ("FULL", "HDRS"):
        raise _malformed("RET")
    envid = given.get("ENVID", "")
    if "ENVID" in given and not (len(envid) <= _ENVID_LIMIT and _XTEXT.fullmatch(envid)):
        raise _malformed("ENVID")
    # Who first submitted it is of no use to us: accepted and ignored, as RFC 4954 5 allows.
    if "AUTH" in given and not _XTEXT.fullmatch(given["AUTH"]):
        raise _malformed("AUTH")
    by_seconds, by_mode = _by(given["BY"]) if "BY" in given else (0, "")
    priority = given.get("MT-PRIORITY", "0")
    if not _PRIORITY.fullmatch(priority):
        raise _malformed("MT-PRIORITY")
    return MailFrom(
        "",
        int(size),
        body == "8BITMIME",
        "SMTPUTF8" in given,
        ret,
        envid,
        by_seconds,
        by_mode,
        _hold(given),
        int(priority),
        "REQUIRETLS" in given,
    )


def _by(value: str) -> tuple[int, str]:
    """Read BY (RFC 2852 4)."""
    found = _BY.fullmatch(value)
    if found is None:
        raise _malformed("BY")
    return int(found[1]), found[2].upper()


def _hold(given: dict[str, str]) -> str:
    """Read HOLDFOR or HOLDUNTIL, of which there is one at most (RFC 4865 4.2)."""
    if given.keys() >= _HOLD_PARAMETERS:
        raise _Wrong(Reply(501, "5.5.4", "HOLDFOR and HOLDUNTIL exclude each other"))
    if "HOLDFOR" in given:
        if not _HOLD_FOR.fullmatch(given["HOLDFOR"]):
            raise _malformed("HOLDFOR")
        return f"for;{given['HOLDFOR']}"
    if "HOLDUNTIL" in given:
        until = given["HOLDUNTIL"].upper()
        if not _HOLD_UNTIL.fullmatch(until):
            raise _malformed("HOLDUNTIL")
        return f"until;{until}"
    return ""


def _rcpt_parameters(text: str, *, utf8: bool) -> tuple[Notify, str]:
    given = _parameters(text, _RCPT_PARAMETERS)
    orcpt = given.get("ORCPT", "")
    if "ORCPT" in given:
        plain = _ORCPT_OCTETS if utf8 else _ORCPT
        known = plain.fullmatch(orcpt) or (_ORCPT_UTF8.fullmatch(orcpt) and (utf8 or orcpt.isascii()))
        if not known or len(orcpt) > _ORCPT_LIMIT:
            raise _malformed("ORCPT")
    return _notify(given["NOTIFY"]) if "NOTIFY" in given else Notify.UNSET, orcpt


def _notify(value: str) -> Notify:
    """Read NOTIFY: NEVER alone, or a list of the others (RFC 3461 4.1)."""
    if value.upper() == "NEVER":
        return Notify.NEVER
    wanted = Notify.UNSET
    for each in value.upper().split(","):
        if each not in _NOTIFY:
            raise _malformed("NOTIFY")
        wanted |= _NOTIFY[each]
    return wanted


def _malformed(what: str) -> _Wrong:
    return _Wrong(Reply(501, "5.5.4", f"Malformed {what}"))
