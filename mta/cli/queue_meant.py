"""Which entries a command of `fairlead queue` is for: IDs, or conditions."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import click

from mta.cli.session import Session, Stop
from mta.exits import Exit
from mta.queue import standing
from mta.queue.actions import Standing
from mta.queue.where import Where, WhereError
from mta.spool.interface import Spool

type_command = TypeVar("type_command", bound=Callable[..., object])


def where_option(command: type_command) -> type_command:
    """Give a click command `--where`, as the parameter `where`."""
    return click.option(
        "--where",
        metavar="CONDITION",
        multiple=True,
        callback=_read,
        help="Entries of which this is true; given several times: of which all are. domain=example.com, 'age>2h',"
        " class=bulk, state=held, and tenant, sender, recipient, category; != is unless, * any characters.",
    )(command)


def _read(_: click.Context, __: click.Parameter, value: Sequence[str]) -> Where:
    try:
        return Where(value)
    except WhereError as error:
        raise Stop(str(error), Exit.USAGE) from None


def ids_or_where(ids: Sequence[str], where: Where) -> None:
    """Refuse a command line that has neither IDs nor conditions, or both."""
    if bool(ids) is where.given:
        raise Stop("say which entries: by ID or with --where, one of the two", Exit.USAGE)


async def find_each(session: Session, ids: Sequence[str]) -> list[Standing]:
    """Find what IDs stand for; a mistake among them is found before anything is changed."""
    return [each for id_ in ids for each in await find(session.spool, id_)]


async def find(spool: Spool, id_: str) -> list[Standing]:
    """Find the entries of a message, or one entry, with their claims; Stop if there are none."""
    check(id_)
    found = await standing.find(spool, id_)
    if not found:
        raise not_there(id_)
    return found


def check(id_: str) -> None:
    """Stop at what is no ID."""
    try:
        standing.message_of(id_)
    except standing.NoId as error:
        raise Stop(str(error), Exit.USAGE) from None


def not_there(id_: str) -> Stop:
    """Say that nothing of it waits."""
    return Stop(f"{id_} is not in the queue; what became of it: fairlead events --message {id_.partition('.')[0]}")
