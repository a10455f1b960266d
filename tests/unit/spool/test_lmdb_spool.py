"""The spool on LMDB: the contract, and what is LMDB's own."""

import asyncio
import fcntl
import os
import threading
from collections.abc import Callable
from pathlib import Path

import lmdb
import msgspec
import pytest

from mta.clock import SystemClock
from mta.spool.interface import Acceptance, Change, Full, Refused, Settlement, Spool, SpoolError, Unavailable, Uncertain
from mta.spool.lmdb import commit, view
from mta.spool.lmdb.care import verify
from mta.spool.lmdb.commit import Group
from mta.spool.lmdb.content import page_count
from mta.spool.lmdb.environment import FORMAT_VERSION, VALUE_LIMIT, Table
from mta.spool.lmdb.keys import entry_key, entry_keys, message_key, pieces, timer_keys
from mta.spool.lmdb.spool import LmdbSpool
from mta.spool.lmdb.view import record_of
from mta.spool.records import Entry, Message, Segment
from mta.spool.sealing import KeyFileError, Keyring, load_or_create_keyring, new_content_key
from tests.contract.spool_contract import CLAIM, NOW, OpenSpool, SpoolContract, a_message, ended, the_head
from tests.contract.stand_in import StandIn
from tests.contract.terms_contract import TermsContract

KEYS = [os.urandom(32)]


class AtNow(SystemClock):
    """A clock that stands at the contract's NOW."""

    def now(self) -> float:
        return NOW


class Shared(StandIn):
    """py-lmdb allows one environment a process: a second view shares it and must not close it."""

    async def close(self) -> None:
        pass


def make(path: Path, **options: object) -> LmdbSpool:
    settings = {"map_size": 1 << 30, "reserve": 0, **options}
    return LmdbSpool(path, Keyring(KEYS), AtNow(), **settings)  # type: ignore[arg-type]


def opener(make_one: Callable[[], LmdbSpool]) -> OpenSpool:
    """Open a spool with `make_one`, or share the one that is open."""
    opened: list[LmdbSpool] = []

    async def open_one() -> Spool:
        for each in opened:
            if not each._writer._closing:
                return Shared(each)
        opened.append(make_one())
        return opened[-1]

    return open_one


class TestLmdbContract(SpoolContract, TermsContract):
    @pytest.fixture
    def open_spool(self, tmp_path: Path) -> OpenSpool:
        return opener(lambda: make(tmp_path / "spool"))


async def test_no_value_is_larger_than_a_page(tmp_path: Path) -> None:
    spool = make(tmp_path)
    await spool.accept([a_message(content=os.urandom(300_000), recipients=50)])
    await spool.put_record("domain", "d", os.urandom(20_000), replace=False)
    env = spool._writer.followed.environment
    with env.env.begin() as txn:
        sizes = {table: [len(value) for _, value in txn.cursor(db)] for table, db in env.tables.items()}
        overflow = {table: txn.stat(db)["overflow_pages"] for table, db in env.tables.items()}
    assert all(max(found, default=0) <= VALUE_LIMIT for found in sizes.values())
    assert overflow[Table.CONTENT] == len(sizes[Table.CONTENT])  # one page each, never a run of them
    await spool.close()


async def test_nothing_is_readable_at_rest(tmp_path: Path) -> None:
    spool = make(tmp_path)
    accepted = a_message(domain="canary-domain.test", tenant="canary-tenant", content=b"canary-content\r\n" * 9)
    await spool.accept([accepted])
    await spool.put_record("key", "canary-name", b"canary-value", replace=False)
    await spool.close()
    stored = (tmp_path / "data.mdb").read_bytes()
    assert b"canary" not in stored
    assert b"user0@" not in stored


async def test_a_changed_or_moved_record_is_quarantined_and_the_others_flow(tmp_path: Path) -> None:
    spool = make(tmp_path)
    broken, whole = a_message(due_at=NOW - 1), a_message()
    await spool.accept([broken, whole])
    env = spool._writer.followed.environment
    entries = env.tables[Table.ENTRIES]
    with env.env.begin(write=True) as txn:
        first, second = [(key, value) for key, value in txn.cursor(entries)]
        txn.put(first[0], second[1], db=entries)
    heads = await spool.heads(whole.entries[0].lane, NOW, 10, ())
    assert [due.message.id for due in heads] == [whole.message.id]
    assert await spool.heads(whole.entries[0].lane, NOW, 10, ()) == heads
    with pytest.raises(SpoolError, match="changed or moved"):
        await spool.entry(broken.entries[0].id)
    await spool.close()


