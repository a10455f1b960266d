"""The dispatcher on a real spool, with attempts that end when the test says so."""

import asyncio
import logging
import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mta.accounts import tenants
from mta.config import Delivery, Retry
from mta.delivery import dispatcher as module
from mta.delivery import lookout
from mta.delivery.dispatcher import Dispatcher
from mta.lab.clock import FakeClock
from mta.mail.envelope import Envelope, Recipient
from mta.mail.ids import new_message_id
from mta.mail.reply import Reply
from mta.mail.result import Outcome, Reach, Result, Scope, Verdict
from mta.queue import shaping, weights
from mta.queue.drain import Rates
from mta.queue.explanation import HeldBy, LaneState
from mta.queue.job import Job
from mta.queue.lessons import LEARNED, PAUSED
from mta.queue.limits import Advice, Aim, Limits, Start
from mta.queue.queue import Queue
from mta.queue.shaping import Shaping
from mta.queue.submission import Submission
from mta.queue.turns import STAYS
from mta.queue.window import DEAD_FIRST, FIRST
from mta.spool.interface import Settlement, Uncertain
from mta.spool.lmdb import commit
from mta.spool.lmdb.care import verify
from mta.spool.lmdb.commit import Group
from mta.spool.lmdb.spool import LmdbSpool
from mta.spool.records import Claim, Entry, Lane, MessageClass, Origin
from mta.spool.sealing import Keyring
from tests.contract.spool_contract import a_message
from tests.contract.stand_in import StandIn

REFUSED = Result(Verdict.DEFERRED, Reply(451, "4.4.1", "nobody listens"), scope=Scope.HOST, remote=False)
OK = Result(Verdict.DELIVERED, Reply(250, "2.0.0", "ok"))
KEYRING = Keyring([os.urandom(32)])


def deferred(text: str) -> Result:
    """What a site says that wants it later."""
    return Result(Verdict.DEFERRED, Reply(451, "4.7.1", text))


class Peer:
    """Makes the attempts. They wait for `go`; a domain in `defects` meets one."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.tenants: list[str] = []
        self.sites: dict[str, str] = {}
        self.hosts: dict[str, tuple[str, ...]] = {}  # by domain
        self.met: dict[str, str] = {}  # by domain, the site that an attempt meets instead
        self.asked: list[str] = []
        self.slow: set[str] = set()
        self.unknown: set[str] = set()  # and answered at once
        self.answer = asyncio.Event()
        self.at_once: list[int] = []
        self.go = asyncio.Semaphore(0)
        self.defects: set[str] = set()
        self.says: dict[str, tuple[Result, Reach]] = {}  # by domain, instead of OK
        self.greylisted: list[str] = []
        self.committed: list[str] = []
        self._under_way = 0

    def knows(self, destination: str) -> bool:
        return destination not in self.slow | self.unknown

    async def aim(self, destination: str) -> Aim:
        self.asked.append(destination)
        if destination in self.slow:
            await self.answer.wait()
        return Aim(self.sites.get(destination, destination), self.hosts.get(destination, ()))

    async def attempt(self, job: Job, start: Start) -> Outcome:
        assert start.about.tenant == job.entry.tenant
        self.greylisted.append(job.entry.again_at)
        self.begun.append(job.entry.domain)
        self.tenants.append(job.entry.tenant)
        self._under_way += 1
        self.at_once.append(self._under_way)
        await self.go.acquire()
        self._under_way -= 1
        if job.entry.domain in self.defects:
            raise ZeroDivisionError
        domain = job.entry.domain
        result, reach = self.says.get(domain, (OK, Reach.TRANSACTION))
        return Outcome(
            results=(result,) * len(job.recipients),
            started_at=0.0,
            ended_at=0.0,
            reach=reach,
            relay="mx.test[192.0.2.1]:25",
            site=self.met.get(domain, self.sites.get(domain, domain)),
        )

    def let_go(self, count: int = 1000) -> None:
        for _ in range(count):
            self.go.release()

    def settled(self, job: Job) -> None:
        self.committed.append(job.entry.id)


class Bench:
    """A dispatcher that runs, and words for what a test wants of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = FakeClock()
        self.spool = StandIn(LmdbSpool(path, KEYRING, self.clock, map_size=1 << 30, reserve=0))
        self.queue = Queue(self.spool, self.clock, "relay.test", Retry(jitter=0.0), self.ring)
        self.peer = Peer()
        self.shaping = Shaping()
        self.dispatcher: Dispatcher
        self.running: asyncio.Task[None]

    def start(self, *, connections: int = 20, per_site: int = 20, poll: float = 1e6) -> None:
        settings = Delivery(connections=connections, connections_per_site=per_site)
        limits = Limits(self.shaping, per_site)
        self.dispatcher = Dispatcher(self.spool, self.queue, self.peer, limits, settings, self.clock, poll=poll)
        self.running = asyncio.create_task(self.dispatcher.run())

    def ring(self) -> None:
        if hasattr(self, "dispatcher"):
            self.dispatcher.ring()

    async def accept(self, *domains: str, tenant: str = "acme", content: bytes = b"Subject: s\r\n\r\nbody\r\n") -> None:
        for domain in domains:
            envelope = Envelope(sender="", recipients=(Recipient(f"a@{domain}"),))
            message = new_message_id()
            await self.queue.accept(
                Submission(id=message, tenant=tenant, envelope=envelope, origin=Origin.RELAY, content=content)
            )

    async def until(self, holds: Callable[[], bool | Awaitable[bool]]) -> None:
        async with asyncio.timeout(5):
            while True:
                found = holds()
                if found if isinstance(found, bool) else await found:
                    return
                await asyncio.sleep(0.005)

    async def waiting(self) -> list[tuple[Entry, Claim | None]]:
        return [each async for each in self.spool.walk_entries()]

    async def empty(self) -> bool:
        return not await self.waiting()

    async def dead(self) -> bool:
        return any(row.dead_for for row in await self.dispatcher.sites())

    async def close(self) -> None:
        self.peer.let_go()
        self.running.cancel()
        await asyncio.wait((self.running,))
        await self.dispatcher.stop()
        await self.spool.close()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path / "spool")
    yield made
    await made.close()
    assert verify(made.path, KEYRING).problems == []


