"""What a request is refused with, before a dialect puts it into its vendor's words and shape; and our own shape."""

from enum import StrEnum
from http import HTTPStatus

import msgspec

PROBLEM_JSON = "application/problem+json"


class Why(StrEnum):
    """The kinds of refusals: what a dialect goes by that has a code or a name for each."""

    INVALID = "invalid"  # what is asked; the problems say where
    MISSING = "missing"  # is a field that is needed; for those who have a word of its own for it
    NO_KEY = "no_key"
    UNKNOWN_KEY = "unknown_key"  # expired and revoked ones too
    FORBIDDEN = "forbidden"  # to this key
    FOREIGN_SENDER = "foreign_sender"
    NOT_FOUND = "not_found"
    GONE = "gone"
    METHOD = "method"
    CONFLICT = "conflict"
    OTHER_REQUEST = "other_request"  # the idempotency key was used for
    IN_FLIGHT = "in_flight"  # is the first request with this idempotency key
    TOO_LARGE = "too_large"
    MEDIA_TYPE = "media_type"
    RATE = "rate"
    BACKLOG = "backlog"  # of the tenant is as much as it may be
    BUSY = "busy"
    FULL = "full"
    FAILED = "failed"


class Problem(msgspec.Struct, frozen=True):
    """One thing that is wrong; `field` is its path (`personalizations.0.to.0.email`), None if it has none."""

    message: str
    field: str | None = None
    help: str | None = None


class Refusal(Exception):
    """The request is refused as a whole, and nothing changed."""

    def __init__(
        self, status: int, *problems: Problem, why: Why = Why.INVALID, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(f"{status}: {problems[0].message}")
        self.status = status
        self.problems = problems
        self.why = why
        self.headers = headers or {}


def invalid(message: str, field: str | None = None) -> Refusal:
    """Refuse with 400 what is wrong with one field."""
    return Refusal(400, Problem(message, field))


def not_found(message: str = "not found") -> Refusal:
    """Refuse with 404."""
    return Refusal(404, Problem(message), why=Why.NOT_FOUND)


def busy(message: str, retry_after: int) -> Refusal:
    """Refuse with 503 for now; `retry_after` is in seconds."""
    return Refusal(503, Problem(message), why=Why.BUSY, headers={"Retry-After": str(retry_after)})


def problem_json(refusal: Refusal) -> bytes:
    """Write a refusal as our own API does (RFC 9457): the first problem is the detail, those of fields are `errors`."""
    body = {
        "type": "about:blank",
        "title": HTTPStatus(refusal.status).phrase,
        "status": refusal.status,
        "detail": refusal.problems[0].message,
    }
    fields = [{"field": each.field, "detail": each.message} for each in refusal.problems if each.field is not None]
    return msgspec.json.encode(body | ({"errors": fields} if fields else {}))


_TOO_MUCH = {
    "disk": "insufficient storage for more of your mail",
    "backlog": "more of your mail is waiting than can be delivered in time",
    "limit": "as much of your mail is waiting as may wait",
}


class TooMuch(Refusal):
    """The tenant has too much waiting for now; the queue keeps the log of it, for all requests together."""


def too_much(cause: str, retry_after: int) -> TooMuch:
    """Refuse with 429 (RFC 6585 4) for `cause` (mta.queue.capacity); `retry_after` is in seconds."""
    message = f"{_TOO_MUCH[cause]}, try again in {retry_after} seconds"
    return TooMuch(429, Problem(message), why=Why.BACKLOG, headers={"Retry-After": str(retry_after)})
