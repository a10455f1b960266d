"""`fairlead events`: the log of what happened to every message, for 30 days."""

import asyncio
from collections.abc import AsyncIterator

import click

from mta.cli.output import Column
from mta.cli.session import Session, Stop, with_spool
from mta.events.reader import LogReader
from mta.events.segments import LoggedEvent
from mta.exits import Exit
from mta.mail.event import Event, EventType, event_json

_PAGE = 200  # events read at a time
_COLUMNS = (
    Column("seq", "SEQ", 8),
    Column("at", "AT", 20),
    Column("type", "TYPE", 9),
    Column("message", "MESSAGE", 22),
    Column("recipient", "RECIPIENT", 28),
    Column("said", "SAID", 20),
)


@click.command()
@click.option("--follow", is_flag=True, help="Go on with what comes, until interrupted.")
@click.option("--message", "message_id", metavar="ID", help="Of one message only.")
@click.option("--after", type=click.IntRange(min=0), default=0, metavar="SEQ", help="Only those numbered after SEQ.")
@with_spool
async def events(session: Session, follow: bool, message_id: str | None, after: int) -> None:
    """Read the log of events, oldest first."""
    reader = LogReader(session.spool, session.config.segment_dir, session.keyring)
    async for seq, _, event in _wanted(session, reader, message_id, after, follow):
        record = event_json(event, seq)
        session.out.row(record if session.out.as_json else record | {"said": _said(event)}, _COLUMNS)


async def _wanted(
    session: Session, reader: LogReader, message_id: str | None, after: int, follow: bool
) -> AsyncIterator[LoggedEvent]:
    while found := await _read(reader, message_id, after):
        for each in found:
            yield each
            after = each.seq
    if follow:
        async for each in reader.follow(after, session.clock, asyncio.Event()):
            if message_id in (None, each.event.message):
                yield each


async def _read(reader: LogReader, message_id: str | None, after: int) -> list[LoggedEvent]:
    if message_id is None:
        return await reader.read(after, _PAGE)
    try:
        return await reader.of_message(message_id, after, _PAGE)
    except ValueError as error:
        raise Stop(str(error), Exit.USAGE) from None


def _said(event: Event) -> str:
    if event.type is EventType.ACCEPTED:
        return f"from <{event.sender}> for {len(event.recipients)}, {event.size} octets"
    return event.reply or event.reason or event.note
