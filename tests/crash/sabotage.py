"""What the harness must be able to see: ways to break the promises, and one to say nothing, planted from without.

Each is a context in which the product's own classes misbehave; a process that is to be sabotaged enters it
before it builds anything. Nothing here can be reached by a setting of the product.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

from mta.accounts import tolls
from mta.accounts.tolls import Rate
from mta.mail.result import Outcome
from mta.queue.job import Job
from mta.queue.queue import Queue
from mta.queue.submission import Receipt, Submission
from mta.spool.interface import Toll
from mta.spool.lmdb import steps
from mta.spool.lmdb.spool import LmdbSpool
from mta.spool.records import Wish

ROOT = Path(__file__).parents[2]
_Result = TypeVar("_Result")
_AFTERWARDS = 0.05  # seconds from the answer to the commit: as long as a disk under load may take


class Sabotage(StrEnum):
    """What is broken."""

    NONE = "none"
    NO_SYNC = "no-sync"  # commits are not fsynced
    ANSWER_FIRST = "answer-first"  # the answer leaves before the commit
    FORGET_OUTCOME = "forget-outcome"  # outcomes are not stored
    MUTE = "mute"  # while there is a file of that name where it runs, answers are withheld after the commit
    END_SHARED = "end-shared"  # shared content goes with the first message that ends
    RATE_EACH = "rate-each"  # each process has all of a rate for itself


def environ(sabotage: Sabotage) -> dict[str, str]:
    """Make the environment of a process that is to be sabotaged, or not.

    The product runs as it was asked for (scripts/compiled). What is sabotaged runs from its source, because
    compiled classes cannot be tampered with.
    """
    asked_for = os.environ.get("PYTHONPATH") if sabotage is Sabotage.NONE else None
    return {**os.environ, "PYTHONPATH": asked_for or str(ROOT)}


@contextmanager
def _no_sync() -> Iterator[None]:
    made = LmdbSpool.__init__

    def make(self: LmdbSpool, *args: Any, **options: Any) -> None:
        made(self, *args, **{**options, "sync": False})

    with mock.patch.object(LmdbSpool, "__init__", make):
        yield


@contextmanager
def _answer_first() -> Iterator[None]:
    accept = Queue.accept
    afterwards: set[asyncio.Task[None]] = set()

    async def answer(self: Queue, *submissions: Submission) -> list[Receipt]:
        async def commit() -> None:
            await asyncio.sleep(_AFTERWARDS)
            await accept(self, *submissions)

        task = asyncio.create_task(commit())
        afterwards.add(task)
        task.add_done_callback(afterwards.discard)
        return [Receipt(each.id, 0) for each in submissions]

    async def answer_each(self: Queue, submissions: Sequence[Submission], _: object = ()) -> list[Receipt]:
        return await answer(self, *submissions)

    with mock.patch.multiple(Queue, accept=answer, accept_each=answer_each):
        yield


@contextmanager
def _forget_outcome() -> Iterator[None]:
    async def settle(self: Queue, job: Job, outcome: Outcome, wish: Wish | None = None) -> bool:
        return True

    with mock.patch.object(Queue, "settle", settle):
        yield


@contextmanager
def _mute() -> Iterator[None]:
    """Write an octet into the file for each answer that is withheld."""

    def muted(store: Callable[..., Awaitable[_Result]]) -> Callable[..., Awaitable[_Result]]:
        async def accept(self: Queue, *args: Any) -> _Result:
            result = await store(self, *args)
            mute = Path(Sabotage.MUTE)
            if mute.exists():
                with mute.open("ab") as file:
                    file.write(b".")
                await asyncio.Event().wait()
            return result

        return accept

    doors = {name: muted(getattr(Queue, name)) for name in ("accept", "accept_on", "accept_each")}
    with mock.patch.multiple(Queue, **doors):
        yield


@contextmanager
def _end_shared() -> Iterator[None]:
    with mock.patch.object(steps, "_was_last", return_value=True):
        yield


@contextmanager
def _rate_each() -> Iterator[None]:
    made = tolls._toll

    def own(name: str, rate: Rate, units: int) -> Toll:
        return made(f"{name} of {os.getpid()}", rate, units)

    with mock.patch.object(tolls, "_toll", own):
        yield


_PLANTS: dict[Sabotage, Callable[[], AbstractContextManager[None]]] = {
    Sabotage.NONE: nullcontext,
    Sabotage.NO_SYNC: _no_sync,
    Sabotage.ANSWER_FIRST: _answer_first,
    Sabotage.FORGET_OUTCOME: _forget_outcome,
    Sabotage.MUTE: _mute,
    Sabotage.END_SHARED: _end_shared,
    Sabotage.RATE_EACH: _rate_each,
}


def planted(sabotage: Sabotage) -> AbstractContextManager[None]:
    """The context in which the product is broken in this way."""
    return _PLANTS[sabotage]()
