"""Resend: what is sent, read back and changed, and the name of every refusal."""

from email import policy
from email.parser import BytesParser
from typing import Any

import msgspec
import pytest

from mta.queue.views import Status
from relay_http.iso import read_time
from relay_http.resend import openapi
from relay_http.resend.request import FILE, NOT_YET
from relay_http.resend.shown import LAST_EVENTS
from relay_http.uuids import id_of
from tests.unit.relay_http.following import OK, Relay

MAIL: dict[str, Any] = {
    "from": "Größe <b@shop.test>",
    "to": ["Änne <a@example.test>", "c@example.test"],
    "subject": "Grüße",
    "text": "text ü",
}
JSON = {"Content-Type": "application/json"}
Json = dict[str, Any]


async def send(relay: Relay, mail: object = MAIL, path: str = "/emails", **headers: str) -> Any:
    result = await relay.ask(
        "POST", path, mail, headers={name.replace("_", "-"): text for name, text in headers.items()}
    )
    assert result.status_code == 200, result.text
    return result.json


async def refused(relay: Relay, mail: object, path: str = "/emails", key: str = "shop", **headers: str) -> Json:
    given = {name.replace("_", "-"): text for name, text in headers.items()}
    result = await relay.ask("POST", path, mail, key, given)
    assert result.status_code == result.json["statusCode"] >= 400
    assert result.json.keys() == {"statusCode", "name", "message"}
    return dict(result.json)


async def message(relay: Relay, uuid: str) -> Any:
    return BytesParser(policy=policy.default).parsebytes(await relay.content(id_of(uuid) or ""))


async def test_everything_that_can_be_said(relay: Relay) -> None:
    sent = await send(
        relay,
        MAIL
        | {
            "cc": "d@example.test",
            "bcc": ["Ü <e@example.test>"],
            "reply_to": "help@shop.test",
            "html": '<img src="cid:logo">',
            "headers": {"X-Own": "Wert ü"},
            "tags": [{"name": "order", "value": "47-1_1"}],
            "attachments": [
                {"filename": "größe.txt", "content": "Z3LDtsOfZQ=="},
                {"filename": "logo.png", "content": [137, 80], "content_type": "image/png", "content_id": "logo"},
                {"filename": "empty.bin", "content": "", "content_type": None},
            ],
            "template": None,
        },
    )
    assert sent.keys() == {"id"}
    found = await message(relay, sent["id"])
    assert (found["From"], found["Subject"]) == ("Größe <b@shop.test>", "Grüße")
    assert (found["To"], found["Cc"]) == ("Änne <a@example.test>, c@example.test", "d@example.test")
    assert (found["Bcc"], found["Reply-To"], found["X-Own"]) == (None, "help@shop.test", "Wert ü")
    files = {part.get_filename(): part for part in found.walk() if part.get_filename()}
    assert {name: each.get_payload(decode=True) for name, each in files.items()} == {
        "größe.txt": "größe".encode(),
        "logo.png": b"\x89P",
        "empty.bin": b"",
    }
    assert (files["größe.txt"].get_content_type(), files["empty.bin"].get_content_type()) == (
        "text/plain",
        "application/octet-stream",
    )
    assert (files["logo.png"]["Content-ID"], files["logo.png"].get_content_disposition()) == ("<logo>", "inline")
    record = await relay.spool.message(id_of(sent["id"]) or "")
    assert record is not None
    assert record.custom_args == {"order": "47-1_1"}
    shown = await relay.get(f"/emails/{sent['id']}")
    recipients = [f"{name}@example.test" for name in "acde"]
    assert (shown["id"], shown["object"], sorted(shown["to"])) == (sent["id"], "email", recipients)
    assert (shown["text"].strip(), shown["last_event"], shown["scheduled_at"]) == ("text ü", "queued", None)
    assert shown["tags"] == [{"name": "order", "value": "47-1_1"}]
    await relay.attempt(id_of(sent["id"]) or "", OK)
    shown = await relay.get(f"/emails/{id_of(sent['id'])}")
    assert (shown["last_event"], shown["text"]) == ("delivered", None)


