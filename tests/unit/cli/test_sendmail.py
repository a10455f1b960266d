"""sendmail: command lines, what becomes of a message, exit codes; with aiosmtpd as the relay on real sockets."""

import io
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from email import message_from_bytes, policy
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller, UnixSocketController
from aiosmtpd.smtp import SMTP, Envelope, Session
from hypothesis import given
from hypothesis import strategies as st

from mta.cli import sendmail
from mta.cli.sendmail import Caller, Failed, Letter, Request, compose, parse_arguments, read_message, relay_address
from mta.config import parse

CALLER = Caller("joe@mail.test", "Joe User")


def made(text: bytes, *arguments: str) -> Letter:
    return compose(parse_arguments(arguments), read_message(io.BytesIO(text), dot_ends=False), "mail.test", CALLER)


def fields_of(letter: Letter, name: str) -> list[str]:
    return message_from_bytes(letter.content, policy=policy.SMTP).get_all(name, [])


@pytest.mark.parametrize(
    ("arguments", "request_"),
    [
        (["-t"], Request(from_header=True)),
        (["-t", "-i"], Request(from_header=True, dot_ends=False)),
        (["-ti"], Request(from_header=True, dot_ends=False)),
        (["-oi", "a@b.test"], Request(recipients=("a@b.test",), dot_ends=False)),
        (["-oem", "-odb", "a@b.test"], Request(recipients=("a@b.test",))),
        (["-bm", "-fx@y.test", "a@b.test"], Request(recipients=("a@b.test",), sender="x@y.test")),
        (["-r", "<x@y.test>", "a@b.test"], Request(recipients=("a@b.test",), sender="x@y.test")),
        (["-f", "", "a@b.test"], Request(recipients=("a@b.test",), sender="")),
        (["-f<>", "a@b.test"], Request(recipients=("a@b.test",), sender="")),
        (["-F", "Joe Q", "--", "-weird@b.test"], Request(recipients=("-weird@b.test",), full_name="Joe Q")),
        (["a@b.test", "-f", "x@y.test"], Request(recipients=("a@b.test", "-f", "x@y.test"))),
        (
            ["-N", "failure,delay", "-R", "hdrs", "-V", "id", "a@b.test"],
            Request(recipients=("a@b.test",), notify="FAILURE,DELAY", ret="HDRS", envid="id"),
        ),
        (["-v", "-O", "X=y", "-B8BITMIME", "-h3", "-L", "tag", "a@b.test"], Request(recipients=("a@b.test",))),
        (["-q30m"], Request(queue_run=True)),
        (["-v", "-q"], Request(queue_run=True)),
    ],
)
def test_a_command_line_of_sendmail_is_understood(arguments: list[str], request_: Request) -> None:
    assert parse_arguments(arguments) == request_


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "no recipients"),
        (["-i"], "no recipients"),
        (["-j", "a@b.test"], "option -j not recognized"),
        (["-f"], "option -f requires argument"),
        (["-bs"], "does not speak SMTP"),
        (["-bp"], "fairlead queue list"),
        (["-bd"], "fairlead serve"),
        (["-bz"], "knows no such mode"),
        (["-N", "sometimes", "a@b.test"], "-N takes"),
        (["-R", "all", "a@b.test"], "-R takes"),
    ],
)
def test_what_cannot_be_done_is_a_usage_error(arguments: list[str], complaint: str) -> None:
    with pytest.raises(Failed, match=complaint) as caught:
        parse_arguments(arguments)
    assert caught.value.code == sendmail.EX_USAGE


@pytest.mark.parametrize(
    ("text", "dot_ends", "expected"),
    [
        (b"a\n.\nb\n", True, b"a\n"),
        (b"a\r\n.\r\nb\r\n", True, b"a\n"),
        (b"a\n.", True, b"a\n"),
        (b"a\n.b\n..\n", True, b"a\n.b\n..\n"),
        (b"a\n.\nb\n", False, b"a\n.\nb\n"),
        (b"10%\r20%\r\ndone", False, b"10%\n20%\ndone\n"),
        (b"", True, b""),
    ],
)
def test_a_message_ends_where_sendmail_ends_it(text: bytes, dot_ends: bool, expected: bytes) -> None:
    assert read_message(io.BytesIO(text), dot_ends=dot_ends) == expected


