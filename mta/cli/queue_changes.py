"""The commands of `fairlead queue` that change entries: what mta.queue.actions does, on an operator's word.

By ID they act at once. With --where they say first how many are meant, and ask; `--yes` goes ahead.
"""

import contextlib
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, TypeVar

import click

from mta.accounts.audit import Underway, told
from mta.cli.output import Column
from mta.cli.queue_meant import check, find_each, ids_or_where, not_there, where_option
from mta.cli.session import Session, Stop, with_spool
from mta.config import next_hop
from mta.control import socket_path
from mta.events.reader import LogReader
from mta.exits import Exit
from mta.queue import actions
from mta.queue.actions import Action, Count, Who, concerned, count, each_of
from mta.queue.answer import Answer
from mta.queue.desk import Desk
from mta.queue.doorbell import Doorbell
from mta.queue.queue import Queue
from mta.queue.where import Where
from mta.spool.records import MessageClass

OPERATOR = Who("the operator")
_COLUMNS = (Column("entry", "ENTRY", 25), Column("result", "RESULT", 9))
_CANCEL_COLUMNS = (Column("entry", "ENTRY", 25), Column("recipient", "RECIPIENT", 28), Column("result", "RESULT", 9))
_CLASSES = [each.name.lower() for each in MessageClass]
type_command = TypeVar("type_command", bound=Callable[..., object])


class _Meant(NamedTuple):
    """Whom a command line is for."""

    ids: Sequence[str]
    where: Where
    yes: bool


def _meaning(command: type_command) -> type_command:
    """Give a click command what says whom it is for: IDs, or `--where` and `--yes`."""
    yes = click.option("--yes", is_flag=True, help="With --where: go ahead without asking.")
    return click.argument("ids", metavar="[ID]...", nargs=-1)(where_option(yes(command)))


@click.command()
@_meaning
@with_spool
async def hold(session: Session, ids: Sequence[str], where: Where, yes: bool) -> None:
    """Hold entries: not delivered until they are released. Their deadline stays."""
    await _act(session, _Meant(ids, where, yes), actions.hold(OPERATOR))


@click.command()
@_meaning
@with_spool
async def release(session: Session, ids: Sequence[str], where: Where, yes: bool) -> None:
    """Let held entries be delivered again, when they are due."""
    await _act(session, _Meant(ids, where, yes), actions.release(OPERATOR))


@click.command()
@_meaning
@with_spool
async def retry(session: Session, ids: Sequence[str], where: Where, yes: bool) -> None:
    """Make entries due now, but for held ones."""
    await _act(session, _Meant(ids, where, yes), actions.retry(OPERATOR, session.clock.now()))


@click.command()
@_meaning
@with_spool
async def drop(session: Session, ids: Sequence[str], where: Where, yes: bool) -> None:
    """End entries without delivery; the sender is not told."""
    await _act(session, _Meant(ids, where, yes), actions.drop(OPERATOR))


@click.command()
@click.option("--to", "relay", metavar="HOST[:PORT]", help="The relay.")
@click.option("--undo", is_flag=True, help="Give them back to routes and MX.")
@_meaning
@with_spool
async def redirect(
    session: Session, ids: Sequence[str], where: Where, yes: bool, relay: str | None, undo: bool
) -> None:
    """Send entries to a relay, whatever routes and MX say.

    A route that has the same relay gives its TLS and AUTH settings too.
    """
    if (relay is None) is not undo:
        raise Stop("say where to: --to HOST[:PORT], or --undo", Exit.USAGE)
    try:
        hop = "" if relay is None else str(next_hop(relay, session.config.delivery.port))
    except ValueError:
        raise Stop(f"--to {(relay or '')[:64]!r}: it is a host name or an address, and a port", Exit.USAGE) from None
    await _act(session, _Meant(ids, where, yes), actions.redirect(OPERATOR, hop))


@click.command()
@click.argument("class_name", metavar="high|normal|bulk", type=click.Choice(_CLASSES))
@_meaning
@with_spool
async def priority(session: Session, class_name: str, ids: Sequence[str], where: Where, yes: bool) -> None:
    """Move entries to another class: they wait in the lane of that class."""
    action = actions.priority(OPERATOR, MessageClass[class_name.upper()])
    await _act(session, _Meant(ids, where, yes), action)


