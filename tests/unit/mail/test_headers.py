"""Header blocks: what is not touched stays, and hostile ones cost linear time and hide no sender."""

import email.policy
import email.utils
import time
from email.parser import BytesHeaderParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.mail import headers
from mta.mail.headers import from_domains

HEADER = (
    b"Received: from a\r\n\tby b; now\r\n"
    b"From: Alice\r\n <a@alice.test>\r\n"
    b"received : again\r\n"
    b"this is no field\r\n"
    b"BCC: hidden@x.test,\r\n  also@x.test\r\n"
    b"Subject: a: b\r\n"
)


def test_content_is_split_at_the_first_empty_line():
    assert headers.split(HEADER + b"\r\nbody\r\n\r\nmore\r\n") == (HEADER, b"body\r\n\r\nmore\r\n")
    assert headers.split(b"\r\nbody\r\n") == (b"", b"body\r\n")
    assert headers.split(HEADER) == (HEADER, b"")
    assert headers.split(b"") == (b"", b"")


def test_fields_keep_their_bytes_with_folding():
    found = list(headers.fields(HEADER))
    assert [each.name for each in found] == [b"received", b"from", b"received", b"bcc", b"subject"]
    assert found[0].raw == b"Received: from a\r\n\tby b; now\r\n"
    assert found[0].value == b"from a\tby b; now"
    assert found[2].value == b"again"
    assert list(headers.names(HEADER)) == list(dict.fromkeys(each.name for each in found))


def test_a_field_is_found_whatever_its_case_and_unfolded():
    assert headers.first(HEADER, b"from") == b"Alice <a@alice.test>"
    assert headers.first(HEADER, b"subject") == b"a: b"
    assert headers.first(HEADER, b"to") is None
    assert headers.values(HEADER, b"received") == [b"from a\tby b; now", b"again"]
    assert headers.count(HEADER, b"received") == 2


def test_removal_takes_the_folded_lines_too_and_leaves_all_else():
    assert headers.remove(HEADER, {b"bcc"}) == HEADER.replace(b"BCC: hidden@x.test,\r\n  also@x.test\r\n", b"")
    assert headers.remove(HEADER, {b"to"}) == HEADER
    assert headers.remove(b"Bcc: x\r\n", {b"bcc"}) == b""


_lines = st.lists(st.sampled_from([b"A: b", b"Bcc: x", b" folded", b"\tfolded", b"no field", b":", b"Bcc : y", b"C:"]))


@given(_lines)
def test_removing_nothing_changes_nothing_and_removing_leaves_none(lines: list[bytes]):
    header = b"".join(line + b"\r\n" for line in lines)
    assert headers.remove(header, ()) == header
    left = headers.remove(header, {b"bcc"})
    assert headers.count(left, b"bcc") == 0
    assert [each for each in headers.fields(header) if each.name != b"bcc"] == list(headers.fields(left))


@given(st.floats(min_value=0, max_value=4e9))
def test_dates_are_those_of_the_standard_library(at: float):
    assert headers.format_date(at) == email.utils.formatdate(int(at)).replace("-0000", "+0000").replace(", 0", ", ")


