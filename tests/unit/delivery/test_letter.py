"""Content as it goes over the wire: whatever comes in, only CRLF and doubled dots come out, or nothing."""

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.delivery.letter import Extensions, extensions, write
from mta.delivery.trouble import Fault, Trouble
from mta.mail.envelope import Notify, Recipient
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


BY = {"deliverby": "30", "dsn": ""}


@pytest.mark.parametrize(
    ("message", "offered", "lacks", "parameters"),
    [
        ({"deliver_by": 1060.9, "by_mode": "R"}, BY, None, b" BY=60;R"),
        ({"deliver_by": 1030.0, "by_mode": "RT"}, BY, None, b" BY=30;RT"),
        ({"deliver_by": 1029.9, "by_mode": "R"}, BY, Fault.NEEDS_DELIVERBY, None),
        ({"deliver_by": 1060.0, "by_mode": "R"}, {}, Fault.NEEDS_DELIVERBY, None),
        ({"deliver_by": 1000.5, "by_mode": "R"}, {"deliverby": ""}, Fault.OUT_OF_TIME, None),
        ({"deliver_by": 1001.0, "by_mode": "R"}, {"deliverby": "x,30"}, None, b" BY=1;R"),
        ({"deliver_by": 1001.0, "by_mode": "R"}, {"deliverby": "1,30"}, None, b" BY=1;R"),
        ({"deliver_by": 1001.0, "by_mode": "N"}, BY, None, b" BY=1;N"),
        ({"deliver_by": 990.0, "by_mode": "NT"}, BY, None, b" BY=-10;NT"),
        ({"deliver_by": 1.0, "by_mode": "N"}, {}, None, b""),
        ({"deliver_by": -2e9, "by_mode": "N"}, BY, None, b" BY=-999999999;N"),
        ({"deliver_by": 1060.0}, BY, None, b" BY=60;R"),  # ours: whoever can keep it, shall
        ({"deliver_by": 1029.0}, BY, None, b""),
        ({"deliver_by": 1060.0}, {}, None, b""),
        ({}, BY, None, b""),
        ({"priority": -3}, {"mt-priority": "MIXER"}, None, b" MT-PRIORITY=-3"),
        ({}, {"mt-priority": ""}, None, b" MT-PRIORITY=0"),
        ({"priority": 9}, {}, None, b""),
        ({"tls_required": "yes"}, {"requiretls": ""}, None, b" REQUIRETLS"),
        ({"tls_required": "no"}, {"requiretls": ""}, None, b""),
        ({}, {"requiretls": ""}, None, b""),
    ],
)
def test_what_is_passed_on_of_deadline_priority_and_requiretls(message, offered, lacks, parameters):
    made = write(msgspec.structs.replace(MADE.message, **message), MADE.recipients, b"", b"S: s\r\n\r\n")
    assert made.unfit(extensions(offered), 1000.0) is lacks
    if parameters is not None:
        mail, *_ = made.commands(extensions(offered), 1000.0)
        assert mail == b"MAIL FROM:<" + MADE.message.sender.encode() + b">" + parameters + b"\r\n"


@pytest.mark.parametrize(
    ("deliver_by", "offered", "notify", "expected"),
    [
        (1060.0, {"dsn": ""}, Notify.UNSET, b" NOTIFY=FAILURE,DELAY"),
        (1060.0, {"dsn": ""}, Notify.SUCCESS, b" NOTIFY=SUCCESS,DELAY"),
        (1060.0, {"dsn": ""}, Notify.NEVER, b" NOTIFY=NEVER"),
        (1000.0, {"dsn": ""}, Notify.UNSET, b""),
        (1060.0, BY, Notify.UNSET, b""),
        (1060.0, {}, Notify.UNSET, b""),
    ],
)
def test_a_next_hop_that_keeps_no_deadlines_is_asked_to_tell_of_delays(deliver_by, offered, notify, expected):
    message = msgspec.structs.replace(MADE.message, deliver_by=deliver_by, by_mode="N")
    made = write(message, (Recipient("b@x.test", notify=int(notify)),), b"", b"S: s\r\n\r\n")
    assert made.commands(extensions(offered), 1000.0)[1] == b"RCPT TO:<b@x.test>" + expected + b"\r\n"
