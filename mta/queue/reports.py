"""DSNs as submissions: what a transition reports, written and addressed to the message's sender."""

import logging
from collections.abc import Sequence

from mta.mail.dsn import DsnKind, DsnRecipient, DsnReport, build_dsn
from mta.mail.envelope import Envelope, Notify, Recipient
from mta.mail.ids import new_message_id
from mta.queue.submission import Submission
from mta.queue.transitions import Reported
from mta.spool.interface import Spool, SpoolError
from mta.spool.records import Entry, Message, MessageClass, Origin

log = logging.getLogger(__name__)

FULL_LIMIT = 64 * 1024  # octets of a message that come back whole when RET=FULL asks for it


async def report(
    spool: Spool, message: Message, entry: Entry, kind: DsnKind, reported: Sequence[Reported], hostname: str, now: float
) -> Submission:
    """Write the DSN of `kind` for the recipients reported. A message that cannot be read is left out of it.

    What is told of a message with REQUIRETLS is protected as the message is, and returns its header alone (RFC 8689 5).
    """
    protected = message.tls_required == "yes"
    dsn_id = new_message_id()
    content = build_dsn(
        DsnReport(
            kind=kind,
            id=dsn_id,
            hostname=hostname,
            at=now,
            sender=message.sender,
            recipients=tuple(_told(each, entry) for each in reported),
            message_id=message.id,
            arrived_at=message.accepted_at,
            content=await _original(spool, message, entry),
            size=message.size,
            envid=message.envid,
            ret="HDRS" if protected else message.ret,
            retry_until=message.expires_at if kind is DsnKind.DELAYED else 0.0,
            deliver_by=message.deliver_by if message.by_mode else 0.0,
            hold=message.hold,
        ),
        FULL_LIMIT,
    )
    sender = Recipient(message.sender, notify=int(Notify.NEVER))
    return Submission(
        id=dsn_id,
        tenant=message.tenant,
        envelope=Envelope(
            sender="",
            recipients=(sender,),
            eight_bit=not content.isascii(),
            smtputf8=not message.sender.isascii(),
            priority=message.priority,  # RFC 6710 4.6
            tls_required="yes" if protected else "",
        ),
        message_class=message.message_class if message.priority else MessageClass.NORMAL,
        origin=Origin.DSN,
        content=content,
        note=f"{kind.value} report of {message.id}",
    )


def _told(reported: Reported, entry: Entry) -> DsnRecipient:
    recipient = reported.recipient.recipient
    return DsnRecipient(
        address=recipient.address,
        orcpt=recipient.orcpt,
        reply=str(reported.reply),
        relay=entry.last_relay if reported.remote else "",
        last_attempt_at=entry.last_attempt_at,
    )


async def _original(spool: Spool, message: Message, entry: Entry) -> bytes:
    try:
        return await spool.content(message, FULL_LIMIT)
    except SpoolError as error:
        failure = error
    # one that has ended since it was read has taken its content with it, and its report will not be stored
    if await _is_there(spool, entry):
        log.error("message=%s doing=report-without-original error=%s", message.id, failure)
    return b""


async def _is_there(spool: Spool, entry: Entry) -> bool:
    try:
        return await spool.entry(entry.id) is not None
    except SpoolError:
        return True
