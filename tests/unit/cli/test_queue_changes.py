"""queue hold, release, retry, drop, redirect, priority, cancel: by ID and by --where, waiting and in flight."""

import asyncio
import json
import os
import pty
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from mta.control import ControlServer, socket_path
from mta.mail.reply import Reply
from mta.mail.result import Result, Verdict
from mta.queue.actions import portions
from mta.queue.doorbell import DoorbellSocket
from mta.spool.interface import Due
from mta.spool.lmdb.care import verify
from mta.spool.lmdb.opening import open_keyring
from mta.spool.records import Segment
from tests.contract.spool_contract import a_message

OK = Result(Verdict.DELIVERED, Reply(250, "2.0.0", "ok"))
LATER = Result(Verdict.DEFERRED, Reply(451, "4.7.1", "later"))
NEVER = Result(Verdict.FAILED, Reply(550, "5.1.1", "never"))

CHANGES = {  # command -> its arguments, and what it says when it is done
    "hold": ((), "held"),
    "retry": ((), "due"),
    "drop": ((), "dropped"),
    "redirect": (("--to", "relay.test"), "redirected"),
    "priority": (("bulk",), "bulk"),
}
KEPT = {"hold": "held", "drop": "dropped", "redirect": "redirected to relay.test:25", "priority": "class bulk"}


def change(relay: Any, command: str, *arguments: str) -> Any:
    return relay.run("queue", command, *CHANGES.get(command, ((),))[0], *arguments)


def wait(relay: Any, command: str, *entries: str) -> None:
    """Have entries wait for their next attempt, where that is what a command is about."""
    for each in entries if command == "retry" else ():
        relay.attempt(each, LATER)


def entry_of(relay: Any, entry_id: str) -> Any:
    return relay.run("queue", "show", entry_id, "--json").record


def told(relay: Any) -> list[str]:
    return [f"{each['type']} {each.get('recipient', '')}".strip() for each in relay.run("events", "--json").records]


@pytest.fixture(autouse=True)
def whole(relay: Any) -> Any:
    """Whatever was done, the spool fits together."""
    yield
    if relay.config.spool_dir.exists():
        assert verify(relay.config.spool_dir, open_keyring(relay.config)).problems == []


@pytest.mark.parametrize("command", CHANGES)
def test_by_id_it_is_done_at_once(relay: Any, command: str) -> None:
    first, second = relay.accept("a@one.test", "c@two.test"), relay.accept("b@one.test")
    wait(relay, command, f"{first}.1", f"{first}.2")
    before = len(told(relay))
    done = change(relay, command, first, "--json")
    assert (done.code, done.err) == (0, "")
    assert done.records == [{"entry": f"{first}.{n}", "result": CHANGES[command][1]} for n in (1, 2)]
    assert {each.rpartition(" ")[2] for each in told(relay)[before:]} == {"a@one.test", "c@two.test"}
    assert entry_of(relay, f"{second}.1")["state"] == "queued"


def test_a_held_entry_waits_for_its_release(relay: Any) -> None:
    message = relay.accept("a@one.test")
    due_at = entry_of(relay, f"{message}.1")["due_at"]
    relay.run("queue", "hold", message)
    assert entry_of(relay, f"{message}.1")["state"] == "held"
    assert f"{message}.1 to one.test: held" in relay.run("queue", "show", message).out
    for unmoved in ("hold", "retry"):
        assert relay.run("queue", unmoved, message, "--json").record["result"] == "unchanged"
    assert relay.run("queue", "release", message, "--json").record["result"] == "released"
    assert (entry_of(relay, f"{message}.1")["state"], entry_of(relay, f"{message}.1")["due_at"]) == ("queued", due_at)
    assert relay.run("queue", "release", message, "--json").record["result"] == "unchanged"
    assert told(relay) == ["accepted", "changed a@one.test", "changed a@one.test"]


