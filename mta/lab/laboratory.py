"""The laboratory put together: a DNS zone, receiving MXs, a policy host and a private CA, and what they caught.

All of it is on loopback. Every domain under `test.` has its mail at `mx1.lab.test`, and `mta.lab.behaviour` says what
happens there; `publish_policy` gives it an MTA-STS policy.
In its directory: `mail/` (captured messages), `tls/` (certificates), `state/` (of the relay under study).
"""

import asyncio
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import yaml

from mta.clock import Clock
from mta.config import HostPort
from mta.lab.ca import PrivateCa
from mta.lab.dns import DnsServer, Zone
from mta.lab.mailbox import Captured, Mailbox
from mta.lab.mx import MxSettings, ReceivingMx
from mta.lab.policy_host import DEAF_HOST, Hosting, PolicyHost
from mta.lab.signatures import Signature, verify

RELAY_HOSTNAME = "relay.test"
_KEPT = 1000  # messages, in memory and on disk


class RelayPorts(NamedTuple):
    """Where the relay under study listens on 127.0.0.1."""

    relay: int = 2525
    submission: int = 2587
    submissions: int = 2465
    http: int = 8025


class Laboratory:
    """A small internet; port 0, in `mx` or of the DNS, is the system's choice.

    `zone` is where tests set records and failures. `captured` has the last 1,000 messages, `total` counts
    all of them; `certificate` is for the relay's own listeners.
    """

    def __init__(self, directory: Path, clock: Clock, *, mx: MxSettings | None = None, dns_port: int = 0) -> None:
        self.directory = directory.resolve()
        self.clock = clock
        self.mailbox = Mailbox(self.directory / "mail", _KEPT)
        self.ca = PrivateCa(self.directory / "tls")
        self.certificate = self.ca.issue(RELAY_HOSTNAME, "localhost", "127.0.0.1", "::1")
        self.zone = Zone()
        self.dns = DnsServer(self.zone, port=dns_port)
        self.captured: deque[Captured] = deque(maxlen=_KEPT)
        self.total = 0
        self._arrival = asyncio.Event()
        self._further: list[ReceivingMx] = []
        self.mx = self._receiving_mx(mx or MxSettings())
        self.zone.wildcard_mx = self.mx.settings.hostname
        self.policy_host = PolicyHost(self.ca, clock)

    @property
    def dns_address(self) -> HostPort:
        """Where the DNS server answers; its port is known once it has started."""
        return self.dns.address

    @property
    def mx_port(self) -> int:
        """The port of the receiving MX; known once it has started."""
        return self.mx.address.port

    @property
    def ca_file(self) -> Path:
        """The CA whom the relay has to trust, PEM."""
        return self.ca.ca_file

    async def start(self) -> None:
        """Start DNS, MX and policy host; OSError, and nothing started, if a port is taken."""
        try:
            await self.dns.start()
            await self.mx.start()
            await self.policy_host.start()
        except OSError:
            await self.close()
            raise

    async def start_mx(self, settings: MxSettings) -> ReceivingMx:
        """Start one more receiving MX, say at 127.0.0.2 and the same port; the zone knows its address."""
        further = self._receiving_mx(settings)
        await further.start()
        self._further.append(further)
        return further

    def publish_policy(self, domain: str, text: str, *, announced: str = "1", hosting: Hosting = Hosting.GOOD) -> None:
        """Let a domain have an MTA-STS policy: announce it with an id, and have the policy host serve it as told."""
        self.zone.set_txt(f"_mta-sts.{domain}", f"v=STSv1; id={announced};")
        self.zone.set(f"mta-sts.{domain}", "A", DEAF_HOST if hosting is Hosting.DEAF else self.policy_host.address.host)
        self.policy_host.put(domain, text, hosting)

    async def close(self) -> None:
        """Stop all servers; captured mail stays."""
        for each in (self.mx, *self._further):
            await each.close()
        await self.policy_host.close()
        await self.dns.close()

    async def wait_for(self, wanted: int | Callable[[Captured], bool], timeout: float) -> list[Captured]:
        """Wait until so many messages, or one of a kind, are there; return all messages, or those of the kind.

        `timeout` is in real seconds, whatever the laboratory's clock; TimeoutError says what was captured.
        """
        try:
            async with asyncio.timeout(timeout):
                while not (found := self._found(wanted)):
                    await self._arrival.wait()
                return found
        except TimeoutError:
            last = [each.address for captured in self.captured for each in captured.envelope.recipients][-10:]
            raise TimeoutError(f"{self.total} messages after {timeout} s, the last recipients: {last}") from None

    def _found(self, wanted: int | Callable[[Captured], bool]) -> list[Captured]:
        if isinstance(wanted, int):
            return list(self.captured) if self.total >= wanted else []
        return [each for each in self.captured if wanted(each)]

    def verify(self, captured: Captured) -> list[Signature]:
        """Verify the DKIM signatures of a message with the keys in the zone."""
        return verify(captured.content, self.zone.texts)

    def _receiving_mx(self, settings: MxSettings) -> ReceivingMx:
        host, name = settings.address.host, settings.hostname
        self.zone.set(name, "AAAA" if ":" in host else "A", host)
        return ReceivingMx(settings, self.ca.issue(name, host), self.clock, self._capture)

    def _capture(self, captured: Captured) -> str:
        name = self.mailbox.add(captured)
        self.captured.append(captured)
        self.total += 1
        self._arrival.set()
        self._arrival = asyncio.Event()
        return name


def lab_config(laboratory: Laboratory, ports: RelayPorts, tenant: str = "lab") -> str:
    """Write the configuration of a relay that lives in a started laboratory (YAML, with short retries)."""

    def listener(port: int, kind: str, tls: str) -> dict[str, object]:
        return {"address": f"127.0.0.1:{port}", "kind": kind, "tls": tls}

    loopback = {"networks": ["127.0.0.0/8", "::1/128"], "tenant": tenant}
    settings = {
        "hostname": RELAY_HOSTNAME,
        "state_dir": str(laboratory.directory / "state"),
        "listeners": [
            listener(ports.relay, "relay", "none") | loopback,
            listener(ports.submission, "submission", "starttls"),
            listener(ports.submissions, "submission", "implicit"),
        ],
        "http": {"address": f"127.0.0.1:{ports.http}"},
        "tls": {"certificate": str(laboratory.certificate.certificate), "key": str(laboratory.certificate.key)},
        "dns": {"servers": [str(laboratory.dns_address)], "timeout": 3},
        "retry": {"intervals": [2, 5, 10, 30], "lifetime": 600, "delay_notice": 60},
        "delivery": {
            "port": laboratory.mx_port,
            "allow_private_targets": True,
            "ca_file": str(laboratory.ca_file),
        },
        "sts": {"port": laboratory.policy_host.address.port},
        "spool": {"reserve": "16MiB"},
    }
    return yaml.safe_dump(settings, sort_keys=False)
