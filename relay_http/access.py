"""Who asks: the key of a request, where it may come from, and whether it is good for what is asked."""

from mta.accounts import keys
from mta.accounts.keys import ApiKey
from mta.accounts.networks import within
from mta.accounts.uses import Uses
from mta.clock import Clock
from mta.queue.actions import Who
from mta.spool.interface import Spool
from relay_http.body import Request
from relay_http.dialect import Dialect
from relay_http.problem import Problem, Refusal, Why
from relay_http.proxies import Proxies

_CHALLENGE = {"WWW-Authenticate": "Bearer"}


class Access:
    """Finds the keys of requests."""

    def __init__(self, spool: Spool, clock: Clock, proxies: Proxies, uses: Uses) -> None:
        self._spool = spool
        self._clock = clock
        self._proxies = proxies
        self._uses = uses

    async def key(self, req: Request, dialect: Dialect) -> ApiKey:
        """Return the key of a request, and note who its client is.

        Refusal 401 when there is none or it is not good, 403 when it may not be used from there.
        """
        req.client = self._proxies.client(req)
        text = dialect.credential(req)
        if text is None:
            raise Refusal(401, Problem("authorization required"), why=Why.NO_KEY, headers=_CHALLENGE)
        now = self._clock.now()
        key = await keys.authenticate(self._spool, text, now)
        if key is None:
            said = "the key is not known, expired or revoked"
            raise Refusal(401, Problem(said), why=Why.UNKNOWN_KEY, headers=_CHALLENGE)
        req.context.key = key
        if key.networks and not within(req.client, key.networks):
            raise Refusal(403, Problem("the key may not be used from this address"), why=Why.FORBIDDEN)
        self._uses.note(key.id, now)
        return key

    def prefix(self, req: Request) -> str:
        """Return the scheme and host that the client asked: what links begin with."""
        return self._proxies.prefix(req)


def require(key: ApiKey, scope: str) -> None:
    """Refuse with 403 unless the key is good for a scope, or for what a dialect has a name for."""
    if not key.allows(scope):
        raise Refusal(403, Problem(f"the key has not the scope {scope}"), why=Why.FORBIDDEN)


def live(key: ApiKey) -> ApiKey:
    """Return a key that may change what is delivered; Refusal 403 for one of the sandbox."""
    if key.sandbox:
        raise Refusal(403, Problem("the key is for the sandbox: it changes nothing that is sent"), why=Why.FORBIDDEN)
    return key


def who(key: ApiKey) -> Who:
    """Say on whose word something is done with the queue."""
    return Who(f"the operator, key {key.id}") if key.operator else Who(f"the tenant, key {key.id}", key.tenant)
