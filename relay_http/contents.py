"""Where the octets of a request's messages go: with the call that accepts them, or into the spool before it."""

from collections.abc import Sequence
from contextlib import suppress

import msgspec

from mta.queue.submission import Submission
from mta.spool.interface import ContentWriter, Spool, SpoolError
from mta.spool.records import Segment
from relay_http.body import Held
from relay_http.writing import Draft

LARGE = 256 << 10  # octets: content is committed before it is accepted
SHARED_FROM = 100_000  # octets of copies, from which on a content in common is cheaper (decision 26)
_INLINE_LIMIT = 8 << 20  # octets of contents that one call may bring with it
_STORE_STEP = 1 << 20


class Contents:
    """The contents of one request. What is stored and not accepted is to be given up."""

    def __init__(self, spool: Spool, held: Held) -> None:
        self._spool = spool
        self._held = held
        self._written: list[ContentWriter] = []
        self._shared: dict[tuple[int, ...], Segment] = {}
        self._carried = 0

    async def submissions(self, drafts: Sequence[Draft]) -> list[Submission]:
        """Give messages their content."""
        uses: dict[tuple[int, ...], int] = {}
        for each in drafts if len(drafts) > 1 else ():
            for key in (_whole(each), _end(each)):
                uses[key] = uses.get(key, 0) + 1
        submissions: list[Submission] = []
        for each in drafts:
            own: tuple[bytes, ...] = each.head, each.lead, each.rest
            shared: tuple[Segment, ...] = ()
            if (uses.get(_whole(each), 1) - 1) * (len(each.lead) + len(each.rest)) >= SHARED_FROM:
                own, shared = (each.head,), (await self._share(_whole(each), (each.lead, each.rest)),)
            elif (uses.get(_end(each), 1) - 1) * len(each.rest) >= SHARED_FROM:
                own, shared = (each.head, each.lead), (await self._share(_end(each), (each.rest,)),)
            submissions.append(await self._with(each, own, shared))
        return submissions

    async def give_up(self) -> None:
        """Let the collector have what was stored, but for what a message refers to; what cannot be, in an hour."""
        for writer in self._written:
            with suppress(SpoolError):
                await writer.abort()

    async def _with(self, draft: Draft, own: tuple[bytes, ...], shared: tuple[Segment, ...]) -> Submission:
        size = sum([len(each) for each in own])
        if size > LARGE or self._carried + size > _INLINE_LIMIT:
            return msgspec.structs.replace(draft.submission, stored=(await self._store(own),), shared=shared)
        self._carried += size
        self._held.add(size)
        return msgspec.structs.replace(draft.submission, content=b"".join(own), shared=shared)

    async def _share(self, key: tuple[int, ...], pieces: tuple[bytes, ...]) -> Segment:
        found = self._shared.get(key)
        if found is None:
            found = self._shared[key] = await self._store(pieces)
        return found

    async def _store(self, pieces: Sequence[bytes]) -> Segment:
        writer = self._spool.store_content()
        self._written.append(writer)
        for octets in pieces:
            for at in range(0, len(octets), _STORE_STEP):
                await writer.write(octets[at : at + _STORE_STEP])
        return await writer.finish()


def _whole(draft: Draft) -> tuple[int, ...]:
    return id(draft.lead), id(draft.rest)


def _end(draft: Draft) -> tuple[int, ...]:
    return (id(draft.rest),)
