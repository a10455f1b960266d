"""A simulated mailbox provider with limits of its own, and a sender that keeps to `Limits`: pure, on simulated time.

The provider allows so many messages a minute (three ways to count them) and so many connections, and says 421 beyond.
The sender has no rule for it: what it learns, it learns from 421 alone. Connections are kept between messages, and one
that answers MAIL with 421 is dialled anew at once, as mta.delivery.attempt does.
"""

import heapq
import math
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Literal, NamedTuple

from mta.mail.reply import Reply
from mta.mail.result import Outcome, Reach, Result, Scope, Verdict
from mta.queue.limits import About, Limits, Start
from mta.queue.shaping import Shaping

TAKEN = Result(Verdict.DELIVERED, Reply(250, "2.0.0", "taken"))
UNKNOWN = Result(Verdict.FAILED, Reply(550, "5.1.1", "no such user"), Scope.RECIPIENT)
CLOSING = Reply(421, "4.7.0", "try again later, closing connection")
ABOUT = About("192.0.2.1", "mx.provider.test", "acme", ("mx.provider.test",))
IDLE = 10.0  # seconds that a connection is kept
Counting = Literal["sliding", "fixed", "bucket"]


class Habits(NamedTuple):
    """How a provider counts and answers, how far away it is, and how long a message takes."""

    counting: Counting = "sliding"
    at_greeting: bool = False  # where it refuses for the rate: at the greeting, or at MAIL
    counts_refused: bool = False  # whether what was refused counts against the rate as well
    trip: float = 0.1  # seconds there and back
    content: float = 0.2  # seconds for the content, mean
    per_minute: int = 20
    connections: int = 2
    per_connection: int = 10**9  # messages, after which it ends a connection with 421
    unknown: float = 0.0  # share of the messages whose recipient does not exist


class Provider:
    """The receiving side."""

    def __init__(self, habits: Habits, rng: Random) -> None:
        self.habits = habits
        self.open = 0
        self.offered: list[tuple[float, bool]] = []  # when, and whether it was taken
        self._phase = rng.uniform(0, 60)
        self._recent: deque[float] = deque()
        self._tokens, self._tokens_at = float(habits.per_minute), 0.0

    def connects(self) -> bool:
        return self.open < self.habits.connections

    def takes(self, now: float) -> bool:
        """Count a message; tell whether it is within the rate."""
        taken = self._within(now)
        self.offered.append((now, taken))
        return taken

    def _within(self, now: float) -> bool:
        habits = self.habits
        if habits.counting == "bucket":
            self._tokens += (now - self._tokens_at) * habits.per_minute / 60
            self._tokens, self._tokens_at = min(float(habits.per_minute), self._tokens), now
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True
        since = now - 60 if habits.counting == "sliding" else (now + self._phase) // 60 * 60 - self._phase
        while self._recent and self._recent[0] <= since:
            self._recent.popleft()
        within = len(self._recent) < habits.per_minute
        if within or habits.counts_refused:
            self._recent.append(now)
        return within


class Sender:
    """The sending side: an endless backlog, started whenever `Limits` allows it."""

    def __init__(self, provider: Provider, rng: Random, limits: Limits | None = None, now: float = 1000.0) -> None:
        self.provider = provider
        self.limits = limits or Limits(Shaping(), 20)
        self.now = now
        self.ended: list[tuple[float, Outcome]] = []
        self.most_at_work = 0
        self._at_work = 0
        self._rng = rng
        self._kept: list[tuple[float, int]] = []  # since when, and of how many transactions
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def run(self, until: float) -> None:
        while True:
            while (wake := self.limits.when(ABOUT, self.now, dials=not self._kept)) <= self.now:
                self._begin()
            coming = self._events[0][0] if self._events else math.inf
            self.now = min(wake, coming)
            if self.now >= until:
                self.now = until
                return
            if coming <= wake:
                heapq.heappop(self._events)[2]()

    def mean(self, since: float, until: float) -> float:
        """Messages taken up a minute."""
        return 60 * sum(taken for at, taken in self.provider.offered if since <= at < until) / (until - since)

    def refused(self, since: float, until: float) -> float:
        """The share of attempts that ended without the message taken up."""
        ended = [outcome.results[0].verdict for at, outcome in self.ended if since <= at < until]
        return ended.count(Verdict.DEFERRED) / len(ended)

    def _after(self, trips: float, then: Callable[[], None], more: float = 0.0) -> None:
        self._count += 1
        seconds = trips * self.provider.habits.trip * self._rng.uniform(0.8, 1.6) + more
        heapq.heappush(self._events, (self.now + seconds, self._count, then))

    def _begin(self) -> None:
        start = self.limits.started(ABOUT, self.now, dials=not self._kept)
        self._at_work += 1
        self.most_at_work = max(self.most_at_work, self._at_work)
        if self._kept:
            _, transactions = self._kept.pop()
            self._after(1, lambda: self._mail(start, transactions))
        else:
            self._after(1, lambda: self._greeting(start))

    def _greeting(self, start: Start, closed_after: int = 0) -> None:
        at_greeting = self.provider.habits.at_greeting
        if not self.provider.connects() or (at_greeting and not self.provider.takes(self.now)):
            self._after(0.5, lambda: self._end(start, Reach.HOST, 0, closed_after))
            return
        self.provider.open += 1
        go_on = self._content if at_greeting else self._mail
        self._after(2, lambda: go_on(start, 0, closed_after))

    def _mail(self, start: Start, transactions: int, closed_after: int = 0) -> None:
        if transactions < self.provider.habits.per_connection and self.provider.takes(self.now):
            self._content(start, transactions, closed_after)
            return
        self.provider.open -= 1
        if transactions:
            self._after(0.5, lambda: self._greeting(start, transactions))
        else:
            self._after(0.5, lambda: self._end(start, Reach.SESSION, 0, closed_after))

    def _content(self, start: Start, transactions: int, closed_after: int) -> None:
        more = self._rng.expovariate(1 / self.provider.habits.content)
        self._after(2, lambda: self._end(start, Reach.TRANSACTION, transactions, closed_after), more)

    def _end(self, start: Start, reach: Reach, transactions: int, closed_after: int) -> None:
        if reach is Reach.TRANSACTION:
            result = UNKNOWN if self._rng.random() < self.provider.habits.unknown else TAKEN
            self._kept.append((self.now, transactions + 1))
            self._after(0, self._sweep, IDLE)
        else:
            result = Result(Verdict.DEFERRED, CLOSING, Scope.HOST)
        outcome = Outcome(
            results=(result,),
            started_at=start.begun.at,
            ended_at=self.now,
            site="mx",
            relay="mx.provider.test",
            reach=reach,
            closed_after=closed_after,
        )
        self._at_work -= 1
        self.ended.append((self.now, outcome))
        self.limits.ended(start, outcome, self.now)

    def _sweep(self) -> None:
        while self._kept and self._kept[0][0] <= self.now - IDLE:
            self._kept.pop(0)
            self.provider.open -= 1
