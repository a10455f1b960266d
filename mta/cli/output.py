"""What commands print: text for people, JSON for programs (an object; for lists one object a line).

Lists are printed as they are read, because a queue may be longer than memory. Outside text never reaches a
terminal raw: it could hold control sequences.
"""

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import click

type_record = Mapping[str, object]


class Column(NamedTuple):
    """One column of a list for people. Longer values push the rest of their line."""

    key: str
    title: str
    width: int


class Printer:
    """Prints records the way the user asked for."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self._titled = False

    def record(self, record: type_record, text: str) -> None:
        """Print one record: as JSON, or as `text` (lines)."""
        click.echo(_json(record) if self.as_json else "\n".join(map(printable, text.split("\n"))))

    def row(self, record: type_record, columns: Sequence[Column]) -> None:
        """Print a record of a list: as JSON, or as a line of columns below their titles."""
        if self.as_json:
            click.echo(_json(record))
            return
        if not self._titled:
            self._titled = True
            click.echo(_line([each.title for each in columns], columns))
        click.echo(_line([_shown(each.key, record.get(each.key)) for each in columns], columns))

    def note(self, text: str) -> None:
        """Say something beside the data, on standard error."""
        click.echo(printable(text), err=True)


def printable(text: str) -> str:
    """Replace what a terminal would obey: controls, direction marks, lone surrogates."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def time_text(at: float) -> str:
    """Write absolute seconds for people, in UTC; `-` for never."""
    return dt.datetime.fromtimestamp(at, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if at else "-"


def _json(record: type_record) -> str:
    return json.dumps(record, separators=(",", ":"))


def _line(values: Sequence[str], columns: Sequence[Column]) -> str:
    return "  ".join(value.ljust(each.width) for value, each in zip(values, columns, strict=True)).rstrip()


def _shown(key: str, value: object) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, float | int) and (key == "at" or key.endswith("_at")):
        return time_text(value)
    if isinstance(value, list | tuple):
        return printable(",".join(map(str, value))) or "-"
    return printable(str(value))