@pytest.mark.parametrize(
    ("change", "name", "said"),
    [
        ({"from": None}, "missing_required_field", "Missing `from` field."),
        ({"to": []}, "missing_required_field", "Missing `to` field."),
        ({"subject": ""}, "missing_required_field", "Missing `subject` field."),
        ({"from": "x"}, "validation_error", "Invalid `from` field. This is not a valid email address."),
        ({"to": ["a@b.test", "x"]}, "validation_error", "Invalid `to.1` field."),
        ({"to": 1}, "validation_error", "Invalid `to` field."),
        ({"cc": ["a@b.test"] * 51}, "validation_error", "Invalid `cc` field. At most 50"),
        ({"subject": "a\r\nBcc: x@y.test"}, "validation_error", "Invalid `subject` field."),
        ({"text": None}, "validation_error", "Invalid `html` field."),
        ({"headers": {"X-A": "a\nb"}}, "validation_error", "Invalid `headers.X-A` field."),
        ({"headers": {"From": "a@b.test"}}, "validation_error", "Invalid `headers.From` field."),
        ({"tags": [{"name": "ü", "value": "x"}]}, "validation_error", "Invalid `tags.0` field."),
        ({"tags": [{"name": "a", "value": "x" * 257}]}, "validation_error", "Invalid `tags.0` field."),
        ({"tags": [{"name": "a", "value": "x"}] * 2}, "validation_error", "Invalid `tags.1` field. Each name"),
        ({"scheduled_at": "in 1 hour"}, "validation_error", "Invalid `scheduled_at` field. This is not an ISO 8601"),
        ({"scheduled_at": "2026-01-01T00:00:00Z"}, "validation_error", "Invalid `scheduled_at` field. This is not in"),
        ({"scheduled_at": "2037-01-01T00:00:00Z"}, "validation_error", "Invalid `scheduled_at` field. An email can be"),
        ({"template": {"id": "x"}}, "validation_error", "Invalid `template` field. Templates are"),
        ({"topic_id": "x"}, "validation_error", "Invalid `topic_id` field. Topics are"),
        ({"attachments": [{"path": "https://x.test/a"}]}, "invalid_attachment", "Invalid `attachments.0.path` field."),
        ({"attachments": [{"filename": "a", "content": "?"}]}, "invalid_attachment", "Invalid `attachments.0.content`"),
        ({"attachments": [{"filename": "a", "content": [256]}]}, "invalid_attachment", "Invalid `attachments.0.cont"),
        ({"attachments": [{"content": "YQ=="}]}, "invalid_attachment", "Invalid `attachments.0.filename` field."),
        (
            {"attachments": [{"filename": "a", "content": "YQ==", "content_id": "<a>"}]},
            "invalid_attachment",
            "Invalid `attachments.0.content_id` field.",
        ),
    ],
)
async def test_what_is_wrong(relay: Relay, change: Json, name: str, said: str) -> None:
    error = await refused(relay, MAIL | change)
    assert (error["statusCode"], error["name"]) == (422, name)
    assert error["message"].startswith(said)
    assert (await relay.get("/emails"))["data"] == []


async def test_who_asks(relay: Relay) -> None:
    for key, mail, path, status, name in (
        ("", MAIL, "/emails", 401, "missing_api_key"),
        ("read", MAIL, "/emails", 401, "restricted_api_key"),
        ("shop", MAIL | {"from": "x@other.test"}, "/emails", 403, "validation_error"),
        ("shop", MAIL, "/emails/x/share", 404, "not_found"),
        ("", MAIL, "/emails/x/share", 401, "missing_api_key"),
    ):
        error = await refused(relay, mail, path, key)
        assert (error["statusCode"], error["name"]) == (status, name)
    relay.keys["wrong"] = "re_wrong"
    assert (await refused(relay, MAIL, key="wrong"))["name"] == "invalid_api_key"
    error = await refused(relay, b"{", Content_Type="application/json")
    assert (error["statusCode"], error["name"]) == (400, "validation_error")
    assert (await refused(relay, [], Content_Type="text/plain"))["statusCode"] == 415
    assert (await refused(relay, []))["message"].startswith("Invalid type.")


async def test_asking_again(relay: Relay) -> None:
    first = await send(relay, Idempotency_Key="k")
    assert await send(relay, Idempotency_Key="k") == first
    error = await refused(relay, MAIL | {"text": "other"}, Idempotency_Key="k")
    assert (error["statusCode"], error["name"]) == (409, "invalid_idempotent_request")
    error = await refused(relay, MAIL, Idempotency_Key="x" * 257)
    assert (error["statusCode"], error["name"]) == (400, "invalid_idempotency_key")
    assert len((await relay.get("/emails"))["data"]) == 1


class TestBatches:
    async def test_all_or_none(self, relay: Relay) -> None:
        sent = await send(relay, [MAIL | {"subject": str(number)} for number in range(3)], "/emails/batch")
        found = [(await message(relay, each["id"]))["Subject"] for each in sent["data"]]
        assert (sent.keys(), found) == ({"data"}, ["0", "1", "2"])
        error = await refused(relay, [MAIL, MAIL | {"to": ["x"]}], "/emails/batch")
        assert (error["name"], error["message"][:22]) == ("validation_error", "Invalid `1.to.0` field")
        assert len((await relay.get("/emails"))["data"]) == 3

    async def test_those_that_are_right(self, relay: Relay) -> None:
        asked = [MAIL, MAIL | {"to": ["x"]}, 7, MAIL]
        sent = await send(relay, asked, "/emails/batch", x_batch_validation="permissive")
        assert [each["index"] for each in sent["errors"]] == [1, 2]
        assert sent["errors"][0]["message"].startswith("Invalid `to.0` field.")
        assert len(sent["data"]) == 2 == len((await relay.get("/emails"))["data"])
        none = await send(relay, [7], "/emails/batch", x_batch_validation="permissive")
        assert (none["data"], len(none["errors"])) == ([], 1)

    @pytest.mark.parametrize("asked", [[], {}, [MAIL] * 101])
    async def test_what_is_none(self, relay: Relay, asked: object) -> None:
        assert (await refused(relay, asked, "/emails/batch"))["statusCode"] == 422
        assert (await refused(relay, [MAIL], "/emails/batch", x_batch_validation="lax"))["statusCode"] == 422


