"""MIME writing, checked against the standard library's parser."""

import re
import time
from base64 import b64encode
from binascii import b2a_qp
from collections.abc import Sequence
from email import policy
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.parser import BytesParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.content.compose import Attachment, Body, Head, Mailbox, Part, head, head_of_raw

ID = "AZoAAAAAcACAAAAAAAAAAA"
SENDER = Mailbox("billing@sender.test")
TO = (Mailbox("ann@example.test"),)

lines = st.text(st.sampled_from("ab. \t\r\n"), min_size=1, max_size=40) | st.text(
    st.sampled_from("abcdefgh. \t=é\n"), min_size=70, max_size=160
)
lines |= st.text(st.sampled_from("abcdefgh."), min_size=70, max_size=400)
anything = st.text(st.characters(blacklist_categories=["Cs"]), max_size=200)
shown = st.text(st.characters(blacklist_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=200)
mostly_ascii = st.text(st.sampled_from('abc  ,;:"\\<>@=?_-.()é€😀'), min_size=1, max_size=300)


def written(
    *,
    parts: tuple[Part, ...] = (Part("text/plain", "hello"),),
    attachments: tuple[Attachment, ...] = (),
    to: tuple[Mailbox, ...] = TO,
    sender: Mailbox = SENDER,
    subject: str = "Hello",
    headers: dict[str, str] | None = None,
    reply_to: tuple[Mailbox, ...] = (),
    cc: tuple[Mailbox, ...] = (),
) -> bytes:
    fields = Head(
        id=ID,
        hostname="mail.example.test",
        date=1_800_000_000.0,
        sender=sender,
        to=to,
        cc=cc,
        reply_to=reply_to,
        subject=subject,
        headers=headers or {},
    )
    return head(fields) + body(parts, attachments)


def body(parts: Sequence[Part], attachments: Sequence[Attachment] = ()) -> bytes:
    whole = Body(tuple(parts), tuple(attachments), ID)
    return whole.lead(tuple(parts)) + whole.rest


@given(lines)
def test_text_that_needs_no_quoting_is_written_as_the_library_writes_it(text: str) -> None:
    octets = text.replace("\r\n", "\n").replace("\r", "\n").encode()
    content = body([Part("text/plain", text)])
    if b"quoted-printable" in content:
        quoted = b2a_qp(octets).replace(b"\n", b"\r\n")
        assert content.partition(b"\r\n\r\n")[2] == quoted + (b"" if quoted.endswith(b"\n") else b"\r\n")


def parsed(content: bytes) -> EmailMessage:
    message = BytesParser(policy=policy.default).parsebytes(content)
    assert isinstance(message, EmailMessage)
    return message


def decoded(content: bytes, name: str) -> str:
    """What RFC 2047 says of a field, by the parser that keeps white space."""
    raw = BytesParser(policy=policy.compat32).parsebytes(content)[name]
    return str(make_header(decode_header(re.sub(r"\r?\n(?=[ \t])", "", raw))))


def check_form(content: bytes) -> None:
    assert content.endswith(b"\r\n")
    lines = content[:-2].split(b"\r\n")
    assert all(b"\r" not in line and b"\n" not in line and len(line) <= 998 for line in lines)
    assert content.isascii()
    assert b"\0" not in content


def attached(data: bytes, **rest: object) -> Attachment:
    return Attachment(encoded=b64encode(data).decode(), **rest)  # type: ignore[arg-type]


def test_a_message_octet_by_octet() -> None:
    content = written(to=(Mailbox("ann@example.test", "Ann"), Mailbox("bob@example.test")))
    assert content == (
        b"Received: by mail.example.test (Fairlead) with HTTP id\r\n"
        b" AZoAAAAAcACAAAAAAAAAAA; Fri, 15 Jan 2027 08:00:00 +0000\r\n"
        b"From: billing@sender.test\r\n"
        b"To: Ann <ann@example.test>, bob@example.test\r\n"
        b"Subject: Hello\r\n"
        b"Date: Fri, 15 Jan 2027 08:00:00 +0000\r\n"
        b"Message-ID: <AZoAAAAAcACAAAAAAAAAAA@mail.example.test>\r\n"
        b"MIME-Version: 1.0\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\n"
        b"Content-Transfer-Encoding: quoted-printable\r\n"
        b"\r\n"
        b"hello\r\n"
    )


@given(subject=st.one_of(shown, mostly_ascii))
def test_any_subject_reads_back(subject: str) -> None:
    content = written(subject=subject)
    check_form(content)
    assert decoded(content, "Subject") == subject
    assert parsed(content)["To"] == "ann@example.test"


@given(name=st.one_of(shown, mostly_ascii).filter(lambda name: name.strip() == name))
def test_any_display_name_reads_back_with_its_address(name: str) -> None:
    content = written(to=(Mailbox("ann@example.test", name), Mailbox("bob@example.test", name)), subject="s")
    check_form(content)
    message = parsed(content)
    assert [each.addr_spec for each in message["To"].addresses] == ["ann@example.test", "bob@example.test"]
    # The standard parser keeps the white space between encoded words of a phrase, which RFC 2047 6.2 drops.
    told = {each.display_name for each in message["To"].addresses}
    assert {each.replace(" ", "") for each in told} == {name.replace(" ", "")}


@given(text=anything, html=anything)
def test_any_text_and_html_read_back(text: str, html: str) -> None:
    content = written(parts=(Part("text/plain", text), Part("text/html", html)))
    check_form(content)
    found = [part for part in parsed(content).walk() if not part.is_multipart()]
    assert [part.get_content_type() for part in found] == ["text/plain", "text/html"]
    for part, given_text in zip(found, (text, html), strict=True):
        octets = part.get_payload(decode=True)
        assert isinstance(octets, bytes)
        expected = given_text.replace("\r\n", "\n").replace("\r", "\n").encode()
        assert octets.replace(b"\r\n", b"\n") == expected


@given(filename=st.one_of(shown, mostly_ascii), data=st.binary(max_size=300))
def test_any_file_reads_back_under_its_name(filename: str, data: bytes) -> None:
    content = written(attachments=(attached(data, filename=filename, media_type="image/png"),))
    check_form(content)
    (file,) = parsed(content).iter_attachments()
    assert file["Content-Disposition"].params["filename"] == filename
    assert file.get_payload(decode=True) == data
    assert file.get_content_disposition() == "attachment"


hostile = st.text(st.sampled_from('a\r\n:\0 \tB=?é<>@,;"\\'), max_size=60)


@given(subject=hostile, name=hostile, value=hostile, filename=hostile, text=hostile)
def test_nothing_a_caller_gives_adds_a_field_or_a_part(
    subject: str, name: str, value: str, filename: str, text: str
) -> None:
    content = written(
        subject=subject,
        sender=Mailbox("billing@sender.test", name),
        headers={"X-Note": value},
        attachments=(attached(b"data", filename=filename),),
        parts=(Part("text/plain", text + f"\r\n--=_m_{ID}\r\n"),),
    )
    check_form(content)
    message = BytesParser(policy=policy.compat32).parsebytes(content)
    assert message.keys() == [
        *("Received", "From", "To", "Subject", "Date", "Message-ID", "X-Note", "MIME-Version", "Content-Type")
    ]
    assert len(message.get_payload()) == 2


@given(value=st.text(st.sampled_from("ab c\t"), min_size=900, max_size=3000))
def test_long_values_stay_within_998_octets(value: str) -> None:
    content = written(subject=value, headers={"X" * 76: value}, sender=Mailbox("a@b.test", value))
    check_form(content)
    assert decoded(content, "Subject") == value
    assert not any(line.isspace() for line in content.split(b"\r\n\r\n")[0].split(b"\r\n"))


def test_a_token_of_a_thousand_octets_is_encoded_and_a_shorter_one_left_alone() -> None:
    link = "<https://example.test/" + "x" * 800 + ">"
    content = written(headers={"List-Unsubscribe": link, "X-Long": "y" * 1200})
    check_form(content)
    assert b" " + link.encode() + b"\r\n" in content
    assert decoded(content, "X-Long") == "y" * 1200


def test_text_that_looks_encoded_is_shown_as_it_was_given() -> None:
    assert parsed(written(subject="=?utf-8?q?hi?="))["Subject"] == "=?utf-8?q?hi?="


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("plain = text\n" * 20, "quoted-printable"),
        ("Viele Grüße an alle meine Freunde", "quoted-printable"),
        ("Привет" * 9, "base64"),
    ],
)
def test_quoted_printable_unless_it_grows_too_much(text: str, encoding: str) -> None:
    assert parsed(written(parts=(Part("text/plain", text),)))["Content-Transfer-Encoding"] == encoding


