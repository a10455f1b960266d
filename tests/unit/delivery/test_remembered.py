"""What is remembered of hosts, for how long, and what is written of it; names contain downgrade where it guards."""

import pytest

from mta.delivery import remembered
from mta.delivery.policy import Level
from mta.delivery.remembered import KIND, Memory, hosts_in
from mta.lab.clock import FakeClock
from mta.spool.interface import Unavailable
from mta.spool.sealing import SealBroken
from tests.unit.delivery.peers import Records

DAY = 86_400.0
MX = ("mx.test", 25)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def spool():
    return Records()


async def written(memory):
    await memory.close()
    return memory


async def test_the_best_level_counts_until_it_is_too_old(spool, clock):
    memory = Memory(spool, clock, 30 * DAY)
    assert memory.level(*MX) is Level.CLEAR
    memory.saw(*MX, Level.ENCRYPTED)
    memory.saw(*MX, Level.VERIFIED)
    memory.saw(*MX, Level.ENCRYPTED)
    memory.saw(*MX, Level.CLEAR)
    assert memory.level(*MX) is Level.VERIFIED
    assert memory.level("mx.test", 587) is Level.CLEAR
    clock.jump(30 * DAY)
    assert memory.level(*MX) is Level.CLEAR
    memory.saw(*MX, Level.ENCRYPTED)
    assert memory.level(*MX) is Level.ENCRYPTED
    await memory.close()


async def test_it_is_written_when_a_level_rises_or_has_become_old(spool, clock):
    memory = Memory(spool, clock, 30 * DAY)
    for _ in range(100):
        memory.saw(*MX, Level.ENCRYPTED)
    assert (await written(memory), spool.writes)[1] == 1
    memory.saw(*MX, Level.VERIFIED)
    assert (await written(memory), spool.writes)[1] == 2
    clock.jump(DAY - 1)
    memory.saw(*MX, Level.VERIFIED)
    assert (await written(memory), spool.writes)[1] == 2
    clock.jump(1)
    memory.saw(*MX, Level.VERIFIED)
    assert (await written(memory), spool.writes)[1] == 3


async def test_a_downgrade_is_known_after_a_restart(spool, clock):
    memory = Memory(spool, clock, 30 * DAY)
    memory.saw(*MX, Level.VERIFIED)
    await memory.close()
    clock.jump(29 * DAY)
    again = Memory(spool, clock, 30 * DAY)
    await again.recall()
    assert again.level(*MX) is Level.VERIFIED
    clock.jump(DAY)
    last = Memory(spool, clock, 30 * DAY)
    await last.recall()
    await last.close()
    assert last.level(*MX) is Level.CLEAR
    assert spool.held == {}


async def test_without_a_lifetime_nothing_is_remembered_and_what_was_is_removed(spool, clock):
    memory = Memory(spool, clock, 30 * DAY)
    memory.saw(*MX, Level.VERIFIED)
    await memory.close()
    off = Memory(spool, clock, 0.0)
    await off.recall()
    off.saw(*MX, Level.VERIFIED)
    await off.close()
    assert off.level(*MX) is Level.CLEAR
    assert spool.held == {}


@pytest.mark.parametrize("names", [("mx.test",), ("mx.test:25", "mx.test:587"), ("nobody.test", "mx.test")])
async def test_hosts_are_forgotten_by_name_or_with_their_port(spool, clock, names):
    memory = Memory(spool, clock, 30 * DAY)
    for host, port in (MX, ("mx.test", 587), ("other.test", 25)):
        memory.saw(host, port, Level.VERIFIED)
    assert sorted(memory.forget(names)) == ["mx.test:25", "mx.test:587"]
    assert memory.forget(names) == []
    await memory.close()
    assert memory.level(*MX) is Level.CLEAR
    assert [name for _, name in spool.held] == ["other.test:25"]
    assert await remembered.forget(spool, ("other.test:25",)) == ["other.test:25"]
    assert spool.held == {}


async def test_no_more_hosts_are_remembered_than_memory_holds(spool, clock, monkeypatch):
    monkeypatch.setattr(remembered, "HOSTS", 3)
    memory = Memory(spool, clock, 30 * DAY)
    for number in range(5):
        memory.saw(f"mx{number}.test", 25, Level.ENCRYPTED)
    await memory.close()
    assert [memory.level(f"mx{number}.test", 25) for number in range(5)] == [Level.CLEAR] * 2 + [Level.ENCRYPTED] * 3
    assert len(spool.held) == 3


async def test_a_spool_that_is_sick_costs_what_it_would_have_kept_alone(spool, clock, caplog):
    async def fail(*_, **__):
        raise Unavailable("disk")

    put, spool.put_record = spool.put_record, fail
    memory = Memory(spool, clock, 30 * DAY)
    memory.saw(*MX, Level.VERIFIED)
    await memory.close()
    assert memory.level(*MX) is Level.VERIFIED
    assert "written=no" in caplog.text
    spool.put_record = put
    memory.saw("other.test", 25, Level.VERIFIED)
    await memory.close()
    assert len(spool.held) == 1


async def test_what_cannot_be_read_is_learned_again(spool, clock, caplog):
    await spool.put_record(KIND, "mx.test:25", b"garbage", replace=True)
    memory = Memory(spool, clock, 30 * DAY)
    await memory.recall()
    assert memory.level(*MX) is Level.CLEAR
    assert "name='mx.test:25' read=no" in caplog.text

    async def broken(kind):
        raise SealBroken("sealed under another key")

    spool.list_records = broken
    await memory.recall()
    assert "read=no error=sealed under another key" in caplog.text


def test_hosts_of_a_site():
    assert hosts_in("mx1.test:25, mx2.test:25 > backup.test:2525 dane sts=0a1b") == [
        "mx1.test:25", "mx2.test:25", "backup.test:2525",
    ]  # fmt: skip
    assert hosts_in("smtp.test:587 tls=verify as user") == ["smtp.test:587"]
    assert hosts_in("::1:25") == ["::1:25"]
    assert hosts_in("example.com") == hosts_in("") == []
