"""What is told of the figures: tables, what we want beside what was found, a file with every run."""

import itertools
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import NamedTuple

from tests.bench.figures import Dialect, Expiry, Median, Posted, Run, dialect_medians, medians, posted_medians
from tests.bench.servers import RIVALS, Contest
from tests.interop.relay import ROOT


class Line(NamedTuple):
    """Something that we want to reach, and what was measured."""

    what: str
    wanted: float
    found: float
    unit: str = "×"
    at_most: bool = False

    @property
    def reached(self) -> bool:
        """Whether it is."""
        return self.found <= self.wanted if self.at_most else self.found >= self.wanted


_RATIOS: dict[tuple[Contest, str], float] = {
    ("hold", "kept"): 5, ("hold", "fresh"): 4, ("relay", "kept"): 4, ("relay", "fresh"): 3, ("signed", "kept"): 5,
    ("signed", "fresh"): 5,
}  # fmt: skip
_WITH_STS = 60.0  # percent of what is relayed in the clear


def lines(
    found: Iterable[Median],
    posted: Iterable[Posted],
    client: float | None,
    expiries: Mapping[str, float],
    dialects: Iterable[Dialect],
) -> Iterator[Line]:
    """Compare with what we want: Fairlead's ratios, 20 sessions, 2 KB, one domain; HTTP; SMTP client; deadlines."""
    for each in found:
        if each.server == "Fairlead" and each.cell[1:] == (20, 2_000, 1):
            yield _against_rival(each)
    for run in posted:
        if run.rate:
            what = f"HTTP, p99 at {run.rate}/s, {run.waiting:,} waiting"
            yield Line(what, 15, run.p99, "ms", at_most=True)
        else:
            yield Line(f"HTTP, accepted, {run.waiting:,} waiting", 2500, run.messages / run.accepted, "/s")
    if client is not None:
        yield Line("delivery/smtp alone, CPU a message", 60, client, "µs", at_most=True)
    for each_run in dialects:
        if each_run.server == "Fairlead":
            yield from _dialect_lines(each_run)
    for kind, rate in expiries.items():
        yield Line(f"deadlines, expired {kind}", 2000, rate, "/s")


def _dialect_lines(run: Dialect) -> Iterator[Line]:
    if run.personalizations > 1:
        took = 1000 * run.accepted / run.messages
        yield Line(f"SendGrid dialect, {run.personalizations:,} personalizations", 500, took, "ms", at_most=True)
    elif run.rate:
        yield Line(f"SendGrid dialect with keys, p99 at {run.rate}/s", 10, run.p99, "ms", at_most=True)
    else:
        yield Line("SendGrid dialect with keys, accepted", 3000, run.messages / run.accepted, "/s")
        yield Line("SendGrid dialect with keys, CPU an accept", 330, run.cpu, "µs", at_most=True)


def _against_rival(each: Median) -> Line:
    rate = each.relayed or each.accepted
    verb = "accepted" if each.relayed is None else "relayed"
    what = f"{each.cell.contest}, {each.connections}: {verb}, against {RIVALS[each.cell.contest]}"
    if each.cell.contest == "sts":
        return Line(what, _WITH_STS, 100 * rate.ratio, "%")
    return Line(what, _RATIOS[each.cell.contest, each.connections], rate.ratio)


class Found(NamedTuple):
    """All that was measured."""

    runs: list[Run]
    posted: list[Posted]
    clients: dict[int, list[float]]  # delivery/smtp alone: microseconds a message, by connections
    expiries: dict[str, list[Expiry]]  # deadlines alone, with and without a DSN
    failures: list[str]  # why something is missing
    dialects: list[Dialect]

    def tables(self) -> Iterator[str]:
        """Write it all as Markdown, ending with what we want."""
        found, posted = list(medians(self.runs)), posted_medians(self.posted)
        if found:
            yield _table(_MAIL, map(_mail_row, found))
        if posted:
            yield _table(_POSTED, map(_posted_row, posted))
        dialects = dialect_medians(self.dialects)
        if dialects:
            rivals = {each[1:3]: each for each in dialects if each.server != "Fairlead"}
            yield _table(_DIALECT, [_dialect_row(each, rivals[each[1:3]]) for each in dialects])
        if self.clients:
            rows = [(str(each), f"{median(times):.0f}", f"{max(times):.0f}") for each, times in self.clients.items()]
            yield _table(("delivery/smtp alone: connections", "CPU µs", "worst"), rows)
        if self.expiries:
            yield _table(("deadlines", "expired/s", "CPU µs"), itertools.starmap(_expiry_row, self.expiries.items()))
        client = median(self.clients[1]) if self.clients else None
        rates = {kind: median([each.rate for each in runs]) for kind, runs in self.expiries.items()}
        wanted = [
            (each.what, f"{'≤' if each.at_most else '≥'} {each.wanted:,.0f} {each.unit}", f"{each.found:,.1f}",
             "yes" if each.reached else "**no**")
            for each in lines(found, posted, client, rates, dialects)
        ]  # fmt: skip
        if wanted:
            yield _table(("what", "wanted", "found", "reached"), wanted)


