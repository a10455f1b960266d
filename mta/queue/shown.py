"""Messages and entries as lists and details show them: the same words for the command line's JSON and for HTTP."""

from collections.abc import Sequence

from mta.queue.actions import Standing
from mta.queue.where import state_of
from mta.spool.records import Claim, Entry, Message, Wish


def entry_record(entry: Entry, claim: Claim | None) -> dict[str, object]:
    """Show an entry as lists do: `recipients` are those still waiting."""
    return {
        "entry": entry.id,
        "message": entry.message,
        "tenant": entry.tenant,
        "domain": entry.domain,
        "state": state_of(entry, claim),
        "recipients": [each.recipient.address for each in entry.waiting],
        "attempts": entry.attempts if claim is None else claim.attempt,
        "due_at": entry.due_at,
        "expires_at": entry.expires_at,
    }


def entry_detail(entry: Entry, claim: Claim | None) -> dict[str, object]:
    """Show an entry with all that is known of it."""
    return entry_record(entry, claim) | {
        "class": entry.message_class.name.lower(),
        "redirected_to": entry.relay or None,
        "held_at": entry.hold.at if entry.hold else None,
        "held_why": entry.hold.reason if entry.hold else None,
        "wish": None if claim is None or claim.wish is None else wish_text(claim.wish),
        "ended": {each.recipient.address: each.state.name.lower() for each in entry.recipients if each.state},
        "last_attempt_at": entry.last_attempt_at or None,
        "last_relay": entry.last_relay or None,
        "last_reply": entry.last_reply or None,
    }


def message_detail(found: Sequence[Standing]) -> dict[str, object]:
    """Show a message with the entries that were found of it, one at the least."""
    return _message_record(found[0][0].message) | {"entries": [entry_detail(due.entry, claim) for due, claim in found]}


def _message_record(message: Message) -> dict[str, object]:
    return {
        "message": message.id,
        "tenant": message.tenant,
        "sender": message.sender,
        "origin": message.origin.value,
        "class": message.message_class.name.lower(),
        "size": message.size,
        "accepted_at": message.accepted_at,
        "release_at": message.release_at,
        "deliver_by": message.deliver_by or None,
        "by_mode": message.by_mode or None,
        "priority": message.priority,
        "expires_at": message.expires_at,
        "header_message_id": message.header_message_id or None,
        "sign_domain": message.sign_domain or None,
    }


def wish_text(wish: Wish) -> str:
    """Say what is to be done when the attempt under way is over."""
    words: list[str] = [] if wish.end is None else [wish.end.name.lower()]
    if wish.held is not None:
        words.append("held" if wish.held else "released")
    if wish.relay is not None:
        words.append(f"redirected to {wish.relay}" if wish.relay else "no longer redirected")
    if wish.message_class is not None:
        words.append(f"class {wish.message_class.name.lower()}")
    return ", ".join(words)
