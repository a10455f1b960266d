"""A walk over all entries in bounded portions. A module of its own because mypyc compiles no async generators."""

import asyncio
from collections.abc import AsyncGenerator, Callable

from mta.spool.records import Claim, Entry

Portion = tuple[list[tuple[Entry, Claim | None]], bytes | None]
"""Entries with their claims, and the key at which the next portion begins; None at the end."""


async def walk(read: Callable[[bytes], Portion], begin: bytes) -> AsyncGenerator[tuple[Entry, Claim | None], None]:
    """Walk from a key to the end, letting the loop have a turn between portions."""
    start: bytes | None = begin
    while start is not None:
        found, start = read(start)
        for each in found:
            yield each
        await asyncio.sleep(0)
