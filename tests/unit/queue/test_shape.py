"""The queue by age and destination."""

from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.queue.shape import EDGES, By, Counting
from mta.spool.records import Entry, MessageClass
from tests.contract.spool_contract import a_message

ENTRY = a_message().entries[0]


def to(domain: str) -> Entry:
    return msgspec.structs.replace(ENTRY, domain=domain)


@pytest.mark.parametrize(
    ("minutes", "column"), [(0, "5"), (4.99, "5"), (5, "10"), (79, "80"), (80, "160"), (1279, "1280"), (1280, "1280+")]
)
def test_each_age_has_its_column(minutes: float, column: str) -> None:
    counting = Counting(By.DOMAIN)
    counting.add(ENTRY, minutes * 60)
    counting.add(ENTRY, minutes * 60)
    shape = counting.shape(5)
    assert shape.rows[0].name == "example.org"
    assert {name: count for name, count in shape.rows[0].ages.items() if count} == {column: 2}
    assert shape.total.ages == shape.rows[0].ages
    assert len(shape.total.ages) == len(EDGES) + 1


def test_the_rows_with_the_most_come_first() -> None:
    counting = Counting(By.DOMAIN)
    for domain, count in (("b.test", 2), ("a.test", 2), ("c.test", 5), ("d.test", 1)):
        for _ in range(count):
            counting.add(to(domain), 0)
    shape = counting.shape(3)
    assert [(row.name, row.total) for row in shape.rows] == [("c.test", 5), ("a.test", 2), ("b.test", 2)]
    assert (shape.total.total, shape.short_by) == (10, 0)


def test_rows_of_tenants_and_classes() -> None:
    for by, name in ((By.TENANT, "acme"), (By.CLASS, "bulk")):
        counting = Counting(by)
        counting.add(msgspec.structs.replace(ENTRY, message_class=MessageClass.BULK), 0)
        assert [row.name for row in counting.shape(9).rows] == [name]


@given(st.lists(st.integers(0, 30), max_size=300), st.integers(1, 8))
def test_memory_is_bounded_and_it_says_how_short_a_row_may_be(domains: list[int], rows: int) -> None:
    counting, exact = Counting(By.DOMAIN, rows), Counter[str]()
    for each in domains:
        counting.add(to(f"d{each}.test"), 0)
        exact[f"d{each}.test"] += 1
        assert len(counting._counts) <= 2 * rows
    shape = counting.shape(100)
    assert shape.total.total == len(domains)
    assert all(row.total <= exact[row.name] <= row.total + shape.short_by for row in shape.rows)
    shown = {row.name for row in shape.rows}
    assert all(count <= shape.short_by for name, count in exact.items() if name not in shown)
