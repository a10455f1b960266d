"""Our own API on a real spool and queue, with views that say what a test puts there."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import falcon.testing
import msgspec
import pytest

from mta.accounts import domains, keys, tenants
from mta.accounts.uses import Uses
from mta.config import Config
from mta.control import socket_path
from mta.events.reader import LogReader
from mta.lab.clock import FakeClock
from mta.queue.desk import Desk
from mta.queue.queue import Queue
from mta.spool.interface import Toll
from mta.spool.lmdb.spool import LmdbSpool
from mta.spool.sealing import Keyring
from relay_http.app import create_app
from tests.unit.relay_http.views import MemoryViews


class NoRates:
    """Nobody has one."""

    async def tolls(self, *_: object) -> tuple[Toll, ...]:
        return ()


class Post:
    """An installation with two tenants, seen through /v1/mail."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock()
        self.views = MemoryViews()
        self.config = Config.model_validate({"hostname": "relay.test", "state_dir": folder})
        keyring = Keyring([os.urandom(32)])
        self.spool = LmdbSpool(folder / "spool", keyring, self.clock, map_size=1 << 28, reserve=0)
        self.queue = Queue(self.spool, self.clock, "relay.test", self.config.retry, lambda: None)
        log = LogReader(self.spool, folder / "events", keyring)
        self.delivery = socket_path(self.config.run_dir, "delivery")
        self.desk = Desk(self.spool, self.queue, self.clock, log, self.delivery)

        async def nothing() -> msgspec.Struct:
            raise AssertionError

        uses = Uses(self.spool, self.clock)
        self.app = create_app(
            self.config, self.queue, self.spool, self.clock, nothing, self.desk, self.views, NoRates(), uses
        )
        self.keys: dict[str, str] = {}

    async def prepare(self) -> None:
        for tenant in ("shop", "other"):
            await tenants.create(self.spool, tenant, 0.0)
        await domains.add(self.spool, "shop.test", "shop", 0.0)
        await domains.add(self.spool, "other.test", "other", 0.0)
        for name, tenant, scopes in (
            ("send", "shop", ["send"]),
            ("read", "shop", ["read"]),
            ("all", "shop", ["send", "read", "manage"]),
            ("content", "shop", ["read", "content.read"]),
            ("other", "other", ["send", "read", "manage"]),
            ("operator", None, ["read", "manage"]),
        ):
            _, self.keys[name] = await keys.create(self.spool, tenant, scopes, 0.0)

    async def ask(
        self, method: str, path: str, body: object = None, key: str = "all", headers: dict[str, str] | None = None
    ) -> falcon.testing.Result:
        given = {"Authorization": f"Bearer {self.keys[key]}"} if key else {}
        data = b""
        if body is not None:
            data, given["Content-Type"] = msgspec.json.encode(body), "application/json"
        path, _, query = path.partition("?")
        async with falcon.testing.ASGIConductor(self.app) as client:
            return await client.simulate_request(
                method,
                f"/v1/mail{path}",
                body=data,
                headers={**given, **(headers or {})},
                query_string=query,
                remote_addr="192.0.2.7",
            )

    async def send(self, **fields: Any) -> str:
        """Send a message, and return its ID."""
        mail = {"from": "billing@shop.test", "to": ["ann@example.test"], "subject": "Hi", "text": "Hello", **fields}
        result = await self.ask("POST", "", mail)
        assert result.status_code == 202, result.text
        return str(result.json["id"])

    async def refused(self, *asked: Any, **more: Any) -> tuple[int, list[str]]:
        """Ask for what is refused; return the status, and the fields that are wrong."""
        result = await self.ask(*asked, **more)
        assert result.headers["content-type"] == "application/problem+json", result.text
        assert result.json["status"] == result.status_code
        return result.status_code, [each["field"] for each in result.json.get("errors", [])]


@pytest.fixture
async def post(tmp_path: Path) -> AsyncIterator[Post]:
    made = Post(tmp_path)
    await made.prepare()
    yield made
    await made.spool.close()
    await asyncio.sleep(0)
