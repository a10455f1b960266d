"""A relay without delivery: the HTTP API on a spool, a queue, a desk and views that are real."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import falcon.testing
import msgspec

from mta.accounts import domains, keys, tenants
from mta.accounts.uses import Uses
from mta.config import Config
from mta.control import socket_path
from mta.events.reader import LogReader
from mta.events.views.following import Follower
from mta.events.views.reader import SqliteViews
from mta.lab.clock import FakeClock
from mta.mail.reply import Reply
from mta.mail.result import Outcome, Result, Verdict
from mta.queue import actions
from mta.queue.actions import Who
from mta.queue.desk import Desk
from mta.queue.queue import Queue
from mta.queue.standing import find
from mta.spool.interface import Due
from mta.spool.lmdb.spool import LmdbSpool
from mta.spool.sealing import Keyring
from relay_http.app import create_app
from relay_http.rates import AccountRates

KEYRING = Keyring([bytes(range(32))])
OK = Result(Verdict.DELIVERED, Reply(250, "2.0.0", "ok"))
LATER = Result(Verdict.DEFERRED, Reply(451, "4.7.1", "later"))
NEVER = Result(Verdict.FAILED, Reply(550, "5.1.1", "no such user"))


class FollowedViews:
    """The views themselves, brought to the end of the log before each read; or in trouble, as a test wants it."""

    def __init__(self, relay: "Relay", folder: Path) -> None:
        self.error: Exception | None = None
        log = LogReader(relay.spool, folder / "events", KEYRING)
        self._follower = Follower(relay.spool, log, folder / "views", relay.clock)
        self._views = SqliteViews(folder / "views", relay.spool, folder / "nobody.sock")

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def read(*asked: Any, **more: Any) -> Any:
            if self.error is not None:
                raise self.error
            while await self._follower.look():
                pass
            assert self._follower.progress.trouble == ""
            return await getattr(self._views, name)(*asked, **more)

        return read

    async def close(self) -> None:
        self._follower.close()
        await self._views.close()


class Relay:
    """An installation with two tenants, seen through the HTTP API; a test makes the attempts."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock()
        config = Config.model_validate({"hostname": "mail.shop.test", "state_dir": folder})
        self.spool = LmdbSpool(folder / "spool", KEYRING, self.clock, map_size=1 << 28, reserve=0)
        self.queue = Queue(self.spool, self.clock, "mail.shop.test", config.retry, lambda: None)
        log = LogReader(self.spool, folder / "events", KEYRING)
        self.desk = Desk(self.spool, self.queue, self.clock, log, socket_path(config.run_dir, "delivery"))
        self.views = FollowedViews(self, folder)

        async def nothing() -> msgspec.Struct:
            raise AssertionError

        rates, uses = AccountRates(self.spool, self.clock), Uses(self.spool, self.clock)
        self.app = create_app(config, self.queue, self.spool, self.clock, nothing, self.desk, self.views, rates, uses)
        self.keys: dict[str, str] = {}

    async def prepare(self) -> None:
        for tenant in ("shop", "other"):
            await tenants.create(self.spool, tenant, 0.0)
            await domains.add(self.spool, f"{tenant}.test", tenant, 0.0)
            _, self.keys[tenant] = await keys.create(self.spool, tenant, ["send", "read", "content.read"], 0.0)
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

    async def close(self) -> None:
        await self.views.close()
        await self.spool.close()

    async def wait(self, seconds: float) -> None:
        await asyncio.wait_for(self.clock.advance(seconds), 5)

    async def drop(self, message_id: str) -> None:
        """End what waits of a message on an operator's word."""
        await self.desk.act(await find(self.spool, message_id), actions.drop(Who("root")))

    async def reschedule(self, message_id: str, at: float) -> None:
        """Give a scheduled message another time."""
        await self.desk.act(await find(self.spool, message_id), actions.reschedule(Who("root"), at))
