"""What the receiving MX does to a recipient, read from the local part; pure, the time is passed in.

`tempfail-2@any.test` is refused twice and then accepted, `reject+anything@any.test` is refused for good;
`ok` and every other local part is accepted.
"""

import re
from enum import StrEnum
from typing import NamedTuple

from mta.lab.commands import Refused

_MEMORY = 10_000  # recipients whose refusals are counted; beyond it the oldest count starts anew
_TEMPFAIL = re.compile(r"tempfail-(\d{1,6})", re.ASCII)


class Kind(StrEnum):
    """Behaviours by name. SLOW, DROP and TARPIT are of the transaction (DATA), the others of the recipient (RCPT)."""

    OK = "ok"
    TEMPFAIL = "tempfail"
    GREYLIST = "greylist"
    REJECT = "reject"
    FULL = "full"
    SLOW = "slow"
    DROP = "drop"
    TARPIT = "tarpit"


_PLAIN = {kind.value: kind for kind in Kind if kind is not Kind.TEMPFAIL}


class Behaviour(NamedTuple):
    """A behaviour, and for TEMPFAIL how often."""

    kind: Kind
    times: int = 0


class _Tries(NamedTuple):
    number: int
    first_at: float


def behaviour_of(address: str) -> Behaviour:
    """Read the behaviour from the local part of `address`; what follows a + is a tag."""
    name = address.rpartition("@")[0].partition("+")[0].lower()
    counted = _TEMPFAIL.fullmatch(name)
    if counted is not None:
        return Behaviour(Kind.TEMPFAIL, int(counted[1]))
    return Behaviour(_PLAIN.get(name, Kind.OK))


class Judge:
    """Answers RCPT, remembering refusals by (sender, recipient) until a message of theirs has got through."""

    def __init__(self, greylist: float) -> None:
        self._greylist = greylist
        self._tries: dict[tuple[str, str], _Tries] = {}

    def hear(self, sender: str, recipient: str, at: float) -> None:
        """Take `recipient` at monotonic time `at`, or raise Refused with the reply of its behaviour."""
        kind, times = behaviour_of(recipient)
        if kind is Kind.REJECT:
            raise Refused("550 5.1.1 no such mailbox")
        if kind is Kind.FULL:
            raise Refused("552 5.2.2 mailbox full")
        if kind not in (Kind.TEMPFAIL, Kind.GREYLIST):
            return
        tries = self._try(sender, recipient, at)
        if kind is Kind.TEMPFAIL and tries.number <= times:
            raise Refused(f"451 4.3.0 temporary failure {tries.number} of {times}")
        if kind is Kind.GREYLIST and (tries.number == 1 or at < tries.first_at + self._greylist):
            raise Refused("451 4.7.1 greylisted, try again later")

    def accepted(self, sender: str, recipient: str) -> None:
        """Forget the refusals: a message got through, the next one meets the behaviour from its beginning."""
        self._tries.pop((sender, recipient), None)

    def _try(self, sender: str, recipient: str, at: float) -> _Tries:
        known = self._tries.pop((sender, recipient), _Tries(0, at))
        if len(self._tries) >= _MEMORY:
            del self._tries[next(iter(self._tries))]
        self._tries[sender, recipient] = tries = known._replace(number=known.number + 1)
        return tries
