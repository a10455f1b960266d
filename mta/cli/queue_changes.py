"""The commands of `fairlead queue` that change entries.

By ID they act at once. With --where they say first how many are meant, and ask; `--yes` goes ahead. An entry in
flight keeps what is wished of it for when its attempt is over, and is answered `in_flight`.
"""

import asyncio
import contextlib
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import click

from mta.cli.output import Column
from mta.cli.queue_meant import find_each, ids_or_where, message_of, not_there, type_standing, where_option
from mta.cli.session import Session, Stop, with_spool
from mta.config import next_hop
from mta.control import ControlError, ask, socket_path
from mta.events.reader import LogReader
from mta.exits import Exit
from mta.mail.event import ENDS
from mta.queue.answer import Answer
from mta.queue.doorbell import Doorbell
from mta.queue.queue import Queue
from mta.queue.selection import meant, select
from mta.queue.where import Where
from mta.spool.interface import Due
from mta.spool.records import Claim, Entry, MessageClass, State, Wish

_TOGETHER = 1000  # records touched by what is changed together, and hence by a commit
_PAGE = 200  # events read at a time
_RECALL_TIMEOUT = 5.0  # seconds
_COLUMNS = (Column("entry", "ENTRY", 25), Column("result", "RESULT", 9))
_CANCEL_COLUMNS = (Column("entry", "ENTRY", 25), Column("recipient", "RECIPIENT", 28), Column("result", "RESULT", 9))
_CLASSES = [each.name.lower() for each in MessageClass]
type_command = TypeVar("type_command", bound=Callable[..., object])


class _Action(NamedTuple):
    """What is done to entries, and how that is told, of those in flight too. `concerns` says whom it is for."""

    verb: str
    done: str
    apply: Callable[[Queue, Due, Claim | None], Awaitable[Answer]]
    concerns: Callable[[Entry, Claim | None], bool] = lambda _, __: True
    in_flight: str = "done when the attempt is over, unless it delivers"


class _Meant(NamedTuple):
    """Whom a command line is for."""

    ids: Sequence[str]
    where: Where
    yes: bool


def _wishing(verb: str, done: str, wish: Wish) -> _Action:
    return _Action(verb, done, lambda queue, due, claim: queue.wish(due, claim, wish))


def _meaning(command: type_command) -> type_command:
    """Give a click command what says whom it is for: IDs, or `--where` and `--yes`."""
    yes = click.option("--yes", is_flag=True, help="With --where: go ahead without asking.")
    return click.argument("ids", metavar="[ID]...", nargs=-1)(where_option(yes(command)))


@click.command()
@_meaning
@with_spool
async def hold(session: Session, ids: Sequence[str], where: Where, yes: bool) -> None:
    """Hold entries: not delivered until they are released. Their deadline stays."""
    action = _wishing("hold", "held", Wish(held=True, reason="by the operator"))
    await _act(session, _Meant(ids, where, yes), action._replace(concerns=_may_be_held))


def _may_be_held(entry: Entry, claim: Claim | None) -> bool:
    return claim is not None or not entry.held


@click.command()
@_meaning
@with_spool
async def release(session: Session, ids: Sequence[str], where: Where, yes: bool) -> None:
    """Let held entries be delivered again, when they are due."""
    action = _wishing("release", "released", Wish(held=False, reason="by the operator"))
    await _act(session, _Meant(ids, where, yes), action._replace(concerns=_may_be_released))


def _may_be_released(entry: Entry, claim: Claim | None) -> bool:
    return entry.held if claim is None else claim.wish is not None and claim.wish.held is True


@click.command()
@_meaning
@with_spool
async def retry(session: Session, ids: Sequence[str], where: Where, yes: bool) -> None:
    """Make entries due now, but for held ones."""
    action = _Action(
        "retry",
        "due",
        lambda queue, due, claim: queue.retry(due, claim, "by the operator"),
        concerns=_may_be_held,
        in_flight="tried at this moment",
    )
    await _act(session, _Meant(ids, where, yes), action)


