"""Kinds of options that several commands have: times, durations, rates, networks are read as the user writes them."""

import datetime as dt
import re

import click

from mta.accounts.rates import RateError, read_rate
from mta.accounts.tolls import Rate

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION = re.compile(r"([0-9]{1,7})([smhd])")
NO_RATE = Rate(0, 0)  # what `none` says


class Time(click.ParamType[float]):
    """A time with its zone, such as 2026-12-01T08:00Z."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read it."""
        if isinstance(value, float):
            return value
        try:
            at = dt.datetime.fromisoformat(str(value).strip())
        except ValueError:
            self.fail(f"{value!r} is not a time such as 2026-12-01T08:00Z", param, ctx)
        if at.tzinfo is None:
            self.fail(f"{value!r} has no zone: write {value}Z if it is UTC", param, ctx)
        return at.timestamp()


class Duration(click.ParamType[float]):
    """A time that passes, such as 90s, 30m, 24h or 7d."""

    name = "duration"

    def __init__(self, most: int = 0) -> None:
        """Take `most` seconds at most, 0 for any."""
        self._most = most

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read it."""
        found = _DURATION.fullmatch(str(value).strip())
        if found is None:
            self.fail(f"{value!r} is not a time such as 90s, 30m, 24h or 7d", param, ctx)
        seconds = float(found[1]) * _UNITS[found[2]]
        if self._most and seconds > self._most:
            self.fail(f"{value!r} is longer than {self._most // _UNITS['d']}d", param, ctx)
        return seconds


class Messages(click.ParamType[Rate]):
    """A rate of messages, such as 1200/60, or none."""

    name = "rate"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Rate:
        """Read it."""
        try:
            return NO_RATE if value == "none" else read_rate(str(value).strip())
        except RateError as error:
            self.fail(str(error), param, ctx)
