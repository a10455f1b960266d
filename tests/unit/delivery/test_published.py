"""What the DNS shows decides which keys sign: rotations under load, a DNS that lies or is silent, what looks cost."""

import asyncio
import os
import re
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import dns.rcode
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from mta.accounts import dkim_keys, domains, rotation, tenants
from mta.accounts.dkim_keys import Algorithm, DnsRecord
from mta.clock import SystemClock
from mta.delivery import published as published_module
from mta.delivery.published import INTERVAL, WAITING_INTERVAL, Published
from mta.delivery.resolver import Resolver
from mta.delivery.signatory import Keys, Wanted
from mta.delivery.signing import Signed, Signer
from mta.lab.clock import FakeClock
from mta.lab.signatures import verify
from mta.spool.interface import Spool, Unavailable
from mta.spool.lmdb.spool import LmdbSpool
from mta.spool.records import Message, Origin
from mta.spool.sealing import Keyring
from tests.contract.stand_in import StandIn
from tests.unit.delivery.peers import DnsPeer

PRIVATE = X25519PrivateKey.generate()
PUBLIC = PRIVATE.public_key()
DOMAIN = "news.test"
HOUR = 3600.0
LOAD = 5  # messages at a time


class InProcess:
    """The keys at hand, as the process has them."""

    def __init__(self) -> None:
        self._keys = Keys(PRIVATE)

    async def sign(self, wanted: Sequence[Wanted]) -> list[bytes]:
        return [self._keys.sign(each) for each in wanted]


def message(domain: str) -> Message:
    return Message(
        id="A" * 22, tenant="acme", sender=f"a@{domain}", origin=Origin.RELAY, accepted_at=1.0, release_at=1.0,
        expires_at=2.0, segments=(), entries=1, sign_domain=domain,
    )  # fmt: skip


