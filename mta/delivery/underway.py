"""What is known of one attempt while it is under way: whom it met, how far it got, how it was broken off."""

import asyncio

from mta.delivery import trouble
from mta.delivery.letter import Letter
from mta.delivery.smtp import Connection
from mta.delivery.sources import Choice
from mta.delivery.trouble import Exchange, Fault, Stage
from mta.mail.result import Outcome, Reach, Result, Verdict
from mta.queue.job import Job
from mta.queue.limits import Start


class Underway:
    """An attempt from its claim until its outcome."""

    def __init__(self, job: Job, start: Start | None, started_at: float) -> None:
        self.job = job
        self.start = start  # by its limits; None: they were not asked
        self.recipients = job.recipients
        self.started_at = started_at
        self.task = asyncio.current_task()
        self.broken_off: Fault | None = None
        self.counted = True
        self.cut_short = False
        self.letter: Letter | None = None
        self.signed = ""
        self.site = job.entry.destination  # until it is known where that goes
        self.relay = self.source = self.source_name = self.tls = self.policy = ""
        self.choice: Choice | None = None  # of a source, until it is known what became of it
        self.retry_after: float | None = None
        self._reply_lost = False  # that to the final dot
        self.reach = Reach.NOBODY
        self.closed_after = self.dialled = 0
        self._connection: Connection | None = None

    def meet(self, connection: Connection, policy: str) -> None:
        """Note over which connection it goes now, and who demanded what of that."""
        self._connection = connection
        self.policy = policy
        self.relay, self.source, self.tls = str(connection.target), connection.source, connection.tls

    def got(self, reach: Reach) -> None:
        """Note how far it got; what it reached once counts."""
        self.reach = max(self.reach, reach)

    @property
    def past_dot(self) -> bool:
        """Whether the final dot was sent, and its reply is not there yet."""
        return self._connection is not None and self._connection.wire.past_dot

    def heard(self, said: Exchange) -> None:
        """Note what was said in a transaction."""
        self._reply_lost = said.trouble is not None and said.trouble.stage is Stage.DOT

    def delivered(self, results: tuple[Result, ...]) -> int:
        """Count the recipients that the peer has taken, or may have."""
        if self._reply_lost or self.past_dot:
            return len(self.recipients)
        return len([each for each in results if each.verdict is Verdict.DELIVERED])

    def everyone(self, result: Result) -> tuple[Result, ...]:
        """Give all recipients the same result."""
        return (result,) * len(self.recipients)

    def break_off(self, why: Fault) -> None:
        """End it, if it was not ended before."""
        if self.task is not None and self.broken_off is None:
            self.broken_off = why
            self.task.cancel()

    def outcome(self, results: tuple[Result, ...], ended_at: float) -> Outcome:
        """Say what came of it."""
        return Outcome(
            results=results,
            started_at=self.started_at,
            ended_at=ended_at,
            site=self.site,
            relay=self.relay,
            reach=self.reach,
            closed_after=self.closed_after,
            dialled=self.dialled,
            source=self.source,
            source_name=self.source_name,
            tls=self.tls,
            policy=self.policy,
            signed=self.signed,
            counted=self.counted,
            broken_off=self.cut_short,
            retry_after=self.retry_after or trouble.hint(results),
        )