async def test_the_limits_of_the_process_and_of_a_lane(bench: Bench) -> None:
    await bench.accept(*["x.test"] * 6, *["y.test"] * 6)
    bench.start(connections=5, per_site=3)
    await bench.until(lambda: len(bench.peer.begun) == 5)
    assert sorted(bench.peer.begun.count(each) for each in ("x.test", "y.test")) == [2, 3]
    bench.peer.let_go()
    await bench.until(bench.empty)
    assert max(bench.peer.at_once) == 5


async def test_a_slot_that_is_left_goes_to_who_waits_for_it(bench: Bench) -> None:
    """Without a poll: the bell alone must do it."""
    await bench.accept("x.test", "y.test", "z.test")
    bench.peer.let_go()
    bench.start(connections=1)
    await bench.until(bench.empty)


@pytest.mark.parametrize("tenant", ["acme", "other"])
async def test_a_long_lane_leaves_room_for_a_short_one(bench: Bench, tenant: str) -> None:
    await bench.accept(*["long.test"] * 50)
    bench.start(connections=2)
    await bench.until(lambda: len(bench.peer.begun) == 2)
    await bench.accept("short.test", tenant=tenant)
    await asyncio.sleep(0.05)
    bench.peer.let_go(10)
    await bench.until(lambda: len(bench.peer.begun) == 12)
    assert "short.test" in bench.peer.begun


async def test_tenants_share_by_weight_and_a_new_weight_holds_soon(bench: Bench) -> None:
    for tenant, weight in (("heavy", 3), ("light", 1)):
        await tenants.create(bench.spool, tenant, 1.0, weight=weight)
        await bench.accept(*["x.test"] * 60, tenant=tenant)
    bench.start(connections=4)
    await bench.until(lambda: len(bench.peer.begun) == 4)
    bench.peer.let_go(36)
    await bench.until(lambda: len(bench.peer.begun) == 40)
    assert Counter(bench.peer.tenants)["heavy"] == pytest.approx(30, abs=2)
    await tenants.change(bench.spool, "light", weight=3)
    await bench.clock.advance(weights.INTERVAL)
    bench.ring()
    await asyncio.sleep(0.05)
    bench.peer.let_go(40)
    await bench.until(lambda: len(bench.peer.begun) == 80)
    assert Counter(bench.peer.tenants[40:])["heavy"] == pytest.approx(20, abs=3)


async def test_a_site_is_shared_by_all_tenants_and_has_its_limit_once(bench: Bench) -> None:
    for tenant in ("one", "two", "three"):
        await bench.accept(*["x.test"] * 10, tenant=tenant)
    bench.start(connections=20, per_site=3)
    await bench.until(lambda: len(bench.peer.begun) == 3)
    await asyncio.sleep(0.05)
    assert Counter(bench.peer.tenants) == {"one": 1, "two": 1, "three": 1}
    bench.peer.let_go()
    await bench.until(bench.empty)
    assert max(bench.peer.at_once) == 3


@pytest.mark.parametrize("others", [0, 1])
async def test_a_place_at_a_site_is_free_when_the_outcome_is_stored_and_then_at_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, others: int
) -> None:
    """Without a poll: the bell alone must do it."""
    stored, storing = bench.spool.settle, asyncio.Event()

    async def settle(settlement: Settlement) -> bool:
        await storing.wait()
        return await stored(settlement)

    monkeypatch.setattr(bench.spool, "settle", settle)
    bench.peer.let_go()
    await bench.accept("x.test", *["y.test"] * others)
    bench.start(connections=2, per_site=1)
    await bench.until(lambda: len(bench.peer.begun) == 1 + others)
    await asyncio.sleep(0.05)
    await bench.accept("x.test")
    await asyncio.sleep(0.05)
    assert bench.peer.begun.count("x.test") == 1
    storing.set()
    await bench.until(bench.empty)
    assert bench.peer.begun.count("x.test") == 2
    await bench.until(lambda: bench.dispatcher._turns._places == {})