class World:
    """A domain that sends, and the DNS that shows its keys, in a time that only tests move."""

    def __init__(self, spool: Spool, peer: DnsPeer) -> None:
        self.spool = spool
        self.dns = peer
        self.clock = FakeClock(1_700_000_000.0)  # dkimpy refuses what was signed in the future
        self.resolver = Resolver(peer.settings, self.clock)
        self.published = Published(spool, self.resolver, self.clock)
        self.signer = Signer(spool, InProcess(), self.clock, self.published)
        self.used: Counter[str] = Counter()
        self.sent = 0
        self._running: asyncio.Task[None] | None = None

    def run(self) -> None:
        """Look at what is watched, as the role does."""
        self._running = asyncio.create_task(self.published.run())

    async def close(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait((self._running,))
        await self.published.close()
        await self.resolver.close()

    async def create(self, selector: str, algorithm: Algorithm = Algorithm.ED25519, domain: str = DOMAIN) -> DnsRecord:
        return await dkim_keys.create(self.spool, domain, selector, algorithm, PUBLIC, self.clock.now())

    async def rotate(self, selector: str) -> DnsRecord:
        record = await dkim_keys.rotate(self.spool, DOMAIN, Algorithm.ED25519, PUBLIC, self.clock.now(), selector)
        await self.published.look_again()
        return record

    def publish(self, record: DnsRecord, value: str | None = None) -> None:
        text = record.value if value is None else value
        pieces = [text[start : start + 255] for start in range(0, len(text), 255)]
        self.dns.records[record.name, "TXT"] = [" ".join(f'"{each}"' for each in pieces)]

    def withdraw(self, record: DnsRecord) -> None:
        del self.dns.records[record.name, "TXT"]

    def texts(self, name: str) -> list[bytes]:
        return ["".join(re.findall('"(.*?)"', each)).encode() for each in self.dns.records.get((name, "TXT"), [])]

    def asked(self, record: DnsRecord) -> int:
        return sum(name == record.name for name, _, _ in self.dns.asked)

    async def send(self, subject: str = "x", domain: str = DOMAIN) -> Signed:
        """Sign a message; remember by whom, and that it verifies by the DNS as it is now."""
        content = f"From: a@{domain}\r\nSubject: {subject}\r\n\r\nHello.\r\n".encode()
        signed = await self.signer.sign(message(domain), content)
        found = verify(signed.header + content, self.texts)
        assert found, signed.note
        assert [str(each) for each in found if not each.valid] == []
        self.used.update(each.selector for each in found)
        self.sent += 1
        return signed

    async def pass_time(self, seconds: float) -> None:
        """Let time pass, and what is being looked at come to its end."""
        await self.clock.advance(seconds)
        while self.published._looking:
            await asyncio.wait(self.published._looking.values())
        await self.clock.advance(0)

    async def load(self, seconds: float, every: float) -> set[str]:
        """Send some mail again and again, each message verified; return the selectors that were used."""
        self.used.clear()
        for _ in range(int(seconds // every)):
            await asyncio.gather(*(self.send(str(number)) for number in range(LOAD)))  # while looks are under way
            await self.pass_time(every)
            await self.send()
        return set(self.used)

    async def states(self) -> dict[str, str]:
        found = await domains.find(self.spool, DOMAIN)
        assert found is not None
        return {each.name: each.state.value for each in found.selectors}


@pytest.fixture
async def spool(tmp_path: Path) -> AsyncIterator[Spool]:
    keyring = Keyring([os.urandom(32)])
    spool = LmdbSpool(tmp_path / "spool", keyring, SystemClock(), map_size=1 << 26, reserve=0, sync=False)
    await tenants.create(spool, "acme", 1.0)
    await domains.add(spool, DOMAIN, "acme", 1.0)
    yield spool
    await spool.close()


@pytest.fixture
async def world(spool: Spool) -> AsyncIterator[World]:
    async with DnsPeer(ttl=60) as peer:
        world = World(spool, peer)
        yield world
        await world.close()


async def test_a_rotation_under_load_signs_with_keys_that_are_in_the_dns_and_always_signs(world: World) -> None:
    old = await world.create("s1")
    world.publish(old)
    world.run()
    assert await world.load(5 * 60, every=10) == {"s1"}

    new = await world.rotate("s2")
    assert await world.load(10 * 60, every=10) == {"s1"}  # nobody has published it yet
    world.publish(new, old.value)
    assert await world.load(10 * 60, every=10) == {"s1"}  # somebody has, with the wrong key
    world.publish(new)
    assert await world.load(rotation.SETTLING - 60, every=10) == {"s1"}
    assert await world.load(60 + WAITING_INTERVAL + 120, every=10) == {"s1", "s2"}  # 120: the wrong one's TTL
    assert await world.states() == {"s1": "retired", "s2": "active"}
    assert await world.load(HOUR, every=60) == {"s2"}

    (retired, _) = (await domains.find(world.spool, DOMAIN)).selectors
    assert await world.load(retired.removable_at - world.clock.now() + HOUR, every=HOUR) == {"s2"}
    world.withdraw(old)
    assert await world.load(2 * HOUR, every=60) == {"s2"}
    assert await world.states() == {"s2": "active"}
    assert await dkim_keys.watched(world.spool) == []
    assert world.sent > 2000


async def test_rotations_with_two_names_in_turn(world: World) -> None:
    records = {"s1": await world.create("s1")}
    world.publish(records["s1"])
    world.run()
    for fresh, former in (("s2", "s1"), ("s1", "s2"), ("s2", "s1")):
        records[fresh] = await world.rotate(fresh)
        assert await world.load(5 * 60, every=30) == {former}
        world.publish(records[fresh])
        await world.load(rotation.SETTLING + WAITING_INTERVAL + 120, every=30)
        assert await world.states() == {former: "retired", fresh: "active"}
        assert await world.load(rotation.KEPT, every=4 * HOUR) == {fresh}


async def test_a_domain_that_sends_nothing_is_rotated_too(world: World) -> None:
    old = await world.create("s1")
    world.publish(old)
    world.run()
    await world.pass_time(0)
    world.publish(await world.rotate("s2"))
    for _ in range(8):
        await world.pass_time(WAITING_INTERVAL)
    assert await world.states() == {"s1": "retired", "s2": "active"}
    assert world.asked(old) <= 9


async def test_both_algorithms_rotate_side_by_side(world: World) -> None:
    for selector, algorithm in (("e1", Algorithm.ED25519), ("r1", Algorithm.RSA2048)):
        world.publish(await world.create(selector, algorithm))
    world.run()
    assert await world.load(60, every=30) == {"e1", "r1"}
    world.publish(await world.rotate("e2"))
    await world.load(rotation.SETTLING + 180, every=30)
    assert await world.load(60, every=30) == {"e2", "r1"}
    assert await world.states() == {"e1": "retired", "r1": "active", "e2": "active"}


async def test_looking_costs_one_question_a_key_and_ttl_however_much_is_sent(world: World) -> None:
    first, second = await world.create("s1"), await world.create("s2")
    world.publish(first)
    world.publish(second)
    await asyncio.gather(*(world.send(str(number)) for number in range(300)))
    assert [world.asked(each) for each in (first, second)] == [1, 1]
    await world.load(600, every=5)
    assert all(world.asked(each) <= 1 + 600 / world.dns.ttl for each in (first, second))


async def test_a_first_look_that_is_not_answered_holds_mail_up_once(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(published_module, "PATIENCE", 0.01)  # the resolver would wait for 0.5 s
    first, second = await world.create("s1"), await world.create("s2")
    world.publish(first)
    world.publish(second)
    world.dns.hold = asyncio.Event()
    for _ in range(20):
        assert (await world.send()).note == f"{DOMAIN}:s1"
        await world.clock.advance(1)
    assert caplog.text.count("dns=silent") == 1
    world.dns.hold.set()
    await world.pass_time(INTERVAL)
    await world.send()
    await world.pass_time(1)
    assert (await world.send()).note == f"{DOMAIN}:s1,s2"


async def test_a_later_look_is_not_waited_for(world: World) -> None:
    first, second = await world.create("s1"), await world.create("s2")
    world.publish(first)
    world.publish(second)
    await world.send()
    world.dns.hold = asyncio.Event()
    await world.clock.advance(world.dns.ttl + INTERVAL)
    assert (await world.send()).note == f"{DOMAIN}:s1,s2"
    assert world.published._looking  # for as long as the resolver waits
    world.dns.hold.set()


async def test_a_single_key_never_waits_for_the_dns(world: World) -> None:
    world.publish(await world.create("s1"))
    world.dns.hold = asyncio.Event()
    await world.send()
    assert world.published._looking
    world.dns.hold.set()


async def test_no_answer_keeps_what_is_known(world: World, spool: Spool) -> None:
    first, second = await world.create("s1"), await world.create("s2")
    world.publish(first)
    world.publish(second)
    assert (await world.send()).note == f"{DOMAIN}:s1,s2"
    for each in (first, second):
        world.dns.rcodes[each.name] = dns.rcode.SERVFAIL
    assert await world.load(HOUR, every=60) == {"s1", "s2"}
    restarted = World(spool, world.dns)  # what is known outlives a restart
    assert (await restarted.send()).note == f"{DOMAIN}:s1,s2"
    await restarted.close()


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (None, "no TXT record"),
        ("v=DKIM1; k=ed25519; p=", "revoked"),
        ("v=DKIM1; k=rsa; p=AAAA", "k= is not ed25519"),
        ("v=DKIM1; k=ed25519; p=" + "A" * 43 + "=", "another key"),
        ("x" * 200, "malformed"),
    ],
)
async def test_a_key_that_is_not_in_the_dns_any_more(
    world: World, caplog: pytest.LogCaptureFixture, value: str | None, why: str
) -> None:
    first, second = await world.create("s1"), await world.create("s2")
    world.publish(first)
    world.publish(second)
    assert (await world.send()).note == f"{DOMAIN}:s1,s2"
    if value is None:
        world.withdraw(second)
    else:
        world.publish(second, value)
    await _unverified(world, INTERVAL + world.dns.ttl)
    assert await world.load(600, every=60) == {"s1"}
    assert re.search(rf"selector=s2 dkim=active dns='{why}", caplog.text)
    assert caplog.text.count("selector=s2") == 1

    world.withdraw(first)  # none is left: unsigned is no better
    await _unverified(world, INTERVAL + world.dns.ttl)
    assert await _unverified(world, 600) == f"{DOMAIN}:s1,s2 (not in DNS)"
    assert caplog.text.count("dkim=signs-with-keys-not-in-dns") == 1
    assert [each.levelname for each in caplog.records if "signs-with-keys-not-in-dns" in each.message] == ["ERROR"]
    world.publish(second)
    await _unverified(world, INTERVAL + world.dns.ttl)
    assert await world.load(600, every=60) == {"s2"}


async def _unverified(world: World, seconds: float) -> str:
    """Let time pass with mail whose signatures nobody looks at; return the note of the last."""
    content = f"From: a@{DOMAIN}\r\n\r\nHello.\r\n".encode()
    for _ in range(int(seconds // 10) + 1):
        await world.pass_time(10)
        signed = await world.signer.sign(message(DOMAIN), content)
        assert signed.header
    return signed.note


async def test_a_new_key_that_is_taken_away_gives_way_to_the_old_one(world: World) -> None:
    world.publish(await world.create("s1"))
    world.run()
    new = await world.rotate("s2")
    world.publish(new)
    await world.load(rotation.SETTLING + 180, every=30)
    assert await world.load(60, every=30) == {"s2"}
    world.withdraw(new)  # where the old one should have been, and much too soon
    await _unverified(world, INTERVAL + world.dns.ttl)
    assert await world.load(600, every=30) == {"s1"}
    assert await world.states() == {"s1": "active", "s2": "pending"}


async def test_a_key_made_while_a_look_is_stored_is_not_lost(world: World) -> None:
    world.publish(await world.create("s1"))
    spool = StandIn(world.spool)
    change, changed = world.spool.change_record, []

    async def after_another(kind: str, name: str, before: bytes, value: bytes) -> bool:
        if not changed:
            changed.append(name)
            await world.create("s2")
        return await change(kind, name, before, value)

    spool.change_record = after_another
    published = Published(spool, world.resolver, world.clock)
    await published._begun(DOMAIN)
    found = await domains.find(world.spool, DOMAIN)
    assert [(each.name, bool(each.shown_at)) for each in found.selectors] == [("s1", True), ("s2", False)]


async def test_a_key_made_while_its_domain_ceases_to_be_watched_is_watched(world: World) -> None:
    for selector in ("s1", "s2"):
        world.publish(await world.create(selector))
    spool = StandIn(world.spool)
    delete = world.spool.delete_record

    async def after_another(kind: str, name: str) -> bool:
        await world.create("s3")
        return await delete(kind, name)

    spool.delete_record = after_another
    assert await dkim_keys.watched(world.spool) == [DOMAIN]
    await Published(spool, world.resolver, world.clock)._look_at_watched()
    assert await world.states() == {"s1": "active", "s2": "active", "s3": "pending"}
    assert await dkim_keys.watched(world.spool) == [DOMAIN]


async def test_a_spool_that_does_not_answer_stops_neither_looks_nor_mail(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.publish(await world.create("s1"))
    world.publish(await world.create("s2"))
    spool = StandIn(world.spool)

    async def unavailable(*_: object) -> bool:
        raise Unavailable("sick")

    spool.change_record = unavailable
    world.published._spool = spool
    world.run()
    await world.pass_time(0)
    assert await world.load(120, every=30) == {"s1"}
    assert "dkim=not-looked-at error=sick" in caplog.text
    world.published._spool = world.spool
    assert "s2" in await world.load(120, every=30)


async def test_the_domain_longest_unlooked_at_leaves_a_full_memory(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(published_module, "_DOMAINS_KNOWN", 2)
    names = ("a.test", "b.test", "c.test")
    for name in names:
        await domains.add(world.spool, name, "acme", 1.0)
        world.publish(await world.create("s1", domain=name))
        await world.send(domain=name)
        await world.pass_time(1)
    assert list(world.published._looked) == ["b.test", "c.test"]