def test_a_redirection_and_its_undoing(relay: Any) -> None:
    message = relay.accept("a@one.test")
    for to, hop in (("relay.test:2525", "relay.test:2525"), ("2001:db8::1", "[2001:db8::1]:25"), ("mx", "mx:25")):
        assert relay.run("queue", "redirect", "--to", to, message).code == 0
        assert entry_of(relay, f"{message}.1")["redirected_to"] == hop
    assert "redirected to mx:25" in relay.run("queue", "show", message).out
    assert relay.run("queue", "redirect", "--undo", message).code == 0
    assert entry_of(relay, f"{message}.1")["redirected_to"] is None


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--to", "relay.test", "--undo"),
        ("--to", "relay test"),
        ("--to", "relay.test:0"),
        ("--to", "h:70000"),
        ("--to", ""),
    ],
)
def test_a_redirection_to_nowhere_is_a_mistake(relay: Any, arguments: tuple[str, ...]) -> None:
    message = relay.accept("a@one.test")
    done = relay.run("queue", "redirect", *arguments, message)
    assert (done.code, done.out) == (2, "")
    assert "--to" in done.err
    assert told(relay) == ["accepted"]


def test_a_class_of_its_own(relay: Any) -> None:
    message = relay.accept("a@one.test")
    assert relay.run("queue", "priority", "high", message, "--json").record["result"] == "high"
    assert entry_of(relay, f"{message}.1")["class"] == "high"
    assert relay.run("queue", "priority", "urgent", message).code == 2


@pytest.mark.parametrize("command", KEPT)
def test_what_is_in_flight_keeps_the_wish(relay: Any, command: str) -> None:
    busy, free = relay.accept("a@one.test"), relay.accept("c@two.test")
    relay.claim(f"{busy}.1")
    done = change(relay, command, busy, free, "--json")
    assert done.code == 75
    assert [each["result"] for each in done.records] == ["in_flight", CHANGES[command][1]]
    assert done.err == "fairlead: 1 in flight: done when the attempt is over, unless it delivers\n"
    assert (entry_of(relay, f"{busy}.1")["state"], entry_of(relay, f"{busy}.1")["wish"]) == ("in_flight", KEPT[command])
    assert f"in flight, then {KEPT[command]}" in relay.run("queue", "show", busy).out
    relay.attempt(f"{busy}.1", LATER)
    assert told(relay)[-1] == f"{'dropped' if command == 'drop' else 'changed'} a@one.test"


async def test_delivery_is_asked_to_break_off_what_is_in_flight(relay: Any) -> None:
    """Once, when all wishes are there; one that does not know how to is no obstacle."""
    messages = [await asyncio.to_thread(relay.accept, f"a{n}@one.test") for n in range(3)]
    for each in messages[:2]:
        await asyncio.to_thread(relay.claim, f"{each}.1")
    wishes: list[list[Any]] = []

    async def recall() -> int:
        listed = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "mta", "-c", str(relay.config_file), "queue", "show", "--json"),
            *("--where", "state=in_flight"),
            stdout=asyncio.subprocess.PIPE,
        )
        said, _ = await listed.communicate()
        wishes.append([json.loads(line)["wish"] for line in said.splitlines()])
        return 2

    for commands in ({"recall": recall}, {}):
        control = ControlServer(socket_path(relay.config.run_dir, "delivery"), commands)
        await control.start()
        done = await asyncio.to_thread(relay.run, "queue", "hold", "--where", "tenant=acme", "--yes", "--json")
        await control.close()
        assert (done.code, [each["result"] for each in done.records][:2]) == (75, ["in_flight", "in_flight"])
    assert wishes == [["held", "held"]]
    await asyncio.to_thread(relay.run, "queue", "drop", messages[2])
    assert len(wishes) == 1


def test_what_is_in_flight_is_not_retried(relay: Any) -> None:
    message = relay.accept("a@one.test")
    relay.claim(f"{message}.1")
    done = relay.run("queue", "retry", message, "--json")
    assert (done.code, done.record["result"]) == (75, "in_flight")
    assert done.err == "fairlead: 1 in flight: tried at this moment\n"
    assert entry_of(relay, f"{message}.1")["wish"] is None


def test_a_wish_to_hold_can_be_taken_back(relay: Any) -> None:
    message = relay.accept("a@one.test")
    relay.claim(f"{message}.1")
    assert relay.run("queue", "release", message, "--json").record["result"] == "unchanged"
    relay.run("queue", "hold", message)
    assert relay.run("queue", "release", message, "--json").record["result"] == "in_flight"
    relay.attempt(f"{message}.1", LATER)
    assert entry_of(relay, f"{message}.1")["state"] == "queued"


