"""Rates as text: `1200/60` is 1,200 messages in 60 seconds, and so is `1200/minute`."""

import re

from mta.accounts.tolls import Rate

LONGEST = 86_400  # seconds that a rate can be counted over
MOST = 1_000_000_000  # messages
_UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}
_TEXT = re.compile(rf"([0-9]{{1,10}})/([0-9]{{1,5}}|{'|'.join(_UNITS)})")


class RateError(ValueError):
    """The text is no rate; the message says what one is, in words fit for a reply."""


def read_rate(text: str) -> Rate:
    """Read a rate; RateError if it is none."""
    found = _TEXT.fullmatch(text)
    messages, seconds = (int(found[1]), _UNITS.get(found[2]) or int(found[2])) if found else (0, 0)
    if not (1 <= messages <= MOST and 1 <= seconds <= LONGEST):
        raise RateError(f"{text[:64]!r} is not a rate such as 1200/60 or 1200/minute, counted over a day at most")
    return Rate(messages, seconds)


def rate_text(messages: int, seconds: int) -> str:
    """Write a rate as records have it, where 0 is for none."""
    return f"{messages}/{seconds}" if messages and seconds else ""