async def break_entry(spool: LmdbSpool, entry: Entry, *, plain: bytes | None = None) -> None:
    """Damage the record of an entry; with `plain`, seal other octets in its place."""

    def change(group: Group) -> None:
        key = entry_key(entry)
        sealed = os.urandom(80) if plain is None else Keyring(KEYS).seal("entries", NOW, plain, key)
        group.put(Table.ENTRIES, [(key + b"\x00", b"\x01" + sealed)])

    await spool._writer.submit(change)


async def test_tenants_have_their_timers_in_turn_from_look_to_look(tmp_path: Path) -> None:
    spool = make(tmp_path)
    await spool.accept([a_message(tenant=f"t{n % 10}", timer_at=NOW + n % 10) for n in range(100)])
    tenants, begun = [], set[str]()
    for _ in range(5):
        found = await spool.timers(NOW + 20, 4, begun)
        begun |= {each.entry.id for each in found}
        tenants += [each.message.tenant for each in found]
    assert len(set(tenants[:10])) == len(set(tenants[10:])) == 10
    await spool.close()


async def test_timers_behind_many_seconds_of_anothers_have_their_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view, "_TIMERS_LOOKED_AT", 4)
    spool = make(tmp_path)
    flood = [a_message(tenant="flood", timer_at=NOW + n // 9) for n in range(90)]
    other = a_message(tenant="other", timer_at=NOW + 9)
    await spool.accept([*flood, other])
    begun = set[str]()
    for _ in range(3):
        begun |= {each.entry.id for each in await spool.timers(NOW + 20, 2, begun)}
    assert other.entries[0].id in begun
    while found := await spool.timers(NOW + 20, 20, begun):
        begun |= {each.entry.id for each in found}
    assert begun == {each.entries[0].id for each in (*flood, other)}
    skip = begun - {flood[0].entries[0].id, flood[40].entries[0].id}
    assert [len(await spool.timers(NOW + 20, 20, skip)) for _ in range(3)] == [1, 1, 1]
    assert await spool.timers(NOW + 20, 20, begun) == []
    await spool.close()


async def test_timers_of_an_earlier_version_come_and_go(tmp_path: Path) -> None:
    spool = make(tmp_path)
    many = [a_message(tenant=each, timer_at=NOW + 10) for each in ("acme", "acme", "other", "other")]
    await spool.accept(many)

    def without_tenants(group: Group) -> None:
        keys = group.keys_from(Table.TIMERS, b"", 10)
        group.delete(Table.TIMERS, keys)
        group.put(Table.TIMERS, [(key[:8] + key[-18:], b"") for key in keys])

    await spool._writer.submit(without_tenants)
    await spool.close()
    assert verify(tmp_path, Keyring(KEYS)).problems == []
    spool = make(tmp_path)
    assert await spool.next_timer_at(NOW) == NOW + 11
    due = {each.message.id: each for each in await spool.timers(NOW + 11, 10)}
    assert due.keys() == {each.message.id for each in many}
    ends, moves, tried, waits = due.values()
    assert await spool.claim(tried.entry, CLAIM)
    assert len(await spool.timers(NOW + 11, 10)) == 3
    assert await spool.change(Change(message=ends.message, before=ends.entry, after=ended(ends.entry)))
    later = msgspec.structs.replace(moves.entry, timer_at=NOW + 20)
    assert await spool.change(Change(message=moves.message, before=moves.entry, after=later))
    assert await spool.settle(Settlement(message=tried.message, entry=ended(tried.entry), claim=CLAIM))
    assert [each.message.id for each in await spool.timers(NOW + 11, 10)] == [waits.message.id]
    await spool.close()
    assert verify(tmp_path, Keyring(KEYS)).problems == []


async def test_timers_that_an_earlier_version_left_behind_are_put_right(tmp_path: Path) -> None:
    """Red when they are given out: their entries' timers are moved again and again, without an end."""
    spool = make(tmp_path)
    many = [a_message(timer_at=NOW + 100) for _ in range(3)]
    await spool.accept(many)

    def move_one_way(group: Group) -> None:
        keys = group.keys_from(Table.TIMERS, b"", 10)
        group.put(Table.TIMERS, [(bytes(8) + key[8:], b"") for key in keys])
        group.delete(Table.TIMERS, keys[:2])
        group.put(Table.TIMERS, [(timer_keys(keys[1])[1], b"")])

    await spool._writer.submit(move_one_way)
    assert await spool.timers(NOW, 2) == []
    assert await spool.next_timer_at(0) == NOW + 101
    assert {each.message.id for each in await spool.timers(NOW + 101, 10)} == {each.message.id for each in many}
    await spool.close()
    assert verify(tmp_path, Keyring(KEYS)).problems == []


async def test_a_head_that_cannot_be_read_holds_up_no_lane(tmp_path: Path) -> None:
    spool = make(tmp_path)
    broken, behind, other = a_message(due_at=NOW - 1), a_message(), a_message(domain="other.test")
    await spool.accept([broken, behind, other])
    await break_entry(spool, broken.entries[0])
    assert await spool.lanes(NOW, 10) == [other.entries[0].lane]
    assert set(await spool.lanes(NOW, 10)) == {behind.entries[0].lane, other.entries[0].lane}
    await spool.close()


async def test_a_claimed_entry_that_cannot_be_read_stops_no_successor(tmp_path: Path) -> None:
    spool = make(tmp_path)
    broken, whole = a_message(), a_message()
    await spool.accept([broken, whole])
    for each in (broken, whole):
        assert await spool.claim(each.entries[0], CLAIM)
    await break_entry(spool, broken.entries[0])
    assert [due.entry.id for due, _ in await spool.claims()] == [whole.entries[0].id]
    await spool.close()


async def test_a_record_of_a_later_version_is_left_out(tmp_path: Path) -> None:
    spool = make(tmp_path)
    later, known = a_message(due_at=NOW - 1), a_message()
    await spool.accept([later, known])
    await break_entry(spool, later.entries[0], plain=msgspec.msgpack.encode(["another", "shape"]))
    heads = await spool.heads(known.entries[0].lane, NOW, 10, ())
    assert [due.entry.id for due in heads] == [known.entries[0].id]
    assert [entry.id async for entry, _ in spool.walk_entries()] == [known.entries[0].id]
    await spool.close()


async def test_a_claim_and_an_entry_of_an_earlier_version_are_read_and_settled(tmp_path: Path) -> None:
    spool = make(tmp_path)
    accepted = a_message()
    await spool.accept([accepted])
    entry, message = await the_head(spool, accepted.entries[0])
    await spool.claim(entry, CLAIM)
    key = entry_key(entry)
    before_wishes = msgspec.msgpack.encode(msgspec.to_builtins(CLAIM)[:-1])
    before_holds = msgspec.msgpack.encode(msgspec.msgpack.decode(msgspec.msgpack.encode(entry))[:-2])

    def older(group: Group) -> None:
        group.put(Table.CLAIMS, [(key, before_wishes)])
        group.put(Table.ENTRIES, pieces(key, spool._keyring.seal("entries", entry.due_at, before_holds, key)))

    await spool._writer.submit(older)  # type: ignore[attr-defined]
    assert [(due.entry, claim) for due, claim in await spool.claims()] == [(entry, CLAIM)]
    assert await spool.settle(Settlement(message=message, entry=ended(entry), claim=CLAIM))
    await spool.close()


async def test_no_hint_leads_to_what_is_held(tmp_path: Path) -> None:
    spool = make(tmp_path)
    accepted = a_message()
    await spool.accept([accepted])
    entry, message = await the_head(spool, accepted.entries[0])
    await spool.claim(entry, CLAIM)
    after = msgspec.structs.replace(entry, held=True, due_at=NOW + 500)
    assert await spool.settle(Settlement(message=message, entry=after, claim=CLAIM))
    env = spool._writer.followed.environment
    with env.env.begin() as txn:
        assert txn.get(entry_keys(after).wake, db=env.tables[Table.WAKE]) is None
        assert txn.get(entry_keys(after).due, db=env.tables[Table.DUE]) is None
    await spool.close()


async def test_a_spool_is_not_opened_without_its_key(tmp_path: Path) -> None:
    """With another key every record looks broken, and would be taken out of its lane for good."""
    await make(tmp_path).close()
    other = os.urandom(32)
    with pytest.raises(Unavailable, match="key"):
        LmdbSpool(tmp_path, Keyring([other]), AtNow(), map_size=1 << 30, reserve=0)
    for keys in ([other, *KEYS], [other]):  # the new one first; later the old one can go
        await LmdbSpool(tmp_path, Keyring(keys), AtNow(), map_size=1 << 30, reserve=0).close()
    with pytest.raises(Unavailable, match="key"):
        make(tmp_path)


def referring(segment: Segment) -> Acceptance:
    accepted = a_message(content=b"")
    return msgspec.structs.replace(accepted, message=msgspec.structs.replace(accepted.message, segments=(segment,)))


async def test_content_that_the_collector_has_begun_is_not_accepted(tmp_path: Path) -> None:
    spool = make(tmp_path)
    content, under_way = spool.store_content(), spool.store_content()
    for each in (content, under_way):
        await each.write(os.urandom(3 << 20))
    segment = await content.finish()
    for _ in range(2):
        assert await spool.collect(NOW + 3601) > 0
    with pytest.raises(Refused, match="given up"):
        await spool.accept([referring(segment)])
    with pytest.raises(Refused, match="given up"):
        await under_way.write(os.urandom(5000))
    await spool.close()


async def test_content_belongs_to_one_message(tmp_path: Path) -> None:
    spool = make(tmp_path)
    content = spool.store_content()
    await content.write(os.urandom(5000))
    segment = await content.finish()
    with pytest.raises(Refused, match="one message"):
        await spool.accept([referring(segment), referring(segment)])
    await spool.accept([referring(segment)])
    with pytest.raises(Refused):
        await spool.accept([referring(segment)])
    await spool.close()


async def test_shared_content_is_in_the_file_once(tmp_path: Path) -> None:
    spool = make(tmp_path)
    content = spool.store_content()
    await content.write(os.urandom(100_000))
    shared = (await content.finish(),)
    batch = [msgspec.structs.replace(a_message(), shared=shared) for _ in range(1000)]
    assert await spool.accept(batch) == 1000
    env = spool._writer.followed.environment
    with env.env.begin() as txn:
        assert txn.stat(env.tables[Table.CONTENT])["entries"] == 1000 + page_count(100_000)
    await spool.close()


async def test_changed_content_is_not_read(tmp_path: Path) -> None:
    spool = make(tmp_path)
    accepted = a_message(content=os.urandom(9000))
    await spool.accept([accepted])
    _, message = await the_head(spool, accepted.entries[0])
    env = spool._writer.followed.environment
    content = env.tables[Table.CONTENT]
    with env.env.begin(write=True) as txn:
        rows = [(bytes(key), bytes(value)) for key, value in txn.cursor(content)]
        txn.put(rows[0][0], rows[1][1], db=content)
    with pytest.raises(SpoolError, match="changed or moved"):
        await spool.content(message)
    await spool.close()


async def test_one_bad_key_refuses_nobody_else(tmp_path: Path) -> None:
    spool = make(tmp_path)

    def bad(group: Group) -> None:
        group.put(Table.META, [(b"k" * 512, b"")])

    def defect(group: Group) -> None:
        raise ZeroDivisionError

    accepted = [a_message() for _ in range(3)]
    results = await asyncio.gather(
        spool.accept(accepted[:1]),
        spool._writer.submit(bad),
        spool.accept(accepted[1:2]),
        spool._writer.submit(defect),
        spool.accept(accepted[2:]),
        return_exceptions=True,
    )
    assert [isinstance(each, Refused) for each in results] == [False, True, False, True, False]
    for each in accepted:
        assert await spool.message(each.message.id) is not None
    assert await spool.log_end() == 3
    await spool.close()


async def test_an_io_error_refuses_until_the_spool_was_reopened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit, "REOPEN_INTERVAL", 0.2)
    spool = make(tmp_path)
    await spool.accept([a_message()])

    def fail(group: Group) -> None:
        raise OSError(5, "Input/output error")

    with pytest.raises(Uncertain, match="Input/output"):
        await spool._writer.submit(fail)
    assert not spool.healthy()
    with pytest.raises(Unavailable):
        await spool.accept([a_message()])
    async with asyncio.timeout(5):
        while not spool.healthy():  # by itself: nobody may come before it is ready again
            await asyncio.sleep(0.01)
    accepted = a_message()
    await spool.accept([accepted])
    assert (await the_head(spool, accepted.entries[0]))[1].id == accepted.message.id
    await spool.close()


async def test_an_io_error_met_one_by_one_is_one_too(tmp_path: Path) -> None:
    spool = make(tmp_path)

    def defect(group: Group) -> None:
        raise ZeroDivisionError

    def fail(group: Group) -> None:
        if group.records:  # not in the group, whose first record makes it fail as a whole
            group.put(Table.META, [(b"k" * 512, b"")])
            return
        raise OSError(5, "Input/output error")

    together = threading.Event()

    def begin(group: Group) -> None:
        together.wait(5)
        group.put(Table.META, [(b"begun", b"")])

    waiting = [spool._writer.submit(each) for each in (begin, fail, defect)]
    await asyncio.sleep(0)
    together.set()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(each) for each in results] == [type(None), Uncertain, Uncertain]
    assert not spool.healthy()
    await spool.close()


