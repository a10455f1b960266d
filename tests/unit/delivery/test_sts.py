"""MTA-STS without I/O: records, policies, MX patterns, and what applies whatever DNS and policy host do (RFC 8461)."""

import itertools
from dataclasses import dataclass

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.delivery import sts
from mta.delivery.policy import Failure, Flaw, StsPolicy
from mta.delivery.sts import Announced, StsError

NOW = 1_800_000_000.0
POLICY = "version: STSv1\nmode: enforce\nmx: mx1.a.test\nmx: *.b.test\nmax_age: 86400\n"


def parse(text: str | bytes) -> StsPolicy:
    return sts.parse(text if isinstance(text, bytes) else text.encode(), "a.test", "1", NOW)


def listing(*mx: str) -> StsPolicy:
    return StsPolicy(domain="a.test", id="1", mode="enforce", mx=mx, max_age=1, fetched_at=NOW)


# The record


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        ([b"v=STSv1; id=20160831085700Z;"], "20160831085700Z"),
        ([b"v=STSv1;id=1"], "1"),
        ([b"v=STSv1; \t id=1 \t ; "], "1"),
        ([b"v=STSv1; ext=a:b/c; id=1; other=%"], "1"),
        ([b"v=spf1 -all", b"v=STSv1; id=1", b"v=STSv10; id=2", b""], "1"),
        ([b"v=STSv1; id=1; id=2"], "1"),
        ([b"v=STSv1; id=" + b"a" * 32], "a" * 32),
        ([b"v=STSv1; id=" + b"a" * 33], None),
        ([], None),
        ([b"v=STSv1; id=1", b"v=STSv1; id=1"], None),
        ([b"v=STSv1; id=1", b"v=STSv1; broken"], None),
        ([b"v=STSv1"], None),
        ([b"v=STSv1;"], None),
        ([b"v=STSv1; id="], None),
        ([b"v=STSv1; id=a-b"], None),
        ([b"v=STSv1; id=\xc3\xa4"], None),
        ([b"v=STSv1; id=1; ;"], None),
        ([b"v=STSv1; ; id=1"], None),
        ([b"v=STSv1; id=1; lonely"], None),
        ([b"v=STSv1; id=1; a=b=c"], None),
        ([b"v=STSv1; id=1; " + b"k" * 33 + b"=1"], None),
        ([b"v=STSv1; ID=1"], None),
        ([b"v=stsv1; id=1"], None),
        ([b"v=STSv1 ; id=1"], None),
        ([b" v=STSv1; id=1"], None),
        ([b"id=1; v=STSv1;"], None),
        ([b"v=STSv1; id=1\r\n"], None),
        ([b"v=STSv1; id=1\x00"], None),
    ],
)
def test_a_record_announces_a_policy_or_none(texts: list[bytes], found: str | None) -> None:
    assert sts.record_id(texts) == found


@given(st.lists(st.binary(max_size=60).map(lambda tail: b"v=STSv1;" + tail), max_size=2))
def test_whatever_a_record_says_is_an_id_or_none(texts: list[bytes]) -> None:
    found = sts.record_id(texts)
    assert found is None or (found.isascii() and found.isalnum() and len(found) <= 32)


# The policy


def test_a_policy_is_read() -> None:
    assert parse(POLICY) == StsPolicy(
        domain="a.test",
        id="1",
        mode="enforce",
        mx=("mx1.a.test", "*.b.test"),
        max_age=86400,
        fetched_at=NOW,
        text=("version: STSv1", "mode: enforce", "mx: mx1.a.test", "mx: *.b.test", "max_age: 86400"),
    )


