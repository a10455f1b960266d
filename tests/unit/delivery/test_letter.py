"""Content as it goes over the wire: whatever comes in, only CRLF and doubled dots come out, or nothing."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.delivery.letter import Extensions, extensions, write
from mta.delivery.trouble import Fault, Trouble
from tests.unit.delivery.peers import job

MADE = job()
pieces = st.lists(st.sampled_from([b"\r\n", b"\n", b"\r", b".", b"\0", b"x", b"\r\n.\r\n", b"\xe4"]), max_size=20)


def letter(content, signature=b""):
    return write(MADE.message, MADE.recipients, signature, content)


@given(pieces.map(b"".join), st.sampled_from([b"", b"DKIM-Signature: x\r\n"]), st.integers(0, 40))
def test_only_crlf_and_doubled_dots(content, signature, piece):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("mta.delivery.letter.PIECE", piece)  # cut anywhere
        only_crlf_and_doubled_dots(content, signature)


def only_crlf_and_doubled_dots(content, signature):
    bare = re.search(rb"\0|\r(?!\n)|(?<!\r)\n", content + (b"" if content.endswith(b"\r\n") else b"\r\n"))
    if bare:
        with pytest.raises(Trouble) as met:
            letter(content, signature)
        assert met.value.fault is Fault.BAD_CONTENT
        return
    octets = letter(content, signature).octets
    # read as RFC 5321 4.5.2 has it: the first line that is a dot alone ends it, one leading dot is taken off
    lines = octets.split(b"\r\n")
    end = lines.index(b".")
    assert lines[end + 1 :] == [b""]
    read = b"".join(line.removeprefix(b".") + b"\r\n" for line in lines[:end])
    whole = signature + content
    assert read == (whole if whole.endswith(b"\r\n") else whole + b"\r\n")


def test_size_is_that_of_the_message_not_of_its_dots():
    assert letter(b"..\r\n.\r\n", b"S: x\r\n").size == 13


@pytest.mark.parametrize(
    ("offered", "expected"),
    [
        ({}, Extensions()),
        ({"size": ""}, Extensions(size=0)),
        ({"size": "0"}, Extensions(size=0)),
        ({"size": "-1"}, Extensions(size=0)),
        ({"size": "\u0661"}, Extensions(size=0)),
        ({"size": "10", "pipelining": "", "dsn": ""}, Extensions(size=10, pipelining=True, dsn=True)),
    ],
)
def test_extensions(offered, expected):
    assert extensions(offered) == expected
