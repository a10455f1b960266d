"""What a request is refused with, before a dialect puts it into its vendor's words and shape; and our own shape."""

from http import HTTPStatus

import msgspec

PROBLEM_JSON = "application/problem+json"


class Problem(msgspec.Struct, frozen=True):
    """One thing that is wrong; `field` is its path (`personalizations.0.to.0.email`), None if it has none."""

    message: str
    field: str | None = None
    help: str | None = None


class Refusal(Exception):
    """The request is refused as a whole, and nothing changed."""

    def __init__(self, status: int, *problems: Problem, headers: dict[str, str] | None = None) -> None:
        super().__init__(f"{status}: {problems[0].message}")
        self.status = status
        self.problems = problems
        self.headers = headers or {}


def busy(message: str, retry_after: int) -> Refusal:
    """Refuse with 503 for now; `retry_after` is in seconds."""
    return Refusal(503, Problem(message), headers={"Retry-After": str(retry_after)})


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
    return TooMuch(429, Problem(message), headers={"Retry-After": str(retry_after)})
