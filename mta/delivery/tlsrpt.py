"""Counts how TLS sessions went, by day, recipient domain and policy, for reports (RFC 8460).

A session is a connection that was judged, once: deliveries on a kept one cost nothing here, a new one an update of a
dict. What was counted is stored every half minute and when the role drains; a process that is killed takes the last
half minute with it. Results are bounded in number and size: what finds no room is counted with others like it.
"""

import asyncio
import logging

import msgspec

from mta.clock import Clock
from mta.delivery.policy import Failure, StsPolicy, Tlsa
from mta.mail.tls_report import (
    DAY,
    NO_POLICY,
    STS,
    TLSA,
    FailureDetails,
    Policy,
    PolicyResults,
    day_of,
    start_of,
)
from mta.spool import tls_results
from mta.spool.interface import Spool, SpoolError
from mta.spool.tls_results import OTHERS, Results

log = logging.getLogger(__name__)

KEEP_EVERY = 30.0  # seconds
KEPT_DAYS = 14  # for the operator; a report is sent, or given up, within two
DOMAINS = 10_000  # a day
POLICIES = 16  # of a domain; one with DANE has one for each of its hosts, and for each rollover
DETAILS = 200  # ways to fail, of a domain
ROOM = 16 << 20  # characters of all policies and details of a day
REASON_LIMIT = 200  # characters
_STRINGS_LIMIT = 8192  # characters of a policy
_HOSTS_LIMIT = 50
_TOGETHER = 500  # records
_OF_STS = frozenset({Failure.STS_POLICY_FETCH_ERROR, Failure.STS_POLICY_INVALID, Failure.STS_WEBPKI_INVALID})
_OF_DANE = frozenset({Failure.TLSA_INVALID, Failure.DNSSEC_INVALID, Failure.DANE_REQUIRED})


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """A connection that was judged, or that was not made because of its policy.

    `at` is when, in absolute seconds. `domain` is the recipient domain, whose policy it is: `sts`, or the usable TLSA
    records of the host (`dane`, which win), or none. `host` is the MX host, `address` its address and `source` ours, ""
    for what it did not come to. `failure` is None if the session was as the policy wants it; `text` says more.
    """

    at: float
    domain: str
    sts: StsPolicy | None = None
    dane: tuple[Tlsa, ...] | None = None
    host: str = ""
    source: str = ""
    address: str = ""
    failure: Failure | None = None
    text: str = ""


class TlsResults:
    """Counts sessions in the delivery role, and stores the counts. `run` it once; `drain` stores the last of them."""

    def __init__(self, spool: Spool, clock: Clock) -> None:
        self._spool = spool
        self._clock = clock
        self._days: dict[str, _Day] = {}
        self._counted = asyncio.Event()
        self._stopping = asyncio.Event()
        self._keeping = asyncio.Lock()
        self._begun: set[str] = set()  # the days that are on record

    def note(self, session: Session) -> None:
        """Count a session. Never raises, and waits for nothing."""
        day = day_of(session.at)
        counted = self._days.get(day)
        if counted is None:
            counted = self._days[day] = _Day()
        counted.count(session)
        self._counted.set()

    async def run(self) -> None:
        """Store what was counted, until drained."""
        while not self._stopping.is_set():
            await self._counted.wait()
            self._counted.clear()
            await self._clock.wait(self._stopping, KEEP_EVERY)
            await self._keep_if_possible()

    async def drain(self) -> None:
        """Store what was counted, and no more by itself."""
        self._stopping.set()
        self._counted.set()
        await self._keep_if_possible()

    async def keep(self) -> None:
        """Store what was counted since the last time. SpoolError: not all of it was."""
        async with self._keeping:
            for day in sorted(self._days):
                await self._keep_day(day, self._days[day])
            today = day_of(self._clock.now())
            for day in [each for each, counted in self._days.items() if each != today and not counted.unkept()]:
                del self._days[day]

    async def _keep_if_possible(self) -> None:
        try:
            await self.keep()
        except SpoolError as error:
            log.error("tlsrpt=not-stored error=%s", error)
            self._counted.set()  # to be tried again

    async def _keep_day(self, day: str, counted: "_Day") -> None:
        if day not in self._begun:
            await tls_results.begin_day(self._spool, day)
            self._begun.add(day)
            await self._forget_before(start_of(day) - KEPT_DAYS * DAY)
        unkept = counted.unkept()
        for first in range(0, len(unkept), _TOGETHER):
            some = unkept[first : first + _TOGETHER]
            await asyncio.gather(*[self._keep_tally(day, domain, tally) for domain, tally in some])

    async def _keep_tally(self, day: str, domain: str, tally: "_Tally") -> None:
        if not tally.complete:  # what a process before this one has counted
            before = await tls_results.results_of(self._spool, day, domain)
            if not tally.complete:  # still: whoever fails beside others leaves them at it
                tally.add(before.policies if before is not None else ())
                tally.complete = True
        kept = tally.changes
        await tls_results.keep_results(self._spool, Results(day=day, domain=domain, policies=tally.results()))
        tally.kept = kept

    async def _forget_before(self, at: float) -> None:
        for day in await tls_results.days(self._spool):
            if start_of(day) < at:
                await tls_results.forget_day(self._spool, day)


