"""Who asks, and whether its key has the scope."""

from mta.accounts import keys
from mta.accounts.keys import ApiKey
from mta.clock import Clock
from mta.spool.interface import Spool
from relay_http.body import Request
from relay_http.dialect import Dialect
from relay_http.problem import Problem, Refusal, Why

_CHALLENGE = {"WWW-Authenticate": "Bearer"}


class Access:
    """Finds the keys of requests."""

    def __init__(self, spool: Spool, clock: Clock) -> None:
        self._spool = spool
        self._clock = clock

    async def key(self, req: Request, dialect: Dialect) -> ApiKey:
        """Return the key of a request; Refusal 401 when there is none or it is not good."""
        text = dialect.credential(req)
        if text is None:
            raise Refusal(401, Problem("authorization required"), why=Why.NO_KEY, headers=_CHALLENGE)
        key = await keys.authenticate(self._spool, text)
        if key is None:
            said = "the key is not known, expired or revoked"
            raise Refusal(401, Problem(said), why=Why.UNKNOWN_KEY, headers=_CHALLENGE)
        req.context.key = key
        return key


def require(key: ApiKey, scope: str) -> None:
    """Refuse with 403 unless the key has the scope."""
    if scope not in key.scopes:
        raise Refusal(403, Problem(f"the key has not the scope {scope}"), why=Why.FORBIDDEN)
