"""What the load is told to do and what it reports, as lines of JSON between the benchmark and the load's process."""

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from typing import Self

import msgspec

_LIMIT = 64 << 20  # octets of one line: a report may have many latencies


class Mail(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """Send mail over SMTP: `messages` of them, or as many as are accepted in `seconds`, whichever is less.

    `kept`: as many over each of the `sessions` as come; otherwise one message a connection. Message n has the subject
    `bench.RUN.n`, one of ten bodies and senders, and one of `destinations` recipient domains.
    """

    address: tuple[str, int]
    run: int
    sessions: int
    kept: bool
    octets: int  # of a body
    destinations: int
    messages: int
    seconds: float


class Posts(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """Send mail over HTTP: `messages` over `sessions` kept connections, `rate` a second; 0: as fast as may be.

    With `html` there is as much of that as of text; `idempotent` requests have a key each; a request has so many
    `personalizations` of one recipient.
    """

    address: tuple[str, int]
    run: int
    key: str
    sessions: int
    octets: int
    messages: int
    rate: float
    html: bool = False
    idempotent: bool = False
    personalizations: int = 1


class Report(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """What came of it. Times are of time.monotonic(), which all processes share; `cpu` is the load's own."""

    accepted: int
    began: float
    ended: float  # when the last one was accepted
    cpu: float
    latencies: list[float] = []
    late: float = 0.0  # the longest that a request which was due lay here, though a connection was free


class Failure(msgspec.Struct, tag=True, frozen=True):
    """Nothing came of it."""

    reason: str


Order = Mail | Posts


class Malfunction(Exception):
    """A server or the load did not do its work, so that there is nothing to measure."""


class Load:
    """The process that makes the load; the sink and the figures are another's work."""

    def __init__(self) -> None:
        self._process: Process | None = None

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.bench.load", stdin=PIPE, stdout=PIPE, limit=_LIMIT, start_new_session=True
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    async def make(self, order: Order) -> Report:
        """Have an order carried out; Malfunction if it cannot be."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(msgspec.json.encode(order) + b"\n")
        said = await process.stdout.readline()
        if not said:
            raise Malfunction("the load died")
        report = msgspec.json.decode(said, type=Report | Failure)
        if isinstance(report, Failure):
            raise Malfunction(report.reason)
        return report