@pytest.mark.parametrize(
    ("text", "changes"),
    [
        ("mode: testing\nversion: STSv1\nmax_age: 1\nmx: a.test", {"mode": "testing", "mx": ("a.test",), "max_age": 1}),
        ("version: STSv1\nmode: none\nmax_age: 0\n", {"mode": "none", "mx": (), "max_age": 0}),
        (POLICY.replace("\n", "\r\n"), {}),
        (POLICY.replace("\n", " \t\n").replace(": ", ":\t "), {}),
        (POLICY.replace(": ", ":"), {}),
        ("\n\r\n" + POLICY + "\n\r\n  \n", {}),
        (POLICY + "mode: none\nmax_age: 5\nversion: STSv2\n", {}),
        (POLICY + "future: ä b : c\nmode2: 7\n", {}),
        (POLICY + "mx: mx1.a.test\nmx: MX1.A.test\n", {}),
        (POLICY.replace("mx1.a", "MX1.A"), {}),
        (POLICY.replace("86400", "9999999999"), {"max_age": 31_557_600}),
        (POLICY + "mx: xn--mx-eka.test\n", {"mx": ("mx1.a.test", "*.b.test", "xn--mx-eka.test")}),
    ],
)
def test_policies_that_are_one(text: str, changes: dict[str, object]) -> None:
    found = parse(text)
    expected = msgspec.structs.replace(parse(POLICY), **changes)
    assert msgspec.structs.replace(found, text=()) == msgspec.structs.replace(expected, text=())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no mode"),
        ("<html>\n", "no field in line 1"),
        (POLICY.replace("version: STSv1\n", ""), "no version"),
        (POLICY.replace("STSv1", "STSv2"), "another version"),
        ("version: STSv2\n" + POLICY, "another version"),
        (POLICY.replace("mode: enforce\n", ""), "no mode"),
        (POLICY.replace("enforce", "Enforce"), "none of enforce, testing, none"),
        (POLICY.replace("mode", "Mode"), "no mode"),
        (POLICY.replace("max_age: 86400\n", ""), "no max_age"),
        (POLICY.replace("86400", "-1"), "no number"),
        (POLICY.replace("86400", "1.5"), "no number"),
        (POLICY.replace("86400", "1" * 11), "no number"),
        (POLICY.replace("86400", "٣"), "no number"),
        ("version: STSv1\nmode: enforce\nmax_age: 1\n", "no mx"),
        ("version: STSv1\nmode: testing\nmax_age: 1\n", "no mx"),
        (POLICY + "mx: a.*.test\n", "line 6 that is neither a host"),
        (POLICY + "mx: *\n", "line 6"),
        (POLICY + "mx: *.*.test\n", "line 6"),
        (POLICY + "mx: mx*.test\n", "line 6"),
        (POLICY + "mx: .a.test\n", "line 6"),
        (POLICY + "mx: bücher.test\n", "line 6"),
        (POLICY + "mx: a.test, b.test\n", "line 6"),
        (POLICY + "mx:\n", "no field in line 6"),
        (POLICY + "mx : a.test\n", "no field in line 6"),
        (POLICY + " mx: a.test\n", "no field in line 6"),
        (POLICY + "-x: a\n", "no field in line 6"),
        (POLICY + "x" * 33 + ": a\n", "no field in line 6"),
        (POLICY.replace("\n", "\r"), "control character in line 1"),
        (POLICY.replace("enforce", "enforce\rmx: evil.test"), "control character in line 2"),
        (POLICY + "x: a\r\r\n", "control character in line 6"),
        (POLICY + "x: a\0b\n", "control character"),
        (POLICY + "x: a\u0085b\n", "control character"),
        (POLICY + "x: \x1b[2J\n", "control character"),
        (b"\xff\xfe" + POLICY.encode("utf-16-le"), "not UTF-8"),
        (b"\xef\xbb\xbf" + POLICY.encode(), "no field in line 1"),
    ],
)
def test_policies_that_are_none(text: str | bytes, reason: str) -> None:
    with pytest.raises(StsError, match=reason) as refused:
        parse(text)
    assert refused.value.failure is Failure.STS_POLICY_INVALID


def test_the_mx_of_a_policy_and_the_lines_that_reports_quote_are_bounded() -> None:
    many = [f"mx: mx{number}.a.test\n" for number in range(sts.MX_LIMIT + 1)]
    found = parse("version: STSv1\nmode: enforce\nmax_age: 1\n" + "".join(many[:-1]))
    assert len(found.mx) == sts.MX_LIMIT
    assert len(found.text) == 50
    with pytest.raises(StsError, match="more than 100 mx"):
        parse("version: STSv1\nmode: enforce\nmax_age: 1\n" + "".join(many))
    assert parse(POLICY + "mx: mx1.a.test\n" * 200).mx == parse(POLICY).mx


@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda text: (POLICY + text).encode("utf-8", "replace")))
def test_whatever_a_body_is_it_is_a_policy_or_an_error(body: bytes) -> None:
    try:
        found = parse(body)
    except StsError:
        return
    assert found.mode in ("enforce", "testing", "none")
    assert found.mx or found.mode == "none"
    assert 0 <= found.max_age <= 31_557_600
    assert all(line.isprintable() for line in found.text)


LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
NAME = st.lists(LABEL, min_size=1, max_size=4).map(".".join)
PATTERN = st.tuples(st.sampled_from(["", "*."]), NAME).map("".join)


@given(
    mx=st.lists(PATTERN, min_size=1, max_size=8, unique=True),
    mode=st.sampled_from(["enforce", "testing", "none"]),
    max_age=st.integers(0, 31_557_600),
    unknown=st.lists(st.from_regex(r"x[0-9a-zA-Z_.-]{0,31}: [!-~]{1,20}", fullmatch=True), max_size=3),
    end=st.sampled_from(["\n", "\r\n", " \t\n"]),
    data=st.data(),
)
def test_what_is_written_is_what_is_read(
    mx: list[str], mode: str, max_age: int, unknown: list[str], end: str, data: st.DataObject
) -> None:
    fields = ["version: STSv1", f"mode: {mode}", f"max_age: {max_age}"]
    order = data.draw(st.permutations(fields + unknown + [f"mx: {each}" for each in mx]))
    found = parse(end.join(order) + data.draw(st.sampled_from(["", end])))
    assert (found.mode, found.max_age, set(found.mx)) == (mode, max_age, set(mx))


