"""The queue by age and destination (or tenant, or class), as Postfix's qshape shows it. Pure, and bounded in memory."""

from collections.abc import Callable
from enum import StrEnum

import msgspec

from mta.spool.records import Entry

EDGES = (5, 10, 20, 40, 80, 160, 320, 640, 1280)  # minutes: each column's entries are younger, and the last one's older
ROWS = 10_000  # counted at a time, and as many again until those with the least are given up
_NAMES = [*map(str, EDGES), f"{EDGES[-1]}+"]


class By(StrEnum):
    """What the rows are."""

    DOMAIN = "domain"
    TENANT = "tenant"
    CLASS = "class"


_KEYS: dict[By, Callable[[Entry], str]] = {
    By.DOMAIN: lambda entry: entry.domain,
    By.TENANT: lambda entry: entry.tenant,
    By.CLASS: lambda entry: entry.message_class.name.lower(),
}


class Row(msgspec.Struct, frozen=True):
    """One row: `ages` by the column's edge in minutes."""

    name: str
    total: int
    ages: dict[str, int]


class Shape(msgspec.Struct, frozen=True):
    """All entries, and the rows with the most of them. Each row may be short of so many that were seen: 0 is exact."""

    by: By
    total: Row
    rows: tuple[Row, ...]
    short_by: int


class Counting:
    """Counts entries into rows, of which the longest stay: lossy counting (Manku and Motwani, 2002)."""

    def __init__(self, by: By, rows: int = ROWS) -> None:
        self._by = by
        self._key = _KEYS[by]
        self._rows = rows
        self._total = [0] * len(_NAMES)
        self._counts: dict[str, list[int]] = {}
        self._short_by = 0

    def add(self, entry: Entry, age: float) -> None:
        """Count an entry, `age` in seconds."""
        column = next((number for number, edge in enumerate(EDGES) if age < edge * 60), len(EDGES))
        self._total[column] += 1
        counts = self._counts.setdefault(self._key(entry), [0] * len(_NAMES))
        counts[column] += 1
        if len(self._counts) > 2 * self._rows:
            self._give_up_the_least()

    def _give_up_the_least(self) -> None:
        by_size = sorted(self._counts, key=lambda each: sum(self._counts[each]), reverse=True)
        self._short_by += sum(self._counts[by_size[self._rows]])
        self._counts = {each: self._counts[each] for each in by_size[: self._rows]}

    def shape(self, limit: int) -> Shape:
        """Show the `limit` rows with the most entries."""
        by_size = sorted(self._counts, key=lambda each: (-sum(self._counts[each]), each))
        rows = tuple(_row(each, self._counts[each]) for each in by_size[:limit])
        return Shape(self._by, _row("TOTAL", self._total), rows, self._short_by)


def _row(name: str, counts: list[int]) -> Row:
    return Row(name, sum(counts), dict(zip(_NAMES, counts, strict=True)))
