"""Figures of the benchmark: medians of runs, and ratios to Postfix within the same contest."""

import pytest

from tests.bench.figures import Run, medians, table


def runs(contest: str, server: str, *seconds: float) -> list[Run]:
    return [Run(contest, "kept", server, 1000, each, machine=2.0, own=1.0) for each in seconds]


def test_the_ratio_is_that_of_medians_within_a_contest() -> None:
    measured = [
        *runs("accept", "Postfix", 2.0, 1.0, 4.0),
        *runs("relay", "Postfix", 10.0),
        *runs("accept", "Fairlead", 0.5, 0.4, 50.0),
    ]
    ours, accepting, relaying = medians(measured)
    assert (ours.server, ours.rate, ours.lowest, ours.highest) == ("Fairlead", 2000, 20, 2500)
    assert ours.ratio == pytest.approx(4)
    assert (ours.machine_ms, ours.own_ms) == (2, 1)
    assert (accepting.rate, accepting.ratio) == (500, 1)
    assert (relaying.rate, relaying.ratio) == (100, 1)


def test_the_table_is_markdown_in_columns() -> None:
    lines = table(list(medians(runs("accept", "Postfix", 0.5)))).splitlines()
    assert [line.count("|") for line in lines] == [9, 9, 9]
    assert len({len(line) for line in lines}) == 1
    assert [cell.strip() for cell in lines[2].split("|")][4:8] == ["2,000", "2,000 to 2,000", "1.00", "2.00"]
