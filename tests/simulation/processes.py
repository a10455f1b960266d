"""Many worlds, as many at once as there are processors, in processes of their own."""

import faulthandler
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from tests.simulation.relay import Lived, live

STUCK = 240.0  # of this machine's seconds; a world takes three of them


def live_through(seeds: Iterator[int], messages: int, stuck: float = STUCK) -> Iterator[Lived]:
    """Live through a world of each seed, which is asked for when a process is free; yield how they went.

    One that takes `stuck` seconds is ended, and says where it was; no more are begun then.
    """
    processors = os.cpu_count() or 1
    running: dict[Future[Lived], int] = {}
    with ProcessPoolExecutor(processors, multiprocessing.get_context("spawn")) as processes:
        try:
            while True:
                while len(running) < processors and (seed := next(seeds, None)) is not None:
                    running[processes.submit(_live, seed, messages, stuck)] = seed
                if not running:
                    return
                for each in wait(running, return_when=FIRST_COMPLETED).done:
                    lived = each.result()
                    del running[each]
                    yield lived
        except BrokenProcessPool:
            for unfinished in running.values():
                yield Lived(unfinished, 0, 0.0, "has not ended, or its neighbour has not")


def _live(seed: int, messages: int, stuck: float) -> Lived:
    faulthandler.dump_traceback_later(stuck, exit=True)
    try:
        return live(seed, messages)
    finally:
        faulthandler.cancel_dump_traceback_later()
