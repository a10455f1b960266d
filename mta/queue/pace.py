"""How attempts from one source to one site follow each other: window, learned rate, what the provider allows. Pure.

Times are monotonic seconds. The dispatcher asks `Limits` (limits.py), which has one `Pace` for each (source, site).
"""

import math

from mta.mail.reply import TEXT_LIMIT, Reply
from mta.mail.result import Outcome, Reach, Scope, Verdict
from mta.queue.bucket import Allowance, Bucket, gap_of
from mta.queue.explanation import HeldBy
from mta.queue.learned import Learned
from mta.queue.rate import Rate
from mta.queue.shaping import Provider, Rule
from mta.queue.window import Begun, Met, Window

_SILENT = 600.0  # seconds
REMEMBERED = 7 * 86400.0  # seconds: what was learned longer ago is not believed any more
_CLOSING = 421
_TOO_MUCH = frozenset({"4.3.2", "4.4.5", "4.7.28"})  # RFC 3463 3.4, 3.5: not accepting, congestion; IANA: mail flood


def met(outcome: Outcome) -> Met:
    """Tell what an attempt says of the connections to its site.

    Once there is a session, the site works: whatever is lost or refused later (421 to RCPT or after the dot, content
    that does not get through) is not a failure of the host.
    """
    last = outcome.results[-1]
    if outcome.reach is Reach.NOBODY or any(each.scope is Scope.US for each in outcome.results):
        return Met.NOTHING
    if outcome.reach is Reach.HOST:
        return Met.TURNED_AWAY if last.remote and not last.reply.permanent else Met.FAILED
    if outcome.reach is Reach.SESSION and last.scope is Scope.HOST and not last.remote:
        return Met.FAILED
    return Met.REACHED


def says_too_much(outcome: Outcome) -> bool:
    """Tell whether a site's own words, at whatever step, say that it takes no more for now."""
    return any(
        each.remote
        and each.verdict is Verdict.DEFERRED
        and (each.reply.code == _CLOSING or each.reply.enhanced in _TOO_MUCH)
        for each in outcome.results
    )


