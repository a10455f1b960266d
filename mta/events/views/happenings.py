"""Which events: a search as SQL, led by the index that has the least to look through."""

import sqlite3

from mta.events.views import terms
from mta.events.views.lists import Slice, Sql, Whose, among, are_few, dated, has_at_most, indexed, known, listed
from mta.events.views.standing import TYPE_CODES
from mta.queue.views import EventSearch

_GATHERED = 20_000  # messages whose events are put together and sorted


def event_numbers(db: sqlite3.Connection, owner: Whose, search: EventSearch, wanted: Slice) -> Sql | None:
    """Select the numbers of events in order; None if there can be none."""
    if not owner.scopes:
        return None
    match = terms.query(terms.groups(search, owner.tenants, owner.scopes))
    checked = indexed(match, "e.message")
    lists, narrow = _lists(owner, search)
    rest = dated("e.at", search.since, search.until)
    if search.recipient:  # of the message's recipients, the one that the event is of
        one = among("e.recipient", [terms.number_of(each, search.recipient) for each in owner.tenants])
        rest.append(Sql(f"(e.seq = e.message OR {one.text})", one.values))
    if search.message:
        message = Sql("SELECT seq FROM message WHERE id = ?", (search.message,))
        return known("event", _of_messages(message), [*narrow, *rest, *checked], wanted)
    if match and (not lists or not are_few(db, "event", lists, wanted)) and has_at_most(db, match, _GATHERED):
        several = _of_messages(Sql("SELECT rowid AS seq FROM term WHERE term MATCH ?", (match,)))
        return known("event", several, [*narrow, *rest], wanted)
    return listed("event", lists, narrow, [*rest, *checked], wanted)


def _lists(owner: Whose, search: EventSearch) -> tuple[list[Sql], list[Sql]]:
    """Name the lists that have the events, none for the table itself; and say what is in them."""
    codes = [TYPE_CODES[each] for each in search.types] or list(TYPE_CODES.values())
    narrow = [among("e.type", codes)] if search.types else []
    if search.sender_domain:
        column, keys = "domain", [terms.domain_number(each, search.sender_domain) for each in owner.tenants]
    else:
        column, keys = "scope", list(owner.scopes)
    if search.sender_domain or not owner.everybody:
        narrow.append(among(f"e.{column}", keys))
    lists = [Sql(f"{column} = ? AND type = ?", (key, code)) for key in keys for code in codes]
    return lists if narrow else [], narrow


def _of_messages(numbers: Sql) -> Sql:
    """Name the events of messages: those that they began with, and the later ones."""
    later = f"SELECT l.seq FROM ({numbers.text}) n CROSS JOIN event l ON l.message = n.seq AND l.message != l.seq"  # noqa: S608
    return Sql(f"{numbers.text} UNION ALL {later}", numbers.values * 2)
