"""Content: bytes in sealed pages of one LMDB page each, large mail committed as it arrives.

Content that no message refers to stands in the table `loose`: large mail until it is accepted, and what a
message that ended has left behind when it is too much for the transaction that ended it. The collector
takes it away, a bounded number of pages at a time. Content that messages of one request share is counted in
`shared`, in the transactions in which these come and end: the last takes it along.
"""

from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mta.spool.interface import Refused
from mta.spool.lmdb.environment import VALUE_LIMIT, Table
from mta.spool.lmdb.keys import content_key
from mta.spool.records import Segment
from mta.spool.sealing import TAG_BYTES, seal_page

if TYPE_CHECKING:
    from mta.spool.lmdb.commit import Group

PAGE_OCTETS = VALUE_LIMIT - TAG_BYTES  # octets of content in one sealed page
PAGES_PER_COMMIT = 260  # 1 MiB a transaction, and what was left of the page before
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


def users_value(users: int) -> bytes:
    """A row of `shared`: in how many places of messages it stands."""
    return users.to_bytes(4, "big")


def read_users(value: bytes) -> int:
    """Read a row of `shared`."""
    return int.from_bytes(value, "big")


def check_whole(group: "Group", content_id: bytes, pages: int) -> None:
    """Refused unless content that nothing refers to yet is there with all its pages: the collector may have begun."""
    row = group.get(Table.LOOSE, content_id)
    if row is None or read_loose(row)[0] != pages:
        raise Refused("the content was given up before the message was accepted")
