"""POST /v1/mail and /v1/mail/batch: mail in the field's own terms, and what would become of it."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import falcon.asgi
import msgspec

from mta.accounts.keys import ApiKey
from mta.control import ControlError
from mta.mail.address import domain_of
from mta.queue.actions import Who
from mta.queue.prospect import Asked
from mta.queue.submission import Submission
from relay_http.answer import Answer
from relay_http.body import Held, Request
from relay_http.door import Door
from relay_http.kept import key_of
from relay_http.once import Sends
from relay_http.outgoing import Outgoing
from relay_http.own.answers import Accepted, Durability, Foreseen, SentMany, SentOne
from relay_http.own.errors import OWN
from relay_http.own.letter import Batch, Mail
from relay_http.own.reading import read
from relay_http.own.translate import Times, translate_batch, translate_mail
from relay_http.problem import Refusal
from relay_http.sending import Order, Sent, by_the_time, type_respond
from relay_http.writing import Named

_Read = TypeVar("_Read")
_SHOWN = 256 << 10  # octets of a dry run's message
_encode = msgspec.json.Encoder().encode


class SendOne(Sends):
    """POST /v1/mail."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def on_post(self, req: Request, resp: falcon.asgi.Response) -> None:
        """Send a message, or say what would come of it."""
        door = self._door
        key = await door.enter(req, OWN, "send")
        with door.budget.hold() as held:
            (mail, messages), late = await door.json(req, held, _by_the_time(door, _read_mail))
            respond = _sandboxed_one if mail.sandbox or key.sandbox else _one
            order = _order(req, key, "mail", messages, respond, sandbox=mail.sandbox)
            order = msgspec.structs.replace(order, too_late=late)
            if mail.dry_run:
                answer = await self._foreseen(req, order)
            else:
                answer = receipted(await door.sender.send(req, order, held))
        answer.put(resp)

    async def _foreseen(self, req: Request, order: Order) -> Answer:
        """Write the message, and have the delivery role asked, one question of a tenant's at a time."""
        written = await self._door.sender.rendered(req, order)
        asked = _asked(written, order.messages[0])
        prospect, trouble = None, ""
        try:
            async with self._door.desk.turn("plan", Who(order.key.id, order.key.tenant)):
                prospect = await self._door.desk.foresee(asked)
        except ControlError as error:
            trouble = str(error)
        envelope = written.envelope
        foreseen = Foreseen(
            mime=written.content[:_SHOWN].decode("utf-8", "backslashreplace"),
            size=len(written.content),
            sender=envelope.sender,
            recipients=tuple([each.address for each in envelope.recipients]),
            signature=prospect.signature if prospect is not None else None,
            alignment=prospect.alignment if prospect is not None else None,
            destinations=prospect.destinations if prospect is not None else None,
            more=prospect.more if prospect is not None else 0,
            trouble=trouble,
        )
        return Answer(status=200, body=_encode(foreseen), headers={"Cache-Control": "no-store"})


class SendMany(Sends):
    """POST /v1/mail/batch."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def on_post(self, req: Request, resp: falcon.asgi.Response) -> None:
        """Send all messages of a batch, or none."""
        door = self._door
        key = await door.enter(req, OWN, "send")
        with door.budget.hold() as held:
            (batch, messages), late = await door.json(req, held, _by_the_time(door, _read_batch))
            respond = _sandboxed_many if batch.sandbox or key.sandbox else _many
            order = _order(req, key, "mail/batch", messages, respond, sandbox=batch.sandbox)
            order = msgspec.structs.replace(order, too_late=late)
            answer = receipted(await door.sender.send(req, order, held))
        answer.put(resp)


def _read_mail(plain: object, times: Times) -> tuple[Mail, list[Outgoing]]:
    mail = read(plain, Mail)
    return mail, translate_mail(mail, times)


def _read_batch(plain: object, times: Times) -> tuple[Batch, list[Outgoing]]:
    batch = read(plain, Batch)
    return batch, translate_batch(batch, times)


def _by_the_time(
    door: Door, read_at: Callable[[object, Times], _Read]
) -> Callable[[object], tuple[_Read, Refusal | None]]:
    now = door.clock.now()
    return lambda plain: by_the_time(lambda at: read_at(plain, Times(at, now - at + door.hold, door.lifetime)), now)


async def send(door: Door, req: Request, key: ApiKey, endpoint: str, message: Outgoing, held: Held) -> Answer:
    """Send one message for an endpoint of its own, and answer as POST /v1/mail does."""
    order = _order(req, key, endpoint, [message], _sandboxed_one if key.sandbox else _one, sandbox=False)
    return receipted(await door.sender.send(req, order, held))


def times_of(door: Door) -> Times:
    """Say when it is, and how far ahead a message may be sent."""
    return Times(door.clock.now(), door.hold, door.lifetime)


def _order(
    req: Request, key: ApiKey, endpoint: str, messages: Sequence[Outgoing], respond: type_respond, *, sandbox: bool
) -> Order:
    return Order(
        key=key,
        endpoint=endpoint,
        dialect=OWN.name,
        messages=messages,
        respond=respond,
        sandbox=sandbox,
        idempotency_key=key_of(req),
    )


def receipted(sent: Sent) -> Answer:
    """Put the receipt into an answer that was written before there was one."""
    if not sent.position:
        return sent.answer
    took = None if sent.replayed else round(sent.milliseconds, 3)
    receipt = _encode(Durability(position=sent.position, scope="fsync", milliseconds=took))
    return msgspec.structs.replace(sent.answer, body=sent.answer.body[:-1] + b',"receipt":' + receipt + b"}")


def _one_of(*, sandbox: bool) -> Callable[[Sequence[Named]], Answer]:
    def respond(named: Sequence[Named]) -> Answer:
        each = named[0]
        body = _encode(SentOne(id=each.id, message_id=each.message_id, sandbox=sandbox))
        return Answer(status=202, body=body, headers={} if sandbox else {"Location": f"/v1/mail/{each.id}"})

    return respond


def _many_of(*, sandbox: bool) -> Callable[[Sequence[Named]], Answer]:
    def respond(named: Sequence[Named]) -> Answer:
        messages = tuple([Accepted(each.id, each.message_id) for each in named])
        return Answer(status=202, body=_encode(SentMany(request=named[0].id, messages=messages, sandbox=sandbox)))

    return respond


_one, _sandboxed_one = _one_of(sandbox=False), _one_of(sandbox=True)
_many, _sandboxed_many = _many_of(sandbox=False), _many_of(sandbox=True)


def _asked(written: Submission, outgoing: Outgoing) -> Asked:
    envelope = written.envelope
    return Asked(
        tenant=written.tenant,
        sign_domain=written.sign_domain,
        from_domain=domain_of(outgoing.sender.address),
        return_domain=domain_of(envelope.sender) if envelope.sender else "",
        domains=tuple(dict.fromkeys([each.domain for each in envelope.recipients])),
        tls_required=envelope.tls_required == "yes",
    )