@click.command()
@_meaning
@with_spool
async def drop(session: Session, ids: Sequence[str], where: Where, yes: bool) -> None:
    """End entries without delivery; the sender is not told."""
    wish = Wish(end=State.DROPPED, reason="dropped by the operator")
    await _act(session, _Meant(ids, where, yes), _wishing("drop", "dropped", wish))


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
    await _act(
        session, _Meant(ids, where, yes), _wishing("redirect", "redirected", Wish(relay=hop, reason="by the operator"))
    )


@click.command()
@click.argument("class_name", metavar="high|normal|bulk", type=click.Choice(_CLASSES))
@_meaning
@with_spool
async def priority(session: Session, class_name: str, ids: Sequence[str], where: Where, yes: bool) -> None:
    """Move entries to another class: they wait in the lane of that class."""
    wish = Wish(message_class=MessageClass[class_name.upper()], reason="by the operator")
    await _act(session, _Meant(ids, where, yes), _wishing(f"make {class_name}", class_name, wish))


_CANCEL = _wishing("cancel", "cancelled", Wish(end=State.CANCELLED, reason="cancelled by the operator"))


@click.command()
@_meaning
@with_spool
async def cancel(session: Session, ids: Sequence[str], where: Where, yes: bool) -> None:
    """Withdraw messages: no delivery from now on, and the sender is not told.

    By ID it says of each recipient what became of him: cancelled, in_flight, delivered, or how else he ended.
    """
    if not ids:
        await _act(session, _Meant(ids, where, yes), _CANCEL)
        return
    ids_or_where(ids, where)
    for id_ in ids:
        message_of(id_)  # a mistake among them changes nothing
    results, unknown = Counter[str](), list[str]()
    with _queue(session) as queue:
        for id_ in ids:
            found = await _cancel(session, queue, id_)
            results.update(found)
            unknown += [] if found else [id_]
    await _recall(session, results)
    if unknown == list(ids):
        raise not_there(unknown[0])
    for id_ in unknown:
        session.out.note(not_there(id_).message)
    _end(_CANCEL, results)
    others = results.total() - results["cancelled"]
    if others:
        raise Stop(f"{others} had ended before")
    if unknown:
        raise Stop(f"of {len(unknown)} nothing was known")


COMMANDS = (hold, release, retry, drop, redirect, priority, cancel)


async def _cancel(session: Session, queue: Queue, id_: str) -> list[str]:
    """Cancel what one ID stands for, and print for each recipient the word that is returned; none: nobody knows the ID.

    The log is read last, because it alone knows of those who have ended: what a delivery was quicker with included.
    """
    message_id = message_of(id_)
    message = await session.spool.message(message_id)
    if message is not None:
        for entry, claim in await session.spool.entries(message_id):
            if id_ in (message_id, entry.id):
                await _CANCEL.apply(queue, Due(entry, message), claim)
    waiting = {
        (entry.id, each.recipient.address): "busy" if claim is None else "in_flight"
        for entry, claim in await session.spool.entries(message_id)
        for each in entry.waiting
        if id_ in (message_id, entry.id)
    }
    results = waiting | {
        about: kind async for about, kind in _ends(session, message_id) if id_ in (message_id, about[0])
    }
    for (entry_id, recipient), result in sorted(results.items()):
        session.out.row({"entry": entry_id, "recipient": recipient, "result": result}, _CANCEL_COLUMNS)
    return list(results.values())


async def _ends(session: Session, message_id: str) -> AsyncIterator[tuple[tuple[str, str], str]]:
    """Read from the log how recipients of a message ended: entry and recipient, and the type of the event."""
    reader = LogReader(session.spool, session.config.segment_dir, session.keyring)
    after = 0
    while found := await reader.of_message(message_id, after, _PAGE):
        for each in found:
            if each.event.type in ENDS:
                yield (each.event.entry, each.event.recipient), each.event.type.value
            after = each.seq


async def _act(session: Session, meant_: _Meant, action: _Action) -> None:
    """Do it to each entry that is meant, and say what came of it; the exit code is of the worst."""
    ids_or_where(meant_.ids, meant_.where)
    with _queue(session) as queue:
        if meant_.ids:
            found = await find_each(session, meant_.ids)
            results = await _act_on(session, queue, action, _walk(found), shown=True)
        else:
            results = await _act_where(session, queue, action, meant_)
    await _recall(session, results)
    _end(action, results)