async def test_a_sick_spool_can_be_closed(tmp_path: Path) -> None:
    spool = make(tmp_path)

    def fail(group: Group) -> None:
        raise OSError(5, "Input/output error")

    with pytest.raises(Uncertain):
        await spool._writer.submit(fail)
    await spool.close()


async def test_events_of_any_size_are_read_from_any_position(tmp_path: Path) -> None:
    spool = make(tmp_path)
    notes = ["n" * size for size in (0, 10, 4000, 0, 9000, 3900, 1, 0, 200, 200)]
    first = a_message()
    told = [msgspec.structs.replace(first.events[0], note=note) for note in notes]
    await spool.accept([msgspec.structs.replace(first, events=tuple(told))])
    await spool.accept([a_message()])
    for position in range(len(notes) + 2):
        found = await spool.events_after(position, 100)
        assert [number for number, _ in found] == list(range(position + 1, len(notes) + 2))
        assert [event.note for _, event in found[:-1]] == notes[position:]
        assert await spool.events_after(position, 2) == found[:2]
        await spool.discard_events(position)
        assert await spool.events_after(position, 100) == found
    await spool.close()


async def test_one_event_that_cannot_be_read_does_not_stop_the_log(tmp_path: Path) -> None:
    spool = make(tmp_path)
    for _ in range(3):
        await spool.accept([a_message()])
    env = spool._writer.followed.environment
    events = env.tables[Table.EVENTS]
    with env.env.begin(write=True) as txn:
        rows = [(bytes(key), bytes(value)) for key, value in txn.cursor(events)]
        txn.put(rows[1][0], rows[0][1], db=events)
    assert [number for number, _ in await spool.events_after(0, 10)] == [1, 3]
    await spool.close()


