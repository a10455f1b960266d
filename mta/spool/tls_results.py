"""Results of TLS sessions by day and domain, and how far the report of each has come (RFC 8460): records of the spool.

Delivery counts and writes results; who reports writes progress. Neither writes what is the other's, so that no lock is
needed. A day has kinds of its own: one is read, and forgotten, without the others.
"""

import asyncio
import logging

import msgspec

from mta.mail.tls_report import PolicyResults
from mta.spool.interface import Spool
from mta.spool.sealing import SealBroken

log = logging.getLogger(__name__)

OTHERS = "*"
"""In place of a domain: all those for which there was no room."""

_DAYS = "tlsrpt days"
_RESULTS = "tlsrpt"
_PROGRESS = "tlsrpt progress"
_TOGETHER = 500  # records
_encode = msgspec.msgpack.Encoder().encode


class Results(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """How the sessions of a day (of UTC, `2027-01-15`) with the hosts of a domain went. New fields go to the end."""

    version: int = 1
    day: str
    domain: str
    policies: tuple[PolicyResults, ...]


class Progress(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """What has been done to report a domain's day. New fields go to the end.

    `id` is the report's own. `left` are the URIs that have not got it, None before they were looked up, `sent` those
    that have. `trouble` is why not at the last of `tries`, and there is another at `next_at` unless it is `over`. Times
    are absolute seconds.
    """

    version: int = 1
    day: str
    domain: str
    id: str
    begun_at: float
    left: tuple[str, ...] | None = None
    sent: tuple[str, ...] = ()
    tries: int = 0
    next_at: float = 0.0
    trouble: str = ""
    over: bool = False


_decode_results = msgspec.msgpack.Decoder(Results).decode
_decode_progress = msgspec.msgpack.Decoder(Progress).decode


async def begin_day(spool: Spool, day: str) -> None:
    """Put on record that there are results of a day."""
    await spool.put_record(_DAYS, day, b"", replace=True)


async def days(spool: Spool) -> list[str]:
    """List the days of which there are results, in order."""
    return [day for day, _ in await spool.list_records(_DAYS)]


async def keep_results(spool: Spool, results: Results) -> None:
    """Store results in place of those before."""
    await spool.put_record(f"{_RESULTS} {results.day}", results.domain, _encode(results), replace=True)


async def results_of(spool: Spool, day: str, domain: str) -> Results | None:
    """Return the results of a domain; None if there are none, or none that can be read."""
    try:
        stored = await spool.get_record(f"{_RESULTS} {day}", domain)
        return None if stored is None else _decode_results(stored)
    except (SealBroken, msgspec.DecodeError) as error:
        log.error("tlsrpt=results day=%s domain=%r read=no error=%s", day, domain, error)
        return None


async def all_results(spool: Spool, day: str) -> list[Results]:
    """Return the results of all domains on a day, by domain, those that can be read."""
    found: list[Results] = []
    for domain, value in await _records(spool, f"{_RESULTS} {day}"):
        try:
            found.append(_decode_results(value))
        except msgspec.DecodeError as error:
            log.error("tlsrpt=results day=%s domain=%r read=no error=%s", day, domain, error)
    return found


async def keep_progress(spool: Spool, progress: Progress) -> None:
    """Store how far a report has come."""
    await spool.put_record(f"{_PROGRESS} {progress.day}", progress.domain, _encode(progress), replace=True)


async def all_progress(spool: Spool, day: str) -> dict[str, Progress]:
    """Return how far the reports of a day have come that were begun, by domain.

    SealBroken or msgspec.DecodeError if that cannot be read: nobody is to get a report twice.
    """
    stored = await spool.list_records(f"{_PROGRESS} {day}")
    return {domain: _decode_progress(value) for domain, value in stored}


async def forget_day(spool: Spool, day: str) -> None:
    """Remove all that is on record of a day."""
    for kind in (f"{_RESULTS} {day}", f"{_PROGRESS} {day}"):
        names = [name for name, _ in await _records(spool, kind)]
        for first in range(0, len(names), _TOGETHER):
            await asyncio.gather(*[spool.delete_record(kind, name) for name in names[first : first + _TOGETHER]])
    await spool.delete_record(_DAYS, day)


async def _records(spool: Spool, kind: str) -> list[tuple[str, bytes]]:
    try:
        return await spool.list_records(kind)
    except SealBroken as error:  # one that is broken hides the others, which cost a report and no mail
        log.error("records=%r error=%s", kind, error)
        return []
