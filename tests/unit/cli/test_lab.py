"""`fairlead lab` as a newcomer meets it: the printed examples, pasted, arrive signed."""

import asyncio
import re
import shlex
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mta.cli.lab import introduction
from mta.lab.laboratory import RelayPorts

LIMIT = 60.0  # seconds for each step
SIGNED = "dkim=pass (rsa2048 rsa-sha256) dkim=pass (ed25519 ed25519-sha256)"


class Lab:
    """A running `fairlead lab`: what it printed, and what it goes on printing."""

    def __init__(self, process: asyncio.subprocess.Process, directory: Path) -> None:
        self.process = process
        self.directory = directory
        self.said = ""

    async def line(self) -> str:
        assert self.process.stdout is not None
        async with asyncio.timeout(LIMIT):
            return (await self.process.stdout.readline()).decode()

    async def introduced(self) -> None:
        while not self.said.endswith("events --follow\n"):
            line = await self.line()
            assert line, self.said
            self.said += line

    @property
    def ports(self) -> RelayPorts:
        numbers = [int(each) for each in re.findall(r"127\.0\.0\.1:(\d+)", self.said)]
        return RelayPorts(relay=numbers[0], http=numbers[1])

    @property
    def api_key(self) -> str:
        found = re.search(r"SG\.[\w-]+\.[\w-]+", self.said)
        assert found
        return found[0]


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mta", "lab", "--directory", str(tmp_path)), stdout=asyncio.subprocess.PIPE
    )
    running = Lab(process, tmp_path)
    await running.introduced()
    yield running
    if process.returncode is None:
        process.kill()
        await process.wait()


def examples(text: str) -> list[str]:
    """The two commands for the shell."""
    return re.findall(r"Send a message over \w+:\n\n(.*?)\n\n(?=Send|Any)", text, re.DOTALL)


async def pasted(command: str) -> str:
    shell = await asyncio.create_subprocess_exec(
        *("bash", "-euo", "pipefail", "-c", command), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(LIMIT):
        said, _ = await shell.communicate()
    assert shell.returncode == 0, said
    return said.decode()


async def test_the_examples_arrive_signed_and_ctrl_c_ends_it_all(lab: Lab) -> None:
    python = introduction(lab.directory, lab.ports, lab.api_key, curl=False)
    smtp, http = zip(examples(lab.said), examples(python), strict=True)
    assert await lab.line() == "\n"
    for example in smtp:
        await pasted(example)
        line = await lab.line()
        assert line.startswith("arrived: from <hello@sender.test> to ok@example.test, Over SMTP, TLS")
        assert line.endswith(f", {SIGNED}\n")
    for example in http:
        assert "202" in await pasted(example)
        line = await lab.line()
        assert "Over HTTP" in line
        assert line.endswith(f", {SIGNED}\n")
    _, _, options = lab.said.splitlines()[-1].removesuffix(" --follow").partition("fairlead ")
    events = await pasted(f"{shlex.quote(sys.executable)} -m mta {options} --json")
    assert events.count('"type":"delivered"') == 4
    assert len(list((lab.directory / "mail").glob("*.eml"))) == 4
    second = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mta", "lab", "--directory", str(lab.directory)), stderr=asyncio.subprocess.PIPE
    )
    _, complaint = await second.communicate()
    assert (second.returncode, complaint) == (75, f"fairlead: another laboratory runs in {lab.directory}\n".encode())
    lab.process.send_signal(signal.SIGINT)
    async with asyncio.timeout(LIMIT):
        assert await lab.process.wait() == 0
    assert "Traceback" not in (lab.directory / "relay.log").read_text()
