import pytest

from mta.accounts.rates import RateError, rate_text, read_rate
from mta.accounts.tolls import Rate


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("1200/60", Rate(1200, 60)),
        ("1/1", Rate(1, 1)),
        ("5/second", Rate(5, 1)),
        ("1200/minute", Rate(1200, 60)),
        ("7/hour", Rate(7, 3600)),
        ("1000000000/day", Rate(1_000_000_000, 86_400)),
    ],
)
def test_a_rate_is_read(text, rate):
    assert read_rate(text) == rate
    assert read_rate(rate_text(rate.messages, rate.seconds)) == rate


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1200",
        "0/60",
        "60/0",
        "-1/60",
        "1.5/60",
        "1/week",
        "1000000001/60",
        "1/86401",
        "1/60 ",
        "١/60",
        "1/60\n",
        "9" * 99,
    ],
)
def test_no_rate(text):
    with pytest.raises(RateError, match="is not a rate such as 1200/60"):
        read_rate(text)


def test_none_has_no_text():
    assert rate_text(0, 0) == ""
