import email
import email.policy
import re
from email.utils import parsedate_to_datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.mail.dsn import DsnKind, DsnRecipient, DsnReport, build_dsn

ID = "BZqm2o6xcp-KXz_Vn1x1Zg"
HEADER = b"From: alice@example.com\r\nTo: bob@example.org\r\nSubject: hi\r\n"
CONTENT = HEADER + b"\r\nHello\r\n--not a boundary\r\nBye\r\n"
BOB = DsnRecipient(
    address="bob@example.org",
    reply="550 5.1.1 no such user here",
    relay="mx.example.org[192.0.2.1]:25",
    last_attempt_at=1_700_000_100.0,
)
REPORT = DsnReport(
    kind=DsnKind.FAILED,
    id=ID,
    hostname="relay.example.com",
    at=1_700_000_200.0,
    sender="alice@example.com",
    recipients=(BOB,),
    message_id="AZqm2o6xcp-KXz_Vn1x1Zg",
    arrived_at=1_700_000_000.0,
    content=CONTENT,
    size=len(CONTENT),
)


def report(**changes):
    return msgspec.structs.replace(REPORT, **changes)


def told(**changes):
    """The report with its one recipient changed."""
    return report(recipients=(msgspec.structs.replace(BOB, **changes),))


def parsed(dsn):
    """Parse a DSN, as the mail client of its reader does: header, words, status groups, what is returned."""
    lines = dsn.split(b"\r\n")
    assert lines.pop() == b""
    assert not any(b"\r" in line or b"\n" in line or b"\0" in line or len(line) > 998 for line in lines)
    message = email.message_from_bytes(dsn, policy=email.policy.SMTPUTF8)
    every = list(message.walk())
    assert not [each.defects for each in every if each.defects]
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "delivery-status"
    words, status, returned = message.get_payload()
    return message, words.get_content().replace("\r\n", "\n"), status, returned


def status_groups(status):
    """The groups of fields of a delivery-status part, however its type is spelled."""
    blocks = (
        status.get_payload()
        if isinstance(status.get_payload(), list)
        else [email.message_from_string(text) for text in status.get_payload().split("\n\n")]
    )
    return [dict(block.items()) for block in blocks if block.items()]


def raw_part(dsn, number):
    """The octets of a part's body."""
    return re.split(rf"\r\n--=_{ID}(?:--)?\r\n".encode(), dsn)[number].partition(b"\r\n\r\n")[2]


def test_header():
    message, *_ = parsed(build_dsn(report(), 1000))
    assert message["From"] == "Mail Delivery System <MAILER-DAEMON@relay.example.com>"
    assert message["To"] == "alice@example.com"
    assert message["Auto-Submitted"] == "auto-replied"
    assert message["Message-ID"] == f"<{ID}@relay.example.com>"
    assert message["MIME-Version"] == "1.0"
    assert parsedate_to_datetime(message["Date"]).timestamp() == 1_700_000_200


def test_failed():
    _, words, status, _ = parsed(build_dsn(report(), 1000))
    assert status.get_content_type() == "message/delivery-status"
    assert status_groups(status) == [
        {"Reporting-MTA": "dns; relay.example.com", "Arrival-Date": "Tue, 14 Nov 2023 22:13:20 +0000"},
        {
            "Final-Recipient": "rfc822; bob@example.org",
            "Action": "failed",
            "Status": "5.1.1",
            "Remote-MTA": "dns; mx.example.org",
            "Diagnostic-Code": "smtp; 550 5.1.1 no such user here",
            "Last-Attempt-Date": "Tue, 14 Nov 2023 22:15:00 +0000",
        },
    ]
    assert "could not be delivered" in words
    assert "<bob@example.org>\n    mx.example.org said:\n    550 5.1.1 no such user here\n" in words
    assert "AZqm2o6xcp-KXz_Vn1x1Zg" in words


def test_expired_is_a_failure_of_time():
    expired = told(reply="451 4.7.1 try again later")
    _, words, status, _ = parsed(build_dsn(msgspec.structs.replace(expired, kind=DsnKind.EXPIRED), 1000))
    group = status_groups(status)[1]
    assert (group["Action"], group["Status"]) == ("failed", "4.4.7")
    assert group["Diagnostic-Code"] == "smtp; 451 4.7.1 try again later"
    assert "in time" in words


