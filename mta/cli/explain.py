"""`fairlead explain`: why does it not move?"""

import click
import msgspec

from mta.cli.output import time_text
from mta.cli.queue_changes import OPERATOR, open_desk
from mta.cli.queue_meant import check
from mta.cli.session import Session, Stop, with_spool
from mta.queue.explanation import AHEAD, Explanation


@click.command()
@click.argument("id_", metavar="ID")
@with_spool
async def explain(session: Session, id_: str) -> None:
    """Say what holds a message, or one entry of it, now.

    ID is a message's or an entry's. Told is the one gate that holds it, since when, the reply that caused it,
    when it is tried next, and when that is likely by the rate at which its lane drains.
    """
    check(id_)
    with open_desk(session) as desk:
        found = await desk.explain(id_, OPERATOR)
    if found is None:
        raise Stop(f"{id_} is not known: it was never accepted here, or its events are older than the log")
    lines = [line for each in found.entries for line in (*_lines(each), "")]
    lines += [f"and {found.more:,} entries more: ask by their IDs (fairlead queue show)"] if found.more else []
    session.out.record(msgspec.to_builtins(found), "\n".join(lines).rstrip())


def _lines(entry: Explanation) -> list[str]:
    """Write an explanation for people, what does not apply left out."""
    since = f", since {time_text(entry.since_at)}" if entry.since_at else ""
    lines = [f"{entry.entry} to {entry.domain}: {entry.gate}", f"  {entry.why}{since}"]
    if entry.reply:
        lines.append(f"  last reply     {entry.reply}" + (f" (from {entry.relay})" if entry.relay else ""))
    if entry.next_at:
        lines.append(f"  next attempt   {time_text(entry.next_at)}")
    if entry.ahead is not None:
        lines.append(f"  before it      {_ahead(entry.ahead)} in its lane")
    if entry.estimated_at is not None and entry.rate is not None:
        least = " at the earliest" if entry.ahead == AHEAD else ""
        lines.append(
            f"  expected       {time_text(entry.estimated_at)}{least},"
            f" by {entry.rate * 60:,.1f} attempts a minute{_whose(entry.rate_of)}"
        )
    elif entry.no_estimate and entry.ahead is not None:
        lines.append(f"  expected       nobody can say: {entry.no_estimate}")
    if entry.delivery and entry.delivery not in entry.why:
        lines.append(f"  note           {entry.delivery}")
    return lines


def _whose(rate_of: str | None) -> str:
    return " of its lane" if rate_of == "lane" else f", its part of those of its {rate_of}"


def _ahead(count: int) -> str:
    return f"more than {count:,}" if count == AHEAD else f"{count:,}"
