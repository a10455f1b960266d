"""/admin/v1/queue on a real spool: what waits, why, and what can be done about it; by operators and by tenants."""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import falcon.testing
import msgspec
import pytest

from mta.accounts import keys, tenants
from mta.accounts.uses import Uses
from mta.config import Config
from mta.control import ControlServer, Question, socket_path
from mta.events.reader import LogReader
from mta.lab.clock import FakeClock
from mta.mail.envelope import Envelope, Recipient
from mta.mail.ids import entry_id, message_id_text, new_message_id
from mta.mail.reply import Reply
from mta.mail.result import Outcome, Result, Verdict
from mta.queue import actions, desk, selection
from mta.queue.actions import Who
from mta.queue.answer import Answer
from mta.queue.desk import EXPLAINED, Desk
from mta.queue.drain import Rates
from mta.queue.explanation import Asked, HeldBy, LaneState, Says
from mta.queue.job import Job
from mta.queue.queue import Queue
from mta.queue.submission import Submission
from mta.spool.interface import Due, Unavailable
from mta.spool.lmdb.care import verify
from mta.spool.lmdb.spool import LmdbSpool
from mta.spool.records import Origin
from mta.spool.sealing import Keyring
from relay_http.app import create_app

OK = Result(Verdict.DELIVERED, Reply(250, "2.0.0", "ok"))
LATER = Result(Verdict.DEFERRED, Reply(451, "4.7.1", "later"))
KEYRING = Keyring([os.urandom(32)])
UNKNOWN = "AaH7ugABdbWHsNpfu8EmnA"
ACTIONS = {
    "hold": {},
    "release": {},
    "retry": {},
    "drop": {},
    "cancel": {},
    "redirect": {"to": "relay.test"},
    "priority": {"class": "bulk"},
}
TENANTS_ACTIONS = [name for name in ACTIONS if name != "redirect"]


