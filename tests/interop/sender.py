"""Who hands mail to a relay, and hears from its events what became of it."""

import smtplib
import time
from typing import Any, NamedTuple

from tests.interop.letters import letter
from tests.interop.relay import Relay

_WAITING = 30.0  # seconds


class Sender(NamedTuple):
    """The relay, and where it takes mail."""

    relay: Relay
    port: int

    def send(self, domain: str) -> str:
        """Hand it a letter to somebody in a domain; gives the recipient."""
        sent = letter("plain")
        recipient = f"{sent.local_part}@{domain}"
        with smtplib.SMTP("127.0.0.1", self.port, timeout=30) as client:
            client.sendmail(sent.sender, [recipient], sent.content)
        return recipient

    def heard(self, recipient: str, kind: str) -> dict[str, Any]:
        """Wait for the first event of a kind about a recipient."""
        until = time.monotonic() + _WAITING
        while time.monotonic() < until:
            events = [each for each in self.relay.ask("events") if each.get("recipient") == recipient]
            for each in events:
                if each["type"] == kind:
                    return each
            time.sleep(0.2)
        raise AssertionError(events)
