"""Whatever a configuration file holds: it is settings, or problems with their line and column; never a traceback."""

import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mta.config import Config, ConfigError, parse

SAMPLE = Path("config/fairlead.yaml").read_text(encoding="utf-8").replace("#", "")
KEYS = sorted(set(re.findall(r"[a-z_]+(?=:)", SAMPLE)))
SCALARS = [
    *("1", "-1", "0", "0.5", "1e999", ".nan", "true", "null", "''", "x", "9" * 5000, "9" * 400 + "GiB", "100%", "1GiB"),
    *("!!bool x", "!!int ''", "!!int x", "!!float x", "!!timestamp x", "!!binary é", "!!python/name:os.system", "!x y"),
    *("2026-99-99", "unix:/x", "unix:/" + "x" * 200, "127.0.0.1:25", "[::1]:25", "h:99999", "::/0", "/abs", "rel", "*"),
    *("*.é.test", "xn--a", "a" * 300, "&a [*a]", "*b", "<<: 1", "? x", '"\\ud800"', '"\\0"', '"\\x85"', "0x_", "1:30"),
]
lines = st.builds(
    lambda indent, dash, key, value: f"{'  ' * indent}{'- ' if dash else ''}{key}: {value}\n",
    st.integers(0, 2),
    st.booleans(),
    st.sampled_from(KEYS),
    st.sampled_from(SCALARS) | st.sampled_from(["", "[", "]", "{", "}", "[x, y]", "{a: b}"]),
)
files = st.lists(lines, max_size=8).map("".join)
PROBLEM = re.compile(r"file:[0-9]+:[0-9]+: .+", re.DOTALL)


def check(text: str) -> None:
    try:
        problems = [] if isinstance(parse(text, "file"), Config) else ["not settings"]
    except ConfigError as error:
        problems = error.problems or ["none"]
    assert all(PROBLEM.fullmatch(each) for each in problems)


@given(files | st.text(max_size=60))
@example("limits:\n  size: " + "9" * 400 + "GiB\n")
@example("hostname: !!bool x\n")
@settings(max_examples=300, deadline=None)
def test_any_text(text: str) -> None:
    check(text)


@pytest.mark.parametrize("value", SCALARS)
def test_any_scalar_in_each_place(value: str) -> None:
    for key in ("hostname", "state_dir", "http", "listeners", "limits"):
        check(f"{key}: {value}\n")
        check(f"limits:\n  size: {value}\nhttp:\n  address: {value}\nretry:\n  intervals: [{value}]\n")
        check(f"listeners:\n- address: {value}\n  kind: {value}\n  networks: [{value}]\n  tenant: {value}\n")
        check(f"routes:\n- domains: {value}\n  relay: {value}\nspool:\n  reserve: {value}\ntls:\n  key: {value}\n")


@given(st.integers(0, len(SAMPLE)), st.sampled_from(SCALARS))
@settings(max_examples=40, deadline=None)
def test_a_slip_in_the_sample(at: int, value: str) -> None:
    check(SAMPLE[:at] + value + SAMPLE[at:])
