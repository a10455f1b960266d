"""`fairlead queue top`: the sites that mail goes to, as the delivery role sees them."""

import asyncio
from collections.abc import Sequence
from typing import Any

import click

from mta.cli.output import Column, Printer
from mta.cli.session import Stop, as_owner, json_option
from mta.config import Config
from mta.control import ControlError, ask, socket_path

_TIMEOUT = 5.0  # seconds
_COLUMNS = (
    Column("site", "SITE", 40),
    Column("in_flight", "IN FLIGHT", 9),
    Column("connections", "OF", 4),
    Column("lanes", "LANES", 6),
    Column("due_for", "OLDEST", 8),
    Column("a_minute", "A MINUTE", 9),
    Column("state", "STATE", 30),
    Column("reply", "LAST REPLY", 40),
)


@click.command()
@json_option
@click.option("--limit", type=click.IntRange(1), default=40, show_default=True, help="Show so many sites at most.")
@click.option("--watch", type=click.FloatRange(0.1), metavar="SECONDS", help="Show it again and again.")
@as_owner
def top(config: Config, as_json: bool, limit: int, watch: float | None) -> None:
    """Show sites, the busiest first: attempts in flight, connections allowed, lanes with work due, what was learned.

    A site is the MX hosts of one or many domains, or the relay of a route. OLDEST is for how long something has been
    due there and was not tried.
    """
    while True:
        rows = _rows(config)
        if watch is not None and not as_json:
            click.clear()
        _show(Printer(as_json=as_json), rows[:limit])
        if watch is None:
            return
        asyncio.run(asyncio.sleep(watch))


def _rows(config: Config) -> list[dict[str, Any]]:
    try:
        rows: list[dict[str, Any]] = asyncio.run(ask(socket_path(config.run_dir, "delivery"), "sites", _TIMEOUT))
    except ControlError as error:
        raise Stop(f"{error}; what waits is shown by: fairlead queue list") from None
    return rows


def _show(out: Printer, rows: Sequence[dict[str, Any]]) -> None:
    if not rows and not out.as_json:
        out.note("nothing is due, and nothing was learned yet")
    for row in rows:
        if out.as_json:
            out.row(row, ())
        else:
            rate = row["rate"]
            shown = {"a_minute": "-" if rate is None else f"{60 * rate:.1f}", "state": _state(row)}
            out.row(row | shown | {"due_for": f"{row['oldest']:.0f} s" if row["lanes"] else "-"}, _COLUMNS)


def _state(row: dict[str, Any]) -> str:
    if row["probing"]:
        return "dead, being probed"
    if row["dead_for"]:
        return f"dead, probed in {row['dead_for']:.0f} s"
    if row["paused_for"]:
        return f"paused for {row['paused_for']:.0f} s"
    if row["tenants_paused"]:
        return f"paused: {', '.join(row['tenants_paused'])}"
    return "-" if row["connections"] else "dead, to be probed"