@pytest.mark.parametrize("command", [*CHANGES, "release", "show"])
def test_an_unknown_message_is_a_failure_and_a_wrong_id_a_mistake(relay: Any, command: str) -> None:
    known = relay.accept("a@one.test")
    unknown = change(relay, command, "AaH7ugABdbWHsNpfu8EmnA")
    assert unknown.code == 1
    assert "is not in the queue" in unknown.err
    for wrong in ("x", f"{known}.0", f"{known}.x", "../../etc/passwd"):
        done = change(relay, command, wrong)
        assert (done.code, done.out) == (2, "")


@pytest.mark.parametrize("command", [*CHANGES, "release", "cancel"])
def test_a_mistake_among_several_ids_changes_nothing(relay: Any, command: str) -> None:
    message = relay.accept("a@one.test")
    assert change(relay, command, message, "nonsense").code == 2
    assert told(relay) == ["accepted"]


@pytest.mark.parametrize("command", [*CHANGES, "release", "cancel", "show"])
def test_who_is_meant_has_to_be_said_in_one_way(relay: Any, command: str) -> None:
    message = relay.accept("a@one.test")
    for arguments in ((), (message, "--where", "domain=one.test")):
        done = change(relay, command, *arguments)
        assert (done.code, done.err) == (2, "fairlead: say which entries: by ID or with --where, one of the two\n")
    assert told(relay) == ["accepted"]


@pytest.mark.parametrize("command", [*CHANGES, "cancel"])
def test_without_a_terminal_it_counts_and_does_nothing(relay: Any, command: str) -> None:
    relay.accept("a@one.test", "b@one.test", "c@two.test")
    relay.accept("a@one.test")
    done = change(relay, command, "--where", "domain=one.test", "--json")
    assert (done.code, done.record) == (2, {"entries": 2, "recipients": 3})
    assert done.err.startswith("fairlead: 2 entries with 3 recipients: nothing was changed, add --yes to ")
    assert change(relay, command, "--where", "domain=one.test").out == ""
    assert told(relay) == ["accepted", "accepted"]


@pytest.mark.parametrize("command", [*CHANGES, "cancel"])
def test_with_yes_it_goes_ahead(relay: Any, command: str) -> None:
    first, second = relay.accept("a@one.test", "c@two.test"), relay.accept("b@one.test")
    wait(relay, command, f"{first}.1", f"{second}.1")
    before = len(told(relay))
    done = change(relay, command, "--where", "domain=one.test", "--yes", "--json")
    assert done.code == 0
    assert done.err.endswith(": 2 entries with 2 recipients\n")
    word = CHANGES[command][1] if command in CHANGES else "cancelled"
    assert done.records == [{"entry": f"{each}.1", "result": word} for each in (first, second)]
    assert sorted(each.rpartition(" ")[2] for each in told(relay)[before:]) == ["a@one.test", "b@one.test"]


def test_many_are_summed_up(relay: Any) -> None:
    messages = [relay.accept(f"a{n}@one.test") for n in range(5)]
    relay.run("queue", "hold", messages[0])
    relay.claim(f"{messages[1]}.1")
    done = relay.run("queue", "hold", "--where", "tenant=acme", "--yes")
    assert (done.code, done.out) == (75, "held 3, in_flight 1\n")
    assert done.err.startswith("hold: 4 entries with 4 recipients\n")  # the fifth is held
    done = relay.run("queue", "release", "--where", "tenant=acme", "--yes", "--json")
    assert [each["result"] for each in done.records] == ["released", "in_flight", "released", "released", "released"]


