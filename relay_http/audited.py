"""What is changed over HTTP, whatever the dialect: at a bounded pace, and on record in the audit log."""

import math
from contextlib import AbstractAsyncContextManager

from mta.accounts.audit import AuditLog, Underway, Who
from mta.accounts.keys import ApiKey
from mta.clock import Clock
from mta.queue.bucket import Allowance, Buckets, Limit
from mta.spool.interface import Spool
from relay_http.body import Request
from relay_http.problem import Problem, Refusal, Why

_PACE = Allowance(600, 60.0, burst=100)  # changes of one tenant, or with one operator's key: each is kept for 90 days


class Audited:
    """The audit log as requests write it."""

    def __init__(self, spool: Spool, clock: Clock) -> None:
        self.log = AuditLog(spool)
        self._clock = clock
        self._paces = Buckets([Limit(("who",), _PACE)])

    def doing(
        self, req: Request, action: str, tenant: str, on: str = "", **details: object
    ) -> AbstractAsyncContextManager[Underway]:
        """Have what is done in the block on record as the doing of the request's key; Refusal 429 if it is too much."""
        key: ApiKey = req.context.key
        facts, now = {"who": key.tenant or f"key {key.id}"}, self._clock.monotonic()
        at, _ = self._paces.when(facts, now)
        if at > now:
            seconds = math.ceil(at - now)
            raise Refusal(
                429,
                Problem(f"too many changes, try again in {seconds} seconds"),
                why=Why.RATE,
                headers={"Retry-After": str(seconds)},
            )
        self._paces.take(facts, now)
        who = Who(f"key {key.id}", key.tenant, req.client)
        return self.log.doing(who, action, self._clock.now(), tenant=tenant, on=on, **details)
