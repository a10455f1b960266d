"""`fairlead queue`: what waits for delivery. What an operator can do about it is in queue_changes.py."""

from collections.abc import Sequence

import click

from mta.cli import queue_changes
from mta.cli.output import Column, time_text
from mta.cli.queue_lessons import forget, lessons
from mta.cli.queue_meant import find, ids_or_where, type_standing, where_option
from mta.cli.queue_top import top
from mta.cli.session import Session, with_spool
from mta.queue.selection import meant, select
from mta.queue.where import Where, state_of
from mta.spool.records import Claim, Entry, Message, Wish

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
            session.out.record(_detailed(due.entry, claim), _message_text(due.message, [(due, claim)]))
    for id_ in ids:
        found = await find(session.spool, id_)
        message = found[0][0].message
        if "." in id_:
            record = _detailed(found[0][0].entry, found[0][1])
        else:
            record = _message_record(message) | {"entries": [_detailed(due.entry, claim) for due, claim in found]}
        session.out.record(record, _message_text(message, found))


def entry_record(entry: Entry, claim: Claim | None) -> dict[str, object]:
    """Show an entry as lists do: `recipients` are those still waiting."""
    return {
        "entry": entry.id,
        "message": entry.message,
        "tenant": entry.tenant,
        "domain": entry.domain,
        "state": state_of(entry, claim),
        "recipients": [each.recipient.address for each in entry.waiting],
        "attempts": entry.attempts if claim is None else claim.attempt,
        "due_at": entry.due_at,
        "expires_at": entry.expires_at,
    }


def _detailed(entry: Entry, claim: Claim | None) -> dict[str, object]:
    return entry_record(entry, claim) | {
        "class": entry.message_class.name.lower(),
        "redirected_to": entry.relay or None,
        "wish": None if claim is None or claim.wish is None else _wish_text(claim.wish),
        "ended": {each.recipient.address: each.state.name.lower() for each in entry.recipients if each.state},
        "last_attempt_at": entry.last_attempt_at or None,
        "last_relay": entry.last_relay or None,
        "last_reply": entry.last_reply or None,
    }


def _message_record(message: Message) -> dict[str, object]:
    return {
        "message": message.id,
        "tenant": message.tenant,
        "sender": message.sender,
        "origin": message.origin.value,
        "class": message.message_class.name.lower(),
        "size": message.size,
        "accepted_at": message.accepted_at,
        "expires_at": message.expires_at,
        "header_message_id": message.header_message_id or None,
        "sign_domain": message.sign_domain or None,
    }


def _wish_text(wish: Wish) -> str:
    """Say what is to be done when the attempt under way is over."""
    words: list[str] = [] if wish.end is None else [wish.end.name.lower()]
    if wish.held is not None:
        words.append("held" if wish.held else "released")
    if wish.relay is not None:
        words.append(f"redirected to {wish.relay}" if wish.relay else "no longer redirected")
    if wish.message_class is not None:
        words.append(f"class {wish.message_class.name.lower()}")
    return ", ".join(words)


def _message_text(message: Message, found: Sequence[type_standing]) -> str:
    lines = [
        f"message   {message.id} ({message.size} octets, by {message.origin.value}, tenant {message.tenant})",
        f"from      {message.sender or '<>'}",
        f"accepted  {time_text(message.accepted_at)}, expires {time_text(message.expires_at)}",
    ]
    for due, claim in found:
        entry = due.entry
        state = {"in_flight": "in flight", "held": "held"}.get(state_of(entry, claim), f"due {time_text(entry.due_at)}")
        if claim is not None and claim.wish is not None:
            state += f", then {_wish_text(claim.wish)}"
        if entry.relay:
            state += f", redirected to {entry.relay}"
        lines += ["", f"entry     {entry.id} to {entry.domain}: {state}, {entry.attempts} attempts"]
        lines += [f"  {each.recipient.address}  {each.state.name.lower()}" for each in entry.recipients]
        if entry.last_reply:
            lines.append(f"  last: {entry.last_relay or 'nobody reached'}: {entry.last_reply}")
    return "\n".join(lines)
