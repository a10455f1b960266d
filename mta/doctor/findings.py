"""What a check found: one line with its grade, and one plain advice where something is to be done. Values, no I/O.

What strangers publish goes through `shown` before it stands in a finding: short, on one line, and nothing that a
terminal would obey.
"""

from collections.abc import Iterable
from enum import IntEnum

import msgspec

_SHOWN = 200  # characters of a stranger's text


class Grade(IntEnum):
    """How bad it is, in order."""

    OK = 0
    WARNING = 1
    PROBLEM = 2


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at. `about` names it: `spf`, `dkim s1`, `mx1.example.com`."""

    about: str
    grade: Grade
    said: str
    advice: str = ""


class Section(msgspec.Struct, frozen=True):
    """Findings that belong together, under a title."""

    title: str
    findings: tuple[Finding, ...]


def ok(about: str, said: str) -> Finding:
    """Make a finding that asks for nothing."""
    return Finding(about, Grade.OK, said)


def warning(about: str, said: str, advice: str) -> Finding:
    """Make a finding of what works now, and may not always or everywhere."""
    return Finding(about, Grade.WARNING, said, advice)


def problem(about: str, said: str, advice: str) -> Finding:
    """Make a finding of what costs mail, or protection."""
    return Finding(about, Grade.PROBLEM, said, advice)


def worst(sections: Iterable[Section]) -> Grade:
    """Return the grade of the worst finding."""
    return max((each.grade for section in sections for each in section.findings), default=Grade.OK)


def count(sections: Iterable[Section], grade: Grade) -> int:
    """Count the findings of a grade."""
    return sum(each.grade is grade for section in sections for each in section.findings)


def shown(text: str | bytes) -> str:
    """Make a stranger's text fit for a finding: printable, on one line, at most 200 characters."""
    if isinstance(text, bytes):
        text = text[: _SHOWN + 1].decode("ascii", "backslashreplace")
    cut = text[:_SHOWN]
    clean = "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in cut)
    return clean if len(text) <= _SHOWN and len(clean) <= _SHOWN else clean[:_SHOWN] + "…"


def listed(texts: Iterable[str], most: int = 5) -> str:
    """Write some of many in a row: `a, b and 3 more`."""
    all_of_them = list(texts)
    some = ", ".join(map(shown, all_of_them[:most]))
    return some + (f" and {len(all_of_them) - most} more" if len(all_of_them) > most else "")
