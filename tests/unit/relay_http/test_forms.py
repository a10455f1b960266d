"""Forms of both types: what clients send is read, and what is no form is refused."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_http.forms import PARTS_LIMIT, URLENCODED, read_form
from relay_http.problem import Refusal

KIND = "multipart/form-data; boundary=b7"


def part(header: bytes, data: bytes) -> bytes:
    return b"--b7\r\n" + header + b"\r\n\r\n" + data + b"\r\n"


def field(name: str, data: bytes) -> bytes:
    return part(f'Content-Disposition: form-data; name="{name}"'.encode(), data)


END = b"--b7--\r\n"


def test_urlencoded_fields_in_order() -> None:
    found = read_form(b"to=a%40b.test&to=c&&html=%C3%BC+%26&empty=&bare", URLENCODED)
    assert [(each.name, each.text(), each.filename) for each in found] == [
        ("to", "a@b.test", None),
        ("to", "c", None),
        ("html", "ü &", None),
        ("empty", "", None),
        ("bare", "", None),
    ]


def test_multipart_fields_and_files() -> None:
    header = b'content-disposition: form-data; name="attachment"; filename="\xc3\xbc %22a%22.txt"'
    header += b"\r\nContent-Type: text/plain"
    body = b"preamble\r\n" + field("text", b"one\r\n--b\r\ntwo") + part(header, b"\0\xff") + END + b"epilogue"
    text, file = read_form(body, KIND)
    assert (text.name, text.text(), text.filename, text.media_type) == ("text", "one\r\n--b\r\ntwo", None, "")
    assert (file.name, bytes(file.data), file.filename, file.media_type) == (
        "attachment",
        b"\0\xff",
        'ü "a".txt',
        "text/plain",
    )


@pytest.mark.parametrize(
    ("disposition", "filename"),
    [
        ('form-data; name="a"; filename=""', ""),
        ('form-data; name="a"', None),
        ("form-data; name=a; filename=b.txt", "b.txt"),
        (r'form-data; name="a"; filename="say \"hi\".txt"', 'say "hi".txt'),
        (r'form-data; name="a"; filename="c:\dir\b.txt"', r"c:\dir\b.txt"),
        ("form-data; name=\"a\"; filename*=utf-8''%C3%BC%20b.txt", "ü b.txt"),
        ('form-data; name="a"; filename="u.txt"; filename*=UTF-8\'\'%C3%BC.txt', "ü.txt"),
        ('form-data; name="a"; filename="b;c=d.txt"', "b;c=d.txt"),
        ('form-data; name="a"; filename="x%0D%0Ay"', "x\r\ny"),
    ],
)
def test_names_of_files_as_clients_write_them(disposition: str, filename: str | None) -> None:
    (found,) = read_form(part(f"Content-Disposition: {disposition}".encode(), b"x") + END, KIND)
    assert (found.name, found.filename) == ("a", filename)


def test_an_empty_part_and_padding_behind_a_boundary() -> None:
    body = b'--b7 \t\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n--b7--'
    assert [each.text() for each in read_form(body, KIND)] == [""]


def test_a_quoted_boundary() -> None:
    (found,) = read_form(field("a", b"1").replace(b"b7", b"b 7") + b"--b 7--", 'multipart/form-data; boundary="b 7"')
    assert found.text() == "1"


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (field("a", b"1") + END, "multipart/form-data"),
        (field("a", b"1") + END, "multipart/form-data; boundary="),
        (field("a", b"1") + END, f"multipart/form-data; boundary={'b' * 71}"),
        (field("a", b"1") + END, "multipart/form-data; boundary=b8"),
        (field("a", b"1"), KIND),
        (field("a", b"1")[:-2], KIND),
        (field("a", b"1") + b"--b7x--", KIND),
        (b"", KIND),
        (b"--b7", KIND),
        (b"--b7\r\n\r\nx\r\n--b7--", KIND),
        (part(b'Content-Disposition: attachment; name="a"', b"") + END, KIND),
        (part(b"Content-Disposition: form-data", b"") + END, KIND),
        (part(b'Content-Disposition: form-data; name="\xff"', b"") + END, KIND),
        (part(b'Content-Disposition: form-data; name="a"\r\nContent-Transfer-Encoding: base64', b"") + END, KIND),
        (part(b'Content-Disposition: form-data; name="a"\r\nX: ' + b"x" * 5000, b"") + END, KIND),
        (field("a", b"1") * (PARTS_LIMIT + 1) + END, KIND),
        (b"a=1&" * (PARTS_LIMIT + 1), URLENCODED),
        (b"%ff=1", URLENCODED),
    ],
)
def test_what_is_no_form_is_refused(body: bytes, kind: str) -> None:
    with pytest.raises(Refusal) as refused:
        read_form(body, kind)
    assert refused.value.status == 400


def test_thousands_of_parts() -> None:
    assert len(read_form(field("to", b"a@b.test") * PARTS_LIMIT + END, KIND)) == PARTS_LIMIT


def test_a_value_that_is_no_text_names_its_parameter() -> None:
    (found,) = read_form(field("html", b"\xff") + END, KIND)
    with pytest.raises(Refusal) as refused:
        found.text()
    assert refused.value.problems[0].field == "html"


@given(st.lists(st.tuples(st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1), st.binary())))
def test_what_is_written_is_read_unless_it_has_the_boundary(fields: list[tuple[str, bytes]]) -> None:
    fields = [(name, data.replace(b"--b7", b"")) for name, data in fields]
    found = read_form(b"".join([field(*each) for each in fields]) + END, KIND)
    assert [(each.name, bytes(each.data)) for each in found] == fields


@given(st.binary(max_size=300))
def test_any_octets_are_read_or_refused(octets: bytes) -> None:
    for body in (octets, b"--b7\r\n" + octets, field("a", octets) + octets):
        for kind in (KIND, URLENCODED):
            with contextlib.suppress(Refusal):
                assert all(len(each.data) <= len(body) for each in read_form(body, kind))