def test_cron_s_message_gets_whole_addresses_and_what_is_missing() -> None:
    letter = made(b"From: root (Cron Daemon)\nTo: root\nSubject: Cron <root@host> backup\n\nfailed\n", "-i", "root")
    assert letter.sender == "joe@mail.test"
    assert letter.recipients == ("root@mail.test",)
    assert fields_of(letter, "From") == ["Cron Daemon <root@mail.test>"]
    assert fields_of(letter, "To") == ["root@mail.test"]
    assert fields_of(letter, "Subject") == ["Cron <root@host> backup"]
    assert len(fields_of(letter, "Date")) == len(fields_of(letter, "Message-ID")) == 1
    assert letter.content.endswith(b"\r\n\r\nfailed\r\n")


def test_recipients_are_those_of_the_header_and_of_the_command_line_once_each() -> None:
    text = (
        b'To: "Doe, J" <a@b.test>,\n c@d.test\nCc: e@f.test, a@b.test\nBCC: Hidden\n <g@h.test>\nBcc: i@j.test\n\nx\n'
    )
    letter = made(text, "-t", "k@l.test,m@n.test")
    expected = ("k@l.test", "m@n.test", "a@b.test", "c@d.test", "e@f.test", "g@h.test", "i@j.test")
    assert letter.recipients == expected
    assert b"idden" not in letter.content
    assert b"i@j.test" not in letter.content
    assert b'To: "Doe, J" <a@b.test>,\r\n c@d.test\r\nCc: e@f.test, a@b.test\r\n' in letter.content


def test_without_t_the_header_s_recipients_are_not_recipients_and_bcc_is_removed_all_the_same() -> None:
    letter = made(b"To: a@b.test\nBcc: c@d.test\n\nx\n", "e@f.test")
    assert letter.recipients == ("e@f.test",)
    assert b"c@d.test" not in letter.content


def test_a_message_sent_again_goes_to_its_resent_fields() -> None:
    letter = made(b"Resent-To: a@b.test\nResent-Bcc: c@d.test\nTo: e@f.test\n\nx\n", "-t")
    assert letter.recipients == ("a@b.test", "c@d.test")
    assert b"c@d.test" not in letter.content


@pytest.mark.parametrize(
    ("text", "body"),
    [
        (b"just a line\nand another\n", b"just a line\r\nand another\r\n"),
        (b"\nTo: not a header\n", b"To: not a header\r\n"),
        (b"Subject: x\nno header\n\nmore\n", b"no header\r\n\r\nmore\r\n"),
        (b"From joe Sat Nov 21 00:44:00 2026\nSubject: x\n\nbody\n", b"body\r\n"),
        (b" starts folded\n", b" starts folded\r\n"),
        (b"Subject: only a header\n", b""),
        (b"", b""),
    ],
)
def test_the_header_ends_where_lines_stop_being_one(text: bytes, body: bytes) -> None:
    assert made(text, "a@b.test").content.partition(b"\r\n\r\n")[2] == body


@pytest.mark.parametrize(
    ("arguments", "sender", "from_"),
    [
        ([], "joe@mail.test", "Joe User <joe@mail.test>"),
        (["-f", "x@y.test"], "x@y.test", "Joe User <x@y.test>"),
        (["-f", "x", "-F", "X\nBcc: y@z.test"], "x@mail.test", '"X Bcc: y@z.test" <x@mail.test>'),
        (["-f", "<>"], "", "Joe User <joe@mail.test>"),
        (["-F", "Jö"], "joe@mail.test", "Jö <joe@mail.test>"),
    ],
)
def test_the_sender_and_a_from_that_was_missing(arguments: list[str], sender: str, from_: str) -> None:
    letter = made(b"Subject: x\n\nx\n", *arguments, "a@b.test")
    assert letter.sender == sender
    assert fields_of(letter, "From") == [from_]


@pytest.mark.parametrize(
    "arguments", [["a b@c.test"], ["a@"], ["a@b.test\r\nRCPT TO:<x@y.test>"], ["-f", "a@b@c", "x@y.test"], [","]]
)
def test_an_address_that_is_none_is_refused_before_anything_is_sent(arguments: list[str]) -> None:
    with pytest.raises(Failed) as caught:
        made(b"\nx\n", *arguments)
    assert caught.value.code == sendmail.EX_DATAERR