async def test_domains_of_one_site_share_its_limit_and_tenants_share_the_site(bench: Bench) -> None:
    domains = [f"d{number}.test" for number in range(40)]
    bench.peer.sites = dict.fromkeys(domains, "mx.test:25")
    await bench.accept(*domains[:39], tenant="many")
    await bench.accept(domains[39], tenant="one")
    bench.start(connections=30, per_site=4)
    await bench.until(lambda: len(bench.peer.begun) == 4)
    await asyncio.sleep(0.05)
    assert sorted(bench.peer.tenants) == ["many", "many", "many", "one"]
    bench.peer.let_go()
    await bench.until(bench.empty)
    assert max(bench.peer.at_once) == 4


async def test_lanes_whose_site_has_no_room_take_up_nobodys_place(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookout, "LANES", 4)
    monkeypatch.setattr(lookout, "LOOKS_FREELY", 2)
    domains = [f"d{number}.test" for number in range(20)]
    bench.peer.sites = dict.fromkeys(domains, "full.test:25")
    await bench.accept(*domains)
    bench.start(per_site=1, poll=1.0)
    await bench.until(lambda: len(bench.peer.begun) == 1)
    await bench.accept("x.test")
    for _ in range(10):
        await bench.clock.advance(1.0)
    await bench.until(lambda: "x.test" in bench.peer.begun)
    bench.peer.let_go()
    await bench.until(bench.empty)
    assert max(bench.peer.at_once) == 2


async def test_a_dead_site_is_left_alone_and_probed_while_others_go_on(bench: Bench) -> None:
    bench.peer.says["dead.test"] = (REFUSED, Reach.HOST)
    bench.peer.let_go()
    await bench.accept(*["dead.test"] * 30)
    bench.start(connections=20)
    await bench.until(bench.dead)
    tried = len(bench.peer.begun)
    assert FIRST <= tried <= 2 * FIRST
    await bench.accept("x.test")
    await bench.until(lambda: "x.test" in bench.peer.begun)
    assert len(bench.peer.begun) == tried + 1
    await bench.clock.advance(DEAD_FIRST)
    await bench.until(lambda: len(bench.peer.begun) == tried + 2)
    await bench.clock.advance(DEAD_FIRST)
    assert len(bench.peer.begun) == tried + 2
    del bench.peer.says["dead.test"]
    await bench.clock.advance(DEAD_FIRST)
    await bench.clock.advance(DEAD_FIRST)  # for those that were deferred
    await bench.until(bench.empty)


async def test_what_a_provider_allows_is_kept_to(bench: Bench) -> None:
    bench.shaping = shaping.parse(
        "providers: [{name: p, mx: [p.test], connections: 2, messages: 10/1s}]\n", "shaping.yaml"
    )
    bench.peer.hosts["x.test"] = ("mx.p.test",)
    bench.peer.let_go()
    await bench.accept(*["x.test"] * 40)
    bench.start()
    await asyncio.sleep(0.05)
    for _ in range(20):
        before = len(bench.peer.begun)
        await bench.clock.advance(0.1)
        await bench.until(lambda before=before: len(bench.peer.begun) > before or before == 40)  # type: ignore[misc]
        assert len(bench.peer.begun) <= 12 + 10 * bench.clock.monotonic()
    assert max(bench.peer.at_once) <= 2
    for _ in range(40):
        await bench.clock.advance(0.1)
        await asyncio.sleep(0.01)
    await bench.until(bench.empty)


RULES = """
rules:
  - {match: come back never, action: bounce}
  - {match: wait for us, action: hold}
  - {match: greylisted, action: greylist, lasts: 77}
  - {match: too eager, action: pause, of: tenant, lasts: 100}
"""


async def test_rules_decide_what_a_reply_means(bench: Bench) -> None:
    bench.shaping = shaping.parse(RULES, "shaping.yaml")
    for name, text in (("bounce", "come back never"), ("hold", "wait for us"), ("grey", "greylisted")):
        bench.peer.says[f"{name}.test"] = (deferred(text), Reach.TRANSACTION)
    bench.peer.let_go()
    await bench.accept("bounce.test", "hold.test", "grey.test")
    bench.start()
    await bench.until(lambda: len(bench.peer.committed) == 3)
    waiting = {entry.domain: entry for entry, _ in await bench.waiting()}
    assert set(waiting) == {"hold.test", "grey.test"}
    assert waiting["hold.test"].held
    assert waiting["grey.test"].due_at == bench.clock.now() + 77
    await bench.clock.advance(77)
    await bench.until(lambda: len(bench.peer.greylisted) == 4)
    assert bench.peer.greylisted[3] == "mx.test[192.0.2.1]:25"  # the same address is asked again, once it is time


