"""Events as the vendor's clients read them. Pure.

What ends a message without delivering it is a permanent failure there, whatever it is here; what waits a temporary one.
An `accepted` event is one a message: its recipient is the first, or who was searched for, and the message has all.
"""

from mta.mail.address import domain_of
from mta.mail.event import Event, EventType
from mta.mail.summary import NOTHING
from mta.queue.views import EventShown, MessageShown

Json = dict[str, object]
PERMANENT = (EventType.BOUNCED, EventType.EXPIRED, EventType.DROPPED, EventType.CANCELLED)
TEMPORARY = (EventType.DEFERRED,)
SHOWN = (EventType.ACCEPTED, EventType.DELIVERED, *TEMPORARY, *PERMANENT)
_REASONS = {
    EventType.DEFERRED: "generic",
    EventType.BOUNCED: "bounce",
    EventType.EXPIRED: "old",
    EventType.DROPPED: "generic",
    EventType.CANCELLED: "generic",
}
_CODES = {EventType.EXPIRED: 602}  # of the vendor's own, where no server has said one
_REPLY_CODE = 3


def event_item(shown: EventShown, recipient: str, messages_url: str) -> Json:
    """Show an event. `messages_url` is where the stored messages of the domain are; `recipient` who was asked for."""
    event, message = shown.event, shown.message
    to = event.recipient or recipient or next(iter(event.recipients), "")
    item: Json = {
        "event": _kind(event),
        "id": event.id,
        "timestamp": event.at,
        "log-level": _level(event),
        "recipient": to,
        "recipient-domain": domain_of(to) if "@" in to else "",
        "message": _message(event, message),
        "envelope": _envelope(event, message, to),
        "flags": {"is-routed": False, "is-authenticated": True, "is-system-test": False, "is-test-mode": False},
        "tags": list(message.categories if message is not None else event.categories),
        "campaigns": [],
        "user-variables": message.custom_args if message is not None else event.custom_args,
        "storage": {"url": f"{messages_url}/{event.message}", "key": event.message},
    }
    if event.type is EventType.ACCEPTED:
        return item | {"method": event.origin}
    if event.type is not EventType.DELIVERED:
        item["severity"] = "temporary" if event.type in TEMPORARY else "permanent"
        item["reason"] = _REASONS[event.type]
    return item | {"delivery-status": _status(event)}


def _kind(event: Event) -> str:
    return event.type.value if event.type in (EventType.ACCEPTED, EventType.DELIVERED) else "failed"


def _level(event: Event) -> str:
    if event.type in PERMANENT:
        return "error"
    return "warn" if event.type in TEMPORARY else "info"


def _message(event: Event, message: MessageShown | None) -> Json:
    summary = (message.summary if message is not None else event.summary) or NOTHING
    message_id = message.message_id if message is not None else event.message_id
    recipients = [each.address for each in message.recipients] if message is not None else list(event.recipients)
    return {
        "headers": {
            "to": summary.to,
            "from": summary.from_,
            "subject": summary.subject,
            "message-id": message_id.removeprefix("<").removesuffix(">"),
        },
        "attachments": [
            {"filename": each.name, "content-type": each.media_type, "size": each.size} for each in summary.files
        ],
        "recipients": recipients,
        "size": message.size if message is not None else event.size,
    }


def _envelope(event: Event, message: MessageShown | None, to: str) -> Json:
    sender = message.sender if message is not None else event.sender
    return {"transport": "smtp", "sender": sender, "sending-ip": event.source, "targets": to}


def _status(event: Event) -> Json:
    reply = event.reply
    code = int(reply[:_REPLY_CODE]) if reply[:_REPLY_CODE].isdecimal() else _CODES.get(event.type, 0)
    status: Json = {
        "code": code,
        "message": reply,
        "description": event.reason,
        "enhanced-code": event.status,
        "attempt-no": event.attempt,
        "mx-host": event.relay.partition("[")[0],
        "tls": bool(event.tls),
        "session-seconds": event.delay,
    }
    if event.retry_at:
        status["retry-seconds"] = max(0, round(event.retry_at - event.at))
    return status
