"""A spool that stands before another one, so that a test can change what it does.

A compiled class can be neither subclassed nor patched from without (scripts/compiled).
"""

from typing import Any

from mta.spool.interface import Spool


class StandIn:
    """Does what the spool behind it does, but for what a subclass or a test has put in its place."""

    def __init__(self, spool: Spool) -> None:
        self.behind = spool

    def __getattr__(self, name: str) -> Any:
        return getattr(self.behind, name)
