"""A process that asks for the same at once: `python -m tests.crash.rush SPOOL KEYFILE NAME COUNT`.

It says `ready`, waits for a line, has COUNT messages accepted under NAME, on a rate of which ten are to be had,
and says what came of each.
"""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from mta.clock import SystemClock
from mta.spool.interface import Keep, Kept, Taken, Terms, Toll
from mta.spool.lmdb.spool import LmdbSpool
from mta.spool.sealing import load_keyring
from tests.contract.spool_contract import NOW, a_message

BURST = 10


def terms(name: str, number: int) -> Terms:
    """Those of one of the messages: with a name they are all the same, without one each is by itself."""
    keep = Keep(name, b"digest", f"{name} {number}".encode(), NOW + 60) if name else None
    return Terms(now=NOW, keep=keep, tolls=(Toll("rush", 60.0, BURST, 1),))


async def _run(spool_dir: str, key_file: str, name: str, count: str) -> None:
    spool = LmdbSpool(Path(spool_dir), load_keyring(Path(key_file)), SystemClock(), map_size=1 << 30, reserve=0)
    print("ready", flush=True)
    sys.stdin.readline()
    numbers = range(int(count))
    for result in await asyncio.gather(*(spool.accept_on([a_message()], terms(name, each)) for each in numbers)):
        about = result.position if isinstance(result, Taken | Kept) else ""
        print(type(result).__name__, about, result.value.decode() if isinstance(result, Kept) else "", flush=True)
    await spool.close()


def main(arguments: Sequence[str]) -> None:
    """Run once."""
    asyncio.run(_run(*arguments))


if __name__ == "__main__":
    main(sys.argv[1:])
