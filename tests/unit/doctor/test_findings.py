"""Findings: what strangers publish is short and harmless by the time it is shown."""

from hypothesis import given
from hypothesis import strategies as st

from mta.doctor.findings import Grade, Section, count, listed, ok, problem, shown, warning, worst


@given(st.binary(max_size=500) | st.text(max_size=500))
def test_what_is_shown_is_short_printable_and_on_one_line(text: str | bytes):
    assert shown(text).isprintable()
    assert len(shown(text)) <= 201


def test_what_is_harmless_is_shown_as_it_is():
    assert shown(b"v=spf1 -all") == "v=spf1 -all"
    assert shown("x" * 200) == "x" * 200
    assert shown("x" * 201) == "x" * 200 + "…"
    assert shown(b"\x1b[2J\nok") == r"\x1b[2J\nok"
    assert shown(b"\xff") == r"\xff"


def test_of_many_some_are_listed():
    assert listed(["a", "b"]) == "a, b"
    assert listed(map(str, range(9)), most=3) == "0, 1, 2 and 6 more"
    assert listed([]) == ""


def test_the_worst_of_all_sections_counts():
    sections = [Section("a", (ok("x", ""), problem("y", "", ""))), Section("b", (warning("z", "", ""),))]
    assert worst(sections) is Grade.PROBLEM
    assert [count(sections, grade) for grade in Grade] == [1, 1, 1]
    assert worst([]) is Grade.OK
