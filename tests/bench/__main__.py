"""`scripts/bench`: how fast Fairlead accepts, relays and signs, beside Postfix in the same run.

Needs root, who alone can start a Postfix. A ratio is a report; the exit is 1 only where something failed.
"""

import argparse
import asyncio
import signal
import sys
from datetime import UTC, datetime

import uvloop

from tests.bench.contest import CONTESTS, OCTETS, Malfunction, contest
from tests.bench.figures import Run, medians, save, table
from tests.bench.sink import Sink


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measure Fairlead beside Postfix.")
    parser.add_argument("--rounds", type=_positive, default=5, help="alternating runs of each kind (default: 5)")
    parser.add_argument("--messages", type=_positive, default=3000, help="of one run (default: 3000)")
    parser.add_argument("--sessions", type=_positive, default=20, help="of the load, at once (default: 20)")
    parser.add_argument("--only", choices=CONTESTS, help="one contest alone")
    parser.add_argument("--quick", action="store_true", help="one round of 300 messages, to see whether it works")
    return parser.parse_args()


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


async def _measure(contests: list[str], sessions: int, rounds: int, messages: int) -> list[Run]:
    this = asyncio.current_task()
    assert this is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
    sink = Sink()
    await sink.start()
    runs: list[Run] = []
    for name in contests:
        print(f"bench: {name}, {rounds} rounds of {messages} messages", file=sys.stderr)
        runs += await contest(name, sink, sessions, rounds, messages)
    await sink.close()
    return runs


def main() -> int:
    given = _arguments()
    rounds, messages = (1, 300) if given.quick else (given.rounds, given.messages)
    began = datetime.now(UTC)
    try:
        runs = uvloop.run(_measure([given.only] if given.only else list(CONTESTS), given.sessions, rounds, messages))
    except (Malfunction, RuntimeError, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130
    found = list(medians(runs))
    print(f"{given.sessions} sessions, bodies of {OCTETS} octets, medians of {rounds} runs of {messages} messages\n")
    print(table(found))
    print(f"bench: {save(runs, found, began)}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
