"""Deadlines: how many entries a second expire when more fall due at once than can be ended in their time.

A process of its own: `python -m tests.bench.expiry SENDER MESSAGES DIRECTORY` prints expiries a second, and
microseconds of CPU that one takes. With a sender each has a DSN to write; "-" is the null sender. The queue and its
spool on disk, with the process that writes to it, log and all, as the delivery role has them; nothing else is at work.
"""

import asyncio
import os
import sys
import time
from pathlib import Path

import uvloop

from mta import logs
from mta.companion import Household
from mta.config import Retry
from mta.lab.clock import FakeClock
from mta.mail.envelope import Envelope, Recipient
from mta.mail.ids import new_message_id
from mta.queue.queue import Queue
from mta.queue.submission import Submission
from mta.spool.lmdb.spool import LmdbSpool
from mta.spool.records import Origin
from mta.spool.sealing import Keyring
from tests.bench.cpu import of_families

OCTETS = 2000
_CONTENT = b"From: app@bench.test\r\nSubject: bench\r\n\r\n" + (b"x" * 74 + b"\r\n") * (OCTETS // 76)
_LIFETIME = 600.0  # seconds
_TOGETHER = 200  # accepted at once
_DOMAINS, _TENANTS = 100, 5


def _submission(number: int, sender: str, now: float) -> Submission:
    envelope = Envelope(
        sender=sender, recipients=(Recipient(f"to@d{number % _DOMAINS}.test"),), deliver_by=now + _LIFETIME
    )
    return Submission(
        id=new_message_id(), tenant=f"t{number % _TENANTS}", envelope=envelope, origin=Origin.RELAY, content=_CONTENT
    )


async def _measure(sender: str, messages: int, directory: Path) -> tuple[float, float]:
    clock, settings = FakeClock(), logs.Settings("text", "info")
    logs.configure(settings, "delivery", (directory / "log").open("w", encoding="utf-8"), gather=True)
    spool = LmdbSpool(
        directory / "spool", Keyring([os.urandom(32)]), clock, map_size=4 << 30, reserve=0,
        apart=Household("delivery", settings),
    )  # fmt: skip
    queue = Queue(spool, clock, "relay.test", Retry(), lambda: None)
    await queue.take_over()
    for first in range(0, messages, _TOGETHER):
        several = range(first, min(first + _TOGETHER, messages))
        await asyncio.gather(*[queue.accept(_submission(each, sender, clock.now())) for each in several])
    await clock.advance(_LIFETIME + 1)
    spent, began, done = of_families([os.getpid()]), time.perf_counter(), 0
    while expired := await queue.run_timers():
        done += expired
    took, spent = time.perf_counter() - began, of_families([os.getpid()]) - spent
    if done != messages:
        raise RuntimeError(f"{done} of {messages} have expired")
    await spool.close()
    return messages / took, 1e6 * spent / messages


if __name__ == "__main__":
    sender = "" if sys.argv[1] == "-" else sys.argv[1]
    print(*uvloop.run(_measure(sender, int(sys.argv[2]), Path(sys.argv[3]))))
