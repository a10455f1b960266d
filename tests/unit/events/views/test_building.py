"""Building: what messages look like, what a crash leaves, and when the views are begun anew."""

import asyncio
import os
import sqlite3
import threading
from typing import Any

import pytest

from mta.events.segments import Writer
from mta.events.views import schema
from mta.events.views.builder import Builder
from mta.events.views.following import GROUP, progress_in
from mta.mail.event import EventType
from mta.mail.summary import NOTHING, FileShown, Summary
from mta.queue.views import EventSearch, MessageShown, Search, Status, ViewsUnavailable
from tests.unit.events.views.conftest import NOW, Installation, Log, happen


async def shown(relay: Installation, message_id: str, tenant: str | None = "acme") -> MessageShown:
    await relay.follow()
    found = await relay.views.message(tenant, message_id)
    assert found is not None
    return found


async def dump(relay: Installation) -> list[Any]:
    """All that can be read: of everybody, messages with everything, and events."""
    page = await relay.views.messages(None, Search(), limit=10_000)
    events = await relay.views.events(None, EventSearch(), limit=10_000)
    assert page.next == ""
    messages = [await relay.views.message(None, each.id) for each in page.messages]
    return [messages, events.events, [await relay.views.timeline(None, each.id) for each in page.messages]]


async def test_a_message_is_shown_as_it_was_accepted(relay: Installation) -> None:
    summary = Summary(
        subject="Hällo", from_="News <n@acme.test>", to="b@example.test", dialect="sendgrid", key="k1",
        files=(FileShown("a.pdf", "application/pdf", 12),),
    )  # fmt: skip
    accepted = relay.log.accept(
        summary=summary, request="r1", batch="b1", client="192.0.2.7", message_class="bulk", message_id="<m@acme.test>",
        categories=("one", "two"), custom_args={"user": "42"}, deliver_by=NOW + 60, release_at=NOW + 30,
    )  # fmt: skip
    found = await shown(relay, accepted.message)
    assert (found.id, found.tenant, found.sender, found.size) == (accepted.message, "acme", "news@acme.test", 2000)
    assert (found.request, found.batch, found.client, found.origin) == ("r1", "b1", "192.0.2.7", "http")
    assert (found.message_class, found.message_id) == ("bulk", "<m@acme.test>")
    assert (found.categories, found.custom_args) == (("one", "two"), {"user": "42"})
    assert (found.at, found.last_at, found.release_at, found.deliver_by) == (NOW, NOW, NOW + 30, NOW + 60)
    assert found.summary == summary


async def test_a_message_by_smtp_shows_its_subject_decoded(relay: Installation) -> None:
    raw = Summary(subject="=?utf-8?b?SMOkbGxv?= =?utf-8?q?_W=C3=B6rld?=", from_="=?utf-8?q?Ann=C3=A9?= <a@acme.test>")
    accepted = relay.log.accept(summary=raw)
    found = await shown(relay, accepted.message)
    assert (found.summary.subject, found.summary.from_) == ("Hällo Wörld", "Anné <a@acme.test>")
    page = await relay.views.messages("acme", Search(words="wörld hällo", sender="A@acme.test"), limit=2)
    assert [each.id for each in page.messages] == [accepted.message]


async def test_of_http_a_subject_is_what_was_given(relay: Installation) -> None:
    accepted = relay.log.accept(summary=Summary(subject="=?utf-8?q?no?=", dialect="emails"))
    assert (await shown(relay, accepted.message)).summary.subject == "=?utf-8?q?no?="


async def test_a_report_has_no_summary(relay: Installation) -> None:
    assert (await shown(relay, relay.log.accept(summary=None, sender="").message)).summary == NOTHING


