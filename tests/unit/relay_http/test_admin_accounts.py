"""/admin/v1/keys, tenants and audit on a real spool: what operators and tenants may, and what is on record of it."""

from pathlib import Path
from typing import Any

import falcon.testing
import msgspec
import pytest

from mta.accounts import keys, tenants
from mta.accounts.particulars import Particulars
from mta.spool.interface import Unavailable
from tests.unit.relay_http.test_admin_queue import UNKNOWN, Office


class House(Office):
    """An installation with keys of all kinds, seen through all of the management API."""

    async def prepare(self) -> None:
        await super().prepare()
        now = self.clock.now()
        every = ["send", "read", "manage"]
        bound = Particulars(networks=("192.0.2.0/24",), expires_at=now + 100.0)
        for name, tenant, scopes, more in (
            ("acme", "acme", every, Particulars()),
            ("bound", "acme", ["manage", "mail.send"], bound),
            ("readonly", None, ["read"], Particulars()),
        ):
            _, self.keys[name] = await keys.create(self.spool, tenant, scopes, now, more)

    async def ask(self, method: str, path: str, body: object = None, key: str = "operator") -> falcon.testing.Result:
        data = body if isinstance(body, bytes) else msgspec.json.encode(body) if body is not None else b""
        path, _, query = path.partition("?")
        given = {"Authorization": f"Bearer {self.keys.get(key, key)}"} if key else {}
        async with falcon.testing.ASGIConductor(self.app) as client:
            return await client.simulate_request(
                method, f"/admin/v1{path}", body=data, headers=given, query_string=query, remote_addr="192.0.2.7"
            )

    async def made(self, body: object, key: str = "acme") -> Any:
        result = await self.ask("POST", "/keys", body, key)
        assert (result.status_code, result.headers["cache-control"]) == (201, "no-store"), result.text
        assert result.headers["location"] == f"/admin/v1/keys/{result.json['id']}"
        return result.json

    async def works(self, text: str) -> bool:
        return await keys.authenticate(self.spool, text, self.clock.now()) is not None

    async def actions(self, key: str = "operator", query: str = "") -> list[tuple[Any, ...]]:
        found = (await self.get(f"/audit?limit=1000{query}", key))["actions"]
        return [(each["action"], each["by"], each["tenant"], each["on"], each["result"]) for each in found]


@pytest.fixture
async def house(tmp_path: Path) -> Any:
    made = House(tmp_path)
    await made.prepare()
    yield made
    await made.spool.close()


def id_of(text: str) -> str:
    return text.split(".")[1]


# Keys


async def test_a_key_is_made_shown_once_and_works(house: House) -> None:
    asked = {
        "name": "billing",
        "scopes": ["mail.send"],
        "networks": ["192.0.2.7/24"],
        "rate": "1200/minute",
        "expires_at": house.clock.now() + 60,
        "sandbox": True,
        "once": 5,
    }
    made = await house.made(asked)
    assert await house.works(made.pop("key"))
    expected = {**asked, "scopes": ["send"], "grants": ["mail.send"], "networks": ["192.0.2.0/24"], "rate": "1200/60"}
    ours = {"id": made["id"], "tenant": "acme", "operator": False, "created_at": house.clock.now()}
    assert made == {**expected, **ours, "revoked_at": None, "last_used_at": None}
    assert await house.get(f"/keys/{made['id']}", "acme") == made
    assert made in (await house.get("/keys", "acme"))["keys"]


async def test_last_use_is_shown(house: House) -> None:
    await house.get("/keys", "acme")
    await house.uses.store()
    shown = await house.get(f"/keys/{id_of(house.keys['acme'])}", "operator")
    assert shown["last_used_at"] == house.clock.now()


