"""Open connections between transactions, by source and site. The newest is taken first, so that the others may end.

What is idle too long is told QUIT; what the peer ends is forgotten at once.
"""

import asyncio
from collections.abc import Callable

from mta.config import Delivery
from mta.delivery.route import Site
from mta.delivery.smtp import Connection


class Pool:
    """Idle connections. One that was taken belongs to the taker, who gives it back or lets it end."""

    def __init__(self, settings: Delivery) -> None:
        self._settings = settings
        self._idle: dict[tuple[str, Site], dict[Connection, float]] = {}  # since when, in the order they came
        self._sweeping: asyncio.TimerHandle | None = None
        self._leaving: set[asyncio.Future[None]] = set()

    def __len__(self) -> int:
        return sum(map(len, self._idle.values()))

    def take(self, source: str, site: Site, fits: Callable[[Connection], bool]) -> Connection | None:
        """Take the connection that was used last of those from this source that fit."""
        place = source, site
        waiting = self._idle.get(place, {})
        for connection in reversed(waiting):
            if connection.alive and fits(connection):
                self._forget(place, connection)
                connection.wire.on_end = None
                return connection
        return None

    def give(self, site: Site, connection: Connection, deliveries: int) -> None:
        """Keep a connection for the next transaction, or end it after so many `deliveries`."""
        if not connection.alive:
            return
        place = connection.source_name, site
        waiting = self._idle.get(place, {})
        if (
            connection.transactions >= deliveries
            or len(waiting) >= self._settings.connections_per_site
            or len(self) >= self._settings.connections
        ):
            self._dismiss(connection)
            return
        loop = asyncio.get_running_loop()
        waiting[connection] = loop.time()
        self._idle[place] = waiting
        connection.wire.on_end = lambda: self._forget(place, connection)
        if self._sweeping is None:
            self._sweeping = loop.call_later(self._settings.idle, self._sweep)

    async def close(self) -> None:
        """Take leave of all peers; bounded by wire.FAREWELL."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
        while self._idle:
            _, waiting = self._idle.popitem()
            for connection in waiting:
                self._dismiss(connection)
        if self._leaving:
            await asyncio.wait(self._leaving)

    def _forget(self, place: tuple[str, Site], connection: Connection) -> None:
        waiting = self._idle.get(place, {})
        waiting.pop(connection, None)
        if not waiting:
            self._idle.pop(place, None)

    def _sweep(self) -> None:
        """End what has been idle too long, and come back when the next may be."""
        loop = asyncio.get_running_loop()
        oldest_allowed = loop.time() - self._settings.idle
        since = []
        for place, waiting in list(self._idle.items()):
            for connection, idle_since in list(waiting.items()):
                if idle_since <= oldest_allowed:
                    self._forget(place, connection)
                    self._dismiss(connection)
                else:
                    since.append(idle_since)
        self._sweeping = loop.call_at(min(since) + self._settings.idle, self._sweep) if since else None

    def _dismiss(self, connection: Connection) -> None:
        connection.wire.on_end = None
        leaving = connection.wire.farewell()
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)