class Pace:
    """One (source, site)."""

    def __init__(self, connections: int) -> None:
        """Of a provider that is not known yet; never more than so many connections."""
        self.window = Window(connections)
        self.rate = Rate()
        self.provider: Provider | None = None
        self.reply: Reply | None = None  # the last
        self.learned_at = -math.inf
        self.deliveries = 0  # on a connection, after which the site ends it; 0: not known
        self._closed_after: list[int] = []  # the last three times
        self._buckets: tuple[tuple[Allowance, Bucket], ...] = ()  # those that all attempts take from
        self._dialling: tuple[tuple[Allowance, Bucket], ...] = ()  # and those that dial besides
        self._hangs_up = False  # a connection that was to be used again was not there: all who start may dial

    def run_by(self, provider: Provider | None, connections: int) -> None:
        """Keep to what a provider allows."""
        self.provider = provider
        self.window.keep_to(min(connections, (provider and provider.connections) or connections))
        self._buckets = ((provider.messages, Bucket()),) if provider and provider.messages else ()
        self._dialling = ((provider.new_connections, Bucket()),) if provider and provider.new_connections else ()

    def when(self, now: float, *, dials: bool) -> float:
        """Return from when on an attempt may start: `now` if at once, inf if another has to end first."""
        found = max(self.window.when(now), self.rate.when(now))
        if self._buckets:
            found = max(found, _when(self._buckets, now))
        if self._dialling and (dials or self._hangs_up):
            found = max(found, _when(self._dialling, now))
        return found

    def held_by(self, now: float) -> HeldBy:
        """Name what `when` waits for."""
        if self.window.size == 0:
            return HeldBy.SITE_DEAD
        return HeldBy.RATE if self.window.when(now) <= now else HeldBy.SITE_FULL

    def started(self, now: float, *, dials: bool) -> Begun:
        """Let an attempt start; it has to come back to `ended`, whatever becomes of it."""
        begun = self.window.started(now)
        begun.cost = self.rate.started(now)
        begun.dials = dials or self._hangs_up
        _take(self._buckets, 1, now)
        _take(self._dialling, int(begun.dials), now)
        return begun

    def ended(
        self,
        begun: Begun,
        outcome: Outcome | None,
        now: float,
        *,
        too_much: bool | None = None,
        slow: Rule | None = None,
    ) -> bool:
        """Learn from an attempt (None: it came to nothing by our own doing); True if the site took no more.

        `too_much` is what rules make of the reply, None if it speaks for itself; `slow` a rule that asks to slow down.
        """
        what = Met.NOTHING if outcome is None else met(outcome)
        alone = begun.beside == 0 and self.window.at_work == 1
        self.window.ended(begun, what, now)
        if outcome is None or outcome.reach is Reach.NOBODY:  # nobody was asked
            self.rate.give(begun.at, begun.cost, now)
            _take(self._buckets, -1, now)
        if self._dialling:
            self._book(begun, 0 if outcome is None else outcome.dialled, now)
        if outcome is None or what is Met.NOTHING:
            return False
        self.reply, self.learned_at = in_short(outcome.results[-1].reply), now
        refused = what is Met.TURNED_AWAY or says_too_much(outcome) if too_much is None else too_much
        if what is Met.REACHED and not refused:  # messages that it refused for their own sake were taken up too
            self.rate.taken(now)
        crowded = what is Met.TURNED_AWAY and not alone  # the number of connections may be the reason
        if slow is not None:
            self.rate.slow(slow.factor, slow.lasts, begun.at, now)
        elif (refused and not crowded) or self._closed_early(outcome.closed_after):
            self.rate.refused(begun.at, now)
        return refused

    def _book(self, begun: Begun, dialled: int, now: float) -> None:
        """Charge for the connections that were dialled, which may be others than were foreseen."""
        _take(self._dialling, dialled - int(begun.dials), now)
        if not begun.dials:
            self._hangs_up = dialled > 0
        elif not dialled:
            self._hangs_up = False

    def _closed_early(self, after: int) -> bool:
        """Tell whether a kept connection was ended because of the rate.

        Many sites end each connection after a number of messages. It is learned when it was the same three times in a
        row; 421 after any other is for the rate, where there is known to be a limit.
        """
        if not after:
            return False
        self._closed_after = [*self._closed_after[-2:], after]
        if self._closed_after == [after] * 3:
            self.deliveries = after
        return after != self.deliveries and self.rate.ceiling < math.inf

    def at_rest(self, now: float) -> bool:
        """Tell whether nothing is at stake now: nobody is at work, it may be asked, nothing is owed."""
        owes_nothing = all(bucket.idle(now) for _, bucket in (*self._buckets, *self._dialling))
        return owes_nothing and self.rate.at_rest(now) and self.window.at_work == 0 and self.window.dead_until <= now

    def plain(self, now: float) -> bool:
        """Tell whether nothing would be lost if it were forgotten at rest: nothing to keep, silent for a while."""
        return not self._worth_keeping and now - self.learned_at > _SILENT

    @property
    def _worth_keeping(self) -> bool:
        """Whether a limit was met."""
        return self.rate.ceiling < math.inf or self.window.ceiling is not None or self.deliveries > 0

    def reset(self) -> None:
        """Forget what was learned; attempts at work go on."""
        self.window.reset()
        self.rate = Rate()
        self.reply, self.learned_at, self.deliveries = None, -math.inf, 0
        self._closed_after = []

    def learned(self, source: str, site: str, now: float, wall: float) -> Learned | None:
        """Write down what is known, for a process that starts later; None if no limit is. `wall`: absolute seconds."""
        if not self._worth_keeping:
            return None
        window, rate = self.window, self.rate
        return Learned(
            source=source,
            site=site,
            learned_at=wall - (now - self.learned_at),
            connections=max(1, window.size),
            connections_refused=window.ceiling,
            connections_refused_for=window.ceiling_for,
            ceiling=rate.ceiling if rate.ceiling < math.inf else None,
            factor=rate.factor,
            scale=rate.scale,
            climbed=rate.climbed,
            deliveries=self.deliveries,
        )

    def recall(self, learned: Learned, age: float, now: float) -> None:
        """Begin with what was known `age` seconds ago, if it is not too long ago."""
        if not 0 <= age <= REMEMBERED:
            return
        self.learned_at, self.deliveries = now - age, learned.deliveries
        self.window.recall(learned.connections, learned.connections_refused, learned.connections_refused_for, now - age)
        if learned.ceiling is not None:
            self.rate.recall(learned.ceiling, learned.factor, learned.scale, learned.climbed)


def in_short(reply: Reply) -> Reply:
    """Cut off what is longer than a line: it is remembered of thousands of sites, and a peer's to choose."""
    return reply if len(reply.text) <= TEXT_LIMIT else reply._replace(text=reply.text[:TEXT_LIMIT])


def _when(buckets: tuple[tuple[Allowance, Bucket], ...], now: float) -> float:
    found = now
    for allowance, bucket in buckets:
        found = max(found, bucket.when(now, gap_of(allowance.rate), allowance.burst))
    return found


def _take(buckets: tuple[tuple[Allowance, Bucket], ...], count: int, now: float) -> None:
    """Take so many tokens, or give them back if there are less than none."""
    for allowance, bucket in buckets:
        bucket.take(now, count * gap_of(allowance.rate))
