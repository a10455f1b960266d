"""Where operators and tenants ask about the queue and change it, over the command line and HTTP alike.

Whoever asks is a tenant, and then nothing exists but its own mail (promise 9), or an operator (`""`).
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol
from weakref import WeakValueDictionary

import msgspec

from mta.clock import Clock
from mta.control import ControlError, ask
from mta.mail.event import Event
from mta.queue import actions, prospect
from mta.queue.actions import Action, Standing, Who, act, each_of
from mta.queue.answer import Answer
from mta.queue.explanation import AHEAD, Asked, Circumstances, Explanation, HeldBy, LaneState, Says, explain
from mta.queue.prospect import Prospect
from mta.queue.queue import Queue
from mta.queue.standing import find, message_of
from mta.spool.interface import Spool

EXPLAINED = 100  # entries of a message at most
_ASK_TIMEOUT = 1.0  # seconds that delivery has to say what it knows
_SITES_TIMEOUT = 5.0
_RECALL_TIMEOUT = 5.0  # seconds
_FORESEE_TIMEOUT = 10.0
TURN_WAIT = 10.0  # seconds that a request waits for another of the same tenant or operator; a walk can take minutes


class Log(Protocol):
    """What is asked of the log; mta.events.reader.LogReader."""

    async def ends(self, message_id: str) -> Mapping[tuple[str, str], Event]:
        """Read how recipients of a message ended, by entry and address."""


class TurnTaken(Exception):
    """Another request of the same tenant or operator is at what takes long."""


class Explained(msgspec.Struct, frozen=True):
    """A message's entries explained: those that wait, then those that ended. There are `more` than are told of here."""

    message: str
    entries: tuple[Explanation, ...]
    more: int = 0