class Office:
    """An installation with two tenants and its operator, seen through the management API."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock()
        self.config = Config.model_validate({"hostname": "relay.test", "state_dir": folder})
        self.spool = LmdbSpool(folder / "spool", KEYRING, self.clock, map_size=1 << 28, reserve=0)
        self.queue = Queue(self.spool, self.clock, "relay.test", self.config.retry, lambda: None)
        log = LogReader(self.spool, folder / "events", KEYRING)
        self.delivery = socket_path(self.config.run_dir, "delivery")
        self.desk = Desk(self.spool, self.queue, self.clock, log, self.delivery)

        async def nothing() -> msgspec.Struct:
            raise AssertionError

        self.uses = Uses(self.spool, self.clock)
        self.app = create_app(
            self.config, self.queue, self.spool, self.clock, nothing, self.desk, None, None, self.uses
        )
        self.keys: dict[str, str] = {}
        self.told = set[str]()

    async def prepare(self) -> None:
        for tenant in ("acme", "other"):
            await tenants.create(self.spool, tenant, 0.0)
            _, self.keys[tenant] = await keys.create(self.spool, tenant, ["manage"], 0.0)
        _, self.keys["sender"] = await keys.create(self.spool, "acme", ["send", "read"], 0.0)
        _, self.keys["operator"] = await keys.create(self.spool, None, ["manage"], 0.0)

    async def accept(self, *recipients: str, tenant: str = "acme", at: int = 0, **more: Any) -> str:
        """Accept a message, made `at` milliseconds if it matters."""
        message_id = message_id_text(at.to_bytes(6, "big") + os.urandom(10)) if at else new_message_id()
        await self.queue.accept(
            Submission(
                id=message_id,
                tenant=tenant,
                envelope=Envelope(sender="", recipients=tuple(map(Recipient, recipients))),
                origin=Origin.RELAY,
                content=b"Subject: x\r\n\r\nx\r\n",
                **more,
            )
        )
        return message_id

    async def claim(self, entry_id: str) -> Job:
        entry = await self.spool.entry(entry_id)
        assert entry is not None
        message = await self.spool.message(entry.message)
        assert message is not None
        job = await self.queue.claim(Due(entry, message))
        assert job is not None
        return job

    async def attempt(self, entry_id: str, *results: Result) -> None:
        job = await self.claim(entry_id)
        await self.queue.settle(job, Outcome(results=results, started_at=0.0, ended_at=0.0, site="mx"))

    async def ask(self, method: str, path: str, body: object = None, key: str = "operator") -> falcon.testing.Result:
        data = body if isinstance(body, bytes) else msgspec.json.encode(body) if body is not None else b""
        given = {"Authorization": f"Bearer {self.keys[key]}"} if key else {}
        path, _, query = path.partition("?")
        async with falcon.testing.ASGIConductor(self.app) as client:
            return await client.simulate_request(
                method, f"/admin/v1/queue{path}", body=data, headers=given, query_string=query, remote_addr="192.0.2.7"
            )

    async def get(self, path: str, key: str = "operator") -> Any:
        result = await self.ask("GET", path, key=key)
        assert (result.status_code, result.headers["cache-control"]) == (200, "no-store"), result.text
        return result.json

    async def pages(self, key: str, query: str) -> tuple[list[str], int]:
        """Read a list to its end; return the IDs, and how many pages it had. `told` is what to go on from each time."""
        found, pages, after = list[str](), 0, None
        self.told = set[str]()
        while pages == 0 or after is not None:
            page = await self.get(f"?{query}" + (f"&after={after}" if after else ""), key)
            found += [each["entry"] for each in page["entries"]]
            after, pages = page["next"], pages + 1
            self.told.add(after or "")
        return found, pages

    async def post(self, path: str, body: object = None, key: str = "operator") -> Any:
        result = await self.ask("POST", path, body, key)
        assert result.status_code == 200, result.text
        return result.json

    async def refused(self, method: str, path: str, body: object = None, key: str = "operator") -> tuple[int, str, Any]:
        """Ask for what is refused; return status, detail and the fields that are wrong."""
        result = await self.ask(method, path, body, key)
        assert result.headers["content-type"] == "application/problem+json", result.text
        told = result.json
        assert (told["type"], told["status"]) == ("about:blank", result.status_code)
        assert told["title"]
        return result.status_code, told["detail"], [each["field"] for each in told.get("errors", [])]

    async def waiting(self) -> list[str]:
        return [entry.message async for entry, _ in self.spool.walk_entries()]


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    made = Office(tmp_path)
    await made.prepare()
    yield made
    await made.spool.close()
    assert verify(tmp_path / "spool", KEYRING).problems == []


async def test_a_list_in_pages(office: Office) -> None:
    messages = [await office.accept(f"a{n}@one.test", f"b{n}@two.test") for n in range(3)]
    first = await office.get("?limit=4")
    assert [each["message"] for each in first["entries"]] == [messages[0]] * 2 + [messages[1]] * 2
    assert first["entries"][0].keys() >= {"entry", "tenant", "domain", "state", "recipients", "due_at"}
    rest = await office.get(f"?limit=4&after={first['next']}")
    assert ([each["message"] for each in rest["entries"]], rest["next"]) == ([messages[2]] * 2, None)
    query = f"?where={quote('domain=one.test')}&where={quote('age<1h')}"
    assert [each["message"] for each in (await office.get(query))["entries"]] == messages


async def test_a_page_looks_at_so_many_and_no_more(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "_LOOKED_AT", 3)
    for n in range(7):
        await office.accept(f"a@{'rare' if n == 5 else 'one'}.test", at=1000 + n)
    found, pages = await office.pages("operator", f"where={quote('domain=rare.test')}")
    assert (len(found), pages) == (1, 3)


async def test_a_page_names_no_entry_of_others(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """Red when `next` is the entry that was looked at last: whoever had mail waiting learned IDs of all the others."""
    monkeypatch.setattr(selection, "_LOOKED_AT", 3)
    own, others = set[str](), set[str]()
    for at in (1000, 1000, 1001, 1001, 1001, 1002, 1004):
        own.add(entry_id(await office.accept("a@one.test", at=at), 1))
        many = await office.accept(*[f"b@d{n}.test" for n in range(7)], tenant="other", at=at)
        others |= {entry_id(many, number) for number in range(1, 8)}
    for key, all_of_them in (("acme", own), ("other", others)):
        for limit in (1, 2, 100):
            found, pages = await office.pages(key, f"limit={limit}")
            assert sorted(found) == sorted(all_of_them)
            assert pages > 1
            assert office.told.isdisjoint((own | others) - all_of_them)


async def test_shape_show_and_explain(office: Office) -> None:
    message = await office.accept("a@one.test", "b@two.test")
    shape = await office.get("/shape?by=tenant")
    assert [(row["name"], row["total"]) for row in shape["rows"]] == [("acme", 2)]
    shown = await office.get(f"/{message}")
    assert [each["domain"] for each in shown["entries"]] == ["one.test", "two.test"]
    assert (await office.get(f"/{message}.2"))["recipients"] == ["b@two.test"]
    explained = await office.get(f"/{message}/explain")
    assert [each["gate"] for each in explained["entries"]] == ["delivery_down"] * 2
    assert (explained["message"], explained["more"]) == (message, 0)
    assert [each["entry"] for each in (await office.get(f"/{message}.2/explain"))["entries"]] == [f"{message}.2"]


async def test_a_message_with_a_great_many_entries_is_explained_in_part(office: Office) -> None:
    message = await office.accept(*[f"a@d{n}.test" for n in range(EXPLAINED + 7)])
    explained = await office.get(f"/{message}/explain")
    assert (len(explained["entries"]), explained["more"]) == (EXPLAINED, 7)


async def test_of_those_that_have_ended_as_many_are_told_as_there_is_room_for(office: Office) -> None:
    message = await office.accept(*[f"a@d{n}.test" for n in range(EXPLAINED + 7)])
    for number in range(1, 11):
        await office.attempt(f"{message}.{number}", OK)
    explained = await office.get(f"/{message}/explain")
    assert [each["gate"] for each in explained["entries"]] == ["delivery_down"] * (EXPLAINED - 3) + ["ended"] * 3
    assert explained["more"] == 7


BUSY = LaneState(
    gate=HeldBy.SITE_FULL, site="mx.test:25 as us", at_work=7, limit=9, lanes=5, rates=Rates(site=0.5, tenant=0.125)
)


@pytest.mark.parametrize(
    ("lane", "told"),
    [
        (BUSY, ("due; all connections to its site mx.test:25 are in use", None, None, 0.125, "tenant")),
        (
            LaneState(
                gate=HeldBy.SITE_PAUSED, site="mx.test:25", reply="421 4.7.0 no Bob", until=9e9, rates=Rates(1.0)
            ),
            ("due; its site mx.test:25 is left alone for a while, after a reply", None, 9e9, 1.0, "lane"),
        ),
        (
            LaneState(
                gate=HeldBy.TENANT_PAUSED, site="mx.test:25", reply="421 no acme", until=9e9, rates=Rates(0, 2.0)
            ),
            (
                "due; its tenant is kept from its site mx.test:25 for a while, after a reply",
                "421 no acme",
                9e9,
                None,
                None,
            ),
        ),
    ],
)
async def test_a_tenant_is_told_what_holds_it_and_nothing_of_others(
    office: Office, lane: LaneState, told: tuple[object, ...]
) -> None:
    """Red when it has the site's rate, which tells what others send there, or the reply to another's mail."""
    message = await office.accept("a@one.test")

    async def answer(_: Asked) -> Says:
        return Says(lanes=(lane,), begun_at=(0.0,))

    control = ControlServer(office.delivery, {"explain": Question(Asked, answer)})
    await control.start()
    [seen] = (await office.get(f"/{message}/explain"))["entries"]
    [found] = (await office.get(f"/{message}/explain", "acme"))["entries"]
    await control.close()
    assert ("7 of 9" in seen["why"]) is (lane is BUSY)
    assert (seen["reply"] or "", seen["site"]) == (lane.reply, lane.site)
    assert tuple(found[name] for name in ("why", "reply", "next_at", "rate", "rate_of")) == told
    assert (found["gate"], found["site"]) == (lane.gate, "mx.test:25")


async def test_what_is_wrong_with_delivery_is_told_without_a_path(office: Office) -> None:
    """Red when it names the socket."""
    message = await office.accept("a@one.test")
    office.config.run_dir.write_text("")
    [found] = (await office.get(f"/{message}/explain", "acme"))["entries"]
    assert (found["gate"], found["delivery"]) == ("delivery_down", "delivery cannot be asked: Not a directory")
    assert (await office.refused("GET", "/sites"))[:2] == (503, "delivery cannot be asked: Not a directory")


async def test_sites_are_shown_to_operators_while_delivery_answers(office: Office) -> None:
    row = {"site": "mx.test:25", "in_flight": 3}

    async def answer() -> object:
        return [row]

    control = ControlServer(office.delivery, {"sites": answer})
    await control.start()
    assert (await office.get("/sites")) == {"sites": [row]}
    assert (await office.refused("GET", "/sites", key="acme"))[0] == 403
    assert (await office.refused("GET", "/sites?by=x"))[::2] == (400, ["by"])
    await control.close()
    assert (await office.refused("GET", "/sites"))[0] == 503


@pytest.mark.parametrize("name", ACTIONS)
async def test_nothing_is_done_before_it_was_counted_and_confirmed(office: Office, name: str) -> None:
    for n in range(3):
        message = await office.accept(f"a{n}@one.test", f"b{n}@one.test")
        if name == "retry":
            await office.attempt(f"{message}.1", LATER, LATER)
    await office.accept("a@two.test")
    if name == "release":
        await office.post("/hold", {"where": ["tenant=*"], "confirm": 4})
    await office.clock.advance(1)
    before = await office.spool.log_end()
    body = {"where": ["domain=one.test"], **ACTIONS[name]}
    nothing = {"changed": 0, "unchanged": 0, "in_flight": 0, "ended": 0, "busy": 0}
    counted = await office.post(f"/{name}", body)
    assert counted == {"confirmed": False, "entries": 3, "recipients": 6, **nothing}
    assert await office.spool.log_end() == before
    status, detail, fields = await office.refused("POST", f"/{name}", {**body, "confirm": 2})
    assert (status, fields) == (409, ["confirm"])
    assert detail == "3 entries are meant by now: nothing was changed"
    assert await office.spool.log_end() == before
    done = await office.post(f"/{name}", {**body, "confirm": 3})
    assert done == {"confirmed": True, "entries": 3, "recipients": 6, **nothing, "changed": 3}
    assert await office.spool.log_end() == before + 6


async def test_what_is_in_flight_keeps_the_wish_and_delivery_hears_of_it(office: Office) -> None:
    first = await office.accept("a@one.test")
    await office.accept("b@one.test")
    await office.claim(f"{first}.1")
    heard = asyncio.Event()

    async def recall() -> int:
        heard.set()
        return 1

    control = ControlServer(office.delivery, {"recall": recall})
    await control.start()
    done = await office.post("/hold", {"where": ["tenant=acme"], "confirm": 2})
    await control.close()
    assert (done["changed"], done["in_flight"]) == (1, 1)
    assert heard.is_set()
    assert (await office.get(f"/{first}.1"))["wish"] == "held"


@pytest.mark.tampers
async def test_what_was_done_before_the_spool_was_sick_is_told(
    office: Office, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Red when it is told at the end alone: after 503 nobody knew that half of it had been dropped, and by whom."""
    for n in range(3):
        await office.accept(f"a{n}@one.test")
    monkeypatch.setattr(actions, "_TOGETHER", 1)
    wish, asked = office.queue.wish, Counter[str]()

    async def sick(*about: Any) -> Answer:
        asked["wishes"] += 1
        if asked["wishes"] == 3:
            raise Unavailable("the disk is gone")
        return await wish(*about)

    monkeypatch.setattr(office.queue, "wish", sick)
    caplog.set_level("INFO", "relay_http.admin.queue")
    assert (await office.refused("POST", "/drop", {"where": ["domain=one.test"], "confirm": 3}))[0] == 503
    [told] = [each.getMessage() for each in caplog.records if each.name == "relay_http.admin.queue"]
    assert "queue=drop" in told
    assert "changed=2" in told
    assert len(await office.waiting()) == 1


