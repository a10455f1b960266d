"""What lists have in common in SQL: whose they are, between which numbers, and how sorted lists are put together.

Each index gives the numbers of one list in order, so a page ends when it is full. What was asked of is always given as
parameters.
"""

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from mta.events.views.schema import BLOCK_BITS

FEW = 500
"""Rows that may be looked through one by one, each with a look into the full-text index, which takes some 40 µs."""

_LISTS = 200  # put together at most; SQLite takes 500


class Sql(NamedTuple):
    """A piece of SQL and its parameters."""

    text: str
    values: tuple[object, ...] = ()


class Whose(NamedTuple):
    """Whose mail is asked for: `everybody`'s, or the scopes of the tenants named."""

    tenants: tuple[str, ...]
    scopes: dict[int, str]
    everybody: bool

    def scopes_of(self, dialect: str) -> list[int]:
        """Name the scopes of a dialect, or all of them."""
        return [number for number, each in self.scopes.items() if dialect in ("", each)]


class Slice(NamedTuple):
    """A page: of the numbers from `low` to before `high`, the oldest first or the newest, `limit` behind `offset`."""

    low: int
    high: int
    oldest: bool
    limit: int
    offset: int = 0

    def holds(self, column: str) -> Sql:
        """Say that a number is of it."""
        return Sql(f"{column} >= ? AND {column} < ?", (self.low, self.high))

    @property
    def way(self) -> str:
        """The order, in SQL."""
        return "ASC" if self.oldest else "DESC"


def whose(db: sqlite3.Connection, tenant: str | None) -> Whose:
    """Look up a tenant's scopes; of everybody for None."""
    rows = db.execute("SELECT id, tenant, dialect FROM scope WHERE ?1 IS NULL OR tenant = ?1", (tenant,)).fetchall()
    scopes = {number: dialect for number, _, dialect in rows}
    return Whose(tuple(dict.fromkeys(each for _, each, _ in rows)), scopes, everybody=tenant is None)


def span_of(db: sqlite3.Connection, since: float | None, until: float | None) -> tuple[int, int]:
    """Find the first number that can be of a time and the first that cannot any more.

    Times are nearly in the order of the numbers, not quite: the rest is to be checked.
    """
    low, high = 0, 1 << 62
    if since is not None:
        found = db.execute("SELECT min(id) FROM block WHERE latest >= ?", (since,)).fetchone()[0]
        low = high if found is None else found << BLOCK_BITS
    if until is not None:
        found = db.execute("SELECT max(id) FROM block WHERE earliest < ?", (until,)).fetchone()[0]
        high = 0 if found is None else (found + 1) << BLOCK_BITS
    return low, high


def among(column: str, values: Sequence[object]) -> Sql:
    """Say that a column has one of the values."""
    return Sql(f"{column} IN ({', '.join('?' * len(values))})", tuple(values))


def either(own: str, others: str) -> Sql:
    """Name the messages with an id that is our own, and those that a query of the index finds."""
    return Sql("SELECT seq FROM message WHERE id = ? UNION SELECT rowid FROM term WHERE term MATCH ?", (own, others))


def dated(column: str, since: float | None, until: float | None) -> list[Sql]:
    """Say between which times a column is."""
    found = [] if since is None else [Sql(f"{column} >= ?", (since,))]
    return found if until is None else [*found, Sql(f"{column} < ?", (until,))]


def indexed(match: str, column: str) -> list[Sql]:
    """Say that the message numbered by a column has the terms of a query, if there is one."""
    if not match:
        return []
    return [Sql(f"EXISTS (SELECT 1 FROM term WHERE term MATCH ? AND rowid = {column})", (match,))]  # noqa: S608


def page(source: Sql, seq: str, conditions: Sequence[Sql], wanted: Slice) -> Sql:
    """Select the numbers `seq` of a source, in order."""
    where, values = _all([wanted.holds(seq), *conditions])
    order = f"ORDER BY {seq} {wanted.way} LIMIT ? OFFSET ?"
    text = f"SELECT {seq} AS seq FROM {source.text} WHERE {where} {order}"  # noqa: S608 - our own words
    return Sql(text, (*source.values, *values, wanted.limit, wanted.offset))


def listed(table: str, lists: Sequence[Sql], narrow: Sequence[Sql], conditions: Sequence[Sql], wanted: Slice) -> Sql:
    """Select from lists of an index, or from the table, with what is `narrow`, where they are none or too many.

    The lists are merged as far as the page needs them: SQLite takes row by row from what has a LIMIT of its own, in its
    order (CO-ROUTINE and MERGE in its plan). An order of the outer query would have all of them sorted.
    """
    alias = table[0]
    if not 0 < len(lists) <= _LISTS:
        return page(Sql(f"{table} {alias}"), f"{alias}.seq", [*narrow, *conditions], wanted)
    held = wanted.holds("seq")
    arms = " UNION ALL ".join(f"SELECT seq FROM {table} WHERE {each.text} AND {held.text}" for each in lists)  # noqa: S608
    values = [value for each in lists for value in (*each.values, *held.values)]
    source = f"({arms} ORDER BY seq {wanted.way} LIMIT -1) k CROSS JOIN {table} {alias} ON {alias}.seq = k.seq"
    where, more = _all(conditions)
    text = f"SELECT k.seq AS seq FROM {source} WHERE {where} LIMIT ? OFFSET ?"  # noqa: S608
    return Sql(text, (*values, *more, wanted.limit, wanted.offset))


def known(table: str, numbers: Sql, conditions: Sequence[Sql], wanted: Slice) -> Sql:
    """Select of what a query of few `seq` gives."""
    alias = table[0]
    source = Sql(f"({numbers.text}) k CROSS JOIN {table} {alias} ON {alias}.seq = k.seq", numbers.values)
    return page(source, "k.seq", conditions, wanted)


def are_few(db: sqlite3.Connection, table: str, lists: Sequence[Sql], wanted: Slice) -> bool:
    """Tell whether lists have so few rows between them that they may be looked through one by one."""
    left = FEW
    held = wanted.holds("seq")
    for each in lists[:_LISTS]:
        rows = f"SELECT 1 FROM {table} WHERE {each.text} AND {held.text} LIMIT ?"  # noqa: S608
        left -= count_of(db, Sql(rows, (*each.values, *held.values, left + 1)))
        if left < 0:
            return False
    return len(lists) <= _LISTS


def has_at_most(db: sqlite3.Connection, match: str, count: int) -> bool:
    """Tell whether at most `count` messages have the terms of a query."""
    return count_of(db, Sql("SELECT 1 FROM term WHERE term MATCH ? LIMIT ?", (match, count + 1))) <= count


def count_of(db: sqlite3.Connection, sql: Sql) -> int:
    """Count what a query gives."""
    found: int = db.execute(f"SELECT count(*) FROM ({sql.text})", sql.values).fetchone()[0]  # noqa: S608
    return found


def _all(conditions: Sequence[Sql]) -> tuple[str, tuple[object, ...]]:
    text = " AND ".join(each.text for each in conditions) or "TRUE"
    return text, tuple(value for each in conditions for value in each.values)
