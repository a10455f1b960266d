"""Resend's errors: `{"statusCode", "name", "message"}`, of the first thing that is wrong."""

import msgspec

from relay_http.body import Request
from relay_http.dialect import bearer
from relay_http.problem import Refusal, Why

_NAMES = {
    Why.INVALID: "validation_error",
    Why.MISSING: "missing_required_field",
    Why.NO_KEY: "missing_api_key",
    Why.UNKNOWN_KEY: "invalid_api_key",
    Why.FORBIDDEN: "restricted_api_key",
    Why.FOREIGN_SENDER: "validation_error",
    Why.METHOD: "method_not_allowed",
    Why.OTHER_REQUEST: "invalid_idempotent_request",
    Why.IN_FLIGHT: "concurrent_idempotent_requests",
    Why.RATE: "rate_limit_exceeded",
    Why.BACKLOG: "rate_limit_exceeded",
    Why.BUSY: "service_unavailable",
    Why.FULL: "insufficient_storage",
    Why.FAILED: "internal_server_error",
}
_UNAUTHORIZED = 401
_STATUSES = {Why.UNKNOWN_KEY: 403, Why.FORBIDDEN: 401}
_encode = msgspec.json.Encoder().encode


class Resend:
    """The dialect of `/emails`."""

    name = "resend"

    def credential(self, req: Request) -> str | None:
        """Return the bearer token."""
        return bearer(req)

    def refused(self, refusal: Refusal) -> tuple[int, bytes, str]:
        """Say a refusal."""
        first = refusal.problems[0]
        field = first.field or ""
        name = _NAMES.get(refusal.why, refusal.why.value)
        if refusal.why is Why.INVALID and refusal.status == _UNAUTHORIZED:  # at a path that nobody knows
            name = _NAMES[Why.NO_KEY]
        elif refusal.why is Why.INVALID and field == "Idempotency-Key":
            name = "invalid_idempotency_key"
        elif refusal.why is Why.INVALID and "attachments." in field:
            name = "invalid_attachment"
        status = _STATUSES.get(refusal.why, refusal.status)
        return status, _encode({"statusCode": status, "name": name, "message": said(refusal)}), "application/json"


def said(refusal: Refusal) -> str:
    """Say what is wrong first of all, and where."""
    first = refusal.problems[0]
    named = refusal.why is Why.INVALID and first.field
    return f"Invalid `{first.field}` field. {first.message}" if named else first.message


RESEND = Resend()
