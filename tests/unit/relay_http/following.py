"""A relay without delivery: the HTTP API on a real spool, queue and desk, and views that follow its log."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import falcon.testing
import msgspec

from mta.accounts import domains, keys, tenants
from mta.accounts.keys import ApiKey
from mta.config import Config
from mta.control import socket_path
from mta.events.reader import LogReader
from mta.lab.clock import FakeClock
from mta.mail.event import Event, EventType
from mta.mail.reply import Reply
from mta.mail.result import Outcome, Result, Verdict
from mta.mail.summary import NOTHING
from mta.queue import actions
from mta.queue.actions import Who
from mta.queue.desk import Desk
from mta.queue.queue import Queue
from mta.queue.standing import find
from mta.queue.views import MessageShown, Page, RecipientShown, Search, Status
from mta.spool.interface import Due, Toll
from mta.spool.lmdb.spool import LmdbSpool
from mta.spool.sealing import Keyring
from relay_http.app import create_app
from tests.unit.relay_http.views import MemoryViews

KEYRING = Keyring([bytes(range(32))])
OK = Result(Verdict.DELIVERED, Reply(250, "2.0.0", "ok"))
LATER = Result(Verdict.DEFERRED, Reply(451, "4.7.1", "later"))
NEVER = Result(Verdict.FAILED, Reply(550, "5.1.1", "no such user"))
_STATUSES = {each.value: each for each in Status}


class LogViews(MemoryViews):
    """Views of what the log tells; a test may put more there."""

    def __init__(self, relay: "Relay") -> None:
        super().__init__()
        self._relay = relay
        self._position = 0

    async def message(self, tenant: str | None, message_id: str) -> MessageShown | None:
        await self._follow()
        return await super().message(tenant, message_id)

    async def messages(
        self, tenant: str | None, search: Search, *, limit: int, cursor: str = "", offset: int = 0, oldest: bool = False
    ) -> Page:
        await self._follow()
        return await super().messages(tenant, search, limit=limit, cursor=cursor, offset=offset, oldest=oldest)

    async def timeline(self, tenant: str | None, message_id: str) -> Sequence[tuple[int, Event]]:
        await self._follow()
        return await super().timeline(tenant, message_id)

    async def _follow(self) -> None:
        for position, event in await self._relay.spool.events_after(self._position, 10_000):
            self._position = position
            self.told.append((position, event))
            if event.type is EventType.ACCEPTED:
                self.shown.append(_accepted(event))
            elif event.type in _STATUSES:
                self._tell(event, _STATUSES[event.type])
        now = self._relay.clock.now()
        self.shown = [_standing(each, now) for each in self.shown]

    def _tell(self, event: Event, status: Status) -> None:
        (message,) = [each for each in self.shown if each.id == event.message]
        said = {"status": status, "at": event.at, "attempts": event.attempt, "reply": event.reply}
        changed = [
            msgspec.structs.replace(each, **said, relay=event.relay, retry_at=event.retry_at)
            if each.address == event.recipient
            else each
            for each in message.recipients
        ]
        self.change(event.message, recipients=tuple(changed), last_at=event.at)


def _accepted(event: Event) -> MessageShown:
    fields = {name: getattr(event, name) for name in MessageShown.__struct_fields__ if name in Event.__struct_fields__}
    shown = {
        "id": event.message,
        "status": Status.QUEUED,
        "last_at": event.at,
        "release_at": event.release_at or event.at,
        "summary": event.summary or NOTHING,
        "recipients": tuple(
            RecipientShown(address=each, status=Status.QUEUED, at=event.at) for each in event.recipients
        ),
    }
    return MessageShown(**{**fields, **shown})


def _standing(shown: MessageShown, now: float) -> MessageShown:
    """Say how it stands: scheduled is what waits for its release, and the first that holds of any recipient counts."""
    waits = {Status.QUEUED, Status.SCHEDULED}
    status = Status.SCHEDULED if shown.release_at > now else Status.QUEUED
    recipients = tuple(
        msgspec.structs.replace(each, status=status) if each.status in waits else each for each in shown.recipients
    )
    holding = {each.status for each in recipients}
    first = next(each for each in Status if each in holding)
    return msgspec.structs.replace(shown, recipients=recipients, status=first)


class Free:
    """Rates that are none."""

    async def tolls(self, _: ApiKey, messages: int) -> tuple[Toll, ...]:
        assert messages
        return ()


class Relay:
    """An installation with two tenants, seen through the HTTP API; a test makes the attempts."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock()
        config = Config.model_validate({"hostname": "mail.shop.test", "state_dir": folder})
        self.spool = LmdbSpool(folder / "spool", KEYRING, self.clock, map_size=1 << 28, reserve=0)
        self.queue = Queue(self.spool, self.clock, "mail.shop.test", config.retry, lambda: None)
        log = LogReader(self.spool, folder / "events", KEYRING)
        self.desk = Desk(self.spool, self.queue, self.clock, log, socket_path(config.run_dir, "delivery"))
        self.views = LogViews(self)

        async def nothing() -> msgspec.Struct:
            raise AssertionError

        self.app = create_app(config, self.queue, self.spool, self.clock, nothing, self.desk, self.views, Free())
        self.keys: dict[str, str] = {}

    async def prepare(self) -> None:
        for tenant in ("shop", "other"):
            await tenants.create(self.spool, tenant, 0.0)
            await domains.add(self.spool, f"{tenant}.test", tenant, 0.0)
            _, self.keys[tenant] = await keys.create(self.spool, tenant, ["send", "read"], 0.0)
        for scope in ("send", "read"):
            _, self.keys[scope] = await keys.create(self.spool, "shop", [scope], 0.0)

    async def ask(
        self, method: str, path: str, body: object = None, key: str = "shop", headers: dict[str, str] | None = None
    ) -> falcon.testing.Result:
        data = body if isinstance(body, bytes) else msgspec.json.encode(body) if body is not None else b""
        given = {"Authorization": f"Bearer {self.keys[key]}"} if key else {}
        if method == "POST":
            given["Content-Type"] = "application/json"
        path, _, query = path.partition("?")
        async with falcon.testing.ASGIConductor(self.app) as client:
            return await client.simulate_request(
                method, path, body=data, headers={**given, **(headers or {})}, query_string=query
            )

    async def get(self, path: str, key: str = "shop") -> Any:
        result = await self.ask("GET", path, key=key)
        assert result.status_code == 200, result.text
        return result.json

    async def content(self, message_id: str) -> bytes:
        message = await self.spool.message(message_id)
        assert message is not None
        return await self.spool.content(message)

    async def attempt(self, message_id: str, result: Result, number: int = 1) -> None:
        """Make an attempt at an entry that is due."""
        job = await self.claim(message_id, number)
        waiting = len(job.entry.waiting)
        settled = Outcome(
            results=(result,) * waiting, started_at=0.0, ended_at=0.0, site="mx", relay="mx.test[192.0.2.1]:25"
        )
        await self.queue.settle(job, settled)

    async def claim(self, message_id: str, number: int = 1) -> Any:
        entry, message = await self.spool.entry(f"{message_id}.{number}"), await self.spool.message(message_id)
        assert entry is not None
        assert message is not None
        job = await self.queue.claim(Due(entry, message))
        assert job is not None
        return job

    async def wait(self, seconds: float) -> None:
        await asyncio.wait_for(self.clock.advance(seconds), 5)

    async def drop(self, message_id: str) -> None:
        """End what waits of a message on an operator's word."""
        found = await find(self.spool, message_id)
        await self.desk.act(found, actions.drop(Who("root")))