class _Day:
    """What is counted on a day."""

    def __init__(self) -> None:
        self._tallies: dict[str, _Tally] = {}
        self._room = _Room()

    def count(self, session: Session) -> None:
        tally = self._tallies.get(session.domain)
        if tally is None:
            tally = self._new_tally(session.domain)
        tally.count(session)

    def unkept(self) -> list[tuple[str, "_Tally"]]:
        return [(domain, tally) for domain, tally in self._tallies.items() if tally.changes != tally.kept]

    def _new_tally(self, domain: str) -> "_Tally":
        if len(self._tallies) >= DOMAINS:
            known = self._tallies.get(OTHERS)
            if known is not None:
                return known
            domain = OTHERS
        # those without a name of their own are told by what happened alone
        tally = self._tallies[domain] = _Tally(domain, self._room if domain != OTHERS else _Room(0))
        return tally


class _Room:
    """How many characters may still be kept of a day."""

    def __init__(self, left: int = ROOM) -> None:
        self._left = left

    def take(self, *texts: str) -> bool:
        """Take room for texts; False if there is none."""
        wanted = sum(map(len, texts))
        if wanted > self._left:
            return False
        self._left -= wanted
        return True


class _Row:
    """What is counted under a policy."""

    def __init__(self) -> None:
        self.successful = 0
        self.failed = 0
        self.details: dict[FailureDetails, int] = {}


class _Tally:
    """What is counted of a domain on a day. It is `complete` with what was stored before, and stored up to `kept`."""

    def __init__(self, domain: str, room: _Room) -> None:
        self.complete = False
        self.changes = 0
        self.kept = 0
        self._domain = domain
        self._room = room
        self._rows: dict[Policy, _Row] = {}
        self._details = 0

    def count(self, session: Session) -> None:
        """Count a session."""
        self.changes += 1
        row = self._row(_policy_of(session, self._domain))
        if session.failure is None:
            row.successful += 1
        else:
            row.failed += 1
            self._count_failures(row, _details_of(session), 1)

    def add(self, results: tuple[PolicyResults, ...]) -> None:
        """Add what was counted elsewhere."""
        for each in results:
            row = self._row(each.policy)
            row.successful += each.successful
            row.failed += each.failed
            for details, count in each.details:
                self._count_failures(row, details, count)

    def results(self) -> tuple[PolicyResults, ...]:
        """Say what was counted, what happened most first."""
        return tuple(
            [
                PolicyResults(policy, row.successful, row.failed, tuple(sorted(row.details.items(), key=_most_first)))
                for policy, row in self._rows.items()
            ]
        )

    def _row(self, policy: Policy) -> _Row:
        row = self._rows.get(policy)
        if row is None:
            if len(self._rows) >= POLICIES or not self._room.take(*policy.strings, *policy.mx_hosts):
                policy = Policy(policy.type, policy.domain)
            row = self._rows.setdefault(policy, _Row())
        return row

    def _count_failures(self, row: _Row, details: FailureDetails, count: int) -> None:
        if details not in row.details:
            if self._details < DETAILS and self._room.take(details.mx_hostname, details.reason):
                self._details += 1
            else:
                details = FailureDetails(details.result_type)
        row.details[details] = row.details.get(details, 0) + count


def _policy_of(session: Session, domain: str) -> Policy:
    """Name the policy of a session as reports do (RFC 8460 4.4); one that could not be had is without its text."""
    if session.dane is not None or session.failure in _OF_DANE:
        records = sorted(map(_presented, session.dane or ()))
        return Policy(TLSA, domain, _bounded(records), (session.host,) if session.host else ())
    if session.sts is not None:
        return Policy(STS, domain, _bounded(session.sts.text), session.sts.mx[:_HOSTS_LIMIT])
    return Policy(STS if session.failure in _OF_STS else NO_POLICY, domain)


def _details_of(session: Session) -> FailureDetails:
    return FailureDetails(
        result_type=str(session.failure),
        sending_ip=session.source,
        mx_hostname=session.host,
        receiving_ip=session.address,
        reason=_plain(session.text),
    )


def _presented(record: Tlsa) -> str:
    """Write a TLSA record as RFC 8460 4.5 has it."""
    return f"{record.usage} {record.selector} {record.matching_type} {record.data.hex().upper()}"


def _bounded(strings: list[str] | tuple[str, ...]) -> tuple[str, ...]:
    """Take as many strings as are kept of a policy, without empty ones."""
    taken: list[str] = []
    left = _STRINGS_LIMIT
    for each in filter(None, map(_plain_line, strings)):
        left -= len(each) + 1
        if left < 0:
            break
        taken.append(each)
    return tuple(taken)


def _plain_line(text: str) -> str:
    return text if text.isprintable() else "".join([each if each.isprintable() else "?" for each in text])


def _plain(text: str) -> str:
    return _plain_line(text[:REASON_LIMIT])


def _most_first(counted: tuple[FailureDetails, int]) -> int:
    return -counted[1]