async def test_everything_that_is_wrong_is_said_with_its_path(house: House) -> None:
    asked = {"scopes": ["send", 7], "networks": "10.0.0.0/8", "rates": "x", "sandbox": 1, "expires_at": None}
    status, _, fields = await house.refused("POST", "/keys", asked, "acme")
    assert (status, sorted(fields)) == (400, ["networks", "rates", "sandbox", "scopes.1"])
    asked = {"scopes": ["send", "root"], "networks": ["10.0.0.0/8", "x"], "expires_at": 1, "name": "a\nb"}
    status, _, fields = await house.refused("POST", "/keys", asked, "acme")
    assert (status, fields) == (400, ["name", "networks.1", "expires_at", "scopes.1"])


@pytest.mark.parametrize(
    ("body", "key", "status", "fields"),
    [
        ({}, "acme", 400, ["scopes"]),
        ({"scopes": []}, "acme", 400, ["scopes"]),
        ({"scopes": ["send"], "rate": "fast"}, "acme", 400, ["rate"]),
        ({"scopes": ["send"], "name": "x" * 101}, "acme", 400, ["name"]),
        ({"scopes": ["send"], "once": -1}, "acme", 400, ["once"]),
        ({"scopes": ["send"], "expires_at": 1e300}, "acme", 400, ["expires_at"]),
        ({"scopes": ["send"], "tenant": "other"}, "acme", 403, ["tenant"]),
        ({"scopes": ["send"]}, "operator", 400, ["tenant"]),
        ({"scopes": ["send"], "tenant": "nobody"}, "operator", 400, ["tenant"]),
        ({"scopes": ["read"]}, "bound", 403, ["scopes.0", "networks", "expires_at"]),
        ([], "acme", 400, []),
        (b"{", "acme", 400, []),
        (b"\xff", "acme", 400, []),
        (b"[" * 9999, "acme", 400, []),
        (b"x" * 70_000, "acme", 413, []),
    ],
)
async def test_a_key_that_may_not_be(house: House, body: object, key: str, status: int, fields: list[str]) -> None:
    before = await keys.list_all(house.spool)
    told = await house.refused("POST", "/keys", body, key)
    assert (told[0], told[2]) == (status, fields)
    assert await keys.list_all(house.spool) == before


async def test_a_key_makes_what_it_has_itself(house: House) -> None:
    asked = {"scopes": ["send"], "networks": ["192.0.2.7"], "expires_at": house.clock.now() + 100}
    made = await house.made(asked, "bound")
    assert made["tenant"] == "acme"


async def test_an_operator_makes_keys_of_tenants(house: House) -> None:
    made = await house.made({"scopes": ["send", "read"], "tenant": "other"}, "operator")
    assert (made["tenant"], made["operator"], made["scopes"]) == ("other", False, ["send", "read"])


@pytest.mark.parametrize(("key", "status"), [("", 401), ("SG.x.y", 401), ("sender", 403), ("readonly", 403)])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/keys"),
        ("POST", "/keys"),
        ("GET", f"/keys/{UNKNOWN}"),
        ("PATCH", f"/keys/{UNKNOWN}"),
        ("DELETE", f"/keys/{UNKNOWN}"),
        ("POST", f"/keys/{UNKNOWN}/rotate"),
        ("GET", "/tenants"),
        ("POST", "/tenants"),
        ("GET", "/tenants/acme"),
        ("PATCH", "/tenants/acme"),
        ("GET", "/audit"),
    ],
)
async def test_who_may_not_manage(house: House, method: str, path: str, key: str, status: int) -> None:
    assert (await house.refused(method, path, {"name": "x", "scopes": ["send"]}, key))[0] == status


async def test_another_tenants_key_is_none(house: House) -> None:
    others = id_of(house.keys["other"])
    for method, path in (("GET", ""), ("DELETE", ""), ("PATCH", ""), ("POST", "/rotate")):
        for id_ in (others, UNKNOWN, "x", id_of(house.keys["operator"])):
            status, detail, _ = await house.refused(method, f"/keys/{id_}{path}", {}, "acme")
            assert (status, detail) == (404, f"there is no key {id_}")
    assert await house.works(house.keys["other"])
    assert {each["tenant"] for each in (await house.get("/keys", "acme"))["keys"]} == {"acme"}
    assert (await house.refused("GET", "/keys?tenant=other", key="acme"))[0] == 400


