"""A provider whose limits nobody told us, before the real dispatcher and spool, in simulated time.

It allows 20 messages a minute and 2 connections, and says 421 beyond. The same with more seeds, without a dispatcher:
tests/unit/queue/test_limits_simulation.py.
"""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import pytest

from mta.lab.clock import FakeClock
from mta.mail.result import Outcome, Reach, Result, Scope, Verdict
from mta.queue.job import Job
from mta.queue.limits import Start
from tests.unit.delivery.test_dispatcher import OK, Bench, Peer
from tests.unit.queue.provider import CLOSING, IDLE, Habits, Provider

MINUTE = 60
TEN = 10 * MINUTE
REFUSED = Result(Verdict.DEFERRED, CLOSING, Scope.HOST)


class Sites(Peer):
    """`limited.test` belongs to the provider; all others take two seconds for each message."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self.clock = clock
        self.provider = Provider(Habits(), Random(1))
        self.tarpit = 0.0  # seconds before the provider says anything
        self.refused: list[tuple[float, bool]] = []
        self.got: Counter[str] = Counter()
        self._kept: deque[tuple[float, int]] = deque()  # since when, and of how many transactions

    async def attempt(self, job: Job, start: Start) -> Outcome:
        domain = job.entry.domain
        if domain != "limited.test":
            await self._wait(2.0)
            self.got[domain] += 1
            return self._outcome(job, OK, Reach.TRANSACTION)
        outcome = await self._provided(job)
        self.refused.append((self.clock.monotonic(), outcome.results[0] is REFUSED))
        return outcome

    async def _provided(self, job: Job) -> Outcome:
        await self._wait(self.tarpit)
        now, closed_after, transactions = self.clock.monotonic(), 0, 0
        while self._kept and self._kept[0][0] < now - IDLE:
            self._kept.popleft()
            self.provider.open -= 1
        if self._kept:
            _, transactions = self._kept.pop()
            if not self.provider.takes(now):
                self.provider.open -= 1
                closed_after, transactions = transactions, 0
        dialled = int(not transactions)
        if dialled:
            await self._wait(0.1)
            if not self.provider.connects():
                return self._outcome(job, REFUSED, Reach.HOST, closed_after, dialled)
            self.provider.open += 1
            if not self.provider.takes(self.clock.monotonic()):
                self.provider.open -= 1
                return self._outcome(job, REFUSED, Reach.SESSION, closed_after, dialled)
        await self._wait(0.2)
        self._kept.append((self.clock.monotonic(), transactions + 1))
        return self._outcome(job, OK, Reach.TRANSACTION, closed_after, dialled)

    async def _wait(self, seconds: float) -> None:
        await self.clock.wait(asyncio.Event(), seconds)

    def _outcome(self, job: Job, result: Result, reach: Reach, closed_after: int = 0, dialled: int = 0) -> Outcome:
        return Outcome(
            results=(result,) * len(job.recipients),
            started_at=0.0,
            ended_at=0.0,
            site=job.entry.domain,
            reach=reach,
            closed_after=closed_after,
            dialled=dialled,
        )

    def a_minute(self, since: float) -> float:
        count = sum(taken for at, taken in self.provider.offered if at >= since)
        return MINUTE * count / (self.clock.monotonic() - since)

    def share_refused(self, since: float) -> float:
        found = [refused for at, refused in self.refused if at >= since]
        return found.count(True) / len(found)


class Simulated(Bench):
    peer: Sites

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.peer = Sites(self.clock)

    async def run_for(self, seconds: int) -> float:
        """Let time pass, no faster than the spool commits; return when it began."""
        began = self.clock.monotonic()
        for _ in range(2 * seconds):
            await self.clock.advance(0.5)
            for _ in range(3):  # outcome and claim are stored before more time passes, however slow the machine is
                await self.spool.put_record("test", "turn", b"", replace=True)
        return began


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Simulated]:
    made = Simulated(tmp_path / "spool")
    yield made
    made.running.cancel()
    await asyncio.wait((made.running,))
    ending = asyncio.create_task(made.dispatcher.stop())
    while not ending.done():
        await made.clock.advance(1.0)
        await asyncio.sleep(0.001)
    await made.spool.close()


async def test_what_a_provider_allows_is_found_out_and_known_after_a_restart(bench: Simulated) -> None:
    await bench.accept(*["limited.test"] * 600)
    bench.start()
    await bench.run_for(TEN)
    since = await bench.run_for(TEN)
    assert 16 <= bench.peer.a_minute(since) <= 20
    assert bench.peer.share_refused(since) < 0.05
    stopping = asyncio.create_task(bench.dispatcher.stop())
    while not stopping.done():
        await bench.clock.advance(0.5)
        await asyncio.sleep(0.002)
    bench.running.cancel()
    bench.start()
    since = await bench.run_for(TEN // 2)
    assert 16 <= bench.peer.a_minute(since) <= 20
    assert bench.peer.share_refused(since) < 0.05


async def test_others_keep_their_rate_while_it_tarpits(bench: Simulated) -> None:
    others = ["x.test", "y.test"]
    await bench.accept(*others * 250)
    bench.start(connections=50, per_site=5)
    await bench.run_for(10)
    before = bench.peer.got.copy()
    await bench.run_for(40)
    alone = (bench.peer.got - before).total()
    bench.peer.tarpit = 300.0
    await bench.accept(*["limited.test"] * 100)
    await bench.run_for(10)
    before = bench.peer.got.copy()
    await bench.run_for(40)
    assert (bench.peer.got - before).total() >= 0.95 * alone > 100
    rows = {row.site: row for row in await bench.dispatcher.sites()}
    assert rows["limited.test"].in_flight == 5
    assert all(rows[site].lanes for site in others)
