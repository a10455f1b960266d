"""Where the octets of many messages go: what they share is handled once, and one call brings a bounded amount."""

from typing import SupportsIndex

import pytest

from mta.mail.envelope import Envelope
from mta.queue.submission import Submission
from mta.spool.interface import Unavailable
from mta.spool.records import Origin
from relay_http.body import Budget, Held
from relay_http.contents import Contents
from relay_http.writing import Draft
from tests.unit.relay_http.conftest import MemorySpool

_SUBMISSION = Submission(id="x", tenant="shop", envelope=Envelope(sender="", recipients=()), origin=Origin.HTTP)


class Counted(bytes):
    """Octets that count how often they are copied."""

    copies = 0

    def __add__(self, other: object) -> bytes:
        Counted.copies += 1
        return bytes(self) + other  # type: ignore[operator, no-any-return]

    def __getitem__(self, key: SupportsIndex | slice) -> bytes:  # type: ignore[override]
        Counted.copies += 1
        return bytes(self)[key]  # type: ignore[index, return-value]


def held() -> Held:
    return Budget(256 << 20).hold()


@pytest.mark.tampers  # counts what Python adds and slices
async def test_what_messages_share_is_not_copied_for_each_of_them() -> None:
    Counted.copies = 0
    lead, rest = Counted(b"lead"), Counted(b"rest" * 50_000)
    drafts = [Draft(_SUBMISSION, b"head", lead, rest) for _ in range(50)]
    spool = MemorySpool()
    submissions = await Contents(spool, held()).submissions(drafts)  # type: ignore[arg-type]
    assert Counted.copies == 2  # each is written once
    assert list(spool.contents.values()) == [bytes(lead) + bytes(rest)]
    assert len({each.shared for each in submissions}) == 1


async def test_what_is_each_ones_own_beside_shared_files_is_bounded_in_one_call() -> None:
    rest = b"r" * 100_000
    drafts = [Draft(_SUBMISSION, b"head", b"%02d" % number * 100_000, rest) for number in range(60)]
    spool = MemorySpool()
    submissions = await Contents(spool, held()).submissions(drafts)  # type: ignore[arg-type]
    assert 0 < sum(len(each.content) for each in submissions) <= 8 << 20
    for draft, each in zip(drafts, submissions, strict=True):
        segments = [spool.contents[segment.content] for segment in each.stored]
        shared = [spool.contents[segment.content] for segment in each.shared]
        assert b"".join([*segments, each.content, *shared]) == draft.head + draft.lead + draft.rest


async def test_a_spool_that_does_not_take_it_back_hides_nothing() -> None:
    spool = MemorySpool()
    contents = Contents(spool, held())  # type: ignore[arg-type]
    await contents.submissions([Draft(_SUBMISSION, b"h" * 300_000, b"", b"")] * 2)
    spool.abort_error = Unavailable("closed")
    await contents.give_up()
    assert spool.aborted == 2