async def test_keys_in_pages(house: House) -> None:
    found, after = [], ""
    while after is not None:
        page = await house.get(f"/keys?limit=2{after and f'&after={after}'}")
        assert len(page["keys"]) <= 2
        found += [each["id"] for each in page["keys"]]
        after = page["next"]
    assert found == [each.id for each in await keys.list_all(house.spool)]
    assert [each["tenant"] for each in (await house.get("/keys?tenant=other"))["keys"]] == ["other"]
    assert (await house.refused("GET", "/keys?after=x"))[0] == 400


async def test_a_revoked_key_is_good_for_nothing_from_now_on(house: House) -> None:
    made = await house.made({"scopes": ["manage"]})
    result = await house.ask("DELETE", f"/keys/{made['id']}", key="acme")
    assert (result.status_code, result.content) == (204, b"")
    assert (await house.refused("GET", "/keys", key=made["key"]))[0] == 401
    assert (await house.get(f"/keys/{made['id']}", "acme"))["revoked_at"] == house.clock.now()
    assert (await house.ask("DELETE", f"/keys/{made['id']}", key="acme")).status_code == 204


async def test_rotation_overlaps(house: House) -> None:
    made = await house.made({"scopes": ["send"], "name": "billing"})
    result = await house.ask("POST", f"/keys/{made['id']}/rotate", {"overlap": 60}, "acme")
    assert result.status_code == 201
    new = result.json
    assert (new["name"], new["instead_of"]) == ("billing", made["id"])
    assert await house.works(made["key"])
    assert await house.works(new["key"])
    await house.clock.advance(60.0)
    assert not await house.works(made["key"])
    assert await house.works(new["key"])
    assert (await house.refused("POST", f"/keys/{made['id']}/rotate", {}, "acme"))[0] == 409
    assert (await house.refused("POST", f"/keys/{new['id']}/rotate", {"overlap": -1}, "acme"))[2] == ["overlap"]


async def test_nobody_rotates_a_key_that_is_good_for_more(house: House) -> None:
    """Or he would have its secret."""
    status, _, fields = await house.refused("POST", f"/keys/{id_of(house.keys['acme'])}/rotate", {}, "bound")
    assert (status, fields) == (403, ["scopes.1", "networks", "expires_at"])
    assert (await house.refused("POST", f"/keys/{id_of(house.keys['operator'])}/rotate", {}))[0] == 403


async def test_a_key_is_given_another_name_or_other_scopes(house: House) -> None:
    made = await house.made({"scopes": ["send"], "name": "billing"})
    for asked, name, scopes in (
        ({"name": "reports"}, "reports", ["send"]),
        ({"scopes": ["read"]}, "reports", ["read"]),
        ({}, "reports", ["read"]),
    ):
        result = await house.ask("PATCH", f"/keys/{made['id']}", asked, "acme")
        assert (result.status_code, result.json["name"], result.json["scopes"]) == (200, name, scopes)
    assert (await house.refused("PATCH", f"/keys/{made['id']}", {"scopes": ["read"]}, "bound"))[0] == 403
    assert (await house.refused("PATCH", f"/keys/{made['id']}", {"scopes": ["x"], "tenant": "y"}, "acme"))[0] == 400


# Tenants


async def test_tenants_are_made_changed_and_shown(house: House) -> None:
    asked = {"name": "new", "weight": 3, "rate": "20/second", "tls": "verified", "backlog_messages": 5}
    result = await house.ask("POST", "/tenants", asked)
    assert (result.status_code, result.headers["location"]) == (201, "/admin/v1/tenants/new")
    shown = {
        **asked,
        "rate": "20/1",
        "pool": "default",
        "backlog_octets": 0,
        "keep_content": 0,
        "created_at": house.clock.now(),
    }
    assert result.json == await house.get("/tenants/new") == shown
    found = await tenants.settings_of(house.spool, "new")
    assert (found.rate, found.per, found.tls, found.weight, found.most_messages) == (20, 1, "verified", 3, 5)
    changed = {"rate": None, "tls": None, "backlog_octets": 1 << 30, "keep_content": 86_400}
    result = await house.ask("PATCH", "/tenants/new", changed)
    assert (result.status_code, result.json) == (200, {**shown, **changed})
    assert (await house.ask("PATCH", "/tenants/new", {})).json == {**shown, **changed}


