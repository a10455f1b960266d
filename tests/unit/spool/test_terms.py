"""What LMDB keeps of terms: sealed, bounded, found by time, and no reason for a spool to stay where it is."""

from pathlib import Path

from mta.spool.interface import KEPT_LIMIT, Keep, Kept, Taken, Terms, Toll
from mta.spool.lmdb.care import verify, verify_structure
from mta.spool.lmdb.environment import VALUE_LIMIT, Environment, Table
from mta.spool.lmdb.keys import kept_key
from mta.spool.lmdb.spool import LmdbSpool
from mta.spool.lmdb.terms import FORGOTTEN
from mta.spool.sealing import Keyring
from tests.contract.spool_contract import NOW, a_message
from tests.unit.spool.test_lmdb_spool import KEYS, make

DAY = 86_400.0


def keeping(name: str, value: bytes = b"answer", until: float = NOW + DAY) -> Terms:
    return Terms(now=NOW, keep=Keep(name, b"digest", value, until), tolls=(Toll(f"toll of {name}", 1, 1, 1),))


def rows(spool: LmdbSpool, table: Table) -> list[tuple[bytes, bytes]]:
    env = spool._writer.followed.environment
    with env.env.begin() as txn:
        return list(txn.cursor(env.tables[table]))


def change(path: Path, table: Table, key: bytes, value: bytes | None) -> None:
    """Put or delete a row behind the spool's back."""
    environment = Environment(path, map_size=0, reserve=0)
    with environment.env.begin(write=True) as txn:
        db = environment.tables[table]
        assert txn.delete(key, db=db)
        if value is not None:
            txn.put(key, value, db=db)
    environment.close()


async def test_answers_are_sealed_and_no_name_is_stored(tmp_path: Path) -> None:
    spool = make(tmp_path)
    await spool.accept_on([a_message()], keeping("canary-name", b"canary-value" * 9))
    await spool.close()
    stored = (tmp_path / "data.mdb").read_bytes()
    assert b"canary" not in stored


async def test_a_large_answer_is_in_pieces_of_a_page_and_goes_whole(tmp_path: Path) -> None:
    spool = make(tmp_path)
    for number in range(12):
        await spool.accept_on([], keeping(f"{number}", b"x" * KEPT_LIMIT))
    sizes = [len(value) for _, value in rows(spool, Table.KEPT)]
    assert len(sizes) == 12 * 148
    assert max(sizes) <= VALUE_LIMIT
    collected = []
    while found := await spool.collect(NOW + DAY + 1):
        collected.append(found)
    assert collected == [3, 3, 3, 3]  # not all in one transaction
    assert rows(spool, Table.KEPT) == rows(spool, Table.KEPT_UNTIL) == []
    await spool.close()


async def test_an_answer_that_cannot_be_read_is_none_and_gives_way(tmp_path: Path, caplog) -> None:
    spool = make(tmp_path)
    await spool.accept_on([], keeping("a", b"x" * 10_000))
    await spool.close()
    key = kept_key("a") + b"\x01"
    change(tmp_path, Table.KEPT, key, b"\x03" + b"broken")
    assert "changed or moved" in verify(tmp_path, Keyring(KEYS)).problems[0]
    spool = make(tmp_path)
    assert await spool.kept("a", NOW) is None
    assert "forgotten=yes" in caplog.text
    other = Terms(now=NOW, keep=Keep("a", b"digest", b"new", NOW + DAY))
    assert await spool.accept_on([a_message()], other) == Taken(1)
    assert await spool.accept_on([a_message()], other) == Kept(b"digest", b"new", 1)
    await spool.close()
    assert verify(tmp_path, Keyring(KEYS)).problems == []


async def test_a_whole_spool_passes_and_what_is_wrong_is_named(tmp_path: Path) -> None:
    spool = make(tmp_path)
    for name in ("a", "b"):
        await spool.accept_on([a_message()], keeping(name, b"x" * 10_000))
    past = Terms(now=NOW + DAY, keep=Keep("a", b"digest", b"again", NOW + DAY + 9))
    assert isinstance(await spool.accept_on([a_message()], past), Taken)
    (first, _), (second, _) = rows(spool, Table.KEPT_UNTIL)
    await spool.close()
    findings = verify(tmp_path, Keyring(KEYS))
    assert findings.problems == verify_structure(tmp_path) == []
    assert findings.counts["kept"] == 2
    assert (first[8:], second[8:]) == (kept_key("b"), kept_key("a"))
    change(tmp_path, Table.KEPT_UNTIL, first, None)
    change(tmp_path, Table.KEPT, second[8:] + b"\x00", None)
    assert verify(tmp_path, Keyring(KEYS)).problems == [
        f"kept {first[8:].hex()}00: nothing tells when it is past",
        f"kept-until: a row without its answer {second[8:].hex()}",
    ]


async def test_rates_that_are_free_have_their_turn_by_their_hash(tmp_path: Path) -> None:
    spool = make(tmp_path)
    for number in range(3 * FORGOTTEN):
        await spool.accept_on([], Terms(now=NOW, tolls=(Toll(f"{number}", 1, 1, 1),)))
    await spool.accept_on([], Terms(now=NOW, tolls=(Toll("busy", 3 * DAY, 1, 1),)))
    gone = [await spool.collect(NOW + DAY + 60 * minute) for minute in range(256)]
    assert sum(gone) == 3 * FORGOTTEN
    assert max(gone) < FORGOTTEN
    assert len(rows(spool, Table.TOLLS)) == 1
    await spool.close()