async def test_a_pause_of_a_tenant_at_a_site_is_of_nobody_else(bench: Bench) -> None:
    bench.shaping = shaping.parse(RULES, "shaping.yaml")
    bench.peer.says["x.test"] = (deferred("too eager"), Reach.TRANSACTION)
    bench.peer.let_go()
    await bench.accept("x.test", tenant="eager")
    bench.start()
    await bench.until(lambda: len(bench.peer.committed) == 1)
    del bench.peer.says["x.test"]
    await bench.accept("x.test", "y.test", tenant="eager")
    await bench.accept("x.test", tenant="other")
    await bench.until(lambda: len(bench.peer.begun) == 3)
    assert list(zip(bench.peer.tenants, bench.peer.begun, strict=True))[1:] in (
        [("eager", "y.test"), ("other", "x.test")],
        [("other", "x.test"), ("eager", "y.test")],
    )
    await bench.clock.advance(100)
    await bench.until(bench.empty)


async def test_what_was_learned_survives_a_restart_and_is_forgotten_with_age(bench: Bench) -> None:
    bench.peer.says["dead.test"] = (REFUSED, Reach.HOST)
    bench.peer.says["x.test"] = (deferred("too eager"), Reach.TRANSACTION)
    bench.shaping = shaping.parse(RULES, "shaping.yaml")
    bench.peer.let_go()
    await bench.accept("x.test", tenant="eager")
    bench.start()
    await bench.until(lambda: len(bench.peer.committed) == 1)
    await bench.dispatcher.stop()
    del bench.peer.says["x.test"]
    bench.start()
    await bench.accept("x.test", tenant="eager")
    await bench.clock.advance(50)
    await asyncio.sleep(0.05)
    assert len(bench.peer.begun) == 1
    assert [(row.site, row.tenants_paused) for row in await bench.dispatcher.sites()] == [("x.test", ("eager",))]
    await bench.clock.advance(60)
    await bench.until(bench.empty)
    await bench.dispatcher.stop()
    assert await bench.spool.list_records(LEARNED) == await bench.spool.list_records(PAUSED) == []


async def test_what_is_met_elsewhere_is_no_lesson_on_the_site_that_was_asked(bench: Bench) -> None:
    bench.peer.sites["x.test"] = "a.test:25"
    bench.peer.met["x.test"] = "b.test:25"
    bench.peer.says["x.test"] = (deferred("421 4.7.0 enough"), Reach.SESSION)
    bench.peer.let_go()
    await bench.accept("x.test")
    bench.start()
    await bench.until(lambda: len(bench.peer.committed) == 1)
    assert [(row.site, row.rate, row.reply) for row in await bench.dispatcher.sites()] == [("a.test:25", None, "")]


async def test_a_route_and_an_mx_of_one_name_are_one_site(bench: Bench) -> None:
    """Red when a site is its name and its hosts together: two places, one window, and one of them waits for ever."""
    bench.peer.sites = {"routed.test": "mx.test:25", "other.test": "mx.test:25"}
    bench.peer.hosts["other.test"] = ("mx.test",)
    await bench.accept(*["routed.test", "other.test"] * 4)
    bench.start(per_site=1)
    for count in range(1, 9):
        await bench.until(lambda count=count: len(bench.peer.begun) == count)  # type: ignore[misc]
        assert list(bench.dispatcher._turns._places) == ["mx.test:25"]
        bench.peer.let_go(1)
    await bench.until(bench.empty)
    assert max(bench.peer.at_once) == 1