@pytest.mark.parametrize(
    ("asked", "status", "fields"),
    [
        ({"name": "acme"}, 409, ["name"]),
        ({"name": "a b"}, 400, ["name"]),
        ({}, 400, ["name"]),
        ({"name": "x", "pool": "gold"}, 400, ["pool"]),
        ({"name": "x", "weight": 0, "tls": "none", "backlog_messages": -1, "no": 1}, 400, None),
        ({"name": "x", "rate": "x"}, 400, ["rate"]),
    ],
)
async def test_a_tenant_that_cannot_be(house: House, asked: object, status: int, fields: list[str] | None) -> None:
    before = await tenants.list_all(house.spool)
    told = await house.refused("POST", "/tenants", asked)
    assert told[0] == status
    assert sorted(told[2]) == (fields or ["backlog_messages", "no", "tls", "weight"])
    assert await tenants.list_all(house.spool) == before


async def test_tenants_in_pages_and_not_for_tenants(house: House) -> None:
    page = await house.get("/tenants?limit=1")
    assert ([each["name"] for each in page["tenants"]], page["next"]) == (["acme"], "acme")
    page = await house.get("/tenants?limit=1&after=acme")
    assert ([each["name"] for each in page["tenants"]], page["next"]) == (["other"], None)
    assert (await house.refused("GET", "/tenants/nobody"))[0] == 404
    assert (await house.refused("PATCH", "/tenants/nobody", {"weight": 2}))[0] == 404
    for method, path in (("GET", ""), ("POST", ""), ("GET", "/acme"), ("PATCH", "/acme")):
        assert (await house.refused(method, f"/tenants{path}", {"weight": 9}, "acme"))[0] == 403
    assert (await tenants.settings_of(house.spool, "acme")).weight == 1


# The audit log


async def test_each_change_is_on_record_with_who_and_from_where_and_no_secret(house: House) -> None:
    made = await house.made({"scopes": ["send"], "name": "billing", "networks": ["10.0.0.0/8"]})
    new = (await house.ask("POST", f"/keys/{made['id']}/rotate", {}, "acme")).json
    await house.ask("DELETE", f"/keys/{made['id']}", key="acme")
    await house.ask("POST", "/tenants", {"name": "new", "weight": 2})
    await house.refused("POST", "/keys", {"scopes": ["read"]}, "bound")
    message = await house.accept("a@one.test")
    await house.post(f"/queue/{message}/hold", {}, "acme")
    await house.post("/queue/drop", {"where": ["tenant=acme"], "confirm": 1})
    other = await house.accept("b@one.test")
    await house.post(f"/queue/{other}/cancel", {})
    ann, operator = f"key {id_of(house.keys['acme'])}", f"key {id_of(house.keys['operator'])}"
    assert await house.actions() == [
        ("queue.cancel", operator, "acme", other, "cancelled=1"),
        ("queue.drop", operator, None, "tenant=acme", "changed=1"),
        ("queue.hold", ann, "acme", message, "changed=1"),
        ("keys.create", f"key {id_of(house.keys['bound'])}", "acme", "", await refusal(house)),
        ("tenants.create", operator, "new", "new", "done"),
        ("keys.revoke", ann, "acme", made["id"], "done"),
        ("keys.rotate", ann, "acme", made["id"], f"done: {new['id']}"),
        ("keys.create", ann, "acme", made["id"], "done"),
    ]
    told = (await house.ask("GET", "/audit")).json["actions"]
    assert {each["address"] for each in told} == {"192.0.2.7"}
    assert told[-1]["details"] == {"scopes": "send", "name": "billing", "networks": "10.0.0.0/8"}
    text = (await house.ask("GET", "/audit")).text
    for secret in (made["key"], new["key"], house.keys["acme"]):
        assert secret.split(".")[2] not in text