@pytest.mark.parametrize("name", ACTIONS)
async def test_by_id_it_is_done_at_once(office: Office, name: str) -> None:
    message = await office.accept("a@one.test", "b@two.test")
    if name == "release":
        await office.post(f"/{message}/hold")
    if name == "retry":
        await office.attempt(f"{message}.2", LATER)
    done = await office.post(f"/{message}.2/{name}", ACTIONS[name])
    result = {"entry": f"{message}.2", "result": "changed"}
    if name == "cancel":
        result |= {"recipient": "b@two.test", "result": "cancelled"}
    assert done["results"] == [result]
    if name not in ("drop", "cancel"):
        assert [each["entry"] for each in (await office.post(f"/{message}/{name}", ACTIONS[name]))["results"]] == [
            f"{message}.1",
            f"{message}.2",
        ]


async def test_what_is_due_keeps_its_place(office: Office) -> None:
    """Red when retry makes it due now: what had waited for longest went behind all that came since."""
    message = await office.accept("a@one.test")
    due_at = (await office.get(f"/{message}.1"))["due_at"]
    await office.clock.advance(300)
    before = await office.spool.log_end()
    assert (await office.post(f"/{message}/retry", key="acme"))["results"][0]["result"] == "unchanged"
    assert (await office.get(f"/{message}.1"))["due_at"] == due_at
    assert await office.spool.log_end() == before


