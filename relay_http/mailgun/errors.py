"""The vendor's errors: `{"message": ...}`, one sentence, in which the parameter is named."""

import binascii
from base64 import b64decode

import msgspec

from relay_http.answer import JSON
from relay_http.body import Request
from relay_http.problem import Refusal, Why

_NO_KEY = b'{"Error":"unauthorized"}'  # as the vendor has it, capital letter and all
# Client libraries and their users look for these words.
_WORDS = {Why.UNKNOWN_KEY: "Invalid private key", Why.FORBIDDEN: "Forbidden"}


class _Said(msgspec.Struct, frozen=True):
    """The body of an answer that says something."""

    message: str


_encode = msgspec.json.Encoder().encode


class Mailgun:
    """The dialect of what lies under `/v3` with a domain, and of `/v4/domains`."""

    name = "mailgun"

    def credential(self, req: Request) -> str | None:
        """Return the password of Basic authentication (RFC 7617), whoever the user is."""
        scheme, _, encoded = (req.get_header("Authorization") or "").partition(" ")
        if scheme.lower() != "basic":
            return None
        try:
            _, colon, password = b64decode(encoded.strip(), validate=True).decode().partition(":")
        except (binascii.Error, ValueError):
            return None
        return password if colon and password else None

    def refused(self, refusal: Refusal) -> tuple[int, bytes, str]:
        """Say a refusal."""
        if refusal.why is Why.NO_KEY:
            return refusal.status, _NO_KEY, JSON
        said = _WORDS.get(refusal.why) or refusal.problems[0].message
        return refusal.status, _encode(_Said(said)), JSON


MAILGUN = Mailgun()
