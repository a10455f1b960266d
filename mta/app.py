"""The composition root: the parts of each role put together, started, drained and stopped.

A role is one process with one event loop; roles share the spool and the doorbell. Tests run several roles
in one loop with a clock of their own. Nothing here decides anything about mail.
"""

import asyncio
import contextlib
import logging
import os
import socket
import ssl
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from mta.accounts.dkim_keys import load_or_create_sealing_key
from mta.clock import Clock, SystemClock
from mta.config import Config, HostPort, Listener
from mta.control import ControlServer, NotRunning, ask
from mta.delivery.attempt import Attempter
from mta.delivery.dispatcher import Dispatcher
from mta.delivery.resolver import Resolver
from mta.delivery.signing import Signer
from mta.events.mover import Mover
from mta.ingress.server import Ingress
from mta.queue.doorbell import Doorbell, DoorbellSocket
from mta.queue.queue import Queue
from mta.spool.lmdb.opening import open_keyring, open_spool
from relay_http.app import create_app
from relay_http.server import HttpServer

log = logging.getLogger(__name__)

DRAIN = 30.0  # seconds that SIGTERM gives to what is under way


class Role(Protocol):
    """What runs in a process."""

    async def start(self) -> None:
        """Begin; returns when the role does its work."""

    async def drain(self, seconds: float) -> None:
        """Begin nothing new and let what is under way end, for `seconds` at most."""

    async def close(self) -> None:
        """Let go of everything."""

    async def status(self) -> msgspec.Struct:
        """Say how it goes, for the control socket."""


class Parts:
    """What every role of a process shares: spool, queue, doorbell, clock."""

    def __init__(self, config: Config, clock: Clock) -> None:
        """Open the spool; Unavailable when it cannot be used."""
        self.config = config
        self.clock = clock
        self.keyring = open_keyring(config)
        self.spool = open_spool(config, clock, self.keyring)
        config.run_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
        self.bell = Doorbell(config.run_dir / "delivery.bell")
        self.queue = Queue(self.spool, clock, config.hostname, config.retry, self.bell.ring)

    async def close(self) -> None:
        """Close the spool after what was begun."""
        self.bell.close()
        await self.spool.close()