@pytest.mark.parametrize(
    ("value", "domains"),
    [
        (b"a@alice.test", ("alice.test",)),
        (b"Alice <a@alice.test>", ("alice.test",)),
        (b'"Alice, of (x) <y@z.test>" <a@alice.test>', ("alice.test",)),
        (b"=?utf-8?q?x=40other.test?= <a@alice.test>", ("alice.test",)),
        (b"a@alice.test (b@comment.test (nested \\) c@d.test))", ("alice.test",)),
        (b"(x) a (y) @ (z) alice (1) . (2) test", ("alice.test",)),
        (b"Group: a@alice.test, B <b@bob.test>;", ("alice.test", "bob.test")),
        (b"a@alice.test, b@bob.test, c@alice.test", ("alice.test", "bob.test")),
        (b"<@route.test:a@alice.test>", ("route.test", "alice.test")),
        (b'"quoted@one.test"@two.test', ("one.test", "two.test")),
        (b"victim@bob.test <a@alice.test>", ("bob.test", "alice.test")),
        (b"a@alice.test@bob.test", ("alice.test", "bob.test")),
        (b'a@"bob.test"', ("bob.test",)),
        (b'"never closed <b@bob.test>', ("bob.test",)),
        (b"(never closed <b@bob.test>", ("bob.test",)),
        (b"((a) <b@bob.test>", ("bob.test",)),
        (b"[never closed <b@bob.test>", ("bob.test",)),
        (b"a@[192.0.2.1]", ("[192.0.2.1]", "192.0.2.1")),
        (b'"a@bob.test"', ("bob.test",)),
        (b'"a@bob.test", b@alice.test', ("bob.test", "alice.test")),
        (b"[a@bob.test]", ("bob.test", "bob.test]")),
        (b"a@bo b.test", ("bo", "bob.test")),
        (b"[a@bob.test] <b@alice.test>", ("bob.test", "bob.test]", "alice.test")),
        (b"a@bob.test\\", ("bob.test\\", "bob.test")),
        (b"a@x|bob.test", ("x|bob.test", "x", "bob.test")),
        ("ü <a@bücher.test>".encode(), ("bücher.test",)),
        (b"a@\xff.test", ("\ufffd.test",)),
        (b"a@BOB.test.", ("BOB.test.",)),
        (b"a@\r\n bob.test", ("bob.test",)),
        (b"root", ()),
        (b"", ()),
        (b"a@", ()),
        (b"@@ <> ()", ()),
    ],
)
def test_every_domain_that_may_be_taken_for_the_sender_is_found(value: bytes, domains: tuple[str, ...]):
    assert from_domains(b"Subject: x@y.test\r\nFrom: " + value + b"\r\n") == domains


def test_no_second_from_field_goes_unseen():
    header = b"From: a@alice.test\r\nnonsense\r\n \r\nFROM : b@bob.test\r\nfrom:\r\n c@carol.test\r\n"
    assert from_domains(header) == ("alice.test", "bob.test", "carol.test")


@given(st.text(alphabet='ab@.<>()",;:\\[] \t', max_size=40))
def test_no_address_that_the_standard_library_reads_is_missed(text: str):
    header = b"From: " + text.encode() + b"\r\n"
    found = {domain.lower().rstrip(".") for domain in from_domains(header)}
    parsed = BytesHeaderParser(policy=email.policy.compat32).parsebytes(header)["From"]
    for _, address in email.utils.getaddresses([parsed]):
        domain = address.rpartition("@")[2].lower().rstrip(".")
        if "@" in address and domain.replace(".", "").isalpha():
            assert domain in found


HOSTILE = [b"(", b'"\\"', b"[", b"@", b"a@b,", b'"', b"\\", b"<", b'("', b" ", b"(\\", b"a@b ", b"\r\n ", b"a.", b'a@"']


@pytest.mark.parametrize("unit", HOSTILE)
def test_hostile_senders_cost_linear_time(unit: bytes):
    def seconds(size: int) -> float:
        header = b"From: " + unit * (size // len(unit)) + b"\r\n"
        started = time.process_time()
        from_domains(header)
        return time.process_time() - started

    assert seconds(headers.FROM_LIMIT - 100) < 0.2  # quadratic would be seconds


def test_a_sender_too_long_to_be_read_is_an_error():
    with pytest.raises(headers.FromError, match="longer than 16 KiB"):
        from_domains(b"From: " + b"a@b.test," * 2000 + b"\r\n")


@pytest.mark.parametrize("unit", [b"a:\r\n", b"\r\n", b"x", b"a:\r\n ", b"a \t", b"bcc:\r\n\t", b"\n\r"])
def test_hostile_blocks_cost_linear_time(unit: bytes):
    header = unit * (1_000_000 // len(unit))
    started = time.process_time()
    headers.names(header)
    headers.remove(header, {b"bcc"})
    from_domains(header)
    assert time.process_time() - started < 3
