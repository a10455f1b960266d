"""Postmark's errors: `{"ErrorCode", "Message"}`, of the first thing that is wrong; clients go by the code."""

import msgspec

from relay_http.body import Request
from relay_http.problem import Refusal, Why

INVALID = 300
_NO_JSON, _OTHER_JSON = 402, 403
_CODES = {
    Why.NO_KEY: 10,
    Why.UNKNOWN_KEY: 10,
    Why.FORBIDDEN: 10,
    Why.FOREIGN_SENDER: 400,
    Why.MEDIA_TYPE: 409,
    Why.TOO_LARGE: 410,
    Why.RATE: 429,
    Why.BACKLOG: 429,
    Why.BUSY: 100,
    Why.FULL: 100,
    Why.NOT_FOUND: 701,
}
_WORDS = {
    Why.NO_KEY: "No server token: X-Postmark-Server-Token should have a valid API token.",
    Why.UNKNOWN_KEY: "X-Postmark-Server-Token has no valid API token: it is not known, expired or revoked.",
}
_BAD_REQUEST, _UNAUTHORIZED, _UNPROCESSABLE = 400, 401, 422


class Postmark:
    """The dialect of `/email` and `/messages/outbound`."""

    name = "postmark"

    def credential(self, req: Request) -> str | None:
        """Return the server token."""
        return req.get_header("X-Postmark-Server-Token") or None

    def refused(self, refusal: Refusal) -> tuple[int, bytes, str]:
        """Say a refusal."""
        wrong = refusal.status == _BAD_REQUEST or refusal.why is Why.FOREIGN_SENDER
        status = _UNPROCESSABLE if wrong else refusal.status
        return status, msgspec.json.encode(error(refusal)), "application/json"


def error(refusal: Refusal) -> dict[str, object]:
    """Say a refusal, as the batch does of one of its messages."""
    first = refusal.problems[0]
    # 401 without a kind: a path that nobody knows, asked for without a key
    why = Why.NO_KEY if refusal.why is Why.INVALID and refusal.status == _UNAUTHORIZED else refusal.why
    code = _CODES.get(why, INVALID)
    if why is Why.INVALID and first.field is None:
        code = _NO_JSON if refusal.status == _BAD_REQUEST else _OTHER_JSON
    message = _WORDS.get(why, first.message)
    # Those that name the field are in the vendor's words, which clients look for.
    if why is Why.INVALID and first.field and not message.startswith(f"Invalid '{first.field}'"):
        message = f"Invalid '{first.field}': {message}"
    return {"ErrorCode": code, "Message": message}


POSTMARK = Postmark()
