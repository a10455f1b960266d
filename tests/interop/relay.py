"""The product as its users run it: processes of their own, started and asked by the command line."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.interop.processes import running, wait_until

ROOT = Path(__file__).resolve().parent.parent.parent
ROLES = ("ingress", "http", "delivery", "events")
_COMMAND = 60.0  # seconds


class Relay:
    """An installation with a configuration file in `directory`, running or not."""

    def __init__(self, directory: Path, settings: Mapping[str, object]) -> None:
        self.directory = directory
        self.config = directory / "fairlead.yaml"
        self.log = directory / "log"
        self.config.write_text(yaml.safe_dump(dict(settings), sort_keys=False))

    @property
    def command(self) -> list[str]:
        """`fairlead -c FILE`."""
        return [sys.executable, "-m", "mta", "-c", str(self.config)]

    def ask(self, *arguments: str) -> list[dict[str, Any]]:
        """Run a command and return the records that it prints."""
        command = [*self.command, *arguments, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND, cwd=ROOT)
        if done.returncode:
            raise RuntimeError(f"{arguments} exits {done.returncode}: {done.stderr}")
        return [json.loads(line) for line in done.stdout.splitlines()]

    def tell(self, *arguments: str) -> dict[str, Any]:
        """Run a command that prints one record."""
        (record,) = self.ask(*arguments)
        return record

    @contextmanager
    def serving(self, roles: Sequence[str] = ROLES) -> Iterator[tuple[int, ...]]:
        """Run the relay, all roles as `serve` does or each of some alone; gives the processes that it started."""
        serve = [*self.command, "serve"]
        said = self.log.stat().st_size if self.log.exists() else 0  # when it was run before
        commands = [serve] if tuple(roles) == ROLES else [[*serve, "--role", each] for each in roles]
        with ExitStack() as stack:
            processes = [stack.enter_context(running(command, self.log)) for command in commands]
            wait_until(lambda: self._ready(said) >= set(roles), processes[0], self.log)
            yield tuple(each.pid for each in processes)

    def _ready(self, since: int) -> set[str]:
        """Say which roles are, by what the log says from an offset on."""
        return {role.decode() for role in re.findall(rb"\bready role=(\w+)", self.log.read_bytes()[since:])}
