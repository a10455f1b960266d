"""A spool that moves into a new file over and over: nobody who has it open misses that, whenever the mover dies."""

import asyncio
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from mta.clock import SystemClock
from mta.companion import Household
from mta.logs import Settings
from mta.spool.interface import SpoolError
from mta.spool.lmdb import commit
from mta.spool.lmdb.care import verify, verify_structure
from mta.spool.lmdb.spool import LmdbSpool
from mta.spool.sealing import Keyring, load_or_create_keyring
from tests.contract.spool_contract import a_message
from tests.crash.conftest import Report, size
from tests.crash.sabotage import ROOT

KILLS = size("MOVER_KILLS", 20)
_AT_ONCE = 4
_LONGEST = 0.3  # seconds that a mover lives


class House:
    """A spool, and who uses it: in a process beside this one as a role, or in a thread as a command does."""

    def __init__(self, folder: Path, *, apart: bool) -> None:
        self.place = folder / "spool"
        self._key_file = folder / "spool.key"
        self.keyring: Keyring = load_or_create_keyring(self._key_file)
        self._apart = Household("test", Settings("text", "info")) if apart else None
        self.spool = self._open()
        self._stored: dict[str, bytes] = {}

    def _open(self) -> LmdbSpool:
        return LmdbSpool(self.place, self.keyring, SystemClock(), map_size=1 << 30, reserve=0, apart=self._apart)

    async def reopen(self) -> None:
        """Close it, and open it as a process that has just begun."""
        await self.spool.close()
        self.spool = self._open()

    async def store(self) -> None:
        """Store some messages, large enough to be read off the loop, and read them back."""
        accepted = [a_message(content=random.randbytes(300_000)) for _ in range(_AT_ONCE)]
        await asyncio.gather(*(self.spool.accept([each]) for each in accepted))
        self._stored |= {each.message.id: each.content for each in accepted}
        await asyncio.gather(*(self._read(each.message.id) for each in accepted))

    async def _read(self, message_id: str) -> None:
        message = await self.spool.message(message_id)
        assert message is not None
        assert await self.spool.content(message) == self._stored[message_id]

    async def missing(self) -> int:
        """Close it; tell how many messages are not there, and see that all else is whole."""
        await self.spool.close()
        findings = verify(self.place, self.keyring)
        assert findings.problems == verify_structure(self.place) == []
        return len(self._stored) - findings.counts["messages"]

    @contextmanager
    def mover(self, *step: str) -> Iterator["subprocess.Popen[bytes]"]:
        """Have a process move the spool until the end of the block, or until it dies at a step."""
        command = [sys.executable, "-m", "tests.crash.mover", str(self.place), str(self._key_file), *step]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
            try:
                yield process
            finally:
                process.kill()


def _moved(process: "subprocess.Popen[bytes]") -> bool:
    assert process.stdout is not None
    return process.stdout.readline() == b"moved\n"


@pytest.mark.parametrize("apart", [True, False])
async def test_whoever_has_it_open_goes_along(tmp_path: Path, *, apart: bool) -> None:
    house = House(tmp_path, apart=apart)
    with house.mover() as process:
        for _ in range(8):
            assert await asyncio.to_thread(_moved, process)
            await house.store()
    assert await house.missing() == 0


@pytest.mark.parametrize("reopened", [True, False])
@pytest.mark.parametrize("step", ["staged", "marked", "entering"])
async def test_a_mover_that_dies_on_its_way_leaves_a_spool_that_goes_on(
    tmp_path: Path, step: str, *, reopened: bool
) -> None:
    house = House(tmp_path, apart=True)
    await house.store()
    with house.mover(step) as process:
        assert await asyncio.to_thread(process.wait, 20) == 9
    if reopened:
        await house.reopen()
    await house.store()
    assert not (house.place / "compacted" / "data.mdb").exists() or step == "staged"
    assert await house.missing() == 0


@pytest.mark.parametrize("apart", [True, False])
async def test_a_writer_that_cannot_go_along_says_so_and_goes_along_later(tmp_path: Path, *, apart: bool) -> None:
    house = House(tmp_path, apart=apart)
    await house.store()
    lock = house.place / "opening.lock"
    with house.mover() as process:
        assert await asyncio.to_thread(_moved, process)
    lock.unlink()
    lock.mkdir()
    with pytest.raises(SpoolError):
        await house.store()
    lock.rmdir()
    async with asyncio.timeout(10):
        while not house.spool.healthy():
            await asyncio.sleep(0.01)
    await house.store()
    assert await house.missing() == 0


async def test_a_writer_with_nothing_to_do_lets_go_of_what_was_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit, "LOOK_INTERVAL", 0.05)
    house = House(tmp_path, apart=False)
    await house.store()
    with house.mover() as process:
        assert await asyncio.to_thread(_moved, process)
    async with asyncio.timeout(10):
        while any(str(each).endswith("(deleted)") for each in _open_in(house.place)):
            await asyncio.sleep(0.01)
    assert await house.missing() == 0


def _open_in(place: Path) -> list[Path]:
    found = []
    for each in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # it was that of the directory
            found.append(each.readlink())
    return [each for each in found if place in each.parents]


async def test_movers_killed_at_random_lose_nothing(tmp_path: Path, seed: int, report: Report) -> None:
    rng, house, moved = random.Random(seed), House(tmp_path, apart=True), 0
    for _ in range(KILLS):
        with house.mover() as process:
            assert await asyncio.to_thread(_moved, process)
            moved += 1
            async with asyncio.timeout(20):
                storing = asyncio.create_task(house.store())
                await asyncio.sleep(rng.uniform(0, _LONGEST))
                process.kill()
                await storing
    missing = await house.missing()
    report.say(kills=KILLS, moved=f">={moved}", missing=missing, seed=seed)
    assert missing == 0


async def test_control_a_mover_that_says_nothing_is_seen(tmp_path: Path, report: Report) -> None:
    house = House(tmp_path, apart=True)
    await house.store()
    with house.mover("silent") as process:
        assert await asyncio.to_thread(_moved, process)
    await house.store()
    missing = await house.missing()
    report.say(missing=missing)
    assert missing == _AT_ONCE, "the harness cannot see a loss"