async def test_cancel_answers_exactly(office: Office) -> None:
    message = await office.accept("a@one.test", "b@two.test", "c@three.test")
    await office.attempt(f"{message}.1", OK)
    job = await office.claim(f"{message}.2")
    results = (await office.post(f"/{message}/cancel"))["results"]
    assert [(each["recipient"], each["result"]) for each in results] == [
        ("a@one.test", "delivered"), ("b@two.test", "in_flight"), ("c@three.test", "cancelled")
    ]  # fmt: skip
    await office.queue.settle(job, Outcome(results=(LATER,), started_at=0.0, ended_at=0.0, site="mx"))
    again = (await office.post(f"/{message}/cancel", key="acme"))["results"]
    assert [each["result"] for each in again] == ["delivered", "cancelled", "cancelled"]
    assert await office.waiting() == []


# Tenants


async def test_a_tenants_key_sees_and_changes_its_own_mail_alone(office: Office) -> None:
    theirs, own = await office.accept("a@one.test", tenant="other"), await office.accept("a@one.test")
    assert [each["message"] for each in (await office.get("", "acme"))["entries"]] == [own]
    assert [each["message"] for each in (await office.get(f"?where={quote('tenant=*')}", "acme"))["entries"]] == [own]
    assert (await office.get("/shape", "acme"))["total"]["total"] == 1
    for name in TENANTS_ACTIONS:
        if name == "release":
            continue
        done = await office.post(f"/{name}", {"where": ["domain=one.test"], **ACTIONS[name]}, "acme")
        assert done["entries"] == 1, name
    await office.post("/drop", {"where": ["tenant!=acme"], "confirm": 100}, "acme")
    await office.post("/cancel", {"where": ["tenant=*"], "confirm": 100}, "acme")
    assert await office.waiting() == [theirs]