async def _act_where(session: Session, queue: Queue, action: _Action, meant_: _Meant) -> Counter[str]:
    now = session.clock.now()
    if not await _goes_ahead(session, action, meant_, now):
        return Counter()
    standing = select(session.spool, meant_.where, now, accepted_by=now)
    concerned = (each async for each in standing if action.concerns(each[0].entry, each[1]))
    results = await _act_on(session, queue, action, concerned, shown=session.out.as_json)
    if not session.out.as_json:
        session.out.record({}, ", ".join(f"{result} {count:,}" for result, count in sorted(results.items())))
    return results


async def _goes_ahead(session: Session, action: _Action, meant_: _Meant, now: float) -> bool:
    """Count what is meant, and have it confirmed; False if there is nothing to do."""
    entries = recipients = 0
    async for entry, claim in meant(session.spool, meant_.where, now):
        if action.concerns(entry, claim):
            entries += 1
            recipients += len(entry.waiting)
    count = (
        f"{entries:,} {'entry' if entries == 1 else 'entries'} "
        f"with {recipients:,} recipient{'' if recipients == 1 else 's'}"
    )
    if meant_.yes or not entries:
        session.out.note(f"{action.verb}: {count}")
        return entries > 0
    if sys.stdin.isatty():
        if not click.confirm(f"{count}: {action.verb}?", err=True):
            raise Stop("nothing was changed")
        return True
    if session.out.as_json:
        session.out.record({"entries": entries, "recipients": recipients}, "")
    raise Stop(f"{count}: nothing was changed, add --yes to {action.verb}", Exit.USAGE)


async def _act_on(
    session: Session, queue: Queue, action: _Action, standing: AsyncIterator[type_standing], *, shown: bool
) -> Counter[str]:
    results = Counter[str]()
    async for portion in portions(standing):
        answers = await asyncio.gather(*(_one(queue, action, *each) for each in portion))
        for (due, _), answer in zip(portion, answers, strict=True):
            result = action.done if answer is Answer.DONE else answer.value
            results[result] += 1
            if shown:
                session.out.row({"entry": due.entry.id, "result": result}, _COLUMNS)
    return results


async def _one(queue: Queue, action: _Action, due: Due, claim: Claim | None) -> Answer:
    return await action.apply(queue, due, claim) if action.concerns(due.entry, claim) else Answer.UNCHANGED


async def _walk(found: Sequence[type_standing]) -> AsyncIterator[type_standing]:
    for each in found:
        yield each


async def portions(standing: AsyncIterator[type_standing]) -> AsyncIterator[list[type_standing]]:
    """Cut entries into portions whose change touches at most a thousand records, one entry at the least."""
    portion, touched = list[type_standing](), 0
    async for due, claim in standing:
        # its rows in the tables, an event for each recipient, and, if it ends, content that goes with it
        touches = 8 + len(due.entry.waiting) + min(due.message.size // 4000, 80)
        if portion and touched + touches > _TOGETHER:
            yield portion
            portion, touched = [], 0
        portion.append((due, claim))
        touched += touches
    if portion:
        yield portion


@contextlib.contextmanager
def _queue(session: Session) -> Iterator[Queue]:
    """Open the queue, with a bell for what is due now."""
    with contextlib.closing(Doorbell(session.config.doorbell)) as bell:
        yield Queue(session.spool, session.clock, session.config.hostname, session.config.retry, bell.ring)


async def _recall(session: Session, results: Counter[str]) -> None:
    """Have deliveries that are not wanted any more broken off where they can be; with delivery down there are none."""
    if results[Answer.IN_FLIGHT]:
        with contextlib.suppress(ControlError):  # or not heard: the wishes are kept all the same
            await ask(socket_path(session.config.run_dir, "delivery"), "recall", _RECALL_TIMEOUT)


def _end(action: _Action, results: Counter[str]) -> None:
    """End with the exit code that says that not everything is done."""
    if results[Answer.BUSY]:
        raise Stop(f"{results[Answer.BUSY]} just changed, try again", Exit.BUSY)
    if results[Answer.IN_FLIGHT]:
        raise Stop(f"{results[Answer.IN_FLIGHT]} in flight: {action.in_flight}", Exit.BUSY)
