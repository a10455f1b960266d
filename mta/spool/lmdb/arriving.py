"""Content on its way in that is large or shared: committed as it arrives, at most 1 MiB a transaction."""

from uuid_utils import uuid7

from mta.spool.interface import Unavailable
from mta.spool.lmdb.content import PAGE_OCTETS, PAGES_PER_COMMIT, page_count
from mta.spool.lmdb.upkeep import GiveUp, StorePages
from mta.spool.lmdb.writer import Writer
from mta.spool.records import Segment
from mta.spool.sealing import new_content_key


class LmdbContentWriter:
    """One stretch of content."""

    def __init__(self, writer: Writer, now: float) -> None:
        self._writer = writer
        self._now = now
        self._segment = Segment(uuid7().bytes, 0, new_content_key())
        self._pages = 0
        self._size = 0
        self._rest = b""
        self._ended = False

    async def write(self, data: bytes) -> None:
        """Add to the content. All whole pages are durable on return."""
        self._open()
        self._rest += data
        whole = len(self._rest) - len(self._rest) % PAGE_OCTETS
        await self._commit(self._rest[:whole])
        self._rest = self._rest[whole:]

    async def finish(self) -> Segment:
        """End the content and name it; durable on return."""
        self._open()
        self._ended = True
        await self._commit(self._rest)
        return Segment(self._segment.content, self._size, self._segment.key)

    async def abort(self) -> None:
        """Give the content up: the collector takes what was written, unless a message refers to it."""
        self._ended = True
        if self._pages:
            await self._writer.perform(GiveUp(self._segment.content))

    def _open(self) -> None:
        if self._ended:
            raise Unavailable("this content has ended")

    async def _commit(self, data: bytes) -> None:
        step = PAGES_PER_COMMIT * PAGE_OCTETS
        for start in range(0, len(data), step):
            part = data[start : start + step]
            before = self._pages
            self._pages += page_count(len(part))
            self._size += len(part)
            await self._writer.perform(StorePages(self._segment, before, part, self._now))
