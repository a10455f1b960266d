"""Stored messages and domains."""

from typing import Any

import msgspec
import pytest

from mta.accounts import domains, keys
from mta.accounts.domains import Selector, State
from mta.mail.ids import new_message_id
from mta.mail.summary import FileShown, Summary
from mta.spool.records import Message, Origin, Segment
from tests.unit.relay_http.mailgun.conftest import Client
from tests.unit.relay_http.views import message_shown

CONTENT = (
    b"Received: one\r\nReceived: two\r\nFrom: Shop <billing@shop.test>\r\nSubject: Order\r\nMIME-Version: 1.0\r\n"
    b'Content-Type: multipart/alternative; boundary="b"\r\n\r\n'
    b"--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nplain \xc3\xbc\r\n"
    b"--b\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<p>html</p>\r\n--b--\r\n"
)


@pytest.fixture
def id_(client: Client, monkeypatch: pytest.MonkeyPatch) -> str:
    """The ID of a message that is stored."""
    id_ = new_message_id()
    summary = Summary(subject="Order", from_="Shop <billing@shop.test>", files=(FileShown("a.txt", "text/plain", 5),))
    client.views.shown = [message_shown(id_, "ann@example.test", "bob@example.test", summary=summary)]
    stored = Message(
        id=id_,
        tenant="shop",
        sender="billing@shop.test",
        origin=Origin.HTTP,
        accepted_at=0,
        release_at=0,
        expires_at=0,
        segments=(Segment(b"", len(CONTENT), b""),),
        entries=1,
    )
    kept = {id_: stored}

    async def message(message_id: str) -> Message | None:
        return kept.get(message_id)

    async def content(_: Message) -> bytes:
        return CONTENT

    monkeypatch.setattr(client.spool, "message", message, raising=False)
    monkeypatch.setattr(client.spool, "content", content, raising=False)
    monkeypatch.setattr(client, "kept", kept, raising=False)
    return id_


async def test_to_keys_that_may_see_contents_alone(client: Client, id_: str) -> None:
    _, blind = await keys.create(client.spool, "shop", ["read"], 0.0)  # type: ignore[arg-type]
    assert (await client.get(f"/v3/domains/shop.test/messages/{id_}", blind)).status_code == 403


async def test_a_message_read(client: Client, id_: str) -> None:
    found = (await client.get(f"/v3/domains/shop.test/messages/{id_}")).json
    assert found["sender"] == "billing@shop.test"
    assert found["recipients"] == "ann@example.test, bob@example.test"
    assert (found["From"], found["Subject"], found["Received"]) == ("Shop <billing@shop.test>", "Order", "one")
    assert (found["body-plain"], found["body-html"].strip()) == ("plain ü", "<p>html</p>")
    assert found["attachments"] == [{"name": "a.txt", "content-type": "text/plain", "size": 5}]
    assert found["message-headers"][1] == ["Received", "two"]


async def test_a_message_as_it_is(client: Client, id_: str) -> None:
    found = await client.get(f"/v3/domains/shop.test/messages/{id_}", Accept="message/rfc2822")
    assert found.json["body-mime"] == CONTENT.decode()
    assert found.json["from"] == "Shop <billing@shop.test>"


async def test_a_message_whose_content_is_gone(client: Client, id_: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client.kept.clear()  # type: ignore[attr-defined]
    result = await client.get(f"/v3/domains/shop.test/messages/{id_}")
    assert (result.status_code, list(result.json)) == (410, ["message"])


@pytest.mark.parametrize("key", ["nonsense", "a" * 22, "A" * 22])
async def test_a_message_that_there_is_not(client: Client, id_: str, key: str) -> None:
    result = await client.get(f"/v3/domains/shop.test/messages/{key}")
    assert (result.status_code, result.json) == (404, {"message": "Message not found"})


async def test_another_tenants_message(client: Client, id_: str) -> None:
    client.views.change(id_, tenant="other")
    assert (await client.get(f"/v3/domains/shop.test/messages/{id_}")).status_code == 404
    assert (await client.get(f"/v3/domains/other.test/messages/{id_}")).status_code == 404


async def test_the_tenants_domains(client: Client) -> None:
    spool: Any = client.spool
    await domains.add(spool, "zoo.test", "shop", 1_800_000_000.0)
    found = (await client.get("/v4/domains")).json
    assert (found["total_count"], [each["name"] for each in found["items"]]) == (2, ["shop.test", "zoo.test"])
    assert found["items"][0]["created_at"] == "Fri, 15 Jan 2027 08:00:00 +0000"
    found = (await client.get("/v4/domains?limit=1&skip=1")).json
    assert (found["total_count"], [each["name"] for each in found["items"]]) == (2, ["zoo.test"])
    assert (await client.get("/v4/domains?search=ZOO")).json["total_count"] == 1


async def test_a_domain_and_its_records(client: Client) -> None:
    spool: Any = client.spool
    selectors = [
        Selector(name=name, algorithm="rsa2048", created_at=0, dns_value=f"v=DKIM1; {name}", sealed=b"", state=state)
        for name, state in (("s1", State.ACTIVE), ("s2", State.PENDING), ("s0", State.RETIRED))
    ]
    registered = await domains.find(spool, "shop.test")
    assert registered is not None
    changed = msgspec.structs.replace(registered, selectors=tuple(selectors))
    spool.records[domains.KIND, "shop.test"] = domains.encode(changed)
    found = (await client.get("/v4/domains/SHOP.test?h:extended=false")).json
    assert (found["domain"]["name"], found["domain"]["state"]) == ("shop.test", "active")
    assert [(each["name"], each["value"], each["valid"]) for each in found["sending_dns_records"]] == [
        ("s1._domainkey.shop.test", "v=DKIM1; s1", "valid"),
        ("s2._domainkey.shop.test", "v=DKIM1; s2", "unknown"),
    ]


@pytest.mark.parametrize("name", ["other.test", "unknown.test", "no domain", "x" * 300])
async def test_a_domain_that_is_not_the_tenants(client: Client, name: str) -> None:
    result = await client.get(f"/v4/domains/{name}")
    assert (result.status_code, result.json["message"][:18]) == (404, "Domain not found: ")


@pytest.mark.parametrize("query", ["limit=1001", "limit=x", "skip=-1"])
async def test_pages_that_there_are_not(client: Client, query: str) -> None:
    assert (await client.get(f"/v4/domains?{query}")).status_code == 400