async def test_the_reserve_refuses_new_mail_and_lets_outcomes_through(tmp_path: Path) -> None:
    spool = make(tmp_path, map_size=6 << 20, reserve=2 << 20)
    accepted: list[Acceptance] = []
    while spool.space().accepting:
        accepted.append(a_message(content=os.urandom(60_000)))
        await spool.accept(accepted[-1:])
        spool._room.measured_at = -1e9
    with pytest.raises(Full):
        await spool.accept([a_message()])
    assert len(accepted) > 20
    assert not spool.space().accepting
    for each in accepted:
        entry, _ = await the_head(spool, each.entries[0])
        assert await spool.claim(entry, CLAIM)
        message = await spool.message(entry.message)
        assert message is not None
        assert await spool.settle(Settlement(message=message, entry=ended(entry), claim=CLAIM))
    spool._room.measured_at = -1e9
    assert spool.space().accepting  # pages in the file that can be used again are room
    await spool.accept([a_message()])
    await spool.close()


async def test_the_reserve_holds_one_by_one_too(tmp_path: Path) -> None:
    spool = make(tmp_path, reserve=1 << 60)

    def defect(group: Group) -> None:
        raise ZeroDivisionError

    results = await asyncio.gather(
        spool._writer.submit(defect), spool.accept([a_message()]), spool.next_epoch(), return_exceptions=True
    )
    assert [type(each) for each in results] == [Refused, Full, int]
    await spool.close()


