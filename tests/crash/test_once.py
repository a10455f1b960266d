"""What is asked for twice is done once: by two processes at a time, and by a client that heard no answer (C2)."""

import asyncio
import smtplib
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from itertools import repeat
from pathlib import Path

import pytest

from mta.spool.lmdb.care import verify
from mta.spool.sealing import load_or_create_keyring
from tests.crash.clients import Address, HttpAnswer, HttpClient
from tests.crash.conftest import Report, size
from tests.crash.letters import letter, recipients_of, request, sender_of
from tests.crash.relay import started
from tests.crash.rush import BURST
from tests.crash.sabotage import ROOT, Sabotage

EACH = 100
KEYS = size("KEYS", 20)
_A_KILL = 5  # posts whose answers are withheld
_PATIENCE = 60.0  # seconds for all answers


def rush(place: Path, key_file: Path, names: Sequence[str]) -> list[list[str]]:
    """Have a process for each name ask at the same time; return what came of each message."""
    with ExitStack() as running:
        processes = []
        for name in names:
            command = [sys.executable, "-m", "tests.crash.rush", str(place), str(key_file), name, str(EACH)]
            process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            running.enter_context(process)
            running.callback(process.kill)
            processes.append(process)
        for each in processes:
            assert each.stdout is not None
            assert each.stdout.readline() == "ready\n"
        for each in processes:
            assert each.stdin is not None
            each.stdin.write("go\n")
            each.stdin.flush()
        return [line.split() for each in processes for line in each.communicate()[0].splitlines()]


@pytest.mark.parametrize(("names", "taken"), [(("a", "a"), 1), (("a", "b"), 2)], ids=["one-name", "control-two-names"])
def test_of_two_hundred_in_two_processes_one_is_taken(tmp_path: Path, report: Report, names, taken: int) -> None:
    keyring = load_or_create_keyring(tmp_path / "spool.key")
    results = rush(tmp_path / "spool", tmp_path / "spool.key", names)
    counts = Counter(each[0] for each in results)
    assert counts == {"Taken": taken, "Kept": 2 * EACH - taken}
    assert len({tuple(each[1:]) for each in results if each[0] == "Kept"}) == taken
    findings = verify(tmp_path / "spool", keyring)
    report.say(**counts, stored=findings.counts["messages"])
    assert (findings.counts["messages"], findings.problems) == (taken, [])


def test_a_rate_holds_over_two_processes(tmp_path: Path, report: Report) -> None:
    keyring = load_or_create_keyring(tmp_path / "spool.key")
    counts = Counter(each[0] for each in rush(tmp_path / "spool", tmp_path / "spool.key", ("", "")))
    report.say(**counts)
    assert counts == {"Taken": BURST, "Throttled": 2 * EACH - BURST}
    assert verify(tmp_path / "spool", keyring).counts["messages"] == BURST


def submit(host: str, port: int, user: str, password: str, tag: str) -> str:
    """Submit a letter; return the reply to it, "" if none came."""
    with smtplib.SMTP(host, port, timeout=30) as client:
        client.login(user, password)
        client.mail(sender_of(tag))
        for each in recipients_of(tag):
            client.rcpt(each)
        try:
            code, said = client.data(letter(tag))
        except smtplib.SMTPServerDisconnected:
            return ""
        return f"{code} {said.decode()}"


@pytest.mark.parametrize("once", [True, False], ids=["once", "control"])
async def test_a_client_that_heard_no_answer_submits_again(tmp_path: Path, report: Report, *, once: bool) -> None:
    tag = "once"
    async with started(tmp_path, sabotage=Sabotage.MUTE) as (relay, _):
        login = relay.login("printer", *(("--once", "600") if once else ()))
        relay.mute()
        unheard = asyncio.create_task(asyncio.to_thread(submit, *login, tag))
        await relay.withheld(1)
        await relay.kill("ingress")
        assert await unheard == ""
        await relay.ready("ingress")
        replies = [await asyncio.to_thread(submit, *login, tag) for _ in range(2)]
        remains = await relay.remains()
    report.say(accepted=remains.accepted[tag], replies=len(set(replies)))
    assert all(each.startswith("250 2.0.0 OK queued as ") for each in replies)
    assert (replies[0] == replies[1]) is once
    assert remains.accepted == {tag: 1 if once else 3}
    assert remains.problems == []


