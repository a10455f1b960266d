"""An HTTP application on a spool and a queue that remember what they were given."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import falcon.testing
import msgspec
import pytest

from mta.accounts import domains, keys, tenants
from mta.accounts.keys import ApiKey
from mta.accounts.uses import Uses
from mta.config import Config, Limits
from mta.queue.desk import Desk
from mta.queue.gate import Turned
from mta.queue.submission import Receipt, Submission
from mta.spool.interface import Keep, Kept, Space, SpoolError, Taken, Terms, Throttled, Toll
from mta.spool.records import Segment
from relay_http.app import App, create_app
from tests.unit.relay_http.following import Relay
from tests.unit.relay_http.views import MemoryViews

NOW = 1_800_000_000.0


class FixedClock:
    """Time that stands still."""

    def now(self) -> float:
        return NOW

    def monotonic(self) -> float:
        return 0.0

    async def wait(self, event: asyncio.Event, seconds: float) -> bool:
        raise AssertionError((event, seconds))


class Content:
    """Content on its way into the memory spool."""

    def __init__(self, spool: "MemorySpool") -> None:
        self.spool = spool
        self.data = b""

    async def write(self, data: bytes) -> None:
        if self.spool.error is not None:
            raise self.spool.error
        assert len(data) <= 2 << 20
        self.data += data

    async def finish(self) -> Segment:
        segment = Segment(os.urandom(16), len(self.data), b"")
        self.spool.contents[segment.content] = self.data
        return segment

    async def abort(self) -> None:
        self.spool.aborted += 1
        if self.spool.abort_error is not None:
            raise self.spool.abort_error


class MemorySpool:
    """The part of a spool that the HTTP API uses."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, str], bytes] = {}
        self.contents: dict[bytes, bytes] = {}
        self.keeps: dict[str, Keep] = {}
        self.aborted = 0
        self.abort_error: SpoolError | None = None
        self.error: SpoolError | None = None
        self.well = True
        self.room = Space(free=2, reserve=1, used=0)

    async def get_record(self, kind: str, name: str) -> bytes | None:
        return self.records.get((kind, name))

    async def put_record(self, kind: str, name: str, value: bytes, *, replace: bool) -> bool:
        if not replace and (kind, name) in self.records:
            return False
        self.records[kind, name] = value
        return True

    async def list_records(self, kind: str) -> list[tuple[str, bytes]]:
        return sorted((name, value) for (each, name), value in self.records.items() if each == kind)

    async def kept(self, name: str, now: float) -> Kept | None:
        keep = self.keeps.get(name)
        return Kept(keep.digest, keep.value, 1) if keep is not None and keep.until > now else None

    def store_content(self) -> Content:
        return Content(self)

    def healthy(self) -> bool:
        return self.well

    def space(self) -> Space:
        return self.room


class MemoryQueue:
    """A queue that keeps what it accepts, or fails. `gate` holds a commit up."""

    def __init__(self, spool: MemorySpool) -> None:
        self.spool = spool
        self.terms: list[Terms] = []
        self.throttled: Throttled | None = None
        self.calls: list[tuple[Submission, ...]] = []
        self.turned: dict[str, Turned] = {}
        self.error: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.waiting = asyncio.Event()

    def refusal(self, tenant: str) -> Turned | None:
        return self.turned.get(tenant)

    async def accept(self, *submissions: Submission) -> list[Receipt]:
        return await asyncio.shield(self._commit(submissions))  # goes on without who asked, as the spool's does

    async def _commit(self, submissions: tuple[Submission, ...]) -> list[Receipt]:
        self.waiting.set()
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        self.calls.append(submissions)
        return [Receipt(each.id, 1) for each in submissions]

    async def accept_on(self, submissions: Sequence[Submission], terms: Terms) -> Taken | Kept | Throttled:
        self.terms.append(terms)
        self.waiting.set()
        await self.gate.wait()
        if terms.keep is not None and (kept := await self.spool.kept(terms.keep.name, terms.now)) is not None:
            return kept
        if self.throttled is not None:
            return self.throttled
        await self.accept(*submissions)
        if terms.keep is not None:
            self.spool.keeps[terms.keep.name] = terms.keep
        return Taken(1, tuple(terms.now + each.units * each.interval for each in terms.tolls))

    @property
    def accepted(self) -> list[Submission]:
        return [each for call in self.calls for each in call]

    @property
    def only(self) -> Submission:
        ((submission,),) = self.calls
        return submission


