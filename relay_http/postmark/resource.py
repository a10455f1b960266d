"""The resources: send, batch, list, details; and what is refused until there are templates."""

from collections.abc import Sequence

import falcon.asgi
import msgspec

from mta.accounts.keys import ApiKey
from mta.mail.address import AddressError
from mta.queue.views import Search
from relay_http.answer import Answer, put_json
from relay_http.body import BODY_LIMIT, Held, Request
from relay_http.door import Door
from relay_http.iso import read_day, write_time
from relay_http.kept import key_of
from relay_http.once import Sends
from relay_http.outgoing import Outgoing
from relay_http.parameters import Parameters
from relay_http.postmark.errors import POSTMARK, error
from relay_http.postmark.request import read_email
from relay_http.postmark.shown import STATUSES, detailed, listed
from relay_http.problem import Problem, Refusal, Why, invalid, not_found
from relay_http.readers import number_of
from relay_http.sending import Order, type_respond
from relay_http.stored import read_stored_texts
from relay_http.uuids import id_of, uuid_of
from relay_http.values import address
from relay_http.writing import Named, named

TEST_TOKEN = "POSTMARK_API_TEST"  # noqa: S105 everybody's: what comes with it is looked at and never sent
BATCH_LIMIT, BATCH_OCTETS = 500, 50_000_000
TEST_OCTETS = 1_000_000  # of a request by who knows whom
PAGE, LONGEST_PAGE, OFFSET_MOST = 100, 500, 10_000
FILTERS = ("recipient", "fromemail", "tag", "status", "fromdate", "todate", "subject")
IN_CAMELS = {"fromemail": "fromEmail", "fromdate": "fromDate", "todate": "toDate"}  # as the Node client writes them
_encode = msgspec.json.Encoder().encode
type_wrong = dict[int, dict[str, object]]
"""What is wrong with messages of a batch, by their place in it."""


class Email(Sends):
    """`/email`."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def on_post(self, req: Request, resp: falcon.asgi.Response) -> None:
        """Send a message."""
        door = self._door
        key = await _sender(door, req)
        with door.budget.hold() as held:
            email = await door.json(req, held, read_email, BODY_LIMIT if key else TEST_OCTETS)

            def respond(named: Sequence[Named]) -> Answer:
                return Answer(status=200, body=_encode(_accepted(named[0], door.clock.now(), test=key is None)))

            answer = await _sent(door, req, key, "email", [email], respond, held)
        answer.put(resp)


class Batch(Sends):
    """`/email/batch`."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def on_post(self, req: Request, resp: falcon.asgi.Response) -> None:
        """Send those messages of a batch that are right, all together, and say of each what came of it."""
        door = self._door
        key = await _sender(door, req)
        wrong: type_wrong = {}
        with door.budget.hold() as held:
            emails = await door.json(
                req, held, lambda plain: _read_batch(plain, wrong), BATCH_OCTETS if key else TEST_OCTETS
            )

            def respond(named: Sequence[Named]) -> Answer:
                accepted = (_accepted(each, door.clock.now(), test=key is None) for each in named)
                results = [wrong.get(number) or next(accepted) for number in range(len(named) + len(wrong))]
                return Answer(status=200, body=_encode(results))

            answer = await _sent(door, req, key, "email/batch", emails, respond, held) if emails else respond(())
        answer.put(resp)


class Templates(Sends):
    """`/email/withTemplate` and `/email/batchWithTemplates`."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def on_post(self, req: Request, _resp: falcon.asgi.Response) -> None:
        """Refuse."""
        await _sender(self._door, req)
        raise Refusal(422, Problem("Templates are not supported yet.", "TemplateModel"))


class Messages:
    """`/messages/outbound`."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def on_get(self, req: Request, resp: falcon.asgi.Response) -> None:
        """List messages, the last first."""
        door = self._door
        key = await door.enter(req, POSTMARK, "read")
        given = Parameters(req, ("count", "offset", *FILTERS, *IN_CAMELS.values()))
        count, offset = given.number("count", PAGE, LONGEST_PAGE), number_of(given.text("offset", "0"), 0, OFFSET_MOST)
        if offset is None:
            raise invalid(f"a number from 0 to {OFFSET_MOST}", "offset")
        search = _search(given)
        page = await door.views.messages(key.tenant, search, limit=count, offset=offset)
        total = await door.views.count(key.tenant, search, OFFSET_MOST)
        put_json(resp, {"TotalCount": total, "Messages": [listed(each) for each in page.messages]})