@pytest.mark.parametrize("field", [b"To: ", b"From: a@b.test\nTo: a@b.test\nCc: "])
def test_comments_without_end_in_each_other_are_refused(field: bytes) -> None:
    with pytest.raises(Failed) as caught:
        made(field + b"(" * 20_000 + b"\n\n", "-t")
    assert caught.value.code == sendmail.EX_DATAERR


def test_a_header_without_recipients_is_refused() -> None:
    with pytest.raises(Failed, match="no recipients") as caught:
        made(b"To: undisclosed-recipients:;\n\nx\n", "-t")
    assert caught.value.code == sendmail.EX_DATAERR


@given(st.binary(max_size=400))
def test_whatever_comes_in_lines_end_with_crlf_and_the_body_is_kept(text: bytes) -> None:
    letter = made(b"Subject: x\n\n" + text, "a@b.test")
    assert letter.content.count(b"\r") == letter.content.count(b"\n") == letter.content.count(b"\r\n")
    body = letter.content.partition(b"\r\n\r\n")[2]
    assert body.replace(b"\r\n", b"") == text.replace(b"\r", b"").replace(b"\n", b"")


@pytest.mark.parametrize(
    ("listeners", "expected"),
    [
        ("{address: 'unix:/s', kind: relay, tenant: a}", "unix:/s"),
        ("{address: '127.0.0.1:25', kind: relay, tenant: a, networks: [127.0.0.0/8]}", "127.0.0.1:25"),
        ("{address: '0.0.0.0:25', kind: relay, tenant: a, networks: ['0.0.0.0/0']}", "127.0.0.1:25"),
        ("{address: '[::]:25', kind: relay, tenant: a, networks: ['::/0']}", "[::1]:25"),
        ("{address: 'localhost:25', kind: relay, tenant: a, networks: [127.0.0.0/8]}", "127.0.0.1:25"),
    ],
)
def test_the_relay_is_a_listener_that_takes_mail_from_here(listeners: str, expected: str) -> None:
    assert str(relay_address(parse(f"listeners: [{listeners}]", "f.yaml").listeners)) == expected


@pytest.mark.parametrize(
    "listeners",
    [
        "{address: '127.0.0.1:25', kind: relay, tenant: a, networks: [10.0.0.0/8]}",
        "{address: '127.0.0.1:25', kind: relay, tenant: a, networks: [127.0.0.0/8], proxy: [127.0.0.1/32]}",
        "{address: '192.0.2.1:25', kind: relay, tenant: a, networks: [192.0.2.0/24]}",
        "{address: '127.0.0.1:25', kind: submission}",
    ],
)
def test_no_listener_for_mail_from_here_is_a_configuration_error(listeners: str) -> None:
    with pytest.raises(Failed, match="no relay listener") as caught:
        relay_address(parse(f"listeners: [{listeners}]", "f.yaml").listeners)
    assert caught.value.code == sendmail.EX_CONFIG


def test_a_unix_socket_comes_before_loopback() -> None:
    listeners = parse(
        "listeners: [{address: '127.0.0.1:25', kind: relay, tenant: a, networks: [127.0.0.0/8]},"
        "{address: 'unix:/s', kind: relay, tenant: a}]",
        "f.yaml",
    ).listeners
    assert str(relay_address(listeners)) == "unix:/s"


class Relay:
    """What aiosmtpd took, and how it answers."""

    def __init__(self) -> None:
        self.taken: list[Envelope] = []
        self.rcpt: dict[str, str] = {}
        self.data = "250 2.0.0 queued"

    async def handle_MAIL(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 2.1.0 ok"

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address in self.rcpt:
            return self.rcpt[address]
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 ok"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        self.taken.append(envelope)
        return self.data


@pytest.fixture
def relay() -> Relay:
    return Relay()


@pytest.fixture
def unix_config(tmp_path: Path, relay: Relay) -> Iterator[Path]:
    path = tmp_path / "smtp"
    config = tmp_path / "fairlead.yaml"
    config.write_text(
        f"hostname: mail.test\nlisteners: [{{address: 'unix:{path}', kind: relay, tenant: a}}]\n", encoding="utf-8"
    )
    controller = UnixSocketController(relay, unix_socket=str(path), enable_SMTPUTF8=True)
    controller.start()
    yield config
    controller.stop()


def run(config: Path, text: bytes, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "mta.cli.sendmail", *arguments],
        input=text,
        capture_output=True,
        env={**os.environ, "FAIRLEAD_CONFIG": str(config)},
        timeout=30,
        check=False,
    )


