"""Invariant: whenever the events role is killed, the log has every acknowledged event once, numbers without a gap."""

import random
import signal
import subprocess
import sys
from pathlib import Path

from mta.clock import SystemClock
from mta.events.reader import LogReader
from mta.events.segments import list_segments
from mta.spool.lmdb.spool import LmdbSpool
from mta.spool.sealing import Keyring

ROLE = """
import asyncio, sys
from pathlib import Path
from mta.clock import SystemClock
from mta.events import mover
from mta.mail.event import Event, EventType, event_id
from mta.mail.ids import new_message_id
from mta.spool.interface import Acceptance
from mta.spool.lmdb.spool import LmdbSpool
from mta.spool.records import Message, Origin
from mta.spool.sealing import Keyring

mover.GATHER = 0.001
mover.BATCH = 7

def told(name):
    message = Message(id=name, tenant="acme", sender="", origin=Origin.RELAY, accepted_at=0.0, release_at=0.0,
                      expires_at=1.0, segments=(), entries=0)
    event = Event(id=event_id(name, 0, 1), type=EventType.ACCEPTED, at=1.8e9, tenant="acme", message=name)
    return Acceptance(message=message, entries=(), events=(event,))

async def main(directory):
    clock, keyring = SystemClock(), Keyring([bytes(32)])
    spool = LmdbSpool(directory / "spool", keyring, clock, map_size=1 << 28, reserve=0)
    running = asyncio.create_task(mover.Mover(spool, directory / "events", keyring, clock).run(asyncio.Event()))
    while True:
        names = [new_message_id() for _ in range(5)]
        await spool.accept([told(name) for name in names])
        print("\\n".join(names), flush=True)

asyncio.run(main(Path(sys.argv[1])))
"""


def acknowledged_until_killed(directory: Path, count: int) -> list[str]:
    names: list[str] = []
    command = [sys.executable, "-c", ROLE, str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as role:
        assert role.stdout is not None
        for line in role.stdout:
            names.append(line.strip())
            if len(names) == count:
                role.send_signal(signal.SIGKILL)
    assert role.returncode == -signal.SIGKILL
    return [name for name in names if len(name) == 22]  # the last line may be half of one


async def test_kill_at_random_instants(tmp_path: Path) -> None:
    rng = random.Random(11)
    acknowledged: list[str] = []
    for _ in range(6):
        acknowledged += acknowledged_until_killed(tmp_path, rng.randint(20, 300))
    keyring = Keyring([bytes(32)])
    spool = LmdbSpool(tmp_path / "spool", keyring, SystemClock(), map_size=1 << 28, reserve=0)
    log = await LogReader(spool, tmp_path / "events", keyring).read(0, 1_000_000)
    await spool.close()
    assert [each.seq for each in log] == list(range(1, len(log) + 1))
    names = [each.event.message for each in log]
    assert len(set(names)) == len(names)
    assert [name for name in names if name in set(acknowledged)] == acknowledged, "each, in the order of the commits"
    assert list_segments(tmp_path / "events")
