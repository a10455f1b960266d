"""`fairlead views`: how far the views are, with the role that builds them up or down."""

import asyncio
from pathlib import Path
from typing import Any

from mta.control import ControlServer, socket_path
from mta.events.reader import LogReader
from mta.events.views import schema
from mta.events.views.following import Follower, Progress
from mta.lab.clock import FakeClock
from mta.spool.lmdb.opening import open_keyring


def built(relay: Any) -> Path:
    """Build the views of what the relay's spool holds; return the directory."""

    async def follow(spool: Any) -> None:
        log = LogReader(spool, relay.config.segment_dir, open_keyring(relay.config))
        follower = Follower(spool, log, relay.config.views_dir, FakeClock())
        await follower.look()
        follower.close()

    relay.with_spool(follow)
    directory: Path = relay.config.views_dir
    return directory


def test_with_the_role_down_the_file_says_how_far_they_are(relay: Any) -> None:
    relay.accept("b@x.test")
    directory = built(relay)
    relay.accept("b@x.test")
    done = relay.run("views", "status", "--json")
    assert done.code == 0
    assert (done.record["seq"], done.record["lag"], done.record["complete"]) == (1, 1, True)
    assert done.record["file"] == str(directory / "views.1.db")
    assert done.record["octets"] > 4096
    assert "not running" in done.record["trouble"]


def test_before_there_are_any(relay: Any) -> None:
    relay.accept("b@x.test")
    done = relay.run("views", "status")
    assert done.code == 0
    assert "being built, up to event 0, 1 behind" in done.out


def test_built_anew_when_the_role_is_started(relay: Any) -> None:
    relay.accept("b@x.test")
    directory = built(relay)
    done = relay.run("views", "rebuild")
    assert (done.code, done.out) == (0, "they are built when the events role is started\n")
    build = schema.newest(directory)
    assert build is not None
    assert build.number == 2
    assert [each.name for each in directory.glob("*.db")] == ["views.2.db"]
    assert relay.run("views", "status", "--json").record["complete"] is False


async def test_the_role_is_asked(relay: Any) -> None:
    asked = []

    async def status() -> Progress:
        return Progress(seq=7, position=7, end=9, complete=True, trouble="disk full\x1b[2J")

    async def rebuild() -> None:
        asked.append("rebuild")

    commands = {"views": status, "views_rebuild": rebuild}
    control = ControlServer(socket_path(relay.config.run_dir, "events"), commands)
    await control.start()
    try:
        done = await asyncio.to_thread(relay.run, "views", "status")
        assert done.code == 0
        assert "complete, up to event 7, 2 behind" in done.out
        assert "disk full" in done.out
        assert "\x1b" not in done.out
        done = await asyncio.to_thread(relay.run, "views", "rebuild")
        assert (done.code, asked) == (0, ["rebuild"])
    finally:
        await control.close()
