"""Substitutions and sections: literal, in one pass, bounded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_http.problem import Refusal
from relay_http.sendgrid import substitution
from relay_http.sendgrid.substitution import Substitution, Work


def replaced(text: str, substitutions: dict[str, str], sections: dict[str, str] | None = None) -> str:
    return Substitution(substitutions, sections or {}, Work())(text)


@pytest.mark.parametrize(
    ("text", "substitutions", "expected"),
    [
        ("Hi -name-, -name-!", {"-name-": "Ann"}, "Hi Ann, Ann!"),
        ("Hi {{name}} %n% :n", {"{{name}}": "Ann", "%n%": "1", ":n": "2"}, "Hi Ann 1 2"),
        ("-a- -b-", {"-a-": "-b-", "-b-": "-a-"}, "-b- -a-"),
        ("-ab-", {"-a": "1", "-ab-": "2"}, "2"),
        ("nothing", {"-a-": "b"}, "nothing"),
        ("-a-", {"-a-": ""}, ""),
        ("(a|b)*", {"(a|b)*": "\\1"}, "\\1"),
    ],
)
def test_keys_are_replaced_literally_and_once(text: str, substitutions: dict[str, str], expected: str) -> None:
    assert replaced(text, substitutions) == expected


def test_a_value_names_a_section_whose_text_has_keys() -> None:
    sections = {"%greet%": "Dear -title- -name-: %more%", "%more%": "bye"}
    assert replaced("-s-", {"-s-": "%greet%", "-title-": "Dr", "-name-": "%more"}, sections) == "Dear Dr %more: bye"
    assert replaced("%more%", {}, sections) == "bye"


def test_sections_end_four_deep() -> None:
    sections = {f"%{n}%": f"{n} %{n + 1}%" for n in range(6)}
    assert replaced("%0%", {}, sections) == "0 1 2 3 %4%"
    assert replaced("%a%", {}, {"%a%": "x%b%", "%b%": "y%a%"}) == "xyxy%a%"


def test_what_does_not_change_is_the_same_object() -> None:
    text = "x" * 100
    assert replaced(text, {"-a-": "b"}) is text


def test_a_text_that_all_share_is_split_once() -> None:
    work = Work()
    text = "-a-" * 1000
    assert Substitution({"-a-": "1"}, {}, work)(text) == "1" * 1000
    pieces = work.split(text, frozenset({"-a-"}))
    assert Substitution({"-a-": "2"}, {}, work)(text) == "2" * 1000
    assert work.split(text, frozenset({"-a-"})) is pieces


def test_what_comes_of_it_is_bounded() -> None:
    many = {f"%{n}%": f"%{n + 1}%" * 1000 for n in range(4)} | {"%4%": "x" * 1000}
    with pytest.raises(Refusal) as refused:
        replaced("%0%", {}, many)
    assert refused.value.status == 413


def test_the_work_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(substitution, "_STEPS_LIMIT", 10_000)
    keys = {f"<{n}>": "" for n in range(1000)}
    work = Work()
    for n in range(9):
        Substitution(keys | {f"{n}": ""}, {}, work)("y" * 100)
    with pytest.raises(Refusal) as refused:
        Substitution(keys | {"9": ""}, {}, work)("y" * 100)
    assert refused.value.status == 413


@given(st.text("ab-", max_size=30), st.dictionaries(st.text("ab-", min_size=1, max_size=3), st.text("ab", max_size=3)))
def test_pieces_make_the_text_again(text: str, substitutions: dict[str, str]) -> None:
    pieces = Work().split(text, frozenset(substitutions))
    assert "".join(pieces) == text
    assert all(each in substitutions for each in pieces[1::2])
    assert not any(key in each for key in substitutions for each in pieces[::2])


def test_texts_that_were_split_are_kept_for_one_set_of_keys() -> None:
    work, text = Work(), "-a-" * 100
    pieces = Substitution({"-a-": "1"}, {}, work)(text) and work.split(text, frozenset({"-a-"}))
    for n in range(3):
        Substitution({f"{n}": ""}, {}, work)(text)
    assert work.split(text, frozenset({"-a-"})) is not pieces
    assert work.split(text, frozenset({"-a-"})) == pieces
