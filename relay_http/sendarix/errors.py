"""Sendarix's errors: a code, a text, and for what is wrong with a request an array with the path of each field."""

import msgspec

from relay_http.body import Request
from relay_http.dialect import bearer
from relay_http.problem import Refusal, Why

_CODES = {
    Why.NO_KEY: "unauthorized",
    Why.UNKNOWN_KEY: "unauthorized",
    Why.METHOD: "method_not_allowed",
    Why.OTHER_REQUEST: "idempotency_key_reused",
    Why.IN_FLIGHT: "idempotency_key_in_flight",
    Why.RATE: "rate_limited",
    Why.BACKLOG: "rate_limited",
    Why.BUSY: "service_unavailable",
    Why.FULL: "insufficient_storage",
    Why.FAILED: "internal_error",
}
_INVALID = {400: "bad_request", 422: "validation_failed"}


class Sendarix:
    """The dialect of `/v1/messages`."""

    name = "sendarix"

    def credential(self, req: Request) -> str | None:
        """Return the bearer token."""
        return bearer(req)

    def refused(self, refusal: Refusal) -> tuple[int, bytes, str]:
        """Say a refusal."""
        first = refusal.problems[0].message
        said: dict[str, object] = {"error": _CODES.get(refusal.why, refusal.why.value), "message": first}
        if refusal.status in _INVALID:
            fields = [{"field": each.field or "body", "message": each.message} for each in refusal.problems]
            said |= {"error": _INVALID[refusal.status], "errors": fields}
        return refusal.status, msgspec.json.encode(said), "application/json"


SENDARIX = Sendarix()
