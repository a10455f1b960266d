"""A role as a real process: ready, asked, reloaded, drained."""

import asyncio
import os
import signal
import sys
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from mta.control import ask

LIMIT = 20.0  # seconds


class Running:
    """A role's process and what it writes to its log."""

    def __init__(self, directory: Path) -> None:
        self.state = directory / "state"
        self.config = directory / "fairlead.yaml"
        self.process: asyncio.subprocess.Process
        self.log = ""

    def configure(self, text: str = "") -> None:
        self.config.write_text(f"hostname: relay.test\nstate_dir: {self.state}\n{text}")

    async def start(self, role: str) -> None:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "mta", "-c", str(self.config), "serve", "--role", role,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip

    async def says(self, wanted: str) -> None:
        assert self.process.stderr is not None
        async with asyncio.timeout(LIMIT):
            while wanted not in self.log:
                line = await self.process.stderr.readline()
                assert line, self.log
                self.log += line.decode()

    async def exit(self) -> int:
        async with asyncio.timeout(LIMIT):
            return await self.process.wait()

    async def ask(self, role: str, command: str) -> Any:
        return await ask(self.state / "run" / f"{role}.sock", command, LIMIT)


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    made = Running(tmp_path)
    made.configure()
    yield made
    if made.process.returncode is None:
        made.process.kill()
        await made.process.communicate()


def sigterm(running: Running) -> None:
    running.process.send_signal(signal.SIGTERM)


def twice(running: Running) -> None:
    sigterm(running)
    sigterm(running)


@pytest.mark.parametrize("role", ["delivery", "events"])
@pytest.mark.parametrize("end", [sigterm, twice])
async def test_a_role_says_how_it_goes_and_ends_when_told(
    running: Running, role: str, end: Callable[[Running], None]
) -> None:
    await running.start(role)
    await running.says("ready role=")
    status = await running.ask(role, "status")
    assert (status["role"], status["state"], status["spool"]) == (role, "running", "healthy")
    end(running)
    await running.says("stopped role=")
    assert await running.exit() == 0
    assert "Traceback" not in running.log


async def test_a_reload_refuses_mistakes_and_restarts_for_other_settings(running: Running) -> None:
    await running.start("events")
    await running.says("ready role=")
    running.configure("nonsense: 1\n")
    running.process.send_signal(signal.SIGHUP)
    await running.says("reload=refused")
    assert (await running.ask("events", "status"))["state"] == "running"
    running.configure("log: {level: debug}\n")
    assert await running.ask("events", "reload") == "done"
    running.configure("retry: {lifetime: 3600}\n")
    assert await running.ask("events", "reload") == "restarting"
    assert await running.exit() == 0


async def test_a_changed_file_of_shaping_rules_is_a_reason_to_restart(running: Running) -> None:
    """Red when the configuration alone is compared, which names the file as before."""
    rules = running.config.with_name("shaping.yaml")
    rules.write_text("rules: [{match: spam, action: hold}]\n")
    running.configure(f"delivery: {{shaping: {rules}}}\n")
    await running.start("delivery")
    await running.says("ready role=")
    assert await running.ask("delivery", "reload") == "done"
    rules.write_text("rules: [{match: spam, action: bounces}]\n")
    assert await running.ask("delivery", "reload") == "refused"
    await running.says("shaping.yaml:1:")
    rules.write_text("rules: [{match: spam, action: bounce}]\n")
    assert await running.ask("delivery", "reload") == "restarting"
    assert await running.exit() == 0


async def test_shaping_rules_that_cannot_be_used_are_no_start(running: Running) -> None:
    rules = running.config.with_name("shaping.yaml")
    rules.write_text("rules: [{match: spam, action: bounces}]\n")
    running.configure(f"delivery: {{shaping: {rules}}}\n")
    await running.start("delivery")
    await running.says("cannot-start")
    assert await running.exit() == 2
    assert "Traceback" not in running.log


async def test_a_second_process_of_a_role_does_not_start(running: Running) -> None:
    await running.start("events")
    await running.says("ready role=")
    second = Running(running.config.parent)
    await second.start("events")
    await second.says("already running")
    assert await second.exit() == 2
    sigterm(running)
    assert await running.exit() == 0


async def test_a_spool_with_the_wrong_key_is_left_alone(running: Running) -> None:
    await running.start("events")
    await running.says("ready role=")
    sigterm(running)
    assert await running.exit() == 0
    (key_file,) = running.state.rglob("spool.key")
    key_file.write_bytes(b64encode(os.urandom(32)))
    await running.start("delivery")
    await running.says("its key is not in the key file")
    assert await running.exit() == 2
