"""How much is crashed, from which seed, and what came of it.

Sizes are those of CI; scripts/campaign asks for more by environment. The seed decides when and what is
killed, and which crash states are made: it is printed, and FAIRLEAD_CRASH_SEED repeats it.
"""

import os
import random

import pytest
from _pytest.terminal import TerminalReporter

_SAID = pytest.StashKey[list[str]]()


def size(name: str, usual: int) -> int:
    """How many of a thing: FAIRLEAD_CRASH_KILLS, _CUTS, _STATES."""
    return int(os.environ.get(f"FAIRLEAD_CRASH_{name}", usual))


class Report:
    """Collects a line for each test; they stand at the end of pytest's output, passed or failed."""

    def __init__(self, lines: list[str], name: str) -> None:
        self._lines = lines
        self._name = name

    def say(self, **figures: object) -> None:
        """Tell what a test has done, as key=value."""
        self._lines.append(" ".join([self._name, *(f"{key}={value}" for key, value in figures.items())]))


@pytest.fixture
def seed() -> int:
    """Of this test; printed with its figures."""
    given = os.environ.get("FAIRLEAD_CRASH_SEED")
    return int(given) if given else random.SystemRandom().randrange(1 << 32)


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Report:
    """Where figures go."""
    lines = request.config.stash.setdefault(_SAID, [])
    return Report(lines, f"crash: {request.node.name}")


def pytest_terminal_summary(terminalreporter: TerminalReporter, config: pytest.Config) -> None:
    """Show what was done: a crash test that says only "passed" says little."""
    for line in config.stash.get(_SAID, []):
        terminalreporter.write_line(line)
