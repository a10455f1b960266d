"""The vendor's errors: every answer from 400 on is `{"errors": [{message, field, help}, ...]}`."""

import msgspec

from relay_http.body import Request
from relay_http.dialect import bearer
from relay_http.problem import Problem, Refusal, Why

# Client libraries look for these words.
_WORDS = {
    Why.NO_KEY: "Permission denied, wrong credentials",
    Why.UNKNOWN_KEY: "The provided authorization grant is invalid, expired, or revoked",
    Why.FORBIDDEN: "access forbidden",
}


class _Errors(msgspec.Struct, frozen=True):
    errors: tuple[Problem, ...]


_encode = msgspec.json.Encoder().encode


class SendGrid:
    """The dialect of `/v3` and `/api/v1`."""

    name = "sendgrid"

    def credential(self, req: Request) -> str | None:
        """Return the bearer token."""
        return bearer(req)

    def refused(self, refusal: Refusal) -> tuple[int, bytes, str]:
        """Say a refusal."""
        words = _WORDS.get(refusal.why)
        problems = (Problem(words),) if words else refusal.problems
        return refusal.status, _encode(_Errors(problems)), "application/json"


SENDGRID = SendGrid()
