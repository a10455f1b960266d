"""The query of /v3/messages: `to_email="ann@example.com" AND status="delivered"` into a search of the views. Pure.

Conditions are `FIELD="VALUE"`, with AND between them and brackets around them: from_email, to_email, subject, status,
msg_id, and `last_event_time` with =, <, <=, >, >= or BETWEEN TIMESTAMP "..." AND TIMESTAMP "...". OR stands between
conditions on one field, which is status or msg_id. Whatever else the vendor knows is refused.
"""

import datetime as dt
import re

import msgspec

from mta.mail.ids import MESSAGE_ID_CHARS
from mta.queue.views import MessageShown, RecipientShown, Search, Status
from relay_http.problem import Refusal, invalid

LENGTH = 4000  # characters of a query
_DAY = 86_400.0
_LONGEST_WAY = 7 * _DAY  # from acceptance to the last event: a send time 3 days ahead, a lifetime as long
_STATUSES = ("processed", "delivered", "not_delivered")
_PROCESSED = (Status.SCHEDULED, Status.QUEUED, Status.DEFERRED)
_NOT_DELIVERED = (Status.BOUNCED, Status.EXPIRED, Status.DROPPED, Status.CANCELLED)
_FIELDS = ("from_email", "to_email", "subject", "status", "msg_id")
_MANY = ("status", "msg_id")
_TOKEN = re.compile(r"""\s*(?:("[^"]*"|'[^']*')|(<=|>=|!=|=|<|>|\(|\))|([A-Za-z_][A-Za-z0-9_.]*))""")
_SECOND = 1.0  # that a time written without fractions stands for
_FAR = 32_503_680_000.0  # the year 3000

_DEPTH = 8

type_either = list[tuple[str, str]]
"""Conditions on one field, as name and value, of which one has to hold."""