# MX patterns


@pytest.mark.parametrize(
    ("pattern", "host", "listed"),
    [
        ("mx.a.test", "mx.a.test", True),
        ("mx.a.test", "MX.A.TEST", True),
        ("mx.a.test", "mx.a.test.", True),
        ("mx.a.test", "a.test", False),
        ("mx.a.test", "other.mx.a.test", False),
        ("*.a.test", "mx.a.test", True),
        ("*.a.test", "MX.a.Test", True),
        ("*.a.test", "a.test", False),
        ("*.a.test", "two.labels.a.test", False),
        ("*.a.test", ".a.test", False),
        ("*.a.test", "mxa.test", False),
        ("*.a.test", "mx.a.test.evil.test", False),
        ("*.test", "test", False),
        ("xn--bcher-kva.test", "bücher.test", True),
        ("*.xn--bcher-kva.test", "mx.BÜCHER.test", True),
        ("mx.a.test", "mx.a.test\0", False),
        ("mx.a.test", "a..b\u00ad", False),
        ("mx.a.test", "", False),
    ],
)
def test_which_hosts_a_pattern_lists(pattern: str, host: str, listed: bool) -> None:
    assert sts.matches(listing("other.test", pattern), host) is listed


@given(st.lists(PATTERN, max_size=4), NAME)
def test_a_wildcard_is_one_label(mx: list[str], host: str) -> None:
    labels = host.split(".")
    expected = any(
        each.split(".") == labels
        or (each.startswith("*.") and len(each.split(".")) == len(labels) and each.split(".")[1:] == labels[1:])
        for each in mx
    )
    assert sts.matches(listing(*mx), host) is expected


# What applies


@dataclass(frozen=True)
class Cell:
    """A state of things: what is cached (and of which mode), what TXT says, what a fetch gave."""

    cached: str
    cached_mode: str
    txt: str
    fetched: str


CELLS = [
    Cell(*each)
    for each in itertools.product(
        ["nothing", "valid", "expired"],
        ["enforce", "testing", "none"],
        ["unanswered", "nothing", "same id", "new id"],
        ["not tried", "failed", "enforce", "testing", "none", "at once over"],
    )
]


def policy(mode: str, announced: str, fetched_at: float, max_age: int = 1000) -> StsPolicy:
    mx = ("mx.a.test",)
    return StsPolicy(domain="a.test", id=announced, mode=mode, mx=mx, max_age=max_age, fetched_at=fetched_at)


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_every_cell_of_the_step(cell: Cell) -> None:
    """The rules of RFC 8461 3.1, 3.3 and 5 once more, from the other end: what the outcome must be."""
    cached = {
        "nothing": None,
        "valid": policy(cell.cached_mode, "old", NOW - 999),
        "expired": policy(cell.cached_mode, "old", NOW - 1000),
    }[cell.cached]
    announced = {
        "unanswered": Announced(answered=False),
        "nothing": Announced(),
        "same id": Announced("old"),
        "new id": Announced("new"),
    }[cell.txt]
    trouble = Flaw(Failure.STS_WEBPKI_INVALID, "certificate expired")
    fetched = {
        "not tried": None,
        "failed": trouble,
        "at once over": policy("enforce", announced.id, NOW, max_age=0),
    }.get(cell.fetched, policy(cell.fetched, announced.id, NOW))
    found = sts.step(cached, announced, fetched, NOW)

    if cell.fetched in ("enforce", "testing"):
        assert found.policy == found.known == fetched
    elif cell.fetched in ("none", "at once over"):
        assert found.policy is None
        assert found.known == fetched
    elif cell.cached == "valid":  # whatever was taken away
        assert found.known == cached
        assert found.policy == (None if cell.cached_mode == "none" else cached)
    else:
        assert found.policy is None
        assert found.known is None
    assert found.trouble == (trouble if cell.fetched == "failed" else None)
    announces = cell.txt in ("same id", "new id")
    up_to_date = cell.cached == "valid" and cell.txt == "same id"
    assert found.fetch is (cell.fetched == "not tried" and announces and not up_to_date)


def test_a_policy_is_renewed_well_before_it_expires() -> None:
    assert sts.refresh_after(policy("enforce", "1", NOW, max_age=31_557_600)) == 86_400
    assert sts.refresh_after(policy("enforce", "1", NOW, max_age=600)) == 300
    assert sts.expires_at(policy("enforce", "1", NOW, max_age=600)) == NOW + 600
