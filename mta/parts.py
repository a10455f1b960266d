"""What roles have in common: the parts that each process of one shares, and what a role is to its process."""

from collections.abc import Sequence
from socket import socket
from typing import Protocol

import msgspec

from mta.clock import Clock
from mta.config import Config
from mta.control import Commands
from mta.queue.doorbell import Doorbell
from mta.queue.gate import Gate
from mta.queue.queue import Queue
from mta.spool.lmdb.opening import open_keyring, open_spool


class CannotStart(Exception):
    """A role cannot start, and would not the next time either; the message says what to change."""


class Parts:
    """What every role of a process shares: configuration, clock, keys, spool, doorbell, queue."""

    def __init__(self, config: Config, clock: Clock, role: str = "") -> None:
        """Open the spool; Unavailable when it cannot be used. `role` is whose process this is, "" for a shared one."""
        self.config = config
        self.role = role
        self.clock = clock
        self.keyring = open_keyring(config)
        self.spool = open_spool(config, clock, self.keyring, role)
        config.run_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
        self.bell = Doorbell(config.doorbell)
        self.gate = Gate(
            self.spool,
            clock,
            headroom=config.capacity.headroom,
            longest_wait=config.capacity.longest_wait or config.retry.lifetime,
        )
        self.queue = Queue(self.spool, clock, config.hostname, config.retry, self.bell.ring, refusal=self.gate.refusal)

    async def close(self) -> None:
        """Finish the commits that were begun and close the spool."""
        await self.gate.close()
        self.bell.close()
        await self.spool.close()


class RoleStatus(msgspec.Struct, frozen=True):
    """What every role says of itself."""

    role: str
    state: str
    spool: str
    detail: dict[str, str | int | float] = {}


class Role(Protocol):
    """What runs in a process."""

    async def start(self, sockets: Sequence[socket]) -> None:
        """Begin; returns when the role does its work. CannotStart or OSError when it cannot."""

    async def drain(self, seconds: float) -> None:
        """Begin nothing new, and give what is under way `seconds` to end."""

    async def close(self) -> None:
        """Let go of everything."""

    def detail(self) -> dict[str, str | int | float]:
        """Say how it goes."""

    def commands(self) -> Commands:
        """Name what it answers on its control socket beside what every role does."""
