"""queue and events: what waits, what was told of it, and what an operator can do about it."""

import asyncio
import signal
import sys
from typing import Any

import pytest

from mta.mail.event import EventType
from mta.spool.lmdb.spool import LmdbSpool
from mta.spool.records import Claim

FAIRLEAD = (sys.executable, "-m", "mta")


def claim(relay: Any, entry_id: str) -> None:
    async def take(spool: LmdbSpool) -> bool:
        entry = await spool.entry(entry_id)
        assert entry is not None
        return await spool.claim(entry, Claim(epoch=1, attempt=1, retry_at=entry.due_at + 60))

    assert relay.with_spool(take)


def test_the_entries_of_the_queue(relay: Any) -> None:
    message = relay.accept("a@one.test", "b@one.test", "c@two.test")
    [one, two] = relay.run("queue", "list", "--json").records
    assert set(one) == {
        "entry", "message", "tenant", "domain", "state", "recipients", "attempts", "due_at", "expires_at"
    }  # fmt: skip
    assert (one["entry"], one["message"], one["tenant"]) == (f"{message}.1", message, "acme")
    assert (one["domain"], one["state"], one["recipients"]) == ("one.test", "queued", ["a@one.test", "b@one.test"])
    assert one["attempts"] == 0
    assert one["expires_at"] - one["due_at"] == pytest.approx(72 * 3600, abs=1)
    assert two["recipients"] == ["c@two.test"]
    text = relay.run("queue", "list").out.splitlines()
    assert len(text) == 3
    assert text[1].split()[:4] == [f"{message}.1", "queued", "acme", "one.test"]


def test_an_entry_that_is_being_delivered_says_so(relay: Any) -> None:
    message = relay.accept("a@one.test")
    claim(relay, f"{message}.1")
    [entry] = relay.run("queue", "list", "--json").records
    assert (entry["state"], entry["attempts"]) == ("in_flight", 1)


def test_a_message_and_one_of_its_entries_in_detail(relay: Any) -> None:
    message = relay.accept("a@one.test", "c@two.test")
    shown = relay.run("queue", "show", message, "--json").record
    assert (shown["message"], shown["sender"], shown["origin"]) == (message, "joe@acme.test", "relay")
    assert [each["domain"] for each in shown["entries"]] == ["one.test", "two.test"]
    assert relay.run("queue", "show", f"{message}.2", "--json").record["domain"] == "two.test"
    assert "c@two.test  queued" in relay.run("queue", "show", message).out


def test_retry_makes_an_entry_due_now(relay: Any) -> None:
    message = relay.accept("a@one.test")
    before = relay.run("queue", "list", "--json").record["due_at"]
    done = relay.run("queue", "retry", message, "--json")
    assert (done.code, done.record) == (0, {"entry": f"{message}.1", "result": "due"})
    assert relay.run("queue", "list", "--json").record["due_at"] > before


def test_drop_ends_an_entry_and_the_log_says_so(relay: Any) -> None:
    message = relay.accept("a@one.test", "c@two.test")
    done = relay.run("queue", "drop", f"{message}.1", "--json")
    assert (done.code, done.record) == (0, {"entry": f"{message}.1", "result": "dropped"})
    assert relay.run("queue", "list", "--json").record["entry"] == f"{message}.2"
    [accepted, dropped] = relay.run("events", "--json").records
    assert (accepted["type"], accepted["seq"], accepted["recipients"]) == ("accepted", 1, ["a@one.test", "c@two.test"])
    assert (dropped["type"], dropped["message"], dropped["recipient"]) == ("dropped", message, "a@one.test")
    assert {"seq", "id", "type", "at", "tenant", "message", "entry", "recipient"} <= set(dropped)


@pytest.mark.parametrize("action", ["retry", "drop"])
def test_what_is_in_flight_is_left_alone(relay: Any, action: str) -> None:
    busy, free = relay.accept("a@one.test"), relay.accept("c@two.test")
    claim(relay, f"{busy}.1")
    done = relay.run("queue", action, busy, free, "--json")
    assert done.code == 75
    assert [each["result"] for each in done.records] == ["in_flight", {"retry": "due", "drop": "dropped"}[action]]
    assert done.err == "fairlead: 1 in flight or just changed, try again\n"


@pytest.mark.parametrize("action", ["show", "retry", "drop"])
def test_an_unknown_message_is_a_failure_and_a_wrong_id_a_mistake(relay: Any, action: str) -> None:
    known = relay.accept("a@one.test")
    unknown = relay.run("queue", action, "AaH7ugABdbWHsNpfu8EmnA")
    assert unknown.code == 1
    assert "is not in the queue" in unknown.err
    for wrong in ("x", f"{known}.0", f"{known}.x", "../../etc/passwd"):
        done = relay.run("queue", action, wrong)
        assert (done.code, done.out) == (2, "")


def test_a_mistake_among_several_ids_changes_nothing(relay: Any) -> None:
    message = relay.accept("a@one.test")
    assert relay.run("queue", "drop", message, "nonsense").code == 2
    assert relay.run("queue", "list", "--json").record["entry"] == f"{message}.1"


def test_events_of_one_message_and_after_a_number(relay: Any) -> None:
    first, second = relay.accept("a@one.test"), relay.accept("b@one.test")
    assert [each["message"] for each in relay.run("events", "--json").records] == [first, second]
    assert relay.run("events", "--json", "--message", second).record["seq"] == 2
    assert relay.run("events", "--json", "--after", "1").record["message"] == second
    assert relay.run("events", "--json", "--after", "2").out == ""
    text = relay.run("events").out.splitlines()
    assert text[1].split()[2] == EventType.ACCEPTED
    assert "from <joe@acme.test>" in text[1]


def test_events_of_what_is_no_message_are_a_mistake(relay: Any) -> None:
    relay.accept("a@one.test")
    done = relay.run("events", "--message", "nonsense")
    assert (done.code, done.err) == (2, "fairlead: not a message id: 'nonsense'\n")


async def test_following_goes_on_with_what_comes(relay: Any) -> None:
    first = await asyncio.to_thread(relay.accept, "a@one.test")
    process = await asyncio.create_subprocess_exec(
        *FAIRLEAD, "-c", str(relay.config_file), "events", "--follow", "--json", stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(20):
        assert first.encode() in await process.stdout.readline()
        second = await asyncio.to_thread(relay.accept, "b@one.test")
        assert second.encode() in await process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 130


def test_outside_text_does_not_reach_the_terminal_raw(relay: Any) -> None:
    relay.accept("a@one.test", sender='"\x1b[2J"@acme.test')
    for arguments in (["events"], ["events", "--json"], ["queue", "list"]):
        assert "\x1b" not in relay.run(*arguments).out