@click.command()
@_meaning
@with_spool
async def cancel(session: Session, ids: Sequence[str], where: Where, yes: bool) -> None:
    """Withdraw messages: no delivery from now on, and the sender is not told.

    By ID it says of each recipient what became of him: cancelled, in_flight, delivered, or how else he ended.
    """
    action = actions.cancel(OPERATOR)
    if not ids:
        await _act(session, _Meant(ids, where, yes), action)
        return
    ids_or_where(ids, where)
    for id_ in ids:
        check(id_)  # a mistake among them changes nothing
    results, unknown = Counter[str](), list[str]()
    with open_desk(session) as desk:
        async with _doing(session, ids) as underway:
            for id_ in ids:
                found = await desk.cancel(id_, OPERATOR)
                for (entry_id, recipient), result in found.items():
                    session.out.row({"entry": entry_id, "recipient": recipient, "result": result}, _CANCEL_COLUMNS)
                results.update(found.values())
                unknown += [] if found else [id_]
            underway.result = told(results)
    if unknown == list(ids):
        raise not_there(unknown[0])
    for id_ in unknown:
        session.out.note(not_there(id_).message)
    _end(action, results)
    others = results.total() - results["cancelled"]
    if others:
        raise Stop(f"{others} had ended before")
    if unknown:
        raise Stop(f"of {len(unknown)} nothing was known")


COMMANDS = (hold, release, retry, drop, redirect, priority, cancel)


def _doing(session: Session, on: Sequence[str], tenant: str = "") -> AbstractAsyncContextManager[Underway]:
    """Have it on record under the name of the command."""
    return session.doing(f"queue.{click.get_current_context().info_name}", tenant, " ".join(on))


async def _act(session: Session, meant: _Meant, action: Action) -> None:
    """Do it to each entry that is meant, and say what came of it; the exit code is of the worst."""
    ids_or_where(meant.ids, meant.where)
    with open_desk(session) as desk:
        if meant.ids:
            found = await find_each(session, meant.ids)
            of = {due.message.tenant for due, _ in found}
            async with _doing(session, meant.ids, of.pop() if len(of) == 1 else "") as underway:
                results = await _act_on(session, desk, action, each_of(found), shown=True)
                underway.result = told(results)
        else:
            results = await _act_where(session, desk, action, meant)
        if results[Answer.IN_FLIGHT]:
            await desk.recall()
    _end(action, results)


async def _act_where(session: Session, desk: Desk, action: Action, meant: _Meant) -> Counter[str]:
    now = session.clock.now()
    counted = await count(session.spool, meant.where, action, now)
    if not _goes_ahead(session, action, counted, yes=meant.yes):
        return Counter()
    standing = concerned(session.spool, meant.where, action, now, counted.entries)
    async with _doing(session, meant.where.conditions) as underway:
        results = await _act_on(session, desk, action, standing, shown=session.out.as_json)
        underway.result = told(results)
    if not session.out.as_json:
        session.out.record({}, ", ".join(f"{result} {count:,}" for result, count in sorted(results.items())))
    return results


def _goes_ahead(session: Session, action: Action, counted: Count, *, yes: bool) -> bool:
    """Have what was counted confirmed; False if there is nothing to do."""
    entries, recipients = counted
    said = (
        f"{entries:,} {'entry' if entries == 1 else 'entries'} "
        f"with {recipients:,} recipient{'' if recipients == 1 else 's'}"
    )
    if yes or not entries:
        session.out.note(f"{action.verb}: {said}")
        return entries > 0
    if sys.stdin.isatty():
        if not click.confirm(f"{said}: {action.verb}?", err=True):
            raise Stop("nothing was changed")
        return True
    if session.out.as_json:
        session.out.record({"entries": entries, "recipients": recipients}, "")
    raise Stop(f"{said}: nothing was changed, add --yes to {action.verb}", Exit.USAGE)


async def _act_on(
    session: Session, desk: Desk, action: Action, standing: AsyncIterator[actions.Standing], *, shown: bool
) -> Counter[str]:
    results = Counter[str]()
    async for entry_id, answer in actions.act(desk.queue, action, standing):
        result = action.done if answer is Answer.DONE else answer.value
        results[result] += 1
        if shown:
            session.out.row({"entry": entry_id, "result": result}, _COLUMNS)
    return results


@contextlib.contextmanager
def open_desk(session: Session) -> Iterator[Desk]:
    """Open the queue, with a bell for what is due now."""
    config = session.config
    with contextlib.closing(Doorbell(config.doorbell)) as bell:
        queue = Queue(session.spool, session.clock, config.hostname, config.retry, bell.ring)
        log = LogReader(session.spool, config.segment_dir, session.keyring)
        yield Desk(session.spool, queue, session.clock, log, socket_path(config.run_dir, "delivery"))


def _end(action: Action, results: Counter[str]) -> None:
    """End with the exit code that says that not everything is done."""
    if results[Answer.BUSY]:
        raise Stop(f"{results[Answer.BUSY]} just changed, try again", Exit.BUSY)
    if results[Answer.IN_FLIGHT]:
        raise Stop(f"{results[Answer.IN_FLIGHT]} in flight: {action.in_flight}", Exit.BUSY)
