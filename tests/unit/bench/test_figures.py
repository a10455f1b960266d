"""Figures of the benchmark: medians of runs, ratios to the rival in the same cell, what is told of them."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.bench import report
from tests.bench.figures import Cell, Dialect, Expiry, Posted, Run, dialect_medians, medians, posted_medians
from tests.bench.report import Found, lines
from tests.bench.servers import Contest


def runs(contest: Contest, server: str, *seconds: float, relayed: float | None = None, sessions: int = 20) -> list[Run]:
    cell = Cell(contest, sessions, 2000, 1)
    return [
        Run(cell, "kept", server, 1000, each, relayed, machine=2.0, own=1.0, load=each / 10, sink=0)
        for each in seconds
    ]  # fmt: skip


def posted(rate: int, *p99: float, accepted: float = 2.0, waiting: int = 0) -> list[Posted]:
    return [Posted(waiting, rate, 1000, accepted, 1.0, each, each, each, 2.0, 1.0, 0.2, each / 10) for each in p99]


def test_the_ratio_is_that_of_medians_within_a_cell() -> None:
    measured = [
        *runs("hold", "Postfix", 2.0, 1.0, 4.0),
        *runs("relay", "Postfix", 10.0, relayed=20.0),
        *runs("hold", "Postfix", 1.0, sessions=1),
        *runs("hold", "Fairlead", 0.5, 0.4, 50.0),
        *runs("relay", "Fairlead", 2.0, relayed=5.0),
    ]
    alone, holding, rival, relaying, slower = medians(measured)
    assert (alone.cell.sessions, alone.accepted.ratio) == (1, 1)
    assert (holding.server, holding.accepted[:3], holding.relayed) == ("Fairlead", (2000, 20, 2500), None)
    assert holding.accepted.ratio == pytest.approx(4)
    assert (holding.machine_ms, holding.own_ms, holding.load) == (2, 1, pytest.approx(0.1))
    assert (rival.accepted.median, rival.accepted.ratio) == (500, 1)
    assert (relaying.accepted, relaying.relayed) == ((500, 500, 500, 5), (200, 200, 200, 4))
    assert (slower.accepted, slower.relayed) == ((100, 100, 100, 1), (50, 50, 50, 1))


def test_signed_mail_is_measured_against_postfix_with_opendkim() -> None:
    measured = [*runs("signed", "Fairlead", 1.0, relayed=1.0), *runs("signed", "Postfix with OpenDKIM", 4, relayed=6.0)]
    ours, rival = medians([*measured, *[each._replace(own=3.0) for each in measured[1:]]])
    assert (ours.own_ratio, rival.own_ratio) == (2, 1)
    assert ours.relayed is not None
    assert ours.relayed.ratio == pytest.approx(6)


def test_medians_over_http_keep_the_worst() -> None:
    as_fast, at_rate = posted_medians([*posted(500, 9.0, 3.0, 4.0), *posted(0, 0.0)])
    assert as_fast.rate == 0
    assert (at_rate.rate, at_rate.p99, at_rate.worst, at_rate.late) == (500, 4.0, 9.0, 0.9)


def test_what_we_want_is_compared_with_what_was_found() -> None:
    found = medians([
        *runs("relay", "Fairlead", 1.0, relayed=1.0),
        *runs("relay", "Postfix", 1.0, relayed=4.1),
        *runs("relay", "Fairlead", 1.0, relayed=1.0, sessions=200),
        *runs("relay", "Postfix", 1.0, relayed=1.0, sessions=200),
        *runs("sts", "Fairlead", 1.0, relayed=1.0),
        *runs("sts", "Fairlead in the clear", 1.0, relayed=0.5),
    ])  # fmt: skip
    over_http = [*posted(0, 0.0, accepted=0.5), *posted(500, 15.1, waiting=50_000)]
    dialects = dialect_medians([
        *[dialect(cpu) for cpu in (300, 331, 999)],
        dialect(30, server="Falcon, doing nothing"),
        dialect(9, rate=500),
        dialect(9, personalizations=1000, accepted=0.501),
    ])  # fmt: skip
    expiries = {"with a DSN each": 1999.0}
    relayed, encrypted, accepted, p99, client, keyed, cpu, at_rate, many, late = lines(
        found, over_http, 61.0, expiries, dialects
    )
    assert (keyed.found, keyed.reached, cpu.found, cpu.reached) == (2500, False, pytest.approx(331), False)
    assert (at_rate.found, at_rate.reached) == (5.0, True)
    assert (many.found, many.reached) == (pytest.approx(501), False)
    assert (relayed.wanted, relayed.found, relayed.reached) == (4, pytest.approx(4.1), True)
    assert (encrypted.what, encrypted.unit) == ("sts, kept: relayed, against Fairlead in the clear", "%")
    assert (encrypted.wanted, encrypted.found, encrypted.reached) == (60, pytest.approx(50), False)
    assert (accepted.found, accepted.reached) == (2000, False)
    assert (p99.what, p99.reached) == ("HTTP, p99 at 500/s, 50,000 waiting", False)
    assert not client.reached
    assert (late.what, late.reached) == ("deadlines, expired with a DSN each", False)


def dialect(
    cpu: float, *, server: str = "Fairlead", rate: int = 0, personalizations: int = 1, accepted: float = 0.0004
) -> Dialect:
    return Dialect(server, personalizations, rate, 1, accepted, 1.0, 5.0, 6.0, cpu / 1e6, 0.0001)


def test_a_dialect_is_compared_with_a_handler_that_does_nothing() -> None:
    runs = [dialect(300), dialect(100, server="Falcon, doing nothing", accepted=0.0001)]
    table, _ = Found([], [], {}, {}, [], runs).tables()
    ours, nothing = ([cell.strip() for cell in row.split("|")[1:-1]] for row in table.splitlines()[2:])
    assert ours == ["Fairlead", "1", "all it takes", "2,500", "0.25", "", "", "300", "3.00", "25%"]
    assert nothing[4] == "1.00"
    table, _ = Found([], [], {}, {}, [], [runs[0], dialect(0, server=runs[1].server)]).tables()  # within a tick
    assert table.splitlines()[2].split("|")[9].strip() == ""


def test_tables_are_markdown_in_columns() -> None:
    measured = [*runs("hold", "Postfix", 0.5), *runs("relay", "Postfix", 0.5, relayed=1)]
    (mail,) = Found(measured, [], {}, {}, [], []).tables()
    table = mail.splitlines()
    assert [line.count("|") for line in table] == [13, 13, 13, 13]
    assert len({len(line) for line in table}) == 1
    holding, relaying = ([cell.strip() for cell in line.split("|")][2:10] for line in table[2:])
    assert holding == ["20 kept", "2 KB", "Postfix", "2,000 (2,000 to 2,000)", "1.00", "", "", "2.00"]
    assert relaying[5:7] == ["1,000 (1,000 to 1,000)", "1.00"]
    *_, wanted = Found([*measured, *runs("hold", "Fairlead", 0.05)], [], {}, {}, [], []).tables()
    row = [cell.strip() for cell in wanted.splitlines()[2].split("|")[1:-1]]
    assert row == ["hold, kept: accepted, against Postfix", "≥ 5 ×", "10.0", "yes"]


def test_the_file_holds_every_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "ROOT", tmp_path)
    found = Found(
        runs("hold", "Postfix", 0.5, 1.0),
        posted(500, 3.0),
        {1: [30.0]},
        {"with a DSN each": [Expiry(2500.0, 300.0)]},
        ["hold: no"],
        [dialect(300)],
    )
    path = report.save(found, datetime(2026, 11, 26, 4, 5, 6, tzinfo=UTC))
    record = json.loads(path.read_text())
    assert path.name == "2026-11-26T040506Z.json"
    assert [run["accepted"] for run in record["mail"]] == [0.5, 1.0]
    assert record["mail"][0]["cell"] == {"contest": "hold", "sessions": 20, "octets": 2000, "destinations": 1}
    assert record["failures"] == ["hold: no"]
    assert record["dialect"][0]["server"] == "Fairlead"
    assert (record["http"][0]["p99"], record["delivery_smtp_alone"]) == (3.0, {"1": [30.0]})