def structure(message: EmailMessage) -> object:
    if not message.is_multipart():
        return message.get_content_type()
    return (message.get_content_subtype(), [structure(part) for part in message.iter_parts()])  # type: ignore[arg-type]


def test_the_tree_of_parts() -> None:
    text, html, event = Part("text/plain", "a"), Part("text/html", "<b>"), Part("text/calendar; method=REQUEST", "c")
    picture = attached(b"1", content_id="logo", inline=True, media_type="image/png")
    shown_inline = attached(b"2", inline=True, media_type="image/gif")
    file = attached(b"3", filename="a.pdf", media_type="application/pdf")
    assert structure(parsed(written(parts=(text,)))) == "text/plain"
    assert structure(parsed(written(parts=(text, html)))) == ("alternative", ["text/plain", "text/html"])
    assert structure(parsed(written(parts=(text, html, event), attachments=(file, picture, shown_inline)))) == (
        "mixed",
        [
            ("alternative", ["text/plain", ("related", ["text/html", "image/png"]), "text/calendar"]),
            "application/pdf",
            "image/gif",
        ],
    )
    # Without html there is nothing that could refer to the picture.
    assert structure(parsed(written(parts=(text,), attachments=(picture,)))) == ("mixed", ["text/plain", "image/png"])


def test_parameters_of_a_type_are_kept_and_the_charset_added() -> None:
    message = parsed(written(parts=(Part("text/calendar; method=REQUEST", "c"),)))
    assert dict(message["Content-Type"].params) == {"method": "REQUEST", "charset": "utf-8"}


