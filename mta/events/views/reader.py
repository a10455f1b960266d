"""What the http role reads of the views: mta.queue.views.Views. Questions run in threads, never on the loop.

A question sees one state of the views, has a second of SQLite's time, and its tenant in every condition.
"""

import asyncio
import logging
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TypeVar
from weakref import WeakValueDictionary

import msgspec

from mta.control import ControlError, ask
from mta.events.views import schema
from mta.events.views.cursor import cursor_at, place_of
from mta.events.views.following import PATIENCE, Progress, Reach
from mta.events.views.happenings import event_numbers
from mta.events.views.lists import Slice, count_of, span_of, whose
from mta.events.views.messages import message_numbers
from mta.events.views.schema import Build
from mta.events.views.shown import events_shown, messages_shown, timeline_of
from mta.mail.event import Event
from mta.mail.ids import MESSAGE_ID_CHARS
from mta.queue.views import EventPage, EventSearch, MessageShown, Page, Search, ViewsUnavailable, WrongCursor
from mta.spool.interface import Spool

log = logging.getLogger(__name__)

_THREADS = 4
_WAITING = 64  # questions at most, those that run included
_EACH = _WAITING // 2  # of one tenant's, or of operators'
_LONGEST = 1.0  # seconds that a question may take
_STEPS = 20_000  # of SQLite's machine between looks at the clock
type_answer = TypeVar("type_answer")


class _Open:
    """A connection to a build, for one question at a time."""

    def __init__(self, build: Build, db: sqlite3.Connection) -> None:
        self.build = build
        self.db = db
        self._until = 0.0
        db.set_progress_handler(lambda: time.monotonic() > self._until, _STEPS)

    @contextmanager
    def state(self) -> Iterator[int]:
        """Keep to one state of the views for a block: yields the number that comes next; ViewsUnavailable."""
        self._until = time.monotonic() + _LONGEST
        self.db.execute("BEGIN")
        try:
            seq, complete = self.db.execute("SELECT seq, complete FROM progress").fetchone()
            if not complete:
                raise ViewsUnavailable("the views are being built")
            yield seq + 1
        finally:
            self._until = float("inf")
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")