def test_a_message_arrives_over_the_unix_socket(unix_config: Path, relay: Relay) -> None:
    done = run(unix_config, b"To: a@b.test\nSubject: x\n\n.dot\n.\n\xff\n", "-t", "-i", "-f", "x@y.test")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    [envelope] = relay.taken
    assert (envelope.mail_from, envelope.rcpt_tos) == ("x@y.test", ["a@b.test"])
    assert {"BODY=8BITMIME"} <= set(envelope.mail_options)
    assert isinstance(envelope.content, bytes)
    assert envelope.content.endswith(b"\r\n\r\n.dot\r\n.\r\n\xff\r\n")


def test_a_message_arrives_over_loopback(tmp_path: Path, relay: Relay) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    controller = Controller(relay, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        config = tmp_path / "f.yaml"
        listener = f"{{address: '127.0.0.1:{port}', kind: relay, tenant: a, networks: [127.0.0.0/8]}}"
        config.write_text(f"hostname: mail.test\nlisteners: [{listener}]\n")
        assert run(config, b"Subject: x\n\nx\n", "root").returncode == 0
    finally:
        controller.stop()
    assert relay.taken[0].rcpt_tos == ["root@mail.test"]


def test_an_address_beyond_ascii_is_sent_as_smtputf8(unix_config: Path, relay: Relay) -> None:
    assert run(unix_config, b"Subject: x\n\nx\n", "jö@b.test").returncode == 0
    assert relay.taken[0].rcpt_tos == ["jö@b.test"]
    assert relay.taken[0].smtp_utf8


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        ("550 5.1.1 nobody", sendmail.EX_NOUSER),
        ("550 5.7.1 not yours", sendmail.EX_NOPERM),
        ("452 4.3.1 full", sendmail.EX_TEMPFAIL),
    ],
)
def test_one_refused_recipient_is_a_message_refused(unix_config: Path, relay: Relay, reply: str, code: int) -> None:
    relay.rcpt["c@d.test"] = reply
    done = run(unix_config, b"\nx\n", "a@b.test", "c@d.test")
    assert done.returncode == code
    assert done.stderr == f"fairlead-sendmail: recipient c@d.test not accepted: {reply}\n".encode()
    assert relay.taken == []


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        ("554 5.6.0 bad", sendmail.EX_DATAERR),
        ("451 4.3.0 later", sendmail.EX_TEMPFAIL),
        ("421 4.3.2 x", sendmail.EX_TEMPFAIL),
    ],
)
def test_a_refused_message_says_how(unix_config: Path, relay: Relay, reply: str, code: int) -> None:
    relay.data = reply
    assert run(unix_config, b"\nx\n", "a@b.test").returncode == code


def test_a_relay_that_is_down_asks_to_try_again(tmp_path: Path) -> None:
    config = tmp_path / "f.yaml"
    config.write_text(
        f"hostname: mail.test\nlisteners: [{{address: 'unix:{tmp_path}/none', kind: relay, tenant: a}}]\n"
    )
    done = run(config, b"\nx\n", "a@b.test")
    assert done.returncode == sendmail.EX_TEMPFAIL
    assert done.stderr == f"fairlead-sendmail: unix:{tmp_path}/none: No such file or directory\n".encode()


def test_a_configuration_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text("hostnam: x\n")
    done = run(tmp_path / "f.yaml", b"\nx\n", "a@b.test")
    assert done.returncode == sendmail.EX_CONFIG
    assert done.stderr.endswith(b"f.yaml:1:1: hostnam: no such setting\n")
    assert run(tmp_path / "none.yaml", b"\nx\n", "a@b.test").returncode == sendmail.EX_CONFIG