class TestScheduled:
    async def patch(self, relay: Relay, id_: str, body: object) -> Any:
        return await relay.ask("PATCH", f"/emails/{id_}", body, headers=JSON)

    async def test_another_time(self, relay: Relay) -> None:
        id_ = (await send(relay, MAIL | {"scheduled_at": "2027-01-20T15:00:00+01:00"}))["id"]
        shown = await relay.get(f"/emails/{id_}")
        assert (shown["last_event"], shown["scheduled_at"]) == ("scheduled", "2027-01-20T14:00:00Z")
        for _ in range(2):
            result = await self.patch(relay, id_, {"scheduled_at": "2027-01-21T00:00:00Z"})
            assert (result.status_code, result.json) == (200, {"object": "email", "id": id_})
        entry = await relay.spool.entry(f"{id_of(id_)}.1")
        assert entry is not None
        assert entry.due_at == read_time("2027-01-21T00:00:00Z")
        for body in ({}, {"scheduled_at": "soon"}, {"scheduled_at": None}, []):
            assert (await self.patch(relay, id_, body)).status_code == 422

    async def test_cancelled(self, relay: Relay) -> None:
        id_ = (await send(relay, MAIL | {"scheduled_at": "2027-01-20T15:00:00Z"}))["id"]
        for _ in range(2):
            assert await send(relay, None, f"/emails/{id_}/cancel") == {"object": "email", "id": id_}
        assert (await relay.get(f"/emails/{id_}"))["last_event"] == "canceled"
        assert (await self.patch(relay, id_, {"scheduled_at": "2027-01-21T00:00:00Z"})).status_code == 409

    async def test_too_late_or_not_there(self, relay: Relay) -> None:
        id_ = (await send(relay))["id"]
        error = await refused(relay, None, f"/emails/{id_}/cancel")
        assert (error["statusCode"], error["name"]) == (409, "conflict")
        assert (await self.patch(relay, id_, {"scheduled_at": "2027-01-21T00:00:00Z"})).status_code == 409
        for unknown in ("x", "01a1eeba-0001-75b5-87b0-da5fbbc1269c"):
            assert (await refused(relay, None, f"/emails/{unknown}/cancel"))["name"] == "not_found"
            assert (await self.patch(relay, unknown, {"scheduled_at": "2027-01-21T00:00:00Z"})).status_code == 404
            assert (await relay.ask("GET", f"/emails/{unknown}")).status_code == 404
        assert (await relay.ask("GET", f"/emails/{id_}", key="other")).status_code == 404


async def test_pages_lead_both_ways(relay: Relay) -> None:
    ids = [(await send(relay))["id"] for _ in range(5)][::-1]

    async def page(query: str) -> tuple[list[str], bool]:
        found = await relay.get(f"/emails?{query}")
        return [each["id"] for each in found["data"]], found["has_more"]

    assert await page("") == (ids, False)
    assert await page("limit=2") == (ids[:2], True)
    assert await page(f"limit=2&after={ids[1]}") == (ids[2:4], True)
    assert await page(f"limit=2&after={ids[3]}") == (ids[4:], False)
    assert await page(f"limit=2&before={ids[3]}") == (ids[1:3], True)
    assert await page(f"limit=2&before={ids[1]}") == (ids[:1], False)
    for query in ("limit=0", "limit=x", "after=x", f"after={ids[0]}&before={ids[1]}"):
        assert (await relay.ask("GET", f"/emails?{query}")).status_code == 422
    assert (await relay.ask("GET", f"/emails?after={ids[0]}", key="other")).status_code == 422


def test_every_status_has_a_word() -> None:
    assert LAST_EVENTS.keys() == set(Status)


async def test_the_document_is_true(relay: Relay) -> None:
    assert FILE[0] in openapi.SCHEMAS["ResendEmail"]["properties"]["attachments"]["items"]["properties"]  # type: ignore[index]
    assert NOT_YET.keys() <= openapi.SCHEMAS["ResendEmail"]["properties"].keys()  # type: ignore[index]
    for path in ("/emails", "/emails/batch"):
        operation: Any = openapi.PATHS[path]["post"]  # type: ignore[index]
        example = operation["requestBody"]["content"]["application/json"]["example"]
        text = msgspec.json.encode(example).replace(b"example.com", b"shop.test")
        said = operation["responses"]["200"]["content"]["application/json"]["example"]
        assert (await send(relay, text, path)).keys() == said.keys()