async def refusal(house: House) -> str:
    """Tell how the one refused action was refused; its words are the accounts' own."""
    [result] = [each["result"] for each in (await house.get("/audit"))["actions"] if each["result"][:8] == "refused:"]
    assert "your key has not the scope read itself" in result
    return str(result)


async def test_a_tenant_reads_what_concerns_it_and_of_operators_neither_who_nor_where(house: House) -> None:
    await house.ask("PATCH", "/tenants/acme", {"weight": 2})
    await house.ask("PATCH", "/tenants/other", {"weight": 3})
    await house.made({"scopes": ["manage"]}, "acme")
    found = (await house.get("/audit", "acme"))["actions"]
    assert [(each["action"], each["by"][:12], each["address"]) for each in found] == [
        ("keys.create", f"key {id_of(house.keys['acme'])}"[:12], "192.0.2.7"),
        ("tenants.set", "the operator", ""),
    ]
    assert found[1]["details"] == {"weight": "2"}
    assert [each[2] for each in await house.actions(query="&tenant=other")] == ["other"]
    assert (await house.refused("GET", "/audit?tenant=other", key="acme"))[0] == 400


async def test_the_log_in_pages_and_since_a_time(house: House) -> None:
    for weight in range(1, 6):
        await house.ask("PATCH", "/tenants/acme", {"weight": weight})
        await house.clock.advance(60.0)
    found, before = [], ""
    while before is not None:
        page = await house.get(f"/audit?limit=2{before and f'&before={before}'}")
        found += [each["details"]["weight"] for each in page["actions"]]
        before = page["next"]
    assert found == ["5", "4", "3", "2", "1"]
    since = int(house.clock.now() - 121)
    assert len(await house.actions(query=f"&since={since}")) == 2
    assert len(await house.actions(query="&since=2027-01-15T08:02:00Z")) == 3
    for wrong in ("before=x", "since=x", "since=2027-01-15", "limit=0", "who=x"):
        assert (await house.refused("GET", f"/audit?{wrong}"))[0] == 400


@pytest.mark.tampers
async def test_the_record_is_there_before_the_answer(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change whose record cannot be written is not made, and one whose result cannot be written is not answered."""
    put = house.spool.put_record
    room = 0

    async def failing(kind: str, name: str, value: bytes, *, replace: bool) -> bool:
        nonlocal room
        room -= kind.startswith("audit\0") and bool(value)
        if room < 0:
            raise Unavailable("sick")
        return await put(kind, name, value, replace=replace)

    monkeypatch.setattr(house.spool, "put_record", failing)
    before = len(await keys.list_all(house.spool))
    assert (await house.ask("POST", "/keys", {"scopes": ["send"]}, "acme")).status_code == 503
    assert len(await keys.list_all(house.spool)) == before
    room = 1
    assert (await house.ask("POST", "/keys", {"scopes": ["send"]}, "acme")).status_code == 503
    assert len(await keys.list_all(house.spool)) == before + 1
    assert [each[4] for each in await house.actions()] == ["begun"]


async def test_too_many_changes_have_to_wait_and_are_not_recorded(house: House) -> None:
    statuses = [(await house.ask("PATCH", "/tenants/acme", {"weight": 2})).status_code for _ in range(101)]
    assert statuses == [200] * 100 + [429]
    result = await house.ask("PATCH", "/tenants/acme", {"weight": 3})
    assert result.headers["retry-after"] == "1"
    await house.made({"scopes": ["send"]}, "acme")  # others do not wait
    assert len(await house.actions()) == 101
    await house.clock.advance(float(result.headers["retry-after"]))
    assert (await house.ask("PATCH", "/tenants/acme", {"weight": 3})).status_code == 200
