"""What is kept for idempotency, whoever keeps it: names, keys, and the answer to who asks again (features C2)."""

import msgspec

from mta.spool.interface import Kept
from relay_http.answer import Answer, decode
from relay_http.body import Request
from relay_http.problem import Problem, Refusal, Why, invalid

KEY = "Idempotency-Key"
"""The header field."""
KEY_CHARS = 256
KEPT_FOR = 86_400.0  # seconds that an answer is kept for whoever asks the same again


def key_of(req: Request) -> str:
    """Return the idempotency key of a request, "" for none."""
    return req.get_header(KEY) or ""


def is_key(text: str) -> bool:
    """Tell whether a text can be an idempotency key: 1 to 256 printable ASCII characters."""
    return 0 < len(text) <= KEY_CHARS and text.isascii() and text.isprintable()


def check_key(text: str) -> None:
    """Refuse what is no idempotency key."""
    if not is_key(text):
        raise invalid(f"an idempotency key is 1 to {KEY_CHARS} printable ASCII characters", KEY)


def kept_name(tenant: str, endpoint: str, idempotency_key: str) -> str:
    """Say under which name an answer is kept: a key is good for one tenant and one endpoint."""
    return f"{tenant}\0{endpoint}\0{idempotency_key}"


def replay(kept: Kept, digest: bytes) -> Answer:
    """Return what was answered before; Refusal 409 if that was to another request, of another digest."""
    if kept.digest != digest:
        raise Refusal(409, Problem("this idempotency key was used for another request", KEY), why=Why.OTHER_REQUEST)
    answer = decode(kept.value)
    return msgspec.structs.replace(answer, headers={**answer.headers, "Idempotent-Replayed": "true"})


def under_way() -> Refusal:
    """Say that the first of two requests is not answered yet."""
    said = "the first request with this idempotency key is still being worked on"
    return Refusal(409, Problem(said), why=Why.IN_FLIGHT)
