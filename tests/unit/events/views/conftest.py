"""A log in memory, views of it that are brought up to date by hand, and events to put into it."""

import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mta.events.reader import LogReader
from mta.events.views.following import Follower
from mta.events.views.reader import SqliteViews
from mta.lab.clock import FakeClock
from mta.mail.event import Event, EventType, event_id
from mta.mail.ids import new_message_id
from mta.mail.summary import Summary
from mta.spool.sealing import Keyring

NOW = 1_800_000_000.0


class Log:
    """What happened, as the log has it: `seq` is counted from 1."""

    def __init__(self, spool: Any) -> None:
        self.spool = spool
        self.events: list[Event] = []
        self._numbers: dict[str, int] = {}

    @property
    def now(self) -> float:
        return NOW + len(self.events)

    def add(self, event: Event) -> Event:
        self.events.append(event)
        self.spool.add(event)
        return event

    def accept(
        self, *recipients: str, tenant: str = "acme", dialect: str = "", subject: str = "", **fields: Any
    ) -> Event:
        message = fields.pop("message", "") or new_message_id()
        values = {"at": self.now, "sender": f"news@{tenant}.test", "size": 2000, "origin": "http", "request": message}
        values["summary"] = Summary(subject=subject, dialect=dialect)
        values |= {"recipients": recipients or ("bob@example.test",), "message_class": "normal", **fields}
        return self.add(
            Event(id=event_id(message, 0, 1), type=EventType.ACCEPTED, tenant=tenant, message=message, **values)
        )

    def tell(self, accepted: Event, kind: EventType, recipient: str = "", **fields: Any) -> Event:
        number = self._numbers[accepted.message] = self._numbers.get(accepted.message, 0) + 1
        values = {
            "at": self.now,
            "recipient": recipient or accepted.recipients[0],
            "attempt": number,
            "relay": "mx.example.test[192.0.2.25]:25",
            "reply": f"said in attempt {number}",
            **fields,
        }
        return self.add(
            Event(
                id=event_id(accepted.message, 1, number),
                type=kind,
                tenant=accepted.tenant,
                message=accepted.message,
                entry=f"{accepted.message}.1",
                sender=accepted.sender,
                categories=accepted.categories,
                **values,
            )
        )


class Installation:
    """Views of a log, and who builds and reads them."""

    def __init__(self, log: Log, tmp_path: Path, keyring: Keyring) -> None:
        self.log = log
        self.clock = FakeClock(NOW)
        self.segments = tmp_path / "events"
        self.directory = tmp_path / "views"
        self.keyring = keyring
        self.follower = self.new_follower()
        self.views = SqliteViews(self.directory, log.spool, tmp_path / "nobody.sock")

    def new_follower(self) -> Follower:
        reader = LogReader(self.log.spool, self.segments, self.keyring)
        return Follower(self.log.spool, reader, self.directory, self.clock)

    async def follow(self) -> None:
        """Bring the views up to the end of the log."""
        while await self.follower.look():
            pass
        assert self.follower.progress.trouble == ""

    async def close(self) -> None:
        self.follower.close()
        await self.views.close()


@pytest.fixture
def log(spool: Any) -> Log:
    return Log(spool)


@pytest.fixture
async def relay(log: Log, tmp_path: Path, keyring: Keyring) -> AsyncIterator[Installation]:
    installation = Installation(log, tmp_path, keyring)
    yield installation
    await installation.close()


WORDS = ("Your", "invoice", "Rechnung", "für", "März", "is", "ready", "Ihre", "order")
ENDS = (EventType.DELIVERED, EventType.BOUNCED, EventType.EXPIRED, EventType.DROPPED, EventType.CANCELLED)


def happen(log: Log, count: int, seed: int) -> None:
    """Let a history of `count` messages of three tenants happen, in which few things are unique."""
    chance = random.Random(seed)
    waiting: list[tuple[Event, str]] = []
    for _ in range(count):
        tenant = chance.choice(("acme", "acme", "zeta", "Ömega"))
        recipients = [
            f"User{chance.randrange(6)}@example{chance.randrange(2)}.test" for _ in range(chance.randint(1, 3))
        ]
        accepted = log.accept(
            *recipients,
            tenant=tenant,
            dialect=chance.choice(("", "sendgrid", "emails")),
            subject=" ".join(chance.sample(WORDS, chance.randint(0, 3))),
            sender=chance.choice(("", "a@one.test", "b@two.test", "A@ONE.test")),
            categories=tuple(chance.sample(("welcome", "bill", "päck"), chance.randint(0, 2))),
            batch=chance.choice(("", "", "b1")),
            message_id=chance.choice(("", "<x@one.test>", "<y@two.test>")),
            release_at=log.now + 1e6 if chance.random() < 0.1 else 0,
        )
        waiting += [(accepted, each) for each in dict.fromkeys(recipients)]
        chance.shuffle(waiting)
        for _ in range(chance.randint(0, 4)):
            if waiting:
                message, recipient = waiting[-1]
                kind = chance.choice((*ENDS, EventType.DEFERRED, EventType.CHANGED, EventType.DSN_SENT))
                log.tell(message, kind, recipient)
                if kind in ENDS:
                    waiting.pop()
