"""fairlead explain and queue shape."""

import asyncio
import time
from typing import Any

from mta.control import ControlServer, Question, socket_path
from mta.mail.reply import Reply
from mta.mail.result import Result, Verdict
from mta.queue.drain import Rates
from mta.queue.explanation import Asked, HeldBy, LaneState, Says

OK = Result(Verdict.DELIVERED, Reply(250, "2.0.0", "ok"))
LATER = Result(Verdict.DEFERRED, Reply(451, "4.7.1", "later"))
DOWN = "delivery is not running"


def explained(relay: Any, id_: str) -> Any:
    done = relay.run("explain", id_, "--json")
    assert (done.code, done.err) == (0, "")
    return done.record["entries"]


def test_with_delivery_down_it_answers_from_the_spool_and_says_so(relay: Any) -> None:
    first, second = relay.accept("a@one.test"), relay.accept("b@one.test")
    [entry] = explained(relay, second)
    assert (entry["entry"], entry["gate"], entry["delivery"]) == (f"{second}.1", "delivery_down", DOWN)
    assert (entry["ahead"], entry["no_estimate"], entry["why"]) == (1, DOWN, f"due, but {DOWN}")
    assert abs(entry["since_at"] - time.time()) < 60
    text = relay.run("explain", first).out
    assert f"{first}.1 to one.test: delivery_down\n" in text
    assert "before it      0 in its lane" in text


def test_each_entry_has_its_gate(relay: Any) -> None:
    message = relay.accept("a@one.test", "b@two.test", "bb@two.test", "c@three.test", "d@four.test")
    relay.run("queue", "hold", f"{message}.1")
    relay.attempt(f"{message}.2", OK, LATER)  # an entry with somebody waiting has not ended
    relay.claim(f"{message}.3")
    relay.attempt(f"{message}.4", OK)
    held, waits, in_flight, ended = explained(relay, message)
    assert (held["gate"], held["why"]) == ("held", "held by the operator")
    assert (waits["gate"], waits["reply"], waits["attempts"]) == ("retry", "451 4.7.1 later", 1)
    assert waits["next_at"] - waits["since_at"] > 20
    assert (in_flight["gate"], in_flight["attempts"]) == ("in_flight", 1)
    assert (ended["gate"], ended["why"], ended["reply"]) == ("ended", "delivered", "250 2.0.0 ok")
    assert [each["gate"] for each in explained(relay, f"{message}.4")] == ["ended"]
    assert [each["gate"] for each in explained(relay, f"{message}.1")] == ["held"]
    text = relay.run("explain", message).out
    assert "last reply     451 4.7.1 later" in text
    assert "next attempt   " in text
    shown = relay.run("queue", "show", f"{message}.1", "--json").record
    assert (shown["held_why"], shown["held_at"]) == ("by the operator", held["since_at"])


def test_one_that_has_ended_says_how(relay: Any) -> None:
    message = relay.accept("a@one.test")
    relay.run("queue", "drop", message)
    [entry] = explained(relay, message)
    assert (entry["gate"], entry["why"]) == ("ended", "dropped: dropped by the operator")


def test_what_nobody_knows(relay: Any) -> None:
    relay.accept("a@one.test")
    unknown = relay.run("explain", "AaH7ugABdbWHsNpfu8EmnA")
    assert (unknown.code, unknown.out) == (1, "")
    assert "is not known" in unknown.err
    for wrong in ("x", "AaH7ugABdbWHsNpfu8EmnA.0", "../../etc/passwd"):
        assert relay.run("explain", wrong).code == 2


async def test_delivery_is_asked_for_what_it_knows(relay: Any) -> None:
    message = await asyncio.to_thread(relay.accept, "a@one.test", "b@two.test")
    asked: list[Asked] = []

    async def answer(about: Asked) -> Says:
        asked.append(about)
        lane = LaneState(gate=HeldBy.SITE_FULL, site="mx.test", at_work=2, limit=2, lanes=1, rates=Rates(lane=0.5))
        return Says(lanes=(lane,) * len(about.entries), begun_at=(0.0,) * len(about.entries))

    control = ControlServer(socket_path(relay.config.run_dir, "delivery"), {"explain": Question(Asked, answer)})
    await control.start()
    done = await asyncio.to_thread(relay.run, "explain", message, "--json")
    text = await asyncio.to_thread(relay.run, "explain", message)
    await control.close()
    for entry in done.record["entries"]:
        assert (entry["gate"], entry["site"], entry["delivery"]) == ("site_full", "mx.test", None)
        assert (entry["rate"], entry["rate_of"], entry["no_estimate"]) == (0.5, "lane", None)
        assert abs(entry["estimated_at"] - time.time()) < 60
    assert [(entry, lane.domain) for entry, lane in asked[0].entries] == [
        (f"{message}.1", "one.test"), (f"{message}.2", "two.test")
    ]  # fmt: skip
    assert "by 30.0 attempts a minute of its lane" in text.out
    assert "(2 of 2 in use there; lanes with work there: 1)" in text.out


def test_the_shape_of_the_queue(relay: Any) -> None:
    relay.accept("a@one.test", "c@two.test")
    relay.accept("b@one.test", tenant="other")
    shape = relay.run("queue", "shape", "--json").record
    assert [(row["name"], row["total"], row["ages"]["5"]) for row in shape["rows"]] == [
        ("one.test", 2, 2), ("two.test", 1, 1)
    ]  # fmt: skip
    assert (shape["total"]["total"], shape["short_by"]) == (3, 0)
    [row] = relay.run("queue", "shape", "--by", "tenant", "--limit", "1", "--json").record["rows"]
    assert (row["name"], row["total"]) == ("acme", 2)
    only = relay.run("queue", "shape", "--where", "tenant=other", "--json").record
    assert [row["name"] for row in only["rows"]] == ["one.test"]
    lines = relay.run("queue", "shape").out.splitlines()
    assert lines[0].split() == ["DOMAIN", "TOTAL", "5", "10", "20", "40", "80", "160", "320", "640", "1280", "1280+"]
    assert [line.split()[:3] for line in lines[1:]] == [
        ["TOTAL", "3", "3"],
        ["one.test", "2", "2"],
        ["two.test", "1", "1"],
    ]
    assert relay.run("queue", "shape", "--by", "site").code == 2


def test_an_operators_key(relay: Any) -> None:
    assert relay.run("keys", "create", "--operator", "--scope", "manage", "--json").code == 0
    [key] = relay.run("keys", "list", "--json").records
    assert (key["tenant"], key["operator"], key["scopes"]) == ("", True, ["manage"])
    assert relay.run("keys", "create", "--operator", "--scope", "send").code == 1
    for wrong in ((), ("--operator", "--tenant", "acme")):
        assert relay.run("keys", "create", *wrong, "--scope", "manage").code == 2