@pytest.mark.parametrize(
    ("told", "status"),
    [
        ((), Status.QUEUED),
        ((EventType.DEFERRED,), Status.QUEUED),
        ((EventType.DEFERRED, EventType.DEFERRED), Status.DEFERRED),
        ((EventType.DELIVERED, EventType.DEFERRED), Status.DEFERRED),
        ((EventType.DELIVERED, EventType.DELIVERED), Status.DELIVERED),
        ((EventType.DELIVERED, EventType.BOUNCED), Status.BOUNCED),
        ((EventType.EXPIRED, EventType.BOUNCED), Status.BOUNCED),
        ((EventType.EXPIRED, EventType.DROPPED), Status.EXPIRED),
        ((EventType.CANCELLED, EventType.DELIVERED), Status.CANCELLED),
        ((EventType.CHANGED, EventType.DSN_SENT), Status.QUEUED),
    ],
)
async def test_how_a_message_stands(relay: Installation, told: tuple[EventType, ...], status: Status) -> None:
    accepted = relay.log.accept("a@x.test", "b@x.test")
    for kind, recipient in zip(told, accepted.recipients, strict=False):
        relay.log.tell(accepted, kind, recipient)
    assert (await shown(relay, accepted.message)).status is status
    page = await relay.views.messages("acme", Search(statuses=(status,)), limit=5)
    assert [each.id for each in page.messages] == [accepted.message]
    others = tuple(each for each in Status if each is not status)
    assert (await relay.views.messages("acme", Search(statuses=others), limit=5)).messages == ()


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_recipient_is_shown_by_its_last_outcome(relay: Installation, at_once: bool) -> None:
    accepted = relay.log.accept("a@x.test", "b@x.test")
    for kind, fields in (
        (EventType.DEFERRED, {"retry_at": NOW + 60}),
        (EventType.DEFERRED, {"retry_at": NOW + 90}),
        (EventType.CHANGED, {"reason": "held"}),
    ):
        if not at_once:
            await relay.follow()
        relay.log.tell(accepted, kind, "b@x.test", **fields)
    found = await shown(relay, accepted.message)
    first, second = found.recipients
    assert (first.address, first.status, first.at, first.attempts, first.reply) == (
        "a@x.test", Status.QUEUED, NOW, 0, "",
    )  # fmt: skip
    assert (second.status, second.at, second.attempts) == (Status.DEFERRED, NOW + 2, 2)
    assert (second.reply, second.retry_at) == ("said in attempt 2", NOW + 90)
    assert second.relay == "mx.example.test[192.0.2.25]:25"
    assert found.last_at == NOW + 3


async def test_one_that_stands_there_twice_is_two(relay: Installation) -> None:
    accepted = relay.log.accept("a@x.test", "a@x.test")
    relay.log.tell(accepted, EventType.DELIVERED)
    assert (await shown(relay, accepted.message)).status is Status.QUEUED
    relay.log.tell(accepted, EventType.DEFERRED)
    assert (await shown(relay, accepted.message)).status is Status.DEFERRED
    relay.log.tell(accepted, EventType.BOUNCED)
    found = await shown(relay, accepted.message)
    assert [each.status for each in found.recipients] == [Status.DELIVERED, Status.BOUNCED]


async def test_of_many_recipients_lists_tell_the_status_alone(relay: Installation) -> None:
    many = [f"r{number}@x.test" for number in range(200)]
    accepted = relay.log.accept(*many)
    for each in many:
        relay.log.tell(accepted, EventType.DELIVERED, each)
    whole = await shown(relay, accepted.message)
    assert {each.reply for each in whole.recipients} == {f"said in attempt {number}" for number in range(1, 201)}
    [listed] = (await relay.views.messages("acme", Search(), limit=5)).messages
    assert [each.address for each in listed.recipients] == many
    assert {(each.status, each.reply) for each in listed.recipients} == {(Status.DELIVERED, "")}