def test_a_content_id_and_the_name_for_old_readers() -> None:
    file = attached(b"1", content_id="logo@x", inline=True, filename="über.png", media_type="image/png")
    (part,) = parsed(written(parts=(Part("text/html", "<b>"),), attachments=(file,))).iter_attachments()
    assert part["Content-ID"] == "<logo@x>"
    assert part.get_content_disposition() == "inline"
    assert part["Content-Type"].params["name"] == "_ber.png"
    assert part.get_filename() == "über.png"


def test_a_mail_as_attachment_is_not_base64_under_its_own_type() -> None:
    (part,) = parsed(
        written(attachments=(attached(b"From: a\r\n\r\nb", filename="m.eml", media_type="message/rfc822"),))
    ).iter_attachments()
    assert part.get_content_type() == "application/octet-stream"
    assert part.get_payload(decode=True) == b"From: a\r\n\r\nb"


def test_the_callers_message_id_and_date_stand_in_place_of_ours() -> None:
    message = parsed(written(headers={"message-id": "<mine@x.test>", "Date": "Thu, 01 Jan 2026 00:00:00 +0000"}))
    assert message.get_all("Message-ID") == ["<mine@x.test>"]
    assert message.get_all("Date") == ["Thu, 01 Jan 2026 00:00:00 +0000"]


def test_cc_and_reply_to_are_written_and_a_thousand_recipients_folded() -> None:
    many = tuple(Mailbox(f"user{number}@example.test", "Ü") for number in range(1000))
    content = written(cc=many, reply_to=(Mailbox("r@x.test"),))
    check_form(content)
    assert max(len(line) for line in content.split(b"\r\n")) <= 76
    message = parsed(content)
    assert len(message["Cc"].addresses) == 1000
    assert message["Reply-To"] == "r@x.test"


def test_only_a_local_part_beyond_ascii_makes_utf8_headers() -> None:
    content = written(to=(Mailbox("зоя@example.test", "Зоя"),))
    assert "зоя@example.test" in content.decode()
    assert "Зоя" not in content.decode()
    assert written(to=(Mailbox("zoja@example.test", "Зоя"),)).isascii()


@pytest.mark.parametrize(
    "wrong",
    [
        {"headers": {"X Y": "a"}},
        {"headers": {"X-Y\r\nBcc": "a"}},
        {"headers": {"X" * 77: "a"}},
        {"to": (Mailbox("a@b\r\nBcc: c"),)},
        {"to": (Mailbox("a" * 1000),)},
        {"parts": (Part("text/plain\r\nBcc: c", "a"),)},
        {"attachments": (Attachment(encoded="", media_type="x"),)},
        {"attachments": (Attachment(encoded="", content_id="a\r\nb"),)},
    ],
)
def test_what_has_a_form_of_its_own_and_lacks_it_is_an_error(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="not a"):
        written(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("subject", [" " * 30_000, "a" + " " * 30_000, " " * 30_000 + "\u00e9"])
def test_blanks_cost_time_in_proportion(subject: str) -> None:
    sender = Mailbox("a@sender.test")
    started = time.process_time()
    written = head(
        Head(id="x", hostname="relay.test", date=0, sender=sender, to=(sender,), subject=subject, headers={})
    )
    assert time.process_time() - started < 1.0  # it takes 10 ms; quadratic work took 7 s
    assert BytesParser(policy=policy.SMTP).parsebytes(written)["Subject"].strip() == subject.strip()


@pytest.mark.parametrize(
    "given_fields", [b"", b"Date: x\r\n", b"message-id: <a@b>\r\n", b"Date: x\r\nMessage-ID: <a@b>\r\n"]
)
def test_before_a_whole_message_stand_trace_and_what_it_lacks(given_fields: bytes) -> None:
    raw = given_fields + b"\r\nDate: in the body"
    parsed = BytesParser(policy=policy.default).parsebytes(head_of_raw(raw, "ID", "relay.test", 1_800_000_000.0) + raw)
    assert parsed["Received"] == "by relay.test (Fairlead) with HTTP id ID; Fri, 15 Jan 2027 08:00:00 +0000"
    assert parsed["Message-ID"] == ("<a@b>" if b"<a@b>" in given_fields else "<ID@relay.test>")
    assert len(parsed.get_all("Date")) == len(parsed.get_all("Message-ID")) == len(parsed.get_all("Received")) == 1
    assert (b"Date: x" in given_fields) == (parsed["Date"] != "Fri, 15 Jan 2027 08:00:00 +0000")
