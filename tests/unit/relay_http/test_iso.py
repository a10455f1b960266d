"""Times of JSON."""

import pytest

from relay_http.iso import read_day, read_time, write_time


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2027-06-01T15:00:00Z", 1_811_862_000.0),
        ("2027-06-01T15:00:00", 1_811_862_000.0),
        ("2027-06-01 15:00", 1_811_862_000.0),
        ("2027-06-01T17:00:00+02:00", 1_811_862_000.0),
        ("2027-06-01T15:00:00.250Z", 1_811_862_000.25),
        ("1970-01-01T00:00:00Z", 0.0),
        ("9999-12-30T23:59:59Z", 253_402_214_399.0),
    ],
)
def test_times(text: str, at: float) -> None:
    assert read_time(text) == at
    assert read_time(write_time(at)) == int(at)


@pytest.mark.parametrize(
    "text",
    [
        *("", "now", "2027-06-01", "2027-06-01T25:00:00Z", "1969-12-31T23:59:59Z", "9999-12-31T00:00:00Z"),
        *(
            "9999-12-31T23:59:59-23:59",
            "0001-01-01T00:00:00+23:59",
            "2027-06-01T15:00:00Z".ljust(41),
            "٢٠٢٧-06-01T15:00",
        ),
    ],
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(ValueError):
        read_time(text)


def test_days() -> None:
    assert read_day("1970-01-02") == (86_400.0, 172_800.0)
    assert read_day("1970-01-02T00:00:00Z") == (86_400.0, 86_400.0)
    for text in ("1970-13-01", "9999-12-31", "19700101", "yesterday!"):
        with pytest.raises(ValueError):
            read_day(text)
