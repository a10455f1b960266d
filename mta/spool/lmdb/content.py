"""Content: bytes in sealed pages of one LMDB page each, large mail committed as it arrives.

Content that no message refers to stands in the table `loose`: large mail until it is accepted, and what a
message that ended has left behind when it is too much for the transaction that ended it. The collector
takes it away, a bounded number of pages at a time.
"""

from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from uuid_utils import uuid7

from mta.spool.interface import Refused, Unavailable
from mta.spool.lmdb.environment import VALUE_LIMIT, Table
from mta.spool.lmdb.keys import content_key
from mta.spool.records import Segment
from mta.spool.sealing import TAG_BYTES, new_content_key, seal_page

if TYPE_CHECKING:
    from mta.spool.lmdb.writer import Group, Writer

PAGE_OCTETS = VALUE_LIMIT - TAG_BYTES  # octets of content in one sealed page
PAGES_PER_COMMIT = 256  # 1 MiB a transaction
DIRECT_PAGES = 80  # what a message that ends takes with it; more goes to the collector
GRACE = 3600.0  # seconds that content may wait for the message that will refer to it


def page_count(size: int) -> int:
    """How many pages content of `size` octets has."""
    return -(-size // PAGE_OCTETS)


def sealed_pages(segment: Segment, data: bytes, first: int = 0) -> list[tuple[bytes, bytes]]:
    """Cut and seal `data` as the segment's pages from number `first` on."""
    cipher = AESGCM(segment.key)
    content_id = segment.content
    return [
        (
            content_key(content_id, first + number),
            seal_page(cipher, first + number, data[number * PAGE_OCTETS : (number + 1) * PAGE_OCTETS], content_id),
        )
        for number in range(page_count(len(data)))
    ]


def page_keys(segment: Segment) -> list[bytes]:
    """The keys of all pages of a segment."""
    return [content_key(segment.content, number) for number in range(page_count(segment.size))]


def loose_value(pages: int, since: float) -> bytes:
    """A row of `loose`: how many pages, and since when nothing refers to them."""
    return pages.to_bytes(4, "big") + int(since).to_bytes(8, "big")


def read_loose(value: bytes) -> tuple[int, float]:
    """Read a row of `loose`."""
    return int.from_bytes(value[:4], "big"), float(int.from_bytes(value[4:12], "big"))


def check_whole(group: "Group", content_id: bytes, pages: int) -> None:
    """Refused unless content that nothing refers to yet is there with all its pages: the collector may have begun."""
    row = group.get(Table.LOOSE, content_id)
    if row is None or read_loose(row)[0] != pages:
        raise Refused("the content was given up before the message was accepted")


class LmdbContentWriter:
    """Content over 256 KiB on its way in: at most 1 MiB a transaction."""

    def __init__(self, writer: "Writer", now: float) -> None:
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
        """Give the content up: the collector takes what was written."""
        if not self._ended and self._pages:
            self._ended = True
            row = [(self._segment.content, loose_value(self._pages, 0))]
            await self._writer.submit(lambda group: group.put(Table.LOOSE, row))
        self._ended = True

    def _open(self) -> None:
        if self._ended:
            raise Unavailable("this content has ended")

    async def _commit(self, data: bytes) -> None:
        step = PAGES_PER_COMMIT * PAGE_OCTETS
        for start in range(0, len(data), step):
            await self._add(data[start : start + step])

    async def _add(self, data: bytes) -> None:
        name, before = self._segment.content, self._pages
        pairs = sealed_pages(self._segment, data, before)
        self._pages += len(pairs)
        self._size += len(data)
        row = [(name, loose_value(self._pages, self._now))]

        def put(group: "Group") -> None:
            if before:
                check_whole(group, name, before)
            group.put(Table.CONTENT, pairs)
            group.put(Table.LOOSE, row)

        await self._writer.submit(put, admits=True)