async def test_scheduled_until_it_is_released(relay: Installation) -> None:
    accepted = relay.log.accept("a@x.test", "b@x.test", release_at=NOW + 100)
    found = await shown(relay, accepted.message)
    assert [found.status, *(each.status for each in found.recipients)] == [Status.SCHEDULED] * 3
    relay.log.tell(accepted, EventType.CANCELLED, "b@x.test")
    assert (await shown(relay, accepted.message)).status is Status.SCHEDULED
    await relay.clock.advance(100)
    found = await shown(relay, accepted.message)
    assert [found.status, *(each.status for each in found.recipients)] == [
        Status.QUEUED, Status.QUEUED, Status.CANCELLED,
    ]  # fmt: skip
    relay.log.tell(accepted, EventType.DELIVERED, "a@x.test")
    assert (await shown(relay, accepted.message)).status is Status.CANCELLED


@pytest.mark.parametrize("at_once", [True, False])
async def test_scheduled_until_another_time_that_it_was_given(relay: Installation, at_once: bool) -> None:
    accepted = relay.log.accept(release_at=NOW + 100)
    if not at_once:
        await relay.follow()
    relay.log.tell(accepted, EventType.CHANGED, release_at=NOW + 200)
    found = await shown(relay, accepted.message)
    assert (found.status, found.release_at) == (Status.SCHEDULED, NOW + 200)
    await relay.clock.advance(150)
    assert (await shown(relay, accepted.message)).status is Status.SCHEDULED
    page = await relay.views.messages("acme", Search(statuses=(Status.SCHEDULED,)), limit=5)
    assert [each.id for each in page.messages] == [accepted.message]
    await relay.clock.advance(50)
    assert (await shown(relay, accepted.message)).status is Status.QUEUED


async def test_given_another_time_that_is_now_it_is_scheduled_no_more(relay: Installation) -> None:
    accepted = relay.log.accept(release_at=NOW + 100)
    relay.log.tell(accepted, EventType.CHANGED, release_at=relay.log.now)
    assert (await shown(relay, accepted.message)).status is Status.QUEUED


async def test_a_timeline_is_all_that_happened_to_a_message(relay: Installation) -> None:
    accepted = relay.log.accept()
    relay.log.accept()
    deferred = relay.log.tell(accepted, EventType.DEFERRED)
    delivered = relay.log.tell(accepted, EventType.DELIVERED)
    await relay.follow()
    timeline = await relay.views.timeline("acme", accepted.message)
    assert timeline == [(1, accepted), (3, deferred), (4, delivered)]
    assert list(await relay.views.timeline("zeta", accepted.message)) == []
    assert list(await relay.views.timeline("acme", "nobody's")) == []


async def test_a_tenant_sees_its_own_alone(relay: Installation) -> None:
    accepted = relay.log.accept(tenant="zeta")
    await relay.follow()
    assert await relay.views.message("acme", accepted.message) is None
    assert (await relay.views.message("zeta", accepted.message)) is not None
    assert (await relay.views.message(None, accepted.message)) is not None


# What is left of them


