"""Whatever a header block holds: reading it raises nothing but FromError, takes time in proportion to its length, and
finds every From domain that the standard library's readers find.
"""

import email.policy
import time
from email.utils import getaddresses

from hypothesis import example, given, settings
from hypothesis import strategies as st

from mta.mail import headers

WORDS = ["\r\n ", "a", "mine.test", "victim.test", "a@victim.test", "<b@mine.test>", "é", '"a" ', "group:", "(c)"]
values = st.lists(st.sampled_from([*WORDS, *'"\\()<>@,;:.[] \t\x1c\u2003']), max_size=25).map("".join)
blocks = st.lists(
    st.sampled_from([b"From: ", b"from :", b"FROM\t:", b"X: ", b"\r\n", b"\r\n ", b"\n", b"a@b.test", b":", b"\xff"]),
    max_size=60,
).map(b"".join)
SECONDS = 0.25  # of processor time, for what takes 10 ms; a quadratic reader takes 0.6 s and more


@given(blocks)
@settings(max_examples=200, deadline=None)
def test_any_block(block: bytes) -> None:
    header, body = headers.split(block)
    assert header + b"\r\n" + body == block or header == block
    found = headers.names(header)
    assert list(found) == list(dict.fromkeys(field.name for field in headers.fields(header)))
    assert headers.remove(header, ()) == header
    assert b"from" not in headers.names(headers.remove(header, (b"from",)))
    headers.from_domains(header)


@given(st.text(st.sampled_from('"\\()<>@,;:.[] \t\x1c\u2003aé'), min_size=1, max_size=6))
@example("\x1c")
@example("\u2003 ")
@settings(max_examples=60, deadline=None)
def test_time_is_linear(unit: str) -> None:
    field = b"From: " + unit.encode() * (headers.FROM_LIMIT // len(unit.encode()) - 1) + b"\r\n"
    started = time.process_time()
    headers.from_domains(field)
    headers.names(field * 8)
    assert time.process_time() - started < SECONDS


@given(values)
@example("a@victim.test\r\n \u2003.")
@settings(max_examples=400, deadline=None)
def test_no_domain_is_overlooked(value: str) -> None:
    """More domains than the author meant are harmless, one fewer lets a tenant send as another."""
    domains = headers.from_domains(f"From: {value}\r\n".encode())
    found = {each.lower().rstrip(".") for each in domains}  # the owner of `a.test.` is that of `a.test`
    assert _lenient(value) <= found
    assert _strict(value) <= found


def _lenient(value: str) -> set[str]:
    unfolded = value.replace("\r\n", "")
    addresses = [address for _, address in getaddresses([unfolded]) if "@" in address]
    return {address.rpartition("@")[2] for address in addresses} & {"mine.test", "victim.test"}


def _strict(value: str) -> set[str]:
    parsed = email.message_from_bytes(f"From: {value}\r\n\r\n".encode(), policy=email.policy.default)
    try:
        return {each.domain for each in parsed["From"].addresses} & {"mine.test", "victim.test"}
    except (AttributeError, IndexError, TypeError):  # its defects, on what is no address
        return set()