def test_more_than_go_into_one_commit(relay: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mta.queue.actions._TOGETHER", 30)  # three entries
    for n in range(8):
        relay.accept(f"a{n}@one.test")
    assert relay.run("queue", "hold", "--where", "domain=one.test", "--yes").out == "held 8\n"
    assert relay.run("queue", "cancel", "--where", "state=held", "--yes").out == "cancelled 8\n"
    assert relay.run("queue", "list").out == ""


async def test_no_portion_touches_more_than_a_thousand_records() -> None:
    small, wide, large = a_message(), a_message(recipients=50), a_message()
    content = (Segment(b"c" * 16, 10_000_000, b"k" * 32),)
    large = msgspec.structs.replace(large, message=msgspec.structs.replace(large.message, segments=content))
    mixed = [small] * 300 + [wide] * 40 + [large] * 25

    async def walk() -> AsyncIterator[tuple[Due, None]]:
        for each in mixed:
            yield Due(each.entries[0], each.message), None

    found = [[due.message.id for due, _ in each] async for each in portions(walk())]
    assert [id_ for each in found for id_ in each] == [each.message.id for each in mixed]
    records = {small.message.id: 9, wide.message.id: 58, large.message.id: 89}
    assert all(900 < sum(records[id_] for id_ in each) <= 1000 for each in found[:-1])


async def test_delivery_hears_of_what_is_due_now(relay: Any) -> None:
    message = await asyncio.to_thread(relay.accept, "a@one.test")
    await asyncio.to_thread(relay.run, "queue", "hold", message)
    rung = asyncio.Event()
    bell = DoorbellSocket(relay.config.doorbell, rung.set)
    await asyncio.to_thread(relay.run, "queue", "release", message)
    await asyncio.wait_for(rung.wait(), 5)
    bell.close()


def test_nothing_meant_is_nothing_done(relay: Any) -> None:
    relay.accept("a@one.test")
    done = relay.run("queue", "drop", "--where", "domain=two.test")
    assert (done.code, done.out, done.err) == (0, "", "drop: 0 entries with 0 recipients\n")


@pytest.mark.parametrize(("said", "code", "state"), [("y\n", 0, "held"), ("n\n", 1, "queued")])
def test_at_a_terminal_it_asks(relay: Any, said: str, code: int, state: str) -> None:
    message = relay.accept("a@one.test")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "mta", "-c", str(relay.config_file), "queue", "hold", "--where", "domain=one.test"]
    with subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        os.write(ours, said.encode())
        _, asked = process.communicate(timeout=30)
    os.close(ours)
    os.close(theirs)
    assert "1 entry with 1 recipient: hold? [y/N]" in asked
    assert (process.returncode, entry_of(relay, f"{message}.1")["state"]) == (code, state)


def test_cancel_answers_for_each_recipient(relay: Any) -> None:
    message = relay.accept("a@one.test", "b@one.test", "bad@one.test", "c@two.test", "d@three.test", sender="")
    relay.attempt(f"{message}.1", OK, LATER, NEVER)
    relay.claim(f"{message}.2")
    done = relay.run("queue", "cancel", message, "--json")
    assert done.records == [
        {"entry": f"{message}.1", "recipient": "a@one.test", "result": "delivered"},
        {"entry": f"{message}.1", "recipient": "b@one.test", "result": "cancelled"},
        {"entry": f"{message}.1", "recipient": "bad@one.test", "result": "bounced"},
        {"entry": f"{message}.2", "recipient": "c@two.test", "result": "in_flight"},
        {"entry": f"{message}.3", "recipient": "d@three.test", "result": "cancelled"},
    ]
    assert (done.code, "1 in flight" in done.err) == (75, True)
    relay.attempt(f"{message}.2", OK)
    done = relay.run("queue", "cancel", message, "--json")
    assert (done.code, done.err) == (1, "fairlead: 3 had ended before\n")
    assert done.records[3]["result"] == "delivered"
    assert relay.run("queue", "cancel", f"{message}.3", "--json").record["result"] == "cancelled"  # still is


def test_cancelled_is_cancelled(relay: Any) -> None:
    message = relay.accept("a@one.test", "b@one.test")
    done = relay.run("queue", "cancel", message)
    assert (done.code, done.err) == (0, "")
    assert [line.split() for line in done.out.splitlines()[1:]] == [
        [f"{message}.1", "a@one.test", "cancelled"], [f"{message}.1", "b@one.test", "cancelled"]
    ]  # fmt: skip
    assert told(relay) == ["accepted", "cancelled a@one.test", "cancelled b@one.test"]
    assert relay.run("queue", "list").out == ""


def test_cancel_of_what_nobody_knows(relay: Any) -> None:
    relay.accept("a@one.test")
    assert relay.run("queue", "cancel", "AaH7ugABdbWHsNpfu8EmnA").code == 1