async def test_a_spool_of_another_version_is_refused(tmp_path: Path) -> None:
    await make(tmp_path).close()
    env = lmdb.open(str(tmp_path), max_dbs=20)
    meta = env.open_db(b"meta")
    with env.begin(write=True) as txn:
        txn.put(b"version", b"999", db=meta)
    env.close()
    with pytest.raises(Unavailable, match="999"):
        make(tmp_path)


def as_before_sharing(path: Path) -> None:
    """Make a spool one of the version before content was shared."""
    env = lmdb.open(str(path), max_dbs=20)
    meta, shared = env.open_db(b"meta"), env.open_db(b"shared")
    with env.begin(write=True) as txn:
        txn.put(b"version", b"2", db=meta)
        txn.drop(shared)
    env.close()


async def test_a_spool_from_before_content_was_shared_is_taken_over(tmp_path: Path) -> None:
    spool = make(tmp_path)
    before, after = a_message(content=os.urandom(500_000)), a_message()

    def older(group: Group) -> None:
        key = message_key(before.message.id)
        plain = msgspec.msgpack.decode(record_of(group.get, spool._keyring, Table.MESSAGES, key) or b"")
        at = Message.__struct_fields__.index("segments")
        plain[at] = [each[:3] for each in plain[at]]
        group.put(Table.MESSAGES, pieces(key, spool._keyring.seal("messages", NOW, msgspec.msgpack.encode(plain), key)))

    await spool.accept([before])
    await spool._writer.submit(older)  # type: ignore[attr-defined]
    await spool.close()
    as_before_sharing(tmp_path)
    spool = make(tmp_path)
    content = spool.store_content()
    await content.write(b"shared")
    await spool.accept([msgspec.structs.replace(after, shared=(await content.finish(),))])
    for each, wanted in ((before, before.content), (after, after.content + b"shared")):
        entry, message = await the_head(spool, each.entries[0])
        assert await spool.content(message) == wanted
        assert await spool.claim(entry, CLAIM)
        assert await spool.settle(Settlement(message=message, entry=ended(entry), claim=CLAIM))
    await spool.close()
    assert verify(tmp_path, Keyring(KEYS)).problems == []
    env = lmdb.open(str(tmp_path), max_dbs=20)
    with env.begin() as txn:
        assert txn.get(b"version", db=env.open_db(b"meta", txn)) == FORMAT_VERSION
    env.close()


