"""Our own errors: problem+json (RFC 9457) with the path of every field that is wrong."""

from relay_http.body import Request
from relay_http.dialect import bearer
from relay_http.problem import PROBLEM_JSON, Refusal, problem_json


class Own:
    """The dialect of `/v1`, `/admin` and of all paths that nobody knows."""

    name = "fairlead"

    def credential(self, req: Request) -> str | None:
        """Return the bearer token."""
        return bearer(req)

    def refused(self, refusal: Refusal) -> tuple[int, bytes, str]:
        """Say a refusal."""
        return refusal.status, problem_json(refusal), PROBLEM_JSON


OWN = Own()
