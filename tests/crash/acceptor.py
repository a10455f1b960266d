"""A process that does nothing but use the spool: accepts, claims and settles as the roles do, and says so.

`python -m tests.crash.acceptor SPOOL KEYFILE PREFIX SABOTAGE [COUNT]` accepts COUNT requests, without COUNT
until it is killed. It writes `offered TAG` before a call and, when the call has returned and never before,
`acked TAG` or `ended RECIPIENT`.
"""

import asyncio
import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

import msgspec

from mta.clock import SystemClock
from mta.config import Retry
from mta.mail.envelope import Envelope, Recipient
from mta.mail.ids import new_message_id
from mta.mail.reply import Reply
from mta.mail.result import Outcome, Result, Verdict
from mta.queue.job import Job
from mta.queue.queue import Queue
from mta.queue.scheduler import Scheduler
from mta.queue.submission import Submission
from mta.spool.interface import Spool, SpoolError
from mta.spool.lmdb.spool import LmdbSpool
from mta.spool.records import Origin, Segment
from mta.spool.sealing import load_keyring
from tests.crash.letters import letter, parts, recipients_of, sender_of, tags_of
from tests.crash.sabotage import Sabotage, planted

WORKERS = 8
_LARGE = 256 * 1024  # octets from which content is committed as it arrives
_RESULTS = (
    Result(Verdict.DELIVERED, Reply(250, "2.0.0", "taken")),
    Result(Verdict.DEFERRED, Reply(451, "4.7.1", "later")),
    Result(Verdict.DELIVERED, Reply(250, "2.0.0", "taken")),
    Result(Verdict.FAILED, Reply(550, "5.1.1", "nobody")),
)


def _say(line: str) -> None:
    os.write(1, f"{line}\n".encode())  # one write, so that a line is whole or not there


async def _accept(spool: Spool, queue: Queue, requests: Iterator[str]) -> None:
    for request in requests:
        tags = tags_of(request)
        submissions = await _submissions(spool, tags)
        for tag in tags:
            _say(f"offered {tag}")
        await queue.accept(*submissions)
        for tag in tags:
            _say(f"acked {tag}")


async def _submissions(spool: Spool, tags: tuple[str, ...]) -> list[Submission]:
    """Make a request's letters: what is large is stored before, and what several have in common once."""
    made = [_submission(tag) for tag in tags]
    if len(made) > 1:
        heads, texts = zip(*map(parts, tags), strict=True)
        shared = (await _stored(spool, texts[0]),)
        return [
            msgspec.structs.replace(each, content=head, shared=shared) for each, head in zip(made, heads, strict=True)
        ]
    if len(made[0].content) > _LARGE:
        return [msgspec.structs.replace(made[0], content=b"", stored=(await _stored(spool, made[0].content),))]
    return made


def _submission(tag: str) -> Submission:
    envelope = Envelope(sender=sender_of(tag), recipients=tuple(map(Recipient, recipients_of(tag))))
    return Submission(id=new_message_id(), tenant="acme", envelope=envelope, origin=Origin.RELAY, content=letter(tag))


async def _stored(spool: Spool, data: bytes) -> Segment:
    writer = spool.store_content()
    await writer.write(data)
    return await writer.finish()


def _outcome(job: Job, now: float) -> Outcome:
    results = tuple(_RESULTS[crc32(each.address.encode()) % len(_RESULTS)] for each in job.recipients)
    return Outcome(results=results, started_at=now, ended_at=now, site="mx.test", relay="mx.test[192.0.2.1]:25")


async def _deliver(queue: Queue, scheduler: Scheduler, clock: SystemClock, bell: asyncio.Event) -> None:
    while True:
        await clock.wait(bell, 1.0)
        bell.clear()
        for lane in await scheduler.due_lanes():
            while (job := await scheduler.next_job(lane)) is not None:
                outcome = _outcome(job, clock.now())
                await queue.settle(job, outcome)
                scheduler.done(job)
                for recipient, result in zip(job.recipients, outcome.results, strict=True):
                    if result.verdict is not Verdict.DEFERRED:
                        _say(f"ended {recipient.address}")


async def _run(spool_dir: Path, key_file: Path, prefix: str, count: int | None) -> None:
    clock, bell = SystemClock(), asyncio.Event()
    spool = LmdbSpool(spool_dir, load_keyring(key_file), clock, map_size=1 << 30, reserve=0)
    queue = Queue(spool, clock, "relay.test", Retry(), bell.set)
    await queue.take_over()
    numbers = itertools.count() if count is None else iter(range(count))
    requests = (f"{prefix}x{number}" for number in numbers)
    async with asyncio.TaskGroup() as both:
        deliverer = both.create_task(_deliver(queue, Scheduler(spool, queue, clock), clock, bell))
        async with asyncio.TaskGroup() as acceptors:
            for _ in range(WORKERS):
                acceptors.create_task(_accept(spool, queue, requests))
        deliverer.cancel()


def main(arguments: list[str]) -> int:
    """Run until told otherwise; 1 when the spool fails, which is what a power cut looks like from inside."""
    spool_dir, key_file, prefix, sabotage, *rest = arguments
    code = 0
    with planted(Sabotage(sabotage)):
        try:
            asyncio.run(_run(Path(spool_dir), Path(key_file), prefix, int(rest[0]) if rest else None))
        except* SpoolError as errors:
            sys.stderr.write(f"{errors.exceptions[0]}\n")
            code = 1
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
