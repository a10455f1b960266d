"""queue and events: what waits, and what was told of it. What an operator can do about it: test_queue_changes.py."""

import asyncio
import signal
import sys
from typing import Any

import pytest

from mta.mail.event import EventType

FAIRLEAD = (sys.executable, "-m", "mta")


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
    relay.claim(f"{message}.1")
    [entry] = relay.run("queue", "list", "--json").records
    assert (entry["state"], entry["attempts"]) == ("in_flight", 1)


def test_a_message_and_one_of_its_entries_in_detail(relay: Any) -> None:
    message = relay.accept("a@one.test", "c@two.test")
    shown = relay.run("queue", "show", message, "--json").record
    assert (shown["message"], shown["sender"], shown["origin"]) == (message, "joe@acme.test", "relay")
    assert [each["domain"] for each in shown["entries"]] == ["one.test", "two.test"]
    assert relay.run("queue", "show", f"{message}.2", "--json").record["domain"] == "two.test"
    assert "c@two.test  queued" in relay.run("queue", "show", message).out
    shown = relay.run("queue", "show", "--where", "domain=two.test", "--json").record
    assert (shown["entry"], shown["class"], shown["wish"]) == (f"{message}.2", "normal", None)


def test_a_deadline_and_a_release_are_shown(relay: Any) -> None:
    message = relay.accept("a@one.test", release_at=4e9, deliver_by=4e9 + 60, by_mode="RT", priority=-3)
    shown = relay.run("queue", "show", message, "--json").record
    assert (shown["release_at"], shown["deliver_by"], shown["expires_at"]) == (4e9, 4e9 + 60, 4e9 + 60)
    assert (shown["by_mode"], shown["priority"]) == ("RT", -3)
    text = relay.run("queue", "show", message).out.splitlines()
    assert "released  2096-10-02T07:06:40Z" in text
    assert "deadline  2096-10-02T07:07:40Z (DELIVERBY RT)" in text
    accepted = relay.run("events", "--json", "--message", message).record
    assert (accepted["deliver_by"], accepted["release_at"], accepted["priority"]) == (4e9 + 60, 4e9, -3)
    plain = relay.run("queue", "show", relay.accept("a@one.test")).out
    assert "deadline" not in plain
    assert "released" not in plain


def test_the_list_can_be_narrowed(relay: Any) -> None:
    first, second = relay.accept("a@one.test", "c@two.test"), relay.accept("b@one.test", sender="")
    listed = relay.run("queue", "list", "--where", "domain=one.test", "--json").records
    assert [each["entry"] for each in listed] == [f"{first}.1", f"{second}.1"]
    narrow = ("--where", "domain=*.test", "--where", "sender=<>")
    assert relay.run("queue", "list", *narrow, "--json").record["message"] == second
    assert relay.run("queue", "list", "--where", "age>1h").out == ""
    wrong = relay.run("queue", "list", "--where", "subject=x")
    assert (wrong.code, wrong.out) == (2, "")
    assert "conditions are of tenant, domain" in wrong.err


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
