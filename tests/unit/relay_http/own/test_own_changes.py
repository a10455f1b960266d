"""Cancel, reschedule and resend."""

from email import message_from_bytes
from typing import Any

import pytest

from mta.mail.event import EventType
from mta.mail.ids import new_message_id
from mta.mail.reply import Reply
from mta.mail.result import Outcome, Result, Verdict
from mta.queue.views import Status
from mta.spool.interface import Due
from tests.unit.relay_http.views import message_shown

OK = Outcome(results=(Result(Verdict.DELIVERED, Reply(250, "2.0.0", "ok")),), started_at=0.0, ended_at=0.0, site="mx")


async def claimed(post: Any, id_: str) -> Any:
    entry, message = await post.spool.entry(f"{id_}.1"), await post.spool.message(id_)
    return await post.queue.claim(Due(entry, message))


async def test_cancelled_for_all_who_wait(post: Any) -> None:
    id_ = await post.send(to=["ann@example.test", "bob@elsewhere.test"])
    result = await post.ask("POST", f"/{id_}/cancel", key="send")
    assert result.status_code == 200
    told = {each["recipient"]: each["result"] for each in result.json["results"]}
    assert told == {"ann@example.test": "cancelled", "bob@elsewhere.test": "cancelled"}
    assert (await post.ask("POST", f"/{id_}/cancel", key="send")).json == result.json


async def test_cancel_tells_what_came_before_it(post: Any) -> None:
    id_ = await post.send()
    job = await claimed(post, id_)
    under_way = await post.ask("POST", f"/{id_}/cancel")
    assert under_way.json["results"] == [{"recipient": "ann@example.test", "result": "in_flight"}]
    await post.queue.settle(job, OK)
    delivered = await post.ask("POST", f"/{id_}/cancel")
    assert delivered.json["results"] == [{"recipient": "ann@example.test", "result": "delivered"}]


@pytest.mark.parametrize("path", ["cancel", "reschedule", "resend"])
async def test_others_mail_is_nobodys(post: Any, path: str) -> None:
    id_ = await post.send()
    post.views.shown = [message_shown(id_, "ann@example.test")]
    body = {"send_at": post.clock.now() + 60} if path == "reschedule" else {}
    for known in (id_, new_message_id(), "x", f"{id_}.1"):
        assert await post.refused("POST", f"/{known}/{path}", body, key="other") == (404, [])
    assert (await post.refused("POST", f"/{id_}/{path}", body, key="read"))[0] == 403
    assert (await post.refused("POST", f"/{id_}/{path}", body, key=""))[0] == 401
    assert (await post.spool.entry(f"{id_}.1")).waiting


async def test_another_time(post: Any) -> None:
    now = post.clock.now()
    id_ = await post.send(to=["ann@example.test", "bob@elsewhere.test"], send_at=now + 60)
    for later in (3600.0, 30.0):
        result = await post.ask("POST", f"/{id_}/reschedule", {"send_at": now + later}, key="send")
        assert result.status_code == 200, result.text
        assert {each["recipient"]: each["result"] for each in result.json["results"]} == {
            "ann@example.test": "rescheduled",
            "bob@elsewhere.test": "rescheduled",
        }
        for entry, _ in await post.spool.entries(id_):
            assert (entry.due_at, entry.expires_at, entry.timer_at) == (
                *(now + later, now + later + 72 * 3600, now + later + 72 * 3600),
            )
    told = [event for _, event in await post.spool.events_after(0, 100) if event.type is EventType.CHANGED]
    assert [event.release_at for event in told] == [now + 3600, now + 3600, now + 30, now + 30]


async def test_a_time_that_has_passed_is_now(post: Any) -> None:
    now = post.clock.now()
    id_ = await post.send(send_at=now + 60)
    assert (await post.ask("POST", f"/{id_}/reschedule", {"send_at": 1})).status_code == 200
    assert (await post.spool.entry(f"{id_}.1")).due_at == now
    assert await claimed(post, id_) is not None