@pytest.mark.parametrize("name", ["", "/explain", *(f"/{each}" for each in TENANTS_ACTIONS)])
@pytest.mark.parametrize("number", ["", ".1"])
async def test_anothers_id_is_answered_as_one_that_nobody_has(office: Office, name: str, number: str) -> None:
    waiting, gone = await office.accept("a@one.test", tenant="other"), await office.accept("b@x.test", tenant="other")
    await office.attempt(f"{gone}.1", OK)
    before = await office.spool.log_end()
    method, body = ("GET", None) if name in ("", "/explain") else ("POST", ACTIONS[name[1:]])
    answers = set()
    for id_ in (waiting, gone, UNKNOWN):
        status, detail, fields = await office.refused(method, f"/{id_}{number}{name}", body, "acme")
        answers.add((status, detail.replace(id_, "ID"), *fields))
    assert answers == {(404, f"ID{number} is not known here")}
    assert await office.spool.log_end() == before


async def test_a_tenant_does_not_redirect(office: Office) -> None:
    message = await office.accept("a@one.test")
    for path, body in ((f"/{message}/redirect", {}), ("/redirect", {"where": ["tenant=acme"], "confirm": 1})):
        status, detail, _ = await office.refused("POST", path, {"to": "evil.test", **body}, "acme")
        assert (status, detail) == (403, "only an operator's key can redirect")
    assert (await office.get(f"/{message}.1"))["redirected_to"] is None


