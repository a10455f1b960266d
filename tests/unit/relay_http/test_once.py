"""Writes that send nothing, asked again with an idempotency key: keys, batches, what is in the queue."""

import asyncio
import gzip

import msgspec
import pytest

from mta.accounts import keys
from mta.spool.interface import Unavailable
from tests.unit.relay_http.following import Relay

KEY = {"Idempotency-Key": "once"}
ASKED = {"name": "billing", "scopes": ["mail.send"]}


@pytest.fixture(autouse=True)
async def managers(relay: Relay) -> None:
    for name, tenant in (("one", "shop"), ("two", "shop"), ("else", "other"), ("boss", None), ("chief", None)):
        scopes = ["send", "manage"] if tenant else ["manage"]
        _, relay.keys[name] = await keys.create(relay.spool, tenant, scopes, 0.0)


async def made(relay: Relay) -> int:
    return len([each for each in await keys.list_all(relay.spool) if each.name == "billing"])


async def test_a_key_is_made_once_and_its_text_told_again(relay: Relay) -> None:
    first = await relay.ask("POST", "/v3/api_keys", ASKED, "one", KEY)
    again = await relay.ask("POST", "/v3/api_keys", dict(reversed(ASKED.items())), "one", KEY)
    assert (first.status_code, again.status_code, again.json) == (201, 201, first.json)
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["cache-control"] == first.headers["cache-control"] == "no-store"
    assert await made(relay) == 1
    assert await keys.authenticate(relay.spool, again.json["api_key"], 0.0)


async def test_compressed_it_is_the_same(relay: Relay) -> None:
    first = await relay.ask("POST", "/v3/api_keys", ASKED, "one", KEY)
    body = gzip.compress(msgspec.json.encode(ASKED))
    again = await relay.ask("POST", "/v3/api_keys", body, "one", {**KEY, "Content-Encoding": "gzip"})
    assert (again.status_code, again.json) == (201, first.json)


async def test_another_request_is_refused(relay: Relay) -> None:
    await relay.ask("POST", "/v3/api_keys", ASKED, "one", KEY)
    other = await relay.ask("POST", "/v3/api_keys", {**ASKED, "name": "else"}, "one", KEY)
    assert (other.status_code, other.json["errors"][0]["field"]) == (409, "Idempotency-Key")
    assert (await relay.ask("POST", "/v3/api_keys", ASKED, "one", {"Idempotency-Key": "é"})).status_code == 400


async def test_nobody_is_told_what_another_key_was(relay: Relay) -> None:
    """A key that may do less must not read the text of one that may do more."""
    first = await relay.ask("POST", "/v3/api_keys", ASKED, "one", KEY)
    for key in ("two", "send", "read"):
        refused = await relay.ask("POST", "/v3/api_keys", ASKED, key, KEY)
        assert refused.status_code == 409, key
        assert first.json["api_key"] not in refused.text
    assert (await relay.ask("POST", "/v3/api_keys", ASKED, "else", KEY)).status_code == 201  # another tenant's is free
    assert (await relay.ask("POST", "/v3/api_keys", ASKED, "", KEY)).status_code == 401
    await keys.revoke(relay.spool, relay.keys["one"].split(".")[1], relay.clock.now())
    assert (await relay.ask("POST", "/v3/api_keys", ASKED, "one", KEY)).status_code == 401


async def test_operators_have_their_own(relay: Relay) -> None:
    asked = {"tenant": "shop", "scopes": ["send"], "name": "billing"}
    first = await relay.ask("POST", "/admin/v1/keys", asked, "boss", KEY)
    again = await relay.ask("POST", "/admin/v1/keys", asked, "boss", KEY)
    assert (first.status_code, again.json) == (201, first.json)
    assert again.headers["location"] == first.headers["location"]
    other = await relay.ask("POST", "/admin/v1/keys", asked, "chief", KEY)
    assert (other.status_code, await made(relay)) == (201, 2)
    assert other.json["id"] != first.json["id"]


async def test_an_answer_without_a_body(relay: Relay) -> None:
    made = await relay.ask("POST", "/v3/api_keys", ASKED, "one")
    path = f"/v3/api_keys/{made.json['api_key_id']}"
    first = await relay.ask("DELETE", path, key="one", headers=KEY)
    again = await relay.ask("DELETE", path, key="one", headers=KEY)
    assert (first.status_code, again.status_code, again.content) == (204, 204, b"")
    assert again.headers["idempotent-replayed"] == "true"
    assert (await relay.ask("DELETE", path, key="one")).status_code == 404


async def test_at_once_it_is_done_once(relay: Relay) -> None:
    asked = [relay.ask("POST", "/v3/api_keys", ASKED, "one", KEY) for _ in range(20)]
    statuses = [each.status_code for each in await asyncio.gather(*asked)]
    assert (set(statuses) <= {201, 409}, statuses.count(201) >= 1, await made(relay)) == (True, True, 1)
    assert (await relay.ask("POST", "/v3/api_keys", ASKED, "one", KEY)).status_code == 201
    assert await made(relay) == 1


async def test_what_was_refused_is_looked_at_again(relay: Relay) -> None:
    wrong = {**ASKED, "scopes": ["no.such"]}
    for _ in range(2):
        refused = await relay.ask("POST", "/v3/api_keys", wrong, "one", KEY)
        assert (refused.status_code, "idempotent-replayed" in refused.headers) == (400, False)
    assert (await relay.ask("POST", "/v3/api_keys", ASKED, "one", KEY)).status_code == 201


async def test_a_day_later_it_is_done_again(relay: Relay) -> None:
    await relay.ask("POST", "/v3/mail/batch", key="one", headers=KEY)
    await relay.wait(86_399)
    again = await relay.ask("POST", "/v3/mail/batch", key="one", headers=KEY)
    assert again.headers["idempotent-replayed"] == "true"
    await relay.wait(2)
    again = await relay.ask("POST", "/v3/mail/batch", key="one", headers=KEY)
    assert (again.status_code, "idempotent-replayed" in again.headers) == (201, False)


@pytest.mark.tampers
async def test_what_cannot_be_kept_is_done_all_the_same(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        raise Unavailable("full")

    monkeypatch.setattr(relay.spool, "accept_on", fail)
    assert (await relay.ask("POST", "/v3/api_keys", ASKED, "one", KEY)).status_code == 201


async def test_a_body_has_a_bound(relay: Relay) -> None:
    refused = await relay.ask("POST", "/v3/api_keys", b" " * ((1 << 20) + 1), "one", KEY)
    assert refused.status_code == 413


async def test_numbers_that_no_digest_can_have(relay: Relay) -> None:
    asked = b'{"where": ["domain=*"], "confirm": 99999999999999999999999999}'
    answers = [await relay.ask("POST", "/admin/v1/queue/hold", asked, "one", KEY) for _ in range(2)]
    assert [each.status_code for each in answers] == [200, 200]
    assert answers[1].headers["idempotent-replayed"] == "true"


async def test_a_coding_of_nothing(relay: Relay) -> None:
    made = await relay.ask("POST", "/v3/api_keys", ASKED, "one")
    path, headers = f"/v3/api_keys/{made.json['api_key_id']}", {**KEY, "Content-Encoding": "gzip"}
    assert (await relay.ask("DELETE", path, key="one", headers=headers)).status_code == 204