def test_delayed_says_until_when():
    delayed = report(kind=DsnKind.DELAYED, retry_until=1_700_250_000.0, ret="FULL")
    delayed = msgspec.structs.replace(delayed, recipients=(DsnRecipient(address="bob@example.org"),))
    message, words, status, returned = parsed(build_dsn(delayed, 1000))
    group = status_groups(status)[1]
    assert (group["Action"], group["Status"]) == ("delayed", "4.0.0")
    assert group["Will-Retry-Until"] == "Fri, 17 Nov 2023 19:40:00 +0000"
    assert "do not need to send it again" in words
    assert "until Fri, 17 Nov 2023" in words
    assert message["Subject"] == "Your message is delayed"
    # RFC 3461 4.3: RET is for failures
    assert returned.get_content_type() == "text/rfc822-headers"


def test_relayed():
    relayed = msgspec.structs.replace(told(reply="250 2.1.5 ok"), kind=DsnKind.RELAYED)
    _, _, status, returned = parsed(build_dsn(relayed, 1000))
    group = status_groups(status)[1]
    assert (group["Action"], group["Status"]) == ("relayed", "2.1.5")
    assert returned.get_content_type() == "text/rfc822-headers"


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        ("550 5.7.26 no", "5.7.26"),
        ("550 no", "5.0.0"),
        ("", "5.0.0"),
        ("450 4.2.0 no", "5.0.0"),
        ("550 5.1.1.1 no", "5.1.1"),
        ("550 5.9999.1 no", "5.0.0"),
    ],
)
def test_status_says_what_the_action_says(reply, status):
    assert status_groups(parsed(build_dsn(told(reply=reply), 1000))[2])[1]["Status"] == status


def test_our_own_words_are_not_the_other_sides():
    group = status_groups(parsed(build_dsn(told(reply="550 5.1.2 no such domain", relay=""), 1000))[2])[1]
    assert group["Diagnostic-Code"] == "x-fairlead; 550 5.1.2 no such domain"
    assert "Remote-MTA" not in group


def test_remote_without_a_name():
    group = status_groups(parsed(build_dsn(told(relay="[2001:db8::1]:25"), 1000))[2])[1]
    assert group["Remote-MTA"] == "dns; [2001:db8::1]"


def test_parameters_come_back_decoded():
    given_report = msgspec.structs.replace(told(orcpt="rfc822;Bob+2BTest@example.org"), envid="QQ+2B314+3D159+zz")
    message_group, group = status_groups(parsed(build_dsn(given_report, 1000))[2])
    assert message_group["Original-Envelope-Id"] == "QQ+314=159+zz"
    assert group["Original-Recipient"] == "rfc822; Bob+Test@example.org"


@pytest.mark.parametrize(
    ("orcpt", "expected"),
    [
        ("rfc822;j+C3+B6rg+2B@x.test", "utf-8; jörg+@x.test"),
        ("rfc822;j+C3rg@x.test", "rfc822; j+C3rg@x.test"),
        ("rfc822;j+C2+85rg@x.test", "rfc822; j?rg@x.test"),
    ],
)
def test_an_original_recipient_whose_utf8_came_as_xtext(orcpt: str, expected: str):
    assert f"\r\nOriginal-Recipient: {expected}\r\n".encode() in build_dsn(told(orcpt=orcpt), 1000)


def test_every_recipient_has_a_group():
    many = report(recipients=tuple(DsnRecipient(address=f"r{number}@example.org") for number in range(50)))
    _, words, status, _ = parsed(build_dsn(many, 1000))
    groups = status_groups(status)
    assert [each["Final-Recipient"] for each in groups[1:]] == [
        f"rfc822; r{number}@example.org" for number in range(50)
    ]
    assert words.count("@example.org>") == 50


def test_full_return_is_the_message_byte_for_byte():
    dsn = build_dsn(report(ret="FULL"), len(CONTENT))
    _, _, _, returned = parsed(dsn)
    assert returned.get_content_type() == "message/rfc822"
    assert raw_part(dsn, 3) == CONTENT
    assert dsn.isascii()


