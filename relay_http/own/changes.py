"""POST below a message: cancel, reschedule, resend. A key that may send may do that with what was sent."""

from typing import cast

import falcon.asgi
import msgspec

from mta.accounts.keys import ApiKey
from mta.queue import actions
from mta.queue.answer import Answer
from mta.queue.standing import find
from relay_http.access import live, require, who
from relay_http.body import Request
from relay_http.door import Door
from relay_http.kept import key_of
from relay_http.once import Sends
from relay_http.outgoing import Outgoing
from relay_http.own.answers import Changed, Outcome, Result
from relay_http.own.errors import OWN
from relay_http.own.letter import Reschedule, Resend, given
from relay_http.own.mail import answer, enter, found, known_id
from relay_http.own.reading import read
from relay_http.own.send import receipted, send, times_of
from relay_http.problem import Problem, Refusal, Why, invalid, not_found
from relay_http.stored import SEES_CONTENT, read_again

_OUTCOMES: dict[Answer, Outcome] = {
    Answer.DONE: "rescheduled",
    Answer.UNCHANGED: "released",
    Answer.IN_FLIGHT: "in_flight",
    Answer.ENDED: "released",
    Answer.BUSY: "busy",
}


class Cancel:
    """POST /v1/mail/{id}/cancel."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def on_post(self, req: Request, resp: falcon.asgi.Response, id_: str) -> None:
        """Withdraw a message from everybody who has not got it yet, and say of each recipient what became of it."""
        key = await enter(self._door, req, "send")
        results = await self._door.desk.cancel(known_id(id_), who(live(key)))
        if not results:
            raise not_found(f"{id_} is not known here")
        answer(resp, Changed(id_, tuple([Result(to, cast("Outcome", result)) for (_, to), result in results.items()])))


class Rescheduling:
    """POST /v1/mail/{id}/reschedule."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def on_post(self, req: Request, resp: falcon.asgi.Response, id_: str) -> None:
        """Give a scheduled message another time; Refusal 409 when its time has come."""
        door = self._door
        key = live(await enter(door, req, "send"))
        with door.budget.hold() as held:
            asked = await door.json(req, held, lambda plain: read(plain, Reschedule))
        at, times = asked.send_at.at, times_of(door)
        if at > times.now + times.hold:
            raise invalid(f"At most {times.hold:.0f} seconds ahead.", "send_at")
        asking = who(key)
        standing = await find(door.spool, known_id(id_), asking.tenant)
        if not standing:
            await found(door, key, id_)  # or it is not known at all
            raise _released()
        deadline = standing[0][0].message.deliver_by
        if 0 < deadline <= at:
            raise invalid("The message's deliver_by comes before that.", "send_at")
        to = {due.entry.id: [each.recipient.address for each in due.entry.waiting] for due, _ in standing}
        outcomes = await door.desk.act(standing, actions.reschedule(asking, at))
        if all(outcome is Answer.UNCHANGED or outcome is Answer.ENDED for _, outcome in outcomes):
            raise _released()
        results = [Result(address, _OUTCOMES[outcome]) for entry, outcome in outcomes for address in to[entry]]
        answer(resp, Changed(id_, tuple(results)))


class Resending(Sends):
    """POST /v1/mail/{id}/resend."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def on_post(self, req: Request, resp: falcon.asgi.Response, id_: str) -> None:
        """Send the same content once more, as a new message; Refusal 410 when it is gone."""
        door = self._door
        key = await door.enter(req, OWN, "send")
        if not key.tenant:
            raise Refusal(403, Problem("access forbidden"), why=Why.FORBIDDEN)
        endpoint = f"mail/{known_id(id_)}/resend"
        with door.budget.hold() as held:
            asked = await door.json(req, held, lambda plain: read(plain, Resend))
            message = await found(door, key, id_)
            gone: Refusal | None = None
            try:
                again = await read_again(door.spool, message, held)
            except Refusal as refusal:
                gone = refusal
            if gone is None:
                sent = await send(door, req, key, endpoint, _addressed(again, asked, key), held)
            else:  # who asks again is answered as before, whatever has become of the content
                kept = await door.sender.replayed(key.tenant, endpoint, key_of(req))
                if kept is None:
                    raise gone
                sent = receipted(kept)
        sent.put(resp)


def _addressed(again: Outgoing, asked: Resend, key: ApiKey) -> Outgoing:
    """Say whom it is for; to show it to others is for keys that may see it themselves."""
    boxes = given(asked.to, None)
    if boxes is None:
        return again
    if not boxes:
        raise invalid("At least one recipient.", "to")
    to = tuple([each.mailbox for each in boxes])
    if not {each.address for each in to} <= {each.address for each in again.recipients}:
        require(key, SEES_CONTENT)
    return msgspec.structs.replace(again, to=to)


def _released() -> Refusal:
    return Refusal(409, Problem("its time has come: it is not scheduled any more"), why=Why.CONFLICT)
