"""What lists and details show: messages of the views in Resend's words. Pure."""

from mta.content.texts import Texts
from mta.queue.views import MessageShown, Status
from relay_http.iso import write_time
from relay_http.uuids import uuid_of

LAST_EVENTS = {
    Status.SCHEDULED: "scheduled",
    Status.QUEUED: "queued",
    Status.DEFERRED: "delivery_delayed",
    Status.BOUNCED: "bounced",
    Status.EXPIRED: "failed",
    Status.DROPPED: "failed",
    Status.CANCELLED: "canceled",
    Status.DELIVERED: "delivered",
}


def listed(shown: MessageShown) -> dict[str, object]:
    """Show a message as lists do; `to` are all recipients, because the views do not tell them apart."""
    return {
        "id": uuid_of(shown.id),
        "message_id": shown.message_id,
        "to": [each.address for each in shown.recipients],
        "from": shown.summary.from_ or shown.sender,
        "created_at": write_time(shown.at),
        "subject": shown.summary.subject,
        "bcc": [],
        "cc": [],
        "reply_to": [],
        "last_event": LAST_EVENTS[shown.status],
        "scheduled_at": write_time(shown.release_at) if shown.release_at > shown.at else None,
    }


def detailed(shown: MessageShown, texts: Texts) -> dict[str, object]:
    """Show all of a message; without `texts` if its content is gone."""
    tags = [{"name": name, "value": value} for name, value in shown.custom_args.items()]
    return {"object": "email"} | listed(shown) | {"html": texts.html, "text": texts.plain, "tags": tags}