_MAIL = ("contest", "sessions", "mail", "server", "accepted/s", "x", "relayed/s", "x", "CPU ms", "its own", "x", "load")
_POSTED = ("waiting", "rate", "accepted/s", "p50 ms", "p99", "p99.9", "worst", "CPU ms", "its own", "load", "late ms")


def _mail_row(each: Median) -> tuple[str, ...]:
    relayed = ("", "") if each.relayed is None else (each.relayed.text, f"{each.relayed.ratio:.2f}")
    return (
        each.cell.contest,
        f"{each.cell.sessions} {each.connections}",
        each.cell.mail,
        each.server,
        each.accepted.text,
        f"{each.accepted.ratio:.2f}",
        *relayed,
        f"{each.machine_ms:.2f}",
        f"{each.own_ms:.2f}",
        f"{each.own_ratio:.2f}",
        f"{each.load:.0%}",
    )


def _posted_row(each: Posted) -> tuple[str, ...]:
    latencies = [f"{ms:.1f}" for ms in (each.p50, each.p99, each.p999, each.worst)] if each.rate else [""] * 4
    return (
        f"{each.waiting:,}",
        f"{each.rate}/s" if each.rate else "all it takes",
        f"{each.messages / each.accepted:,.0f}",
        *latencies,
        f"{1000 * each.machine / each.messages:.2f}",
        f"{1000 * each.own / each.messages:.2f}",
        f"{each.load / each.accepted:.0%}",
        f"{each.late:.1f}" if each.rate else "",
    )


_DIALECT = ("SendGrid dialect", "a request", "rate", "requests/s", "x", "p50 ms", "p99", "CPU µs", "x", "load")


def _dialect_row(each: Dialect, rival: Dialect) -> tuple[str, ...]:
    rate, rivals = each.messages / each.accepted, rival.messages / rival.accepted
    return (
        each.server,
        f"{each.personalizations:,}",
        f"{each.rate}/s" if each.rate else "all it takes",
        f"{rate:,.0f}",
        f"{rate / rivals:.2f}",
        *([f"{each.p50:.1f}", f"{each.p99:.1f}"] if each.rate else ["", ""]),
        f"{each.cpu:,.0f}",
        f"{each.cpu / rival.cpu:.2f}" if rival.cpu else "",  # the clock has ticks of 10 ms
        f"{each.load / each.accepted:.0%}",
    )


def _expiry_row(kind: str, runs: Sequence[Expiry]) -> tuple[str, ...]:
    rates, cpu = [each.rate for each in runs], [each.cpu for each in runs]
    return kind, f"{median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f})", f"{median(cpu):.0f}"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    everything = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*everything, strict=True)]
    everything.insert(1, tuple("-" * width for width in widths))
    return "\n".join(f"| {' | '.join(map(str.ljust, row, widths))} |" for row in everything)


def save(found: Found, at: datetime) -> Path:
    """Write everything to a dated file below `.bench/`, one run a line; what is quoted is kept in docs/bench."""
    path = ROOT / ".bench" / f"{at.astimezone(UTC):%Y-%m-%dT%H%M%SZ}.json"
    path.parent.mkdir(exist_ok=True)
    record = {
        "at": at.astimezone(UTC).isoformat(),
        "commit": _said("git", "-C", str(ROOT), "describe", "--always", "--dirty"),
        "machine": {"cpus": os.cpu_count(), "model": _cpu_model(), "kernel": platform.release()},
        "versions": {"python": platform.python_version(), "postfix": _said("postconf", "-h", "mail_version")},
        "failures": found.failures,
        "delivery_smtp_alone": found.clients,
        "deadlines": {kind: [run._asdict() for run in runs] for kind, runs in found.expiries.items()},
        "http": [run._asdict() for run in found.posted],
        "dialect": [run._asdict() for run in found.dialects],
        "mail": [{**run._asdict(), "cell": run.cell._asdict()} for run in found.runs],
    }
    members = (f"{json.dumps(name)}: {_lines(value)}" for name, value in record.items())
    path.write_text("{\n" + ",\n".join(members) + "\n}\n")
    return path


def _lines(value: object) -> str:
    if not isinstance(value, list) or not value:
        return json.dumps(value)
    return "[\n" + ",\n".join(map(json.dumps, value)) + "\n]"


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()
