"""Whatever is taken for an address is safe to write: no control character, no line end, nothing outside quotes that
ends a path; its domain has one normal form; and the SMTP client can send it.
"""

import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mta.delivery import letter
from mta.ingress.parameters import MailFrom, parse_mail, parse_rcpt
from mta.mail.address import AddressError, domain_of, parse_mailbox
from mta.mail.envelope import Recipient
from mta.mail.reply import Reply
from tests.unit.delivery.peers import CONTENT, job

PIECES = [*'@.[]"\\<>()%: ,;\r\n\t\0', "a", "b.test", "IPv6:", "::1", "fe80::1%", "127.0.0.1", "é", "\u3002"]
PIECES += ["xn--", "xn--bcher-kva", "\u200d", "\u2028", "\x85", "\x9b", "\ud800", "\u202e", "A" * 64, "-", "ß", "１"]
texts = st.lists(st.sampled_from(PIECES) | st.characters(), max_size=12).map("".join)


@given(texts, st.booleans())
@example("a@[IPv6:fe80::1%\r\nDATA]", False)
@example("a@[IPv6:fe80::1% x]", False)
@example("\x9b@b.test", True)
@example("a\u200db@b.test", True)
@settings(max_examples=1000, deadline=None)
def test_any_text(text: str, utf8: bool) -> None:
    try:
        address = parse_mailbox(text, utf8=utf8)
    except AddressError:
        return
    assert address == text
    assert not any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in address)
    local, _, domain = address.rpartition("@")
    assert not any(char in ' <>"\r\n' for char in domain)
    assert local.startswith('"') or not any(char in ' <>"' for char in local)
    normal = domain_of(address)
    assert normal.isascii()
    assert domain_of(f"a@{normal}") == normal
    letter.write(job(sender=address).message, (Recipient(address),), b"", CONTENT)  # raises Trouble if it cannot


@given(texts, texts)
@settings(max_examples=500, deadline=None)
def test_any_command(path: str, parameters: str) -> None:
    argument = f"<{path}> {parameters}"
    mail = parse_mail(f"FROM:{argument}", 1000, holds=True, tls=True)
    assert isinstance(mail, MailFrom) or mail.code in (501, 552, 553, 555)
    rcpt = parse_rcpt(f"TO:{argument}", "mx.test", utf8=True)
    assert isinstance(rcpt, Recipient | Reply)


@pytest.mark.parametrize("path", ["@" * 2000, '"' * 2001, '"\\' * 1000, "a." * 1000, '""' * 1000, "é" * 600])
def test_long_paths_are_refused_at_once(path: str) -> None:
    assert isinstance(parse_mail(f"FROM:<{path}> SMTPUTF8", 1000, holds=True, tls=True), Reply)
