"""For all tests: hypothesis's examples are the same every time, unless a seed is given (scripts/campaign does)."""

import pytest
from hypothesis import settings

settings.register_profile("fixed", derandomize=True)


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--hypothesis-seed") is None:
        settings.load_profile("fixed")
