"""Bearer keys (RFC 6750): who asks, and whether its key has the scope."""

import falcon.asgi

from mta.accounts import keys
from mta.accounts.keys import ApiKey
from mta.spool.interface import Spool
from relay_http.problem import Problem, Refusal

# Client libraries look for these words.
_NO_KEY = "Permission denied, wrong credentials"
_UNKNOWN_KEY = "The provided authorization grant is invalid, expired, or revoked"


async def authenticate(req: falcon.asgi.Request, spool: Spool, no_key: str = _NO_KEY) -> ApiKey:
    """Return the key of a request; Refusal 401 when there is none (in the words of `no_key`) or it is not good."""
    scheme, _, secret = (req.auth or "").partition(" ")
    if scheme.lower() != "bearer" or not secret:
        raise _unauthorized(no_key)
    key = await keys.authenticate(spool, secret.strip())
    if key is None:
        raise _unauthorized(_UNKNOWN_KEY)
    req.context.key = key
    return key


def require(key: ApiKey, scope: str) -> None:
    """Refuse with 403 unless the key has the scope."""
    if scope not in key.scopes:
        raise Refusal(403, Problem("access forbidden"))


def _unauthorized(message: str) -> Refusal:
    return Refusal(401, Problem(message), headers={"WWW-Authenticate": "Bearer"})
