"""Figures of the benchmark: medians of runs, and ratios to Postfix within the same contest."""

import pytest

from tests.bench.figures import Run, medians, table


def runs(contest: str, server: str, *seconds: float, relayed: float | None = None) -> list[Run]:
    return [Run(contest, "kept", server, 1000, each, relayed, machine=2.0, own=1.0) for each in seconds]


def test_the_ratio_is_that_of_medians_within_a_contest() -> None:
    measured = [
        *runs("hold", "Postfix", 2.0, 1.0, 4.0),
        *runs("relay", "Postfix", 10.0, relayed=20.0),
        *runs("hold", "Fairlead", 0.5, 0.4, 50.0),
        *runs("relay", "Fairlead", 2.0, relayed=5.0),
    ]
    holding, rival, relaying, slower = medians(measured)
    assert (holding.server, holding.accepted[:3], holding.relayed) == ("Fairlead", (2000, 20, 2500), None)
    assert holding.accepted.ratio == pytest.approx(4)
    assert (holding.machine_ms, holding.own_ms) == (2, 1)
    assert (rival.accepted.median, rival.accepted.ratio) == (500, 1)
    assert (relaying.accepted, relaying.relayed) == ((500, 500, 500, 5), (200, 200, 200, 4))
    assert (slower.accepted, slower.relayed) == ((100, 100, 100, 1), (50, 50, 50, 1))


def test_the_table_is_markdown_in_columns() -> None:
    lines = table(
        list(medians([*runs("hold", "Postfix", 0.5), *runs("relay", "Postfix", 0.5, relayed=1)]))
    ).splitlines()
    assert [line.count("|") for line in lines] == [10, 10, 10, 10]
    assert len({len(line) for line in lines}) == 1
    holding, relaying = ([cell.strip() for cell in line.split("|")][4:9] for line in lines[2:])
    assert holding == ["2,000 (2,000 to 2,000)", "1.00", "", "", "2.00"]
    assert relaying[2:4] == ["1,000 (1,000 to 1,000)", "1.00"]
