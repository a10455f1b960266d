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
_COLUMNS = ("contest", "connections", "server", "messages/s", "lowest to highest", f"x {RIVAL}", "CPU ms", "its own")


class Run(NamedTuple):
    """One measured run. Processor time in seconds: `machine` is that of everything, load and sink included."""

    contest: str
    connections: str
    server: str
    messages: int
    seconds: float
    machine: float
    own: float

    @property
    def rate(self) -> float:
        """Messages a second."""
        return self.messages / self.seconds


class Median(NamedTuple):
    """The runs of one server in one contest. `ratio` is to RIVAL's median rate, `_ms` processor time a message."""

    contest: str
    connections: str
    server: str
    rate: float
    lowest: float
    highest: float
    ratio: float
    machine_ms: float
    own_ms: float


def medians(runs: Sequence[Run]) -> Iterator[Median]:
    """Sum runs up."""
    groups: dict[tuple[str, str, str], list[Run]] = {}
    for run in sorted(runs, key=lambda run: (run.contest, run.connections, run.server)):
        groups.setdefault((run.contest, run.connections, run.server), []).append(run)
    rates = {key: median(run.rate for run in group) for key, group in groups.items()}
    for (contest, connections, server), group in groups.items():
        key = (contest, connections, server)
        yield Median(
            *key,
            rate=rates[key],
            lowest=min(run.rate for run in group),
            highest=max(run.rate for run in group),
            ratio=rates[key] / rates[contest, connections, RIVAL],
            machine_ms=median(1000 * run.machine / run.messages for run in group),
            own_ms=median(1000 * run.own / run.messages for run in group),
        )


def table(found: Sequence[Median]) -> str:
    """Write a Markdown table."""
    rows: list[tuple[str, ...]] = [_COLUMNS]
    for each in found:
        span = f"{each.lowest:,.0f} to {each.highest:,.0f}"
        names = (each.contest, each.connections, each.server)
        spent = (f"{each.machine_ms:.2f}", f"{each.own_ms:.2f}")
        rows.append((*names, f"{each.rate:,.0f}", span, f"{each.ratio:.2f}", *spent))
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
        "medians": [each._asdict() for each in found],
        "runs": [{**run._asdict(), "rate": run.rate} for run in runs],
    }
    path.write_text(json.dumps(record, indent=1) + "\n")
    return path


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()
