"""Batches: paused, cancelled, let go; at whatever moment it is said."""

from typing import Any

import pytest

from mta.mail.event import EventType
from mta.queue import batches
from mta.queue.batches import Word
from mta.queue.views import ViewsUnavailable

HOUR = 3600


async def made(site: Any) -> str:
    result = await site.ask("POST", "/mail/batch")
    assert result.status_code == 201
    return str(result.json["batch_id"])


async def said(site: Any, batch: str, status: str) -> None:
    result = await site.ask("POST", "/user/scheduled_sends", {"batch_id": batch, "status": status})
    assert (result.status_code, result.json) == (201, {"batch_id": batch, "status": status})


def later(site: Any) -> int:
    return int(site.clock.now()) + HOUR


@pytest.mark.parametrize("mount", ["", "/api/v1", "/api/v1/v3"])
async def test_an_id_is_known_again(site: Any, mount: str) -> None:
    batch = await made(site)
    result = await site.ask("GET", f"{mount}/mail/batch/{batch}")
    assert (result.status_code, result.json) == (200, {"batch_id": batch})
    forged = batch[:-4] + ("B" if batch[-4] == "A" else "A") + batch[-3:]
    for wrong in (forged, batches.new_batch("other", site.clock.now()), "x", "a" * 22):
        result = await site.ask("GET", f"/mail/batch/{wrong}")
        assert (result.status_code, result.json["errors"][0]["message"]) == (400, "invalid batch id")
    await site.clock.advance(10 * 86_400 + 10)
    assert (await site.ask("GET", f"/mail/batch/{batch}")).status_code == 400


async def test_a_paused_batch_is_held_when_its_time_comes_and_let_go_afterwards(site: Any) -> None:
    batch = await made(site)
    before = await site.send(batch_id=batch, send_at=later(site))
    await said(site, batch, "pause")
    after = await site.send(batch_id=batch)
    other = await site.send()
    assert await site.attempted() == [other]
    await site.clock.advance(HOUR)
    assert await site.attempted() == []
    for each in (before, after):
        ((entry, _),) = await site.spool.entries(each)
        assert entry.held
        assert entry.hold.by_tenant
    assert (await site.ask("DELETE", f"/user/scheduled_sends/{batch}")).status_code == 204
    assert sorted(await site.attempted()) == sorted([before, after])
    assert (await site.ask("GET", f"/user/scheduled_sends/{batch}")).json == []
    assert await site.spool.list_records("batch\0shop") == []


async def test_a_cancelled_batch_ends_when_its_time_comes(site: Any) -> None:
    batch = await made(site)
    message = await site.send(batch_id=batch, send_at=later(site))
    await said(site, batch, "cancel")
    assert [each.type for each in await site.events(message)] == [EventType.ACCEPTED]
    await site.clock.advance(HOUR)
    assert await site.attempted() == []
    (_, end) = await site.events(message)
    assert (end.type, end.reason) == (EventType.CANCELLED, "the batch is cancelled")
    assert await site.spool.message(message) is None


async def test_a_cancellation_can_be_taken_back_in_time(site: Any) -> None:
    batch = await made(site)
    message = await site.send(batch_id=batch, send_at=later(site))
    await said(site, batch, "cancel")
    assert (await site.ask("DELETE", f"/user/scheduled_sends/{batch}")).status_code == 204
    await site.clock.advance(HOUR)
    assert await site.attempted() == [message]


async def test_what_was_paused_can_be_cancelled(site: Any) -> None:
    batch = await made(site)
    message = await site.send(batch_id=batch)
    await said(site, batch, "pause")
    assert await site.attempted() == []
    path = f"/user/scheduled_sends/{batch}"
    assert (await site.ask("PATCH", path, {"status": "cancel"})).status_code == 204
    assert (await site.ask("GET", path)).json == [{"batch_id": batch, "status": "cancel"}]
    assert await site.attempted() == []
    assert (await site.events(message))[-1].type is EventType.CANCELLED


async def test_what_somebody_else_holds_is_not_let_go(site: Any) -> None:
    batch = await made(site)
    message = await site.send(batch_id=batch)
    await site.ask("POST", f"/admin/v1/queue/{message}/hold", {})
    await said(site, batch, "pause")
    await site.ask("DELETE", f"/user/scheduled_sends/{batch}")
    ((entry, _),) = await site.spool.entries(message)
    assert entry.held


async def test_letting_go_that_was_cut_off_is_done_when_it_is_asked_again(site: Any) -> None:
    batch = await made(site)
    message = await site.send(batch_id=batch)
    await said(site, batch, "pause")
    assert await site.attempted() == []
    site.views.error = ViewsUnavailable()
    path = f"/user/scheduled_sends/{batch}"
    assert (await site.ask("DELETE", path)).status_code == 503
    site.views.error = None
    assert (await site.ask("GET", "/user/scheduled_sends")).json == []
    assert (await site.ask("DELETE", path)).status_code == 204
    assert await site.attempted() == [message]


