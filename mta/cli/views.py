"""`fairlead views`: what lists and searches of the HTTP API read, built from the log."""

import click
import msgspec

from mta.cli.output import printable
from mta.cli.session import Session, Stop, with_spool
from mta.control import ControlError, NotRunning, ask, socket_path
from mta.events.reader import LogReader
from mta.events.views import schema
from mta.events.views.following import Progress, progress_in

_TIMEOUT = 5.0  # seconds


@click.group()
def views() -> None:
    """Show how far the views of the log are, and build them anew."""


@views.command()
@with_spool
async def status(session: Session) -> None:
    """Show where the views are, and how many events they have not taken in yet."""
    build = schema.newest(session.config.views_dir)
    try:
        found = msgspec.convert(await _ask(session, "views"), Progress)
    except NotRunning:
        stored = progress_in(session.config.views_dir)
        end = await LogReader(session.spool, session.config.segment_dir, session.keyring).end()
        found = msgspec.structs.replace(stored, position=stored.seq, end=end, trouble="events is not running")
    state = "complete" if found.complete else "being built"
    record = {
        "file": str(build.path) if build else None,
        "octets": build.octets if build else 0,
        "seq": found.seq,
        "lag": found.lag,
        "complete": found.complete,
        "trouble": found.trouble,
    }
    lines = [
        f"file {printable(str(build.path)) if build else '-'}, {record['octets']} octets",
        f"{state}, up to event {found.seq}, {found.lag} behind",
    ]
    session.out.record(record, "\n".join([*lines, printable(found.trouble)] if found.trouble else lines))


@views.command()
@with_spool
async def rebuild(session: Session) -> None:
    """Build the views anew from the log. Until that is done, lists and searches are answered by 503."""
    try:
        await _ask(session, "views_rebuild")
        said = "they are being built"
    except NotRunning:
        _, connection = schema.begin(session.config.views_dir)
        connection.close()
        said = "they are built when the events role is started"
    session.out.record({"result": "rebuilding"}, said)


async def _ask(session: Session, command: str) -> object:
    try:
        return await ask(socket_path(session.config.run_dir, "events"), command, _TIMEOUT)
    except NotRunning:
        raise
    except ControlError as error:
        raise Stop(str(error)) from None
