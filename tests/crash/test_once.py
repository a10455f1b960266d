"""What is asked for twice is done once: by two processes at a time, and by a client that heard no answer (C2)."""

import asyncio
import smtplib
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from mta.spool.lmdb.care import verify
from mta.spool.sealing import load_or_create_keyring
from tests.crash.checker import survey
from tests.crash.conftest import Report
from tests.crash.letters import letter, recipients_of, sender_of
from tests.crash.relay import Relay
from tests.crash.rush import BURST
from tests.crash.sabotage import ROOT, Sabotage
from tests.crash.sink import Sink

EACH = 100


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
    sink, tag, replies = Sink(), "once", list[str]()
    await sink.start()
    relay = Relay(tmp_path, tmp_path / "state", sink.port, Sabotage.DIE_MUTE)
    try:
        relay.prepare()
        host, port, password = relay.login("printer", *(("--once", "600") if once else ()))
        relay.start()
        await relay.ready("ingress")
        for mute in (True, False, False):
            if mute:
                relay.mute()
            replies.append(await asyncio.to_thread(submit, host, port, "printer", password, tag))
            if mute:
                await relay.ready("ingress")
        assert await relay.stop() == 0
    finally:
        relay.close()
        await sink.close()
    remains = await survey(relay.place)
    report.say(accepted=remains.accepted[tag], replies=len(set(replies)))
    assert replies[0] == ""
    assert all(each.startswith("250 2.0.0 OK queued as ") for each in replies[1:])
    assert (replies[1] == replies[2]) is once
    assert remains.accepted == {tag: 1 if once else 3}
    assert remains.problems == []
