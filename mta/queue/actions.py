"""What an operator, or a tenant, can do to what waits; done in portions, and answered entry by entry.

An entry in flight keeps what is wished of it for when its attempt is over, and is answered `in_flight`.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import NamedTuple

from mta.queue.answer import Answer
from mta.queue.batches import LET_GO, PAUSED
from mta.queue.queue import Queue
from mta.queue.selection import meant, select
from mta.queue.where import Where
from mta.spool.interface import Due, Spool
from mta.spool.records import Claim, Entry, MessageClass, State, Wish

RETRY_APART = 60.0  # seconds between an attempt and a tenant's retry: it is not to hammer at a receiver
_TOGETHER = 1000  # records touched by what is changed together, and hence by a commit

Standing = tuple[Due, Claim | None]


class Who(NamedTuple):
    """On whose word: `name` is told in events. With a `tenant` it is that tenant's own, else an operator's."""

    name: str
    tenant: str = ""


class Action(NamedTuple):
    """What is done to entries, and how that is told, of those in flight too. `concerns` says whom it is for."""

    verb: str
    done: str
    apply: Callable[[Queue, Due, Claim | None], Awaitable[Answer]]
    concerns: Callable[[Entry, Claim | None], bool] = lambda _, __: True
    in_flight: str = "done when the attempt is over, unless it delivers"


def hold(who: Who) -> Action:
    """Hold entries: not delivered until they are released. Their deadline stays."""
    wish = Wish(held=True, reason=f"by {who.name}", by_tenant=bool(who.tenant))

    def concerns(entry: Entry, claim: Claim | None) -> bool:
        return claim is not None or not entry.held or (_by_tenant(entry) and not who.tenant)

    return _wishing("hold", "held", wish)._replace(concerns=concerns)


def release(who: Who) -> Action:
    """Let held entries be delivered again, when they are due; a tenant, what it holds itself."""
    wish = Wish(held=False, reason=f"by {who.name}", by_tenant=bool(who.tenant))

    def concerns(entry: Entry, claim: Claim | None) -> bool:
        if claim is None:
            return entry.held and (not who.tenant or _by_tenant(entry))
        kept = claim.wish
        return kept is not None and kept.held is True and (not who.tenant or kept.by_tenant)

    return _wishing("release", "released", wish)._replace(concerns=concerns)


def let_go() -> Action:
    """Release entries that are held because their batch was paused."""
    return _wishing("let go", "released", LET_GO)._replace(
        concerns=lambda entry, claim: claim is None and entry.hold is not None and entry.hold.reason == PAUSED.reason
    )


def retry(who: Who, now: float) -> Action:
    """Make entries due now, but for held ones; on a tenant's word not those that were tried just before."""

    def concerns(entry: Entry, claim: Claim | None) -> bool:
        return claim is not None or not (entry.held or (who.tenant and entry.last_attempt_at > now - RETRY_APART))

    return Action(
        "retry",
        "due",
        lambda queue, due, claim: queue.retry(due, claim, f"by {who.name}"),
        concerns=concerns,
        in_flight="tried at this moment",
    )


def reschedule(who: Who, at: float) -> Action:
    """Release entries at another time, those that wait for their release."""
    return Action(
        "reschedule",
        "rescheduled",
        lambda queue, due, claim: queue.reschedule(due, claim, at, f"by {who.name}"),
        in_flight="tried at this moment",
    )


def drop(who: Who) -> Action:
    """End entries without delivery; the sender is not told."""
    return _wishing("drop", "dropped", Wish(end=State.DROPPED, reason=f"dropped by {who.name}"))


def cancel(who: Who) -> Action:
    """Withdraw entries: no delivery from now on, and the sender is not told."""
    return _wishing("cancel", "cancelled", Wish(end=State.CANCELLED, reason=f"cancelled by {who.name}"))


def redirect(who: Who, relay: str) -> Action:
    """Send entries to a relay (`host:port`), or with "" give them back to routes and MX. Never on a tenant's word."""
    return _wishing("redirect", "redirected", Wish(relay=relay, reason=f"by {who.name}"))


def priority(who: Who, message_class: MessageClass) -> Action:
    """Move entries to another class."""
    name = message_class.name.lower()
    return _wishing(f"make {name}", name, Wish(message_class=message_class, reason=f"by {who.name}"))


def _wishing(verb: str, done: str, wish: Wish) -> Action:
    return Action(verb, done, lambda queue, due, claim: queue.wish(due, claim, wish))


def _by_tenant(entry: Entry) -> bool:
    return entry.hold is not None and entry.hold.by_tenant


class Count(NamedTuple):
    """What is meant by conditions."""

    entries: int
    recipients: int


async def count(spool: Spool, where: Where, action: Action, now: float) -> Count:
    """Count the entries that are meant and concerned."""
    entries = recipients = 0
    async for entry, claim in meant(spool, where, now):
        if action.concerns(entry, claim):
            entries += 1
            recipients += len(entry.waiting)
    return Count(entries, recipients)


async def concerned(spool: Spool, where: Where, action: Action, now: float, most: int) -> AsyncIterator[Standing]:
    """Walk what was counted at `now`, and `most` entries at most."""
    async for due, claim in select(spool, where, now, accepted_by=now):
        if most > 0 and action.concerns(due.entry, claim):
            most -= 1
            yield due, claim


async def act(queue: Queue, action: Action, standing: AsyncIterator[Standing]) -> AsyncIterator[tuple[str, Answer]]:
    """Do it, in transactions of at most 1,000 records, and tell of each entry what came of it."""
    async for portion in portions(standing):
        answers = await asyncio.gather(*(_one(queue, action, *each) for each in portion))
        for (due, _), answer in zip(portion, answers, strict=True):
            yield due.entry.id, answer


async def _one(queue: Queue, action: Action, due: Due, claim: Claim | None) -> Answer:
    return await action.apply(queue, due, claim) if action.concerns(due.entry, claim) else Answer.UNCHANGED


async def each_of(standing: Sequence[Standing]) -> AsyncIterator[Standing]:
    """Walk what was found by ID."""
    for each in standing:
        yield each


async def portions(standing: AsyncIterator[Standing]) -> AsyncIterator[list[Standing]]:
    """Cut entries into portions whose change touches at most a thousand records, one entry at the least."""
    portion, touched = list[Standing](), 0
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
