"""What is searched for, as terms of the full-text index: the words of the subject, and marks for everything else.

A mark is a hash of the tenant, what it is of and the value, behind a character that no subject is indexed with: so one
index finds all, each list of it belongs to one tenant, and is in the order of the messages. The mark of a scope (a
tenant's mail of one dialect) keeps words apart, which are the same for all.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from hashlib import blake2b

from mta.mail.address import AddressError, a_label
from mta.mail.event import Event
from mta.mail.ids import MESSAGE_ID_CHARS
from mta.mail.summary import SUBJECT_CHARS
from mta.queue.views import EventSearch, Search

_MARK = "\ue000"  # private use: SQLite's tokenizer takes it for a letter
_WORDS = 32  # of a question
_ANGLES = re.compile(r"<([^<>]*)>\s*$")
_OUR_ID = re.compile(rf"[A-Za-z0-9_-]{{{MESSAGE_ID_CHARS}}}")
_Groups = list[list[str]]  # a term of each has to be there


def number_of(tenant: str, value: str) -> int:
    """Hash a value of a tenant to what SQLite takes for an integer; case does not count."""
    found = blake2b(f"{tenant}\0{value.lower()}".encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(found, "big", signed=True)


@lru_cache(maxsize=4096)
def domain_number(tenant: str, domain: str) -> int:
    """Hash a domain of a tenant's senders, in its normal form."""
    try:
        return number_of(tenant, a_label(domain))
    except AddressError:
        return number_of(tenant, domain)


def scope_mark(scope: int) -> str:
    """Mark a message's scope."""
    return f"{_MARK}{scope:x}"


def text_of(event: Event, scope: int) -> str:
    """Write what a message is found by, from its `accepted` event as it is stored."""
    tenant, summary = event.tenant, event.summary
    marks = [scope_mark(scope)]
    marks += [_mark(tenant, "recipient", each) for each in event.recipients]
    senders = {event.sender.lower()}
    if summary is not None and summary.from_:
        senders.add(_address(summary.from_).lower())
    marks += [_often(tenant, "sender", each) for each in sorted(senders) if each]
    marks += [_often(tenant, "category", each) for each in event.categories]
    if event.request not in ("", event.message):
        marks.append(_mark(tenant, "request", event.request))
    if event.batch:
        marks.append(_mark(tenant, "batch", event.batch))
    if event.message_id and event.message not in event.message_id:  # one that is ours is found by the id
        marks.append(_mark(tenant, "message id", _bare(event.message_id)))
    if summary is not None:
        marks.append(_words(summary.subject))
    return " ".join(marks)


def groups(search: Search | EventSearch, tenants: Sequence[str], scopes: Iterable[int]) -> _Groups:
    """List the terms that a message has to have; of each group one."""
    found = [_each(tenants, "recipient", search.recipient), _each(tenants, "sender", search.sender)]
    found.append(_each(tenants, "category", search.category))
    if isinstance(search, Search):
        found.append(_each(tenants, "batch", search.batch))
        # What has neither letter nor digit is no word to SQLite, and would be one that nothing has.
        words = [each for each in _words(_shortened(search.words)).split() if any(map(str.isalnum, each))][:_WORDS]
        found += [[each] for each in words]
        if words or search.sent_in:
            found.append([scope_mark(each) for each in scopes])
    return found


def request_query(request: str, tenants: Sequence[str]) -> str:
    """Ask for the messages of a request, but for the one that has its id."""
    return query([_each(tenants, "request", request)])


def message_id_query(message_id: str, tenants: Sequence[str]) -> str:
    """Ask for the messages with a Message-ID that is not ours."""
    return query([[_mark(each, "message id", _bare(message_id)) for each in tenants] if message_id else []])


def our_id(message_id: str) -> str:
    """Take our message id out of a Message-ID, "" if there is none."""
    found = _OUR_ID.match(_bare(message_id))
    return found[0] if found else ""


def query(terms: _Groups) -> str:
    """Write groups as a query of FTS5."""
    return " AND ".join(f"({' OR '.join(_quoted(term) for term in each)})" for each in terms if each)


def _each(tenants: Sequence[str], what: str, value: str) -> list[str]:
    return [_mark(each, what, value) for each in tenants] if value else []


def _mark(tenant: str, what: str, value: str) -> str:
    named = f"{tenant}\0{what}\0{value.lower()}".encode("utf-8", "replace")
    return _MARK + blake2b(named, digest_size=8).hexdigest()


_often = lru_cache(maxsize=4096)(_mark)


def _shortened(text: str) -> str:
    """Cut off words of a question that no subject is long enough for: 30,000 in a phrase take SQLite 400 MB."""
    start = text[:SUBJECT_CHARS]
    return text if start == text else start.rpartition(" ")[0] or start


def _words(text: str) -> str:
    """Leave nothing in a text that could be taken for a mark, or that ends it."""
    return unicodedata.normalize("NFC", text).replace(_MARK, " ").replace("\0", " ")


def _quoted(term: str) -> str:
    return '"' + term.replace('"', '""') + '"'


def _address(shown: str) -> str:
    found = _ANGLES.search(shown)
    return (found[1] if found else shown).strip()


def _bare(message_id: str) -> str:
    return message_id.strip().strip("<>")
