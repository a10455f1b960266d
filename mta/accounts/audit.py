"""The audit log: who did what to accounts and to the queue, from where, when, and what came of it. Never a secret.

An action is on record before it is begun, with the result `begun`, and again with what came of it before anybody is
answered: one that a crash cut off may have been done. Records are kept for 90 days, in the spool, sealed as all named
records are: those of a minute together, with lists of the days, and of the minutes of a day, in which there are any.
"""

import asyncio
import datetime as dt
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple

import msgspec

from mta.accounts.tenants import AccountError
from mta.spool.interface import Spool, SpoolError

KEPT_FOR = 90 * 86_400.0  # seconds
BEGUN = "begun"
_DAYS = "audit"  # kind of records without content, whose names are days
_PLACE = "audit\0{}"  # kind, with a day: names of its minutes; with a minute: its records
_DAY, _MINUTE = "%Y-%m-%d", "%Y-%m-%dT%H:%M"
_AT_ONCE = 250  # records that are deleted together
_LOOKED_AT = 10_000  # records for a page, or a minute's if they are more
_TEXT_LIMIT = 256  # characters
_encode = msgspec.msgpack.Encoder().encode


class Who(NamedTuple):
    """Who does something: a key (`key ID`) or a person, of which tenant ("": an operator), from where."""

    name: str
    tenant: str = ""
    address: str = ""


class Record(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """One action. `tenant` is whom it concerns, "" for several or all; `on` is the id or the name of what is changed.

    `position` is its place in the log, by time. New fields go to the end.
    """

    version: int = 1
    position: str
    at: float
    by: str
    by_operator: bool
    address: str
    action: str
    tenant: str
    on: str
    details: dict[str, str]
    result: str = BEGUN


_decode = msgspec.msgpack.Decoder(Record).decode


class Underway:
    """An action that is being done: what is known of it only now. `result` is `done` if nothing else is said."""

    def __init__(self, on: str) -> None:
        self.on = on
        self.result = "done"


class AuditLog:
    """The log, as one process writes and reads it."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._listed = ("", "")  # the day and the minute of the last record
        self._count = 0

    @asynccontextmanager
    async def doing(
        self, who: Who, action: str, now: float, *, tenant: str, on: str = "", **details: object
    ) -> AsyncIterator[Underway]:
        """Have an action on record that is done in the block; if it fails, why. SpoolError if it cannot be recorded."""
        record = Record(
            position=self._position(now),
            at=now,
            by=who.name,
            by_operator=not who.tenant,
            address=who.address,
            action=action,
            tenant=tenant,
            on=on[:_TEXT_LIMIT],
            details={name: text for name, value in details.items() if (text := _text(value))},
        )
        await self._write(record)
        underway, failed = Underway(on), None
        try:
            yield underway
        except BaseException as error:
            failed = error
            raise
        finally:
            result = underway.result if failed is None else _reason(failed)
            ended = msgspec.structs.replace(record, on=underway.on[:_TEXT_LIMIT], result=result[:_TEXT_LIMIT])
            await self._put(ended)

    async def page(
        self, tenant: str, limit: int, before: str = "", since: float = 0.0
    ) -> tuple[list[Record], str | None]:
        """Read the latest records of a tenant, or of all, and from where to go on; None at the end.

        A page may be short, or empty, and not the last: it looks at a bounded number of records.
        """
        found, looked = list[Record](), 0
        for day in reversed(await self._names(_DAYS)):
            if before and day > _name(before, _DAY):
                continue
            for minute in reversed(await self._names(_PLACE.format(day))):
                if _start_of(minute) < since - 60:
                    return found, None
                start = f"{int(_start_of(minute) * 1000):014d}"
                if before and start >= before:
                    continue
                records = [_decode(value) for _, value in await self._spool.list_records(_PLACE.format(minute))]
                looked += len(records)
                for record in sorted(records, key=lambda each: each.position, reverse=True):
                    if (before and record.position >= before) or tenant not in ("", record.tenant):
                        continue
                    if record.at < since:
                        return found, None
                    if len(found) == limit:
                        return found, found[-1].position
                    found.append(record)
                if looked >= _LOOKED_AT:
                    return found, start  # which names nothing of others
                await asyncio.sleep(0)
        return found, None

    async def forget(self, now: float) -> None:
        """Remove the days that are over."""
        for day in await self._names(_DAYS):
            if dt.datetime.fromisoformat(f"{day}T00:00Z").timestamp() + 86_400 > now - KEPT_FOR:
                return
            for minute in await self._names(_PLACE.format(day)):
                await self._delete_all(_PLACE.format(minute))
            await self._delete_all(_PLACE.format(day))
            await self._spool.delete_record(_DAYS, day)

    def _position(self, now: float) -> str:
        """Make a place by time, those of one moment in the order in which they began; other processes make others."""
        self._count = (self._count + 1) & 0xFFFF
        return f"{int(now * 1000):014d}-{self._count:04x}{secrets.token_hex(4)}"

    async def _write(self, record: Record) -> None:
        """Store a new record, behind what leads to it."""
        day, minute = _name(record.position, _DAY), _name(record.position, _MINUTE)
        if day != self._listed[0]:
            await self.forget(record.at)
            await self._spool.put_record(_DAYS, day, b"", replace=True)
        if minute != self._listed[1]:
            await self._spool.put_record(_PLACE.format(day), minute, b"", replace=True)
        self._listed = day, minute
        await self._put(record)

    async def _put(self, record: Record) -> None:
        place = _PLACE.format(_name(record.position, _MINUTE))
        await self._spool.put_record(place, record.position, _encode(record), replace=True)

    async def _names(self, kind: str) -> list[str]:
        return [name for name, _ in await self._spool.list_records(kind)]

    async def _delete_all(self, kind: str) -> None:
        names = await self._names(kind)
        for start in range(0, len(names), _AT_ONCE):
            await asyncio.gather(*(self._spool.delete_record(kind, name) for name in names[start : start + _AT_ONCE]))


def told(results: Mapping[str, int]) -> str:
    """Say what came of many, as a result: how many of each."""
    return " ".join([f"{result}={number}" for result, number in sorted(results.items()) if number]) or "nothing"


def is_position(text: str) -> bool:
    """Tell whether a text is a place in the log, or its time."""
    time, _, rest = text.partition("-")
    return len(time) == 14 and time.isascii() and time.isdigit() and len(rest) in (0, 12)


def _text(value: object) -> str:
    if isinstance(value, list | tuple):
        value = ",".join(map(str, value))
    return "" if value is None else str(value)[:_TEXT_LIMIT]


def _reason(error: BaseException) -> str:
    """Say why an action failed; of what nobody foresaw only its kind: its text may have anything in it."""
    if isinstance(error, AccountError):
        return f"refused: {error}"
    return f"failed: {error if isinstance(error, SpoolError) else type(error).__name__}"


def _at(position: str) -> float:
    return int(position[:14]) / 1000


def _name(position: str, form: str) -> str:
    return dt.datetime.fromtimestamp(_at(position), dt.UTC).strftime(form)


def _start_of(minute: str) -> float:
    return dt.datetime.fromisoformat(f"{minute}Z").timestamp()