async def test_a_deadline_stays(post: Any) -> None:
    now = post.clock.now()
    id_ = await post.send(send_at=now + 60, deliver_by=now + 600)
    assert await post.refused("POST", f"/{id_}/reschedule", {"send_at": now + 600}) == (400, ["send_at"])
    assert (await post.ask("POST", f"/{id_}/reschedule", {"send_at": now + 599})).status_code == 200
    entry = await post.spool.entry(f"{id_}.1")
    assert (entry.due_at, entry.expires_at) == (now + 599, now + 600)


async def test_whose_time_has_come(post: Any) -> None:
    now = post.clock.now()
    id_ = await post.send()
    body = {"send_at": now + 60}
    assert await post.refused("POST", f"/{id_}/reschedule", body) == (409, [])
    job = await claimed(post, id_)
    under_way = await post.ask("POST", f"/{id_}/reschedule", body)
    assert under_way.json["results"] == [{"recipient": "ann@example.test", "result": "in_flight"}]
    await post.queue.settle(job, OK)
    assert await post.refused("POST", f"/{id_}/reschedule", body) == (404, [])
    post.views.shown = [message_shown(id_, "ann@example.test", status=Status.DELIVERED)]
    assert await post.refused("POST", f"/{id_}/reschedule", body) == (409, [])


@pytest.mark.parametrize("body", [{}, {"send_at": None}, {"send_at": "soon"}, {"send_at": 1e10}])
async def test_what_is_no_time(post: Any, body: object) -> None:
    id_ = await post.send(send_at=post.clock.now() + 60)
    assert await post.refused("POST", f"/{id_}/reschedule", body) == (400, ["send_at"])


async def test_the_same_once_more(post: Any) -> None:
    retry = {"intervals": [30, 300], "lifetime": 3600}
    id_ = await post.send(to=["ann@example.test", "bob@example.test"], tags=["order"], retry=retry)
    post.views.shown = [message_shown(id_, "ann@example.test", "bob@example.test")]
    result = await post.ask("POST", f"/{id_}/resend", {}, key="send")
    assert result.status_code == 202, result.text
    again = result.json
    assert again["id"] != id_
    assert again["receipt"]["position"] > 0
    message = await post.spool.message(again["id"])
    assert (message.categories, message.header_message_id) == (("order",), again["message_id"])
    assert (message.retry_intervals, message.expires_at - message.release_at) == ((30, 300), 3600)
    content = message_from_bytes(await post.spool.content(message))
    assert (content["Message-ID"], content["Subject"]) == (again["message_id"], "Hi")
    recipients = [each.recipient.address for each in (await post.spool.entry(f"{again['id']}.1")).recipients]
    assert recipients == ["ann@example.test", "bob@example.test"]


async def test_once_more_to_others(post: Any) -> None:
    id_ = await post.send()
    post.views.shown = [message_shown(id_, "ann@example.test")]
    again = (await post.ask("POST", f"/{id_}/resend", {"to": ["Carl <carl@example.test>"]})).json
    (state,) = (await post.spool.entry(f"{again['id']}.1")).recipients
    assert state.recipient.address == "carl@example.test"
    asked = {"to": ["mallory@example.test", "ann@example.test"]}
    assert await post.refused("POST", f"/{id_}/resend", asked, key="send") == (403, [])  # it would see what it may not
    assert (await post.ask("POST", f"/{id_}/resend", {"to": ["ann@example.test"]}, key="send")).status_code == 202
    assert await post.refused("POST", f"/{id_}/resend", {"to": []}) == (400, ["to"])
    assert await post.refused("POST", f"/{id_}/resend", {"to": ["x"], "n": 1}) == (400, ["to.0", "n"])


async def test_what_is_gone_cannot_be_sent_again(post: Any) -> None:
    id_ = await post.send()
    post.views.shown = [message_shown(id_, "ann@example.test")]
    await post.ask("POST", f"/{id_}/cancel")
    assert await post.refused("POST", f"/{id_}/resend", {}) == (410, [])
