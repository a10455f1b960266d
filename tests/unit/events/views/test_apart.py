"""The process that builds: who has been answered is found by the next question, whatever happens to the process."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mta import logs
from mta.clock import SystemClock
from mta.companion import Household
from mta.control import ControlServer
from mta.events.views.apart import Building, Places
from mta.events.views.following import Progress, Reach
from mta.events.views.reader import SqliteViews
from mta.mail.envelope import Envelope, Recipient
from mta.mail.ids import new_message_id
from mta.queue.acceptance import Lifetimes, acceptance
from mta.queue.submission import Submission
from mta.queue.views import Search, ViewsUnavailable
from mta.spool.lmdb.environment import Place
from mta.spool.lmdb.spool import LmdbSpool
from mta.spool.records import Origin
from mta.spool.sealing import Keyring


class Relay:
    """A spool, the process that builds views of it, and who reads them."""

    def __init__(self, tmp_path: Path, keyring: Keyring) -> None:
        place = Place(str(tmp_path / "spool"), 64 << 20, 0)
        self.spool = LmdbSpool(tmp_path / "spool", keyring, SystemClock(), map_size=64 << 20, reserve=0)
        places = Places(place, keyring.keys(), str(tmp_path / "events"), str(tmp_path / "views"))
        household = Household("events", logs.Settings("text", "info"))
        self.building = Building(household, places, SystemClock())
        self.control = ControlServer(tmp_path / "run/events.sock", self.building.commands())
        self.views = SqliteViews(tmp_path / "views", self.spool, tmp_path / "run/events.sock")

    async def accept(self) -> str:
        message_id = new_message_id()
        envelope = Envelope(sender="a@acme.test", recipients=(Recipient("b@x.test"),))
        submission = Submission(id=message_id, tenant="acme", envelope=envelope, origin=Origin.HTTP, content=b"x\r\n")
        await self.spool.accept([acceptance(submission, SystemClock().now(), Lifetimes(expiry=60, delay_notice=60))])
        return message_id

    async def newest(self) -> str:
        return (await self.views.messages("acme", Search(), limit=1)).messages[0].id


@pytest.fixture
async def relay(tmp_path: Path, keyring: Keyring, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Relay]:
    """With more patience than a read has: starting a process can take long on a busy machine."""
    monkeypatch.setattr("mta.events.views.apart.PATIENCE", 20.0)
    monkeypatch.setattr("mta.events.views.reader.PATIENCE", 20.0)
    relay = Relay(tmp_path, keyring)
    await relay.control.start()
    yield relay
    await relay.views.close()
    await relay.control.close()
    await relay.building.close()
    await relay.spool.close()


async def test_what_was_accepted_is_found_at_once(relay: Relay) -> None:
    for _ in range(5):
        message_id = await relay.accept()
        assert await relay.newest() == message_id
    assert relay.building.detail() == {"views_seq": 5, "views_lag": 0, "views_complete": True, "views_trouble": ""}


async def test_a_process_that_dies_is_started_again_and_goes_on(relay: Relay) -> None:
    await relay.accept()
    await relay.newest()
    assert relay.building._process is not None
    relay.building._process.kill()
    message_id = await relay.accept()
    assert await relay.newest() == message_id


async def test_built_anew_on_demand(relay: Relay) -> None:
    message_id = await relay.accept()
    assert await relay.newest() == message_id
    await relay.building.rebuild()
    following = await relay.accept()
    assert await relay.newest() == following
    assert [each.name for each in relay.views._directory.glob("*.db")] == ["views.2.db"]


async def test_without_the_role_they_are_read_as_they_are(relay: Relay) -> None:
    message_id = await relay.accept()
    assert await relay.newest() == message_id
    await relay.views.caught_up()
    await relay.control.close()
    await relay.views.caught_up()
    await relay.accept()
    assert await relay.newest() == message_id
    with pytest.raises(ViewsUnavailable, match="behind"):
        await relay.views.caught_up()


async def test_a_position_that_nobody_has_is_waited_for_a_second_at_most(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mta.events.views.apart.PATIENCE", 0.05)
    async with asyncio.timeout(0.5):
        assert isinstance(await relay.building.reach(Reach(1 << 40)), Progress)
    assert relay.building._waiting == []


async def test_it_starts_by_itself(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mta.events.views.apart.POLL", 0.01)
    await relay.accept()
    await relay.building.run(asyncio.Event())
    async with asyncio.timeout(10):
        while not relay.building.progress.complete:
            await asyncio.sleep(0.01)
    assert relay.building.progress.seq == 1
