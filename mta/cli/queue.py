"""`fairlead queue`: what waits for delivery, and what an operator can do about it.

An ID is a message's (22 characters, all its entries are meant) or an entry's (the same, a dot, a number).
An entry in flight is not changed: whoever asks again a moment later finds it settled.
"""

from collections.abc import Sequence

import click

from mta.cli.output import Column, time_text
from mta.cli.session import Session, Stop, with_spool
from mta.exits import Exit
from mta.mail.ids import message_id_bytes, split_entry_id
from mta.queue.doorbell import Doorbell
from mta.queue.queue import Queue
from mta.spool.interface import Spool
from mta.spool.records import Claim, Entry, Message

type_waiting = tuple[Entry, Claim | None]

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
    """List, show, retry and drop what waits for delivery."""


@queue.command("list")
@with_spool
async def list_(session: Session) -> None:
    """List the entries: a message for one destination domain, at most 50 recipients."""
    async for entry, claim in session.spool.walk_entries():
        session.out.row(entry_record(entry, claim), _COLUMNS)


@queue.command()
@click.argument("id_", metavar="ID")
@with_spool
async def show(session: Session, id_: str) -> None:
    """Show a message and its entries, or one entry."""
    found = await _find(session.spool, id_)
    message = await session.spool.message(found[0][0].message)
    if message is None:
        raise _not_there(id_)
    if "." in id_:
        record = _detailed(*found[0])
    else:
        record = _message_record(message) | {"entries": [_detailed(*each) for each in found]}
    session.out.record(record, _message_text(message, found))


@queue.command()
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@with_spool
async def retry(session: Session, ids: tuple[str, ...]) -> None:
    """Make entries due now."""
    await _change(session, ids, "retry")


@queue.command()
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@with_spool
async def drop(session: Session, ids: tuple[str, ...]) -> None:
    """End entries without delivery; the sender is not told."""
    await _change(session, ids, "drop")


async def _change(session: Session, ids: Sequence[str], action: str) -> None:
    """Do it to each, and say of each what came of it; the exit code is of the worst."""
    # all IDs are looked up first: a mistake among them changes nothing
    found = [each for id_ in ids for each in await _find(session.spool, id_)]
    bell = Doorbell(session.config.doorbell)
    waiting = Queue(session.spool, session.clock, session.config.hostname, session.config.retry, bell.ring)
    missed = 0
    for entry, claim in found:
        done = claim is None and await _apply(session.spool, waiting, entry, action)
        missed += not done
        result = {"retry": "due", "drop": "dropped"}[action] if done else "in_flight"
        session.out.row(
            {"entry": entry.id, "result": result}, (Column("entry", "ENTRY", 25), Column("result", "RESULT", 9))
        )
    bell.close()
    if missed:
        raise Stop(f"{missed} in flight or just changed, try again", Exit.BUSY)


async def _apply(spool: Spool, waiting: Queue, entry: Entry, action: str) -> bool:
    message = await spool.message(entry.message)
    if message is None:
        return False
    if action == "retry":
        return await waiting.retry(entry, message)
    return await waiting.drop(entry, message, "dropped by the operator")


async def _find(spool: Spool, id_: str) -> list[type_waiting]:
    try:
        message_id = split_entry_id(id_)[0] if "." in id_ else id_
        message_id_bytes(message_id)
    except ValueError:
        raise Stop(f"{id_[:64]!r} is no ID of a message or an entry", Exit.USAGE) from None
    found = [each for each in await spool.entries(message_id) if id_ in (message_id, each[0].id)]
    if not found:
        raise _not_there(id_)
    return found


def _not_there(id_: str) -> Stop:
    return Stop(f"{id_} is not in the queue; what became of it: fairlead events --message {id_.partition('.')[0]}")


def entry_record(entry: Entry, claim: Claim | None) -> dict[str, object]:
    """Show an entry as lists do: `recipients` are those still waiting."""
    return {
        "entry": entry.id,
        "message": entry.message,
        "tenant": entry.tenant,
        "domain": entry.domain,
        "state": "queued" if claim is None else "in_flight",
        "recipients": [each.recipient.address for each in entry.waiting],
        "attempts": entry.attempts if claim is None else claim.attempt,
        "due_at": entry.due_at,
        "expires_at": entry.expires_at,
    }


def _detailed(entry: Entry, claim: Claim | None) -> dict[str, object]:
    return entry_record(entry, claim) | {
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


def _message_text(message: Message, found: Sequence[type_waiting]) -> str:
    lines = [
        f"message   {message.id} ({message.size} octets, by {message.origin.value}, tenant {message.tenant})",
        f"from      {message.sender or '<>'}",
        f"accepted  {time_text(message.accepted_at)}, expires {time_text(message.expires_at)}",
    ]
    for entry, claim in found:
        state = "in flight" if claim else f"due {time_text(entry.due_at)}"
        lines += ["", f"entry     {entry.id} to {entry.domain}: {state}, {entry.attempts} attempts"]
        lines += [f"  {each.recipient.address}  {each.state.name.lower()}" for each in entry.recipients]
        if entry.last_reply:
            lines.append(f"  last: {entry.last_relay or 'nobody reached'}: {entry.last_reply}")
    return "\n".join(lines)
