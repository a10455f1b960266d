"""A key for the sandbox changes nothing that is sent, in no API; what it sends itself is answered and not stored."""

from typing import Any

import pytest

from mta.accounts import keys
from mta.accounts.particulars import Particulars
from mta.queue import batches
from relay_http.iso import write_time
from relay_http.uuids import uuid_of
from tests.unit.relay_http.following import Relay

MAIL = {"from": "a@shop.test", "to": ["b@example.test"], "subject": "Hello", "text": "Hi"}


@pytest.fixture
async def trial(relay: Relay) -> Relay:
    for name, sandbox in (("trial", True), ("live", False)):
        bounds = Particulars(sandbox=sandbox)
        _, relay.keys[name] = await keys.create(relay.spool, "shop", ["send", "read", "manage"], 0.0, bounds)
    return relay


async def test_mail_of_others_stays_as_it_is(trial: Relay) -> None:
    at = trial.clock.now() + 3600
    batch = batches.new_batch("shop", trial.clock.now())
    sent = await trial.ask("POST", "/v1/mail", {**MAIL, "send_at": at})
    assert sent.status_code == 202, sent.text
    id_ = sent.json["id"]
    asked: list[tuple[str, str, Any]] = [
        ("POST", f"/v1/mail/{id_}/cancel", None),
        ("POST", f"/v1/mail/{id_}/reschedule", {"send_at": at + 60}),
        ("POST", f"/api/v1/emails/{id_}/cancel", None),
        ("POST", f"/emails/{uuid_of(id_)}/cancel", None),
        ("PATCH", f"/emails/{uuid_of(id_)}", {"scheduled_at": write_time(at + 60)}),
        ("DELETE", f"/v1/messages/{id_}", None),
        ("POST", "/v3/user/scheduled_sends", {"batch_id": batch, "status": "cancel"}),
        *[("POST", f"/admin/v1/queue/{id_}/{name}", {}) for name in ("hold", "release", "retry", "drop", "cancel")],
        ("POST", f"/admin/v1/queue/{id_}/priority", {"class": "bulk"}),
        ("POST", "/admin/v1/queue/drop", {"where": ["tenant=shop"], "confirm": 1}),
    ]
    before = await trial.spool.entry(f"{id_}.1")
    for method, path, body in asked:
        result = await trial.ask(method, path, body, "trial")
        refused = 401 if path.startswith("/emails/") else 403  # as Resend has it
        assert result.status_code == refused, (path, result.text)
        assert "sandbox" in result.text or path.startswith("/v3/"), result.text
    assert before is not None
    assert await trial.spool.entry(f"{id_}.1") == before
    assert await batches.said(trial.spool, "shop", batch) is None
    assert (await trial.ask("GET", f"/v1/mail/{id_}/explain", key="trial")).status_code == 200
    assert (await trial.ask("POST", f"/admin/v1/queue/{id_}/hold", {}, "live")).status_code == 200
    assert (await trial.ask("POST", f"/v1/mail/{id_}/cancel", key="live")).status_code == 200


async def test_what_was_said_of_a_batch_stays(trial: Relay) -> None:
    made = await trial.ask("POST", "/v3/mail/batch")
    batch = made.json["batch_id"]
    path = f"/v3/user/scheduled_sends/{batch}"
    said = await trial.ask("POST", "/v3/user/scheduled_sends", {"batch_id": batch, "status": "pause"})
    assert said.status_code == 201, said.text
    for method, body in (("PATCH", {"status": "cancel"}), ("DELETE", None)):
        result = await trial.ask(method, path, body, "trial", {"Content-Type": "application/json"})
        assert result.status_code == 403, result.text
    assert (await trial.get(path))[0]["status"] == "pause"
    assert (await trial.ask("DELETE", path, key="live")).status_code == 204


async def test_keys_and_tenants_that_mail_depends_on(trial: Relay) -> None:
    _, trial.keys["operator"] = await keys.create(trial.spool, None, ["manage"], 0.0, Particulars(sandbox=True))
    live, mine = [
        (await keys.create(trial.spool, "shop", ["send"], 0.0, Particulars(sandbox=sandbox)))[0].id
        for sandbox in (False, True)
    ]
    asked: list[tuple[str, str, Any, str]] = [
        ("DELETE", f"/admin/v1/keys/{live}", None, "trial"),
        ("DELETE", f"/v3/api_keys/{live}", None, "trial"),
        ("PATCH", "/admin/v1/tenants/shop", {"rate": "1/86400"}, "operator"),
        ("POST", "/admin/v1/tenants", {"name": "third"}, "operator"),
    ]
    for method, path, body, key in asked:
        result = await trial.ask(method, path, body, key, {"Content-Type": "application/json"})
        assert result.status_code == 403, (path, result.text)
    kept = await keys.find(trial.spool, live, "shop")
    assert kept is not None
    assert kept.good(trial.clock.now())
    assert (await trial.ask("DELETE", f"/admin/v1/keys/{mine}", key="trial")).status_code == 204
    assert (await trial.ask("DELETE", f"/v3/api_keys/{live}", key="live")).status_code == 204
