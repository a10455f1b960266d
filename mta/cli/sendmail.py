"""`fairlead sendmail`: what programs and cron call as /usr/sbin/sendmail; over SMTP to our own relay listener.

Installed as fairlead-sendmail too: `ln -s .../fairlead-sendmail /usr/sbin/sendmail`. It needs to read the
configuration only, no spool and no key, so any user may call it. The relay takes the message for all of its
recipients or for none, and no copy is kept here: exit codes are those of sysexits.h, 75 asks to try again.
Aliases and ~/.forward are not for a relay. Few imports, because cron starts this for every job.
"""

import getopt
import os
import pwd
import re
import smtplib
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import formataddr, formatdate, getaddresses, make_msgid
from ipaddress import ip_address
from typing import BinaryIO

from mta.config import Config, ConfigError, HostPort, Listener, UnixPath, find, load
from mta.mail import headers
from mta.mail.address import AddressError, parse_mailbox

EX_OK, EX_USAGE, EX_DATAERR, EX_NOUSER, EX_UNAVAILABLE = 0, 64, 65, 67, 69
EX_TEMPFAIL, EX_NOPERM, EX_CONFIG = 75, 77, 78
_TIMEOUT = 330.0  # seconds for each reply: more than the relay takes for anything
_OPTIONS = "A:B:b:C:d:D:e:f:F:Gh:IiL:M:mN:nO:o:p:R:r:stUV:vX:"
_NOT_HERE = {
    "a": "does not speak SMTP on standard input: connect to the relay listener",
    "d": "is no daemon: see fairlead serve",
    "D": "is no daemon: see fairlead serve",
    "i": "keeps no aliases",
    "p": "shows no queue: see fairlead queue list",
    "s": "does not speak SMTP on standard input: connect to the relay listener",
    "t": "has no test mode",
    "v": "cannot verify addresses",
}
_NOTIFY = re.compile(r"never|(success|failure|delay)(,(success|failure|delay))*", re.IGNORECASE)
_FIELD_NAME = re.compile(rb"([!-9;-~]+)[ \t]*:")
_ADDRESS_FIELDS = (b"from", b"sender", b"reply-to", b"to", b"cc")
_HIDDEN = (b"bcc", b"resent-bcc")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Failed(Exception):
    """The message was not taken; `code` is the exit code."""

    def __init__(self, code: int, what: str) -> None:
        super().__init__(what)
        self.code = code


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a command line of sendmail(8) asks for. `sender` is None if not given, "" for the null sender."""

    recipients: tuple[str, ...] = ()
    from_header: bool = False
    dot_ends: bool = True
    sender: str | None = None
    full_name: str = ""
    notify: str = ""
    ret: str = ""
    envid: str = ""
    queue_run: bool = False


@dataclass(frozen=True)
class Caller:
    """Who calls, where the message does not say: an address and perhaps a name."""

    address: str
    full_name: str


@dataclass(frozen=True)
class Letter:
    """A message ready to be handed over; lines of `content` end with CRLF."""

    sender: str
    recipients: tuple[str, ...]
    content: bytes = field(repr=False)


def main(arguments: Sequence[str] | None = None, config_file: str | None = None) -> int:
    """Hand the message on standard input to the relay; return a code of sysexits.h."""
    try:
        request = parse_arguments(sys.argv[1:] if arguments is None else arguments)
        if request.queue_run:
            return EX_OK  # the queue runs by itself
        config = _configuration(config_file)
        text = read_message(sys.stdin.buffer, dot_ends=request.dot_ends)
        letter = compose(request, text, config.hostname, _caller(config.hostname))
        hand_over(letter, request, config.hostname, relay_address(config.listeners))
    except Failed as error:
        print(f"fairlead-sendmail: {error}", file=sys.stderr)  # noqa: T201 - for the terminal, or for cron's mail
        return error.code
    except KeyboardInterrupt:
        return EX_TEMPFAIL
    return EX_OK


def _configuration(config_file: str | None) -> Config:
    path = find(config_file)
    try:
        return load(path) if path else Config()
    except ConfigError as error:
        raise Failed(EX_CONFIG, error.problems[0]) from None


def _caller(hostname: str) -> Caller:
    try:
        user = pwd.getpwuid(os.getuid())
    except KeyError:
        return Caller(f"uid{os.getuid()}@{hostname}", "")
    name = user.pw_gecos.partition(",")[0].replace("&", user.pw_name.capitalize())
    return Caller(f"{user.pw_name}@{hostname}", name)


def parse_arguments(arguments: Sequence[str]) -> Request:
    """Read a command line; Failed (EX_USAGE) on what is wrong or cannot be done here.

    Options end at the first recipient, so that a recipient from outside cannot be taken for one.
    """
    if any(each.startswith("-q") for each in _leading_options(arguments)):
        return Request(queue_run=True)
    try:
        options, recipients = getopt.getopt(list(arguments), _OPTIONS)
    except getopt.GetoptError as error:
        raise Failed(EX_USAGE, error.msg) from None
    given = dict(options)
    mode = given.get("-b", "m")
    if mode != "m":
        raise Failed(EX_USAGE, f"-b{mode}: this sendmail {_NOT_HERE.get(mode[:1], 'knows no such mode')}")
    notify, ret = given.get("-N", ""), given.get("-R", "")
    if notify and not _NOTIFY.fullmatch(notify):
        raise Failed(EX_USAGE, "-N takes never, or a list of success, failure, delay")
    if ret.lower() not in ("", "full", "hdrs"):
        raise Failed(EX_USAGE, "-R takes full or hdrs")
    if not recipients and "-t" not in given:
        raise Failed(EX_USAGE, "no recipients: name them, or take them from the header with -t")
    sender = given.get("-f", given.get("-r"))
    return Request(
        recipients=tuple(recipients),
        from_header="-t" in given,
        dot_ends="-i" not in given and not any(name == "-o" and value.startswith("i") for name, value in options),
        sender=None if sender is None else sender.strip().removeprefix("<").removesuffix(">"),
        full_name=given.get("-F", ""),
        notify=notify.upper(),
        ret=ret.upper(),
        envid=given.get("-V", ""),
    )


def _leading_options(arguments: Sequence[str]) -> Iterator[str]:
    for each in arguments:
        if each == "--" or not each.startswith("-"):
            return
        yield each


def read_message(file: BinaryIO, *, dot_ends: bool) -> bytes:
    """Read to the end of the file, or to a line with a dot alone, and end every line with LF.

    A CR alone is made a line end as well: it is what progress bars leave in the output of cron's jobs, and
    may not travel (RFC 5321 2.3.8).
    """
    text = file.read().replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if dot_ends:
        found = re.search(rb"^\.(\n|\Z)", text, re.MULTILINE)
        text = text[: found.start()] if found else text
    return text if text.endswith(b"\n") or not text else text + b"\n"


def compose(request: Request, text: bytes, hostname: str, caller: Caller) -> Letter:
    """Make the letter: envelope, and a header with what RFC 5322 3.6 demands; no Bcc in it.

    Addresses without a domain (cron writes `To: root`) get ours, in the envelope and in the header.
    """
    header, body = split_header(text)
    recipients = list(request.recipients)
    if any(_CONTROL.search(each) for each in recipients):
        raise Failed(EX_DATAERR, "a recipient has control characters in it")
    if request.from_header:
        recipients += _recipients_of(header)
    addresses = [address for _, address in _mailboxes(recipients) if address]
    if not addresses:
        raise Failed(EX_DATAERR, "no recipients in what was given")
    sender = caller.address if request.sender is None else _qualified(request.sender, hostname)
    envelope = dict.fromkeys(_parsed(_qualified(address, hostname)) for address in addresses)
    kept = headers.fields(headers.remove(header, _HIDDEN))
    whole = b"".join(_meant_for_all(each, hostname) for each in kept)
    content = whole + _missing(header, request, hostname, Caller(sender or caller.address, caller.full_name))
    return Letter(_parsed(sender) if sender else "", tuple(envelope), content + b"\r\n" + body)


def split_header(text: bytes) -> tuple[bytes, bytes]:
    """Return header block and body of what a program wrote, lines ended by CRLF.

    The header ends at an empty line, or before the first line that cannot belong to one. An mbox line
    (`From sender date`) before it is dropped.
    """
    lines = text.split(b"\n")
    start = end = 1 if text.startswith(b"From ") else 0
    while end < len(lines) and (_FIELD_NAME.match(lines[end]) or (end > start and lines[end][:1] in (b" ", b"\t"))):
        end += 1
    body = lines[end + 1 :] if lines[end : end + 1] == [b""] else lines[end:]
    return b"".join(line + b"\r\n" for line in lines[start:end]), b"\r\n".join(body)


def _recipients_of(header: bytes) -> list[str]:
    """RFC 5322 3.6.6: a message sent again goes to whom its Resent fields name."""
    for prefix in (b"resent-", b""):
        found = [value for name in (b"to", b"cc", b"bcc") for value in headers.values(header, prefix + name)]
        if found:
            return [_text(value) for value in found]
    return []


def _missing(header: bytes, request: Request, hostname: str, caller: Caller) -> bytes:
    """Write the fields that a message must have and this one has not."""
    full_name = _text(_CONTROL.sub(" ", request.full_name or caller.full_name).encode("utf-8", "replace"))
    wanted = {
        "From": formataddr((full_name, caller.address)),
        "Date": formatdate(localtime=True),
        "Message-ID": make_msgid(domain=hostname),
    }
    present = headers.names(header)
    lines = [f"{name}: {value}\r\n" for name, value in wanted.items() if name.lower().encode() not in present]
    return "".join(lines).encode()


def _meant_for_all(field: headers.Field, hostname: str) -> bytes:
    """Write an address field so that it means the same everywhere; all others stay as they are."""
    if field.name not in _ADDRESS_FIELDS:
        return field.raw
    pairs = [(display, address) for display, address in _mailboxes([_text(field.value)]) if address]
    if all("@" in address for _, address in pairs):
        return field.raw
    shown = ", ".join(formataddr((display, _qualified(address, hostname))) for display, address in pairs)
    return field.raw.partition(b":")[0] + b": " + shown.encode() + b"\r\n"


def _mailboxes(texts: list[str]) -> list[tuple[str, str]]:
    try:
        return getaddresses(texts)
    except RecursionError:
        raise Failed(EX_DATAERR, "an address has comments within comments, too deep to be read") from None


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _qualified(address: str, hostname: str) -> str:
    return address if "@" in address or not address else f"{address}@{hostname}"


def _parsed(address: str) -> str:
    try:
        return parse_mailbox(address, utf8=True)
    except (AddressError, UnicodeError) as error:
        raise Failed(EX_DATAERR, f"{address[:80]!a}: {error}") from None


def relay_address(listeners: Sequence[Listener]) -> HostPort | UnixPath:
    """Choose the listener that takes mail from this machine without a password, a unix socket first."""
    relays = [each for each in listeners if each.kind == "relay" and each.tls != "implicit"]
    for each in relays:
        if isinstance(each.address, UnixPath):
            return each.address
    for each in relays:
        if isinstance(each.address, HostPort):
            host = {"0.0.0.0": "127.0.0.1", "::": "::1", "localhost": "127.0.0.1"}.get(
                each.address.host, each.address.host
            )
            if _trusts(each, host):
                return HostPort(host=host, port=each.address.port)
    raise Failed(EX_CONFIG, "no relay listener on a unix socket or on loopback")


def _trusts(listener: Listener, host: str) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return False
    behind_proxy = any(address in network for network in listener.proxy)
    return address.is_loopback and not behind_proxy and any(address in network for network in listener.networks)


class _Connection(smtplib.SMTP):
    """SMTP to a unix socket as well, where the host is its path."""

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        if not host.startswith("/"):
            return super()._get_socket(host, port, timeout)  # type: ignore[misc, no-any-return] # not in typeshed
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(timeout)
        connection.connect(host)
        return connection


def hand_over(letter: Letter, request: Request, hostname: str, address: HostPort | UnixPath) -> None:
    """Give the letter to the relay for all recipients; Failed with the reply if it is not taken."""
    host, port = (address.path, 0) if isinstance(address, UnixPath) else (address.host, address.port)
    try:
        # our name is given, because smtplib would ask the DNS for it
        connection = _Connection(host, port or 25, local_hostname=hostname, timeout=_TIMEOUT)
        _transaction(connection, letter, request)
    except PermissionError as error:
        raise Failed(EX_NOPERM, f"{address}: {error.strerror}") from None
    except smtplib.SMTPResponseException as error:
        raise _refused("connection", error.smtp_code, error.smtp_error) from None
    except OSError as error:
        raise Failed(EX_TEMPFAIL, f"{address}: {error.strerror or error}") from None
    with suppress(OSError):  # the letter is taken, whatever becomes of the farewell
        connection.quit()


def _transaction(connection: smtplib.SMTP, letter: Letter, request: Request) -> None:
    connection.ehlo_or_helo_if_needed()
    code, text = connection.mail(letter.sender, list(_mail_parameters(connection, letter, request)))
    if code != 250:
        raise _refused("sender", code, text)
    notify = [f"NOTIFY={request.notify}"] if request.notify and connection.has_extn("dsn") else []
    for recipient in letter.recipients:
        code, text = connection.rcpt(recipient, notify)
        if code not in (250, 251):
            raise _refused(f"recipient {ascii(recipient)[1:-1]}", code, text)
    code, text = connection.data(letter.content)
    if code != 250:
        raise _refused("message", code, text)


def _mail_parameters(connection: smtplib.SMTP, letter: Letter, request: Request) -> Iterator[str]:
    if connection.has_extn("size"):
        yield f"SIZE={len(letter.content)}"
    if connection.has_extn("8bitmime") and not letter.content.isascii():
        yield "BODY=8BITMIME"
    if not all(each.isascii() for each in (letter.sender, *letter.recipients)):
        if not connection.has_extn("smtputf8"):
            raise Failed(EX_DATAERR, "an address is not ASCII, and the relay does not take such addresses")
        connection.command_encoding = "utf-8"
        yield "SMTPUTF8"
    if connection.has_extn("dsn"):
        if request.ret:
            yield f"RET={request.ret}"
        if request.envid:
            yield f"ENVID={_xtext(request.envid)}"


def _xtext(text: str) -> str:
    """RFC 3461 4: printable ASCII but + and =, all else as +XX."""
    return "".join(
        chr(octet) if 33 <= octet <= 126 and octet not in b"+=" else f"+{octet:02X}" for octet in text.encode()
    )


def _refused(what: str, code: int, text: bytes | str) -> Failed:
    words = text.decode("ascii", "replace") if isinstance(text, bytes) else text
    return Failed(exit_code(what, code, words), f"{what} not accepted: {code} {_CONTROL.sub(' ', words)}")


def exit_code(what: str, code: int, text: str) -> int:
    """Say a reply in the words of sysexits.h, for what it was given to."""
    if code < 500:
        return EX_TEMPFAIL
    if text.startswith("5.7."):
        return EX_NOPERM
    return {"recipient": EX_NOUSER, "message": EX_DATAERR}.get(what.partition(" ")[0], EX_UNAVAILABLE)


if __name__ == "__main__":
    sys.exit(main())
