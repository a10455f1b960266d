"""What has been sent over Sendarix: lists, details with their timeline, and cancelling, on a real spool."""

from typing import Any

import pytest

from mta.mail.ids import new_message_id
from mta.queue.views import Status, ViewsUnavailable
from relay_http.sendarix.shown import STATUSES, detailed
from tests.unit.relay_http.following import LATER, NEVER, OK, Relay
from tests.unit.relay_http.views import message_shown

PATH = "/v1/messages"
SCHEDULED = {"scheduled_time": "2027-06-01T15:00:00Z"}
MAIL = {"recipient": "a@example.test", "subject": "Grüße", "text": "Hi", "from": "Shop <b@shop.test>"}
LISTED = {
    *("message_id", "status", "recipient", "from", "subject", "created_at", "updated_at", "scheduled_time", "metadata"),
}
Json = dict[str, Any]


async def send(relay: Relay, key: str = "shop", **change: object) -> str:
    mail = MAIL if key != "other" else MAIL | {"from": "b@other.test"}
    result = await relay.ask("POST", PATH, mail | change, key)
    assert result.status_code == 200, result.text
    return str(result.json["message_id"])


def own(message_id: str) -> str:
    return message_id.removeprefix("msg_")


async def test_a_message_has_its_outcome_and_its_timeline(relay: Relay) -> None:
    id_ = await send(relay, metadata={"order": "5"}, bcc=["c@two.test"])
    await relay.attempt(own(id_), LATER)
    await relay.wait(60)
    await relay.attempt(own(id_), OK)
    await relay.attempt(own(id_), NEVER, 2)
    shown = await relay.get(f"{PATH}/{id_}")
    assert shown.keys() == LISTED | {"outcomes", "timeline"}
    assert {name: shown[name] for name in sorted(LISTED)} == {
        "message_id": id_,
        "status": "bounced",
        "recipient": "a@example.test",
        "from": "Shop <b@shop.test>",
        "subject": "Grüße",
        "created_at": "2027-01-15T08:00:00Z",
        "updated_at": "2027-01-15T08:01:00Z",
        "scheduled_time": None,
        "metadata": {"order": "5"},
    }
    delivered, bounced = shown["outcomes"]
    assert delivered == {
        "recipient": "a@example.test",
        "status": "delivered",
        "timestamp": "2027-01-15T08:01:00Z",
        "attempts": 2,
        "mail_server": "mx.test[192.0.2.1]:25",
        "response": "250 2.0.0 ok",
        "retry_at": None,
    }
    assert (bounced["recipient"], bounced["status"]) == ("c@two.test", "bounced")
    timeline = [(each["event"], each.get("recipient"), each.get("response")) for each in shown["timeline"]]
    assert timeline == [
        ("queued", None, None),
        ("accepted", None, None),
        ("deferred", "a@example.test", "451 4.7.1 later"),
        ("delivered", "a@example.test", "250 2.0.0 ok"),
        ("bounced", "c@two.test", "550 5.1.1 no such user"),
    ]
    assert [each["timestamp"] for each in shown["timeline"]] == ["2027-01-15T08:00:00Z"] * 3 + [
        "2027-01-15T08:01:00Z"
    ] * 2


async def test_a_scheduled_message(relay: Relay) -> None:
    id_ = await send(relay, **SCHEDULED)
    shown = await relay.get(f"{PATH}/{id_}")
    assert (shown["status"], shown["scheduled_time"]) == ("scheduled", "2027-06-01T15:00:00Z")
    assert [each["event"] for each in shown["timeline"]] == ["scheduled", "accepted"]
    (outcome,) = shown["outcomes"]
    assert (outcome["status"], outcome["attempts"], outcome["mail_server"]) == ("scheduled", 0, None)


def test_what_has_expired_has_bounced_and_every_status_has_a_word() -> None:
    shown = detailed(message_shown("x", "a@b.test", status=Status.EXPIRED), [])
    assert (shown["message_id"], shown["status"]) == ("msg_x", "bounced")
    assert {each for statuses in STATUSES.values() for each in statuses} == set(Status)


