"""/admin/v1/queue: what waits, why, and what can be done about it (docs/api.md).

A tenant's key sees and changes that tenant's mail alone: another's ID is answered as one that nobody has (promise 9).
What walks the queue, or reads the log, is done for one request of each tenant, and of each operator's key, at a time,
so that none of them takes the process for itself; each walk is in portions between which the loop has its turn.
"""

import logging
from collections import Counter
from collections.abc import Callable, Mapping

import falcon.asgi
from msgspec import UNSET

from mta.accounts.audit import told
from mta.config import next_hop
from mta.control import ControlError
from mta.mail.ids import made_at, split_entry_id
from mta.queue import actions
from mta.queue.actions import Action, Who, act, concerned, count
from mta.queue.answer import Answer
from mta.queue.desk import Desk
from mta.queue.selection import meant, page
from mta.queue.shape import ROWS, By, Counting
from mta.queue.shown import entry_detail, entry_record, message_detail
from mta.queue.standing import NoId, find
from mta.spool.records import MessageClass
from relay_http.admin.asked import Asked, answer, read_asked, read_where, who_asks, who_changes
from relay_http.body import Request
from relay_http.door import Door
from relay_http.parameters import Parameters
from relay_http.problem import Problem, Refusal, Why, busy, not_found

log = logging.getLogger(__name__)

_AGAIN = 10  # seconds
PAGE, LONGEST_PAGE = 100, 1000


def add_routes(app: falcon.asgi.App[Request, falcon.asgi.Response], door: Door) -> None:
    """Add every route of the queue."""
    app.add_route("/admin/v1/queue", _List(door))
    app.add_route("/admin/v1/queue/shape", _Shape(door))
    app.add_route("/admin/v1/queue/sites", _Sites(door))
    app.add_route("/admin/v1/queue/{id_}", _One(door))
    app.add_route("/admin/v1/queue/{id_}/explain", _Explain(door))
    for name, (fields, make) in _ACTIONS.items():
        app.add_route(f"/admin/v1/queue/{name}", _Many(door, name, fields, make))
        app.add_route(f"/admin/v1/queue/{{id_}}/{name}", _Each(door, name, fields, make))


class _List:
    def __init__(self, door: Door) -> None:
        self._door = door

    async def on_get(self, req: Request, resp: falcon.asgi.Response) -> None:
        """List entries, oldest first: a page of those that are meant among the next 10,000."""
        who = await who_asks(req, self._door)
        parameters = Parameters(req, ("where", "limit", "after"), several=("where",))
        where, limit = read_where(parameters.texts("where"), who), parameters.number("limit", PAGE, LONGEST_PAGE)
        after = parameters.text("after")
        try:
            if after:
                split_entry_id(after)
        except ValueError:
            raise Refusal(400, Problem("not an entry's ID", "after")) from None
        desk = self._door.desk
        async with self._door.desk.turn("walk", who):
            found, following = await page(desk.spool, where, desk.clock.now(), after, limit)
        answer(resp, {"entries": [entry_record(*each) for each in found], "next": following})


class _Shape:
    def __init__(self, door: Door) -> None:
        self._door = door

    async def on_get(self, req: Request, resp: falcon.asgi.Response) -> None:
        """Count entries by age and destination."""
        who = await who_asks(req, self._door)
        parameters = Parameters(req, ("where", "by", "limit"), several=("where",))
        where, limit = read_where(parameters.texts("where"), who), parameters.number("limit", 20, ROWS)
        try:
            counting = Counting(By(parameters.text("by", By.DOMAIN)))
        except ValueError:
            raise Refusal(400, Problem(f"one of {', '.join(By)}", "by")) from None
        now = self._door.desk.clock.now()
        async with self._door.desk.turn("walk", who):
            async for entry, _ in meant(self._door.desk.spool, where, now):
                counting.add(entry, now - made_at(entry.message))
        answer(resp, counting.shape(limit))


class _Sites:
    def __init__(self, door: Door) -> None:
        self._door = door

    async def on_get(self, req: Request, resp: falcon.asgi.Response) -> None:
        """Show the sites that have work or taught something, the busiest first; not to tenants."""
        who = await who_asks(req, self._door)
        if who.tenant:
            raise Refusal(403, Problem("only an operator sees how busy sites are"), why=Why.FORBIDDEN)
        Parameters(req, ())
        try:
            rows = await self._door.desk.sites()
        except ControlError as error:
            raise busy(str(error), _AGAIN) from None
        answer(resp, {"sites": rows})


class _One:
    def __init__(self, door: Door) -> None:
        self._door = door

    async def on_get(self, req: Request, resp: falcon.asgi.Response, id_: str) -> None:
        """Show a message with its entries, or one entry."""
        who = await who_asks(req, self._door)
        found = await _found(self._door.desk, id_, who)
        if not found:
            raise _not_there(id_)
        answer(resp, entry_detail(found[0][0].entry, found[0][1]) if "." in id_ else message_detail(found))


class _Explain:
    def __init__(self, door: Door) -> None:
        self._door = door

    async def on_get(self, req: Request, resp: falcon.asgi.Response, id_: str) -> None:
        """Say what holds a message or an entry."""
        who = await who_asks(req, self._door)
        try:
            found = await self._door.desk.explain(id_, who)
        except NoId as error:
            raise not_found(str(error)) from None
        if found is None:
            raise _not_there(id_)
        answer(resp, found)


