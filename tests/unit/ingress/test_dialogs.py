"""Dialogs as text (tests/dialogs/*.smtp), over a loopback socket, and octet by octet without one.

`C:` a line the client sends (lines that follow one another leave in one packet), `R:` the same without CRLF,
with escapes (`\\{x*600}` repeats); `S:` what the next reply line must begin with; `X:` the server hangs up.
Head lines: `listener:` and `limits:` settings, `accepted:` how many messages the queue got in the end, and
`cut: no` where it is the packet that matters, or what is behind the session; `turned:` why the listener's tenant is
turned away; `once:` for how long logins send the same but once; `sandbox:` that they are for trials; `rate:` that of
the tenant alice.
"""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from mta.accounts.tolls import Rate
from mta.config import Limits
from mta.ingress.access import Identity, client_at
from mta.ingress.body import Budget
from mta.ingress.questions import Accept, Authenticate, StartTls
from mta.ingress.session import Session
from mta.mail.reply import Reply
from mta.queue.gate import Turned

NOW = 1_795_222_923.0  # 2026-11-21T01:02:03Z
DIALOGS = sorted((Path(__file__).parents[2] / "dialogs").glob("*.smtp"))
assert DIALOGS


class Dialog:
    def __init__(self, path: Path) -> None:
        self.name = path.stem
        self.head: dict[str, str] = {}
        self.turns: list[tuple[bytes, list[bytes]]] = [(b"", [])]  # what is sent, what must come
        for line in path.read_text(encoding="utf-8").splitlines():
            mark, _, text = line.partition(":")
            text = text.removeprefix(" ")
            if mark in ("C", "R"):
                self._send(text.encode() + b"\r\n" if mark == "C" else unescaped(text))
            elif mark in ("S", "X"):
                self.turns[-1][1].append(text.encode() if mark == "S" else b"")
            elif not line.startswith("#"):
                self.head[mark] = text

    def __str__(self) -> str:
        return self.name

    def _send(self, data: bytes) -> None:
        if self.turns[-1][1]:
            self.turns.append((b"", []))
        self.turns[-1] = (self.turns[-1][0] + data, self.turns[-1][1])

    def settings(self, name: str) -> dict[str, str | int]:
        pairs = (each.split("=") for each in self.head.get(name, "").split())
        return {key: int(value) if value.isdigit() else value for key, value in pairs}

    def refusal(self, _: str) -> Turned | None:
        turned = self.settings("turned")
        return Turned(**turned) if turned else None  # type: ignore[arg-type]


def unescaped(text: str) -> bytes:
    text = re.sub(r"\\\{(.)\*(\d+)\}", lambda found: found[1] * int(found[2]), text)
    return text.encode().decode("unicode_escape").encode("latin-1")


@pytest.mark.parametrize("dialog", [*map(Dialog, DIALOGS)], ids=str)
async def test_over_a_socket(dialog: Dialog, serve, make_listener):
    door = await serve(make_listener(**dialog.settings("listener")), **dialog.settings("limits"))
    door.queue.refusal = dialog.refusal
    door.clock.go.set()  # wrong logins take no time
    door.people.once = float(dialog.head.get("once", "0"))
    door.people.sandbox = "sandbox" in dialog.head
    if "rate" in dialog.head:
        door.people.rates["alice"] = Rate(**dialog.settings("rate"))  # type: ignore[arg-type]
    peer = await door.open()
    for sent, expected in dialog.turns:
        if sent:
            peer.say(sent)
        for begins in expected:
            async with asyncio.timeout(5):
                line = await peer.reader.readline()
            assert line.startswith(begins)
            assert bool(line) is bool(begins)
    assert len(door.queue.accepted) == int(dialog.head["accepted"])


def octets(session: Session, data: bytes, accepted: list[bytes]) -> Iterator[bytes]:
    for octet in data:
        session.receive(bytes([octet]))
        question = session.question
        if isinstance(question, Accept):
            accepted.append(question.content)
            session.answer(Reply(250, "2.0.0", "OK queued as x"))
        elif isinstance(question, Authenticate):
            good = question.login == ("alice", "secret")
            session.answer_login(Identity("alice", "alice") if good else None)
        assert not isinstance(session.question, StartTls)
        yield session.take_output()


@pytest.mark.parametrize("dialog", [each for each in map(Dialog, DIALOGS) if "cut" not in each.head], ids=str)
def test_octet_by_octet(dialog: Dialog, make_listener):
    limits = Limits.model_validate(dialog.settings("limits"))
    listener = make_listener(**dialog.settings("listener"))
    client, budget = client_at("127.0.0.1"), Budget(1 << 20)
    session = Session(listener, limits, "mx.fairlead.test", client, budget, dialog.refusal, now=lambda: NOW)
    session.greet()
    accepted: list[bytes] = []
    output = session.take_output()
    for sent, expected in dialog.turns:
        output += b"".join(octets(session, sent, accepted))
        lines = output.splitlines()
        assert len(lines) == len([each for each in expected if each])
        assert all(line.startswith(begins) for line, begins in zip(lines, expected, strict=False))
        output = b""
    assert session.closed is (dialog.turns[-1][1][-1] == b"")
    assert len(accepted) == int(dialog.head["accepted"])