class Details:
    """`/messages/outbound/{id}/details`."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def on_get(self, req: Request, resp: falcon.asgi.Response, id_: str) -> None:
        """Show a message with its events, and with its texts while they are stored."""
        door = self._door
        key = await door.enter(req, POSTMARK, "read")
        message_id = id_of(id_)
        shown = await door.views.message(key.tenant, message_id) if message_id else None
        if shown is None:
            raise not_found("This message was not found.")
        events = [event for _, event in await door.views.timeline(key.tenant, shown.id)]
        put_json(resp, detailed(shown, await read_stored_texts(door.spool, door.budget, key, shown), events))


async def _sender(door: Door, req: Request) -> ApiKey | None:
    """Return the key of a request that sends; None for the test token."""
    return None if POSTMARK.credential(req) == TEST_TOKEN else await door.enter(req, POSTMARK, "send")


async def _sent(
    door: Door,
    req: Request,
    key: ApiKey | None,
    endpoint: str,
    emails: list[Outgoing],
    respond: type_respond,
    held: Held,
) -> Answer:
    if key is None:
        return respond(named(emails, door.hostname, one_message_id=False))
    order = Order(
        key=key,
        endpoint=endpoint,
        dialect=POSTMARK.name,
        messages=emails,
        respond=respond,
        idempotency_key=key_of(req),
    )
    return (await door.sender.send(req, order, held)).answer


def _read_batch(plain: object, wrong: type_wrong) -> list[Outgoing]:
    """Read the messages of a batch; what is wrong with one goes to `wrong`."""
    if not isinstance(plain, list):
        raise Refusal(422, Problem("A batch is an array of messages."))
    if len(plain) > BATCH_LIMIT:
        said = f"Too many messages: a batch has at most {BATCH_LIMIT}, {len(plain)} are given."
        raise Refusal(422, Problem(said), why=Why.TOO_LARGE)
    found = []
    for number, each in enumerate(plain):
        try:
            found.append(read_email(each))
        except Refusal as refusal:
            wrong[number] = error(refusal)
    return found


def _accepted(named: Named, now: float, *, test: bool) -> dict[str, object]:
    to = ", ".join([each.address for each in named.outgoing.to])
    return {
        **({"To": to} if to else {}),
        "SubmittedAt": write_time(now),
        "MessageID": uuid_of(named.id),
        "ErrorCode": 0,
        "Message": "Test job accepted" if test else "OK",
    }


def _search(given: Parameters) -> Search:
    status = given.text("status").lower()
    if status and status not in STATUSES:
        raise invalid(f"one of {', '.join(STATUSES)}", "status")
    since, until = _day(given, "fromdate"), _day(given, "todate")
    return Search(
        sent_in=POSTMARK.name,
        recipient=_address(given, "recipient"),
        sender=_address(given, "fromemail"),
        category=given.text("tag"),
        words=given.text("subject"),
        statuses=STATUSES.get(status, ()),
        since=since and since[0],
        until=until and until[1],
    )


def _address(given: Parameters, name: str) -> str:
    text = _text(given, name)
    try:
        return address(text) if text else ""
    except AddressError:
        raise invalid("not an address", name) from None


def _day(given: Parameters, name: str) -> tuple[float, float] | None:
    text = _text(given, name)
    try:
        return read_day(text) if text else None
    except ValueError:
        raise invalid("a date such as 2027-06-01, with a time or without", name) from None


def _text(given: Parameters, name: str) -> str:
    return given.text(name) or given.text(IN_CAMELS.get(name, name))