class _Changing:
    """A resource that changes entries: with which action, and what fields it takes."""

    def __init__(self, door: Door, name: str, fields: tuple[str, ...], make: "type_maker") -> None:
        self._door = door
        self._name = name
        self._fields = fields
        self._make = make

    def _told(self, req: Request, who: Who, about: str, results: Mapping[str, int]) -> None:
        log.info(
            "queue=%s client=%s tenant=%s by=%r about=%r %s",
            self._name,
            req.client,
            who.tenant,
            who.name,
            about[:256],
            " ".join(f"{result}={number}" for result, number in sorted(results.items())),
        )


class _Many(_Changing):
    async def on_post(self, req: Request, resp: falcon.asgi.Response) -> None:
        """Count what is meant by conditions; with `confirm` act, unless there is more than was confirmed."""
        who = await who_changes(req, self._door)
        asked = await read_asked(req, self._door.budget, ("where", "confirm", *self._fields))
        if asked.where is UNSET:
            raise Refusal(400, Problem("say which entries: conditions", "where"))
        where, desk = read_where(asked.where, who), self._door.desk
        action = self._make(self._door, who, asked)
        confirmed = asked.confirm is not UNSET
        results = dict.fromkeys(("changed", "unchanged", "in_flight", "ended", "busy"), 0)
        async with desk.turn("walk", who):
            now = desk.clock.now()
            counted = await count(desk.spool, where, action, now)
            if asked.confirm is not UNSET:
                if counted.entries > asked.confirm:
                    said = f"{counted.entries} entries are meant by now: nothing was changed"
                    raise Refusal(409, Problem(said, "confirm"), why=Why.CONFLICT)
                standing = concerned(desk.spool, where, action, now, asked.confirm)
                meant = " ".join(asked.where)
                async with self._door.audit.doing(req, f"queue.{self._name}", who.tenant, meant) as underway:
                    try:
                        async for _, answered in act(desk.queue, action, standing):
                            results[_word(answered)] += 1
                    finally:  # it is told and takes effect, too, as far as it got before the spool was sick
                        underway.result = told(results)
                        self._told(req, who, meant, results)
                        if results["in_flight"]:
                            await desk.recall()
        answer(resp, {"confirmed": confirmed, "entries": counted.entries, "recipients": counted.recipients, **results})


class _Each(_Changing):
    async def on_post(self, req: Request, resp: falcon.asgi.Response, id_: str) -> None:
        """Act on a message's entries, or on one, and say of each what came of it."""
        who = await who_changes(req, self._door)
        asked = await read_asked(req, self._door.budget, self._fields)
        action, desk = self._make(self._door, who, asked), self._door.desk
        cancels = self._name == "cancel"  # which knows of those that are not in the queue, too
        standing = await _found(desk, id_, who)
        if not standing and not cancels:
            raise _not_there(id_)
        tenant = who.tenant or next((due.message.tenant for due, _ in standing), "")
        async with self._door.audit.doing(req, f"queue.{self._name}", tenant, id_) as underway:
            if cancels:
                found = await self._cancelled(id_, who)
            else:
                answers = await desk.act(standing, action)
                found = [{"entry": entry, "result": _word(each)} for entry, each in answers]
            results = Counter(each["result"] for each in found)
            underway.result = told(results)
        self._told(req, who, id_, results)
        answer(resp, {"results": found})

    async def _cancelled(self, id_: str, who: Who) -> list[dict[str, str]]:
        found = await self._door.desk.cancel(id_, who)
        if not found:
            raise _not_there(id_)
        return [{"entry": entry, "recipient": to, "result": result} for (entry, to), result in found.items()]


type_maker = Callable[[Door, Who, Asked], Action]


def _redirect(door: Door, who: Who, asked: Asked) -> Action:
    if who.tenant:  # it could have any host on our network dialled, or other hosts given our mail
        raise Refusal(403, Problem("only an operator's key can redirect"), why=Why.FORBIDDEN)
    if asked.to is UNSET:
        raise Refusal(400, Problem("a relay HOST[:PORT], or null for routes and MX", "to"))
    try:
        relay = "" if asked.to is None else str(next_hop(asked.to, door.smtp_port))
    except ValueError:
        raise Refusal(400, Problem("it is a host name or an address, and a port", "to")) from None
    return actions.redirect(who, relay)


def _priority(_: Door, who: Who, asked: Asked) -> Action:
    if asked.class_ is UNSET:
        raise Refusal(400, Problem("one of high, normal, bulk", "class"))
    return actions.priority(who, MessageClass[asked.class_.upper()])


_ACTIONS: dict[str, tuple[tuple[str, ...], type_maker]] = {
    "hold": ((), lambda _, who, __: actions.hold(who)),
    "release": ((), lambda _, who, __: actions.release(who)),
    "retry": ((), lambda door, who, _: actions.retry(who, door.desk.clock.now())),
    "drop": ((), lambda _, who, __: actions.drop(who)),
    "cancel": ((), lambda _, who, __: actions.cancel(who)),
    "redirect": (("to",), _redirect),
    "priority": (("class",), _priority),
}


def action_fields() -> dict[str, tuple[str, ...]]:
    """Name the actions, and the fields that each takes."""
    return {name: fields for name, (fields, _) in _ACTIONS.items()}


async def _found(desk: Desk, id_: str, who: Who) -> list[actions.Standing]:
    try:
        return await find(desk.spool, id_, who.tenant)
    except NoId as error:
        raise not_found(str(error)) from None


def _word(answer: Answer) -> str:
    return "changed" if answer is Answer.DONE else answer.value


def _not_there(id_: str) -> Refusal:
    return not_found(f"{id_} is not known here")