async def test_a_lane_without_work_costs_no_token(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Red when what was started with nothing to do is not given back: the next waits for an hour."""
    bench.shaping = shaping.parse("limits: [{by: [tenant], messages: 1/1h}]", "shaping.yaml")
    lane = Lane("acme", MessageClass.NORMAL, "gone.test")
    found = bench.spool.lanes

    async def lanes(*arguments: Any) -> list[Lane]:
        return [lane, *await found(*arguments)]

    monkeypatch.setattr(bench.spool, "lanes", lanes)
    bench.start(poll=1.0)
    await bench.until(lambda: "gone.test" in bench.peer.asked)
    monkeypatch.undo()
    await bench.accept("x.test")
    await bench.until(lambda: bench.peer.begun == ["x.test"])


async def test_what_is_forgotten_holds_up_nobody(bench: Bench) -> None:
    """Without a poll: who was held goes on at once."""
    bench.shaping = shaping.parse(RULES, "shaping.yaml")
    bench.peer.says["x.test"] = (deferred("too eager"), Reach.TRANSACTION)
    bench.peer.let_go()
    await bench.accept("x.test", tenant="eager")
    bench.start()
    await bench.until(lambda: len(bench.peer.committed) == 1)
    del bench.peer.says["x.test"]
    await bench.accept("x.test", tenant="eager")
    await asyncio.sleep(0.05)
    assert len(bench.peer.begun) == 1
    [row] = await bench.dispatcher.sites()
    assert (row.tenants_paused, row.lanes) == (("eager",), 1)
    assert await bench.dispatcher.forget("x.test")
    await bench.until(lambda: len(bench.peer.committed) == 2)
    assert not await bench.dispatcher.forget("nobody.test")


async def test_how_long_the_oldest_has_been_due_is_shown(bench: Bench) -> None:
    await bench.accept("x.test", "x.test")
    bench.start(per_site=1)
    await bench.until(lambda: len(bench.peer.begun) == 1)
    await bench.clock.advance(75)
    [row] = await bench.dispatcher.sites()
    assert (row.site, row.in_flight, row.connections, row.lanes, row.oldest) == ("x.test", 1, 1, 1, 75)


def test_only_replies_that_a_rule_matches_bounce() -> None:
    result = deferred("come back never")
    own = msgspec.structs.replace(result, remote=False)
    outcome = Outcome(
        results=(result, deferred("later"), OK, own), started_at=0.0, ended_at=0.0, site="x", reach=Reach.TRANSACTION
    )
    found = module.advised(outcome, Advice(bounced=(result.reply,)))
    assert [each.verdict for each in found.results] == [
        Verdict.FAILED, Verdict.DEFERRED, Verdict.DELIVERED, Verdict.DEFERRED,
    ]  # fmt: skip


async def test_a_site_that_is_looked_up_for_long_holds_up_nobody(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookout, "LOOKUPS_A_TENANT", 3)
    slow = [f"slow{number}.test" for number in range(5)]
    bench.peer.slow.update(slow)
    bench.peer.let_go()
    await bench.accept(*slow, tenant="slow")
    await bench.accept("x.test", tenant="fast")
    bench.start()
    await bench.until(lambda: bench.peer.begun == ["x.test"])
    assert len(bench.peer.asked) == 4
    bench.peer.answer.set()
    await bench.until(bench.empty)
    assert sorted(bench.peer.begun) == [*slow, "x.test"]


async def test_sites_that_are_looked_up_for_long_hold_up_nothing_that_is_known(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Red when a stranger's slow policy hosts keep the mail of a tenant from where it goes every day."""
    monkeypatch.setattr(lookout, "LOOKUPS_A_TENANT", 3)
    slow = [f"slow{number}.test" for number in range(5)]
    bench.peer.slow.update(slow)
    await bench.accept(*slow)
    bench.start()
    await bench.until(lambda: len(bench.peer.asked) == 3)
    await bench.accept("known.test")
    await bench.until(lambda: bench.peer.begun == ["known.test"])
    assert len(bench.peer.asked) == 4


async def test_sites_that_are_looked_up_for_long_leave_some_lookups_to_every_tenant(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookout, "LOOKUPS", 4)
    monkeypatch.setattr(lookout, "LOOKUPS_A_TENANT", 2)
    monkeypatch.setattr(lookout, "LOOKUPS_FREELY", 1)
    slow = [f"slow{number}.test" for number in range(3)]
    bench.peer.slow.update(slow)
    bench.peer.unknown.add("new.test")
    for tenant in ("one", "two", "three"):
        await bench.accept(*slow, tenant=tenant)
    bench.start()
    await bench.until(lambda: len(bench.peer.asked) >= 4)
    await bench.accept("new.test", tenant="four")
    await bench.until(lambda: bench.peer.begun == ["new.test"])
    assert len(bench.peer.asked) <= 4 + 2


async def test_what_the_dns_has_to_be_asked_for_is_asked_little_by_little(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookout, "LOOKUPS_FREELY", 2)
    monkeypatch.setattr(lookout, "LOOKUP_PAUSE", 0.05)
    slow = [f"slow{number}.test" for number in range(6)]
    bench.peer.slow.update(slow)
    bench.peer.let_go()
    await bench.accept(*slow, "known.test")
    await bench.accept(*slow, tenant="other")
    bench.start()
    await bench.until(lambda: bench.peer.begun == ["known.test"])
    assert len(bench.peer.asked) == 2 + 2 + 1
    bench.peer.answer.set()
    await bench.until(bench.empty)


async def test_more_lanes_than_are_looked_up_at_once_are_placed_all(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookout, "LOOKUPS_A_TENANT", 3)
    await bench.accept(*[f"d{number}.test" for number in range(10)])
    bench.start()
    await bench.until(lambda: len(bench.peer.begun) == 10)


async def test_a_lane_whose_site_has_changed_is_placed_anew(bench: Bench) -> None:
    await bench.accept(*["x.test"] * 6)
    bench.start(connections=10, per_site=2)
    await bench.until(lambda: len(bench.peer.begun) == 2)
    bench.peer.sites["x.test"] = "mx.test:25"
    bench.peer.let_go(2)
    await bench.until(lambda: len(bench.peer.begun) == 4)
    await asyncio.sleep(0.05)
    assert bench.dispatcher._turns.at_work("mx.test:25") == 2
    assert bench.dispatcher._turns.at_work("x.test") == 0


async def test_whoever_comes_to_a_flood_has_one_of_the_next_slots(bench: Bench) -> None:
    await bench.accept(*[f"d{number}.test" for number in range(90)], *["x.test"] * 90, tenant="flood")
    bench.start(connections=10)
    await bench.until(lambda: len(bench.peer.begun) == 10)
    await bench.accept("x.test", "new.test", tenant="light")
    await asyncio.sleep(0.05)
    bench.peer.let_go(4 * STAYS)
    await bench.until(lambda: len(bench.peer.begun) == 10 + 4 * STAYS)
    assert bench.peer.tenants.count("light") == 2


async def test_with_many_lanes_the_bell_is_heeded_at_once_for_others_only(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def known(domain: str) -> bool:
        return domain in [lane.domain for lane in bench.dispatcher._turns.lanes]

    monkeypatch.setattr(lookout, "LOOKS_FREELY", 2)
    monkeypatch.setattr(lookout, "LOOK_PAUSE", 10.0)
    await bench.accept(*[f"d{number}.test" for number in range(4)])
    bench.start(connections=1)
    await bench.until(lambda: len(bench.peer.begun) == 1)
    await bench.accept("late.test")
    await bench.accept("other.test", tenant="other")
    await bench.until(lambda: known("other.test"))
    await bench.clock.advance(19.0)
    await asyncio.sleep(0.05)
    assert not known("late.test")
    await bench.clock.advance(1.0)
    await bench.until(lambda: known("late.test"))


async def test_no_more_lanes_are_known_than_slots_need(bench: Bench) -> None:
    await bench.accept(*[f"d{number}.test" for number in range(300)])
    bench.start(connections=1)
    await bench.until(lambda: len(bench.peer.begun) == 1)
    await asyncio.sleep(0.05)
    assert len(bench.dispatcher._turns.lanes) <= 2 * lookout.LOOKS_FREELY
    bench.peer.let_go()
    await bench.until(bench.empty)


async def test_a_lane_alone_keeps_its_workers(bench: Bench) -> None:
    await bench.accept(*["x.test"] * 30)
    bench.start(connections=2)
    await bench.until(lambda: len(bench.peer.begun) == 2)
    first = set(bench.dispatcher._workers)
    bench.ring()
    await asyncio.sleep(0.02)
    bench.peer.let_go(20)
    await bench.until(lambda: len(bench.peer.begun) == 22)
    assert bench.dispatcher._workers == first


async def test_a_defect_in_one_lane_leaves_the_others_alone(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.peer.defects.add("bad.test")
    await bench.accept("bad.test", "good.test")
    bench.peer.let_go()
    bench.start()

    async def only_the_bad_one() -> bool:
        return [entry.domain for entry, _ in await bench.waiting()] == ["bad.test"]

    await bench.until(only_the_bad_one)
    assert bench.peer.begun.count("bad.test") == 1
    assert "lane=bad.test doing=leave" in caplog.text


async def fall_sick(spool: LmdbSpool) -> None:
    def fail(group: Group) -> None:
        raise OSError(5, "Input/output error")

    with pytest.raises(Uncertain):
        await spool._writer.submit(fail)


async def test_a_sick_spool_starts_nothing_and_does_not_spin(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(commit, "REOPEN_INTERVAL", 0.3)
    caplog.set_level(logging.ERROR)
    bench.peer.let_go()
    bench.start(poll=1.0)
    await bench.until(lambda: bench.dispatcher._owner)
    await bench.spool.accept([a_message() for _ in range(3)])
    await fall_sick(bench.spool)
    for _ in range(20):
        bench.ring()
        await asyncio.sleep(0.005)
    assert bench.peer.begun == []
    assert caplog.text.count("delivery=waiting") == 1
    assert "doing=wait" not in caplog.text
    await bench.until(bench.spool.healthy)
    await bench.clock.advance(1.0)
    await bench.until(bench.empty)


async def test_claims_that_fail_do_not_spin(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls = 0

    async def claim(entry: Entry, claim: Claim) -> bool:
        nonlocal calls
        calls += 1
        raise Uncertain("spool: Input/output error")

    monkeypatch.setattr(bench.spool, "claim", claim)
    await bench.accept("x.test")
    bench.start(poll=1.0)
    await asyncio.sleep(0.1)
    assert calls == 1
    monkeypatch.undo()
    bench.peer.let_go()
    await bench.clock.advance(1.0)
    await bench.until(bench.empty)


async def test_a_claim_of_which_nobody_was_told_is_given_back(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commit stands though its error came: the entry is in flight and nobody works on it."""
    stored = bench.spool.claim

    async def claim(entry: Entry, claim: Claim) -> bool:
        await stored(entry, claim)
        if entry.domain == "lost.test":
            raise Uncertain("spool: Input/output error")
        return True

    monkeypatch.setattr(bench.spool, "claim", claim)
    await bench.accept("held.test", "lost.test")
    bench.start(poll=1.0)
    await bench.until(lambda: bench.peer.begun == ["held.test"])
    monkeypatch.undo()
    await bench.clock.advance(1.0)

    async def given_back() -> bool:
        return [entry.domain for entry, claim in await bench.waiting() if claim is None] == ["lost.test"]

    await bench.until(given_back)
    bench.peer.let_go()
    await bench.clock.advance(31.0)
    await bench.until(bench.empty)
    assert bench.peer.begun == ["held.test", "lost.test"]  # what this process had in hand went on


async def test_an_outcome_is_stored_when_the_spool_is_well_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit, "REOPEN_INTERVAL", 0.1)
    monkeypatch.setattr(module, "SETTLE_RETRY", 0.05)
    await bench.accept("x.test")
    bench.start()
    await bench.until(lambda: bench.peer.begun == ["x.test"])
    await fall_sick(bench.spool)
    bench.peer.let_go()
    await bench.until(bench.spool.healthy)
    await bench.until(bench.empty)
    assert bench.peer.begun == ["x.test"]


async def test_failures_leave_nothing_behind(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What compiled code waits for in a handler would be the context of every later exception (setup.py)."""
    monkeypatch.setattr(module, "SETTLE_RETRY", 0.01)
    stored, failures = bench.spool.settle, 50

    async def settle(settlement: Settlement) -> bool:
        nonlocal failures
        failures -= 1
        if failures > 0:
            raise Uncertain("spool: Input/output error")
        return await stored(settlement)

    monkeypatch.setattr(bench.spool, "settle", settle)
    await bench.accept(*["x.test"] * 5)
    bench.start()
    bench.peer.let_go()
    await bench.until(bench.empty)
    with pytest.raises(LookupError) as caught:
        raise LookupError
    assert caught.value.__context__ is None


async def test_stop_starts_nothing_more_and_waits_for_what_is_under_way(bench: Bench) -> None:
    await bench.accept(*["x.test"] * 5)
    bench.start(connections=2)
    await bench.until(lambda: len(bench.peer.begun) == 2)
    stopping = asyncio.create_task(bench.dispatcher.stop())
    await asyncio.sleep(0.02)
    assert not stopping.done()
    bench.peer.let_go()
    await asyncio.wait_for(stopping, 5)
    assert len(bench.peer.begun) == 2
    assert [claim for _, claim in await bench.waiting()] == [None] * 3


async def test_nothing_stays_in_memory_of_what_was_delivered(bench: Bench) -> None:
    await bench.accept(*[f"d{number % 7}.test" for number in range(40)])
    bench.peer.let_go()
    bench.start(connections=3, per_site=2)
    await bench.until(bench.empty)
    await bench.until(lambda: bench.dispatcher.in_flight == 0)
    scheduler = bench.dispatcher._scheduler
    assert (len(scheduler.taken), len(scheduler._heads), len(scheduler._read)) == (0, 0, 0)
    await bench.until(lambda: bench.dispatcher._turns._places == {})


async def test_large_content_is_collected_as_fast_as_it_is_left_behind(bench: Bench) -> None:
    large = bench.spool.store_content()
    await large.write(os.urandom(5 << 20))
    await large.abort()
    bench.start()
    await bench.clock.advance(0)
    await bench.clock.advance(module.COLLECT_INTERVAL)
    bench.ring()

    async def collected() -> bool:
        return await bench.spool.collect(bench.clock.now()) == 0

    await asyncio.sleep(0.2)
    assert await collected()


async def test_it_says_what_holds_a_lane_and_how_quickly_it_drains(bench: Bench) -> None:
    bench.start(connections=2, per_site=1)
    one, two, three = (Lane("acme", MessageClass.NORMAL, f"{name}.test") for name in ("one", "two", "three"))

    def state(lane: Lane) -> LaneState:
        [found] = bench.dispatcher.lane_states([lane])
        return found

    assert state(one).gate is HeldBy.UNSEEN
    bench.peer.slow.add("three.test")
    bench.peer.sites |= {"one.test": "mx", "two.test": "mx"}
    await bench.accept("one.test", "one.test", "two.test", "three.test", "four.test")
    await bench.until(lambda: len(bench.peer.begun) == 2)
    full = state(two)
    assert (full.gate, full.site, full.at_work, full.limit, full.lanes) == (HeldBy.SITE_FULL, "mx", 1, 1, 2)
    assert full.rates == Rates()
    assert state(three).gate is HeldBy.LOOKUP
    bench.peer.answer.set()
    await bench.until(lambda: state(three).gate is HeldBy.TURN)
    bench.peer.let_go(1)
    await bench.until(lambda: len(bench.peer.committed) == 1)
    assert state(two).rates.tenant > 0


@pytest.mark.parametrize("defect", [False, True])
async def test_whoever_waits_for_an_attempt_that_was_sent_to_its_site_goes_on_when_that_has_ended(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, defect: bool
) -> None:
    """Without a poll: the bell alone must do it."""
    attempt = bench.peer.attempt

    async def elsewhere(job: Job, start: Start) -> Outcome:
        if job.entry.domain == "moves.test":
            limits = bench.dispatcher._gate._limits
            limits.goes_elsewhere(start, start.about._replace(site="y.test"), bench.clock.monotonic())
        return await attempt(job, start)

    monkeypatch.setattr(bench.peer, "attempt", elsewhere)
    bench.peer.met["moves.test"] = "y.test"
    bench.peer.defects |= {"moves.test"} if defect else set()
    bench.start(connections=2, per_site=1)
    await bench.accept("moves.test")
    await bench.until(lambda: len(bench.peer.begun) == 1)
    await bench.accept("y.test")
    await bench.until(lambda: bench.dispatcher._turns.passed_over == 2)
    bench.peer.let_go(1)
    await bench.until(lambda: bench.peer.begun == ["moves.test", "y.test"])
    at_work = {row.site: row.in_flight for row in await bench.dispatcher.sites()}
    assert (at_work.get("moves.test", 0), at_work["y.test"]) == (0, 1)


async def test_a_lane_has_its_tenants_part_of_what_its_site_does(bench: Bench) -> None:
    """Red when it is divided by the lanes there."""
    bench.peer.answer.set()
    lanes = [Lane("flood", MessageClass.NORMAL, f"d{number}.test") for number in range(9)]
    lanes.append(Lane("light", MessageClass.NORMAL, "light.test"))
    bench.peer.sites |= {lane.domain: "mx" for lane in lanes}
    bench.start(connections=1)
    for lane in lanes:
        await bench.accept(lane.domain, lane.domain, tenant=lane.tenant)
    await bench.until(lambda: len(bench.peer.begun) == 1)
    bench.peer.let_go(1)
    await bench.until(lambda: len(bench.peer.begun) == 2)
    states = bench.dispatcher.lane_states(lanes)
    rated = next(each.rates for each in states if each.rates.lane)
    assert states[9].rates.site == pytest.approx(rated.lane / 2)
    assert states[0].rates.site == pytest.approx(rated.lane / 2 / 9)
    assert states[8].rates.tenant == pytest.approx(states[0].rates.tenant)


async def test_who_is_held_hides_no_more_lanes_than_are_known(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Red when lanes without room are known until they go: those behind are never found."""
    monkeypatch.setattr(lookout, "LANES_KNOWN", 60)
    monkeypatch.setattr(lookout, "LANES_SHED", 20)
    monkeypatch.setattr(lookout, "LOOKS_FREELY", 10)
    held = [f"d{number}.test" for number in range(300)]
    bench.peer.sites = dict.fromkeys(held, "full")
    await bench.accept(*held)
    await bench.clock.advance(10)
    await bench.accept("free.test", "free too.test")
    bench.start(per_site=1, poll=1.0)
    for _ in range(60):
        await bench.clock.advance(1)
        await asyncio.sleep(0.01)
    assert set(bench.peer.begun[1:]) == {"free.test", "free too.test"}
    assert len(bench.dispatcher._turns.lanes) <= 60
    bench.peer.let_go()
    for _ in range(200):
        await bench.clock.advance(1)
        await asyncio.sleep(0.005)
    assert len(bench.peer.begun) == 302


async def test_a_domain_that_leaves_a_paused_site_is_delivered_where_it_goes_now(bench: Bench) -> None:
    rules = "rules: [{match: blocked, action: pause, of: site, lasts: 21600}]"
    bench.shaping = shaping.parse(rules, "shaping.yaml")
    bench.peer.sites.update({"x.test": "old:25", "z.test": "old:25"})
    bench.peer.says["z.test"] = (deferred("blocked"), Reach.TRANSACTION)
    bench.peer.let_go()
    await bench.accept("z.test")
    bench.start(poll=1.0)
    await bench.until(lambda: len(bench.peer.committed) == 1)
    await bench.accept("x.test")
    await bench.until(lambda: bench.dispatcher._turns.passed_over == 1)
    bench.peer.sites["x.test"] = "new:25"
    for _ in range(int(lookout.HELD_ANEW / 50) + 1):
        await bench.clock.advance(50)
        await asyncio.sleep(0.01)
    await bench.until(lambda: "x.test" in bench.peer.begun)
