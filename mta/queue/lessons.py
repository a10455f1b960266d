"""What was learned of sites, kept in the spool: it survives the process that learned it."""

import asyncio
import logging
from collections.abc import Callable

import msgspec

from mta.clock import Clock
from mta.queue.learned import Learned, Paused
from mta.queue.limits import Limits
from mta.spool.interface import Spool
from mta.spool.sealing import SealBroken

log = logging.getLogger(__name__)

LEARNED = "learned"
PAUSED = "paused"
_TOGETHER = 500  # records
_CLOCKS_DIFFER = 1.0  # seconds
_encode = msgspec.msgpack.Encoder().encode
_DECODE: dict[str, Callable[[bytes], Learned | Paused]] = {
    LEARNED: msgspec.msgpack.Decoder(Learned).decode,
    PAUSED: msgspec.msgpack.Decoder(Paused).decode,
}


class AboutSite(msgspec.Struct, frozen=True):
    """A site that delivery is asked about, as `queue top` names it."""

    site: str


class Lessons:
    """Brings limits and spool together, both ways."""

    def __init__(self, spool: Spool, limits: Limits, clock: Clock) -> None:
        self._spool = spool
        self._limits = limits
        self._clock = clock
        self._stored: dict[tuple[str, str], Learned | Paused] = {}  # by kind and name
        self._keeping = asyncio.Lock()

    async def recall(self) -> None:
        """Begin with what is stored. What cannot be read is learned again."""
        self._stored = await stored(self._spool)
        learned = [each for each in self._stored.values() if isinstance(each, Learned)]
        paused = [each for each in self._stored.values() if isinstance(each, Paused)]
        self._limits.recall(learned, paused, self._clock.monotonic(), self._clock.now())

    async def keep(self) -> None:
        """Store what has changed, and remove what is not known any more. SpoolError: not all of it was."""
        async with self._keeping:
            await self._keep()

    async def _keep(self) -> None:
        learned, paused = self._limits.learned(self._clock.monotonic(), self._clock.now())
        known: dict[tuple[str, str], Learned | Paused] = {
            **{(LEARNED, _name(each.source, each.site)): each for each in learned},
            **{(PAUSED, _name(each.source, each.site, each.tenant)): each for each in paused},
        }
        changed = [key for key, lesson in known.items() if not _same(self._stored.get(key), lesson)]
        gone = [key for key in self._stored if key not in known]
        for first in range(0, len(changed), _TOGETHER):
            await asyncio.gather(*[self._store(*key, known[key]) for key in changed[first : first + _TOGETHER]])
        for first in range(0, len(gone), _TOGETHER):
            await asyncio.gather(*[self._remove(*key) for key in gone[first : first + _TOGETHER]])

    async def _store(self, kind: str, name: str, lesson: Learned | Paused) -> None:
        await self._spool.put_record(kind, name, _encode(lesson), replace=True)
        self._stored[kind, name] = lesson

    async def _remove(self, kind: str, name: str) -> None:
        await self._spool.delete_record(kind, name)
        del self._stored[kind, name]


async def stored(spool: Spool) -> dict[tuple[str, str], Learned | Paused]:
    """Read what is stored, by kind and name; what cannot be read is left out."""
    found: dict[tuple[str, str], Learned | Paused] = {}
    for kind, decode in _DECODE.items():
        try:
            records = await spool.list_records(kind)
        except SealBroken as error:
            log.error("lessons=%s read=no error=%s", kind, error)
            continue
        for name, value in records:
            try:
                found[kind, name] = decode(value)
            except msgspec.MsgspecError as error:  # ValueErrors of ours among them
                log.error("lessons=%s name=%r read=no error=%s", kind, name, error)
    return found


async def forget(spool: Spool, site: str) -> bool:
    """Remove what is stored of a site, while no process is that knows it; tell whether there was anything."""
    gone = [key for key, lesson in (await stored(spool)).items() if lesson.site == site]
    return any([await spool.delete_record(*key) for key in gone])


def _name(*parts: str) -> str:
    return " ".join(part or "-" for part in parts)


def _same(stored: Learned | Paused | None, lesson: Learned | Paused) -> bool:
    """Tell whether a lesson is the stored one, but for the clocks' moving against each other."""
    if isinstance(stored, Learned) and isinstance(lesson, Learned):
        return abs(stored.learned_at - lesson.learned_at) < _CLOCKS_DIFFER
    if isinstance(stored, Paused) and isinstance(lesson, Paused):
        return abs(stored.until - lesson.until) < _CLOCKS_DIFFER
    return False
