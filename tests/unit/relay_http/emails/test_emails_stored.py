"""What has been sent over the Emails API: lists, details, cancel and resend, on a real spool."""

from base64 import b64encode
from email import policy
from email.parser import BytesParser
from typing import Any

import msgspec
import pytest

from mta.accounts import domains, tenants
from mta.mail.ids import new_message_id
from mta.queue.views import Status, ViewsUnavailable
from relay_http import stored
from relay_http.emails.shown import STATUSES, status_word
from tests.unit.relay_http.following import LATER, NEVER, OK, Relay
from tests.unit.relay_http.views import message_shown

PATH = "/api/v1/emails"
SCHEDULED = {"scheduled_at": "2027-06-01T15:00:00Z"}
MAIL = {"to": ["a@example.test"], "subject": "Grüße", "text": "Hi\nthere", "html": "<p>ü</p>", "from_": "b@shop.test"}
FILE = {"filename": "ü.pdf", "content_type": "application/pdf", "content_b64": b64encode(b"PDF").decode()}
Json = dict[str, Any]


async def send(relay: Relay, key: str = "shop", **change: object) -> str:
    mail = MAIL if key != "other" else MAIL | {"from_": "b@other.test"}
    result = await relay.ask("POST", PATH, mail | change, key)
    assert result.status_code == 202, result.text
    return str(result.json["id"])


async def status(relay: Relay, id_: str) -> str:
    return str((await relay.get(f"{PATH}/{id_}"))["status"])


async def test_a_detail_has_bodies_attachments_and_times(relay: Relay) -> None:
    id_ = await send(relay, attachments=[FILE], cc=["c@example.test"], **SCHEDULED)
    assert await relay.get(f"{PATH}/{id_}") == {
        "id": id_,
        "status": "scheduled",
        "from_": "b@shop.test",
        "to": ["a@example.test", "c@example.test"],
        "subject": "Grüße",
        "created_at": "2027-01-15T08:00:00Z",
        "updated_at": "2027-01-15T08:00:00Z",
        "scheduled_at": "2027-06-01T15:00:00Z",
        "sent_at": None,
        "delivered_at": None,
        "html": "<p>ü</p>",
        "text": "Hi\nthere",
        "attachments": [{"filename": "ü.pdf", "content_type": "application/pdf", "size": 3}],
        "recipients": [
            {"email": "a@example.test", "status": "scheduled"},
            {"email": "c@example.test", "status": "scheduled"},
        ],
        "attempts": [],
    }


async def test_texts_are_for_keys_that_may_see_contents(relay: Relay) -> None:
    id_ = await send(relay)
    seen = await relay.get(f"{PATH}/{id_}")
    assert seen["html"] or seen["text"]
    watched = await relay.get(f"{PATH}/{id_}", "read")
    assert (watched["html"], watched["text"]) == (None, None)


async def test_attempts_are_told_and_texts_go_with_the_content(relay: Relay) -> None:
    id_ = await send(relay)
    await relay.attempt(id_, LATER)
    await relay.wait(60)
    await relay.attempt(id_, OK)
    shown = await relay.get(f"{PATH}/{id_}")
    first, second = shown["attempts"]
    assert first["retry_at"] > first["at"] == shown["sent_at"] == "2027-01-15T08:00:00Z"
    assert {**first, "retry_at": None} == {
        "attempt": 1,
        "at": "2027-01-15T08:00:00Z",
        "recipient": "a@example.test",
        "outcome": "deferred",
        "provider": "mx.test[192.0.2.1]:25",
        "response": "451 4.7.1 later",
        "retry_at": None,
    }
    assert (second["outcome"], second["attempt"], second["retry_at"]) == ("delivered", 2, None)
    assert (shown["status"], shown["delivered_at"]) == ("delivered", "2027-01-15T08:01:00Z")
    assert (shown["html"], shown["text"]) == (None, None)