@pytest.mark.parametrize("groups", [1, 3, 1000])
async def test_whatever_the_groups_the_views_are_the_same(
    relay: Installation, groups: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Going on in another process after each group, as after a crash between them, included."""
    happen(relay.log, 40, seed=3)
    await relay.follow()
    expected = await dump(relay)
    relay.follower.rebuild("the test wants it")
    monkeypatch.setattr("mta.events.views.following.GROUP", groups)
    while await relay.follower.look():
        if groups > 1:
            relay.follower.close()
            relay.follower = relay.new_follower()
    assert await dump(relay) == expected


async def test_a_group_that_fails_is_as_if_it_had_not_been_tried(
    relay: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    accepted = relay.log.accept()
    await relay.follow()
    relay.log.tell(accepted, EventType.DELIVERED)
    relay.log.accept(tenant="zeta")
    real = Builder._write

    def fails(self: Builder, rows: Any) -> None:
        real(self, rows)
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(Builder, "_write", fails)
    assert not await relay.follower.look()
    assert "disk is full" in relay.follower.progress.trouble
    found = await relay.views.message("acme", accepted.message)
    assert found is not None
    assert found.status is Status.QUEUED
    monkeypatch.setattr(Builder, "_write", real)
    assert (await shown(relay, accepted.message)).status is Status.DELIVERED
    assert await relay.views.count("zeta", Search(), 5) == 1


async def test_they_cannot_be_read_before_they_are_complete(
    relay: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ViewsUnavailable):
        await relay.views.messages("acme", Search(), limit=1)
    happen(relay.log, 5, seed=4)
    monkeypatch.setattr("mta.events.views.following.GROUP", 3)
    assert await relay.follower.look()
    with pytest.raises(ViewsUnavailable):
        await relay.views.messages("acme", Search(), limit=1)
    await relay.follow()
    assert (await relay.views.messages("acme", Search(), limit=1)).messages
    happen(relay.log, 5, seed=5)
    assert await relay.follower.look()
    assert (await relay.views.messages("acme", Search(), limit=1)).messages, "they lag, and can be read"


@pytest.mark.parametrize("spoil", ["header", "middle", "version", "cut"])
async def test_a_file_that_cannot_be_used_is_built_anew(relay: Installation, spoil: str) -> None:
    happen(relay.log, 60, seed=6)
    await relay.follow()
    expected = await dump(relay)
    relay.follower.close()
    build = schema.newest(relay.directory)
    assert build is not None
    with sqlite3.connect(build.path) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        if spoil == "version":
            db.execute("PRAGMA user_version = 999")
    db.close()
    if spoil == "cut":
        os.truncate(build.path, 8192)
    elif spoil != "version":
        with build.path.open("r+b") as file:
            file.seek(0 if spoil == "header" else 4096)
            file.write(b"\xff" * (4096 * 40 if spoil == "middle" else 4096))
    relay.log.accept()
    relay.follower = relay.new_follower()
    for _ in range(3):
        await relay.follower.look()
    await relay.follow()
    assert schema.newest(relay.directory) != build
    again = await dump(relay)
    assert again[0][1:] == expected[0]
    assert again[1][1:] == expected[1]


async def test_readers_go_over_to_a_new_build(relay: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    accepted = relay.log.accept()
    await relay.follow()
    assert await relay.views.message("acme", accepted.message) is not None
    relay.follower.rebuild("the test wants it")
    with monkeypatch.context() as patched:
        patched.setattr("mta.events.views.following.GROUP", 1)
        await relay.follower.look()
    with pytest.raises(ViewsUnavailable):
        await relay.views.message("acme", accepted.message)
    await relay.follow()
    assert await relay.views.message("acme", accepted.message) is not None


async def test_views_of_a_log_that_is_another_one_are_built_anew(relay: Installation, log: Log, spool: Any) -> None:
    happen(relay.log, 10, seed=7)
    await relay.follow()
    relay.follower.close()
    spool.events.clear()
    spool.position = 0
    new = log.accept()
    relay.follower = relay.new_follower()
    await relay.follow()
    page = await relay.views.messages(None, Search(), limit=100)
    assert [each.id for each in page.messages] == [new.message]


async def test_what_a_restored_spool_tells_again_is_there_once(relay: Installation) -> None:
    accepted = relay.log.accept()
    delivered = relay.log.tell(accepted, EventType.DELIVERED)
    await relay.follow()
    relay.log.add(accepted)
    relay.log.add(delivered)
    new = relay.log.accept()
    await relay.follow()
    page = await relay.views.messages("acme", Search(), limit=10)
    assert [(each.id, each.status) for each in page.messages] == [
        (new.message, Status.QUEUED), (accepted.message, Status.DELIVERED),
    ]  # fmt: skip
    assert await relay.views.timeline("acme", accepted.message) == [(1, accepted), (2, delivered)]


async def test_what_the_log_has_no_more_leaves_the_views(relay: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if they had been built anew from what it has; the words go with their messages."""
    monkeypatch.setattr("mta.events.views.following.DROPPED_AT_ONCE", 20)
    old = relay.log.accept("gone@example.test", subject="vanishing")
    happen(relay.log, 60, seed=8)
    relay.log.tell(old, EventType.DELIVERED)
    half = len(relay.log.events) // 2
    await relay.follow()
    relay.log.spool.events = []
    _cut(relay, half)
    await relay.clock.advance(3601)
    await relay.follow()
    dropped = await dump(relay)
    assert await relay.views.message(None, old.message) is None
    assert (await relay.views.messages("acme", Search(words="vanishing"), limit=5)).messages == ()
    relay.follower.rebuild("the test wants it")
    await relay.follow()
    assert await dump(relay) == dropped
    assert len(dropped[1]) == len(relay.log.events) - half


def _cut(relay: Installation, count: int) -> None:
    """Have the log begin behind event `count`, as retention does with whole segments."""
    events = list(enumerate(relay.log.events, 1))[count:]
    writer = Writer(relay.segments, relay.keyring, events)
    writer.append(events, NOW)
    writer.close()


async def test_events_of_a_message_that_the_log_has_no_more(relay: Installation) -> None:
    accepted = relay.log.accept()
    relay.log.spool.events.clear()
    late = relay.log.tell(accepted, EventType.DELIVERED)
    await relay.follow()
    page = await relay.views.events("acme", EventSearch(), limit=5)
    assert [(each.event, each.message) for each in page.events] == [(late, None)]
    assert (await relay.views.events("zeta", EventSearch(), limit=5)).events == ()


async def test_only_their_owner_can_read_them(relay: Installation) -> None:
    relay.log.accept()
    await relay.follow()
    assert relay.directory.stat().st_mode & 0o777 == 0o700
    assert {each.stat().st_mode & 0o777 for each in relay.directory.iterdir()} == {0o600}


async def test_how_far_they_are(relay: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    assert progress_in(relay.directory).complete is False
    happen(relay.log, 5, seed=9)
    count = len(relay.log.events)
    monkeypatch.setattr("mta.events.views.following.GROUP", 3)
    await relay.follower.look()
    assert (relay.follower.progress.seq, relay.follower.progress.lag) == (3, count - 3)
    await relay.follow()
    now = relay.follower.progress
    assert (now.seq, now.position, now.lag, now.complete) == (count, count, 0, True)
    assert progress_in(relay.directory).seq == count


async def test_a_question_that_takes_too_long_is_broken_off(
    relay: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    happen(relay.log, 20, seed=10)
    await relay.follow()
    monkeypatch.setattr("mta.events.views.reader._LONGEST", -1.0)
    monkeypatch.setattr("mta.events.views.reader._STEPS", 1)
    with pytest.raises(ViewsUnavailable, match="too long"):
        await relay.views.messages("acme", Search(), limit=100)
    monkeypatch.undo()
    assert (await relay.views.messages("acme", Search(), limit=100)).messages


async def test_one_tenants_questions_leave_others_their_turn(relay: Installation) -> None:
    relay.log.accept(tenant="zeta")
    await relay.follow()
    go_on = threading.Event()
    slow = [asyncio.create_task(relay.views._ask("acme", lambda *_: go_on.wait(20))) for _ in range(33)]
    try:
        async with asyncio.timeout(5):
            page = await relay.views.messages("zeta", Search(), limit=5)
            assert len(page.messages) == 1
            with pytest.raises(ViewsUnavailable, match="too many"):
                await slow[-1]
    finally:
        go_on.set()
    assert await asyncio.gather(*slow[:-1]) == [True] * 32
    assert not relay.views._waiting


def test_groups_are_bounded() -> None:
    assert GROUP <= 1000