class SqliteViews:
    """The views as one process reads them."""

    def __init__(self, directory: Path, spool: Spool, events: Path) -> None:
        """`events` is the control socket of that role."""
        self._directory = directory
        self._spool = spool
        self._events = events
        self._pool = ThreadPoolExecutor(_THREADS, "views")
        self._idle: SimpleQueue[_Open] = SimpleQueue()
        self._waiting: Counter[str] = Counter()  # by tenant
        self._turns: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._reached = 0  # the greatest position that the views are known to have

    async def caught_up(self) -> None:
        """Wait until the views have the log as it is now; ViewsUnavailable if they do not in time."""
        position = await self._spool.log_end()
        await self._reach()
        if self._reached < position:
            raise ViewsUnavailable("the views are behind the log")

    async def message(self, tenant: str | None, message_id: str) -> MessageShown | None:
        """Show a message, all of its recipients included."""

        def ask_for(db: sqlite3.Connection, _: int) -> MessageShown | None:
            seq = _number_of(db, tenant, message_id)
            return None if seq is None else messages_shown(db, [seq], told_of=1 << 30)[0]

        return await self._ask(tenant, ask_for)

    async def messages(
        self, tenant: str | None, search: Search, *, limit: int, cursor: str = "", offset: int = 0, oldest: bool = False
    ) -> Page:
        """List messages, the last accepted first, or the oldest; WrongCursor."""
        behind = cursor if len(cursor) == MESSAGE_ID_CHARS else ""
        place = place_of("messages", cursor) if cursor and not behind else None

        def ask_for(db: sqlite3.Connection, _: int) -> Page:
            nonlocal place
            if behind:
                seq = _number_of(db, tenant, behind)
                if seq is None:
                    raise WrongCursor("there is no message with this ID")
                place = _behind(seq, oldest=oldest)
            wanted = _slice(db, search, place, oldest=oldest)._replace(limit=limit + 1, offset=offset)
            sql = message_numbers(db, whose(db, tenant), search, wanted)
            numbers = [] if sql is None else [seq for (seq,) in db.execute(*sql)]
            shown = tuple(messages_shown(db, numbers[:limit]))
            more = len(numbers) > limit
            return Page(shown, cursor_at("messages", _behind(numbers[limit - 1], oldest=oldest)) if more else "")

        return await self._ask(tenant, ask_for)

    async def count(self, tenant: str | None, search: Search, limit: int) -> int:
        """Count messages, up to `limit`."""

        def ask_for(db: sqlite3.Connection, _: int) -> int:
            wanted = _slice(db, search, None, oldest=True)._replace(limit=limit)
            sql = message_numbers(db, whose(db, tenant), search, wanted)
            return 0 if sql is None else count_of(db, sql)

        return await self._ask(tenant, ask_for)

    async def timeline(self, tenant: str | None, message_id: str) -> Sequence[tuple[int, Event]]:
        """List the events of a message in order, with their sequence numbers; none if there is no such message."""

        def ask_for(db: sqlite3.Connection, _: int) -> Sequence[tuple[int, Event]]:
            seq = _number_of(db, tenant, message_id)
            return [] if seq is None else timeline_of(db, seq)

        return await self._ask(tenant, ask_for)

    async def events(
        self, tenant: str | None, search: EventSearch, *, limit: int, cursor: str = "", oldest: bool = False
    ) -> EventPage:
        """List events, the newest first, or the oldest; WrongCursor.

        The next page of the same cursor in the other direction is the one before.
        """
        place = place_of("events", cursor) if cursor else None

        def ask_for(db: sqlite3.Connection, end: int) -> EventPage:
            wanted = _slice(db, search, place, oldest=oldest)._replace(limit=limit)
            sql = event_numbers(db, whose(db, tenant), search, wanted)
            numbers = [] if sql is None else [seq for (seq,) in db.execute(*sql)]
            if len(numbers) == limit:
                behind = _behind(numbers[-1], oldest=oldest)
            else:
                behind = max(end, place or 0) if oldest else 0
            return EventPage(events_shown(db, numbers), cursor_at("events", behind))

        return await self._ask(tenant, ask_for)

    async def close(self) -> None:
        """Let go of the file, when the questions under way are answered."""
        await asyncio.to_thread(self._pool.shutdown)
        while (opened := self._take_idle()) is not None:
            opened.db.close()

    async def _ask(self, tenant: str | None, ask_for: Callable[[sqlite3.Connection, int], type_answer]) -> type_answer:
        asker = tenant or ""
        if self._waiting.total() >= _WAITING or self._waiting[asker] >= _EACH:
            raise ViewsUnavailable("too many questions at once")
        self._waiting[asker] += 1
        try:
            await self._reach()
            async with self._turn(asker):
                return await asyncio.get_running_loop().run_in_executor(self._pool, self._answer, ask_for)
        finally:
            self._waiting[asker] -= 1
            if not self._waiting[asker]:
                del self._waiting[asker]

    def _turn(self, asker: str) -> asyncio.Semaphore:
        """Leave a thread to others, however long the questions of one take."""
        turn = self._turns.get(asker)
        if turn is None:
            turn = self._turns[asker] = asyncio.Semaphore(_THREADS - 1)
        return turn

    async def _reach(self) -> None:
        """Wait until the views have the log as it is now; without the role that builds them they stay as they are."""
        position = await self._spool.log_end()
        if position <= self._reached:
            return
        try:
            answer = await ask(self._events, "reach", 2 * PATIENCE, Reach(position))
            self._reached = max(self._reached, msgspec.convert(answer, Progress).position)
        except (ControlError, msgspec.ValidationError) as error:
            log.info("views position=%d not-reached=%s", position, error)

    def _answer(self, ask_for: Callable[[sqlite3.Connection, int], type_answer]) -> type_answer:
        opened = self._open()
        try:
            with opened.state() as end:
                answer = ask_for(opened.db, end)
        except sqlite3.Error as error:
            opened.db.close()
            log.warning("views=%s error=%r", opened.build.path, error)
            late = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT
            raise ViewsUnavailable("the question takes too long" if late else "the views cannot be read") from None
        except BaseException:
            opened.db.close()
            raise
        self._idle.put(opened)
        return answer

    def _open(self) -> _Open:
        """Take a connection to the newest build, or make one."""
        build = schema.newest(self._directory)
        while (opened := self._take_idle()) is not None:
            if opened.build == build:
                return opened
            opened.db.close()
        try:
            db = None if build is None else schema.open_to_read(build)
        except sqlite3.Error as error:
            log.warning("views=%s error=%r", self._directory, error)
            raise ViewsUnavailable("the views cannot be read") from None
        if build is None or db is None:
            raise ViewsUnavailable("the views are not built yet")
        return _Open(build, db)

    def _take_idle(self) -> _Open | None:
        try:
            return self._idle.get_nowait()
        except Empty:
            return None


def _slice(db: sqlite3.Connection, search: Search | EventSearch, place: int | None, *, oldest: bool) -> Slice:
    low, high = span_of(db, search.since, search.until)
    if place is not None and oldest:
        low = max(low, place)
    elif place is not None:
        high = min(high, place)
    return Slice(low, high, oldest, 0)


def _behind(seq: int, *, oldest: bool) -> int:
    return seq + 1 if oldest else seq


def _number_of(db: sqlite3.Connection, tenant: str | None, message_id: str) -> int | None:
    row = db.execute(
        "SELECT m.seq FROM message m JOIN scope s ON s.id = m.scope WHERE m.id = ?1 AND (?2 IS NULL OR s.tenant = ?2)",
        (message_id, tenant),
    ).fetchone()
    return None if row is None else int(row[0])
