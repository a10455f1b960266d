"""The views are built in a process of their own, which only gets the CPU that others leave.

The role's side is Building, the other `main`. The first frame tells where everything is; an empty one asks for a look
at the log, `rebuild` to begin anew; back comes the progress.
"""

import asyncio
import os
import time
from contextlib import suppress
from pathlib import Path

import msgspec

from mta.clock import Clock, SystemClock
from mta.companion import Companion, Household, Line, attending
from mta.control import Commands, Question
from mta.events.reader import LogReader
from mta.events.views.following import PATIENCE, Follower, Progress, Reach
from mta.spool.interface import Spool
from mta.spool.lmdb.environment import Place
from mta.spool.lmdb.spool import LmdbSpool
from mta.spool.sealing import Keyring
from mta.supervise import freeze_memory

POLL = 1.0  # seconds between looks that nobody asked for
_SLOWEST = 60.0  # seconds between tries while it fails
_NICE = 10
_REBUILD = b"rebuild"


class Places(msgspec.Struct, frozen=True, array_like=True):
    """What the process needs to know: spool, its keys, segments of the log, directory of the views."""

    spool: Place
    keys: list[bytes]
    segments: str
    views: str


_encode = msgspec.msgpack.Encoder().encode
_decode_places = msgspec.msgpack.Decoder(Places).decode
_decode_progress = msgspec.msgpack.Decoder(Progress).decode


class Building:
    """The role's side, on the loop that it is used on. `run` starts the process, or who asks before."""

    def __init__(self, household: Household, places: Places, clock: Clock) -> None:
        self._household = household
        self._hello = _encode(places)
        self._clock = clock
        self._process: Companion | None = None
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self.progress = Progress()

    async def run(self, stop: asyncio.Event) -> None:
        """Have it running, a little later than what mail waits for."""
        if not await self._clock.wait(stop, POLL):
            self._started()

    async def reach(self, asked: Reach) -> Progress:
        """Wait until a position is reached, PATIENCE seconds at most, and tell how far they are."""
        if self.progress.complete and self.progress.position >= asked.position:
            return self.progress
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked.position, future))
        self._started().say(b"")
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await future
        self._waiting = [each for each in self._waiting if each[1] is not future]
        return self.progress

    async def status(self) -> Progress:
        """Tell how far they are."""
        return self.progress

    async def rebuild(self) -> None:
        """Begin the views anew."""
        self._started().say(_REBUILD)

    def detail(self) -> dict[str, str | int | float]:
        """Say how it goes, in the role's status."""
        now = self.progress
        return {
            "views_seq": now.seq,
            "views_lag": now.lag,
            "views_complete": now.complete,
            "views_trouble": now.trouble,
        }

    def commands(self) -> Commands:
        """What the role's control socket can be asked of them."""
        return {"reach": Question(Reach, self.reach), "views": self.status, "views_rebuild": self.rebuild}

    async def close(self) -> None:
        """End the process after the group under way."""
        if self._process is not None:
            await self._process.close()

    def _started(self) -> Companion:
        if self._process is None:
            self._process = Companion(__name__, "views", self._household, self._hello, self._heard, self._lost)
        return self._process

    def _heard(self, frame: bytes) -> None:
        self.progress = _decode_progress(frame)
        for position, future in self._waiting:
            if self.progress.complete and self.progress.position >= position and not future.done():
                future.set_result(None)

    def _lost(self, reason: str) -> None:
        self.progress = msgspec.structs.replace(self.progress, trouble=reason)


# The process's own side


def main(descriptor: int) -> None:
    """Build for the role at the other end of an inherited socket until it hangs up."""
    with attending(descriptor) as line:
        hello = line.hear()
        if hello is None:
            return
        with suppress(OSError):  # as a unit it may not, and its control group says how much it gets
            os.nice(_NICE)
        asyncio.run(_build(line, _decode_places(hello)))


async def _build(line: Line, places: Places) -> None:
    place, keyring, clock = places.spool, Keyring(places.keys), SystemClock()
    spool = LmdbSpool(Path(place.path), keyring, clock, map_size=place.map_size, reserve=place.reserve)
    follower = follower_of(spool, keyring, places, clock)
    freeze_memory()
    try:
        await _follow(line, follower)
    finally:
        follower.close()
        await spool.close()


def follower_of(spool: Spool, keyring: Keyring, places: Places, clock: Clock) -> Follower:
    """Make what follows the log for an installation's views."""
    return Follower(spool, LogReader(spool, Path(places.segments), keyring), Path(places.views), clock)


async def _follow(line: Line, follower: Follower) -> None:
    """Look at once when asked, each second otherwise. The loop has nothing else to do, and may be held up."""
    pause = 0.0  # seconds between tries while it fails
    look_at = time.monotonic()
    told: Progress | None = None
    while (asked := _asked(line, look_at)) is not None:
        if _REBUILD in asked:
            follower.rebuild("somebody wanted it")
        elif pause and time.monotonic() < look_at:
            continue  # asking does not help
        more = await follower.look()
        if follower.progress != told:
            told = follower.progress
            line.say(_encode(told))
        pause = min(2 * pause or POLL, _SLOWEST) if told.trouble else 0.0
        look_at = time.monotonic() + (pause or (0.0 if more else POLL))


def _asked(line: Line, until: float) -> set[bytes] | None:
    """Hear what the role wants, all that it has said; nothing when the time is over, None when it has hung up."""
    asked: set[bytes] = set()
    while not asked or not line.silent:
        try:
            frame = line.hear(max(0.0, until - time.monotonic()))
        except TimeoutError:
            return asked
        if frame is None:
            return None
        asked.add(frame)
    return asked
