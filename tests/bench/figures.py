"""What the benchmark finds: single runs, and their medians."""

import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from statistics import median
from typing import NamedTuple

from tests.bench.servers import RIVALS, Contest

_MESSAGES = {2_000: 3000, 50_000: 1000, 1_000_000: 200}  # of one run, by the octets of a body


class Cell(NamedTuple):
    """What is measured in one contest: how many sessions at once, bodies of how many octets, to how many domains."""

    contest: Contest
    sessions: int
    octets: int
    destinations: int

    @property
    def messages(self) -> int:
        """How many a run has."""
        return _MESSAGES[self.octets]

    def __str__(self) -> str:
        return f"{self.contest}, {self.sessions} sessions, {self.mail}"

    @property
    def mail(self) -> str:
        """Say what mail it is."""
        size = f"{self.octets // 1000} KB" if self.octets < 1_000_000 else f"{self.octets // 1_000_000} MB"
        return size if self.destinations == 1 else f"{size} to {self.destinations:,}"


class Expiry(NamedTuple):
    """Deadlines alone: entries that expired in a second, and microseconds of CPU that one took."""

    rate: float
    cpu: float


class Run(NamedTuple):
    """One measured run: seconds until the last message was accepted, and until it had arrived (None: it is to wait).

    Processor time in seconds, until both: `machine` is that of everything, `own` the server's, `load` and `sink` ours.
    """

    cell: Cell
    connections: str
    server: str
    messages: int
    accepted: float
    relayed: float | None
    machine: float
    own: float
    load: float
    sink: float


class Rate(NamedTuple):
    """Messages a second in several runs: the median, the extremes, and the median's ratio to the rival's."""

    median: float
    lowest: float
    highest: float
    ratio: float

    @property
    def text(self) -> str:
        """Write it for the table."""
        return f"{self.median:,.0f} ({self.lowest:,.0f} to {self.highest:,.0f})"


class Median(NamedTuple):
    """The runs of one server in one cell. `_ms` is CPU time a message, `load` the share of a core that it took.

    `own_ratio` is how many times as much CPU time the rival takes.
    """

    cell: Cell
    connections: str
    server: str
    accepted: Rate
    relayed: Rate | None
    machine_ms: float
    own_ms: float
    own_ratio: float
    load: float


def medians(runs: Sequence[Run]) -> Iterator[Median]:
    """Sum runs up; ratios are to the rival in the same cell (RIVALS)."""
    groups: dict[tuple[Cell, str, str], list[Run]] = {}
    for run in sorted(runs, key=lambda run: (run.cell, run.connections, run.server)):
        groups.setdefault((run.cell, run.connections, run.server), []).append(run)
    for (cell, connections, server), group in groups.items():
        rival = groups[cell, connections, RIVALS[cell.contest]]
        yield Median(
            cell,
            connections,
            server,
            accepted=_rate(_accepted(group), _accepted(rival)),
            relayed=_rate(_relayed(group), _relayed(rival)) if _relayed(group) else None,
            machine_ms=median(1000 * run.machine / run.messages for run in group),
            own_ms=(own := median(_own(group))),
            own_ratio=median(_own(rival)) / own if own else math.inf,
            load=median(run.load / run.accepted for run in group),
        )


def _accepted(runs: Sequence[Run]) -> list[float]:
    return [run.messages / run.accepted for run in runs]


def _relayed(runs: Sequence[Run]) -> list[float]:
    return [run.messages / run.relayed for run in runs if run.relayed is not None]


def _own(runs: Sequence[Run]) -> list[float]:
    return [1000 * run.own / run.messages for run in runs]


def _rate(rates: Sequence[float], rival: Sequence[float]) -> Rate:
    return Rate(median(rates), min(rates), max(rates), median(rates) / median(rival))


class Posted(NamedTuple):
    """One run of sending over HTTP while so many messages waited; `rate` 0 is as fast as may be, without latencies.

    `accepted` in seconds, latencies from when a request was due in milliseconds, processor time in seconds. `late` is
    the longest, in milliseconds, that the load itself let a due request lie.
    """

    waiting: int
    rate: int
    messages: int
    accepted: float
    p50: float
    p99: float
    p999: float
    worst: float
    machine: float
    own: float
    load: float
    late: float


def posted_medians(runs: Sequence[Posted]) -> list[Posted]:
    """Sum up, figure by figure; of the worst latencies and what the load let lie the worst."""
    found = []
    for _, equal in groupby(sorted(runs), key=lambda run: run[:2]):
        group = list(equal)
        middle = Posted(*map(median, zip(*group, strict=True)))
        found.append(middle._replace(worst=max(run.worst for run in group), late=max(run.late for run in group)))
    return found


class Dialect(NamedTuple):
    """One run of accepting over HTTP alone, requests of so many messages; `own` is of the http role, in seconds.

    Latencies in milliseconds, from when a request was due; `accepted` in seconds.
    """

    server: str
    personalizations: int
    rate: int
    messages: int
    accepted: float
    p50: float
    p99: float
    p999: float
    own: float
    load: float

    @property
    def cpu(self) -> float:
        """Microseconds of CPU a request."""
        return 1e6 * self.own / self.messages


def dialect_medians(runs: Sequence[Dialect]) -> list[Dialect]:
    """Sum up, figure by figure."""
    found = []
    for _, equal in groupby(sorted(runs), key=lambda run: run[:3]):
        group = list(equal)
        found.append(Dialect(group[0].server, *map(median, zip(*[run[1:] for run in group], strict=True))))
    return found
