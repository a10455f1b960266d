"""A relay's state of its own for each test, and `fairlead` called in this process."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from mta.__main__ import main
from mta.clock import SystemClock
from mta.config import Config, load
from mta.mail.envelope import Envelope, Recipient
from mta.mail.ids import new_message_id
from mta.mail.result import Outcome, Result
from mta.queue.job import Job
from mta.queue.queue import Queue
from mta.queue.submission import Submission
from mta.spool.lmdb.opening import open_spool
from mta.spool.lmdb.spool import LmdbSpool
from mta.spool.records import Claim, Entry, Origin

type_found = TypeVar("type_found")


@dataclass(frozen=True)
class Done:
    """What a command said and how it ended."""

    code: int
    out: str
    err: str

    @property
    def records(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def record(self) -> Any:
        [only] = self.records
        return only


class Relay:
    """State in a directory, and the command line for it."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.config_file = folder / "fairlead.yaml"
        self.config_file.write_text(
            f"hostname: relay.test\nstate_dir: {folder}/state\nspool: {{reserve: 1MiB, map_size: 1GiB}}\n"
        )
        self._capsys = capsys

    @property
    def config(self) -> Config:
        return load(self.config_file)

    def run(self, *arguments: str) -> Done:
        self._capsys.readouterr()
        code = main(["-c", str(self.config_file), *arguments])
        said = self._capsys.readouterr()
        return Done(code, said.out, said.err)

    def with_spool(self, work: Callable[[LmdbSpool], Coroutine[Any, Any, type_found]]) -> type_found:
        async def run() -> type_found:
            spool = open_spool(self.config, SystemClock())
            try:
                return await work(spool)
            finally:
                await spool.close()

        return asyncio.run(run())

    def accept(self, *recipients: str, sender: str = "joe@acme.test", tenant: str = "acme", **times: Any) -> str:
        """Put a message into the queue; return its id. `times` are of the envelope."""
        message_id = new_message_id()
        submission = Submission(
            id=message_id,
            tenant=tenant,
            envelope=Envelope(sender=sender, recipients=tuple(map(Recipient, recipients)), **times),
            origin=Origin.RELAY,
            content=b"Subject: x\r\n\r\nx\r\n",
        )

        async def accept(spool: LmdbSpool) -> None:
            await Queue(spool, SystemClock(), "relay.test", self.config.retry, lambda: None).accept(submission)

        self.with_spool(accept)
        return message_id

    def claim(self, entry_id: str) -> None:
        """Have an entry in flight."""

        async def take(spool: LmdbSpool) -> bool:
            entry = await spool.entry(entry_id)
            assert entry is not None
            return await spool.claim(entry, self._claimed(entry))

        assert self.with_spool(take)

    @staticmethod
    def _claimed(entry: Entry) -> Claim:
        return Claim(epoch=1, attempt=1, retry_at=entry.due_at + 60)

    def attempt(self, entry_id: str, *results: Result) -> None:
        """Have an attempt come to something, in flight or not."""

        async def settle(spool: LmdbSpool) -> bool:
            queue = Queue(spool, SystemClock(), "relay.test", self.config.retry, lambda: None)
            entry = await spool.entry(entry_id)
            assert entry is not None
            message = await spool.message(entry.message)
            assert message is not None
            await spool.claim(entry, self._claimed(entry))
            job = Job(entry, message, self._claimed(entry))
            return await queue.settle(job, Outcome(results=results, started_at=0.0, ended_at=0.0, site="mx"))

        assert self.with_spool(settle)


@pytest.fixture
def relay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Relay:
    return Relay(tmp_path, capsys)
