"""`queue lessons` and `queue forget`: what is stored is shown, exported and reset, with delivery or without."""

import asyncio
import time
from typing import Any

import msgspec
import pytest

from mta.cli import queue_lessons
from mta.control import ControlServer, Question, socket_path
from mta.queue.learned import Learned, Paused
from mta.queue.lessons import LEARNED, PAUSED, AboutSite
from mta.spool.lmdb.spool import LmdbSpool

SITE = "mx.test:25"


async def learn(spool: LmdbSpool) -> None:
    now = time.time()
    lesson = Learned(
        source="", site=SITE, learned_at=now - 60, connections=2, connections_refused=3, ceiling=0.5, deliveries=20
    )
    pause = Paused(site="other.test:25", tenant="acme", until=now + 600, reason="550 \x1b[2J spam")
    await spool.put_record(LEARNED, f"- {SITE}", msgspec.msgpack.encode(lesson), replace=True)
    await spool.put_record(PAUSED, "- other.test:25 acme", msgspec.msgpack.encode(pause), replace=True)


def test_what_was_learned_is_shown_and_exported_with_its_age(relay: Any) -> None:
    assert relay.run("queue", "lessons").err == "nothing was learned yet\n"
    relay.with_spool(learn)
    done = relay.run("queue", "lessons")
    assert "2 connections, 3 were refused, up to 30.0 a minute, 20 messages a connection" in done.out
    assert "acme" in done.out
    assert "\x1b" not in done.out
    records = relay.run("queue", "lessons", "--json").records
    assert [each["kind"] for each in records] == ["learned", "paused"]
    assert 59 <= records[0]["age"] <= 90
    assert 570 <= records[1]["lasts"] <= 600
    assert (records[0]["ceiling"], records[0]["learned_at"] + 50 < time.time()) == (0.5, True)
    assert relay.run("queue", "lessons", "--json", SITE).record["site"] == SITE


def test_without_delivery_what_is_stored_is_forgotten(relay: Any) -> None:
    relay.with_spool(learn)
    done = relay.run("queue", "forget", SITE, "nobody.test:25")
    assert (done.code, done.out) == (0, f"{SITE}: forgotten\nnobody.test:25: nothing known\n")
    assert [each["kind"] for each in relay.run("queue", "lessons", "--json").records] == ["paused"]
    assert relay.run("queue", "forget", SITE).code == 1


async def test_delivery_forgets_more_than_what_is_stored(relay: Any) -> None:
    asked = []

    async def forget(about: AboutSite) -> bool:
        asked.append(about.site)
        return True

    control = ControlServer(socket_path(relay.config.run_dir, "delivery"), {"forget": Question(AboutSite, forget)})
    await control.start()
    try:
        done = await asyncio.to_thread(relay.run, "queue", "forget", SITE, "--json")
    finally:
        await control.close()
    assert (asked, done.record) == ([SITE], {"site": SITE, "result": "forgotten"})


async def test_a_delivery_that_does_not_answer_may_forget_yet(relay: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Red when it counts as one that is down: it is said to be forgotten, and is stored again within the minute."""
    monkeypatch.setattr(queue_lessons, "_TIMEOUT", 0.05)
    await asyncio.to_thread(relay.with_spool, learn)

    async def forget(_: AboutSite) -> bool:
        await asyncio.Event().wait()
        raise AssertionError

    control = ControlServer(socket_path(relay.config.run_dir, "delivery"), {"forget": Question(AboutSite, forget)})
    await control.start()
    try:
        done = await asyncio.to_thread(relay.run, "queue", "forget", SITE)
    finally:
        await control.close()
    assert (done.code, done.out) == (1, "")
    assert f"does not answer within 0.05 s: whether {SITE} is forgotten is not known, ask again" in done.err
    assert len((await asyncio.to_thread(relay.run, "queue", "lessons", "--json")).records) == 2
