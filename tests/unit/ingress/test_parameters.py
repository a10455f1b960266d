"""MAIL and RCPT arguments: what the RFCs allow is taken as it came, all else is refused with the right code."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.ingress.parameters import MailFrom, parse_mail, parse_rcpt
from mta.mail.envelope import Notify, Recipient
from mta.mail.reply import Reply

LIMIT = 1000


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("FROM:<a@b.test>", MailFrom("a@b.test")),
        ("from: <a@b.test>", MailFrom("a@b.test")),
        ("FROM:<a@b.test> ", MailFrom("a@b.test")),
        ("FROM:<>", MailFrom("")),
        ("FROM:<> BODY=8BITMIME", MailFrom("", eight_bit=True)),
        ('FROM:<"a b>c\\""@b.test>', MailFrom('"a b>c\\""@b.test')),
        ("FROM:<@x.test,@y.test:a@b.test>", MailFrom("a@b.test")),
        ("FROM:<a@[192.0.2.1]>", MailFrom("a@[192.0.2.1]")),
        ("FROM:<a@b.test> SIZE=1000 BODY=7bit", MailFrom("a@b.test", size=1000)),
        ("FROM:<é@b.test> SMTPUTF8", MailFrom("é@b.test", smtputf8=True)),
        ("FROM:<a@bücher.test> smtputf8", MailFrom("a@bücher.test", smtputf8=True)),
        ("FROM:<a@b.test> RET=hdrs ENVID=Qq+2B3D+20", MailFrom("a@b.test", ret="HDRS", envid="Qq+2B3D+20")),
        ("FROM:<a@b.test> AUTH=<>", MailFrom("a@b.test")),
        ("FROM:<a@b.test> AUTH=e+3Dmc2@b.test", MailFrom("a@b.test")),
        ("FROM:<a@b.test> requiretls", MailFrom("a@b.test", requiretls=True)),
        ("FROM:<> REQUIRETLS", MailFrom("", requiretls=True)),
    ],
)
def test_senders(argument: str, expected: MailFrom):
    assert parse_mail(argument, LIMIT, holds=True, tls=True) == expected


@pytest.mark.parametrize(
    ("argument", "refused"),
    [
        ("", "501 5.5.4"),
        ("FROM:", "501 5.5.4"),
        ("FROM:a@b.test", "501 5.5.4"),
        ("FROM<a@b.test>", "501 5.5.4"),
        ("FROM:<a@b.test", "501 5.5.4"),
        ("FROM:<a@b.test>x", "501 5.5.4"),
        ("FROM:<a b@c.test>", "501 5.5.4"),
        ("FROM:<<a@b.test>>", "501 5.5.4"),
        ("FROM:<a>", "501 5.1.7"),
        ("FROM:<a@>", "501 5.1.7"),
        ("FROM:<@b.test>", "501 5.1.7"),
        ("FROM:<a..b@c.test>", "501 5.1.7"),
        ("FROM:<a@b_.test>", "501 5.1.7"),
        ("FROM:<a@b.test\t>", "501 5.5.4"),
        (f"FROM:<{'a' * 65}@b.test>", "501 5.1.7"),
        ("FROM:<é@b.test>", "553 5.6.7"),
        ("FROM:<a@b.test> SIZE=1001", "552 5.3.4"),
        ("FROM:<a@b.test> SIZE=" + "9" * 20, "552 5.3.4"),
        ("FROM:<a@b.test> SIZE=" + "9" * 21, "501 5.5.4"),
        ("FROM:<a@b.test> SIZE=-1", "501 5.5.4"),
        ("FROM:<a@b.test> SIZE=٣", "501 5.5.4"),
        ("FROM:<a@b.test> SIZE", "501 5.5.4"),
        ("FROM:<a@b.test> SIZE=1 SIZE=1", "501 5.5.4"),
        ("FROM:<a@b.test> BODY=BINARYMIME", "501 5.5.4"),
        ("FROM:<a@b.test> SMTPUTF8=1", "501 5.5.4"),
        ("FROM:<a@b.test> RET=ALL", "501 5.5.4"),
        ("FROM:<a@b.test> RET", "501 5.5.4"),
        ("FROM:<a@b.test> ENVID=", "501 5.5.4"),
        ("FROM:<a@b.test> ENVID=a+0D+0Ab", "501 5.5.4"),
        ("FROM:<a@b.test> ENVID=a+2b", "501 5.5.4"),
        ("FROM:<a@b.test> ENVID=é", "501 5.5.4"),
        ("FROM:<a@b.test> ENVID=" + "x" * 101, "501 5.5.4"),
        ("FROM:<a@b.test> AUTH", "501 5.5.4"),
        ("FROM:<a@b.test> AUTH=a=b", "501 5.5.4"),
        ("FROM:<a@b.test> NOTIFY=NEVER", "555 5.5.4"),
        ("FROM:<a@b.test> REQUIRETLS=", "501 5.5.4"),
        ("FROM:<a@b.test> REQUIRETLS=yes", "501 5.5.4"),
        ("FROM:<a@b.test> REQUIRETLS requiretls", "501 5.5.4"),
        ("FROM:<a@b.test> =x", "501 5.5.4"),
    ],
)
def test_refused_senders(argument: str, refused: str):
    reply = parse_mail(argument, LIMIT, holds=True, tls=True)
    assert isinstance(reply, Reply)
    assert str(reply).startswith(refused)


def test_requiretls_is_unknown_where_it_is_not_offered():
    for given_ in ("REQUIRETLS", "REQUIRETLS=yes"):
        reply = parse_mail(f"FROM:<a@b.test> {given_}", LIMIT, holds=True, tls=False)
        assert str(reply) == "555 5.5.4 Parameter REQUIRETLS not recognized"


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("TO:<a@b.test>", Recipient("a@b.test")),
        ("TO:<Postmaster>", Recipient("Postmaster@mx.test")),
        ("TO:<@relay.test:a@b.test>", Recipient("a@b.test")),
        ("TO:<a@b.test> NOTIFY=NEVER", Recipient("a@b.test", Notify.NEVER)),
        ("TO:<a@b.test> notify=success,Delay", Recipient("a@b.test", Notify.SUCCESS | Notify.DELAY)),
        ("TO:<a@b.test> ORCPT=rfc822;A+2Bb@C.test", Recipient("a@b.test", 0, "rfc822;A+2Bb@C.test")),
        ("TO:<a@b.test> ORCPT=utf-8;\\x{E9}@c.test", Recipient("a@b.test", 0, "utf-8;\\x{E9}@c.test")),
    ],
)
def test_recipients(argument: str, expected: Recipient):
    assert parse_rcpt(argument, "mx.test", utf8=False) == expected


@pytest.mark.parametrize(
    ("argument", "refused"),
    [
        ("TO:<>", "501 5.1.3"),
        ("TO:<a>", "501 5.1.3"),
        ("TO:a@b.test", "501 5.5.4"),
        ("TO:<a@b.test>,<c@d.test>", "501 5.5.4"),
        ("TO:<é@b.test>", "553 5.6.7"),
        ("TO:<a@b.test> NOTIFY=", "501 5.5.4"),
        ("TO:<a@b.test> NOTIFY=NEVER,DELAY", "501 5.5.4"),
        ("TO:<a@b.test> NOTIFY=SOMETIMES", "501 5.5.4"),
        ("TO:<a@b.test> NOTIFY=NEVER NOTIFY=NEVER", "501 5.5.4"),
        ("TO:<a@b.test> ORCPT=a@b.test", "501 5.5.4"),
        ("TO:<a@b.test> ORCPT=rfc822;a+0Ab@c.test", "501 5.5.4"),
        ("TO:<a@b.test> ORCPT=rfc822;" + "x" * 500, "501 5.5.4"),
        ("TO:<a@b.test> ORCPT=utf-8;é@c.test", "501 5.5.4"),
        ("TO:<a@b.test> ORCPT=rfc822;+C3+A9@c.test", "501 5.5.4"),
        ("TO:<a@b.test> SIZE=1", "555 5.5.4"),
    ],
)
def test_refused_recipients(argument: str, refused: str):
    reply = parse_rcpt(argument, "mx.test", utf8=False)
    assert isinstance(reply, Reply)
    assert str(reply).startswith(refused)


def test_smtputf8_admits_other_recipients():
    assert parse_rcpt("TO:<é@bücher.test>", "mx.test", utf8=True) == Recipient("é@bücher.test")
    taken = parse_rcpt("TO:<é@b.test> ORCPT=utf-8;é@c.test", "mx.test", utf8=True)
    assert taken == Recipient("é@b.test", 0, "utf-8;é@c.test")
    as_postfix_sends_it = parse_rcpt("TO:<é@b.test> ORCPT=rfc822;+C3+A9@b.test", "mx.test", utf8=True)
    assert as_postfix_sends_it == Recipient("é@b.test", 0, "rfc822;+C3+A9@b.test")


@given(st.text(alphabet='abFROMTO:<>@."\\ =;+,-\t[]é\u2028', max_size=60))
def test_any_text_is_taken_or_refused_and_never_breaks_out(text: str):
    mail = parse_mail("FROM:<" + text, LIMIT, holds=True, tls=True)
    for parsed in (mail, parse_rcpt("TO:<" + text, "mx.test", utf8=True)):
        if isinstance(parsed, Reply):
            assert parsed.permanent
        else:
            assert not set(parsed.address) & set("\r\n\t\0\u2028") or parsed.address.startswith('"')


@pytest.mark.parametrize("unit", ['"', '""', '"a', "\\", '"\\', "@", "<", "a ", "A=b ", "(("])
def test_hostile_arguments_cost_linear_time(unit: str):
    argument = "FROM:<" + unit * (2048 // len(unit))
    assert isinstance(parse_mail(argument, LIMIT, holds=True, tls=True), Reply)
    assert isinstance(parse_mail("FROM:<> " + unit * (2048 // len(unit)), LIMIT, holds=True, tls=True), Reply)
