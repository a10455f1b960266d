"""`scripts/bench`: how fast Fairlead accepts, relays, signs and takes HTTP, beside its rivals in the same run.

Needs root, who alone can start a Postfix. A ratio is a report; the exit is 1 only where something failed.
"""

import argparse
import asyncio
import itertools
import signal
import sys
from datetime import UTC, datetime
from typing import get_args

import uvloop

from tests.bench import cpu
from tests.bench.contest import Bench, contest
from tests.bench.dialect import dialects
from tests.bench.figures import Cell, Expiry
from tests.bench.haraka import PACKAGE
from tests.bench.orders import Load, Malfunction
from tests.bench.report import Found, save
from tests.bench.sending import sending
from tests.bench.servers import Contest
from tests.bench.sink import Sink
from tests.interop.peers import disk_directory

_CONTESTS = (*get_args(Contest), "http", "dialect", "client", "expiry")
_ALL = {"sessions": (1, 20, 200), "octets": (2_000, 50_000, 1_000_000), "destinations": (1, 1000)}
_USUAL = {"sessions": (20,), "octets": (2_000,), "destinations": (1,)}
_QUICK = 10  # times fewer messages
_CLIENT_MESSAGES = 10_000
_CLIENT_SECONDS = 60.0
_EXPIRIES = 8_000
_EXPIRY_SECONDS = 120.0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measure Fairlead beside its rivals.")
    parser.add_argument("--all", action="store_true", help="the whole matrix, with Haraka: some three hours")
    parser.add_argument("--only", choices=_CONTESTS, nargs="+", default=_CONTESTS, help="these contests")
    for name, values in _ALL.items():
        parser.add_argument(f"--{name}", type=int, choices=values, nargs="+", help="these alone")
    parser.add_argument("--connections", choices=("kept", "fresh"), nargs="+", default=("fresh", "kept"))
    parser.add_argument("--rounds", type=_positive, default=5, help="alternating runs of each kind (default: 5)")
    parser.add_argument("--quick", action="store_true", help="one round of few messages, to see whether it works")
    return parser.parse_args()


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _cells(given: argparse.Namespace) -> list[Cell]:
    axes = _ALL if given.all else _USUAL
    contests = [each for each in get_args(Contest) if each in given.only]
    cells = itertools.starmap(Cell, itertools.product(contests, *(vars(given)[x] or axes[x] for x in axes)))
    return [each for each in cells if each.contest != "sts" or each.destinations == 1]  # one policy, which is known


async def _measure(given: argparse.Namespace, found: Found) -> None:
    """Measure all that is wanted; what was found so far is kept whatever happens."""
    this = asyncio.current_task()
    assert this is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
    sink = Sink()
    await sink.start()
    rounds, shrink = (1, _QUICK) if given.quick else (given.rounds, 1)
    async with Load() as load:
        bench = Bench(load, sink, rounds, shrink, with_haraka=given.all)
        if "client" in given.only:
            print("bench: delivery/smtp alone", file=sys.stderr)
            with cpu.alone():
                for connections in (1, 20) * rounds:
                    found.clients.setdefault(connections, []).append(await _client(sink, connections, shrink))
        if "expiry" in given.only:
            print("bench: deadlines", file=sys.stderr)
            for sender in ("-", "app@bench.test") * rounds:
                kind = "without a DSN" if sender == "-" else "with a DSN each"
                found.expiries.setdefault(kind, []).append(await _expiry(sender, shrink))
        cells = _cells(given)
        for number, cell in enumerate(cells, 1):
            print(f"bench: {cell} ({number} of {len(cells)})", file=sys.stderr)
            try:
                found.runs.extend(await contest(bench, cell, [each == "kept" for each in given.connections]))
            except (Malfunction, RuntimeError) as error:  # the other cells are worth having
                found.failures.append(f"{cell}: {error}")
        if "http" in given.only:
            print("bench: http", file=sys.stderr)
            found.posted.extend(await sending(bench))
        if "dialect" in given.only:
            print("bench: the SendGrid dialect", file=sys.stderr)
            found.dialects.extend(await dialects(bench))
    await sink.close()


async def _client(sink: Sink, connections: int, shrink: int) -> float:
    (microseconds,) = await _alone(
        "client", str(sink.address), str(connections), str(_CLIENT_MESSAGES // shrink), seconds=_CLIENT_SECONDS
    )
    return microseconds


async def _expiry(sender: str, shrink: int) -> Expiry:
    with disk_directory("bench") as directory:
        return Expiry(
            *await _alone("expiry", sender, str(_EXPIRIES // shrink), str(directory), seconds=_EXPIRY_SECONDS)
        )


async def _alone(module: str, *arguments: str, seconds: float) -> list[float]:
    """Run one of our modules in a process of its own, and return the figures that it prints."""
    command = ["-m", f"tests.bench.{module}", *arguments]
    process = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(seconds):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise Malfunction(f"tests.bench.{module} has failed")
    return [float(each) for each in said.split()]


def main() -> int:
    given = _arguments()
    if given.all and not PACKAGE.exists():
        print("bench: Haraka is not there: scripts/setup bench", file=sys.stderr)
        return 1
    began, found = datetime.now(UTC), Found([], [], {}, {}, [], [])
    try:
        uvloop.run(_measure(given, found))
    except (Malfunction, RuntimeError, OSError) as error:
        found.failures.append(str(error))
    except (KeyboardInterrupt, asyncio.CancelledError):
        found.failures.append("interrupted")
    print(f"bench: {save(found, began)}", file=sys.stderr)
    print("\n\n".join(found.tables()))
    for failure in found.failures:
        print(f"bench: {failure}", file=sys.stderr)
    return 1 if found.failures else 0


if __name__ == "__main__":
    sys.exit(main())