async def test_a_tenant_does_not_release_what_an_operator_holds(office: Office) -> None:
    message = await office.accept("a@one.test")
    await office.post(f"/{message}/hold", key="acme")
    await office.post(f"/{message}/hold")  # takes it over
    assert (await office.post(f"/{message}/release", key="acme"))["results"][0]["result"] == "unchanged"
    done = await office.post("/release", {"where": ["state=held"], "confirm": 9}, "acme")
    assert (done["entries"], done["changed"]) == (0, 0)
    [entry] = (await office.get(f"/{message}/explain", "acme"))["entries"]
    assert entry["gate"] == "held"
    assert entry["why"].startswith("held by the operator, key ")
    assert (await office.post(f"/{message}/release"))["results"][0]["result"] == "changed"
    await office.post(f"/{message}/hold", key="acme")
    assert (await office.post(f"/{message}/release", key="acme"))["results"][0]["result"] == "changed"


async def test_a_tenant_does_not_hammer_at_a_receiver(office: Office) -> None:
    message = await office.accept("a@one.test")
    await office.attempt(f"{message}.1", LATER)
    assert (await office.post(f"/{message}/retry", key="acme"))["results"][0]["result"] == "unchanged"
    assert (await office.post(f"/{message}/retry"))["results"][0]["result"] == "changed"
    await office.attempt(f"{message}.1", LATER)
    await office.clock.advance(61)
    assert (await office.post(f"/{message}/retry", key="acme"))["results"][0]["result"] == "changed"


# What is refused


async def test_who_may_not(office: Office) -> None:
    message = await office.accept("a@one.test")
    for method, path in (("GET", ""), ("GET", f"/{message}"), ("GET", "/shape"), ("POST", f"/{message}/drop")):
        status, *_ = await office.refused(method, path, key="")
        assert status == 401
        assert (await office.refused(method, path, key="sender"))[0] == 403
    office.keys["wrong"] = office.keys["acme"][:-3] + "AAA"
    assert (await office.refused("GET", "", key="wrong"))[0] == 401


@pytest.mark.parametrize(
    ("path", "body", "status", "fields"),
    [
        ("/hold", b"{", 400, []),
        ("/hold", b"\xff", 400, []),
        ("/hold", b"[" * 50_000, 400, []),
        ("/hold", b" " * 70_000, 413, []),
        ("/hold", [], 400, []),
        ("/hold", {}, 400, ["where"]),
        ("/hold", {"where": []}, 400, ["where"]),
        ("/hold", {"where": "domain=x"}, 400, ["where"]),
        ("/hold", {"where": {"domain": "x"}}, 400, ["where"]),
        ("/hold", {"where": ["age>1h", 7]}, 400, ["where.1"]),
        ("/hold", {"where": ["age>1h", "subject=x"]}, 400, ["where.1"]),
        ("/hold", {"where": ["domain=" + "x" * 600]}, 400, ["where.0"]),
        ("/hold", {"where": ["age>1h"] * 21}, 400, ["where"]),
        ("/hold", {"where": ["age>1h"], "confirm": -1}, 400, ["confirm"]),
        ("/hold", {"where": ["age>1h"], "confirm": True}, 400, ["confirm"]),
        ("/hold", {"where": ["age>1h"], "yes": True}, 400, ["yes"]),
        ("/hold", {"where": ["age>1h"], "to": "mx.test"}, 400, ["to"]),
        ("/redirect", {"where": ["age>1h"]}, 400, ["to"]),
        ("/redirect", {"where": ["age>1h"], "to": "a b"}, 400, ["to"]),
        ("/redirect", {"where": ["age>1h"], "to": "a:0"}, 400, ["to"]),
        ("/priority", {"where": ["age>1h"]}, 400, ["class"]),
        ("/priority", {"where": ["age>1h"], "class": "urgent"}, 400, ["class"]),
        (f"/{UNKNOWN}/hold", {"where": ["age>1h"]}, 400, ["where"]),
        (f"/{UNKNOWN}/hold", {}, 404, []),
        ("/nonsense/hold", {}, 404, []),
        ("/nonsense/cancel", {}, 404, []),
        (f"/{UNKNOWN}/explode", {}, 404, []),
    ],
)
async def test_what_is_no_request(office: Office, path: str, body: object, status: int, fields: list[str]) -> None:
    await office.accept("a@one.test")
    before = await office.spool.log_end()
    assert (await office.refused("POST", path, body))[::2] == (status, fields)
    assert await office.spool.log_end() == before


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("?limit=0", "limit"),
        ("?limit=1001", "limit"),
        ("?limit=x", "limit"),
        ("?limit=%D9%A1", "limit"),
        ("?limit=1&limit=2", "limit"),
        ("?after=x", "after"),
        ("?page=1", "page"),
        ("?where=subject%3Dx", "where.0"),
        ("?where=age%3E1h&where=x", "where.1"),
        ("/shape?by=site", "by"),
        ("/shape?limit=99999", "limit"),
    ],
)
async def test_what_is_no_query(office: Office, path: str, field: str) -> None:
    status, _, fields = await office.refused("GET", path)
    assert (status, fields) == (400, [field])


