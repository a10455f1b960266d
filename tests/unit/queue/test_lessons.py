"""Lessons in a real spool: kept, recalled, and kept by two at once."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mta.lab.clock import FakeClock
from mta.queue import shaping
from mta.queue.lessons import LEARNED, PAUSED, Lessons
from mta.queue.limits import Limits
from mta.spool.lmdb.spool import LmdbSpool
from mta.spool.sealing import Keyring
from tests.unit.queue.test_limits import GMAIL, TAKEN, attempt, said

RULES = "rules: [{match: spam, action: pause, of: tenant, lasts: 600}]"


@pytest.fixture
async def spool(tmp_path: Path) -> AsyncIterator[LmdbSpool]:
    made = LmdbSpool(tmp_path / "spool", Keyring([os.urandom(32)]), FakeClock(), map_size=1 << 30, reserve=0)
    yield made
    await made.close()


def limits() -> Limits:
    return Limits(shaping.parse(RULES, "s.yaml"), 20)


async def test_what_was_learned_is_recalled(spool: LmdbSpool) -> None:
    clock, before, after = FakeClock(), limits(), limits()
    attempt(before, GMAIL, said("421 4.7.0 enough"), clock.monotonic())
    attempt(before, GMAIL, said("550 5.7.1 spam"), clock.monotonic())
    attempt(before, GMAIL._replace(site="plain"), TAKEN, clock.monotonic())
    await Lessons(spool, before, clock).keep()
    assert [name for name, _ in await spool.list_records(LEARNED)] == ["192.0.2.1 gmail"]  # nothing of who has no limit
    lessons = Lessons(spool, after, clock)
    await lessons.recall()
    now = clock.monotonic()
    assert after.rows(now)[0].rate == before.rows(now)[0].rate
    assert after.held_by(GMAIL, now) == ("tenant", "site")
    after.forget("gmail")
    await lessons.keep()
    assert await spool.list_records(LEARNED) == await spool.list_records(PAUSED) == []


async def test_two_may_keep_at_once(spool: LmdbSpool) -> None:
    """Red when both remove what is gone: KeyError."""
    clock, known = FakeClock(), limits()
    attempt(known, GMAIL, said("550 5.7.1 spam"), clock.monotonic())
    lessons = Lessons(spool, known, clock)
    await asyncio.gather(lessons.keep(), lessons.keep())
    known.forget("gmail")
    await asyncio.gather(lessons.keep(), lessons.keep())
    assert await spool.list_records(PAUSED) == []


async def test_what_cannot_be_read_is_learned_again(spool: LmdbSpool, caplog: pytest.LogCaptureFixture) -> None:
    await spool.put_record(LEARNED, "192.0.2.1 gmail", b"\x91\x01", replace=True)
    known = limits()
    with caplog.at_level(logging.ERROR):
        await Lessons(spool, known, FakeClock()).recall()
    assert "read=no" in caplog.text
    assert known.rows(0.0) == []
