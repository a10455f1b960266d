"""What lists and details show: messages of the views in the words of the Emails API. Pure."""

from collections.abc import Iterable, Sequence

from mta.content.texts import Texts
from mta.mail.event import Event, EventType
from mta.queue.views import MessageShown, Status
from relay_http.iso import write_time

_ATTEMPTS_SHOWN = 1000  # the last
DELIVERING = "delivering"  # at this moment: the claims tell it, all else the events
WAITING = (Status.QUEUED, Status.DEFERRED)
_WORDS = {
    Status.SCHEDULED: "scheduled",
    Status.QUEUED: "queued",
    Status.DEFERRED: "sent",
    Status.BOUNCED: "bounced",
    Status.EXPIRED: "failed",
    Status.DROPPED: "failed",
    Status.CANCELLED: "cancelled",
    Status.DELIVERED: "delivered",
}
STATUSES = {word: tuple([each for each in _WORDS if _WORDS[each] == word]) for word in _WORDS.values()}
STATUSES[DELIVERING] = WAITING
_OUTCOMES = {EventType.DEFERRED: "deferred", EventType.DELIVERED: "delivered", EventType.BOUNCED: "bounced"}


def status_word(shown: MessageShown, *, in_flight: bool = False) -> str:
    """Say how a message stands; `in_flight`: it is being delivered at this moment."""
    return DELIVERING if shown.status in WAITING and in_flight else _WORDS[shown.status]


def listed(shown: MessageShown, word: str) -> dict[str, object]:
    """Show a message as lists do."""
    return {
        "id": shown.id,
        "status": word,
        "from_": shown.summary.from_ or shown.sender,
        "to": [each.address for each in shown.recipients],
        "subject": shown.summary.subject,
        "created_at": write_time(shown.at),
        "updated_at": write_time(shown.last_at),
        "scheduled_at": write_time(shown.release_at) if shown.release_at > shown.at else None,
    }


def detailed(shown: MessageShown, word: str, events: Iterable[Event], texts: Texts) -> dict[str, object]:
    """Show all of a message; without `texts` if its content is gone."""
    attempts = [each for each in events if each.type in _OUTCOMES and each.attempt]
    return listed(shown, word) | {
        "sent_at": write_time(attempts[0].at) if attempts else None,
        "delivered_at": write_time(shown.last_at) if shown.status is Status.DELIVERED else None,
        "html": texts.html,
        "text": texts.plain,
        "attachments": [
            {"filename": each.name, "content_type": each.media_type, "size": each.size} for each in shown.summary.files
        ],
        "recipients": [{"email": each.address, "status": _WORDS[each.status]} for each in shown.recipients],
        "attempts": _attempts(attempts[-_ATTEMPTS_SHOWN:]),
    }


def _attempts(events: Sequence[Event]) -> list[dict[str, object]]:
    return [
        {
            "attempt": each.attempt,
            "at": write_time(each.at),
            "recipient": each.recipient,
            "outcome": _OUTCOMES[each.type],
            "provider": each.relay or None,
            "response": each.reply or None,
            "retry_at": write_time(each.retry_at) if each.retry_at else None,
        }
        for each in events
    ]