class TestLists:
    async def test_pages(self, relay: Relay) -> None:
        ids = [await send(relay) for _ in range(3)]
        first = await relay.get(f"{PATH}?limit=2")
        assert ([each["message_id"] for each in first["data"]], first["has_more"]) == (ids[:0:-1], True)
        assert first["data"][0].keys() == LISTED
        second = await relay.get(f"{PATH}?limit=2&cursor={first['next_cursor']}")
        assert [each["message_id"] for each in second["data"]] == [ids[0]]
        assert (second["has_more"], second["next_cursor"]) == (False, None)

    async def test_by_status(self, relay: Relay) -> None:
        by_status = {
            "queued": await send(relay),
            "scheduled": await send(relay, **SCHEDULED),
            "deferred": await send(relay),
            "delivered": await send(relay),
            "bounced": await send(relay),
            "dropped": await send(relay),
            "cancelled": await send(relay, **SCHEDULED),
        }
        await relay.attempt(own(by_status["deferred"]), LATER)
        await relay.attempt(own(by_status["delivered"]), OK)
        await relay.attempt(own(by_status["bounced"]), NEVER)
        await relay.drop(own(by_status["dropped"]))
        await relay.ask("DELETE", f"{PATH}/{by_status['cancelled']}")
        for word, id_ in by_status.items():
            found = (await relay.get(f"{PATH}?status={word}"))["data"]
            assert [(each["message_id"], each["status"]) for each in found] == [(id_, word)]

    async def test_by_recipient(self, relay: Relay) -> None:
        await send(relay)
        id_ = await send(relay, recipient="Jörg <j@bücher.test>")
        found = (await relay.get(f"{PATH}?recipient=j@b%C3%BCcher.test"))["data"]
        assert [each["message_id"] for each in found] == [id_]

    @pytest.mark.parametrize(
        ("query", "found"),
        [
            ("date_from=2027-01-15", [1, 0]),
            ("date_from=2027-01-16", [1]),
            ("date_to=2027-01-15", [0]),
            ("date_from=2027-01-15T08:00:00Z&date_to=2027-01-16T08:00:00Z", [0]),
            ("date_from=2027-01-15T08:00:01Z", [1]),
            ("date_to=2027-01-14", []),
        ],
    )
    async def test_by_date(self, relay: Relay, query: str, found: list[int]) -> None:
        first = await send(relay)
        await relay.wait(86_400)
        ids = [first, await send(relay)]
        shown = (await relay.get(f"{PATH}?{query}"))["data"]
        assert [each["message_id"] for each in shown] == [ids[each] for each in found]

    async def test_of_this_api_and_of_this_tenant(self, relay: Relay) -> None:
        id_, foreign = await send(relay), await send(relay, "other")
        email = {"to": ["a@example.test"], "subject": "x", "text": "x", "from_": "b@shop.test"}
        assert (await relay.ask("POST", "/api/v1/emails", email)).status_code == 202
        assert [each["message_id"] for each in (await relay.get(PATH))["data"]] == [id_]
        assert [each["message_id"] for each in (await relay.get(PATH, "other"))["data"]] == [foreign]

    @pytest.mark.parametrize(
        ("query", "field", "said"),
        [
            ("status=open", "status", "This is none of"),
            ("recipient=nobody", "recipient", "This is not a valid email address."),
            ("date_from=yesterday", "date_from", "This is neither a date"),
            ("date_to=2027-13-01", "date_to", "This is neither a date"),
            ("limit=0", "limit", "This is not a number from 1 to 100."),
            ("limit=1e9", "limit", "This is not a number from 1 to 100."),
            ("cursor=*", "cursor", "No page was given out with this cursor."),
        ],
    )
    async def test_wrong_parameters(self, relay: Relay, query: str, field: str, said: str) -> None:
        result = await relay.ask("GET", f"{PATH}?{query}")
        assert (result.status_code, result.json["error"]) == (400, "bad_request")
        (problem,) = result.json["errors"]
        assert problem["field"] == field
        assert said in problem["message"]


class TestCancel:
    async def test_a_scheduled_one_is_cancelled_and_stays_so(self, relay: Relay) -> None:
        id_ = await send(relay, **SCHEDULED)
        for _ in range(2):
            result = await relay.ask("DELETE", f"{PATH}/{id_}")
            assert (result.status_code, result.json["message_id"], result.json["status"]) == (200, id_, "cancelled")
        assert [each async for each in relay.spool.walk_entries()] == []
        timeline = (await relay.get(f"{PATH}/{id_}"))["timeline"]
        assert [each["event"] for each in timeline] == ["scheduled", "accepted", "cancelled"]

    async def test_what_was_sent_is_not_found(self, relay: Relay) -> None:
        queued, delivered = await send(relay), await send(relay)
        await relay.attempt(own(delivered), OK)
        for id_ in (queued, delivered):
            result = await relay.ask("DELETE", f"{PATH}/{id_}")
            assert (result.status_code, result.json["error"]) == (404, "not_found")
            assert "it was sent" in result.json["message"]
        assert (await relay.get(f"{PATH}/{queued}"))["status"] == "queued"

    async def test_one_that_is_in_flight(self, relay: Relay) -> None:
        """A clock that was set back shows what is released as scheduled."""
        id_ = await send(relay, **SCHEDULED)
        relay.clock.jump(200 * 86_400)
        await relay.claim(own(id_))
        relay.clock.jump(-200 * 86_400)
        result = await relay.ask("DELETE", f"{PATH}/{id_}")
        assert (result.status_code, result.json["error"]) == (409, "conflict")

    async def test_one_that_changes_time_and_again(self, relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
        id_ = await send(relay, **SCHEDULED)

        async def busy(*_: object) -> dict[tuple[str, str], str]:
            return {("1", "a@example.test"): "busy"}

        monkeypatch.setattr("mta.queue.desk.Desk.cancel", busy)
        result = await relay.ask("DELETE", f"{PATH}/{id_}")
        assert (result.status_code, result.headers["retry-after"]) == (503, "1")

    async def test_scope(self, relay: Relay) -> None:
        id_ = await send(relay, **SCHEDULED)
        assert (await relay.ask("DELETE", f"{PATH}/{id_}", key="read")).status_code == 403
        assert (await relay.get(f"{PATH}/{id_}"))["status"] == "scheduled"


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_of_others_and_of_nobody_nothing_is_known(relay: Relay, method: str) -> None:
    foreign = await send(relay, "other", **SCHEDULED)
    for id_ in (foreign, f"msg_{new_message_id()}", "msg_x", "x", "%00"):
        result = await relay.ask(method, f"{PATH}/{id_}")
        assert (result.status_code, result.json) == (
            *(404, {"error": "not_found", "message": "There is no message with this id."}),
        )
    assert [entry.message async for entry, _ in relay.spool.walk_entries()] == [own(foreign)]


@pytest.mark.parametrize("path", ["", f"/msg_{new_message_id()}"])
async def test_reading_needs_its_scope_and_the_views(relay: Relay, path: str) -> None:
    assert (await relay.ask("GET", PATH + path, key="send")).status_code == 403
    assert (await relay.ask("GET", PATH + path, key="")).status_code == 401
    relay.views.error = ViewsUnavailable("the views are being built")
    result = await relay.ask("GET", PATH + path)
    assert (result.status_code, result.json["error"], result.headers["retry-after"]) == (
        503,
        "service_unavailable",
        "5",
    )
