"""Summaries of mail by SMTP: taken from the header as it is, decoded when they are shown; any input."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.mail.summary import SHOWN_CHARS, SUBJECT_CHARS, Summary, decode_words, decoded, of_header


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("=?utf-8?q?H=C3=A4llo_W=C3=B6rld?=", "Hällo Wörld"),
        ("=?UTF-8?B?SMOkbGxv?=", "Hällo"),
        ("=?utf-8?B?SMOkbGxv", "=?utf-8?B?SMOkbGxv"),
        ("=?utf-8?b?SMOkbGx?=", "Häll"),  # padding left out
        ("=?iso-8859-1*de?q?M=E4rz?= 3", "März 3"),
        ("=?utf-8?q?a?= \t=?utf-8?q?b?= c =?utf-8?q?d?=", "ab c d"),
        ("=?utf-8?b?w6Q=?= =?utf-8?b?w6Q=?=", "ää"),
        ("=?utf-8?q?=C3?= =?utf-8?q?=A4?=", "ä"),  # a character cut in two
        ("=?utf-8?q?a?= =?iso-8859-1?q?=E4?=", "aä"),
        ("Re: =?utf-8?q?two words?=", "Re: two words"),
        ("=?none-such?q?a?=", "=?none-such?q?a?="),
        ("=?zlib?b?eJw=?=", "=?zlib?b?eJw=?="),
        ("=?utf-8?b?*?=", ""),
        ("=?utf-8?x?a?=", "=?utf-8?x?a?="),
        ("=?=?=?=?", "=?=?=?=?"),
    ],
)
def test_encoded_words(text: str, shown: str) -> None:
    assert decode_words(text) == shown


@given(st.text(alphabet="=?utf-8qQbB_ aäÄ*\ud7ff\x00\t", max_size=200))
def test_any_text_can_be_decoded(text: str) -> None:
    assert isinstance(decode_words(text), str)


@given(st.binary(max_size=3000), st.binary(max_size=3000))
def test_what_is_kept_is_bounded(one: bytes, other: bytes) -> None:
    kept = of_header(one, other, one)
    assert len(kept.subject) <= 3 * SUBJECT_CHARS
    shown = decoded(kept)
    assert len(shown.subject) <= SUBJECT_CHARS
    assert max(len(shown.from_), len(shown.to)) <= SHOWN_CHARS


def test_it_is_taken_as_it_stands() -> None:
    kept = of_header(b"=?utf-8?q?H=C3=A4llo?=", "Änn <a@x.test>".encode(), b"b@x.test")
    assert kept == Summary(subject="=?utf-8?q?H=C3=A4llo?=", from_="Änn <a@x.test>", to="b@x.test")
    assert decoded(kept).subject == "Hällo"