async def test_what_does_not_exist(office: Office) -> None:
    for path in (f"/{UNKNOWN}", f"/{UNKNOWN}/explain", "/nonsense", "/nonsense/explain", "/a/b/c"):
        assert (await office.refused("GET", path))[0] == 404
    status, detail, _ = await office.refused("GET", "/hold/explain/x")
    assert (status, detail) == (404, "not found")
    assert (await office.refused("DELETE", ""))[0] == 405


async def test_one_walk_of_a_tenant_at_a_time(office: Office) -> None:
    """And it keeps no other from its own, nor from what takes no walk."""
    message = await office.accept("a@one.test")
    async with office.desk.turn("walk", Who("another key", "acme")):
        waits = asyncio.create_task(office.get("/shape", "acme"))
        assert (await office.get("/shape", "other"))["total"]["total"] == 0
        assert (await office.get("/shape"))["total"]["total"] == 1
        assert (await office.get(f"/{message}", "acme"))["message"] == message
        assert not waits.done()
    assert (await waits)["total"]["total"] == 1


@pytest.mark.parametrize("key", ["acme", "operator"])
async def test_who_has_a_long_walk_under_way_is_told_to_come_again(
    office: Office, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    """Red when it waits for as long as that takes, and when one operator waits for another."""
    monkeypatch.setattr(desk, "TURN_WAIT", 0.0)
    message, ended = await office.accept("a@one.test"), await office.accept("b@one.test")
    await office.post(f"/{ended}/drop")
    _, office.keys["second"] = await keys.create(office.spool, None, ["manage"], 0.0)
    hold = {"where": ["domain=one.test"], "confirm": 1}
    known = await keys.authenticate(office.spool, office.keys[key], 0.0)
    assert known is not None
    who = Who(f"the operator, key {known.id}", known.tenant or "")
    async with office.desk.turn("walk", who), office.desk.turn("log", who):
        for method, path, body in (
            ("GET", "", None),
            ("GET", "/shape", None),
            ("GET", f"/{ended}/explain", None),
            ("POST", "/hold", hold),
        ):
            result = await office.ask(method, path, body, key)
            assert (result.status_code, result.headers["retry-after"]) == (429, "10")
            assert "another request of yours" in result.json["detail"]
        assert (await office.get("/shape", "second"))["total"]["total"] == 1
        assert (await office.get(f"/{message}.1"))["state"] == "queued"
        assert (await office.ask("POST", f"/{message}/cancel", None, key)).status_code == 429
        assert (await office.get("/shape", "second"))["total"]["total"] == 0
    assert (await office.post(f"/{message}/cancel", key=key))["results"][0]["result"] == "cancelled"
    assert (await office.get(f"/{ended}/explain", key))["entries"][0]["gate"] == "ended"
