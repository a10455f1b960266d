"""Which messages: a search as SQL, led by the index that has the least to look through.

The full-text index leads when terms are asked for, unless so few messages have the status and the date that these lead.
What no index can narrow down ends with the time that a read has.
"""

import sqlite3

from mta.events.views import terms
from mta.events.views.lists import (
    Slice,
    Sql,
    Whose,
    among,
    are_few,
    dated,
    either,
    has_at_most,
    indexed,
    known,
    listed,
    page,
)
from mta.events.views.standing import CODES
from mta.queue.views import Search

_LEADING = 2000  # messages with the terms, up to which the full-text index leads whatever the status


def message_numbers(db: sqlite3.Connection, owner: Whose, search: Search, wanted: Slice) -> Sql | None:
    """Select the numbers of messages in order; None if there can be none."""
    scopes = owner.scopes_of(search.sent_in)
    if not scopes:
        return None
    codes = [CODES[each] for each in search.statuses] or list(CODES.values())
    match = terms.query(terms.groups(search, owner.tenants, scopes))
    checked = indexed(match, "m.seq")
    rest = dated("m.at", search.since, search.until)
    narrow = [] if owner.everybody and not search.sent_in else [among("m.scope", scopes)]
    if search.statuses:
        narrow.append(among("m.status", codes))
    if numbers := _known(search, owner):
        first, *others = numbers
        among_others = [Sql(f"k.seq IN ({each.text})", each.values) for each in others]
        return known("message", first, [*among_others, *narrow, *rest, *checked], wanted)
    # Without any of these, the table itself is in order.
    lists = [Sql("scope = ? AND status = ?", (scope, code)) for scope in scopes for code in codes] if narrow else []
    if match and (not lists or has_at_most(db, match, _LEADING) or not are_few(db, "message", lists, wanted)):
        source = Sql("term t CROSS JOIN message m ON m.seq = t.rowid")
        return page(source, "t.rowid", [Sql("t.term MATCH ?", (match,)), *narrow, *rest], wanted)
    return listed("message", lists, narrow, [*rest, *checked], wanted)


def _known(search: Search, owner: Whose) -> list[Sql]:
    """Name the few messages that it can be, for each id that says so."""
    found: list[Sql] = []
    if search.ids:
        ids = among("id", search.ids)
        found.append(Sql(f"SELECT seq FROM message WHERE {ids.text}", ids.values))  # noqa: S608 - our own words
    for own, others in (
        (search.request, terms.request_query(search.request, owner.tenants)),
        (terms.our_id(search.message_id), terms.message_id_query(search.message_id, owner.tenants)),
    ):
        if others:
            found.append(either(own, others))
    return found