class Desk:
    """The queue, the log, and what delivery knows."""

    def __init__(self, spool: Spool, queue: Queue, clock: Clock, log: Log, delivery: Path) -> None:
        """`delivery` is the control socket of that role."""
        self.spool = spool
        self.queue = queue
        self.clock = clock
        self._log = log
        self._delivery = delivery
        self._turns: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    async def explain(self, id_: str, who: Who) -> Explained | None:
        """Say which gate holds each entry of an ID now; None if nobody knows it. NoId if it is none; TurnTaken.

        The log is read only where records are missing: of a message that waits, a look-up by key is all.
        """
        message_id = message_of(id_)
        found = await find(self.spool, id_, who.tenant)
        says = await self._says(found[:EXPLAINED])
        told: list[Explanation] = []
        for number, each in enumerate(found[:EXPLAINED]):
            told.append(await self._explained(each, says, number, who.tenant))
            await asyncio.sleep(0)  # counting those ahead may take half a millisecond
        ended: list[Explanation] = []
        if not found or (id_ == message_id and len(found) < found[0][0].message.entries):
            async with self.turn("log", who):
                ended = await self._ended(id_, who.tenant, {due.entry.id for due, _ in found})
            told += ended[: EXPLAINED - len(told)]
        return Explained(message_id, tuple(told), len(found) + len(ended) - len(told)) if told else None

    async def _explained(self, standing: Standing, says: Says, number: int, tenant: str) -> Explanation:
        due, claim = standing
        lane = says.lanes[number] if says.lanes else None
        if lane is not None and tenant:
            lane = _for_tenant(lane)
        around = Circumstances(
            now=self.clock.now(),
            ahead=await self.spool.ahead_of(due.entry, AHEAD),
            lane=lane,
            begun_at=says.begun_at[number] if says.begun_at else 0.0,
            gate=says.gate,
            trouble=says.trouble,
        )
        return explain(due, claim, around)

    async def _says(self, standing: Sequence[Standing]) -> Says:
        """Ask delivery what it knows; that it does not answer is an answer too."""
        if not standing:
            return Says()
        asked = Asked(tuple((due.entry.id, due.entry.lane) for due, _ in standing))
        try:
            return msgspec.convert(await ask(self._delivery, "explain", _ASK_TIMEOUT, asked), Says)
        except (ControlError, msgspec.ValidationError) as error:
            return Says(HeldBy.DOWN, str(error))

    async def _ended(self, id_: str, tenant: str, waiting: set[str]) -> list[Explanation]:
        """Read from the log of those who have ended, but for entries in which others wait."""
        entries: dict[str, Event] = {}
        for (entry, _), event in (await self._ends(id_, tenant)).items():
            if entry not in waiting:
                last = entries.get(entry)
                entries[entry] = event if last is None or event.at >= last.at else last
        return [_ended(entry, event) for entry, event in sorted(entries.items())]

    async def _ends(self, id_: str, tenant: str) -> dict[tuple[str, str], Event]:
        """Read from the log how recipients of a message or an entry ended."""
        message_id = message_of(id_)
        return {
            about: event
            for about, event in (await self._log.ends(message_id)).items()
            if tenant in ("", event.tenant) and id_ in (message_id, about[0])
        }

    @contextlib.asynccontextmanager
    async def turn(self, at: str, who: Who) -> AsyncIterator[None]:
        """Have one request of each tenant, and of each operator's key, at what takes long; TurnTaken after TURN_WAIT.

        Operators do not wait for each other.
        """
        key = at, who.tenant or who.name  # which no tenant's name is: it has spaces
        lock = self._turns.get(key)
        if lock is None:
            lock = self._turns[key] = asyncio.Lock()
        try:
            async with asyncio.timeout(TURN_WAIT):
                await lock.acquire()
        except TimeoutError:
            raise TurnTaken from None
        try:
            yield
        finally:
            lock.release()

    async def act(self, found: Sequence[Standing], action: Action) -> list[tuple[str, Answer]]:
        """Do it to what was found by ID, and have delivery break off what is not wanted any more."""
        answers = [each async for each in act(self.queue, action, each_of(found))]
        if any(answer is Answer.IN_FLIGHT for _, answer in answers):
            await self.recall()
        return answers

    async def cancel(self, id_: str, who: Who) -> dict[tuple[str, str], str]:
        """Cancel what one ID stands for, and say of each recipient, by entry and address, what became of it.

        That is `cancelled`, `in_flight`, `busy`, or how else it ended: `delivered`, `bounced`, `expired`, `dropped`.
        Of an ID that nobody knows it says nothing. NoId if it is none. The log is read last, because it alone knows
        of those who have ended: what a delivery was quicker with included. TurnTaken: it is done, but not told.
        """
        await self.act(await find(self.spool, id_, who.tenant), actions.cancel(who))
        waiting = {
            (due.entry.id, each.recipient.address): "busy" if claim is None else "in_flight"
            for due, claim in await find(self.spool, id_, who.tenant)
            for each in due.entry.waiting
        }
        async with self.turn("log", who):
            ended = {about: event.type.value for about, event in (await self._ends(id_, who.tenant)).items()}
        return dict(sorted((waiting | ended).items()))

    async def sites(self) -> object:
        """Ask delivery for the sites that have work or taught something, as `fairlead queue top` does. ControlError."""
        return await ask(self._delivery, "sites", _SITES_TIMEOUT)

    async def foresee(self, asked: prospect.Asked) -> Prospect:
        """Ask delivery what would become of a message. ControlError."""
        try:
            return msgspec.convert(await ask(self._delivery, "plan", _FORESEE_TIMEOUT, asked), Prospect)
        except msgspec.ValidationError as error:
            raise ControlError(str(error)) from None

    async def recall(self) -> None:
        """Have deliveries that are not wanted any more broken off where they can be; with delivery down none is."""
        with contextlib.suppress(ControlError):  # or not heard: the wishes are kept all the same
            await ask(self._delivery, "recall", _RECALL_TIMEOUT)


def _for_tenant(lane: LaneState) -> LaneState:
    """Leave out what a tenant is not to know (decision 17): what others do at the site, and what it told them."""
    return msgspec.structs.replace(
        lane,
        site=lane.site.partition(" as ")[0],  # the login of a route
        at_work=0,
        limit=0,
        lanes=0,
        reply=lane.reply if lane.gate is HeldBy.TENANT_PAUSED else "",
        rates=msgspec.structs.replace(lane.rates, site=0.0),
    )


def _ended(entry: str, event: Event) -> Explanation:
    return Explanation(
        entry=entry,
        tenant=event.tenant,
        domain=event.recipient.rpartition("@")[2],
        gate=HeldBy.ENDED,
        why=f"{event.type.value}{f': {event.reason}' if event.reason and not event.reply else ''}",
        since_at=event.at,
        attempts=event.attempt,
        reply=event.reply or None,
        relay=event.relay or None,
        no_estimate="it has ended",
    )
