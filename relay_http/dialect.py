"""What is a vendor's own about every request: how a key comes, and how a refusal is said.

A dialect is a package: request types and their translation into `Outgoing` (outgoing.py), resources with the routes
(`add_routes(app, door)`), errors (a `Dialect`), its part of the OpenAPI document. It imports no other dialect, and
nothing of delivery or ingress.
"""

from typing import Protocol

from relay_http.body import Request
from relay_http.problem import Refusal


class Dialect(Protocol):
    """How a vendor's clients are answered when something is wrong."""

    name: str
    """As logs and summaries have it."""

    def credential(self, req: Request) -> str | None:
        """Return the text of the key that a request brings, None if it brings none."""

    def refused(self, refusal: Refusal) -> tuple[int, bytes, str]:
        """Say a refusal: status, body, media type."""


def bearer(req: Request) -> str | None:
    """Return the token of `Authorization: Bearer` (RFC 6750 2.1)."""
    scheme, _, token = (req.get_header("Authorization") or "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None