@pytest.mark.parametrize(
    "changes",
    [
        {"ret": "HDRS"},
        {"ret": ""},
        {"ret": "FULL", "size": len(CONTENT) + 1},
        {"ret": "FULL", "content": HEADER + b"\r\n" + b"x" * 999 + b"\r\n", "size": len(HEADER) + 1003},
        {"ret": "FULL", "content": HEADER + b"\r\nbare\nbare\r\n", "size": len(HEADER) + 13},
        {"ret": "FULL", "content": HEADER + b"\r\nbare\rbare\r\n", "size": len(HEADER) + 13},
        {"ret": "FULL", "content": HEADER + b"\r\nnul\0\r\n", "size": len(HEADER) + 8},
    ],
)
def test_otherwise_the_header_comes_back(changes):
    dsn = build_dsn(report(**changes), 5000)
    assert parsed(dsn)[3].get_content_type() == "text/rfc822-headers"
    assert raw_part(dsn, 3) == HEADER


def test_message_over_the_limit_is_not_returned_whole():
    dsn = build_dsn(report(ret="FULL"), len(CONTENT) - 1)
    parsed(dsn)
    assert raw_part(dsn, 3) == HEADER


def test_header_over_the_limit_is_cut_at_a_line():
    dsn = build_dsn(report(), len(HEADER) - 5)
    parsed(dsn)
    assert raw_part(dsn, 3) == b"From: alice@example.com\r\nTo: bob@example.org\r\n"
    first_octets = build_dsn(report(content=CONTENT[: len(HEADER) - 5]), 1000)
    assert raw_part(first_octets, 3) == b"From: alice@example.com\r\nTo: bob@example.org\r\n"
    assert raw_part(build_dsn(report(content=b"x" * 500, size=1000), 1000), 3).strip() == b""


def test_message_without_a_header():
    dsn = build_dsn(report(content=b"\r\nno header\r\n\r\nat all\r\n", size=22), 1000)
    parsed(dsn)
    assert raw_part(dsn, 3).strip() == b""


def test_long_header_line_is_encoded():
    header = b"From: a@b\r\nReferences: " + b"x" * 5000 + b"\r\n"
    _, _, _, returned = parsed(build_dsn(report(content=header + b"\r\n", size=len(header) + 2), 50_000))
    assert returned["Content-Transfer-Encoding"] == "base64"
    assert returned.get_payload(decode=True) == header


def test_eight_bit_body_comes_back_as_it_is():
    content = HEADER + "\r\nGrüße\r\n".encode() + b"\xff\r\n"
    dsn = build_dsn(report(ret="FULL", content=content, size=len(content)), 1000)
    message, _, status, returned = parsed(dsn)
    assert message["Content-Transfer-Encoding"] == "8bit"
    assert returned["Content-Transfer-Encoding"] == "8bit"
    assert returned.get_content_type() == "message/rfc822"
    assert status.get_content_type() == "message/delivery-status"
    assert raw_part(dsn, 3) == content
    assert build_dsn(report(ret="HDRS", content=content, size=len(content)), 1000).isascii()


@pytest.mark.parametrize(("ret", "kind"), [("FULL", "message/global"), ("HDRS", "message/global-headers")])
def test_internationalised_header(ret, kind):
    # RFC 6533 5
    header = "From: älice@example.com\r\nSubject: Grüße\r\n".encode()
    content = header + b"\r\nx\r\n"
    dsn = build_dsn(report(ret=ret, content=content, size=len(content)), 1000)
    assert f"Content-Type: {kind}\r\nContent-Transfer-Encoding: 8bit\r\n".encode() in dsn
    assert raw_part(dsn, 3) == (content if ret == "FULL" else header)


def test_old_eight_bit_header_is_not_called_utf8():
    content = b"From: a@b\r\nSubject: Gr\xfc\xdfe\r\n\r\n"
    dsn = build_dsn(report(content=content, size=len(content)), 1000)
    assert b"Content-Type: text/rfc822-headers\r\nContent-Transfer-Encoding: 8bit\r\n" in dsn


def test_internationalised_addresses():
    # RFC 6533 3
    dsn = build_dsn(
        msgspec.structs.replace(
            told(address="jörg@bücher.example", orcpt="utf-8;j\\x{F6}rg@x"), sender="älice@example.com"
        ),
        1000,
    )
    assert b"Content-Type: message/global-delivery-status\r\nContent-Transfer-Encoding: 8bit\r\n" in dsn
    assert "Final-Recipient: utf-8; jörg@bücher.example\r\n".encode() in dsn
    assert b"Original-Recipient: utf-8; j\\x{F6}rg@x\r\n" in dsn
    assert "To: <älice@example.com>\r\n".encode() in dsn
    words = email.message_from_bytes(dsn, policy=email.policy.SMTPUTF8).get_payload()[0]
    assert "<jörg@bücher.example>" in words.get_content()


