"""What lists and details show: messages of the views in Postmark's words. Pure."""

from collections.abc import Iterable

from mta.content.texts import Texts
from mta.mail.event import Event, EventType
from mta.queue.views import MessageShown, Status
from mta.spool.records import MessageClass
from relay_http.iso import write_time
from relay_http.uuids import uuid_of

_EVENTS_SHOWN = 1000  # the last
_WAITING = (Status.SCHEDULED, Status.QUEUED, Status.DEFERRED)
_DONE = tuple([each for each in Status if each not in _WAITING])
STATUSES = {"queued": _WAITING, "sent": _DONE, "processed": _DONE}
_TYPES = {
    EventType.DELIVERED: "Delivered",
    EventType.DEFERRED: "Transient",
    EventType.BOUNCED: "Bounced",
    EventType.EXPIRED: "Bounced",
    EventType.DROPPED: "Bounced",
    EventType.CANCELLED: "Bounced",
}


def listed(shown: MessageShown) -> dict[str, object]:
    """Show a message as lists do; `To` are all recipients, because the views do not tell them apart."""
    addresses = [each.address for each in shown.recipients]
    return {
        "Tag": next(iter(shown.categories), None),
        "MessageID": uuid_of(shown.id),
        "To": [{"Email": each, "Name": None} for each in addresses],
        "Cc": [],
        "Bcc": [],
        "Recipients": addresses,
        "ReceivedAt": write_time(shown.at),
        "From": shown.summary.from_ or shown.sender,
        "Subject": shown.summary.subject,
        "Attachments": [each.name for each in shown.summary.files],
        "Status": "Queued" if shown.status in _WAITING else "Sent",
        "TrackOpens": False,
        "TrackLinks": "None",
        "Metadata": shown.custom_args,
        "Sandboxed": False,
        "MessageStream": "broadcast" if shown.message_class == MessageClass.BULK.name.lower() else "outbound",
    }


def detailed(shown: MessageShown, texts: Texts, events: Iterable[Event]) -> dict[str, object]:
    """Show all of a message; without `texts` if its content is gone."""
    told = [_told(each) for each in events if each.type in _TYPES]
    return listed(shown) | {
        "TextBody": texts.plain,
        "HtmlBody": texts.html,
        "Body": "",
        "MessageEvents": told[-_EVENTS_SHOWN:],
    }


def _told(event: Event) -> dict[str, object]:
    said = event.reply or event.reason
    details = {"DeliveryMessage": said, "DestinationServer": event.relay, "DestinationIP": ""}
    if _TYPES[event.type] == "Bounced":
        details = {"Summary": said}
    return {
        "Recipient": event.recipient,
        "Type": _TYPES[event.type],
        "ReceivedAt": write_time(event.at),
        "Details": details,
    }
