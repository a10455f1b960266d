"""The story of an operator with nothing but HTTP, with the relay as its users run it: every role a process."""

import json
import smtplib
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mta.lab.laboratory import RelayPorts, lab_config
from tests.interop.laboratory import LaboratoryThread, laboratory
from tests.interop.processes import free_ports
from tests.interop.relay import Relay

LIMIT = 20.0  # seconds
LETTER = b"Subject: a story\r\n\r\nOnce upon a time.\r\n"


class Management:
    """A relay in its laboratory, with the key of its operator."""

    def __init__(self, lab: LaboratoryThread, relay: Relay, ports: RelayPorts, key: str) -> None:
        self.lab = lab
        self.relay = relay
        self._ports = ports
        self._key = key

    def send(self, recipient: str) -> str:
        with smtplib.SMTP("127.0.0.1", self._ports.relay, timeout=LIMIT) as client:
            client.ehlo()
            client.mail("sender@origin.test")
            client.rcpt(recipient)
            _, said = client.data(LETTER)
        return said.rpartition(b" ")[2].decode()

    def ask(self, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self._ports.http}/admin/v1/queue{path}", data)
        request.add_header("Authorization", f"Bearer {self._key}")
        with urllib.request.urlopen(request, timeout=LIMIT) as answer:
            return json.load(answer)

    def gate(self, message: str) -> Any:
        (entry,) = self.ask(f"/{message}/explain")["entries"]
        return entry

    def until(self, message: str, gate: str) -> Any:
        return until(lambda: (entry := self.gate(message))["gate"] == gate and entry)

    def cancel(self, message: str) -> str:
        (result,) = self.ask(f"/{message}/cancel", {})["results"]
        return str(result["result"])


def until(found: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + LIMIT
    while not (result := found()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return result


@pytest.fixture
def management(tmp_path: Path) -> Iterator[Management]:
    with laboratory(tmp_path / "lab") as lab:
        ports = RelayPorts(*free_ports(4))
        settings = yaml.safe_load(lab_config(lab.lab, ports)) | {"retry": {"intervals": [3600]}}
        relay = Relay(tmp_path, settings)
        relay.tell("tenants", "create", "lab")
        key = relay.tell("keys", "create", "--operator", "--scope", "manage")["key"]
        with relay.serving():
            yield Management(lab, relay, ports, key)


def test_held_explained_released_and_delivered(management: Management) -> None:
    message = management.send("tempfail-1@rcpt.test")
    waits = management.until(message, "retry")
    assert waits["reply"] == "451 4.3.0 temporary failure 1 of 1"
    assert 3000 < waits["next_at"] - waits["since_at"] < 4200
    assert (waits["rate_of"], waits["delivery"]) == ("lane", None)
    assert waits["estimated_at"] == waits["next_at"]
    counted = management.ask("/hold", {"where": ["domain=rcpt.test"]})
    done = management.ask("/hold", {"where": ["domain=rcpt.test"], "confirm": counted["entries"]})
    assert (counted["entries"], done["changed"]) == (1, 1)
    held = management.gate(message)
    assert held["gate"] == "held"
    assert held["why"].startswith("held by the operator, key ")
    assert management.ask(f"/{message}/retry", {})["results"][0]["result"] == "unchanged"
    assert management.ask(f"/{message}/release", {})["results"][0]["result"] == "changed"
    assert management.gate(message)["gate"] == "retry"
    assert management.ask(f"/{message}/retry", {})["results"][0]["result"] == "changed"
    (recipient,) = management.lab.holding("Once upon a time").envelope.recipients
    assert recipient.address == "tempfail-1@rcpt.test"
    ended = management.until(message, "ended")
    assert (ended["why"], ended["reply"][:3]) == ("delivered", "250")
    assert management.cancel(message) == "delivered"


def test_cancelled_in_flight(management: Management) -> None:
    message = management.send("tempfail-9@rcpt.test")
    management.until(message, "retry")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        relay = f"127.0.0.1:{silent.getsockname()[1]}"
        assert management.ask(f"/{message}/redirect", {"to": relay})["results"][0]["result"] == "changed"
        management.ask(f"/{message}/retry", {})
        silent.settimeout(LIMIT)
        called, _ = silent.accept()
        with called:
            trying = management.gate(message)
            assert (trying["gate"], trying["attempts"]) == ("in_flight", 2)
            assert time.time() - trying["since_at"] < LIMIT
            assert management.cancel(message) in ("in_flight", "cancelled")  # it may be broken off by then
    assert until(lambda: management.cancel(message) == "cancelled")
    assert management.gate(message)["why"].startswith("cancelled: cancelled by the operator, key ")
