"""MAIL and RCPT as the receiving MX reads them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.lab.commands import Extension, Refused, read_mail, read_rcpt
from mta.mail.envelope import Envelope, Notify, Recipient

ALL = frozenset(Extension)


def test_mail_with_every_parameter_keeps_xtext_as_it_is() -> None:
    arg = "FROM:<ü@a.test> SIZE=10 body=8bitmime SMTPUTF8 RET=hdrs ENVID=aB+3Dc"
    expected = Envelope(sender="ü@a.test", recipients=(), eight_bit=True, smtputf8=True, ret="HDRS", envid="aB+3Dc")
    assert read_mail(arg, ALL, 10) == expected
    assert read_mail("from: <>", ALL, 10) == Envelope(sender="", recipients=())
    assert read_mail("FROM:<> REQUIRETLS", ALL, 10) == Envelope(sender="", recipients=(), tls_required="yes")


def test_rcpt_with_every_parameter_keeps_xtext_as_it_is() -> None:
    arg = 'TO:<"a b"@c.test> NOTIFY=SUCCESS,delay ORCPT=rfc822;aB+2Bc@c.test'
    expected = Recipient('"a b"@c.test', int(Notify.SUCCESS | Notify.DELAY), "rfc822;aB+2Bc@c.test")
    assert read_rcpt(arg, ALL, smtputf8=False) == expected


@pytest.mark.parametrize(
    ("arg", "offered", "reply"),
    [
        (None, ALL, "501 5.5.4"),
        ("a@b.test", ALL, "501 5.5.4"),
        ("FROM:a@b.test", ALL, "501 5.5.4"),
        ("FROM:<a@b.test>SIZE=1", ALL, "501 5.5.4"),
        ("FROM:<a@@b.test>", ALL, "553 5.1.3"),
        ("FROM:<a@b.test> SIZE=x", ALL, "501 5.5.4"),
        ("FROM:<a@b.test> SIZE=11", ALL, "552 5.3.4"),
        ("FROM:<a@b.test> BODY=BINARYMIME", ALL, "501 5.5.4"),
        ("FROM:<a@b.test> RET=NONE", ALL, "501 5.5.4"),
        ("FROM:<a@b.test> AUTH=<>", ALL, "555 5.5.4"),
        ("FROM:<ü@b.test>", ALL, "553 5.6.7"),
        ("FROM:<a\udc80@b.test> SMTPUTF8", ALL, "501 5.5.2"),
        ("FROM:<a\x00@b.test>", ALL, "501 5.5.2"),
        ("FROM:<a@b.test> SMTPUTF8", ALL - {Extension.SMTPUTF8}, "555 5.5.4"),
        ("FROM:<a@b.test> BODY=8BITMIME", ALL - {Extension.EIGHT_BIT}, "555 5.5.4"),
        ("FROM:<a@b.test> RET=FULL", ALL - {Extension.DSN}, "555 5.5.4"),
        ("FROM:<a@b.test> ENVID=x", ALL - {Extension.DSN}, "555 5.5.4"),
        ("FROM:<a@b.test> BY=5;R", ALL - {Extension.DELIVERBY}, "555 5.5.4"),
        ("FROM:<a@b.test> BY=5", ALL, "501 5.5.4"),
        ("FROM:<a@b.test> REQUIRETLS", ALL - {Extension.REQUIRETLS}, "555 5.5.4"),
    ],
)
def test_mail_that_cannot_be_taken(arg: str | None, offered: frozenset[Extension], reply: str) -> None:
    with pytest.raises(Refused, match=f"^{reply} "):
        read_mail(arg, offered, 10)


@pytest.mark.parametrize(
    ("arg", "offered", "reply"),
    [
        ("TO:<>", ALL, "501 5.1.3"),
        ("FROM:<a@b.test>", ALL, "501 5.5.4"),
        ("TO:<ü@b.test>", ALL, "553 5.1.3"),
        ("TO:<a@b.test> NOTIFY=SOMETIMES", ALL, "501 5.5.4"),
        ("TO:<a@b.test> NOTIFY=NEVER", ALL - {Extension.DSN}, "555 5.5.4"),
        ("TO:<a@b.test> ORCPT=rfc822;a@b.test", ALL - {Extension.DSN}, "555 5.5.4"),
    ],
)
def test_rcpt_that_cannot_be_taken(arg: str, offered: frozenset[Extension], reply: str) -> None:
    with pytest.raises(Refused, match=f"^{reply} "):
        read_rcpt(arg, offered, smtputf8=False)


@given(st.one_of(st.text(), st.text('<>@"\\ =ab.', max_size=30).map(lambda text: f"FROM:<{text}")))
def test_any_text_is_taken_or_refused(arg: str) -> None:
    try:
        envelope = read_mail(arg, ALL, 10)
    except Refused:
        return
    assert f"<{envelope.sender}>" in arg
