"""Crash states of a spool, made from the system calls of a process that used it.

strace records what the process wrote, synced and said. A disk that loses power keeps what was synced, and of
the rest any 512-octet sectors, in any order: `states` makes files as such a disk may leave them. A write
through a descriptor with O_DSYNC is synced when it has returned (LMDB's meta pages), any other when an
fdatasync that began after it has returned.
"""

import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from tests.crash.sabotage import ROOT

SECTOR = 512
_CALLS = "openat,pwrite64,pwritev,pwritev2,write,writev,lseek,fdatasync,fsync,ftruncate"
_WHOLE_WRITES = "8388608"  # octets of a write that strace shows
_LINE = re.compile(r"(\d+)\s+(?:<\.\.\. (\w+) resumed>)?(.*)")
_CALL = re.compile(r"(\w+)\((.*)\)\s+= (-?\d+)")
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


class Write(NamedTuple):
    """Octets that went to the file. Instants are lines of the trace: when the call began and had returned."""

    offset: int
    data: bytes
    began: int
    ended: int
    dsync: bool


class Sync(NamedTuple):
    """A completed fsync or fdatasync of the file."""

    began: int
    ended: int


class Said(NamedTuple):
    """A line on standard output."""

    line: str
    began: int


class Trace(NamedTuple):
    """All that happened, in order."""

    writes: list[Write]
    syncs: list[Sync]
    said: list[Said]
    lines: int


class Keep(StrEnum):
    """What of the unsynced writes has reached the disk."""

    NOTHING = "nothing"
    PREFIX = "prefix"  # the first of them, the last of those torn
    SOME = "some"  # any of them: later ones without earlier ones
    SECTORS = "sectors"  # any sectors of any of them
    ALL = "all"


class State(NamedTuple):
    """The file as a crash may have left it, and what had been said by then."""

    at: int
    keep: Keep
    image: bytes
    said: list[str]


def record(command: Sequence[str], environ: Mapping[str, str], output: Path) -> None:
    """Run a Python module under strace; FileNotFoundError without strace."""
    strace = shutil.which("strace")
    if strace is None:
        raise FileNotFoundError("strace (Debian: apt-get install strace)")
    subprocess.run(
        [strace, "-f", "-xx", "-s", _WHOLE_WRITES, "-e", f"trace={_CALLS}", "-e", "signal=none", "-o", str(output),
         sys.executable, "-m", *command],
        check=True, stdout=subprocess.DEVNULL, timeout=120, cwd=ROOT, env=environ,
    )  # fmt: skip


def read_trace(trace: Path, data_file: Path) -> Trace:
    """Read what was recorded about one file and standard output."""
    reader = _Reader(str(data_file))
    with trace.open(encoding="ascii") as lines:
        for number, line in enumerate(lines):
            reader.line(number, line)
    return Trace(reader.writes, reader.syncs, reader.said, reader.number + 1)


class _Reader:
    """Puts calls that were interrupted by other threads together and follows the file's descriptors."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._unfinished: dict[str, tuple[int, str]] = {}
        self._open: dict[int, bool] = {}  # descriptors of the file -> O_DSYNC
        self._position: dict[int, int] = {}
        self.writes: list[Write] = []
        self.syncs: list[Sync] = []
        self.said: list[Said] = []
        self.number = 0

    def line(self, number: int, line: str) -> None:
        self.number = number
        found = _LINE.fullmatch(line.rstrip("\n"))
        assert found is not None, line[:200]
        thread, resumed, text = found.groups()
        if text.endswith("<unfinished ...>"):
            self._unfinished[thread] = (number, text.removesuffix("<unfinished ...>").rstrip())
            return
        began = number
        if resumed:
            began, start = self._unfinished.pop(thread)
            text = start + text
        call = _CALL.match(text)
        if call is not None and int(call[3]) >= 0:
            self._call(call[1], call[2], int(call[3]), began)

    def _call(self, name: str, arguments: str, result: int, began: int) -> None:
        if name == "openat":
            self._opened(arguments, result)
            return
        fd = int(arguments.split(",", 1)[0])
        if name == "write" and fd == 1:
            self.said += [Said(line, began) for line in _octets(arguments).decode().splitlines()]
        elif fd not in self._open:
            return
        elif name == "lseek":
            self._position[fd] = result
        elif name in ("fsync", "fdatasync"):
            self.syncs.append(Sync(began, self.number))
        elif name == "ftruncate":
            raise AssertionError("the spool is never cut: the model of crashes does not know it")
        else:
            self._wrote(name, arguments, result, fd, began)

    def _opened(self, arguments: str, fd: int) -> None:
        self._open.pop(fd, None)
        if _octets(arguments).decode() == self._path:
            self._open[fd] = "O_DSYNC" in arguments or "O_SYNC" in arguments
            self._position[fd] = 0

    def _wrote(self, name: str, arguments: str, written: int, fd: int, began: int) -> None:
        data = _octets(arguments)
        assert len(data) == written, "a short write"
        if name.startswith("pwrite"):
            offset = int(arguments.rsplit(",", 1)[1])
        else:
            offset = self._position[fd]
            self._position[fd] += written
        self.writes.append(Write(offset, data, began, self.number, self._open[fd]))


def _octets(arguments: str) -> bytes:
    return bytes.fromhex("".join(each.replace("\\x", "") for each in _STRING.findall(arguments)))


def states(base: bytes, trace: Trace, count: int, rng: random.Random) -> Iterator[State]:
    """Make `count` crash states, in order, at instants spread over the trace from its first write on.

    `base` is what was on the disk before it.
    """
    first = trace.writes[0].began
    instants = sorted(rng.randrange(first, trace.lines) for _ in range(count))
    disk = bytearray(base)
    waiting = list(trace.writes)
    for at in instants:
        syncs = [each for each in trace.syncs if each.ended <= at]
        last_sync = max((each.began for each in syncs), default=-1)
        unsynced: list[Write] = []
        for write in waiting:
            if write.ended <= last_sync or (write.dsync and write.ended <= at):
                _apply(disk, write.offset, write.data)
            else:
                unsynced.append(write)
        waiting = unsynced
        keep = rng.choice(list(Keep))
        image = bytearray(disk)
        for offset, data in _kept([each for each in waiting if each.began <= at], keep, rng):
            _apply(image, offset, data)
        yield State(at, keep, bytes(image), [each.line for each in trace.said if each.began <= at])


def _apply(image: bytearray, offset: int, data: bytes) -> None:
    if len(image) < offset + len(data):
        image.extend(bytes(offset + len(data) - len(image)))
    image[offset : offset + len(data)] = data


def _kept(writes: list[Write], keep: Keep, rng: random.Random) -> Iterator[tuple[int, bytes]]:
    if keep is Keep.NOTHING or not writes:
        return
    if keep is Keep.PREFIX:
        *before, last = writes[: rng.randint(1, len(writes))]
        yield from ((each.offset, each.data) for each in before)
        yield last.offset, last.data[: SECTOR * rng.randint(0, len(last.data) // SECTOR)]
        return
    for write in writes:
        if keep is Keep.SECTORS:
            for start in range(0, len(write.data), SECTOR):
                if rng.random() < 0.5:
                    yield write.offset + start, write.data[start : start + SECTOR]
        elif keep is Keep.ALL or rng.random() < 0.5:
            yield write.offset, write.data
