"""A backlog: a spool filled with a great many messages, and drained, by the queue's own calls.

Nothing here is fsynced, so that a million takes minutes: a spool has the same pages either way, and whoever opens it
next has it synced.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import StrEnum
from pathlib import Path

from mta.clock import SystemClock
from mta.config import Retry
from mta.mail.envelope import Envelope, Recipient
from mta.mail.ids import new_message_id
from mta.mail.reply import Reply
from mta.mail.result import Outcome, Result, Verdict
from mta.queue.job import Job
from mta.queue.queue import Queue
from mta.queue.submission import Submission
from mta.spool.interface import Due, Spool, SpoolError
from mta.spool.lmdb.spool import LmdbSpool
from mta.spool.records import Origin
from mta.spool.sealing import load_or_create_keyring

TENANT = "scale"
_OCTETS = 600  # of a message
_TOGETHER = 500  # calls at once, which go into commits of the usual size
_MAP_SIZE = 1 << 36
_TAKEN = Result(Verdict.DELIVERED, Reply(250, "2.0.0", "taken"))


class Shape(StrEnum):
    """Over how many lanes a backlog is spread."""

    DOMAINS = "10,000 domains"
    THOUSAND = "1,000 domains"
    ONE = "one lane"
    EACH = "a lane each"


SPREADS = (Shape.DOMAINS, Shape.ONE, Shape.EACH)  # the furthest apart
_SPREAD = {Shape.DOMAINS: 10_000, Shape.THOUSAND: 1000, Shape.ONE: 1}  # over how many domains, at random


def domain(shape: Shape, number: int, rng: random.Random) -> str:
    """Where message `number` of a backlog goes."""
    return f"d{rng.randrange(_SPREAD[shape]) if shape in _SPREAD else number}.test"


class Backlog:
    """A spool in hand, with nobody else at work in it."""

    def __init__(self, spool: Spool, rng: random.Random) -> None:
        self._spool = spool
        self._rng = rng
        self._clock = SystemClock()
        self._queue = Queue(spool, self._clock, "relay.test", Retry(), lambda: None)

    async def fill(self, count: int, shape: Shape) -> str:
        """Accept `count` messages of one recipient; return the id of one of them."""
        some = ""
        for first in range(0, count, _TOGETHER):
            numbers = range(first, min(first + _TOGETHER, count))
            accepted = await self._queue.accept_each([self._submission(number, shape) for number in numbers])
            for each in accepted:
                if isinstance(each, SpoolError):
                    raise each
                some = some or each.message_id
            await self._move_the_log()
        return some

    def _submission(self, number: int, shape: Shape) -> Submission:
        return Submission(
            id=new_message_id(),
            tenant=TENANT,
            envelope=Envelope(
                sender="app@scale.test", recipients=(Recipient(f"somebody@{domain(shape, number, self._rng)}"),)
            ),
            origin=Origin.RELAY,
            content=f"Subject: {number}\r\n\r\n{self._rng.randbytes(_OCTETS // 2).hex()}\r\n".encode(),
            client="127.0.0.1",
            header_message_id=f"<{number}@scale.test>",
        )

    async def drain(self) -> int:
        """Deliver all there is, in random order; return how many entries that were."""
        await self._queue.take_over()
        waiting = [entry.id async for entry, _ in self._spool.walk_entries()]
        self._rng.shuffle(waiting)
        for first in range(0, len(waiting), _TOGETHER):
            await asyncio.gather(*map(self._deliver, waiting[first : first + _TOGETHER]))
            await self._move_the_log()
        await self._spool.collect(self._clock.now())  # as delivery does every so often
        return len(waiting)

    async def _deliver(self, entry_id: str) -> None:
        entry = await self._spool.entry(entry_id)
        assert entry is not None
        message = await self._spool.message(entry.message)
        assert message is not None
        job = await self._queue.claim(Due(entry, message))
        assert job is not None
        assert await self._queue.settle(job, self._outcome(job))

    def _outcome(self, job: Job) -> Outcome:
        now = self._clock.now()
        results = (_TAKEN,) * len(job.recipients)
        return Outcome(results=results, started_at=now, ended_at=now, site="mx.test", relay="mx.test[192.0.2.1]:25")

    async def _move_the_log(self) -> None:
        """Forget the events, as the events role does when it has them in a segment."""
        await self._spool.discard_events(await self._spool.log_end())


@asynccontextmanager
async def backlog(state_dir: Path, rng: random.Random) -> AsyncIterator[Backlog]:
    """Take the spool of an installation that does not run in hand, made first where there is none."""
    (state_dir / "keys").mkdir(mode=0o700, parents=True, exist_ok=True)
    keyring = load_or_create_keyring(state_dir / "keys" / "spool.key")
    spool = LmdbSpool(state_dir / "spool", keyring, SystemClock(), map_size=_MAP_SIZE, reserve=0, sync=False)
    try:
        yield Backlog(spool, rng)
    finally:
        await spool.close()
