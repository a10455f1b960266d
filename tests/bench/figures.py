"""What the benchmark found: single runs, their medians, a table, a file."""

import json
import os
import platform
import subprocess
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import NamedTuple

from tests.interop.relay import ROOT

RIVAL = "Postfix"
_COLUMNS = ("contest", "connections", "server", "accepted/s", "x", "relayed/s", "x", "CPU ms", "its own")


class Run(NamedTuple):
    """One measured run: seconds until the last message was accepted, and until it had arrived (None: it is to wait).

    Processor time in seconds, until both: `machine` is that of everything, load and sink included.
    """

    contest: str
    connections: str
    server: str
    messages: int
    accepted: float
    relayed: float | None
    machine: float
    own: float


class Rate(NamedTuple):
    """Messages a second in several runs: the median, the extremes, and the median's ratio to RIVAL's."""

    median: float
    lowest: float
    highest: float
    ratio: float

    @property
    def text(self) -> str:
        """Write it for the table."""
        return f"{self.median:,.0f} ({self.lowest:,.0f} to {self.highest:,.0f})"


class Median(NamedTuple):
    """The runs of one server in one contest; `_ms` is processor time a message."""

    contest: str
    connections: str
    server: str
    accepted: Rate
    relayed: Rate | None
    machine_ms: float
    own_ms: float


def medians(runs: Sequence[Run]) -> Iterator[Median]:
    """Sum runs up."""
    groups: dict[tuple[str, str, str], list[Run]] = {}
    for run in sorted(runs, key=lambda run: (run.contest, run.connections, run.server)):
        groups.setdefault((run.contest, run.connections, run.server), []).append(run)
    for (contest, connections, server), group in groups.items():
        rival = groups[contest, connections, RIVAL]
        yield Median(
            contest,
            connections,
            server,
            accepted=_rate(_accepted(group), _accepted(rival)),
            relayed=_rate(_relayed(group), _relayed(rival)) if _relayed(group) else None,
            machine_ms=median(1000 * run.machine / run.messages for run in group),
            own_ms=median(1000 * run.own / run.messages for run in group),
        )


def _accepted(runs: Sequence[Run]) -> list[float]:
    return [run.messages / run.accepted for run in runs]


def _relayed(runs: Sequence[Run]) -> list[float]:
    return [run.messages / run.relayed for run in runs if run.relayed is not None]


def _rate(rates: Sequence[float], rival: Sequence[float]) -> Rate:
    return Rate(median(rates), min(rates), max(rates), median(rates) / median(rival))


def table(found: Sequence[Median]) -> str:
    """Write a Markdown table; x is the ratio to RIVAL."""
    rows: list[tuple[str, ...]] = [_COLUMNS]
    for each in found:
        names = (each.contest, each.connections, each.server)
        relayed = ("", "") if each.relayed is None else (each.relayed.text, f"{each.relayed.ratio:.2f}")
        spent = (f"{each.machine_ms:.2f}", f"{each.own_ms:.2f}")
        rows.append((*names, each.accepted.text, f"{each.accepted.ratio:.2f}", *relayed, *spent))
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    rows.insert(1, tuple("-" * width for width in widths))
    return "\n".join(f"| {' | '.join(map(str.ljust, row, widths))} |" for row in rows)


def save(runs: Sequence[Run], found: Sequence[Median], at: datetime) -> Path:
    """Write everything to a dated file below `.bench/`."""
    path = ROOT / ".bench" / f"{at.astimezone(UTC):%Y-%m-%dT%H%M%SZ}.json"
    path.parent.mkdir(exist_ok=True)
    record = {
        "at": at.astimezone(UTC).isoformat(),
        "commit": _said("git", "-C", str(ROOT), "describe", "--always", "--dirty"),
        "machine": {"cpus": os.cpu_count(), "model": _cpu_model(), "kernel": platform.release()},
        "versions": {"python": platform.python_version(), "postfix": _said("postconf", "-h", "mail_version")},
        "medians": [_plain(each) for each in found],
        "runs": [run._asdict() for run in runs],
    }
    path.write_text(json.dumps(record, indent=1) + "\n")
    return path


def _plain(each: Median) -> dict[str, object]:
    relayed = None if each.relayed is None else each.relayed._asdict()
    return {**each._asdict(), "accepted": each.accepted._asdict(), "relayed": relayed}


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()
