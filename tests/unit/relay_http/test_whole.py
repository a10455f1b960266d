"""Whole messages that are handed over as they are."""

import time

import pytest

from mta.content.compose import Mailbox
from relay_http.whole import HEADER_OCTETS, read_whole


def test_what_is_not_touched_stays() -> None:
    octets = b"X: a\r\nFrom: Ann <ann@shop.test>\r\nSubject: hi\r\n there\r\n\r\n. \xff\r\n\r\n"
    found = read_whole(octets)
    assert found.octets == octets
    assert (found.sender, found.subject, found.message_id) == (Mailbox("ann@shop.test", "Ann"), "hi there", "")


def test_line_ends_become_crlf_and_the_blind_stay_so() -> None:
    found = read_whole(b"From: ann@shop.test\nBcc: a@x.test,\n b@x.test\nResent-Bcc: c@x.test\n\na\rb\nBcc: body")
    assert found.octets == b"From: ann@shop.test\r\n\r\na\r\nb\r\nBcc: body\r\n"


def test_a_line_as_long_as_may_be() -> None:
    assert read_whole(b"From: ann@shop.test\r\n\r\n" + b"x" * 998 + b"\r\n" + b"y" * 998).octets.endswith(b"y\r\n")


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"Subject: x\r\n\r\n",
        b"\r\nFrom: ann@shop.test\r\n",
        b"From: ann@shop.test\r\nFrom: ann@shop.test\r\n\r\n",
        b"From: ann@shop.test, bob@other.test\r\n\r\n",
        b'From: "bob@other.test" <ann@shop.test> <x@other.test>\r\n\r\n',
        b"From: ann@shop.test (bob@other.test\r\n\r\n",
        b"From: @other.test:ann@shop.test\r\n\r\n",
        b"From: Ann\r\n\r\n",
        b"From: ann@shop.test\r\n\r\n\0",
        b"From: ann@shop.test\r\n\r\n" + b"x" * 999,
        b"From: ann@shop.test\r\n\r\n" + b"x" * 999 + b"\r\ny\r\n",
        b"From: ann@shop.test\r\nX: " + b"x\r\n " * HEADER_OCTETS,
    ],
)
def test_what_is_refused(octets: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        read_whole(octets)


@pytest.mark.parametrize("word", ["=?no-such?q?x?=", "=?utf-8?b?x?=", "=?utf-8?q?=FF?="])
def test_encoded_words_that_cannot_be_read(word: str) -> None:
    found = read_whole(f"From: {word} <ann@shop.test>\r\nSubject: {word}\r\n\r\n".encode())
    assert found.sender.address == "ann@shop.test"
    assert found.subject


@pytest.mark.parametrize(
    "word", ["=?utf-7?q?+2AA-?=", r"=?raw_unicode_escape?q?\ud800?=", r"=?unicode_escape?q?\ud800?="]
)
def test_halves_of_characters_become_writable(word: str) -> None:
    found = read_whole(f"From: {word} <ann@shop.test>\r\nSubject: {word}\r\n\r\n".encode())
    assert "?" in found.subject.encode().decode()
    assert "?" in found.sender.name.encode().decode()


def test_many_beginnings_of_encoded_words_take_no_more_than_their_octets() -> None:
    subject = b"\r\n".join([b" " + b"=?a?q?b " * 100] * 320)
    began = time.process_time()
    assert read_whole(b"From: ann@shop.test\r\nSubject:" + subject + b"\r\n\r\n").subject.startswith("=?a?q?b ")
    assert time.process_time() - began < 2