def kind_of(answer: HttpAnswer) -> str:
    """What came of a post, in a word or two; what should not be is told in full."""
    if answer.status == 202:
        return "replayed" if answer.fields.get("idempotent-replayed") == "true" else "sent"
    if answer.status == 409:
        return "in flight" if "still being worked on" in answer.body else "key used"
    return f"{answer.status} {answer.body}"


@asynccontextmanager
async def connected(address: Address, count: int) -> AsyncIterator[list[HttpClient]]:
    """So many clients, all of which are connected."""
    async with AsyncExitStack() as opened:
        clients = await asyncio.gather(*(HttpClient.connect(address) for _ in range(count)))
        for each in clients:
            opened.callback(each.abort)
        yield clients


async def post_each(clients: Sequence[HttpClient], bodies: Iterable[bytes], keys: Iterable[str]) -> list[HttpAnswer]:
    """Have all clients post at once, each its body under its key."""
    async with asyncio.timeout(_PATIENCE):
        return await asyncio.gather(*map(HttpClient.post, clients, bodies, keys))


def ids_of(answers: Sequence[HttpAnswer]) -> set[str]:
    """The messages that answers tell of."""
    return {each.fields["x-message-id"] for each in answers if each.status == 202}


async def test_of_two_hundred_posts_to_two_processes_one_is_sent(tmp_path: Path, report: Report) -> None:
    tag, body = "hfire", request("hfire")
    async with started(tmp_path, http=2) as (relay, address):
        async with connected(address, 2 * EACH) as clients:
            first = await post_each(clients, repeat(body), repeat("fire"))
            again = await post_each(clients, repeat(body), repeat("fire"))
            other = await clients[0].post(request("hother"), "fire")
            spread = relay.clients_of_http()
        remains = await relay.remains()
    kinds = Counter(map(kind_of, first))
    assert (len(spread), sum(spread), min(spread) > 0) == (2, 2 * EACH, True)
    report.say(**{each.replace(" ", "_"): count for each, count in kinds.items()}, accepted=remains.accepted[tag])
    assert kinds["sent"] == 1
    assert kinds.keys() <= {"sent", "replayed", "in flight"}
    assert Counter(map(kind_of, again)) == {"replayed": 2 * EACH}
    assert kind_of(other) == "key used"
    assert ids_of(first + again) == remains.ids[tag]
    assert remains.accepted == {tag: 1}
    assert remains.problems == []


async def test_control_of_two_hundred_posts_without_a_key_all_are_sent(tmp_path: Path, report: Report) -> None:
    async with started(tmp_path, http=2) as (relay, address):
        async with connected(address, 2 * EACH) as clients:
            answers = await post_each(clients, repeat(request("hfire")), repeat(""))
        remains = await relay.remains()
    report.say(accepted=remains.accepted["hfire"])
    assert Counter(map(kind_of, answers)) == {"sent": 2 * EACH}
    assert ids_of(answers) == remains.ids["hfire"]
    assert remains.accepted == {"hfire": 2 * EACH}


@pytest.mark.parametrize("once", [True, False], ids=["once", "control"])
async def test_a_client_that_heard_no_answer_posts_again(tmp_path: Path, report: Report, *, once: bool) -> None:
    tags = [f"h{number}" for number in range(KEYS if once else _A_KILL)]
    answers: dict[str, HttpAnswer] = {}
    async with started(tmp_path, sabotage=Sabotage.MUTE, http=2) as (relay, address):
        for start in range(0, len(tags), _A_KILL):
            some = tags[start : start + _A_KILL]
            posts = [request(each) for each in some], [each * once for each in some]
            relay.mute()
            async with connected(address, len(some)) as clients:
                unheard = asyncio.create_task(post_each(clients, *posts))
                await relay.withheld(len(some))
                await relay.kill("http")
                assert [each.status for each in await unheard] == [0] * len(some)
            await relay.ready("http", "http")
            async with connected(address, len(some)) as clients:
                answers.update(zip(some, await post_each(clients, *posts), strict=True))
        remains = await relay.remains()
    kinds = Counter(map(kind_of, answers.values()))
    report.say(**kinds, accepted=remains.accepted.total())
    assert kinds == {"replayed" if once else "sent": len(tags)}
    assert remains.accepted == dict.fromkeys(tags, 1 if once else 2)
    assert all(ids_of([answers[each]]) <= remains.ids[each] for each in tags)
    assert remains.problems == []
