"""The resources: send, batch, list, get, reschedule, cancel."""

from collections.abc import Sequence

import falcon.asgi
import msgspec

from mta.accounts.keys import ApiKey
from mta.queue import actions
from mta.queue.answer import Answer as Done
from mta.queue.standing import find
from mta.queue.views import MessageShown, Search, WrongCursor
from relay_http.access import live, who
from relay_http.answer import Answer, put_json
from relay_http.body import Request
from relay_http.door import Door
from relay_http.kept import key_of
from relay_http.once import Sends
from relay_http.outgoing import Outgoing
from relay_http.problem import Problem, Refusal, Why, busy, not_found
from relay_http.readers import number_of
from relay_http.resend.errors import RESEND, said
from relay_http.resend.request import EMAILS_LIMIT, read_email, read_update
from relay_http.resend.shown import detailed, listed
from relay_http.scheduled import Cancelling, cancel_scheduled
from relay_http.sending import Order, by_the_time, type_respond
from relay_http.stored import read_stored_texts
from relay_http.uuids import id_of, uuid_of
from relay_http.writing import Named

BODY_LIMIT = 50_000_000  # octets: 40 MB of attachments are allowed
LIMIT, LIMIT_MOST = 20, 100
STRICT, PERMISSIVE = "strict", "permissive"
_encode = msgspec.json.Encoder().encode


class Emails(Sends):
    """`/emails`."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def on_post(self, req: Request, resp: falcon.asgi.Response) -> None:
        """Send an email."""
        door = self._door
        key = await door.enter(req, RESEND, "send")
        with door.budget.hold() as held:
            now = door.clock.now()
            until = now + door.hold
            email, late = await door.json(
                req, held, lambda plain: by_the_time(lambda at: read_email(plain, at, until - at), now), BODY_LIMIT
            )
            order = msgspec.structs.replace(_order(req, key, "emails", [email], _accepted), too_late=late)
            sent = await door.sender.send(req, order, held)
        sent.answer.put(resp)

    async def on_get(self, req: Request, resp: falcon.asgi.Response) -> None:
        """List emails, the last first, behind (`after`) or before one of them."""
        door = self._door
        key = await door.enter(req, RESEND, "read")
        limit = number_of(req.get_param("limit") or str(LIMIT), 1, LIMIT_MOST)
        if limit is None:
            raise _wrong("limit", f"This is not a number from 1 to {LIMIT_MOST}.")
        after, before = req.get_param("after"), req.get_param("before")
        if after and before:
            raise _wrong("after", "Give after or before, not both.")
        cursor = id_of(after or before or "")
        try:
            if (after or before) and cursor is None:
                raise WrongCursor
            page = await door.views.messages(
                key.tenant, Search(sent_in=RESEND.name), limit=limit, cursor=cursor or "", oldest=bool(before)
            )
        except WrongCursor:
            raise _wrong("before" if before else "after", "There is no email with this id.") from None
        messages = page.messages[::-1] if before else page.messages
        put_json(resp, {"object": "list", "has_more": bool(page.next), "data": [listed(each) for each in messages]})


class Batch(Sends):
    """`/emails/batch`."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def on_post(self, req: Request, resp: falcon.asgi.Response) -> None:
        """Send all emails of a batch or none; if that is asked for, those that are right."""
        door = self._door
        key = await door.enter(req, RESEND, "send")
        mode = req.get_header("x-batch-validation") or STRICT
        if mode not in (STRICT, PERMISSIVE):
            raise _wrong("x-batch-validation", f"This is neither {STRICT} nor {PERMISSIVE}.")
        wrong: list[dict[str, object]] | None = [] if mode == PERMISSIVE else None
        with door.budget.hold() as held:
            now = door.clock.now()
            emails, late = await door.json(
                req, held, lambda plain: by_the_time(lambda at: self._read(plain, wrong, at, now), now), BODY_LIMIT
            )
            respond = _accepting(wrong)
            if emails:
                order = msgspec.structs.replace(_order(req, key, "emails/batch", emails, respond), too_late=late)
                answer = (await door.sender.send(req, order, held)).answer
            else:
                answer = respond(())
        answer.put(resp)

    def _read(self, plain: object, wrong: list[dict[str, object]] | None, at: float, now: float) -> list[Outgoing]:
        """Read the emails; what is wrong goes to `wrong` if that is a list, else Refusal 422."""
        if not isinstance(plain, list) or not 0 < len(plain) <= EMAILS_LIMIT:
            raise Refusal(422, Problem(f"A batch is an array of 1 to {EMAILS_LIMIT} emails."))
        until, found = now + self._door.hold, []
        for number, each in enumerate(plain):
            try:
                path = "" if wrong is not None else str(number)
                found.append(read_email(each, at, until - at, path))
            except Refusal as refusal:
                if wrong is None:
                    raise
                wrong.append({"index": number, "message": said(refusal)})
        return found


