import asyncio
import os

import pytest

from mta.accounts import audit
from mta.accounts.audit import AuditLog, Record, Who, is_position
from mta.accounts.tenants import AccountError
from mta.clock import SystemClock
from mta.spool.interface import Unavailable
from mta.spool.lmdb.spool import LmdbSpool
from mta.spool.sealing import Keyring

NOW = 1_800_000_000.0
DAY = 86_400.0
ANN = Who("key ann", "acme", "192.0.2.7")
JOE = Who("joe")


@pytest.fixture
def log(spool):
    return AuditLog(spool)


async def do(log, at, who=JOE, tenant="acme", on="x"):
    async with log.doing(who, "keys.create", at, tenant=tenant, on=on):
        pass


async def everything(log, tenant="", limit=3, **more):
    """Read in pages to the end."""
    found, before, pages = [], "", 0
    while before is not None:
        records, before = await log.page(tenant, limit, before, **more)
        assert len(records) <= limit
        found += records
        pages += 1
        assert pages < 1000
    return found


async def test_who_did_what_on_what_from_where_when_and_what_came_of_it(log):
    async with log.doing(
        ANN, "keys.create", NOW, tenant="acme", scopes=["send", "read"], networks=(), rate=None
    ) as underway:
        underway.on = "ID"
    [found] = await everything(log)
    assert found == Record(
        position=found.position,
        at=NOW,
        by="key ann",
        by_operator=False,
        address="192.0.2.7",
        action="keys.create",
        tenant="acme",
        on="ID",
        details={"scopes": "send,read"},
        result="done",
    )
    assert is_position(found.position)


async def test_it_is_on_record_before_it_is_done(log, spool):
    """Red when the record is written afterwards: a crash between would leave a change that nobody made."""
    async with log.doing(JOE, "tenants.set", NOW, tenant="acme", on="acme"):
        [found] = await everything(AuditLog(spool))
        assert (found.result, found.on) == ("begun", "acme")
    [found] = await everything(log)
    assert found.result == "done"


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (AccountError("no such tenant"), "refused: no such tenant"),
        (Unavailable("spool: sick"), "failed: spool: sick"),
        (ValueError("SG.secret"), "failed: ValueError"),
        (asyncio.CancelledError(), "failed: CancelledError"),
    ],
)
async def test_what_fails_is_on_record_with_why_and_no_secret(log, error, result):
    with pytest.raises(type(error)):
        async with log.doing(JOE, "keys.revoke", NOW, tenant=""):
            raise error
    assert [each.result for each in await everything(log)] == [result]


@pytest.mark.tampers
async def test_nothing_is_done_that_cannot_be_recorded(spool, monkeypatch):
    async def fail(*_args, **_more):
        raise Unavailable("sick")

    log = AuditLog(spool)
    monkeypatch.setattr(spool, "put_record", fail)
    done = False
    with pytest.raises(Unavailable):
        async with log.doing(JOE, "keys.revoke", NOW, tenant=""):
            done = True
    assert not done


async def test_the_latest_first_in_pages(log):
    times = [NOW + step for step in (0, 0.5, 59, 61, 3600, 3 * DAY, 3 * DAY + 1)]
    for at in times:
        await do(log, at)
    for limit in (1, 2, 3, 100):
        assert [each.at for each in await everything(log, limit=limit)] == times[::-1]
    assert [each.at for each in await everything(log, since=NOW + 59)] == times[:1:-1]
    assert [each.at for each in await everything(log, since=NOW + 3600)] == times[:3:-1]
    assert await everything(log, since=NOW + 9 * DAY) == []


async def test_of_one_moment_none_is_missed_and_none_told_twice(log):
    for number in range(20):
        await do(log, NOW, on=str(number))
    found = await everything(log, limit=3)
    assert [int(each.on) for each in found] == list(range(19, -1, -1))


async def test_a_tenant_reads_its_own_alone(log, monkeypatch):
    monkeypatch.setattr(audit, "_LOOKED_AT", 4)
    for minute in range(12):
        for _ in range(3):
            await do(log, NOW + 60 * minute, tenant="other")
        if minute % 5 == 0:
            await do(log, NOW + 60 * minute, ANN)
    own = await everything(log, "acme")
    assert [each.at for each in own] == [NOW + 600, NOW + 300, NOW]
    others = {each.position for each in await everything(log, "other", limit=100)}
    before = ""
    while before is not None:
        _, before = await log.page("acme", 1, before)
        assert before not in others


async def test_a_minute_with_more_than_is_looked_at_does_not_stop_the_pages(log, monkeypatch):
    monkeypatch.setattr(audit, "_LOOKED_AT", 2)
    for number in range(9):
        await do(log, NOW + number / 10)
        await do(log, NOW - 60 + number / 10)
    assert len(await everything(log, limit=100)) == 18
    assert await everything(log, "nobody") == []


async def test_days_that_are_over_are_forgotten(log, spool, monkeypatch):
    monkeypatch.setattr(audit, "_AT_ONCE", 2)
    for day in (0, 1, 2):
        for second in range(5):
            await do(log, NOW + day * DAY + second)
    await do(log, NOW + audit.KEPT_FOR + 2 * DAY)
    kept = await everything(log, limit=100)
    assert min(each.at for each in kept) == NOW + 2 * DAY
    assert len(kept) == 6
    days = [name for name, _ in await spool.list_records("audit")]
    assert len(days) == 2
    assert await spool.list_records(f"audit\0{audit._name(f'{int(NOW * 1000):014d}', audit._DAY)}") == []


async def test_two_processes_write_one_log(spool):
    one, other = AuditLog(spool), AuditLog(spool)
    await asyncio.gather(*(do(log, NOW + number) for number, log in enumerate((one, other) * 20)))
    assert [each.at for each in await everything(one)] == [NOW + number for number in range(39, -1, -1)]


async def test_texts_are_cut(log):
    async with log.doing(Who("x"), "domains.add", NOW, tenant="", on="d" * 9999, detail="x" * 9999):
        pass
    [found] = await everything(log)
    assert (len(found.on), len(found.details["detail"])) == (256, 256)


async def test_records_are_sealed(tmp_path):
    spool = LmdbSpool(
        tmp_path / "sealed", Keyring([os.urandom(32)]), SystemClock(), map_size=1 << 26, reserve=0, sync=False
    )
    await do(AuditLog(spool), NOW, Who("unmistakable"))
    await spool.close()
    stored = b"".join(each.read_bytes() for each in (tmp_path / "sealed").rglob("*") if each.is_file())
    assert b"unmistakable" not in stored


@pytest.mark.parametrize("text", ["", "1", "0" * 15, "x" * 14, "0" * 14 + "-1", "0" * 14 + "-1234567890123"])
def test_no_position(text):
    assert not is_position(text)