async def test_texts_of_what_is_large_are_not_shown(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    id_ = await send(relay, text="x" * 300_000)
    assert len((await relay.get(f"{PATH}/{id_}"))["text"]) >= 300_000
    monkeypatch.setattr(stored, "TEXTS_LIMIT", 300_000)
    assert (await relay.get(f"{PATH}/{id_}"))["text"] is None


class TestTheEightStatuses:
    async def test_each(self, relay: Relay) -> None:
        by_status = {
            "queued": await send(relay),
            "scheduled": await send(relay, **SCHEDULED),
            "sent": await send(relay),
            "delivering": await send(relay),
            "delivered": await send(relay),
            "failed": await send(relay),
            "bounced": await send(relay),
            "cancelled": await send(relay, **SCHEDULED),
        }
        await relay.attempt(by_status["sent"], LATER)
        await relay.claim(by_status["delivering"])
        await relay.attempt(by_status["delivered"], OK)
        await relay.attempt(by_status["bounced"], NEVER)
        await relay.drop(by_status["failed"])
        await relay.ask("POST", f"{PATH}/{by_status['cancelled']}/cancel")
        listed = {each["id"]: each["status"] for each in (await relay.get(PATH))["items"]}
        for word, id_ in by_status.items():
            assert await status(relay, id_) == listed[id_] == word
            only = await relay.get(f"{PATH}?status={word}")
            assert [(each["id"], each["status"]) for each in only["items"]] == [(id_, word)]

    def test_what_has_expired_has_failed_and_every_status_has_a_word(self) -> None:
        assert status_word(message_shown("x", "a@b.test", status=Status.EXPIRED)) == "failed"
        assert {each for statuses in STATUSES.values() for each in statuses} == set(Status)
        assert len(STATUSES) == 8

    async def test_nothing_is_delivering(self, relay: Relay) -> None:
        await send(relay)
        assert (await relay.get(f"{PATH}?status=delivering"))["items"] == []

    async def test_the_first_that_holds_of_any_recipient(self, relay: Relay) -> None:
        id_ = await send(relay, to=["a@one.test", "b@two.test"])
        await relay.attempt(id_, OK)
        assert await status(relay, id_) == "queued"
        await relay.attempt(id_, NEVER, 2)
        assert await status(relay, id_) == "bounced"


class TestLists:
    async def test_pages(self, relay: Relay) -> None:
        ids = [await send(relay) for _ in range(3)]
        first = await relay.get(f"{PATH}?limit=2")
        assert [each["id"] for each in first["items"]] == ids[:0:-1]
        assert first["items"][0].keys() == {
            *("id", "status", "from_", "to", "subject", "created_at", "updated_at", "scheduled_at"),
        }
        assert (first["limit"], first["offset"], first["has_more"]) == (2, 0, True)
        second = await relay.get(f"{PATH}?limit=2&offset=2")
        assert ([each["id"] for each in second["items"]], second["has_more"]) == ([ids[0]], False)

    async def test_of_this_api_and_of_this_tenant(self, relay: Relay) -> None:
        id_ = await send(relay)
        foreign = await send(relay, "other")
        message = {"recipient": "a@example.test", "subject": "x", "text": "x", "from": "b@shop.test"}
        assert (await relay.ask("POST", "/v1/messages", message)).status_code == 200
        assert [each["id"] for each in (await relay.get(PATH))["items"]] == [id_]
        assert [each["id"] for each in (await relay.get(PATH, "other"))["items"]] == [foreign]
        await relay.claim(foreign)
        assert (await relay.get(f"{PATH}?status=delivering"))["items"] == []

    @pytest.mark.parametrize(
        ("query", "name", "said"),
        [
            ("status=open", "status", "This is none of"),
            ("limit=0", "limit", "This is not a number from 1 to 100."),
            ("limit=101", "limit", "This is not a number from 1 to 100."),
            ("limit=x", "limit", "This is not a number from 1 to 100."),
            ("limit=٣", "limit", "This is not a number from 1 to 100."),
            ("offset=-1", "offset", "This is not a number from 0 to 10000."),
            ("offset=10001", "offset", "This is not a number from 0 to 10000."),
        ],
    )
    async def test_wrong_parameters(self, relay: Relay, query: str, name: str, said: str) -> None:
        result = await relay.ask("GET", f"{PATH}?{query}")
        assert result.status_code == 422
        (problem,) = result.json["detail"]
        assert problem["loc"] == ["query", name]
        assert said in problem["msg"]


class TestCancel:
    async def test_a_scheduled_one_is_cancelled_and_stays_so(self, relay: Relay) -> None:
        id_ = await send(relay, to=["a@one.test", "b@two.test"], **SCHEDULED)
        for _ in range(2):
            result = await relay.ask("POST", f"{PATH}/{id_}/cancel")
            assert (result.status_code, result.json["id"], result.json["status"]) == (200, id_, "cancelled")
        assert [each async for each in relay.spool.walk_entries()] == []

    async def test_only_a_scheduled_one(self, relay: Relay) -> None:
        queued, delivered = await send(relay), await send(relay)
        await relay.attempt(delivered, OK)
        for id_, word in ((queued, "queued"), (delivered, "delivered")):
            result = await relay.ask("POST", f"{PATH}/{id_}/cancel")
            said = f"Only a scheduled email can be cancelled, and the status of this one is {word}."
            assert (result.status_code, result.json) == (409, {"detail": said})
        assert await status(relay, queued) == "queued"

    async def test_one_whose_time_has_come(self, relay: Relay) -> None:
        id_ = await send(relay, **SCHEDULED)
        relay.clock.jump(200 * 86_400)
        result = await relay.ask("POST", f"{PATH}/{id_}/cancel")
        assert (result.status_code, await status(relay, id_)) == (409, "queued")

    async def test_one_that_was_given_another_time(self, relay: Relay) -> None:
        later, sooner = await send(relay, **SCHEDULED), await send(relay, **SCHEDULED)
        await relay.reschedule(later, relay.clock.now() + 300 * 86_400)
        await relay.reschedule(sooner, relay.clock.now() + 10)
        relay.clock.jump(100)
        assert (await relay.ask("POST", f"{PATH}/{sooner}/cancel")).status_code == 409
        relay.clock.jump(200 * 86_400)
        assert (await relay.ask("POST", f"{PATH}/{later}/cancel")).status_code == 200

    async def test_one_that_is_in_flight(self, relay: Relay) -> None:
        """A clock that was set back shows what is released as scheduled."""
        id_ = await send(relay, **SCHEDULED)
        relay.clock.jump(200 * 86_400)
        await relay.claim(id_)
        relay.clock.jump(-200 * 86_400)
        result = await relay.ask("POST", f"{PATH}/{id_}/cancel")
        said = "The email is being delivered: it is cancelled unless that succeeds."
        assert (result.status_code, result.json) == (409, {"detail": said})

    async def test_one_that_changes_time_and_again(self, relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
        id_ = await send(relay, **SCHEDULED)

        async def busy(*_: object) -> dict[tuple[str, str], str]:
            return {(f"{id_}.1", "a@example.test"): "busy"}

        monkeypatch.setattr("mta.queue.desk.Desk.cancel", busy)
        result = await relay.ask("POST", f"{PATH}/{id_}/cancel")
        assert (result.status_code, result.headers["retry-after"]) == (503, "1")

    async def test_scope(self, relay: Relay) -> None:
        id_ = await send(relay, **SCHEDULED)
        assert (await relay.ask("POST", f"{PATH}/{id_}/cancel", key="read")).status_code == 403
        assert await status(relay, id_) == "scheduled"


class TestResend:
    async def test_the_same_goes_out_once_more(self, relay: Relay) -> None:
        id_ = await send(relay, attachments=[FILE], bcc=["c@two.test"], from_="Büro <b@shop.test>")
        await relay.wait(10)
        result = await relay.ask("POST", f"{PATH}/{id_}/resend")
        assert (result.status_code, result.json["status"]) == (202, "queued")
        assert result.json["created_at"] == "2027-01-15T08:00:10Z"
        again = result.json["id"]
        assert again != id_
        first, second = [
            BytesParser(policy=policy.default).parsebytes(await relay.content(each)) for each in (id_, again)
        ]
        assert [second[name] for name in ("From", "To", "Subject")] == [
            first[name] for name in ("From", "To", "Subject")
        ]
        assert second["Message-ID"] == f"<{again}@mail.shop.test>"
        assert first["Message-ID"] == f"<{id_}@mail.shop.test>"
        assert second["Date"].datetime.timestamp() - first["Date"].datetime.timestamp() == 10
        assert [again in each for each in second.get_all("Received")] == [True, False]
        assert second.get_payload()[1].as_bytes() == first.get_payload()[1].as_bytes()
        shown, before = await relay.get(f"{PATH}/{again}"), await relay.get(f"{PATH}/{id_}")
        same = ("from_", "to", "subject", "text", "html", "attachments", "recipients")
        assert {name: shown[name] for name in same} == {name: before[name] for name in same}

    async def test_of_what_has_been_dealt_with_the_content_is_gone(self, relay: Relay) -> None:
        id_ = await send(relay)
        await relay.attempt(id_, OK)
        result = await relay.ask("POST", f"{PATH}/{id_}/resend")
        assert (result.status_code, result.json) == (410, {"detail": "The content of this message is gone."})

    async def test_what_is_kept_is_sent_again_after_its_end(self, relay: Relay) -> None:
        await tenants.change(relay.spool, "shop", keep_content=3600)
        id_ = await send(relay)
        await relay.attempt(id_, OK)
        assert (await relay.get(f"{PATH}/{id_}"))["text"] == "Hi\nthere"
        result = await relay.ask("POST", f"{PATH}/{id_}/resend")
        assert (result.status_code, await status(relay, result.json["id"])) == (202, "queued")
        assert (await relay.ask("POST", f"{PATH}/{id_}/cancel")).status_code == 409

    async def test_a_domain_that_is_anothers_by_now(self, relay: Relay) -> None:
        id_ = await send(relay)
        await domains.change(relay.spool, "shop.test", lambda each: msgspec.structs.replace(each, tenant="other"))
        await relay.wait(1)  # for which a process knows it as it was
        assert (await relay.ask("POST", f"{PATH}/{id_}/resend")).status_code == 403

    async def test_asked_for_twice_it_is_answered_the_same_and_sent_once(self, relay: Relay) -> None:
        id_ = await send(relay)
        once = {"Idempotency-Key": "once"}
        first = await relay.ask("POST", f"{PATH}/{id_}/resend", headers=once)
        await relay.wait(10)
        await relay.attempt(id_, OK)
        await relay.attempt(first.json["id"], OK)
        again = await relay.ask("POST", f"{PATH}/{id_}/resend", headers=once)
        assert (again.status_code, again.json, again.headers["idempotent-replayed"]) == (202, first.json, "true")
        assert len((await relay.get(PATH))["items"]) == 2
        other = await relay.ask("POST", f"{PATH}/{id_}/resend", headers={"Idempotency-Key": "other"})
        assert other.status_code == 410


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("POST", "/cancel"), ("POST", "/resend")])
async def test_of_others_and_of_nobody_nothing_is_known(relay: Relay, method: str, path: str) -> None:
    foreign = await send(relay, "other", **SCHEDULED)
    for id_ in (foreign, new_message_id(), f"{foreign}.1", "x", "%00"):
        result = await relay.ask(method, f"{PATH}/{id_}{path}")
        assert (result.status_code, result.json) == (404, {"detail": "Not found"})
    assert [entry.message async for entry, _ in relay.spool.walk_entries()] == [foreign]


@pytest.mark.parametrize("path", ["", f"/{new_message_id()}"])
async def test_reading_needs_its_scope_and_the_views(relay: Relay, path: str) -> None:
    assert (await relay.ask("GET", PATH + path, key="send")).status_code == 403
    assert (await relay.ask("GET", PATH + path, key="")).status_code == 401
    relay.views.error = ViewsUnavailable("the views are being built")
    result = await relay.ask("GET", PATH + path)
    assert (result.status_code, result.json, result.headers["retry-after"]) == (
        *(503, {"detail": "the views are being built"}, "5"),
    )