async def test_a_spool_that_an_earlier_version_has_open_is_not_taken_over(tmp_path: Path) -> None:
    """Red when it is: the earlier one would remove shared content with the first message of several."""
    await make(tmp_path).close()
    as_before_sharing(tmp_path)
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(fd, fcntl.LOCK_SH)
    with pytest.raises(Unavailable, match="earlier version"):
        make(tmp_path)
    os.close(fd)
    spool = make(tmp_path)
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)  # others may come now
    os.close(fd)
    await spool.close()


def test_a_directory_that_cannot_be_written_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="file"):
        make(tmp_path / "file" / "spool")


def test_keys_are_made_once_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "spool.key"
    ring = load_or_create_keyring(path)
    assert path.stat().st_mode & 0o777 == 0o600
    sealed = ring.seal("entries", NOW, b"plain", b"here")
    again = load_or_create_keyring(path)
    assert again.open("entries", sealed, b"here") == b"plain"
    for purpose, aad, key in (("events", b"here", 0), ("entries", b"there", 0), ("entries", b"here", 1)):
        opener = again if not key else Keyring([os.urandom(32)])
        with pytest.raises(SpoolError):
            opener.open(purpose, sealed, aad)
    rotated = Keyring([os.urandom(32), *again._keys.values()])
    assert rotated.open("entries", sealed, b"here") == b"plain"
    path.write_text("not a key\n")
    with pytest.raises(KeyFileError):
        load_or_create_keyring(path)


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "spool.key"
    load_or_create_keyring(path)
    path.chmod(0o644)
    with pytest.raises(KeyFileError, match="chmod 600"):
        load_or_create_keyring(path)


def test_a_forked_process_does_not_repeat_its_parents_randomness() -> None:
    new_content_key()
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.write(writing, new_content_key())
        os._exit(0)
    os.wait()
    assert os.read(reading, 64) != new_content_key()
    os.close(reading)
    os.close(writing)


async def test_records_of_many_names_are_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool, names = make(tmp_path, sync=False), [f"tenant{n}" for n in range(2000)]
    await asyncio.gather(*[spool.put_record("tenant", each, each.encode(), replace=False) for each in names])
    for _ in range(2):
        assert [await spool.get_record("tenant", each) for each in names] == [each.encode() for each in names]
        monkeypatch.setattr(spool._keyring, "open", None)
    await spool.close()
