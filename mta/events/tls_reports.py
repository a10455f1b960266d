"""Sends each domain that wants one a report of its day's TLS sessions, by mail or HTTPS (RFC 8460).

A report is due some time within four hours of the end of its day (UTC), and is tried for 24 hours. Whether a domain
wants one is asked then. What is on record says what was done, so that a restart sends nothing twice: a mail is put on
record before it is handed over, and if we die between the two there is none. Days of which nothing was sent in time,
because nothing ran, are left out.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from hashlib import blake2b

import msgspec

from mta.accounts import domains, senders
from mta.clock import Clock
from mta.config import Config
from mta.mail.address import domain_of, is_domain
from mta.mail.envelope import Envelope, Notify, Recipient
from mta.mail.ids import new_message_id
from mta.mail.tls_report import (
    DAY,
    Cover,
    PolicyResults,
    Report,
    compressed,
    day_of,
    report_mail,
    report_of,
    start_of,
)
from mta.mail.tls_report_record import Endpoint, endpoint_of, endpoints, record_name
from mta.queue.queue import Queue
from mta.queue.submission import Submission
from mta.spool import tls_results
from mta.spool.interface import Spool, SpoolError, Uncertain
from mta.spool.records import MessageClass, Origin
from mta.spool.tls_results import Progress

log = logging.getLogger(__name__)

SETTLED = 900.0  # seconds after the end of a day: by then its last sessions are on record
SPREAD = 4 * 3600.0  # seconds over which reports are spread (RFC 8460 4.1)
LIFETIME = 24 * 3600.0  # seconds from the first try to the last (RFC 8460 5.5)
FIRST_RETRY = 300.0  # seconds, doubled each time
LAST_RETRY = 4 * 3600.0
AT_ONCE = 8  # domains; each can keep us waiting as long as a look-up and some requests take
LOOK = 600.0  # seconds, at most, between two looks
_DAYS_BACK = 2  # of which reports can be due: what began four hours after a day ends at the end of the next but one
_DEFAULT_TENANT = "default"


class NotNow(Exception):
    """The other side could not be asked, or did not take it; the message says why. Another try may do."""


class World(msgspec.Struct, frozen=True):
    """How to reach others: both raise NotNow.

    `texts` looks up TXT records, the strings of each joined; none is an answer too. `post` sends octets to a server,
    and returns the status of its answer.
    """

    texts: Callable[[str], Awaitable[Sequence[bytes]]]
    post: Callable[[Endpoint, bytes], Awaitable[int]]


class TlsReports:
    """Sends reports, if the configuration has a contact for them. `run` it once, in one process of all."""

    def __init__(self, config: Config, spool: Spool, queue: Queue, clock: Clock, world: World) -> None:
        self._contact = config.tlsrpt.contact or ""
        self._organization = config.tlsrpt.organization or config.hostname
        self._sender = config.tlsrpt.sender or f"tlsrpt@{config.hostname}"
        self._tenant = config.tlsrpt.tenant
        self._spool = spool
        self._queue = queue
        self._clock = clock
        self._world = world
        self._days: dict[str, dict[str, Progress]] = {}  # reports that are not over, by day and domain

    async def run(self, stop: asyncio.Event) -> None:
        """Send what is due, until `stop` is set."""
        pause = 0.0
        while not await self._clock.wait(stop, pause):
            try:
                pause = await self._turn(stop)
            except Exception as error:  # noqa: BLE001 - boundary: one background loop; reports must not end the role
                log.error("tlsrpt=waiting error=%r", error)
                pause = LOOK

    async def _turn(self, stop: asyncio.Event) -> float:
        """Do what is due; return how many seconds there is nothing more to do."""
        now = self._clock.now()
        await self._look(now)
        waiting = [each for day in self._days.values() for each in day.values()]
        due = sorted([each for each in waiting if each.next_at <= now], key=lambda each: each.next_at)
        left = iter(due)
        await asyncio.gather(*[self._try_some(left, stop) for _ in range(AT_ONCE)])
        next_at = min((each.next_at for day in self._days.values() for each in day.values()), default=now + LOOK)
        return min(LOOK, max(1.0, next_at - self._clock.now()))

    async def _try_some(self, left: Iterator[Progress], stop: asyncio.Event) -> None:
        """Try one report after the other, beside others that do: who waits for a slow server waits alone."""
        for each in left:
            if stop.is_set():
                return
            tried = await self._try(each)
            if tried.over:
                del self._days[each.day][each.domain]
            else:
                self._days[each.day][each.domain] = tried

    async def _look(self, now: float) -> None:
        """Read the results of days that have ended, once each; forget those that are too long ago."""
        wanted = [day_of(now - SETTLED - back * DAY) for back in range(1, _DAYS_BACK + 1)]
        for day in [each for each in self._days if each not in wanted]:
            del self._days[day]
        for day in wanted:
            if day not in self._days:
                begun = await tls_results.all_progress(self._spool, day)
                results = await tls_results.all_results(self._spool, day)
                reports = [begun.get(each.domain) or _not_begun(day, each.domain) for each in results]
                self._days[day] = {each.domain: each for each in reports if not each.over and is_domain(each.domain)}

    async def _try(self, progress: Progress) -> Progress:
        """Do what is left of a report, and put on record how far that has come; never raises."""
        now = self._clock.now()
        if not progress.tries:
            progress = msgspec.structs.replace(progress, begun_at=now)
        tried = msgspec.structs.replace(progress, tries=progress.tries + 1, trouble="")
        try:
            tried = await self._sent(tried)
        except NotNow as error:
            tried = msgspec.structs.replace(tried, trouble=str(error))
        except Exception as error:  # noqa: BLE001 - boundary: one report; the others are sent
            log.error("tlsrpt=failed domain=%s day=%s error=%r", tried.domain, tried.day, error)
            tried = msgspec.structs.replace(tried, trouble=f"{type(error).__name__}: {error}")
        tried = _next(tried, now)
        if tried.left != () or tried.sent:  # that a domain wants none, as most do, is not on record
            await self._keep(tried)
        if tried.over and tried.left != ():
            log.warning("tlsrpt=given-up domain=%s day=%s reason=%a", tried.domain, tried.day, tried.trouble)
        return tried

    async def _keep(self, progress: Progress) -> None:
        try:
            await tls_results.keep_progress(self._spool, progress)
        except SpoolError as error:
            log.error("tlsrpt=not-stored domain=%s day=%s error=%s", progress.domain, progress.day, error)

    async def _sent(self, progress: Progress) -> Progress:
        """Look up where a report goes and send it there; return what is left of it. NotNow: nothing was done."""
        if progress.left is None:
            found = endpoints(await self._world.texts(record_name(progress.domain)))
            progress = msgspec.structs.replace(progress, left=tuple([each.uri for each in found]))
        results = await tls_results.results_of(self._spool, progress.day, progress.domain) if progress.left else None
        if results is None:
            return msgspec.structs.replace(progress, left=())
        report = self._report(progress, results.policies)
        for uri in progress.left or ():
            endpoint = endpoint_of(uri)
            if endpoint is not None:
                progress = await self._sent_to(endpoint, report, progress)
        return progress

    def _report(self, progress: Progress, policies: tuple[PolicyResults, ...]) -> Report:
        return report_of(
            progress.day,
            policies,
            organization=self._organization,
            contact=self._contact,
            message_id=progress.id,
        )

    async def _sent_to(self, endpoint: Endpoint, report: Report, progress: Progress) -> Progress:
        """Send a report to one of its endpoints; return how far it has come, with the trouble if it was not taken."""
        done = msgspec.structs.replace(
            progress,
            left=tuple([each for each in progress.left or () if each != endpoint.uri]),
            sent=(*progress.sent, endpoint.uri),
        )
        try:
            if endpoint.mailbox:
                await tls_results.keep_progress(self._spool, done)
                await self._mail(endpoint.mailbox, report, progress)
            elif not 200 <= (status := await self._world.post(endpoint, compressed(report))) < 300:
                raise NotNow(f"the server answered {status}")  # RFC 8460 5.4
        except (NotNow, SpoolError) as error:
            return msgspec.structs.replace(progress, trouble=f"{endpoint.uri}: {error}")
        except Exception as error:  # noqa: BLE001 - boundary: one endpoint; what the others have got is not forgotten
            log.error("tlsrpt=failed domain=%s to=%a error=%r", progress.domain, endpoint.uri, error)
            return msgspec.structs.replace(progress, trouble=f"{endpoint.uri}: {type(error).__name__}: {error}")
        log.info("tlsrpt=sent domain=%s day=%s to=%a", progress.domain, progress.day, endpoint.uri)
        return done

    async def _mail(self, mailbox: str, report: Report, progress: Progress) -> None:
        """Hand a report to the queue. NotNow if the sender's domain is not for us to use."""
        now, message_id, domain = self._clock.now(), new_message_id(), domain_of(self._sender)
        owner = await domains.owner_of(self._spool, domain)
        tenant = self._tenant or (owner.tenant if owner is not None else _DEFAULT_TENANT)
        standing = await senders.standing(self._spool, tenant, (domain,))
        if standing.foreign:
            raise NotNow(f"tlsrpt.sender {self._sender}: {standing.note}")
        if not standing.sign_domain:  # RFC 8460 3: it must be signed
            log.warning("tlsrpt=unsigned domain=%s sender=%s reason=%a", progress.domain, self._sender, standing.note)
        cover = Cover(id=message_id, sender=self._sender, to=mailbox, at=now)
        submission = Submission(
            id=message_id,
            tenant=tenant,
            envelope=Envelope(
                sender=self._sender,
                recipients=(Recipient(mailbox, notify=int(Notify.NEVER)),),
                deliver_by=now + LIFETIME,
                tls_required="no",  # RFC 8460 3: whatever is wrong with TLS there
            ),
            origin=Origin.TLS_REPORT,
            message_class=MessageClass.BULK,
            content=report_mail(report, cover),
            sign_domain=standing.sign_domain,
            header_message_id=f"<{message_id}@{domain}>",
            note=f"TLS report to {progress.domain} of {progress.day}",
        )
        try:
            await self._queue.accept(submission)
        except Uncertain as error:  # it may be on its way, and nobody gets two
            log.warning("tlsrpt=uncertain domain=%s message=%s error=%s", progress.domain, message_id, error)


def _not_begun(day: str, domain: str) -> Progress:
    """Begin a report: due within SPREAD of the end of its day, for each domain at a time of its own."""
    digest = blake2b(f"{day} {domain}".encode(), digest_size=4).digest()
    share = int.from_bytes(digest, "big") / (1 << 32)
    due_at = start_of(day) + DAY + SETTLED + share * (SPREAD - SETTLED)
    return Progress(day=day, domain=domain, id=new_message_id(), begun_at=0.0, next_at=due_at)


def _next(tried: Progress, now: float) -> Progress:
    """Say when the next try is, or that there is none: all has been sent, or it has been tried for long enough."""
    if tried.left == ():
        return msgspec.structs.replace(tried, over=True)
    next_at = now + min(FIRST_RETRY * 2 ** (tried.tries - 1), LAST_RETRY)
    return msgspec.structs.replace(tried, next_at=next_at, over=next_at > tried.begun_at + LIFETIME)
