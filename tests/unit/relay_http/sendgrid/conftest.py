"""The API on a real spool and queue, with views in memory that a test fills, and the keys of a tenant."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import falcon.testing
import msgspec
import pytest

from mta.accounts import domains, keys, tenants
from mta.accounts.uses import Uses
from mta.config import Config
from mta.events.reader import LogReader
from mta.lab.clock import FakeClock
from mta.mail.event import Event
from mta.queue.desk import Desk
from mta.queue.queue import Queue
from mta.queue.scheduler import Scheduler
from mta.spool.interface import Toll
from mta.spool.lmdb.spool import LmdbSpool
from mta.spool.sealing import Keyring
from relay_http.app import create_app
from tests.unit.relay_http.views import MemoryViews, message_shown

KEYRING = Keyring([os.urandom(32)])


class NoRates:
    """Everybody may send as much as they like."""

    async def tolls(self, _key: object, _messages: int) -> tuple[Toll, ...]:
        return ()


class Site:
    """An installation with the tenant `shop`."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock()
        self.config = Config.model_validate({"hostname": "relay.test", "state_dir": folder})
        self.spool = LmdbSpool(folder / "spool", KEYRING, self.clock, map_size=1 << 28, reserve=0)
        self.queue = Queue(self.spool, self.clock, "relay.test", self.config.retry, lambda: None)
        self.scheduler = Scheduler(self.spool, self.queue, self.clock)
        self.views = MemoryViews()
        self.uses = Uses(self.spool, self.clock)
        desk = Desk(
            self.spool, self.queue, self.clock, LogReader(self.spool, folder / "events", KEYRING), folder / "no"
        )

        async def nothing() -> msgspec.Struct:
            raise AssertionError

        self.app = create_app(
            self.config, self.queue, self.spool, self.clock, nothing, desk, self.views, NoRates(), self.uses
        )
        self.keys: dict[str, str] = {}

    async def prepare(self) -> None:
        for tenant in ("shop", "other"):
            await tenants.create(self.spool, tenant, 0.0)
            _, self.keys[tenant] = await keys.create(self.spool, tenant, ["send", "read", "manage"], 0.0)
        _, self.keys["reader"] = await keys.create(self.spool, "shop", ["read"], 0.0)
        _, self.keys["operator"] = await keys.create(self.spool, None, ["read", "manage"], 0.0)
        await domains.add(self.spool, "shop.test", "shop", 0.0)

    async def ask(self, method: str, path: str, body: object = None, key: str = "shop") -> falcon.testing.Result:
        headers = {"Authorization": f"Bearer {self.keys.get(key, key)}", "Content-Type": "application/json"}
        full = path if path.startswith(("/admin/", "/api/", "/v3/")) else f"/v3{path}"
        octets = b"" if body is None else msgspec.json.encode(body)
        async with falcon.testing.ASGIConductor(self.app) as client:
            return await client.simulate_request(method, full, body=octets, headers=headers, remote_addr="192.0.2.7")

    async def send(self, **more: object) -> str:
        """Send a message, show it in the views, and return its id."""
        mail = {
            "personalizations": [{"to": [{"email": "ann@example.test"}]}],
            "from": {"email": "billing@shop.test"},
            "subject": "Your order",
            "content": [{"type": "text/plain", "value": "Thank you"}],
        }
        result = await self.ask("POST", "/mail/send", {**mail, **more})
        assert result.status_code == 202, result.text
        message_id = str(result.headers["x-message-id"])
        batch = str(more.get("batch_id", ""))
        self.views.shown.append(message_shown(message_id, "ann@example.test", batch=batch))
        return message_id

    async def attempted(self) -> list[str]:
        """Take all that is due in hand, and return the ids of the messages."""
        found: list[str] = []
        for lane in await self.scheduler.due_lanes():
            while (job := await self.scheduler.next_job(lane)) is not None:
                found.append(job.message.id)
        return found

    async def events(self, message_id: str) -> list[Event]:
        return [each for _, each in await self.spool.events_after(0, 1000) if each.message == message_id]


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    made = Site(tmp_path)
    await made.prepare()
    yield made
    await made.spool.close()