class MemoryRates:
    """Everybody's rates: none, or those that a test sets."""

    def __init__(self) -> None:
        self.found: tuple[Toll, ...] = ()

    async def tolls(self, _: ApiKey, messages: int) -> tuple[Toll, ...]:
        return tuple(msgspec.structs.replace(each, units=messages) for each in self.found)


class Delivery(msgspec.Struct):
    """What delivery says of itself."""

    running: bool = True


class Api:
    """The application with what is behind it, and a client in front."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.spool = MemorySpool()
        self.queue = MemoryQueue(self.spool)
        self.rates = MemoryRates()
        self.uses = Uses(self.spool, FixedClock())  # type: ignore[arg-type]
        self.views = MemoryViews()
        self.key = ""
        self.read_key = ""
        self.app = self._app(FixedClock())

    def _app(self, clock: FixedClock) -> App:
        spool, queue, log = self.spool, self.queue, None  # nobody comes to the desk
        desk = Desk(spool, queue, clock, log, Path())  # type: ignore[arg-type]
        return create_app(self.config, queue, spool, clock, self._delivery, desk, self.views, self.rates, self.uses)  # type: ignore[arg-type]

    async def prepare(self) -> None:
        for tenant in ("shop", "other"):
            await tenants.create(self.spool, tenant, NOW)  # type: ignore[arg-type]
        await domains.add(self.spool, "shop.test", "shop", NOW)  # type: ignore[arg-type]
        await domains.add(self.spool, "other.test", "other", NOW)  # type: ignore[arg-type]
        _, self.key = await keys.create(self.spool, "shop", ["send"], NOW)  # type: ignore[arg-type]
        _, self.read_key = await keys.create(self.spool, "shop", ["read", "content.read"], NOW)  # type: ignore[arg-type]

    async def _delivery(self) -> msgspec.Struct:
        return Delivery()

    async def request(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> falcon.testing.Result:
        async with falcon.testing.ASGIConductor(self.app) as client:
            return await client.simulate_request(method, path, body=body, headers=headers, remote_addr="192.0.2.7")

    async def post(
        self, body: bytes, headers: dict[str, str] | None = None, path: str = "/v3/mail/send"
    ) -> falcon.testing.Result:
        given = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        return await self.request("POST", path, body, {**given, **(headers or {})})

    async def send(self, mail: object) -> falcon.testing.Result:
        return await self.post(msgspec.json.encode(mail))

    async def problems(self, mail: object) -> list[tuple[str | None, str]]:
        """Send what must be refused; return fields and messages."""
        result = await self.send(mail)
        assert result.status_code == 400, result.text
        assert not self.queue.calls
        assert all(error.keys() == {"message", "field", "help"} for error in result.json["errors"])
        return [(error["field"], error["message"]) for error in result.json["errors"]]


def make_config(**settings: object) -> Config:
    return Config.model_validate({"hostname": "mail.shop.test", **settings})


@pytest.fixture
def config() -> Callable[..., Config]:
    return make_config


@pytest.fixture
def make_api() -> Callable[..., "asyncio.Future[Api]"]:
    async def make(**settings: object) -> Api:
        api = Api(make_config(**settings))
        await api.prepare()
        return api

    return make  # type: ignore[return-value]


@pytest.fixture
async def api() -> Api:
    made = Api(make_config(limits=Limits()))
    await made.prepare()
    return made


@pytest.fixture
def mail() -> dict[str, object]:
    return {
        "personalizations": [{"to": [{"email": "ann@example.test", "name": "Ann"}]}],
        "from": {"email": "billing@shop.test", "name": "Shop"},
        "subject": "Your order",
        "content": [{"type": "text/plain", "value": "Thank you"}],
    }


@pytest.fixture
async def relay(tmp_path: Path) -> AsyncIterator[Relay]:
    made = Relay(tmp_path)
    await made.prepare()
    yield made
    await made.close()