class Email:
    """`/emails/{id}`."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def on_get(self, req: Request, resp: falcon.asgi.Response, id_: str) -> None:
        """Show an email, with its texts while they are stored."""
        door = self._door
        key = await door.enter(req, RESEND, "read")
        shown = await _found(door, key, id_)
        put_json(resp, detailed(shown, await read_stored_texts(door.spool, door.budget, key, shown)))

    async def on_patch(self, req: Request, resp: falcon.asgi.Response, id_: str) -> None:
        """Give a scheduled email another time; the same once more changes nothing."""
        door = self._door
        key = live(await door.enter(req, RESEND, "send"))
        with door.budget.hold() as held:
            at = await door.json(req, held, lambda plain: read_update(plain, door.clock.now(), door.hold))
        standing = await find(door.spool, _known(id_), key.tenant)
        if not standing:
            await _found(door, key, id_)  # or it is not known at all
            raise _released()
        if 0 < standing[0][0].message.deliver_by <= at:
            raise _wrong("scheduled_at", "The email is to be delivered before that, or not at all.")
        done = {each for _, each in await door.desk.act(standing, actions.reschedule(who(key), at))}
        if Done.BUSY in done:
            raise busy("The email was changed meanwhile, time and again: ask once more.", 1)
        if done != {Done.DONE}:
            raise _released()
        put_json(resp, {"object": "email", "id": uuid_of(_known(id_))})


class Cancel:
    """`/emails/{id}/cancel`."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def on_post(self, req: Request, resp: falcon.asgi.Response, id_: str) -> None:
        """Cancel an email that is scheduled; one that is cancelled stays so."""
        key = await self._door.enter(req, RESEND, "send")
        came = await cancel_scheduled(self._door, key, _known(id_))
        if came is Cancelling.UNKNOWN:
            raise _unknown()
        if came is Cancelling.BUSY:
            raise busy("The email was changed meanwhile, time and again: ask once more.", 1)
        if came is Cancelling.IN_FLIGHT:
            raise Refusal(
                409, Problem("The email is being delivered: it is cancelled unless that succeeds."), why=Why.CONFLICT
            )
        if came is Cancelling.RELEASED:
            raise _released()
        put_json(resp, {"object": "email", "id": uuid_of(_known(id_))})


def _order(req: Request, key: ApiKey, endpoint: str, messages: Sequence[Outgoing], respond: type_respond) -> Order:
    return Order(
        key=key,
        endpoint=endpoint,
        dialect=RESEND.name,
        messages=messages,
        respond=respond,
        idempotency_key=key_of(req),
    )


def _accepted(named: Sequence[Named]) -> Answer:
    return Answer(status=200, body=_encode({"id": uuid_of(named[0].id)}))


def _accepting(wrong: list[dict[str, object]] | None) -> type_respond:
    def accepted(named: Sequence[Named]) -> Answer:
        body: dict[str, object] = {"data": [{"id": uuid_of(each.id)} for each in named]}
        return Answer(status=200, body=_encode(body if wrong is None else body | {"errors": wrong}))

    return accepted


async def _found(door: Door, key: ApiKey, id_: str) -> MessageShown:
    shown = await door.views.message(key.tenant, _known(id_))
    if shown is None:
        raise _unknown()
    return shown


def _known(id_: str) -> str:
    found = id_of(id_)
    if found is None:
        raise _unknown()
    return found


def _unknown() -> Refusal:
    return not_found("Email not found")


def _released() -> Refusal:
    return Refusal(409, Problem("The email is not scheduled any more: its time has come."), why=Why.CONFLICT)


def _wrong(name: str, message: str) -> Refusal:
    return Refusal(422, Problem(message, name))
