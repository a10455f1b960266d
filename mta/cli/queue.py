"""`fairlead queue`: what waits for delivery. What an operator can do about it is in queue_changes.py."""

from collections.abc import Sequence

import click
import msgspec

from mta.cli import queue_changes
from mta.cli.output import Column, time_text
from mta.cli.queue_lessons import forget, lessons
from mta.cli.queue_meant import find, ids_or_where, where_option
from mta.cli.queue_top import top
from mta.cli.session import Session, with_spool
from mta.mail.ids import made_at
from mta.queue.actions import Standing
from mta.queue.selection import meant, select
from mta.queue.shape import ROWS, By, Counting
from mta.queue.shown import entry_detail, entry_record, message_detail, wish_text
from mta.queue.where import Where, state_of
from mta.spool.records import Message

_COLUMNS = (
    Column("entry", "ENTRY", 25),
    Column("state", "STATE", 9),
    Column("tenant", "TENANT", 12),
    Column("domain", "DOMAIN", 24),
    Column("attempts", "TRIES", 5),
    Column("due_at", "DUE", 20),
    Column("recipients", "RECIPIENTS", 24),
)


@click.group()
def queue() -> None:
    """List, show and change what waits for delivery.

    An ID is a message's (22 characters, all its entries are meant) or an entry's (the same, a dot, a number).
    """


for each in (*queue_changes.COMMANDS, top, lessons, forget):
    queue.add_command(each)


@queue.command("list")
@where_option
@with_spool
async def list_(session: Session, where: Where) -> None:
    """List the entries: a message for one destination domain, at most 50 recipients."""
    async for entry, claim in meant(session.spool, where, session.clock.now()):
        session.out.row(entry_record(entry, claim), _COLUMNS)


@queue.command()
@click.argument("ids", metavar="[ID]", nargs=-1)
@where_option
@with_spool
async def show(session: Session, ids: tuple[str, ...], where: Where) -> None:
    """Show messages with their entries, or single entries; with --where each entry that is meant."""
    ids_or_where(ids, where)
    if not ids:
        now = session.clock.now()
        async for due, claim in select(session.spool, where, now, accepted_by=now):
            session.out.record(entry_detail(due.entry, claim), _message_text(due.message, [(due, claim)]))
    for id_ in ids:
        found = await find(session.spool, id_)
        record = entry_detail(found[0][0].entry, found[0][1]) if "." in id_ else message_detail(found)
        session.out.record(record, _message_text(found[0][0].message, found))


@queue.command()
@where_option
@click.option(
    "--by",
    metavar="domain|tenant|class",
    type=click.Choice([each.value for each in By]),
    default=By.DOMAIN.value,
    help="What the rows are.",
)
@click.option("--limit", type=click.IntRange(1, ROWS), default=20, help="How many rows.  [20]")
@with_spool
async def shape(session: Session, where: Where, by: str, limit: int) -> None:
    """Show how old the entries are, in minutes, and where they go: the rows with the most."""
    now = session.clock.now()
    counting = Counting(By(by))
    async for entry, _ in meant(session.spool, where, now):
        counting.add(entry, now - made_at(entry.message))
    found = counting.shape(limit)
    if session.out.as_json:
        session.out.record(msgspec.to_builtins(found), "")
        return
    columns = [Column("name", by.upper(), 30), Column("total", "TOTAL", 9)]
    columns += [Column(name, name, 7) for name in found.total.ages]
    for row in (found.total, *found.rows):
        session.out.row({"name": row.name, "total": row.total, **row.ages}, columns)
    if found.short_by:
        session.out.note(f"there are so many that a row may be short of up to {found.short_by:,} entries")


def _message_text(message: Message, found: Sequence[Standing]) -> str:
    lines = [
        f"message   {message.id} ({message.size} octets, by {message.origin.value}, tenant {message.tenant})",
        f"from      {message.sender or '<>'}",
        f"accepted  {time_text(message.accepted_at)}, expires {time_text(message.expires_at)}",
    ]
    if message.release_at > message.accepted_at:
        lines.append(f"released  {time_text(message.release_at)}")
    if message.deliver_by:
        mode = f" (DELIVERBY {message.by_mode})" if message.by_mode else ""
        lines.append(f"deadline  {time_text(message.deliver_by)}{mode}")
    for due, claim in found:
        entry = due.entry
        state = {"in_flight": "in flight", "held": "held"}.get(state_of(entry, claim), f"due {time_text(entry.due_at)}")
        if claim is not None and claim.wish is not None:
            state += f", then {wish_text(claim.wish)}"
        if entry.relay:
            state += f", redirected to {entry.relay}"
        lines += ["", f"entry     {entry.id} to {entry.domain}: {state}, {entry.attempts} attempts"]
        lines += [f"  {each.recipient.address}  {each.state.name.lower()}" for each in entry.recipients]
        if entry.last_reply:
            lines.append(f"  last: {entry.last_relay or 'nobody reached'}: {entry.last_reply}")
    return "\n".join(lines)