async def test_views_that_are_behind_leave_nothing_held(site: Any) -> None:
    batch = await made(site)
    message = await site.send(batch_id=batch)
    await said(site, batch, "pause")
    assert await site.attempted() == []
    shown, site.views.shown, site.views.behind = site.views.shown, [], True
    path = f"/user/scheduled_sends/{batch}"
    assert (await site.ask("DELETE", path)).status_code == 503
    site.views.shown, site.views.behind = shown, False
    assert (await site.ask("DELETE", path)).status_code == 204
    assert await site.attempted() == [message]


@pytest.mark.parametrize(("words", "ends"), [(["cancel"], True), (["cancel", "pause"], False), ([], False)])
async def test_what_was_held_is_let_go_after_the_views_had_failed(site: Any, words: list[str], ends: bool) -> None:
    batch = await made(site)
    message = await site.send(batch_id=batch)
    await said(site, batch, "pause")
    assert await site.attempted() == []
    site.views.error = ViewsUnavailable()
    path = f"/user/scheduled_sends/{batch}"
    assert (await site.ask("PATCH", path, {"status": "cancel"})).status_code == 503
    site.views.error = None
    for word in words:
        assert (await site.ask("PATCH", path, {"status": word})).status_code == 204
    assert await site.attempted() == []
    if ends:
        assert (await site.events(message))[-1].type is EventType.CANCELLED
    assert (await site.ask("DELETE", path)).status_code == 204
    assert await site.attempted() == ([] if ends else [message])


async def test_a_pause_that_is_said_while_a_batch_is_let_go_counts(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = await made(site)
    await said(site, batch, "pause")
    caught_up = site.views.caught_up

    async def paused_again() -> None:
        await caught_up()
        await said(site, batch, "pause")

    monkeypatch.setattr(site.views, "caught_up", paused_again)
    assert (await site.ask("DELETE", f"/user/scheduled_sends/{batch}")).status_code == 204
    assert (await site.ask("GET", f"/user/scheduled_sends/{batch}")).json == [{"batch_id": batch, "status": "pause"}]


async def test_a_batch_let_go_while_a_message_of_it_is_being_held_keeps_nothing(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = await made(site)
    message = await site.send(batch_id=batch)
    await said(site, batch, "pause")
    known, first = batches.wish_of, [True]

    async def wish_of(spool: Any, tenant: str, name: str) -> Any:
        wish = await known(spool, tenant, name)
        if first.pop() if first else False:  # it is let go between the look and the hold
            await spool.delete_record(f"batch\0{tenant}", name)
        return wish

    monkeypatch.setattr(batches, "wish_of", wish_of)
    assert await site.attempted() == [message]
    assert [each.type for each in await site.events(message)] == ["accepted", "changed", "changed"]


async def test_lists_and_refusals(site: Any) -> None:
    first, second = await made(site), await made(site)
    await said(site, second, "cancel")
    await said(site, first, "pause")
    listed = (await site.ask("GET", "/user/scheduled_sends", key="reader")).json
    assert sorted(each["status"] for each in listed) == ["cancel", "pause"]
    again = await site.ask("POST", "/user/scheduled_sends", {"batch_id": first, "status": "cancel"})
    assert (again.status_code, again.json["errors"][0]["field"]) == (400, "batch_id")
    for body, fields in (
        ({}, ["status", "batch_id"]),
        ({"batch_id": 1, "status": "stop"}, ["batch_id", "status"]),
        ({"batch_id": "x", "status": "pause"}, ["batch_id"]),
        ([], [None]),
    ):
        refused = await site.ask("POST", "/user/scheduled_sends", body)
        assert refused.status_code == 400
        assert [each["field"] for each in refused.json["errors"]] == fields
    unknown = f"/user/scheduled_sends/{await made(site)}"
    assert (await site.ask("DELETE", unknown)).status_code == 404
    assert (await site.ask("PATCH", unknown, {"status": "pause"})).status_code == 404
    assert (await site.ask("PATCH", f"/user/scheduled_sends/{first}", {"status": "x"})).status_code == 400
    assert (await site.ask("DELETE", f"/user/scheduled_sends/{first}", key="other")).status_code == 404
    refused = await site.ask("POST", "/user/scheduled_sends", {"batch_id": first, "status": "pause"}, key="reader")
    assert refused.status_code == 403


async def test_so_many_batches_are_spoken_of_and_the_old_ones_forgotten(site: Any) -> None:
    for _ in range(batches.MOST):
        await batches.say(site.spool, "shop", batches.new_batch("shop", site.clock.now()), Word.PAUSE, site.clock.now())
    batch = await made(site)
    refused = await site.ask("POST", "/user/scheduled_sends", {"batch_id": batch, "status": "pause"})
    assert (refused.status_code, refused.json["errors"][0]["field"]) == (400, "batch_id")
    await site.clock.advance(18 * 86_400)
    await batches.say(site.spool, "shop", batch, Word.PAUSE, site.clock.now())
    assert [each.id for each in await batches.list_all(site.spool, "shop")] == [batch]
