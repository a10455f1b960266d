"""Content after DATA: CRLF.CRLF alone ends it, however it is cut; nothing is changed but the stuffing of dots."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.ingress import replies
from mta.ingress.body import Body, Budget

SIZE = 10_000_000
AROUND = (b"\r\n", b"\n", b"\r", b"\r\r\n", b"\r\n\0", b"\n\r", b"\0\r\n")
SMUGGLING = [left + b"." + right for left in AROUND for right in AROUND if (left, right) != (b"\r\n", b"\r\n")]
SMUGGLED = b"MAIL FROM:<evil@evil.test>\r\n"


def new_body(size: int = SIZE, line: int = 65536, *, fix: bool = False) -> Body:
    return Body(size, line, fix_newlines=fix)


def stuffed(content: bytes) -> bytes:
    return (b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:] + b".\r\n"


def test_there_are_48_smuggling_sequences():
    assert len(set(SMUGGLING)) == 48


@pytest.mark.parametrize("fix", [False, True])
@pytest.mark.parametrize("sequence", SMUGGLING, ids=repr)
def test_no_smuggling_sequence_ends_a_message(sequence: bytes, fix: bool):
    """One that has CRLF.CRLF within ends the session too, at the latest with the NUL that a command begins with."""
    for start in (b"Subject: x\r\n\r\nbody", b""):
        data = start + sequence + SMUGGLED
        for cut in range(len(data) + 1):
            body = new_body(fix=fix)
            rest = None
            for part in (data[:cut], data[cut:]):
                rest = (rest or b"") + part if body.ended else body.receive(part)
            if body.ended and not body.fatal:
                assert sequence.endswith(b"\r\n.\r\n\0")
                assert rest == b"\0" + SMUGGLED
            else:
                assert body.fatal is (not fix or b"\0" in sequence or b"\r\r\n.\r\n" in sequence)


def test_an_empty_message_ends_at_once():
    body = new_body()
    assert body.receive(b".\r\nQUIT\r\n") == b"QUIT\r\n"
    assert body.take() == b""


_texts = st.lists(st.sampled_from([b"a", b".", b"..", b"\r\n", b"\xfc", b" ", b"\r\n."]), max_size=30).map(
    lambda parts: b"".join([*parts, b"\r\n"])
)


@given(_texts, st.data())
def test_dots_are_unstuffed_and_all_else_is_as_sent_however_it_is_cut(content: bytes, data: st.DataObject):
    wire = stuffed(content) + b"NOOP\r\n"
    cuts = data.draw(st.lists(st.integers(0, len(wire)), max_size=6).map(sorted))
    body = new_body()
    left = b""
    for begin, end in zip([0, *cuts], [*cuts, len(wire)], strict=True):
        if body.ended:
            left += wire[begin:end]
        else:
            left += body.receive(wire[begin:end]) or b""
    assert body.refusal is None
    assert left == b"NOOP\r\n"
    assert body.size == body.held == len(content)
    assert body.take() == content
    assert body.eight_bit is (b"\xfc" in content)


def test_single_octets_are_put_together():
    content = b"line of text\r\n" * 1000
    body = new_body()
    for octet in stuffed(content):
        body.receive(bytes([octet]))
    assert body.ended
    assert body.take() == content


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (b"a\nb\r\n", b"a\r\nb\r\n"),
        (b"a\rb\r\n", b"a\r\nb\r\n"),
        (b"a\r\r\nb\r\n", b"a\r\n\r\nb\r\n"),
        (b"a\n\rb\r\n", b"a\r\n\r\nb\r\n"),
        (b"\n.\nb\r\n", b"\r\n.\r\nb\r\n"),
        (b"a\n..b\r\n..c\r\n", b"a\r\n..b\r\n.c\r\n"),
    ],
)
def test_fix_repairs_bare_newlines_within_the_body_only(sent: bytes, kept: bytes):
    for cut in range(len(sent)):
        body = new_body(fix=True)
        assert body.receive(sent[:cut]) is None
        assert body.receive(sent[cut:] + b".\r\n") == b""
        assert body.take() == kept


def test_lines_up_to_the_limit_pass_and_longer_ones_do_not():
    for line, begins in ((998, b""), (998, b"x" * 998 + b"\r\n"), (65536, b"a\r\n" * 5000)):
        for extra in (0, 1):
            wire = stuffed(begins + b"." * (line + extra) + b"\r\nend\r\n")
            for step in (len(wire), 1000, 4099):
                body = new_body(line=line)
                for at in range(0, len(wire), step):
                    body.receive(wire[at : at + step])
                assert body.ended
                assert body.refusal is (replies.LINE_IN_CONTENT_TOO_LONG if extra else None)


def test_what_is_too_big_is_read_to_its_end_and_not_kept():
    body = new_body(size=1000)
    assert body.receive(b"x" * 900) is None
    assert body.held == 900
    assert body.receive(b"\r\n" + b"y" * 200) is None
    assert body.held == 0
    for _ in range(100):
        assert body.receive(b"z" * 1000) is None
        assert body.held == 0
    assert body.receive(b"\r\n.\r\nRSET\r\n") == b"RSET\r\n"
    assert body.refusal is replies.TOO_BIG
    assert not body.fatal


def test_a_message_of_exactly_the_limit_passes():
    body = new_body(size=1000)
    body.receive(stuffed(b"x" * 998 + b"\r\n"))
    assert body.refusal is None
    body = new_body(size=1000)
    body.receive(stuffed(b"x" * 999 + b"\r\n"))
    assert body.refusal is replies.TOO_BIG


@pytest.mark.parametrize("unit", [b"\r\n", b".\r\n.\r", b"\r\n.", b"x", b"x" * 60000 + b"\r\n"])
def test_hostile_content_costs_linear_time(unit: bytes):
    data = unit * (4_000_000 // len(unit))
    body = new_body(line=998)
    started = time.process_time()
    for at in range(0, len(data), 65536):
        body.receive(data[at : at + 65536])
    assert time.process_time() - started < 1


def test_a_budget_is_exhausted_beyond_its_limit():
    budget = Budget(10)
    budget.used = 10
    assert not budget.exhausted
    budget.used = 11
    assert budget.exhausted
