"""Times as JSON has them: ISO 8601 in, UTC with whole seconds out. Pure."""

from datetime import UTC, datetime

_CHARS = 40
_DAY_CHARS = len("2027-01-31")
_DAY = 86_400.0  # seconds
_END = 253_402_214_400.0  # of what can be written back: the last day of the year 9999


def read_time(text: str) -> float:
    """Return a date with a time as absolute seconds, in UTC where it names no zone; ValueError."""
    if not _DAY_CHARS < len(text) <= _CHARS:
        raise ValueError("not a date with a time")
    return _seconds(text)


def read_day(text: str) -> tuple[float, float]:
    """Return when what a text names begins and ends: a day, or a date with a time, which is one moment; ValueError."""
    if len(text) != _DAY_CHARS:
        at = read_time(text)
        return at, at
    begin = _seconds(text)
    return begin, begin + _DAY


def write_time(at: float) -> str:
    """Write absolute seconds."""
    return f"{datetime.fromtimestamp(int(at), UTC):%Y-%m-%dT%H:%M:%SZ}"


def _seconds(text: str) -> float:
    found = datetime.fromisoformat(text)
    at = found.replace(tzinfo=found.tzinfo or UTC).timestamp()
    if not 0 <= at < _END:
        raise ValueError("before 1970, or after 9999")
    return at
