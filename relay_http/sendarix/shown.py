"""What lists and details show: messages of the views in Sendarix's words. Pure."""

from collections.abc import Iterable, Iterator

from mta.mail.event import Event, EventType
from mta.queue.views import MessageShown, RecipientShown, Status
from relay_http.iso import write_time

PREFIX = "msg_"
_TIMELINE_SHOWN = 1000  # the last
_WORDS = {
    Status.SCHEDULED: "scheduled",
    Status.QUEUED: "queued",
    Status.DEFERRED: "deferred",
    Status.BOUNCED: "bounced",
    Status.EXPIRED: "bounced",  # after its attempts a message is bounced for good, as the document has it
    Status.DROPPED: "dropped",
    Status.CANCELLED: "cancelled",
    Status.DELIVERED: "delivered",
}
STATUSES = {word: tuple([each for each in _WORDS if _WORDS[each] == word]) for word in _WORDS.values()}
_EVENTS = {
    EventType.DEFERRED: "deferred",
    EventType.DELIVERED: "delivered",
    EventType.BOUNCED: "bounced",
    EventType.EXPIRED: "bounced",
    EventType.DROPPED: "dropped",
    EventType.CANCELLED: "cancelled",
}


def listed(shown: MessageShown) -> dict[str, object]:
    """Show a message as lists do."""
    return {
        "message_id": PREFIX + shown.id,
        "status": _WORDS[shown.status],
        "recipient": shown.recipients[0].address if shown.recipients else "",
        "from": shown.summary.from_ or shown.sender,
        "subject": shown.summary.subject,
        "created_at": write_time(shown.at),
        "updated_at": write_time(shown.last_at),
        "scheduled_time": write_time(shown.release_at) if shown.release_at > shown.at else None,
        "metadata": shown.custom_args,
    }


def detailed(shown: MessageShown, events: Iterable[Event]) -> dict[str, object]:
    """Show all of a message."""
    timeline = [each for event in events for each in _told(event)]
    return listed(shown) | {
        "outcomes": [_outcome(each) for each in shown.recipients],
        "timeline": timeline[-_TIMELINE_SHOWN:],
    }


def _outcome(recipient: RecipientShown) -> dict[str, object]:
    return {
        "recipient": recipient.address,
        "status": _WORDS[recipient.status],
        "timestamp": write_time(recipient.at),
        "attempts": recipient.attempts,
        "mail_server": recipient.relay or None,
        "response": recipient.reply or None,
        "retry_at": write_time(recipient.retry_at) if recipient.retry_at else None,
    }


def _told(event: Event) -> Iterator[dict[str, object]]:
    at = write_time(event.at)
    if event.type is EventType.ACCEPTED:  # both at once: what is queued is on disk
        yield {"event": "scheduled" if event.release_at else "queued", "timestamp": at}
        yield {"event": "accepted", "timestamp": at}
    elif event.type in _EVENTS:
        yield {
            "event": _EVENTS[event.type],
            "timestamp": at,
            "recipient": event.recipient,
            "response": event.reply or event.reason or None,
        }
