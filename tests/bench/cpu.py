"""Processor time, as the kernel counts it: of the machine, and of families of processes. In seconds."""

import os
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")


def of_machine() -> float:
    """Time in which the processors have been busy, since the machine was started."""
    user, nice, system, _idle, _iowait, *rest = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    return sum(map(int, (user, nice, system, *rest))) / _TICK


def of_families(heads: Collection[int]) -> float:
    """Time used by processes and all that descend from them: by those that live, and those that these waited for."""
    parents: dict[int, int] = {}
    used: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(") ")[2].split()
        except (FileNotFoundError, ProcessLookupError):  # it has just ended
            continue
        pid = int(path.parent.name)
        parents[pid] = int(fields[1])
        used[pid] = sum(map(int, fields[11:15]))  # utime, stime, cutime, cstime of proc(5)

    def belongs(pid: int) -> bool:
        while pid and pid not in heads:
            pid = parents.get(pid, 0)
        return pid in heads

    return sum(ticks for pid, ticks in used.items() if belongs(pid)) / _TICK


def busy_share(seconds: float) -> float:
    """Watch for a while how much of the machine is used, from 0 to 1."""
    before = of_machine()
    time.sleep(seconds)
    return (of_machine() - before) / seconds / (os.cpu_count() or 1)


@contextmanager
def alone() -> Iterator[None]:
    """Keep this thread, and processes that it starts, on one processor.

    Whoever wakes another up on a second virtual one pays for the interrupt there: tens of microseconds of his time.
    """
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
