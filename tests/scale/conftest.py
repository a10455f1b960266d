"""What was found: at once to stderr, because a million takes its time, and at the end of pytest's output."""

import os
import random
import sys
from collections.abc import Callable

import pytest
from _pytest.terminal import TerminalReporter

_SAID = pytest.StashKey[list[str]]()


@pytest.fixture
def seed() -> int:
    """Of what is random, such as the order in which a backlog is drained."""
    given = os.environ.get("FAIRLEAD_CRASH_SEED")  # as scripts/campaign gives it to all its parts
    return int(given) if given else random.SystemRandom().randrange(1 << 32)


@pytest.fixture
def say(request: pytest.FixtureRequest) -> Callable[[object], None]:
    """Where figures go, in a line each."""
    lines = request.config.stash.setdefault(_SAID, [])
    capture = request.config.pluginmanager.getplugin("capturemanager")

    def say(said: object) -> None:
        lines.append(f"flat: {said}")
        with capture.global_and_fixture_disabled():
            print(lines[-1], file=sys.stderr, flush=True)

    return say


def pytest_terminal_summary(terminalreporter: TerminalReporter, config: pytest.Config) -> None:
    """Show what was measured."""
    for line in config.stash.get(_SAID, []):
        terminalreporter.write_line(line)