class Activity(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for: a search, and what the rows that it finds are gone through for. None is for any."""

    search: Search
    to: str | None = None
    subject: str | None = None
    statuses: frozenset[str] | None = None
    rows: frozenset[str] | None = None
    since: float = 0.0
    until: float = _FAR

    def admits(self, message: MessageShown, recipient: RecipientShown, row: str) -> bool:
        """Tell whether a recipient of a message is one of the rows; `row` is the id of it."""
        return (
            (self.to is None or recipient.address.lower() == self.to)
            and (self.subject is None or message.summary.subject == self.subject)
            and (self.statuses is None or status_of(recipient.status) in self.statuses)
            and (self.rows is None or any(row == each or row.startswith(f"{each}.") for each in self.rows))
            and self.since <= recipient.at < self.until
        )


def status_of(status: Status) -> str:
    """Say how a recipient stands in the vendor's words."""
    if status is Status.DELIVERED:
        return "delivered"
    return "not_delivered" if status in _NOT_DELIVERED else "processed"


def read_query(text: str) -> Activity:
    """Read a query; Refusal 400."""
    if len(text) > LENGTH:
        raise invalid(f"The query is longer than {LENGTH} characters.", "query")
    return _Reader(text).activity()


class _Reader:
    """Reads tokens from left to right."""

    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._at = 0
        self._values: dict[str, frozenset[str]] = {}
        self._since, self._until = 0.0, _FAR

    def activity(self) -> Activity:
        for either in self._all(0):
            self._add(either)
        if self._at < len(self._tokens):
            raise _wrong(f"{self._tokens[self._at][:64]} is not expected there")
        one = {name: next(iter(values)) for name, values in self._values.items() if name not in _MANY}
        statuses, rows = self._values.get("status"), self._values.get("msg_id", frozenset())
        request = next(iter(rows)) if len(rows) == 1 and not any("." in each for each in rows) else ""
        to = one.get("to_email")
        search = Search(
            ids=tuple(sorted({message_of(each) for each in rows})) if not request else (),
            request=request,
            recipient=to or "",
            sender=one.get("from_email", ""),
            words=one.get("subject", ""),
            statuses=_searched(statuses),
            since=self._since - _LONGEST_WAY if self._since else None,
            until=self._until if self._until < _FAR else None,
        )
        return Activity(
            search=search,
            to=to.lower() if to is not None else None,
            subject=one.get("subject"),
            statuses=statuses,
            rows=rows or None,
            since=self._since,
            until=self._until,
        )

    def _all(self, depth: int) -> list[type_either]:
        found = self._either(depth)
        while self._is("and"):
            found += self._either(depth)
        return found

    def _either(self, depth: int) -> list[type_either]:
        found = self._one(depth)
        while self._is("or"):
            found += self._one(depth)
            alike = {name for each in found for name, _ in each}
            if len(found) != 2 or len(alike) > 1 or not alike <= set(_MANY):
                raise _wrong(f"OR is only known between conditions on one of {', '.join(_MANY)}")
            found = [found[0] + found[1]]
        return found

    def _one(self, depth: int) -> list[type_either]:
        if self._is("("):
            if depth == _DEPTH:
                raise _wrong(f"there are more than {_DEPTH} brackets in each other")
            found = self._all(depth + 1)
            self._expect(")")
            return found
        name = self._next().lower()
        if name == "last_event_time":
            self._time()
            return []
        if name not in _FIELDS:
            raise _wrong(f"{name[:64]} is no field that is known: there are {', '.join(_FIELDS)}, last_event_time")
        self._expect("=")
        value = self._text()
        if name == "status" and value not in _STATUSES:
            raise _wrong(f"a status is one of {', '.join(_STATUSES)}")
        return [[(name, value)]]

    def _add(self, either: type_either) -> None:
        name = either[0][0]
        if name in self._values:
            raise _wrong(f"{name} is given twice")
        self._values[name] = frozenset([value for _, value in either])

    def _time(self) -> None:
        operator = self._next().lower()
        if operator == "between":
            self._since = self._timestamp()
            self._expect("and")
            self._until = self._timestamp() + _SECOND
        elif operator in ("=", "<", "<=", ">", ">="):
            at = self._timestamp()
            if operator not in (">", ">="):
                self._until = at if operator == "<" else at + _SECOND
            if operator not in ("<", "<="):
                self._since = at + _SECOND if operator == ">" else at
        else:
            raise _wrong("last_event_time is compared with =, <, <=, >, >= or BETWEEN")

    def _timestamp(self) -> float:
        self._is("timestamp")
        text = self._text()
        try:
            at = dt.datetime.fromisoformat(text)
        except ValueError:
            raise _wrong(f"{text[:64]!r} is no time such as 2026-11-26T09:00:00Z") from None
        return (at if at.tzinfo is not None else at.replace(tzinfo=dt.UTC)).timestamp()

    def _text(self) -> str:
        token = self._next()
        if token[:1] not in ("'", '"'):
            raise _wrong(f"{token[:64]} should be a text in quotes")
        return token[1:-1]

    def _next(self) -> str:
        if self._at == len(self._tokens):
            raise _wrong("it ends too early")
        self._at += 1
        return self._tokens[self._at - 1]

    def _is(self, token: str) -> bool:
        if self._at < len(self._tokens) and self._tokens[self._at].lower() == token:
            self._at += 1
            return True
        return False

    def _expect(self, token: str) -> None:
        if not self._is(token):
            raise _wrong(f"{token.upper()} is expected after {' '.join(self._tokens[: self._at])[-64:]}")


def _tokens(text: str) -> list[str]:
    found: list[str] = []
    text, at = text.strip(), 0
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None:
            raise _wrong(f"it cannot be read at {text[at : at + 32]!r}")
        found.append(token[0].strip())
        at = token.end()
    if not found:
        raise _wrong("it is required")
    return found


def _searched(statuses: frozenset[str] | None) -> tuple[Status, ...]:
    """Say how messages stand whose recipients may stand so: the message stands as the first of them in order does."""
    if statuses is None or "delivered" in statuses:
        return ()
    return _PROCESSED if statuses == {"processed"} else (*_PROCESSED, *_NOT_DELIVERED)


def message_of(row: str) -> str:
    """Return the id of the message that the id of a row names: the second part, or all of it."""
    parts = row.split(".")
    return (parts[1] if len(parts) > 1 else parts[0])[: 2 * MESSAGE_ID_CHARS]


def _wrong(message: str) -> Refusal:
    return invalid(f"The query: {message}.", "query")
