"""Addresses as requests write them."""

import time

import pytest

from mta.content.compose import Mailbox
from mta.mail.address import AddressError
from relay_http.values import mailbox, mailboxes

_LONG = 200_000  # characters: a moment when they are read once, minutes when again and again


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (" a@b.test ", Mailbox("a@b.test")),
        ("<a@b.test>", Mailbox("a@b.test")),
        ("Ann  <a@b.test>\t", Mailbox("a@b.test", "Ann")),
        (r'"An\"n, <x>" < a@b.test >', Mailbox("a@b.test", 'An"n, <x>')),
        (r'"a>"@b.test', Mailbox(r'"a>"@b.test')),
    ],
)
def test_a_mailbox(text: str, found: Mailbox) -> None:
    assert mailbox(text) == found


@pytest.mark.parametrize("text", ["", "Ann", "a@b.test>", "<a@b.test", "A <x> <a@b.test>", '"A <a@b.test>', "<a>b.c>"])
def test_what_is_no_mailbox(text: str) -> None:
    with pytest.raises(AddressError):
        mailbox(text)


def test_commas_in_names_cut_nothing() -> None:
    assert mailboxes(r'"A, \"B" <a@b.test>,, c@d.test ,') == [Mailbox("a@b.test", 'A, "B'), Mailbox("c@d.test")]


@pytest.mark.parametrize("text", ["", " , ", 'a@b.test, "', "a@b.test >", "a@b.test, <x"])
def test_what_is_no_list(text: str) -> None:
    with pytest.raises(AddressError, match=r"\w"):
        mailboxes(text)


@pytest.mark.parametrize("text", [" " * _LONG + "a", "a" + " " * _LONG + "b", r"\"" * _LONG, "<" * _LONG, '"' * _LONG])
def test_hostile_texts_take_no_more_than_their_octets(text: str) -> None:
    began = time.process_time()
    for read in (mailbox, mailboxes):
        with pytest.raises(AddressError):
            read(text)
    assert time.process_time() - began < 2
