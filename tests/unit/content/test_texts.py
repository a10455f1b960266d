"""Texts read back out of content: what was composed, and what others wrote."""

from email.message import EmailMessage

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.content.compose import Attachment, Body, Part
from mta.content.texts import Texts, read_texts

PLAIN, HTML = Part("text/plain", "Grüße\n世界  \n=20"), Part("text/html", "<p>ü</p>\n")
FILE = Attachment(encoded="aGk=", media_type="text/plain", filename="a.txt")
IMAGE = Attachment(encoded="aGk=", media_type="image/png", content_id="x", inline=True)


@pytest.mark.parametrize("files", [(), (FILE,), (IMAGE,), (FILE, IMAGE)])
@pytest.mark.parametrize(
    ("parts", "texts"),
    [
        ((PLAIN,), Texts(PLAIN.text)),
        ((HTML,), Texts(None, HTML.text)),
        ((PLAIN, HTML), Texts(PLAIN.text, HTML.text)),
    ],
)
def test_what_was_composed(parts: tuple[Part, ...], files: tuple[Attachment, ...], texts: Texts) -> None:
    body = Body(parts, files, "u")
    found = read_texts(b"Subject: x\r\n" + body.lead(parts) + body.rest)
    assert (_text(found.plain), _text(found.html)) == (_text(texts.plain), _text(texts.html))


def _text(text: str | None) -> str | None:
    return text and text.rstrip("\n")  # a message ends with a line's end, whatever its text did


@pytest.mark.parametrize("encoding", ["quoted-printable", "base64", "8bit"])
@pytest.mark.parametrize("charset", ["utf-8", "iso-8859-1", "windows-1252"])
def test_what_others_wrote(encoding: str, charset: str) -> None:
    message = EmailMessage()
    message.set_content("Grüße\nan alle\n", charset=charset, cte=encoding)
    message.add_alternative("<p>ü</p>\n", subtype="html", charset=charset, cte=encoding)
    message.add_attachment("<p>no</p>", subtype="html", filename="b.html")
    content = message.as_bytes().replace(b"\n", b"\r\n")
    assert read_texts(content) == Texts("Grüße\nan alle\n", "<p>ü</p>\n")


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        (b"", Texts("")),
        (b"\r\nHi", Texts("Hi")),
        (b"Content-Type: image/png\r\n\r\nx", Texts()),
        (b"Content-Type: text/html; charset=nothing\r\n\r\n\xfc", Texts(None, "ü")),
        (b"Content-Type: text/html; charset=punycode\r\n\r\nx-\xfc", Texts(None, "x-ü")),
        (b"Content-Type: text/html; charset=utf-7\r\n\r\n+2AA-", Texts(None, "?")),
        (b"Content-Type: text/html; charset=zlib\r\n\r\nx", Texts(None, "x")),
        (b"Content-Transfer-Encoding: base64\r\n\r\nx", Texts("")),
        (b"Content-Disposition: attachment\r\n\r\nx", Texts()),
        (b"Content-Type: multipart/mixed\r\n\r\nx", Texts()),
        (b"Content-Type: multipart/mixed; boundary=b\r\n\r\nHi\r\n--b\r\n\r\nx", Texts("x")),
        (b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nx\r\n--bb\r\n--b \r\n\r\ny", Texts("x\n--bb")),
        (b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b--\r\n--b\r\n\r\nx", Texts()),
    ],
)
def test_odd_ones(content: bytes, texts: Texts) -> None:
    assert read_texts(content) == texts


def test_depth_and_parts_are_bounded() -> None:
    deep = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(11))
    assert read_texts(deep + b"\r\nx") == Texts()
    many = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\nContent-Type: a/b\r\n\r\n\r\n" * 600
    assert read_texts(many + b"--b\r\n\r\nx") == Texts()


@given(st.binary(max_size=300), st.sampled_from([b"multipart/mixed; boundary=b", b"text/plain; charset=", b""]))
def test_it_never_raises(content: bytes, kind: bytes) -> None:
    read_texts(b"Content-Type: " + kind + content)
    read_texts(b"Content-Type: " + kind + b"\r\n\r\n--b\r\n" + content)
