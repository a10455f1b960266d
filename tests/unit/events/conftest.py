"""A spool's log in memory, real keys, and events to put into it."""

from collections.abc import Callable

import pytest

from mta.mail.event import Event, EventType, event_id
from mta.mail.ids import new_message_id
from mta.spool.sealing import Keyring


class LogInMemory:
    """The log of a Spool: positions in commit order, `step` apart."""

    def __init__(self, step: int = 1) -> None:
        self.events: list[tuple[int, Event]] = []
        self.position = 0
        self.step = step
        self.discard_fails = False

    def add(self, *events: Event) -> None:
        for event in events:
            self.position += self.step
            self.events.append((self.position, event))

    async def events_after(self, position: int, limit: int) -> list[tuple[int, Event]]:
        return [each for each in self.events if each[0] > position][:limit]

    async def discard_events(self, position: int) -> None:
        if self.discard_fails:
            raise OSError("no room")
        self.events = [each for each in self.events if each[0] > position]

    async def log_end(self) -> int:
        return self.position


@pytest.fixture
def spool() -> LogInMemory:
    return LogInMemory()


@pytest.fixture
def keyring() -> Keyring:
    return Keyring([bytes(range(32))])


@pytest.fixture
def make_event() -> Callable[..., Event]:
    def make(number: int = 1, message: str = "") -> Event:
        message = message or new_message_id()
        return Event(
            id=event_id(message, 1, number),
            type=EventType.DELIVERED,
            at=1_800_000_000.0,
            tenant="acme",
            message=message,
            recipient="ünï@example.test",
            reply="250 2.0.0 Ok",
        )

    return make
