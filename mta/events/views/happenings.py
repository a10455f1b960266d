"""Which events: a search as SQL, led by the index that has the least to look through."""

import sqlite3

import msgspec

from mta.events.views import terms
from mta.events.views.lists import Slice, Sql, Whose, among, are_few, dated, has_at_most, indexed, known, listed
from mta.events.views.schema import SEVERAL
from mta.events.views.standing import TYPE_CODES
from mta.queue.views import EventSearch

_GATHERED = 20_000  # messages whose events are put together and sorted
_GATHERED_TO = 2000  # the same for a recipient's: whether an event is of it, can be told without the full-text index


def event_numbers(db: sqlite3.Connection, owner: Whose, search: EventSearch, wanted: Slice) -> Sql | None:
    """Select the numbers of events in order; None if there can be none."""
    if not owner.scopes:
        return None
    match = terms.query(terms.groups(search, owner.tenants, owner.scopes))
    lists, narrow = _lists(owner, search)
    rest = [*dated("e.at", search.since, search.until), *_to(owner, search)]
    if search.message:
        message = Sql("SELECT seq FROM message WHERE id = ?", (search.message,))
        return known("event", _of_messages(message), [*narrow, *rest, *indexed(match, "e.message")], wanted)
    if match and not (lists and are_few(db, "event", lists, wanted)):
        gathered = _GATHERED_TO if search.recipient else _GATHERED
        if has_at_most(db, match, gathered):
            several = _of_messages(Sql("SELECT rowid AS seq FROM term WHERE term MATCH ?", (match,)))
            return known("event", several, [*narrow, *rest], wanted)
    others = msgspec.structs.replace(search, recipient="")  # which the event itself says
    checked = indexed(terms.query(terms.groups(others, owner.tenants, owner.scopes)), "e.message")
    return listed("event", lists, narrow, [*rest, *checked], wanted)


def _to(owner: Whose, search: EventSearch) -> list[Sql]:
    """Say which recipient an event is of: the message's only one, or it is said of this one."""
    if not search.recipient:
        return []
    one = among("e.recipient", [terms.number_of(each, search.recipient) for each in owner.tenants])
    has = indexed(terms.query(terms.groups(EventSearch(recipient=search.recipient), owner.tenants, ())), "e.message")
    return [Sql(f"({one.text} OR e.recipient = {SEVERAL} AND {has[0].text})", one.values + has[0].values)]


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
