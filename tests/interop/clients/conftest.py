"""What the tests of all clients have."""

import uuid

import pytest


@pytest.fixture
def token() -> str:
    """What the messages of a test are found by."""
    return uuid.uuid4().hex
