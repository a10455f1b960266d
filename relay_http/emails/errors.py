"""The Emails API's errors: `{"detail": TEXT}`, and with 422 a list of what is wrong where: `{loc, msg, type}`."""

import msgspec

from relay_http.body import Request
from relay_http.dialect import bearer
from relay_http.problem import Problem, Refusal, Why

_WORDS = {
    Why.NO_KEY: "Not authenticated: give an API key as a bearer token.",
    Why.UNKNOWN_KEY: "This API key is not known, or it has expired or been revoked.",
    Why.NOT_FOUND: "Not found",
}
_QUERY = "query."
_UNPROCESSABLE = 422
_INDEX_DIGITS = 6


class EmailsApi:
    """The dialect of `/api/v1/emails`."""

    name = "emails"

    def credential(self, req: Request) -> str | None:
        """Return the bearer token."""
        return bearer(req)

    def refused(self, refusal: Refusal) -> tuple[int, bytes, str]:
        """Say a refusal."""
        detail: object = _WORDS.get(refusal.why, refusal.problems[0].message)
        if refusal.status == _UNPROCESSABLE:
            detail = [_shown(each) for each in refusal.problems]
        return refusal.status, msgspec.json.encode({"detail": detail}), "application/json"


def _shown(problem: Problem) -> dict[str, object]:
    return {"loc": _place(problem.field or ""), "msg": problem.message, "type": "value_error"}


def _place(path: str) -> list[str | int]:
    if path.startswith(_QUERY):
        return ["query", path.removeprefix(_QUERY)]
    steps = path.split(".") if path else []
    return ["body", *[int(each) if _is_index(each) else each for each in steps]]


def _is_index(step: str) -> bool:
    return step.isascii() and step.isdigit() and len(step) <= _INDEX_DIGITS


EMAILS = EmailsApi()
