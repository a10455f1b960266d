"""A message read back as it is stored, while it lives; and sent once more."""

import asyncio

import msgspec

from mta.accounts.keys import ApiKey
from mta.content.compose import Mailbox
from mta.content.texts import Texts, read_texts
from mta.mail import headers
from mta.mail.address import AddressError
from mta.queue.views import MessageShown
from mta.spool.interface import Spool, SpoolError
from mta.spool.records import Message
from relay_http.body import Budget, Held
from relay_http.contents import LARGE
from relay_http.outgoing import Outgoing
from relay_http.problem import Problem, Refusal, Why
from relay_http.values import mailbox

SEES_CONTENT = "content.read"
"""What a key has to be good for to see what messages say, in all dialects."""
TEXTS_LIMIT = 8 << 20  # octets of content: of more, no texts are shown
_NEW = (b"date", b"message-id")  # receivers that saw the first would take the same for a copy of it


class Stored(msgspec.Struct, frozen=True):
    """A message's record and its content."""

    record: Message
    content: bytes


async def read_stored(spool: Spool, tenant: str, message_id: str, held: Held) -> Stored | None:
    """Read a tenant's message whole; None when it is gone, or not there. Refusal 413, 503 for too much."""
    record = await spool.message(message_id)
    if record is None or record.tenant != tenant:
        return None
    held.add(record.size)
    try:
        return Stored(record, await spool.content(record))
    except SpoolError:
        if await spool.message(message_id) is None:  # it ended meanwhile, and its content went with it
            return None
        raise


async def read_stored_texts(spool: Spool, budget: Budget, key: ApiKey, shown: MessageShown) -> Texts:
    """Read the texts of a message that is stored, off the event loop when it is large.

    None of one over TEXTS_LIMIT, and none for a key that may not see contents.
    """
    if shown.size > TEXTS_LIMIT or not key.allows(SEES_CONTENT):
        return Texts()
    with budget.hold() as held:
        stored = await read_stored(spool, shown.tenant, shown.id, held)
        if stored is None:
            return Texts()
        if shown.size > LARGE:
            return await asyncio.to_thread(read_texts, stored.content)
        return read_texts(stored.content)


async def read_again(spool: Spool, shown: MessageShown, held: Held) -> Outgoing:
    """Make of a message the same once more, for all of its recipients; Refusal 410 when its content is gone."""
    stored = await read_stored(spool, shown.tenant, shown.id, held)
    if stored is None:
        raise Refusal(410, Problem("The content of this message is gone."), why=Why.GONE)
    header, body = headers.split(stored.content)
    record, summary = stored.record, shown.summary
    return Outgoing(
        sender=_sender(header, summary.from_, record.sender),
        to=tuple([Mailbox(each.address) for each in shown.recipients]),
        subject=summary.subject,
        raw=headers.remove(header, _NEW) + b"\r\n" + body,
        files=summary.files,
        categories=record.categories,
        custom_args=record.custom_args,
        message_class=record.message_class,
        retry_intervals=record.retry_intervals,
        lifetime=0.0 if record.deliver_by else record.expires_at - record.release_at,
        tls_required=record.tls_required,
        envelope_sender=record.sender,
    )


def _sender(header: bytes, shown: str, envelope_sender: str) -> Mailbox:
    """Read whom it is from, because the domain can be another tenant's by now; the name as lists have it."""
    try:
        address = mailbox((headers.first(header, b"from") or b"").decode("utf-8", "replace")).address
    except AddressError:
        return Mailbox(envelope_sender)
    name = shown.removesuffix(f" <{address}>")
    return Mailbox(address, name if name != shown else "")