def test_long_reply_is_folded_and_bounded():
    dsn = build_dsn(told(reply="550 5.7.1 " + "because " * 10_000), 1000)
    _, _, status, _ = parsed(dsn)
    assert len(status_groups(status)[1]["Diagnostic-Code"]) < 1000
    assert max(map(len, dsn.split(b"\r\n"))) <= 78


HOSTILE = st.one_of(
    st.text(max_size=60),
    st.lists(
        st.sampled_from(
            ["\r\n", "\n", "\r", "\0", "\x85", "\u2028", "\udcff", " ", "é", "x" * 300, "a@b", ";", "+0D+0A", "+00",
             "\r\n\r\n--=_", "Subject: evil", "550 5.1.1 ", "\r\n ", f"--=_{ID}"]
        ),
        max_size=8,
    ).map("".join),
)  # fmt: skip
RETURNED = st.lists(
    st.sampled_from(
        [b"\r\n", b"\n", b"\r", b"\0", b"A: b\r\n", b"\r\n\r\n", b"x" * 600, b"\xff", "é".encode(), b"--=_\r\n", b" "]
    )
).map(b"".join)


@given(
    texts=st.tuples(*[HOSTILE] * 6),
    content=RETURNED,
    ret=st.sampled_from(["FULL", "HDRS", ""]),
    kind=st.sampled_from(DsnKind),
    limit=st.integers(0, 2000),
)
def test_nothing_from_outside_breaks_the_structure(texts, content, ret, kind, limit):
    address, orcpt, reply, relay, envid, sender = texts
    dsn = build_dsn(
        report(
            recipients=(DsnRecipient(address=address, orcpt=orcpt, reply=reply, relay=relay), BOB),
            kind=kind, envid=envid, sender=sender, content=content, size=len(content), ret=ret,
        ),
        limit,
    )  # fmt: skip
    assert all(len(line) <= 998 for line in dsn.split(b"\r\n"))
    assert not re.search(rb"\r(?!\n)|(?<!\r)\n|\0", dsn)
    header, _, body = dsn.partition(b"\r\n\r\n")
    assert [line.partition(b":")[0] for line in header.split(b"\r\n") if not line.startswith(b"\t")] == [
        b"From", b"To", b"Subject", b"Date", b"Message-ID", b"Auto-Submitted", b"MIME-Version", b"Content-Type",
        b"Content-Transfer-Encoding",
    ]  # fmt: skip
    assert re.findall(rf"(?m)^--=_{ID}(?:--)?\r$".encode(), body) == [f"--=_{ID}\r".encode()] * 3 + [
        f"--=_{ID}--\r".encode()
    ]
    groups = raw_part(dsn, 2).decode().split("\r\n\r\n")
    assert len(groups) == 3
    names = re.compile(r"(?:[A-Z][A-Za-z-]+: [^\r\n]*(?:\r\n [^\r\n]+)*(?:\r\n|\Z))+")
    assert all(names.fullmatch(group.removesuffix("\r\n")) for group in groups if group)


@pytest.mark.parametrize(("reply", "status"), [("550 5.4.7 time", "5.4.7"), ("550 4.4.7 time", "4.4.7"), ("", "4.4.7")])
def test_expired_says_whose_time_was_over(reply, status):
    dsn = build_dsn(msgspec.structs.replace(told(reply=reply), kind=DsnKind.EXPIRED), 1000)
    assert status_groups(parsed(dsn)[2])[1]["Status"] == status


def test_what_was_asked_for_comes_back():
    asked = report(deliver_by=1_700_000_060.0, hold="for;30\r\nX: y")
    group = status_groups(parsed(build_dsn(asked, 1000))[2])[0]
    assert parsedate_to_datetime(group["Deliver-By-Date"]).timestamp() == 1_700_000_060
    assert group["Future-Release-Request"] == "for;30?X: y"
    assert "Deliver-By-Date" not in status_groups(parsed(build_dsn(report(), 1000))[2])[0]
